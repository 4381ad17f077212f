"""Within the caller's transaction: what is uncommitted is seen by its own reads, and cached for nobody."""

import itertools
import sys
import threading
from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import Error, connections, transaction
from django.test import TestCase

from django_multisession.backends.cached_db import transactions
from django_multisession.backends.cached_db.copies import Copies, _key
from django_multisession.records import identify
from django_multisession.testing.faces import SyncFace
from django_multisession.testing.stored import saved
from tests.routers import SessionRouter


@pytest.fixture(params=["cached_sqlite", "cached_postgres", "cached_mysql"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def key(Store: Any) -> str:
    """Of a session that is cached."""
    key = saved(SyncFace(), Store, a=1)
    Store(key).load()
    assert is_cached(Store, key)
    return key


def is_cached(Store: Any, key: str) -> bool:
    return bool((Store.storage.told._opened().client.get(_key(identify(key))) or b"").startswith(b"c"))


def atomic(**options: Any) -> Any:
    return transaction.atomic(using=SessionRouter.alias, **options)


def roll_back() -> None:
    transaction.set_rollback(True, using=SessionRouter.alias)


def save(Store: Any, key: str, **data: Any) -> None:
    session = Store(key)
    session.update(data)
    session.save()


def elsewhere(function: Any, *arguments: Any, **named: Any) -> Any:
    """In another thread, on another connection."""
    found: list[Any] = []

    def run() -> None:
        found.append(function(*arguments, **named))
        connections.close_all()

    (thread := threading.Thread(target=run)).start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("rolls_back", [False, True])
def test_a_save_is_seen_within_and_told_after_the_commit(Store, key, rolls_back):
    with atomic():
        save(Store, key, b=2)
        assert Store(key).load() == {"a": 1, "b": 2}
        assert elsewhere(Store(key).load) == {"a": 1}
        assert is_cached(Store, key)
        if rolls_back:
            roll_back()
    expected = {"a": 1} if rolls_back else {"a": 1, "b": 2}
    assert is_cached(Store, key) is rolls_back
    assert [Store(key).load() for _ in range(3)] == [expected] * 3
    assert not transactions.PENDING


@pytest.mark.parametrize("rolls_back", [False, True])
def test_a_log_out(Store, key, rolls_back):
    with atomic():
        Store(key).flush()
        assert Store().exists(key) is False
        assert elsewhere(Store().exists, key) is True
        if rolls_back:
            roll_back()
    assert [Store().exists(key) for _ in range(3)] == [rolls_back] * 3


def test_a_savepoint_that_is_rolled_back(Store, key):
    with atomic():
        with atomic():
            save(Store, key, b=2)
            roll_back()
        assert Store(key).load() == {"a": 1}
        with atomic():
            save(Store, key, c=3)
        assert Store(key).load() == {"a": 1, "c": 3}
    assert Store(key).load() == {"a": 1, "c": 3}
    assert not transactions.PENDING


def test_a_savepoint_around_a_change_that_was_made_before(Store, key):
    """The outer change stays, so its reads go on by SQL."""
    with atomic():
        save(Store, key, b=2)
        with atomic():
            save(Store, key, c=3)
            roll_back()
        assert Store(key).load() == {"a": 1, "b": 2}
    assert Store(key).load() == {"a": 1, "b": 2}


class TestHooksOfTheSite:
    """Those that were registered before the session was changed find Redis told."""

    def test_one_that_fails_keeps_no_change_from_being_told(self, Store, key):
        with suppress(ZeroDivisionError), atomic():
            transaction.on_commit(lambda: 1 / 0, using=SessionRouter.alias)
            Store(key).flush()
        assert Store(key).load() == {}

    def test_one_that_has_others_read_the_session(self, Store, key):
        seen: list[Any] = []
        with atomic():
            transaction.on_commit(lambda: seen.append(elsewhere(Store(key).load)), using=SessionRouter.alias)
            save(Store, key, b=2)
        assert seen == [{"a": 1, "b": 2}]

    def test_one_that_changes_the_session_in_a_transaction_of_its_own(self, Store, key):
        seen: list[Any] = []

        def change() -> None:
            with atomic():
                save(Store, key, c=3)
            seen.append(elsewhere(Store(key).load))

        with atomic():
            transaction.on_commit(change, using=SessionRouter.alias)
            save(Store, key, b=2)
        assert seen == [{"a": 1, "b": 2, "c": 3}]

    def test_those_that_a_test_captures_are_those_that_came_since(self, Store, key):
        """Django takes them to be at the end: in its `TestCase`, where nothing is ever committed."""
        with atomic_of_a_test_case():
            transaction.on_commit(list, using=SessionRouter.alias)
            with TestCase.captureOnCommitCallbacks(using=SessionRouter.alias, execute=True) as callbacks:
                save(Store, key, b=2)
            assert [type(each) for each in callbacks] == [transactions.Telling]
            assert not is_cached(Store, key)
            roll_back()


def atomic_of_a_test_case() -> Any:
    """As `TestCase` has around each test."""
    found = atomic()
    found._from_testcase = True
    return found


def test_a_change_is_told_whatever_other_threads_do_meanwhile():
    """All threads have what is pending in one dictionary, which must not be gone through while others change it."""
    others, are_over = [], threading.Event()

    class Nowhere:
        async def forget(self, ids: Any) -> None: ...

    def change() -> None:
        for number in itertools.takewhile(lambda _: not are_over.is_set(), itertools.count()):
            others[:] = [transactions.Telling(-1, [f"{number} {each}" for each in range(20)], Nowhere())]

    threads = [threading.Thread(target=change) for _ in range(2)]
    interval = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-5)
        for thread in threads:
            thread.start()
        for number in range(300):
            transactions.Telling(-2, [str(number)], Nowhere())()
    finally:
        sys.setswitchinterval(interval)
        are_over.set()
        for thread in threads:
            thread.join()


def test_a_session_that_is_made_within(Store):
    with atomic():
        key = saved(SyncFace(), Store, a=1)
        assert Store(key).load() == {"a": 1}
        assert not is_cached(Store, key)
        assert elsewhere(Store(key).load) == {}
        roll_back()
    assert Store(key).load() == {}


def test_a_miss_is_copied_at_once_or_after_the_commit(Store, engine_name):
    """At once where the statement itself says that it has a snapshot of its own."""
    key = saved(SyncFace(), Store, a=1)
    with atomic():
        assert Store(key).load() == {"a": 1}
        assert is_cached(Store, key) is (engine_name == "cached_postgres")
    assert is_cached(Store, key)


LEVELS = ["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("engine_name", ["cached_postgres", "cached_mysql"])
def test_an_older_snapshot_is_not_cached_on_any_level(Store, key, level, engine_name):
    """Also where the level was set by hand, for this transaction alone."""
    cursor = connections[SessionRouter.alias].cursor()
    if engine_name == "cached_mysql":
        cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
    with atomic():
        if engine_name == "cached_postgres":
            cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        cursor.execute("SELECT COUNT(*) FROM django_multisession_purgerun")
        elsewhere(save, Store, key, b=2) if level != "SERIALIZABLE" or engine_name == "cached_postgres" else None
        Store(key).load()
        others = elsewhere(Store(key).load)
        assert others == elsewhere(SQL(Store, key))
    assert [Store(key).load() for _ in range(2)] == [others] * 2


class SQL:
    """What the database has."""

    def __init__(self, Store: Any, key: str) -> None:
        self.Store, self.key = Store, key

    def __call__(self) -> Any:
        from django_multisession.backends.db import SessionStore

        return SessionStore(self.key).load()


def test_an_asynchronous_read_in_a_transaction_of_a_synchronous_view(Store, key):
    async def read() -> Any:
        return await Store(key).aload()

    with atomic():
        save(Store, key, b=2)
        assert async_to_sync(read)() == {"a": 1, "b": 2}
        roll_back()
    assert async_to_sync(read)() == {"a": 1}


def test_an_asynchronous_save_in_a_transaction_of_a_synchronous_view(Store, key):
    async def write() -> Any:
        session = Store(key)
        await session.aset("b", 2)
        await session.asave()

    with atomic():
        async_to_sync(write)()
        assert is_cached(Store, key)
        assert Store(key).load() == {"a": 1, "b": 2}
        roll_back()
    assert Store(key).load() == {"a": 1}


def test_what_another_task_has_changed_meanwhile_is_not_cached(Store, key, monkeypatch):
    """Both are in one transaction: the first has asked whether it has changed the session before the second does."""
    take, saves = Copies.take, iter(["once"])

    async def and_save(copies: Copies, place: str, id: str) -> Any:
        found = await take(copies, place, id)
        if next(saves, None):
            session = Store(key)
            await session.aset("b", 2)
            await session.asave()
        return found

    Store.storage.told._opened().client.delete(_key(identify(key)))
    with atomic():
        monkeypatch.setattr(Copies, "take", and_save)
        assert async_to_sync(Store(key).aload)() == {"a": 1, "b": 2}
        monkeypatch.undo()
        assert elsewhere(Store(key).load) == {"a": 1}
        roll_back()
    assert Store(key).load() == {"a": 1}


def test_hooks_that_a_test_calls_within_its_transaction_end(Store, monkeypatch):
    """Django's `captureOnCommitCallbacks()` goes on while hooks leave other hooks."""
    copied: list[Any] = []
    copy = transactions._copy

    def counted(*arguments: Any) -> None:
        copied.append(arguments)
        if len(copied) < 3:
            copy(*arguments)

    monkeypatch.setattr(transactions, "_copy", counted)
    key = saved(SyncFace(), Store, a=1)
    with atomic(), TestCase.captureOnCommitCallbacks(using=SessionRouter.alias, execute=True):
        Store(key).load()
    assert len(copied) <= 2  # within, and after the commit


@pytest.mark.parametrize("commits", [True, False])
def test_autocommit_that_was_switched_off(Store, key, commits):
    """Django tells nobody of the commit then: Redis is told before it, and when it is switched on again."""
    alias = SessionRouter.alias
    transaction.set_autocommit(False, using=alias)
    try:
        save(Store, key, b=2)
        assert not is_cached(Store, key)
        assert Store(key).load() == {"a": 1, "b": 2}
        assert elsewhere(Store(key).load) == {"a": 1}
        (transaction.commit if commits else transaction.rollback)(using=alias)
    finally:
        transaction.set_autocommit(True, using=alias)
    assert Store(key).load() == ({"a": 1, "b": 2} if commits else {"a": 1})
    assert not transactions.PENDING


@pytest.mark.parametrize("engine_name", ["cached_postgres"])
def test_a_transaction_of_another_database_is_none(Store, key):
    with transaction.atomic(using="default"):
        save(Store, key, b=2)
        assert not is_cached(Store, key)
        assert elsewhere(Store(key).load) == {"a": 1, "b": 2}


def test_a_connection_that_is_closed_within_keeps_nothing_pending(Store, key):
    with suppress(Error), atomic():
        save(Store, key, b=2)
        assert transactions.PENDING
        connections[SessionRouter.alias].close()
    assert not transactions.PENDING
    assert Store(key).load() == {"a": 1}
