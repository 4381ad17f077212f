"""Promise 1: what Django and its users expect of any engine."""

import asyncio
import dataclasses
import logging
from typing import Any

import pytest
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.test import override_settings

from ...exceptions import EngineUnavailable
from ...records import identify
from ..stored import KEY, USER_ID, a_record, close_connections, saved, stored, untouched


class TestDropIn:
    """Promise 1: what Django and its users expect of any engine."""

    def test_a_new_session_is_empty_and_untouched(self, Store, face):
        session = face(Store())
        assert session.is_empty()
        assert not session.modified
        assert not session.accessed
        assert session.session_key is None

    def test_the_constructor_does_no_io(self, Store):
        class Nowhere(Store):
            storage = astorage = None

        assert Nowhere(KEY).session_key == KEY

    def test_a_saved_session_is_found(self, Store, face):
        key = saved(face, Store, cart=[1, {"sku": "é"}], visits=3)
        assert stored(face, Store, key) == {"cart": [1, {"sku": "é"}], "visits": 3}

    def test_an_empty_session_is_stored_too(self, Store, face):
        assert face(Store()).exists(saved(face, Store)) is True

    def test_get_and_its_default(self, Store, face):
        session = face(Store())
        assert session.get("no") is None
        assert session.get("no", 1) == 1
        assert session.accessed
        assert not session.modified

    def test_writes_set_modified_and_reads_do_not(self, Store, face):
        session = face(Store(saved(face, Store, a=1)))
        assert session["a"] == 1
        assert list(session.keys()) == ["a"]
        assert list(session.values()) == [1]
        assert "a" in session
        assert session.pop("no", None) is None
        assert not session.modified
        session["b"] = 2
        assert session.modified

    def test_pop_of_what_is_there_modifies(self, Store, face):
        session = face(Store(saved(face, Store, a=1)))
        assert session.pop("a") == 1
        assert session.modified
        with pytest.raises(KeyError):
            session.pop("a")

    def test_setdefault(self, Store, face):
        session = face(Store())
        assert session.setdefault("a", 1) == 1
        assert session.setdefault("a", 2) == 1

    def test_the_test_cookie_sets_modified_both_times(self, Store, face):
        session = face(Store())
        session.set_test_cookie()
        assert session.test_cookie_worked()
        session.modified = False
        session.delete_test_cookie()
        assert session.modified
        assert not session.test_cookie_worked()

    def test_clear_and_save_empties_what_is_stored(self, Store, face):
        key = saved(face, Store, a=1)
        session = face(Store(key))
        session.clear()
        session.save()
        assert stored(face, Store, key) == {}
        assert session.session_key == key

    def test_each_load_returns_a_new_dict(self, Store, face):
        session = face(Store(saved(face, Store, a=1)))
        assert session.load() == session.load()
        assert session.load() is not session.load()

    def test_create_keeps_the_data_and_persists_once(self, Store, face, verbs):
        session = face(Store())
        session["a"] = 1
        session.create()
        assert session.modified
        assert stored(face, Store, session.session_key) == {"a": 1}
        assert len(verbs.scan(None, 10)) == 1

    def test_an_unknown_key_loads_empty_and_is_not_adopted(self, Store, face, verbs):
        session = face(Store(KEY))
        assert session.load() == {}
        assert session.session_key is None
        assert verbs.scan(None, 10) == []

    def test_a_session_under_an_unknown_key_is_saved_under_a_new_one(self, Store, face):
        session = face(Store(KEY))
        session["a"] = 1
        session.save()
        assert session.session_key != KEY
        assert stored(face, Store, session.session_key) == {"a": 1}

    def test_saving_an_unknown_key_unseen_is_refused(self, Store, face):
        with pytest.raises(UpdateError):
            face(Store(KEY)).save()
        assert face(Store()).exists(KEY) is False

    def test_exists_is_a_bool(self, Store, face):
        key = saved(face, Store)
        session = face(Store())
        assert session.exists(key) is True
        assert session.exists(KEY) is False
        assert session.exists(None) is False
        assert session.exists("") is False

    def test_delete_without_a_key_means_the_own_and_keeps_it(self, Store, face):
        key = saved(face, Store)
        session = face(Store(key))
        session.delete()
        assert session.session_key == key
        assert session.exists(key) is False

    def test_delete_of_another_or_of_nothing(self, Store, face):
        key = saved(face, Store)
        session = face(Store())
        session.delete()
        session.delete(KEY)
        session.delete(key)
        assert session.exists(key) is False

    def test_flush(self, Store, face):
        key = saved(face, Store, a=1)
        session = face(Store(key))
        session.load()
        session.flush()
        assert session.session_key is None
        assert session.is_empty()
        assert session.modified
        assert session.exists(key) is False

    def test_cycle_key_keeps_the_data_under_a_new_key(self, Store, face):
        key = saved(face, Store, a=1)
        session = face(Store(key))
        session.cycle_key()
        assert session.session_key != key
        assert session.exists(key) is False
        assert stored(face, Store, session.session_key) == {"a": 1}

    def test_cycle_key_of_a_session_without_one(self, Store, face):
        session = face(Store())
        session["a"] = 1
        session.cycle_key()
        assert stored(face, Store, session.session_key) == {"a": 1}

    def test_cycle_key_keeps_the_age_of_the_session(self, Store, face, verbs, clock):
        key = saved(face, Store, a=1)
        born = verbs.read(identify(key)).created_at
        clock.shift(60)
        session = face(Store(key))
        session.cycle_key()
        assert verbs.read(identify(session.session_key)).created_at == born

    def test_a_flushed_session_begins_a_new_age(self, Store, face, verbs, clock):
        session = face(Store(saved(face, Store, a=1)))
        session.load()
        clock.shift(60)
        session.flush()
        session.save()
        record = verbs.read(identify(session.session_key))
        assert record.created_at == record.updated_at

    def test_must_create_refuses_a_taken_key(self, Store, face):
        key = saved(face, Store, a=1)
        with pytest.raises(CreateError):
            face(Store(key)).save(must_create=True)
        assert stored(face, Store, key) == {"a": 1}

    def test_must_create_of_a_free_key(self, Store, face):
        face(Store(KEY)).save(must_create=True)
        assert face(Store()).exists(KEY) is True

    def test_create_tries_again_when_a_key_is_taken(self, Store, face, monkeypatch):
        keys = iter([saved(face, Store, mine=False), KEY])
        monkeypatch.setattr(Store, "_get_new_session_key", lambda self: next(keys))
        session = face(Store())
        session["mine"] = True
        session.create()
        assert session.session_key == KEY
        assert stored(face, Store, KEY) == {"mine": True}

    def test_a_nested_change_is_saved_when_a_save_is_asked_for(self, Store, face):
        key = saved(face, Store, cart=[1])
        session = face(Store(key))
        session.get("cart").append(2)
        session.save()
        assert stored(face, Store, key) == {"cart": [1, 2]}

    def test_an_unchanged_save_moves_the_expiry_alone(self, Store, face, verbs, clock):
        key = saved(face, Store, a=1)
        before = verbs.read(identify(key))
        clock.shift(3600)
        face(Store(key)).save()
        after = verbs.read(identify(key))
        assert after.expires_at > before.expires_at
        assert after.updated_at > before.updated_at
        assert untouched(after, before) == before

    def test_a_key_set_by_hand_is_written_whole(self, Store, face):
        key, other = saved(face, Store, a=1), saved(face, Store, b=2)
        session = face(Store(key))
        assert session["a"] == 1
        session._session_key = other
        session.save()
        assert stored(face, Store, other) == {"a": 1}

    def test_create_gives_up_where_every_key_is_taken(self, Store, face, monkeypatch):
        taken = saved(face, Store)
        monkeypatch.setattr(Store, "_get_new_session_key", lambda self: taken)
        with pytest.raises(EngineUnavailable, match="1000 new session keys"):
            face(Store()).create()

    def test_version_counts_the_saves(self, Store, face, verbs):
        session = face(Store())
        for count in (1, 2, 3):
            session["count"] = count
            session.save()
            assert verbs.read(identify(session.session_key)).version == count

    def test_a_version_conflict_overwrites(self, Store, face, verbs):
        key = saved(face, Store)
        first, second = face(Store(key)), face(Store(key))
        first["winner"] = "first"
        second["winner"] = "second"
        first.save()
        second.save()
        assert stored(face, Store, key)["winner"] == "second"
        assert verbs.read(identify(key)).version == 3

    def test_one_instance_on_the_loop_and_then_in_a_thread(self, Store, runner):
        async def request() -> str:
            session = Store()
            await session.aset("loop", 1)
            await session.asave()
            await asyncio.to_thread(in_thread, session)
            assert await session.aget("thread") == 2
            await session.aset("again", 3)
            await session.asave()
            return str(session.session_key)

        def in_thread(session: Any) -> None:
            session["thread"] = 2
            session.save()
            close_connections()

        key = runner.run(request())
        assert dict(Store(key).items()) == {"loop": 1, "thread": 2, "again": 3}

    @pytest.mark.parametrize(
        "before",
        [
            {"SECRET_KEY": "old", "MULTISESSION_ENCRYPTION_KEYS": []},
            {"MULTISESSION_ENCRYPTION_KEYS": []},
            {"MULTISESSION_ENCRYPTION_KEYS": ["22" * 32]},
        ],
        ids=["an older secret", "signed", "an older key"],
    )
    def test_an_unchanged_save_writes_anew_what_an_old_key_closed(self, Store, face, verbs, before):
        keys = {"SECRET_KEY_FALLBACKS": ["old"], "MULTISESSION_ENCRYPTION_KEYS": ["11" * 32, "22" * 32]}
        with override_settings(**keys), override_settings(**before):
            key = saved(face, Store, a=1)
        with override_settings(**keys):
            old = verbs.read(identify(key)).payload
            face(Store(key)).save()
            new = verbs.read(identify(key)).payload
            assert new != old
            face(Store(key)).save()
            assert verbs.read(identify(key)).payload == new
        with override_settings(MULTISESSION_ENCRYPTION_KEYS=["11" * 32]):
            assert stored(face, Store, key) == {"a": 1}

    def test_djangos_signed_text_is_no_payload_of_any_record(self, Store, face, verbs):
        """It names no record: whoever can write to the store could copy a victim's into that of an own session."""
        key, record = KEY, a_record(identify(KEY))
        verbs.insert(dataclasses.replace(record, payload=Store().encode({"from": "Django"}).encode()))
        assert stored(face, Store, key) == {}

    @pytest.mark.parametrize(("record_says", "data_say"), [("9", None), (None, "9"), ("9", "8")])
    def test_a_record_of_another_user_than_its_data_is_no_session(
        self, Store, face, verbs, caplog, record_says, data_say
    ):
        key = saved(face, Store, **({USER_ID: data_say} if data_say else {"a": 1}))
        record = verbs.read(identify(key))
        verbs.replace(dataclasses.replace(record, user_id=record_says, version=record.version + 1))
        session = face(Store(key))
        with caplog.at_level(logging.WARNING, logger="django.security.SuspiciousSession"):
            assert session.load() == {}
        assert session.session_key is None
        [warning] = caplog.records
        assert "another user" in warning.getMessage()
