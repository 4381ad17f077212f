"""Clients outlive requests: one per process, one per running loop, none past the end of either. On real servers."""

import asyncio
import gc
import json
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from inspect import isasyncgenfunction, unwrap
from pathlib import Path
from threading import Barrier, Event
from typing import Any
from unittest import mock

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django import conf
from django.test import override_settings
from pymongo import AsyncMongoClient

from django_multisession.connections import Connections, close_all
from django_multisession.exceptions import EngineUnavailable

ENGINES = ["redis", "mongodb"]
settings: Any = conf.settings


# On their own


class FakeStorage:
    def __init__(self) -> None:
        time.sleep(0.001)
        self.closed = 0

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed += 1


@pytest.fixture
def fake() -> Connections[FakeStorage]:
    return Connections(FakeStorage, lambda storage: FakeStorage(), settings={"MULTISESSION_FAKE"})


async def running(connections: Connections[FakeStorage]) -> FakeStorage:
    return connections.running()


def test_who_waits_for_a_failure_does_not_wait_for_another() -> None:
    """A name server that does not answer takes seconds, for each."""
    come, calls = Event(), []

    def fail() -> FakeStorage:
        calls.append(come.wait(30))
        raise EngineUnavailable(f"away, {len(calls)}")

    connections = Connections(fail, lambda storage: storage, settings=set())
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(connections.sync) for _ in range(20)]
        time.sleep(0.2)  # until all have come
        come.set()
        errors = {str(each.exception(30)) for each in waiting}
    assert errors == {"away, 1"}
    with pytest.raises(EngineUnavailable, match="away, 2"):  # the next one looks again
        connections.sync()


def test_threads_share_one_synchronous_client(fake: Connections[FakeStorage]) -> None:
    barrier = Barrier(20)

    def open_at_once() -> FakeStorage:
        barrier.wait()
        return fake.sync()

    with ThreadPoolExecutor(20) as pool:
        opened = {future.result() for future in [pool.submit(open_at_once) for _ in range(20)]}
    assert len(opened) == 1


def test_a_loop_has_one_client_and_closes_it_once(fake: Connections[FakeStorage]) -> None:
    async def main() -> FakeStorage:
        first, *others = [await asyncio.create_task(running(fake)) for _ in range(10)]
        assert all(other is first for other in others)
        assert not first.closed
        return first

    first, second = asyncio.run(main()), asyncio.run(main())
    assert first is not second
    assert (first.closed, second.closed) == (1, 1)


def test_there_is_none_outside_of_a_loop(fake: Connections[FakeStorage]) -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        fake.running()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("closed", [True, False])
def test_a_loop_that_nobody_shut_down_is_let_go_with_its_client(fake: Connections[FakeStorage], closed: bool) -> None:
    """Though the client holds the loop, as every real one does by its streams."""
    loop = asyncio.new_event_loop()
    storage: Any = loop.run_until_complete(running(fake))
    storage.loop = loop
    if closed:
        loop.close()
    left = weakref.ref(loop), weakref.ref(storage)
    del loop, storage
    gc.collect()
    assert [each() for each in left] == [None, None]


def test_loops_come_and_go_in_many_threads(fake: Connections[FakeStorage]) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(20) as pool:
            runs = [pool.submit(asyncio.run, running(fake)) for _ in range(1500)]
            storages = [run.result() for run in runs]
    finally:
        sys.setswitchinterval(interval)
    assert {storage.closed for storage in storages} == {1}


def test_a_changed_setting_makes_new_clients_and_closes_the_old(fake: Connections[FakeStorage]) -> None:
    async def main() -> list[FakeStorage]:
        old = [fake.sync(), fake.running()]
        with override_settings(MULTISESSION_FAKE=1):
            new = [fake.sync(), fake.running()]
            assert [storage.closed for storage in old] == [1, 0]
        assert fake.running() not in [*old, *new]
        return [*old, *new]

    assert [storage.closed for storage in asyncio.run(main())] == [1, 1, 1, 1]


def test_another_setting_changes_nothing(fake: Connections[FakeStorage]) -> None:
    storage = fake.sync()
    with override_settings(MULTISESSION_KEY_PREFIX="other"):
        assert fake.sync() is storage
    assert not storage.closed


def test_tests_that_change_settings_pile_nothing_up(fake: Connections[FakeStorage]) -> None:
    for number in range(50):
        with override_settings(MULTISESSION_FAKE=number):
            asyncio.run(running(fake))
    assert len(fake._kept) <= 1


def test_a_child_forgets_the_clients_of_its_parent_without_closing_them(fake: Connections[FakeStorage]) -> None:
    async def main() -> list[FakeStorage]:
        return [fake.sync(), fake.running()]

    with asyncio.Runner() as runner, mock.patch.object(Connections, "_all", {fake}):
        of_parent = runner.run(main())
        fake._lock.acquire()
        Connections._forked()
        of_child = runner.run(main())
        assert [storage.closed for storage in of_parent] == [0, 0]
        close_all()
        assert [storage.closed for storage in of_child] == [1, 0]
    assert not set(of_child) & set(of_parent)


def test_closing_before_anything_was_opened_is_no_error(fake: Connections[FakeStorage]) -> None:
    fake.close()
    fake.close()


# With real servers


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connections(Store: Any) -> Connections[Any]:
    found: Connections[Any] = import_module(Store.__module__).connections
    return found


@pytest.fixture
def opened(Store: Any, engine_name: str) -> Callable[[], int]:
    """How many connections the server has, this question's own included."""

    def on_redis() -> int:
        return len(Store.storage.client.client_list())

    def on_mongodb() -> int:
        return int(Store.storage.client.admin.command("serverStatus")["connections"]["current"])

    count = {"redis": on_redis, "mongodb": on_mongodb}[engine_name]
    settled(count)
    return count


def settled(count: Callable[[], int]) -> int:
    """The count when it has stopped to change: a driver opens its monitors a bit after a client."""
    before, now = -1, count()
    while now != before:
        time.sleep(0.15)
        before, now = now, count()
    return now


def falls_to(wanted: int, count: Callable[[], int]) -> bool:
    """Whether the count gets there: a server notices a hang-up a bit after it."""
    deadline = time.monotonic() + 5
    while count() > wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return count() <= wanted


async def visit(Store: Any, session_key: str | None = None) -> str:
    session = Store(session_key)
    await session.aset("visits", await session.aget("visits", 0) + 1)
    await session.asave()
    key: str = session.session_key
    return key


def test_no_connection_of_a_loop_outlives_it(Store: Any, opened: Callable[[], int]) -> None:
    before = settled(opened)

    async def main() -> int:
        await asyncio.gather(*[visit(Store) for _ in range(5)])
        return await asyncio.to_thread(opened)

    assert asyncio.run(main()) > before
    gc.collect()  # a ResourceWarning here fails the test
    assert falls_to(before, opened)


def test_no_connection_outlives_a_loop_that_failed(Store: Any, opened: Callable[[], int]) -> None:
    before = settled(opened)

    async def main() -> None:
        await visit(Store)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
    gc.collect()
    assert falls_to(before, opened)


def test_nothing_keeps_a_loop_alive(Store: Any) -> None:
    async def main() -> "weakref.ref[asyncio.AbstractEventLoop]":
        await visit(Store)
        return weakref.ref(asyncio.get_running_loop())

    ended = [asyncio.run(main()) for _ in range(3)]
    gc.collect()
    assert [loop() for loop in ended] == [None, None, None]


def end_by_run(Store: Any) -> "weakref.ref[asyncio.AbstractEventLoop]":
    async def main() -> "weakref.ref[asyncio.AbstractEventLoop]":
        await visit(Store)
        return weakref.ref(asyncio.get_running_loop())

    return asyncio.run(main())


def end_by_close(Store: Any) -> "weakref.ref[asyncio.AbstractEventLoop]":
    """Without shutdown_asyncgens(), so nothing closes the client."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(visit(Store))
    loop.close()
    return weakref.ref(loop)


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("end", [end_by_run, end_by_close])
def test_three_hundred_loops_leave_nothing(Store: Any, opened: Callable[[], int], end: Any, monkeypatch: Any) -> None:
    """No loop, no file descriptor and no connection of the server's."""
    # pytest's keeps the frames of what redis-py before 6 raises as it is let go, and with them its sockets.
    monkeypatch.setattr(sys, "unraisablehook", lambda error: None)
    end(Store)
    before = descriptors(), settled(opened)
    with ThreadPoolExecutor(3) as pool:
        ended = list(pool.map(end, [Store] * 300))
    assert falls_to(before[0], descriptors)
    assert falls_to(before[1], opened)
    assert [loop for loop in ended if loop()] == []


def test_async_to_sync_called_again_and_again_leaves_no_connections(Store: Any, opened: Callable[[], int]) -> None:
    before = settled(opened)
    key = async_to_sync(visit)(Store)
    for _ in range(24):
        async_to_sync(visit)(Store, key)
    gc.collect()
    assert falls_to(before, opened)
    assert Store(key)["visits"] == 25


def test_two_loops_have_two_clients(Store: Any, connections: Connections[Any]) -> None:
    both_run = Barrier(2, timeout=20)

    async def main() -> tuple[str, Any, Any]:
        key = await visit(Store)
        both_run.wait()
        await visit(Store, key)
        both_run.wait()
        assert connections.running().client is Store.astorage.client
        return key, Store.astorage.client, connections.sync().client

    with ThreadPoolExecutor(2) as pool:
        ran = [future.result() for future in [pool.submit(asyncio.run, main()) for _ in range(2)]]
    (first_key, first, sync), (second_key, second, same_sync) = ran
    assert first is not second
    assert sync is same_sync
    assert Store(first_key)["visits"] == Store(second_key)["visits"] == 2


def test_fifty_tasks_share_one_client(Store: Any, connections: Connections[Any], monkeypatch: Any) -> None:
    clients = []
    original = connections._open_async

    def counting(storage: Any) -> Any:
        clients.append(original(storage))
        return clients[-1]

    monkeypatch.setattr(connections, "_open_async", counting)

    async def main() -> list[str]:
        keys = await asyncio.gather(*[visit(Store) for _ in range(50)])
        return await asyncio.gather(*[visit(Store, key) for key in keys])

    keys = asyncio.run(main())
    assert len(clients) == 1
    assert [Store(key)["visits"] for key in keys] == [2] * 50


@pytest.mark.parametrize(
    "in_thread", [asyncio.to_thread, lambda f, *a: sync_to_async(f)(*a)], ids=["asyncio", "asgiref"]
)
def test_one_session_on_the_loop_and_then_in_a_thread(Store: Any, in_thread: Callable[..., Any]) -> None:
    def in_sync(session: Any) -> None:
        session["thread"] = session["loop"] + 1
        session.save()

    async def main() -> tuple[str, dict[str, Any]]:
        session = Store()
        await session.aset("loop", 1)
        await session.asave()
        await in_thread(in_sync, session)
        await session.aset("loop again", await session.aget("thread") + 1)
        await session.asave()
        return session.session_key, await in_thread(session.load)

    key, loaded = asyncio.run(main())
    assert Store(key).load() == loaded == {"loop": 1, "thread": 2, "loop again": 3}


@pytest.fixture
def other_database(engine_name: str) -> dict[str, str]:
    if engine_name == "redis":
        return {"MULTISESSION_REDIS": settings.REDIS_URL.removesuffix("/0") + "/9"}
    return {"MULTISESSION_MONGODB": settings.MULTISESSION_MONGODB + "_other"}


def test_other_settings_take_effect_at_once(Store: Any, other_database: dict[str, str], face: Any) -> None:
    session = face(Store())
    session["visits"] = 1
    session.save()
    with override_settings(**other_database):
        assert not face(Store()).exists(session.session_key)
        elsewhere = face(Store())
        elsewhere["visits"] = 1
        elsewhere.save()
        assert face(Store()).exists(elsewhere.session_key)
    assert face(Store()).exists(session.session_key)
    assert not face(Store()).exists(elsewhere.session_key)


def test_clients_of_other_settings_end_with_their_loop_too(
    Store: Any, other_database: dict[str, str], opened: Callable[[], int]
) -> None:
    before = settled(opened)

    async def main() -> None:
        await visit(Store)
        with override_settings(**other_database):
            await visit(Store)
        await visit(Store)

    asyncio.run(main())
    gc.collect()
    assert falls_to(before, opened)


@pytest.mark.parametrize("engine_name", ["redis"], indirect=True)
def test_another_key_prefix_takes_effect_at_once(Store: Any, face: Any) -> None:
    with override_settings(MULTISESSION_KEY_PREFIX="shop"):
        session = face(Store())
        session.save()
        assert face(Store()).exists(session.session_key)
        assert [key.partition(b":")[0] for key in Store.storage.client.keys("*")] == [b"shop"]
    assert not face(Store()).exists(session.session_key)


# In processes of their own

# PyMongo 4.13 closes a client by asynchronous generators, which asyncio warns of at the end of a loop: it can end none
# of them itself any more. They end with the call.
OF_OLD_PYMONGO = (
    ["-W", "ignore:asynchronous generator:ResourceWarning"]
    if isasyncgenfunction(unwrap(getattr(AsyncMongoClient, "_conn_from_server", None)))
    else []
)


def run(script: str, engine: str) -> dict[str, Any]:
    """What the script printed, as JSON. It may warn of nothing, not even while it ends."""
    options = {
        "CACHES": settings.CACHES,
        "SESSION_CACHE_ALIAS": "sessions",
        "MULTISESSION_MONGODB": settings.MULTISESSION_MONGODB + "?retryReads=false&retryWrites=false",
        "SECRET_KEY": "not a secret",
        "SESSION_ENGINE": f"django_multisession.backends.{engine}",
    }
    warnings = ["-W", "error", "-W", "ignore:.*fork:DeprecationWarning", *OF_OLD_PYMONGO]
    done = subprocess.run(
        [sys.executable, "-X", "dev", *warnings, "-c", PREAMBLE + script, json.dumps(options)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


PREAMBLE = """
import asyncio, json, logging, os, sys
from importlib import import_module
from inspect import isasyncgenfunction, unwrap
from django.conf import settings

# In its debug mode asyncio also tells of steps that took longer than 0.1 seconds, as all do on a machine at work.
logging.getLogger("asyncio").addFilter(lambda record: not record.getMessage().startswith("Executing "))
settings.configure(**json.loads(sys.argv[1]))
engine = import_module(settings.SESSION_ENGINE)
Store = engine.SessionStore

def visit(key=None):
    session = Store(key)
    session["visits"] = session.get("visits", 0) + 1
    session.save()
    return session.session_key

async def avisit(key):
    session = Store(key)
    await session.aset("visits", await session.aget("visits") + 1)
    await session.asave()

def connection():
    client = Store.storage.client
    return client.client_id() if "redis" in engine.__name__ else client.admin.command("hello")["connectionId"]
"""


def test_a_process_ends_without_a_warning(Store: Any, engine_name: str, opened: Callable[[], int]) -> None:
    before = settled(opened)
    answer = run(
        "key = visit(); asyncio.run(avisit(key)); visit(key); print(json.dumps(dict(Store(key))))", engine_name
    )
    assert answer == {"visits": 3}
    assert falls_to(before, opened)


FORK = """
key = visit()
asyncio.run(avisit(key))
before = connection()
engine.connections._lock.acquire()  # as another thread may hold it just then
child = os.fork()
if not child:
    visit(key)
    asyncio.run(avisit(key))
    assert connection() != before
    sys.exit(0)
engine.connections._lock.release()
_, status = os.waitpid(child, 0)
visit(key)
after = connection()
asyncio.run(avisit(key))
print(json.dumps({"visits": Store(key)["visits"], "child": status, "same connection": before == after}))
"""


def test_a_fork_opens_its_own_clients_and_leaves_the_parents_alone(Store: Any, engine_name: str) -> None:
    assert run(FORK, engine_name) == {"visits": 6, "child": 0, "same connection": True}
