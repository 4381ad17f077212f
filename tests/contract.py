"""Every promise of an engine, written once and run for each engine on both faces.

An engine's test module names its engine and takes the tests over::

    from tests.contract import *

    @pytest.fixture
    def engine_name() -> str:
        return "redis"
"""

import asyncio
import dataclasses
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
import time_machine
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.test import override_settings
from django.utils import timezone

from django_multisession.exceptions import EngineUnavailable, SessionNotSerializable, SessionTooLarge
from django_multisession.records import Record, identify, utcnow
from django_multisession.twins import run_sync

KEY = "0123456789abcdef0123456789abcdef"
HOUR = timedelta(hours=1)
USER_ID = "_auth_user_id"


def saved(face: Any, Store: Any, **data: Any) -> str:
    """The key of a new session in the store."""
    session = face(Store())
    session.update(data)
    session.save()
    return str(session.session_key)


def stored(face: Any, Store: Any, key: str) -> dict[str, Any]:
    """What a new request with that cookie finds."""
    return dict(face(Store(key)).items())


def a_record(id: str = "a" * 64, **changes: Any) -> Record:
    now = utcnow()
    record = Record(
        id=id,
        payload=b"\x00payload\xff",
        user_id=None,
        created_at=now,
        updated_at=now,
        expires_at=now + HOUR,
        version=1,
    )
    return dataclasses.replace(record, **changes)


def untouched(touched: Record, before: Record, **changes: Any) -> Record:
    """The record with what a touch moves put back to what it was."""
    return dataclasses.replace(touched, **{"expires_at": before.expires_at, "updated_at": before.updated_at, **changes})


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


def close_connections() -> None:
    from django.db import connections

    connections.close_all()


class TestStorage:
    """The eight verbs."""

    def test_a_record_comes_back_as_it_was(self, verbs):
        record = a_record(user_id="42", payload=bytes(range(256)), version=7)
        assert verbs.insert(record) is True
        assert verbs.read(record.id) == record

    def test_anonymous_and_empty(self, verbs):
        record = a_record(payload=b"")
        verbs.insert(record)
        assert verbs.read(record.id) == record

    @pytest.mark.parametrize("user_id", ["1", "é", "a b:c*?[]", "x" * 255, "None"])
    def test_user_ids(self, verbs, user_id):
        verbs.insert(record := a_record(user_id=user_id))
        assert verbs.of_user(user_id) == [record]

    def test_read_of_nothing(self, verbs):
        assert verbs.read("b" * 64) is None

    def test_insert_refuses_a_taken_id(self, verbs):
        verbs.insert(first := a_record())
        assert verbs.insert(a_record(payload=b"second", user_id="9")) is False
        assert verbs.read(first.id) == first
        assert verbs.of_user("9") == []

    def test_replace_stores_the_next_version(self, verbs):
        verbs.insert(first := a_record())
        second = dataclasses.replace(first, payload=b"2", user_id="9", version=2, created_at=first.created_at - HOUR)
        assert verbs.replace(second) == second
        assert verbs.read(first.id) == second

    def test_replace_answers_a_conflict_with_what_is_stored(self, verbs):
        verbs.insert(first := a_record())
        for version in (1, 3, 9):
            assert verbs.replace(dataclasses.replace(first, payload=b"no", version=version)) == first
        assert verbs.read(first.id) == first

    def test_replace_of_nothing_creates_nothing(self, verbs):
        assert verbs.replace(a_record(version=2, user_id="9")) is None
        assert verbs.read(a_record().id) is None
        assert verbs.of_user("9") == []

    def test_replace_does_not_revive_the_expired(self, verbs, clock):
        verbs.insert(first := a_record())
        clock.shift(7200)
        late = dataclasses.replace(first, version=2, expires_at=first.expires_at + 10 * HOUR)
        assert verbs.replace(late) is None
        assert verbs.read(first.id) is None

    def test_touch_moves_the_expiry_and_no_data(self, verbs):
        verbs.insert(first := a_record(user_id="9"))
        for later in (first.expires_at + 5 * HOUR, first.expires_at - HOUR / 2):
            assert verbs.touch(first.id, later) is True
            assert verbs.read(first.id).expires_at == later
            assert untouched(verbs.read(first.id), first) == first

    def test_touch_tells_when_the_session_was_last_in_use(self, verbs, clock):
        verbs.insert(first := a_record(user_id="9"))
        clock.shift(600)
        before = utcnow()
        verbs.touch(first.id, first.expires_at)
        assert before <= verbs.read(first.id).updated_at <= utcnow()

    def test_touch_of_nothing_or_of_the_expired(self, verbs, clock):
        assert verbs.touch("b" * 64, utcnow() + HOUR) is False
        verbs.insert(first := a_record(user_id="9"))
        clock.shift(7200)
        assert verbs.touch(first.id, utcnow() + HOUR) is False
        assert verbs.read(first.id) is None

    def test_touch_into_the_past_ends_the_session(self, verbs):
        verbs.insert(first := a_record(user_id="9"))
        verbs.touch(first.id, utcnow() - HOUR)
        assert verbs.read(first.id) is None

    def test_remove_counts_what_was_there(self, verbs):
        ids = [letter * 64 for letter in "abc"]
        for id in ids:
            verbs.insert(a_record(id))
        assert verbs.remove([*ids[:2], "d" * 64]) == 2
        assert verbs.remove(ids[:2]) == 0
        assert verbs.remove([]) == 0
        assert verbs.read(ids[2])

    def test_remove_of_many(self, verbs):
        ids = [f"{number:064}" for number in range(1500)]
        verbs.insert(a_record(ids[7]))
        assert verbs.remove(ids) == 1

    def test_of_user_has_the_live_ones_alone(self, verbs, clock):
        mine = [a_record("a" * 64, user_id="9"), a_record("b" * 64, user_id="9", expires_at=utcnow() + 9 * HOUR)]
        for record in [*mine, a_record("c" * 64, user_id="99"), a_record("d" * 64)]:
            verbs.insert(record)
        assert sorted(verbs.of_user("9"), key=lambda record: record.id) == mine
        clock.shift(7200)
        # Those that have just ended may be there too: a list that ends sessions goes by no caller's clock.
        assert [record for record in verbs.of_user("9") if record.is_live(utcnow())] == mine[1:]
        verbs.remove([record.id for record in mine])
        assert verbs.of_user("9") == []

    def test_of_user_tells_case_apart(self, verbs):
        verbs.insert(a_record(user_id="Ann"))
        assert verbs.of_user("ann") == []

    def test_of_user_follows_replace_and_touch(self, verbs, clock):
        verbs.insert(record := a_record())
        record = dataclasses.replace(record, user_id="9", version=2)
        verbs.replace(record)
        assert verbs.of_user("9") == [record]
        verbs.touch(record.id, later := record.expires_at + 9 * HOUR)
        clock.shift(5 * 3600)
        [touched] = verbs.of_user("9")
        assert untouched(touched, record, expires_at=later) == dataclasses.replace(record, expires_at=later)
        verbs.replace(dataclasses.replace(record, user_id="10", version=3, expires_at=later))
        assert verbs.of_user("9") == []
        assert len(verbs.of_user("10")) == 1

    def test_scan_pages_through_all_that_the_store_holds(self, verbs, clock):
        live = {f"{number:064x}" for number in range(25)}
        for id in live:
            verbs.insert(a_record(id, user_id="9"))
        clock.shift(5400)  # by this clock all of them are over
        seen, after, pages = [], None, 0
        while pages < 100:
            page = verbs.scan(after, 10)
            seen += [record.id for record in page]
            after, pages = page.next, pages + 1
            if after is None:
                break
        assert set(seen) == live
        assert all(isinstance(record, Record) for record in page)

    def test_scan_of_an_empty_store(self, verbs):
        page = verbs.scan(None, 10)
        assert page == []
        assert page.next is None

    def test_purge_leaves_the_live(self, verbs):
        verbs.insert(a_record("a" * 64, user_id="9", expires_at=utcnow() - HOUR))
        verbs.insert(longer := a_record("b" * 64, user_id="9", expires_at=utcnow() + 9 * HOUR))
        verbs.purge(utcnow(), 100)
        assert verbs.purge(utcnow(), 100) == 0
        assert verbs.of_user("9") == [longer]


class TestExpiry:
    """Promise 9: expiry means expiry."""

    def test_an_expired_session_is_gone_for_every_method(self, Store, face, clock):
        key = saved(face, Store, a=1)
        loaded = face(Store(key))
        loaded["b"] = 2
        clock.shift(14 * 24 * 3600 + 1)
        assert face(Store()).exists(key) is False
        assert face(Store(key)).load() == {}
        with pytest.raises(UpdateError):
            loaded.save()
        assert face(Store()).exists(key) is False

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            (300, 300),
            (0, 14 * 24 * 3600),
            (None, 14 * 24 * 3600),
            (timedelta(minutes=5), 300),
            ("aware", 300),
            ("local", 300),
        ],
    )
    @pytest.mark.parametrize("use_tz", [True, False])
    def test_every_form_of_set_expiry(self, Store, face, verbs, value, seconds, use_tz):
        with override_settings(USE_TZ=use_tz):
            if value == "aware":
                value = timezone.now() + timedelta(minutes=5)
            elif value == "local":
                value = datetime.now(UTC if use_tz else None) + timedelta(minutes=5)
            session = face(Store())
            session.set_expiry(value)
            session.save()
            left = (verbs.read(identify(session.session_key)).expires_at - utcnow()).total_seconds()
            assert left == pytest.approx(seconds, abs=5)
            assert face(Store(session.session_key)).get_expiry_age() == pytest.approx(seconds, abs=5)

    def test_zero_means_the_browsers_life_and_the_usual_age_on_the_server(self, Store, face):
        session = face(Store())
        session.set_expiry(0)
        session.save()
        assert face(Store(session.session_key)).get_expire_at_browser_close() is True

    def test_none_takes_the_expiry_back(self, Store, face, verbs):
        session = face(Store())
        session.set_expiry(60)
        session.save()
        session.set_expiry(None)
        session.save()
        assert verbs.read(identify(session.session_key)).expires_at > utcnow() + HOUR

    @pytest.mark.parametrize("value", [-1, -(10**9), timedelta(days=-1), timedelta(days=-30000)])
    def test_an_expiry_in_the_past_ends_the_session_without_an_error(self, Store, face, value):
        session = face(Store())
        session.set_expiry(value)
        session.save()
        key = session.session_key
        assert face(Store(key)).load() == {}
        assert face(Store()).exists(key) is False

        key = saved(face, Store, a=1)
        session = face(Store(key))
        session.set_expiry(value)
        session.save()
        assert face(Store()).exists(key) is False

    def test_the_cookie_age_hook_is_honoured(self, Store, face, verbs):
        class Short(Store):
            def get_session_cookie_age(self) -> int:
                return 60

        assert verbs.read(identify(saved(face, Short))).expires_at < utcnow() + HOUR

    def test_an_expiry_in_the_past_can_be_saved_again(self, Store, face):
        session = face(Store(saved(face, Store, a=1)))
        session.set_expiry(-1)
        session.save()
        session["b"] = 2
        session.save()
        assert face(Store()).exists(session.session_key) is False

    def test_a_session_that_was_ended_so_does_not_come_back(self, Store, face):
        session = face(Store(saved(face, Store, a=1)))
        session.set_expiry(-1)
        session.save()
        session.set_expiry(3600)
        with pytest.raises(UpdateError):
            session.save()
        assert face(Store()).exists(session.session_key) is False

    def test_the_hour_when_the_clocks_go_back(self, Store, face):
        settings = override_settings(USE_TZ=False, TIME_ZONE="Europe/Berlin", SESSION_COOKIE_AGE=600)
        with settings, time_machine.travel(datetime(2027, 10, 31, 1, 30, tzinfo=UTC), tick=True):
            assert face(Store()).exists(saved(face, Store, a=1)) is True

    def test_get_expiry_age_with_an_expiry_does_not_load(self, Store):
        session = Store(KEY)
        assert session.get_expiry_age(expiry=5) == 5
        assert not session.accessed

    def test_clear_expired_removes_them_and_them_alone(self, Store, face, verbs):
        session = face(Store())
        session.set_expiry(-3600)  # not by a clock that has moved: a purge goes by the server's
        session.save()
        key = saved(face, Store, a=1)
        session.clear_expired()
        assert [record.id for record in verbs.scan(None, 10)] == [identify(key)]


class TestDeletedStaysDeleted:
    """Promise 2."""

    @pytest.mark.parametrize("change", ["write", "nothing"])
    def test_a_save_after_a_log_out_elsewhere_is_refused(self, Store, face, verbs, change):
        key = saved(face, Store, a=1, **{USER_ID: "9"})
        session = face(Store(key))
        assert session["a"] == 1
        if change == "write":
            session["b"] = 2
        face(Store(key)).flush()
        with pytest.raises(UpdateError), override_settings(MULTISESSION_TOUCH_AFTER=0):
            session.save()
        assert face(Store()).exists(key) is False
        assert verbs.scan(None, 10) == []
        assert verbs.of_user("9") == []

    def test_a_save_after_the_key_was_cycled_elsewhere_is_refused(self, Store, face):
        key = saved(face, Store, a=1)
        session = face(Store(key))
        session["b"] = 2
        face(Store(key)).cycle_key()
        with pytest.raises(UpdateError):
            session.save()
        assert face(Store()).exists(key) is False


class TestASaveAsks:
    """A save that was asked for asks the store, unless this object itself knows better."""

    @pytest.mark.parametrize("end", ["delete", "flush elsewhere", "delete elsewhere", "expired"])
    @pytest.mark.parametrize("change", ["equal bytes", "nothing", "no touch"])
    def test_what_was_ended_is_told(self, Store, face, clock, end, change):
        key = saved(face, Store, a=1)
        session = face(Store(key))
        assert session["a"] == 1
        if change != "nothing":
            session["a"] = 1
        session.may_touch = change != "no touch"
        if end == "delete":
            session.delete()
        elif end == "expired":
            clock.shift(14 * 24 * 3600 + 1)
        else:
            getattr(face(Store(key)), end.split()[0])()
        with pytest.raises(UpdateError):
            session.save()
        assert face(Store()).exists(key) is False

    def test_created_deleted_saved(self, Store, face):
        session = face(Store(KEY))
        session.save(must_create=True)
        session.delete()
        with pytest.raises(UpdateError):
            session.save()
        session.save(must_create=True)
        session.save()
        assert face(Store()).exists(KEY) is True

    def test_a_flushed_session_is_saved_under_a_new_key(self, Store, face):
        key = saved(face, Store, a=1)
        session = face(Store(key))
        session.flush()
        session["b"] = 2
        session.save()
        assert session.session_key != key
        assert stored(face, Store, session.session_key) == {"b": 2}

    @pytest.mark.parametrize("modified", [True, False])
    def test_saves_of_every_request_are_silent_where_nothing_was_modified(self, Store, face, modified):
        key = saved(face, Store, a=1)
        session = face(Store(key))
        assert session["a"] == 1
        session.modified = modified
        face(Store(key)).delete()
        with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
            if not modified:
                return session.save()
            with pytest.raises(UpdateError):
                session.save()


KEYS = {
    "empty": "",
    "short": "abc",
    "10 KB": "k" * 10240,
    "NUL": "abcdefgh\0ijkl",
    "non-ASCII": "schlüssel-鍵-🔑",
    "surrogate": "abcdefgh\udc80",
    "newline": "abcdefgh\r\nSET x y",
    "operator": '{"$ne": null}',
    "pattern": "session:*?[a-z]",
    "quote": "abcdefgh' OR '1'='1",
    "spaces": "        ",
}


class TestBadInput:
    """Promise 8: bad input is harmless."""

    @pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
    def test_odd_keys_miss(self, Store, face, key):
        saved(face, Store, a=1)
        assert face(Store(key)).load() == {}
        assert face(Store()).exists(key) is False
        face(Store()).delete(key)
        session = face(Store(key))
        session["b"] = 1
        session.save()
        assert session.session_key != key

    @pytest.mark.parametrize("harm", ["truncated", "flipped", "empty", "foreign", "other record's"])
    def test_an_unreadable_payload_is_an_empty_session_and_one_warning(self, Store, face, verbs, caplog, harm):
        key, other = saved(face, Store, a=1), saved(face, Store, a=2)
        record = verbs.read(identify(key))
        payload = {
            "truncated": record.payload[:-1],
            "flipped": record.payload[:-1] + bytes([record.payload[-1] ^ 1]),
            "empty": b"",
            "foreign": b"\x80\x04}\x94.",
            "other record's": verbs.read(identify(other)).payload,
        }[harm]
        verbs.replace(dataclasses.replace(record, payload=payload, version=record.version + 1))
        with caplog.at_level(logging.WARNING, logger="django.security.SuspiciousSession"):
            assert stored(face, Store, key) == {}
        [warning] = caplog.records
        assert warning.name == "django.security.SuspiciousSession"
        assert key not in warning.getMessage()

    def test_another_sites_payload_is_unreadable(self, Store, face):
        with override_settings(SECRET_KEY="another site's"):
            key = saved(face, Store, a=1)
        assert stored(face, Store, key) == {}

    def test_a_user_id_that_is_too_long_is_refused(self, Store, face, verbs):
        session = face(Store())
        session[USER_ID] = "u" * 256
        with pytest.raises(SessionNotSerializable, match="255 characters"):
            session.save()
        assert verbs.scan(None, 10) == []

    @pytest.mark.parametrize("user_id", ["nul\0", "half \ud800"])
    def test_a_user_id_that_no_store_takes_is_refused(self, Store, face, verbs, user_id):
        session = face(Store())
        session[USER_ID] = user_id
        with pytest.raises(SessionNotSerializable, match="surrogate"):
            session.save()
        assert verbs.scan(None, 10) == []

    def test_an_unreadable_session_can_be_used_again(self, Store, face):
        with override_settings(SECRET_KEY="another site's"):
            key = saved(face, Store, a=1)
        session = face(Store(key))
        session["b"] = 2
        session.save()
        assert stored(face, Store, session.session_key) == {"b": 2}

    def test_too_large_a_session_writes_nothing(self, Store, face):
        key = saved(face, Store, a=1)
        session = face(Store(key))
        session["noise"] = json.dumps([hash((n, "noise")) for n in range(500)])
        with override_settings(MULTISESSION_MAX_BYTES=1000), pytest.raises(SessionTooLarge) as caught:
            session.save()
        assert caught.value.limit == 1000
        assert caught.value.size > 1000
        assert stored(face, Store, key) == {"a": 1}
        with override_settings(MULTISESSION_MAX_BYTES=10), pytest.raises(SessionTooLarge):
            face(Store()).create()

    def test_a_value_that_does_not_serialize_is_named_and_writes_nothing(self, Store, face):
        key = saved(face, Store, a=1)
        session = face(Store(key))
        session["fine"] = 2
        session["when"] = datetime.now(UTC)
        with pytest.raises(SessionNotSerializable) as caught:
            session.save()
        assert caught.value.key == "when"
        assert "'when'" in str(caught.value)
        assert stored(face, Store, key) == {"a": 1}

    def test_a_failed_create_leaves_no_key_behind(self, Store, face, verbs):
        session = face(Store())
        session["when"] = datetime.now(UTC)
        with pytest.raises(SessionNotSerializable):
            session.save()
        assert session.session_key is None
        assert verbs.scan(None, 10) == []


class TestUserLink:
    """Promise 10: the user link is never lost."""

    @pytest.mark.parametrize(("value", "user_id"), [("42", "42"), (42, "42"), ("6f1d-uuid", "6f1d-uuid")])
    def test_it_is_read_from_the_data_at_save_time(self, Store, face, verbs, value, user_id):
        key = saved(face, Store, **{USER_ID: value})
        assert [record.id for record in verbs.of_user(user_id)] == [identify(key)]

    def test_it_appears_with_a_later_save_and_goes_with_the_data(self, Store, face, verbs):
        session = face(Store(saved(face, Store)))
        session[USER_ID] = "42"
        session.save()
        assert len(verbs.of_user("42")) == 1
        session.cycle_key()
        assert [record.id for record in verbs.of_user("42")] == [identify(session.session_key)]
        del session[USER_ID]
        session.save()
        assert verbs.of_user("42") == []

    def test_the_age_of_a_session_restarts_with_its_user(self, Store, face, verbs, clock):
        session = face(Store(saved(face, Store)))
        clock.shift(60)
        session[USER_ID] = "42"
        session.save()
        record = verbs.read(identify(session.session_key))
        assert record.created_at == record.updated_at


class TestRaces:
    """Atomicity, where only real servers can show it."""

    def test_one_of_50_threads_creates_a_key(self, Store):
        barrier = Barrier(50)

        def create(number: int) -> bool:
            session = Store(KEY)
            session.clear()
            session["number"] = number
            barrier.wait(30)
            try:
                session.save(must_create=True)
            except CreateError:
                return False
            finally:
                close_connections()
            return True

        with ThreadPoolExecutor(50) as pool:
            won = list(pool.map(create, range(50)))
        assert won.count(True) == 1
        assert Store(KEY)["number"] == won.index(True)

    def test_one_of_50_tasks_creates_a_key(self, Store, runner):
        async def create(number: int) -> bool:
            session = Store(KEY)
            session.clear()
            await session.aset("number", number)
            try:
                await session.asave(must_create=True)
            except CreateError:
                return False
            return True

        async def race() -> list[bool]:
            return await asyncio.gather(*map(create, range(50)))

        won = runner.run(race())
        assert won.count(True) == 1
        assert Store(KEY)["number"] == won.index(True)

    def test_no_thread_revives_what_another_flushed(self, Store):
        for _ in range(5):
            key = saved(lambda store: store, Store, **{USER_ID: "9"})
            barrier = Barrier(8)

            def work(number: int, key: str = key, barrier: Barrier = barrier) -> None:
                session = Store(key)
                assert session[USER_ID] == "9"
                barrier.wait(30)
                try:
                    if number == 0:
                        session.flush()
                    elif number % 2:
                        session.save()
                    else:
                        session["number"] = number
                        session.save()
                except UpdateError:
                    pass
                finally:
                    close_connections()

            with ThreadPoolExecutor(8) as pool:
                list(pool.map(work, range(8)))
            assert run_sync(Store.storage.scan(None, 100)) == []
            assert run_sync(Store.storage.of_user("9")) == []
