"""What is a conflict, an outage, or the caller's own error, where the server isolates transactions strictly."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import DatabaseError, InternalError, OperationalError, connections, transaction
from django.db.transaction import TransactionManagementError
from django.test import override_settings

from django_multisession import databases
from django_multisession.exceptions import EngineUnavailable
from django_multisession.models import Session
from django_multisession.records import identify, utcnow
from django_multisession.testing.faces import SyncFace
from django_multisession.testing.stored import saved
from django_multisession.twins import run_sync
from tests import servers
from tests.backends.test_outages import using
from tests.purge.test_purge import elsewhere
from tests.routers import SessionRouter

LEVELS = {
    "postgres": lambda level: {"options": f"-c default_transaction_isolation={level.replace(' ', chr(92) + ' ')}"},
    "mysql": lambda level: {
        "isolation_level": level,
        "init_command": "SET SESSION innodb_snapshot_isolation = ON, innodb_lock_wait_timeout = 3",
    },
}


@pytest.fixture(params=["postgres", "mysql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["repeatable read", "serializable"])
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def Store(level: str, kind: str) -> Iterator[Any]:
    url = servers.url_of(kind)
    if url is None:
        pytest.skip(servers.MISSING[kind])
    with using(kind, url, OPTIONS=LEVELS[kind](level)) as store:
        yield store
        Session.objects.using(SessionRouter.alias).all().delete()


def cursor() -> Any:
    return connections[SessionRouter.alias].cursor()


# Fifty at once


def save_in_threads(Store: Any, key: str, number: int) -> list[BaseException]:
    barrier, errors = threading.Barrier(number), []

    def save(index: int) -> None:
        try:
            session = Store(key)
            session.get("")
            barrier.wait(30)
            session[f"key{index % 10}"] = index
            session.save()
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(number) as pool:
        list(pool.map(save, range(number)))
    return errors


def save_in_tasks(Store: Any, key: str, number: int) -> list[BaseException]:
    async def save(index: int, barrier: asyncio.Barrier) -> None:
        async with ThreadSensitiveContext():  # as each request of Django's ASGI handler: a connection of its own
            session = Store(key)
            await session.aget("")
            await barrier.wait()
            await session.aset(f"key{index % 10}", index)
            try:
                await session.asave()
            finally:
                await sync_to_async(connections.close_all)()

    async def main() -> list[Any]:
        barrier = asyncio.Barrier(number)
        return await asyncio.gather(*(save(index, barrier) for index in range(number)), return_exceptions=True)

    return [found for found in asyncio.run(main()) if found is not None]


@pytest.mark.parametrize("save", [save_in_threads, save_in_tasks])
def test_no_save_of_fifty_is_an_outage_and_no_key_is_lost(Store: Any, save: Any) -> None:
    key = saved(SyncFace(), Store)
    assert save(Store, key, 50) == []
    assert set(Store(key).keys()) == {f"key{number}" for number in range(10)}


# One conflict


def test_a_deadlock_is_repeated(Store: Any) -> None:
    """Ours is the victim: the other one has more to roll back, and has waited for a shorter time."""
    first, second, *heavy = sorted((saved(SyncFace(), Store) for _ in range(30)), key=identify)
    locked, done = threading.Event(), []

    def other() -> None:
        alias = SessionRouter.alias
        rows = Session.objects.using(alias)
        with transaction.atomic(using=alias):
            rows.filter(pk__in=[identify(key) for key in [second, *heavy]]).update(version=2)
            locked.set()
            until(lambda: waiting() > 0)
            rows.filter(pk=identify(first)).update(version=2)
        done.append(True)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(lambda: elsewhere(other))
        assert locked.wait(30)
        assert run_sync(Store.storage.remove([identify(first), identify(second)])) == 2
        future.result(30)
    assert done == [True]


def test_a_conflict_costs_no_connection(Store: Any, kind: str) -> None:
    """With it the caller's temporary tables, variables and locks would go."""
    asked = {"postgres": "SELECT pg_backend_pid()", "mysql": "SELECT CONNECTION_ID()"}[kind]
    session = Store(saved(SyncFace(), Store))
    session["a"] = session.get("b", 1)
    locked = threading.Event()

    def other() -> None:
        rows = Session.objects.using(SessionRouter.alias)
        with transaction.atomic(using=SessionRouter.alias):
            rows.filter(pk=identify(session.session_key)).update(updated_at=utcnow())
            locked.set()
            until(lambda: waiting() > 0)

    with cursor() as before, ThreadPoolExecutor(1) as pool:
        before.execute(asked)
        mine = before.fetchone()
        future = pool.submit(lambda: elsewhere(other))
        assert locked.wait(30)
        session.save()
        future.result(30)
    with cursor() as after:
        after.execute(asked)
        assert after.fetchone() == mine


def waiting() -> int:
    """How many statements wait for a lock."""
    alias = SessionRouter.alias
    asked = {
        "postgresql": "SELECT count(*) FROM pg_locks WHERE NOT granted",
        "mysql": "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
    }
    watching = connections.create_connection(alias)
    try:
        with watching.cursor() as cursor:
            cursor.execute(asked[watching.vendor])
            return int(cursor.fetchone()[0])
    finally:
        watching.close()


def until(condition: Callable[[], bool]) -> None:
    for _ in range(300):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("It did not come about.")


@pytest.mark.parametrize("code", sorted(map(str, databases.OVERTAKEN)))
def test_conflicts_that_do_not_end_are_an_outage_after_the_timeout(Store: Any, code: str) -> None:
    calls = []

    def overtaken(alias: str) -> None:
        calls.append(alias)
        raise OperationalError(int(code) if code.isdigit() and len(code) == 4 else code, "overtaken")

    with override_settings(MULTISESSION_TIMEOUT=0.1), pytest.raises(EngineUnavailable):
        run_sync(Store.storage._ask(overtaken))
    assert len(calls) > 2


@pytest.mark.parametrize("kind", ["mysql"], indirect=True)
def test_a_lock_waited_for_in_vain_is_waited_for_once_more(Store: Any) -> None:
    key = saved(SyncFace(), Store)
    session = Store(key)
    session["a"] = session.get("b", 1)

    sent: list[str] = []

    def watch(execute: Any, sql: str, *rest: Any) -> Any:
        sent.append(sql.split()[0])
        return execute(sql, *rest)

    def save() -> None:
        with connections[SessionRouter.alias].execute_wrapper(watch), pytest.raises(EngineUnavailable):
            session.save()

    with transaction.atomic(using=SessionRouter.alias):
        list(Session.objects.using(SessionRouter.alias).select_for_update())
        elsewhere(save)
    assert sent.count("UPDATE") == 2
    session.save()
    assert Store(key)["a"] == 1


# The caller's


# Where MySQL's serializable transaction has read, nobody else writes.
@pytest.mark.parametrize(
    ("kind", "level"),
    [("postgres", "repeatable read"), ("postgres", "serializable"), ("mysql", "repeatable read")],
    indirect=True,
)
@pytest.mark.parametrize("face_name", ["sync", "async"])
def test_within_a_transaction_a_conflict_is_the_callers(Store: Any, kind: str, face_name: str) -> None:
    """Who repeats the transaction is to see what it was."""
    key = saved(SyncFace(), Store)

    def view() -> None:
        with transaction.atomic(using=SessionRouter.alias):
            session = Store(key)
            session["mine"] = session.get("theirs", 1)
            elsewhere(save, Store, key)
            session.save()

    with pytest.raises(DatabaseError) as caught:
        in_face(face_name, view)
    assert databases.codes(caught.value) & (databases.OVERTAKEN | databases.IN_VAIN)
    assert Store(key)["theirs"] == 2


def save(Store: Any, key: str) -> None:
    session = Store(key)
    session["theirs"] = 2
    session.save()


def in_face(name: str, function: Callable[[], object]) -> None:
    if name == "sync":
        function()
        return
    with asyncio.Runner() as runner:
        runner.run(sync_to_async(function)())
        runner.run(sync_to_async(connections.close_all)())


@pytest.mark.parametrize("kind", ["postgres"], indirect=True)
def test_a_query_after_one_that_failed_is_no_outage(Store: Any) -> None:
    key = saved(SyncFace(), Store)

    def view() -> None:
        with transaction.atomic(using=SessionRouter.alias):
            with pytest.raises(DatabaseError), cursor() as asking:
                asking.execute("SELECT nonsense")
            Store(key).load()

    with pytest.raises(InternalError, match="current transaction is aborted"):
        view()
    assert Store().exists(key)


def test_a_query_in_a_transaction_to_be_rolled_back_is_no_outage(Store: Any) -> None:
    key = saved(SyncFace(), Store)

    def view() -> None:
        with transaction.atomic(using=SessionRouter.alias):
            transaction.set_rollback(True, using=SessionRouter.alias)
            Store(key).load()

    with pytest.raises(TransactionManagementError):
        view()
    assert Store().exists(key)
