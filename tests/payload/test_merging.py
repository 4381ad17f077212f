"""Promise 3: no lost updates."""

import asyncio
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.serializers import JSONSerializer
from django.db import transaction
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from django_multisession.exceptions import SessionConflict, SessionEnded, SessionTooLarge
from django_multisession.payload import codecs, merging
from django_multisession.testing.stored import close_connections, saved, stored

from ..children import child
from ..conftest import ENGINES
from ..routers import SessionRouter

WRITERS = 50


@pytest.fixture(params=list(ENGINES))
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def two(face: Any, Store: Any, **data: Any) -> tuple[Any, Any, str]:
    """Two requests that have loaded the same session."""
    key = saved(face, Store, **data)
    ours, theirs = face(Store(key)), face(Store(key))
    assert dict(ours.items()) == dict(theirs.items()) == data
    return ours, theirs, key


class TestTheMerge:
    def test_different_keys_both_survive(self, Store, face):
        ours, theirs, key = two(face, Store, a=1)
        theirs["b"] = 2
        theirs.save()
        ours["c"] = 3
        ours.save()
        assert stored(face, Store, key) == {"a": 1, "b": 2, "c": 3}

    def test_what_the_others_did_is_in_the_session_after_the_save(self, Store, face):
        ours, theirs, _ = two(face, Store, a=1, gone=1)
        theirs["a"] = 2
        del theirs["gone"]
        theirs.save()
        ours["c"] = 3
        ours.save()
        assert dict(ours.items()) == {"a": 2, "c": 3}

    def test_deletions_of_both_sides_hold(self, Store, face):
        ours, theirs, key = two(face, Store, a=1, b=2, c=3)
        del theirs["a"]
        theirs.save()
        del ours["b"]
        ours.save()
        assert stored(face, Store, key) == {"c": 3}

    @pytest.mark.parametrize("they", ["change", "delete"])
    def test_of_the_same_key_ours_wins(self, Store, face, they):
        ours, theirs, key = two(face, Store, a=1)
        if they == "change":
            theirs["a"] = 2
        else:
            del theirs["a"]
        theirs.save()
        ours["a"] = 3
        ours.save()
        assert stored(face, Store, key) == {"a": 3}

    def test_a_nested_change_is_a_change_of_its_key(self, Store, face):
        ours, theirs, key = two(face, Store, cart={"tea": 1}, seen=[])
        theirs.get("seen").append(7)
        theirs.save()
        cart = ours.get("cart")
        cart["tea"] = 2
        ours.save()
        assert stored(face, Store, key) == {"cart": {"tea": 2}, "seen": [7]}
        cart["tea"] = 3  # the object that the view holds is still the session's
        ours.save()
        assert stored(face, Store, key)["cart"] == {"tea": 3}

    def test_a_cleared_session_keeps_what_others_have_added(self, Store, face):
        ours, theirs, key = two(face, Store, a=1)
        theirs["b"] = 2
        theirs.save()
        ours.clear()
        ours.save()
        assert stored(face, Store, key) == {"b": 2}

    def test_the_next_merge_begins_with_the_last(self, Store, face):
        ours, theirs, key = two(face, Store, a=1)
        for count in range(3):
            theirs[f"theirs{count}"] = count
            theirs.save()
            ours[f"ours{count}"] = count
            ours.save()
            if count:
                del theirs[f"ours{count - 1}"]
        theirs.save()
        assert set(stored(face, Store, key)) == {"a", "theirs0", "theirs1", "theirs2", "ours2"}

    def test_an_expiry_set_by_others_is_kept(self, Store, face):
        ours, theirs, key = two(face, Store, a=1)
        theirs.set_expiry(60)
        theirs.save()
        ours["b"] = 2
        ours.save()
        assert face(Store(key)).get_expiry_age() == 60

    def test_over_an_unreadable_record_ours_is_written(self, Store, face):
        ours, theirs, key = two(face, Store, a=1)
        theirs["b"] = 2
        with override_settings(SECRET_KEY="another site's"):
            theirs.save()
        ours["c"] = 3
        ours.save()
        assert stored(face, Store, key) == {"a": 1, "c": 3}

    def test_what_a_merge_makes_too_large_is_refused(self, Store, face):
        ours, theirs, key = two(face, Store)
        noise, other = ([hash((n, text)) for n in range(40)] for text in ("noise", "other"))
        theirs["a"] = noise
        theirs.save()
        ours["b"] = other
        limits = override_settings(MULTISESSION_MAX_BYTES=1000, MULTISESSION_COMPRESS_OVER=None)
        with limits, pytest.raises(SessionTooLarge):
            ours.save()
        assert stored(face, Store, key) == {"a": noise}


class TestLogIns:
    def test_another_user_is_refused(self, Store, face):
        ours, theirs, key = two(face, Store, a=1)
        theirs["_auth_user_id"] = "1"
        theirs.save()
        ours["_auth_user_id"] = "2"
        with pytest.raises(UpdateError, match="another user"):
            ours.save()
        assert stored(face, Store, key)["_auth_user_id"] == "1"

    def test_data_of_before_a_log_out_by_hand_is_not_merged(self, Store, face):
        ours, theirs, key = two(face, Store, _auth_user_id="1")
        del theirs["_auth_user_id"]
        theirs.save()
        ours["secret"] = 1
        with pytest.raises(SessionEnded):
            ours.save()
        assert stored(face, Store, key) == {}

    def test_the_auth_keys_stay_together(self, Store, face):
        ours, theirs, key = two(face, Store, _auth_user_id="1", _auth_user_backend="a", _auth_user_hash="old")
        theirs["_auth_user_backend"] = "b"
        theirs["_auth_user_hash"] = "theirs"
        theirs.save()
        ours["_auth_user_hash"] = "ours"
        ours.save()
        assert stored(face, Store, key) == {
            "_auth_user_id": "1",
            "_auth_user_backend": "a",
            "_auth_user_hash": "ours",
        }

    def test_refused_in_a_view_is_a_400(self):
        assert issubclass(SessionEnded, SessionInterrupted)


class TestOnConflict:
    def test_overwrite(self, Store, face):
        ours, theirs, key = two(face, Store, a=1)
        theirs["b"] = 2
        theirs.save()
        ours["c"] = 3
        with override_settings(MULTISESSION_ON_CONFLICT="overwrite"):
            ours.save()
        assert stored(face, Store, key) == {"a": 1, "c": 3}

    def test_raise_keeps_both_sides(self, Store, face):
        ours, theirs, key = two(face, Store, a=1)
        theirs["b"] = 2
        theirs.save()
        ours["c"] = 3
        with override_settings(MULTISESSION_ON_CONFLICT="raise"), pytest.raises(SessionConflict) as caught:
            ours.save()
        assert caught.value.ours == {"a": 1, "c": 3}
        assert caught.value.stored == {"a": 1, "b": 2}
        assert "'b'" not in repr(caught.value)
        assert stored(face, Store, key) == {"a": 1, "b": 2}


class TestCycleKey:
    def test_it_takes_along_what_others_have_saved(self, Store, face):
        ours, theirs, key = two(face, Store, a=1)
        theirs["b"] = 2
        theirs.save()
        ours.cycle_key()
        assert face(Store()).exists(key) is False
        assert stored(face, Store, ours.session_key) == {"a": 1, "b": 2}

    def test_a_log_out_meanwhile_ends_it(self, Store, face, verbs):
        ours, theirs, _ = two(face, Store, _auth_user_id="1")
        theirs.flush()
        with pytest.raises(SessionEnded):
            ours.cycle_key()
        assert ours.is_empty()
        assert verbs.scan(None, 10) == []
        assert verbs.of_user("1") == []

    def test_a_log_in_form_that_was_sent_twice_works_twice(self, Store, face):
        ours, theirs, _ = two(face, Store, cart=1)
        for session in (ours, theirs):
            session.cycle_key()
            session["_auth_user_id"] = "1"
            session.save()
            assert stored(face, Store, session.session_key) == {"cart": 1, "_auth_user_id": "1"}


@pytest.mark.parametrize("engine_name", [name for name, (_, alias) in ENGINES.items() if alias])
def test_a_rolled_back_save_is_no_deletion(Store, face):
    """The record that the rolled back save wrote is no base to merge from: its keys would look deleted by others."""
    session = Store(saved(face, Store, a=1))
    session["b"] = 2
    with transaction.atomic(using=SessionRouter.alias):
        session.save()
        transaction.set_rollback(True, using=SessionRouter.alias)
    other = Store(session.session_key)
    other["c"] = 3
    other.save()
    session["d"] = 4
    session.save()
    assert stored(face, Store, session.session_key) == {"a": 1, "b": 2, "c": 3, "d": 4}


class TestFiftyWriters:
    """All load, then all save, each a key of its own."""

    def test_threads(self, Store):
        key, barrier = saved(lambda store: store, Store, start=1), Barrier(WRITERS)

        def request(number: int) -> None:
            try:
                session = Store(key)
                session.get("start")
                barrier.wait(60)
                session[f"key{number}"] = number
                session.save()
            finally:
                close_connections()

        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(request, range(WRITERS)))
        assert_all_there(Store(key), WRITERS)

    def test_tasks(self, Store, runner):
        key = saved(lambda store: store, Store, start=1)

        async def request(number: int, all_loaded: asyncio.Barrier) -> None:
            session = Store(key)
            await session.aget("start")
            await all_loaded.wait()
            await session.aset(f"key{number}", number)
            await session.asave()

        async def race() -> None:
            all_loaded = asyncio.Barrier(WRITERS)
            await asyncio.gather(*(request(number, all_loaded) for number in range(WRITERS)))

        runner.run(race())
        assert_all_there(Store(key), WRITERS)

    @pytest.mark.slow
    @pytest.mark.parametrize("engine_name", [name for name in ENGINES if name != "memory"])
    def test_four_processes_of_fifty_threads(self, Store):
        key = saved(lambda store: store, Store, start=1)
        processes = [writers(key, number * WRITERS) for number in range(4)]
        for process in processes:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors
        assert_all_there(Store(key), 4 * WRITERS)


def assert_all_there(session: Any, count: int) -> None:
    assert dict(session.items()) == {"start": 1, **{f"key{number}": number for number in range(count)}}


CHILD = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from importlib import import_module
from django.db import connections
Store = import_module(settings.SESSION_ENGINE).SessionStore
barrier = Barrier(given["writers"])

def request(number):
    try:
        session = Store(given["key"])
        session.get("start")
        barrier.wait(120)
        session[f"key{number}"] = number
        session.save()
    finally:
        connections.close_all()

with ThreadPoolExecutor(given["writers"]) as pool:
    list(pool.map(request, range(given["first"], given["first"] + given["writers"])))
"""


def writers(key: str, first: int) -> subprocess.Popen[str]:
    """A process in which fifty threads save the session."""
    return child(CHILD, key=key, first=first, writers=WRITERS)


KEYS = st.sampled_from("abcd")
VALUES = st.none() | st.booleans() | st.integers(0, 2) | st.floats(allow_nan=True) | st.lists(st.integers(0, 1))
DATA = st.dictionaries(KEYS, VALUES, max_size=4)


@given(DATA, DATA, DATA)
def test_the_merge_is_three_way(loaded, ours, stored):
    """Key by key, against the definition."""
    merged = dict(ours)
    merging.adopt(loaded, merged, stored, JSONSerializer)
    for key in "abcd":
        before, mine, other = (text(each, key) for each in (loaded, ours, stored))
        assert text(merged, key) == (mine if mine != before else other)


def text(data: dict[str, Any], key: str) -> str:
    return json.dumps(data[key]) if key in data else "absent"


def test_true_is_not_one():
    ours = {"a": 1}
    merging.adopt({"a": 1}, ours, {"a": True}, JSONSerializer)
    assert ours["a"] is True


def test_an_uncontended_save_does_not_open_what_was_loaded_again(Store, face, monkeypatch):
    session = face(Store(saved(face, Store, a=1)))
    session["b"] = 2
    opened: list[object] = []
    monkeypatch.setattr(codecs, "deserialize", lambda *arguments: opened.append(arguments))
    session.save()
    assert opened == []
