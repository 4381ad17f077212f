"""`session.change()`: a function of the newest data, whatever else is saved meanwhile."""

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import time_machine
from asgiref.sync import async_to_sync
from django.db import transaction
from django.http import HttpResponse
from django.test import RequestFactory, TestCase, override_settings
from django.utils.module_loading import import_string

from django_multisession.backends.changing import change as changing_core
from django_multisession.exceptions import SessionConflict, SessionEnded, SessionNotSerializable, SessionTooLarge
from django_multisession.records import utcnow
from django_multisession.testing.faces import AsyncStore
from django_multisession.testing.stored import close_connections, saved, stored
from django_multisession.twins import run_sync

from ..browsers import COOKIE, DJANGOS, OURS
from ..conftest import ENGINES
from ..interleaving import interleave_async, interleave_sync
from ..routers import SessionRouter
from .cached_db.test_transactions import atomic_of_a_test_case

USER = {"_auth_user_id": "9"}
EVERY_ENGINE = pytest.mark.parametrize("engine_name", list(ENGINES))  # where it is up to the storage's verbs
SQL = [name for name, (_, alias) in ENGINES.items() if alias]


@pytest.fixture(params=["memory", "redis", "postgres", "cached_postgres"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["merge", "overwrite", "raise"])
def on_conflict(request: pytest.FixtureRequest) -> Iterator[str]:
    with override_settings(MULTISESSION_ON_CONFLICT=request.param):
        yield request.param


def count(data: dict[str, Any]) -> int:
    data["count"] = data.get("count", 0) + 1
    return int(data["count"])


def elsewhere(function: Callable[[], Any]) -> None:
    """Call it as another request does, which has a thread of its own, whatever this one is doing."""

    def request() -> None:
        try:
            function()
        finally:
            close_connections()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(request).result()


def itself(session: Any, name: str, *arguments: Any) -> Any:
    """Call the session's own method within a function: a coroutine, where that is to be awaited."""
    if isinstance(session, AsyncStore):
        return getattr(session.store, f"a{name}")(*arguments)
    return getattr(session, name)(*arguments)


def two(face: Any, Store: Any, **data: Any) -> tuple[Any, Any, str]:
    """Two requests that have loaded the same session."""
    key = saved(face, Store, **data)
    ours, theirs = face(Store(key)), face(Store(key))
    assert ours.get("count") == theirs.get("count")
    return ours, theirs, key


class TestWhatItDoes:
    def test_it_saves_what_the_function_leaves_and_returns_what_it_returns(self, Store, face):
        session, _, key = two(face, Store, count=1, gone=1)

        def change(data: dict[str, Any]) -> str:
            del data["gone"]
            data["count"] += 1
            data["new"] = [1]
            return "returned"

        assert session.change(change) == "returned"
        assert stored(face, Store, key) == dict(session.items()) == {"count": 2, "new": [1]}
        assert session.modified

    @EVERY_ENGINE
    def test_the_function_is_given_what_others_have_saved(self, Store, face, on_conflict):
        ours, theirs, key = two(face, Store, count=1, b=1, gone=1)
        ours["mine"] = 1
        theirs["count"], theirs["b"] = 5, 2
        del theirs["gone"]
        theirs.save()
        given = []
        assert ours.change(lambda data: given.append(dict(data)) or count(data)) == 6
        assert given == [{"count": 5, "b": 2, "mine": 1}]
        assert stored(face, Store, key) == dict(ours.items()) == {"count": 6, "b": 2, "mine": 1}

    @EVERY_ENGINE
    def test_it_is_called_again_where_another_came_first(self, Store, face, on_conflict):
        ours, _, key = two(face, Store, count=0)
        ours["mine"] = "unsaved"
        calls = []

        def change(data: dict[str, Any]) -> int:
            if len(calls) < 3:
                elsewhere(lambda: save(**{"count": data["count"] + 10, f"b{len(calls)}": 1}))
            calls.append(dict(data))
            return count(data)

        def save(**changes: Any) -> None:
            theirs = Store(key)
            theirs.update(changes)
            theirs.save()

        assert ours.change(change) == 31
        assert [each["count"] for each in calls] == [0, 10, 20, 30]
        assert all(each["mine"] == "unsaved" for each in calls)
        expected = {"count": 31, "mine": "unsaved", "b0": 1, "b1": 1, "b2": 1}
        assert stored(face, Store, key) == dict(ours.items()) == expected

    def test_of_one_key_what_the_request_has_set_before_is_what_the_function_begins_with(self, Store, face):
        ours, theirs, key = two(face, Store, count=1)
        ours["count"] = 100
        theirs["count"] = 5
        theirs.save()
        assert ours.change(count) == 101
        assert stored(face, Store, key) == {"count": 101}

    def test_rules_hold_for_what_was_unsaved(self, Store, face, on_conflict):
        ours, theirs, key = two(face, Store, count=0, visits=1)
        ours["visits"] = 2
        theirs["visits"] = 5
        theirs.save()
        with override_settings(MULTISESSION_MERGE={"visits": "sum"}):
            ours.change(count)
        assert stored(face, Store, key) == {"count": 1, "visits": 6}

    def test_an_unloaded_session(self, Store, face):
        key = saved(face, Store, count=1)
        session = face(Store(key))
        assert session.change(count) == 2
        assert stored(face, Store, key) == dict(session.items()) == {"count": 2}

    def test_the_save_after_it_finds_nothing_to_write(self, Store, face, verbs):
        ours, theirs, _ = two(face, Store, count=0, z=1, a=(1, 2))
        ours["unsaved"] = (1, 2)
        theirs["b"] = 1
        theirs.save()
        ours.change(count)
        before = verbs.scan(None, 10)
        ours.save()
        assert verbs.scan(None, 10) == before

    def test_what_is_set_after_it_is_merged_on_top_of_it(self, Store, face):
        ours, theirs, key = two(face, Store, count=0)
        ours.change(count)
        theirs.change(count)
        ours["b"] = 1
        ours.save()
        assert stored(face, Store, key) == {"count": 2, "b": 1}
        assert ours.change(count) == 3

    def test_a_cleared_session(self, Store, face):
        _, theirs, key = two(face, Store, count=4, a=1)
        theirs["b"] = 1
        theirs.save()
        session = face(Store(key))
        session.clear()
        assert session.change(count) == 1
        assert stored(face, Store, key) == {"count": 1}

    def test_the_view_keeps_the_objects_that_did_not_change(self, Store, face):
        session, _, key = two(face, Store, count=0, cart={"tea": 1})
        cart = session.get("cart")
        session.change(count)
        cart["tea"] = 2
        session.save()
        assert stored(face, Store, key) == {"count": 1, "cart": {"tea": 2}}

    def test_a_log_in_by_hand_is_noted(self, Store, face, verbs):
        session, _, _ = two(face, Store, count=0)
        session.change(lambda data: data.update(USER))
        assert [record.user_id for record in verbs.of_user("9")] == ["9"]


class TestNewSessions:
    def test_one_is_made(self, Store, face):
        session = face(Store())
        session["unsaved"] = 1
        assert session.change(count) == 1
        assert stored(face, Store, session.session_key) == dict(session.items()) == {"unsaved": 1, "count": 1}
        assert session.modified

    def test_a_key_that_the_store_does_not_know_is_not_taken(self, Store, face):
        session = face(Store("a" * 32))
        session.change(count)
        assert session.session_key not in (None, "a" * 32)

    def test_where_the_function_fails_there_is_none(self, Store, face, verbs):
        session = face(Store())
        session["unsaved"] = 1
        with pytest.raises(ZeroDivisionError):
            session.change(lambda data: 1 / 0)
        assert session.session_key is None
        assert dict(session.items()) == {"unsaved": 1}
        assert verbs.scan(None, 10) == []


class TestCookies:
    """What the middleware tells the browser after a change, be it ours or Django's."""

    @pytest.fixture(params=[OURS, DJANGOS], ids=["ours", "Django's"])
    def answered(self, request: pytest.FixtureRequest, Store: Any, face: Any) -> Any:
        """The session cookie of the response to a request whose view changes the session; `None`: there is none."""

        async def aview(request: Any) -> HttpResponse:
            await request.session.achange(count)
            return HttpResponse()

        def view(request: Any) -> HttpResponse:
            request.session.change(count)
            return HttpResponse()

        def answer(key: str | None) -> str | None:
            asked = RequestFactory().get("/")
            asked.COOKIES.update({COOKIE: key} if key else {})
            response = middleware(view if face.name == "sync" else aview)(asked)
            response = response if face.name == "sync" else face.runner.run(response)
            return response.cookies[COOKIE].value if COOKIE in response.cookies else None

        middleware = import_string(request.param)
        return answer

    def test_a_new_session_gets_its_cookie(self, answered, Store, face):
        assert stored(face, Store, answered(None)) == {"count": 1}

    def test_one_that_there_was_keeps_it(self, answered, Store, face):
        key = saved(face, Store, count=1)
        assert answered(key) == key
        assert stored(face, Store, key) == {"count": 2}


@EVERY_ENGINE
class TestEndedSessions:
    @pytest.mark.parametrize("data", [USER, {}], ids=["of a user", "of nobody"])
    def test_a_session_that_is_gone(self, Store, face, verbs, data):
        ours, theirs, _ = two(face, Store, count=1, **data)
        theirs.flush()
        calls = []
        with pytest.raises(SessionEnded):
            ours.change(lambda data: calls.append(data))
        assert dict(ours.items()) == {"count": 1, **data}
        assert calls == verbs.scan(None, 10) == []

    def test_one_that_ends_while_the_function_runs(self, Store, face, verbs):
        ours, _, key = two(face, Store, count=1, **USER)
        with pytest.raises(SessionEnded):
            ours.change(lambda data: elsewhere(lambda: Store(key).flush()) or count(data))
        assert dict(ours.items()) == {"count": 1, **USER}
        assert verbs.scan(None, 10) == []

    def test_one_that_the_function_ends_itself(self, Store, face, verbs):
        ours, _, _ = two(face, Store, count=1)
        with pytest.raises(SessionEnded):
            ours.change(lambda data: itself(ours, "flush"))
        assert ours.is_empty()
        assert verbs.scan(None, 10) == []

    def test_one_that_this_object_has_deleted(self, Store, face, verbs):
        ours, _, _ = two(face, Store, count=1)
        ours.delete()
        with pytest.raises(SessionEnded):
            ours.change(count)
        assert verbs.scan(None, 10) == []

    def test_another_user_meanwhile(self, Store, face):
        ours, theirs, key = two(face, Store, count=1)
        theirs["_auth_user_id"] = "8"
        theirs.save()
        ours["_auth_user_id"] = "9"
        with pytest.raises(SessionEnded, match="another user"):
            ours.change(count)
        assert stored(face, Store, key) == {"count": 1, "_auth_user_id": "8"}

    def test_an_idle_one(self, Store, face, clock):
        ours, _, _ = two(face, Store, count=1)
        clock.shift(3600)
        with override_settings(MULTISESSION_IDLE_AGE=60), pytest.raises(SessionEnded):
            ours.change(count)


@EVERY_ENGINE
class TestCycledKeys:
    def test_it_goes_on_under_the_new_key(self, Store, face, on_conflict):
        ours, theirs, _ = two(face, Store, count=1, **USER)
        theirs["count"] = 5
        theirs.save()
        theirs.cycle_key()
        ours["mine"] = 1
        assert ours.change(count) == 6
        assert ours.session_key == theirs.session_key
        assert ours.modified
        assert stored(face, Store, ours.session_key) == dict(ours.items()) == {"count": 6, "mine": 1, **USER}

    def test_cycled_while_the_function_runs(self, Store, face, on_conflict):
        ours, _, key = two(face, Store, count=1, **USER)
        keys = []

        def cycle() -> None:
            theirs = Store(key)
            theirs["count"] = 5
            theirs.cycle_key()
            keys.append(theirs.session_key)

        def change(data: dict[str, Any]) -> int:
            if not keys:
                elsewhere(cycle)
            return count(data)

        assert ours.change(change) == 6
        assert ours.session_key == keys[0] != key
        assert stored(face, Store, ours.session_key) == {"count": 6, **USER}

    def test_after_a_cycle_of_its_own(self, Store, face):
        ours, theirs, _ = two(face, Store, count=1, **USER)
        ours.cycle_key()
        theirs.change(count)
        assert ours.change(count) == 3
        assert stored(face, Store, ours.session_key) == {"count": 3, **USER}


class TestWhatGoesWrong:
    @pytest.fixture
    def before(self, Store, face):
        """A session with an unsaved change, and what another has saved, and a look at both afterwards."""
        ours, theirs, key = two(face, Store, count=1, items=[1])
        ours["mine"] = 1
        theirs["b"] = 1
        theirs.save()
        yield ours
        assert dict(ours.items()) == {"count": 1, "items": [1], "mine": 1}
        assert stored(face, Store, key) == {"count": 1, "items": [1], "b": 1}
        ours.save()
        assert stored(face, Store, key) == {"count": 1, "items": [1], "b": 1, "mine": 1}

    def test_a_function_that_raises(self, before):
        def change(data: dict[str, Any]) -> None:
            data["items"].append(2)
            data.clear()
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            before.change(change)

    def test_one_that_raises_at_its_second_call(self, Store, face):
        ours, _, key = two(face, Store, count=1)
        calls = []

        def change(data: dict[str, Any]) -> None:
            if calls:
                raise ZeroDivisionError
            elsewhere(lambda: calls.append(Store(key).change(count)))
            count(data)

        with pytest.raises(ZeroDivisionError):
            ours.change(change)
        assert dict(ours.items()) == {"count": 1}
        assert stored(face, Store, key) == {"count": 2}
        assert ours.change(count) == 3

    def test_what_cannot_be_serialized(self, before):
        with pytest.raises(SessionNotSerializable) as caught:
            before.change(lambda data: data.update(bad=object()))
        assert caught.value.key == "bad"

    def test_what_is_too_large(self, before):
        limits = override_settings(MULTISESSION_MAX_BYTES=200, MULTISESSION_COMPRESS_OVER=None)
        with limits, pytest.raises(SessionTooLarge):
            before.change(lambda data: data.update(large="x" * 300))

    def test_a_change_within_a_change(self, Store, face, before):
        with pytest.raises(RuntimeError, match="the same session"):
            before.change(lambda data: itself(before, "change", count))

    def test_a_coroutine_function_where_none_can_be_awaited(self, Store):
        async def change(data: dict[str, Any]) -> None:
            count(data)

        session = Store(saved(lambda store: store, Store, count=1))
        for function in (change, partial(change)):
            with pytest.raises(TypeError, match="achange"):
                session.change(function)
        assert dict(session.items()) == {"count": 1}

    def test_others_that_always_come_first(self, Store, face, monkeypatch):
        monkeypatch.setattr("django_multisession.backends.base.ATTEMPTS", 5)
        ours, _, key = two(face, Store, count=0)
        calls = []
        with pytest.raises(SessionConflict, match="5 attempts"):
            ours.change(lambda data: elsewhere(lambda: calls.append(Store(key).change(count))) or count(data))
        assert len(calls) == 5
        assert stored(face, Store, key) == {"count": 5}

    def test_a_default_that_the_function_shares(self, Store, face):
        """The session keeps a copy, as it is loaded: what it does with that, it does to nobody else's."""
        default: list[int] = []
        first, second = face(Store()), face(Store())
        for session in (first, second):
            session.change(lambda data: data.setdefault("cart", default))
        first.get("cart").append(1)
        first.change(lambda data: data["cart"].append(2))
        assert first.get("cart") == [1, 2]
        assert default == second.get("cart") == []

    def test_data_that_the_function_keeps(self, Store, face):
        kept: list[dict[str, Any]] = []
        session, _, key = two(face, Store, items=[1])
        session.change(lambda data: kept.append(data) or data["items"].append(2))
        kept[0]["items"].append(3)
        session.save()
        assert stored(face, Store, key) == {"items": [1, 2]}

    def test_what_the_function_does_to_the_session_itself_is_not_lost(self, Store, face):
        session, _, key = two(face, Store, count=0)

        def change(data: dict[str, Any]) -> Any:
            count(data)
            return itself(session, "update", {"aside": 1})

        session.change(change)
        assert dict(session.items()) == {"count": 1, "aside": 1}
        session.save()
        assert stored(face, Store, key) == {"count": 1, "aside": 1}

    def test_a_function_that_saves_the_session(self, Store, face):
        session, _, key = two(face, Store, count=0)
        session["mine"] = 1
        session.change(lambda data: count(data) and itself(session, "save"))
        assert stored(face, Store, key) == dict(session.items()) == {"count": 1, "mine": 1}

    def test_types_that_the_serializer_changes(self, Store, face):
        session, _, key = two(face, Store, count=0)
        session["pair"] = {1: (1, 2)}
        given = []
        session.change(lambda data: given.append(data["pair"]) or data.update(more=(3,)))
        assert given == [{"1": [1, 2]}]
        session.save()
        assert stored(face, Store, key) == {"count": 0, "pair": {"1": [1, 2]}, "more": [3]}

    def test_an_expiry_in_the_past_ends_it(self, Store, face):
        session, _, key = two(face, Store, count=0)
        session.set_expiry(timedelta(seconds=-10))
        session.change(count)
        assert face(Store()).exists(key) is False


@pytest.mark.parametrize("engine_name", ["memory", "redis"])
class TestAsync:
    def test_the_function_may_be_plain_or_a_coroutine_function(self, Store, runner):
        async def change(data: dict[str, Any]) -> int:
            await asyncio.sleep(0)
            return count(data)

        session = Store(saved(lambda store: store, Store, count=0))
        assert [runner.run(session.achange(each)) for each in (change, count, partial(change))] == [1, 2, 3]

    def test_changes_of_one_session_object_at_once(self, Store, runner):
        async def slowly(data: dict[str, Any]) -> int:
            await asyncio.sleep(0)
            return count(data)

        async def race() -> list[int]:
            session = Store(key)
            results = await asyncio.gather(*(session.achange(slowly if n % 2 else count) for n in range(20)))
            assert dict(await session.aitems()) == {"count": 20}
            await session.aset("b", 1)
            await session.asave()
            return results

        key = saved(lambda store: store, Store, count=0)
        assert sorted(runner.run(race())) == list(range(1, 21))
        assert Store(key).load() == {"count": 20, "b": 1}

    def test_a_task_that_is_cancelled(self, Store, runner):
        async def forever(data: dict[str, Any]) -> None:
            count(data)
            await asyncio.sleep(3600)

        async def cancelled() -> None:
            session = Store(key)
            await session.aset("mine", 1)
            task = asyncio.ensure_future(session.achange(forever))
            await asyncio.sleep(0.05)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert dict(await session.aitems()) == {"count": 0, "mine": 1}
            assert await session.achange(count) == 1

        key = saved(lambda store: store, Store, count=0)
        runner.run(cancelled())
        assert Store(key).load() == {"count": 1, "mine": 1}


@EVERY_ENGINE
def test_two_that_count_to_the_same_number_in_the_same_millisecond(Store):
    """Their records are equal: which of them the store holds is told by whose it is."""
    with time_machine.travel(datetime.now(UTC), tick=False), override_settings(MULTISESSION_MERGE={"count": "sum"}):
        key = saved(lambda store: store, Store, count=0)
        sessions = [Store(key) for _ in range(3)]
        for session in sessions:
            count(session)
        for session in sessions:
            session.save()
        assert Store(key).load() == {"count": 3}


@pytest.mark.parametrize("engine_name", SQL)
class TestTransactions:
    def test_it_is_saved_with_the_transaction(self, Store):
        key = saved(lambda store: store, Store, count=0)
        session = Store(key)
        with transaction.atomic(using=SessionRouter.alias):
            assert session.change(count) == 1
            assert session.change(count) == 2
        assert session.change(count) == 3
        assert Store(key).load() == dict(session.items()) == {"count": 3}

    def test_a_roll_back_takes_it_back_from_the_store(self, Store):
        """The request goes on with what it has set, as with any save."""
        key = saved(lambda store: store, Store, count=0)
        session = Store(key)
        with transaction.atomic(using=SessionRouter.alias):
            session.change(count)
            transaction.set_rollback(True, using=SessionRouter.alias)
        assert Store(key).load() == {"count": 0}
        other = Store(key)
        other["b"] = 1
        other.save()
        assert session.change(count) == 2
        assert Store(key).load() == {"count": 2, "b": 1}

    @pytest.mark.parametrize("hook", ["", "fails"])
    def test_what_others_do_after_the_commit_comes_on_top_of_it(self, Store, hook):
        """The middleware saves the session once more, at the end of the request."""
        key = saved(lambda store: store, Store, count=0)
        session = Store(key)
        with suppress(ZeroDivisionError), transaction.atomic(using=SessionRouter.alias):
            transaction.on_commit(lambda: 1 / 0 if hook else None, using=SessionRouter.alias)
            session.change(count)
            session.save()
        elsewhere(lambda: Store(key).change(count))
        session.save()
        assert Store(key).load() == {"count": 2}

    def test_nothing_is_counted_twice_by_a_rule(self, Store):
        key = saved(lambda store: store, Store, count=0)
        session = Store(key)
        with transaction.atomic(using=SessionRouter.alias):
            count(session)
            session.save()
        with override_settings(MULTISESSION_MERGE={"count": "sum"}):
            elsewhere(lambda: Store(key).change(count))
            session["b"] = 1
            session.save()
        assert Store(key).load() == {"count": 2, "b": 1}

    @pytest.mark.parametrize("rolls_back", [False, True])
    def test_a_task_within_a_transaction_of_a_synchronous_view(self, Store, rolls_back):
        key = saved(lambda store: store, Store, count=0)
        session = Store(key)
        with transaction.atomic(using=SessionRouter.alias):
            async_to_sync(session.achange)(count)
            transaction.set_rollback(rolls_back, using=SessionRouter.alias)
        elsewhere(lambda: save(Store, key, b=1))
        session["c"] = 1
        session.save()
        assert Store(key).load() == {"count": 1, "b": 1, "c": 1}

    def test_several_tasks_within_one_that_is_rolled_back(self, Store):
        """The event loop's thread sees no transaction of the database's."""
        key = saved(lambda store: store, Store, a=1)
        session = Store(key)
        with transaction.atomic(using=SessionRouter.alias):
            for name in "bc":
                session[name] = 1
                async_to_sync(session.asave)()
            transaction.set_rollback(True, using=SessionRouter.alias)
        set_and_save(session, d=1)
        assert Store(key).load() == {"a": 1, "b": 1, "c": 1, "d": 1}

    def test_a_task_that_deletes_within_one_that_is_rolled_back(self, Store):
        key = saved(lambda store: store, Store, a=1)
        session = Store(key)
        session.load()
        with transaction.atomic(using=SessionRouter.alias):
            async_to_sync(session.adelete)()
            transaction.set_rollback(True, using=SessionRouter.alias)
        set_and_save(session, b=1)
        assert Store(key).load() == {"a": 1, "b": 1}

    @pytest.mark.parametrize("rolls_back", [False, True])
    def test_a_savepoint_that_is_rolled_back(self, Store, rolls_back):
        """What was saved before it is no change of others, neither within the transaction nor after it."""
        key = saved(lambda store: store, Store, count=0)
        session = Store(key)
        with override_settings(MULTISESSION_MERGE={"count": "sum"}):
            with transaction.atomic(using=SessionRouter.alias):
                count(session)
                session.save()
                set_and_save(session, a=1)
                with transaction.atomic(using=SessionRouter.alias):
                    set_and_save(session, b=1)
                    transaction.set_rollback(True, using=SessionRouter.alias)
                set_and_save(session, c=1)
                with transaction.atomic(using=SessionRouter.alias):
                    set_and_save(session, d=1)
                    transaction.set_rollback(True, using=SessionRouter.alias)
                transaction.set_rollback(rolls_back, using=SessionRouter.alias)
            elsewhere(lambda: Store(key).change(count))
            set_and_save(session, e=1)
        assert Store(key).load() == {"count": 2, **dict.fromkeys("abcde", 1)}

    @pytest.mark.parametrize("rolls_back", [False, True])
    def test_a_touch_after_it_is_no_conflict(self, Store, rolls_back):
        key = saved(lambda store: store, Store, a=1)
        session = Store(key)
        with override_settings(MULTISESSION_ON_CONFLICT="raise"):
            with transaction.atomic(using=SessionRouter.alias):
                set_and_save(session, b=1)
                transaction.set_rollback(rolls_back, using=SessionRouter.alias)
            run_sync(Store.storage.touch(session._record.id, utcnow() + timedelta(days=40)))
            set_and_save(session, c=1)
        assert Store(key).load() == dict.fromkeys("abc", 1)

    @pytest.mark.parametrize("rolls_back", [False, True])
    def test_autocommit_that_is_switched_off(self, Store, rolls_back):
        alias, key = SessionRouter.alias, saved(lambda store: store, Store, count=0)
        session = Store(key)
        transaction.set_autocommit(False, using=alias)
        try:
            session.change(count)
            (transaction.rollback if rolls_back else transaction.commit)(using=alias)
        finally:
            transaction.set_autocommit(True, using=alias)
        elsewhere(lambda: save(Store, key, b=1))
        session["c"] = 1
        session.save()
        assert Store(key).load() == {"count": 1, "b": 1, "c": 1}

    def test_a_test_case_has_no_hooks_more(self, Store):
        """Who counts those of the site in a test finds them alone."""
        session = Store(saved(lambda store: store, Store, count=0))
        with atomic_of_a_test_case(), TestCase.captureOnCommitCallbacks(using=SessionRouter.alias) as callbacks:
            session.change(count)
            transaction.set_rollback(True, using=SessionRouter.alias)
        assert callbacks == []


def save(Store: Any, key: str, **changes: Any) -> None:
    set_and_save(Store(key), **changes)


def set_and_save(session: Any, **changes: Any) -> None:
    session.update(changes)
    session.save()


@pytest.mark.slow
@pytest.mark.parametrize("engine_name", [name for name in ENGINES if name != "mysql"])
def test_two_changes_verb_by_verb(Store, face):
    """Whatever the order of their verbs, and one that comes after a log-out finds the session gone."""
    chance = random.Random(5)
    for round in range(60):
        key, ends = saved(face, Store, count=0, **USER), round % 3 == 0
        counted = interleaved(Store, face, key, [chance.randrange(3) for _ in range(14)], ends)
        if ends:
            assert face(Store()).exists(key) is False
        else:
            assert stored(face, Store, key) == {"count": counted, **USER}


def interleaved(Store: Any, face: Any, key: str, order: list[int], ends: bool) -> int:
    """How many of three changes came through; one of them is a log-out, if it `ends`."""
    came_through = []

    async def changing(storage: Any) -> None:
        session = Store(key)
        await session._data(storage)
        if session.session_key is None:
            return  # after the log-out: a session of its own
        with suppress(SessionEnded):
            came_through.append(await changing_core(session, storage, count, 1000))

    async def ending(storage: Any) -> None:
        await Store(key)._delete(storage)

    async def on_the_loop() -> None:
        await interleave_async(Store.astorage, requests, order)

    requests = [changing, changing, ending if ends else changing]
    if face.name == "sync":
        interleave_sync(Store.storage, requests, order)
    else:
        face.runner.run(on_the_loop())
    return len(came_through)
