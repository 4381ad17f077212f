"""Connections that are kept between commands, on real servers: never an answer of somebody else, never one too many."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.cache import CacheConfig
from redis.observability import recorder

from django_multisession import redis_wire
from django_multisession.redis_wire import Wire
from django_multisession.twins import run_sync, settle
from example_project.servers import RedisServer


class Interrupted(BaseException):
    """As a greenlet's time-out, a signal handler's or Ctrl-C."""


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with RedisServer() as server, redis.Redis.from_url(server.url) as client:
        client.set("a", "1")
        client.set("b", "2")
        yield server


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(params=["sync", "async"])
def run(request: Any, runner: asyncio.Runner) -> Any:
    """Finishes a coroutine over the client of the face."""
    return runner.run if request.param == "async" else run_sync


@pytest.fixture
def client_of(run: Any, server: Any) -> Iterator[Any]:
    """Makes clients, and closes them."""
    made = []

    def make(kind: Any = None, **options: Any) -> Any:
        kind = kind or (redis.Redis if run is run_sync else redis.asyncio.Redis)
        made.append(client := kind.from_url(server.url, **options))
        return client

    yield make
    for client in made:
        run(settle_close(client))


async def settle_close(client: Any) -> None:
    await settle(getattr(client, "aclose", client.close)())


@pytest.fixture
def taken(monkeypatch: Any) -> list[Any]:
    """The connections that pools have handed out."""
    found: list[Any] = []
    for pool in (redis.ConnectionPool, redis.asyncio.ConnectionPool):
        get = pool.get_connection

        def counting(self: Any, *arguments: Any, get: Any = get, **named: Any) -> Any:
            found.append(self)
            return get(self, *arguments, **named)

        monkeypatch.setattr(pool, "get_connection", counting)
    return found


@pytest.fixture(autouse=True)
def _of_any_size(monkeypatch: Any) -> None:
    monkeypatch.setattr(redis_wire, "SMALLEST_POOL", 1)


def connections_of(server: Any) -> int:
    with redis.Redis.from_url(server.url) as client:
        return len(client.client_list()) - 1


def test_a_connection_is_taken_from_the_pool_once(run, client_of, taken):
    wire = Wire(client_of())
    assert [run(wire.execute("GET", key)) for key in "abab"] == [b"1", b"2", b"1", b"2"]
    assert len(taken) == 1


def test_an_error_of_the_server_loses_no_connection(run, client_of, taken):
    wire = Wire(client_of())
    with pytest.raises(redis.ResponseError, match="unknown command"):
        run(wire.execute("NONSENSE"))
    with pytest.raises(redis.exceptions.NoScriptError):
        run(wire.execute("EVALSHA", "0" * 40, 0))
    assert run(wire.execute("GET", "a")) == b"1"
    assert len(taken) == 1


def test_an_answer_that_was_not_read_reaches_nobody(run, client_of, monkeypatch):
    """Interrupted between question and answer: the next question on that connection would get this answer."""
    wire = Wire(client_of())
    run(wire.execute("GET", "a"))
    [connection] = wire._kept
    read = connection.read_response

    def interrupted(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(connection, "read_response", read)
        raise Interrupted

    monkeypatch.setattr(connection, "read_response", interrupted)
    with pytest.raises(Interrupted):
        run(wire.execute("GET", "a"))
    assert not wire._kept
    assert [run(wire.execute("GET", "b")) for _ in range(3)] == [b"2"] * 3


def test_a_task_that_was_cancelled_leaves_no_answer(runner, server):
    async def race() -> None:
        client = redis.asyncio.Redis.from_url(server.url)
        wire = Wire(client)
        for number in range(200):
            task = asyncio.ensure_future(wire.execute("GET", "a"))
            for _ in range(number % 10):  # at another place each time
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await wire.execute("GET", "b") == b"2"
        await wire.close()
        await client.aclose()

    runner.run(race())


def test_a_connection_that_the_server_has_closed(run, client_of, server):
    wire = Wire(client_of(retry=None))
    run(wire.execute("GET", "a"))
    with redis.Redis.from_url(server.url) as admin:
        for each in admin.client_list():
            if each["cmd"] == "get":
                admin.client_kill_filter(_id=each["id"])
    assert run(wire.execute("GET", "b")) == b"2"


@pytest.mark.parametrize("once", [False, True])
def test_what_must_not_come_twice_is_not_sent_on_a_closed_connection(run, client_of, server, once):
    wire = Wire(client_of(retry=None))
    run(wire.execute("GET", "a"))
    with redis.Redis.from_url(server.url) as admin:
        admin.set("c", "3")
        admin.client_kill_filter(_type="normal", skipme=True)
        admin.config_resetstat()
        if run is not run_sync:
            run(asyncio.sleep(0.1))  # an event loop that runs, as a server's does, gets to know of it
        assert run(wire.execute("DEL", "c", once=once)) == 1
        assert admin.info("commandstats")["cmdstat_del"]["calls"] == 1


@pytest.mark.parametrize("once", [False, True])
def test_what_may_have_come_is_an_error_or_sent_again(run, client_of, server, once, monkeypatch):
    """The connection breaks after the server has done it."""
    wire = Wire(client_of(retry=None))
    run(wire.execute("SET", "c", "3"))
    [connection] = wire._kept
    read = connection.read_response

    def broken(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(connection, "read_response", read)
        raise redis.ConnectionError

    monkeypatch.setattr(connection, "read_response", broken)
    if once:
        with pytest.raises(redis.ConnectionError):
            run(wire.execute("DEL", "c", once=True))
    else:
        assert run(wire.execute("GET", "c")) == b"3"
    assert run(wire.execute("GET", "b")) == b"2"


def test_an_error_to_be_retried_is_given_to_the_client(run, client_of):
    """A primary that has become a replica behind its name: the connection still leads to it."""
    with RedisServer() as server:
        kind = redis.retry.Retry if run is run_sync else redis.asyncio.retry.Retry
        options = {"retry": kind(redis.backoff.ConstantBackoff(0.2), 10), "retry_on_error": [redis.ReadOnlyError]}
        base = redis.Redis if run is run_sync else redis.asyncio.Redis
        wire = Wire(client := base.from_url(server.url, **options))
        run(wire.execute("SET", "a", "1"))
        with redis.Redis.from_url(server.url) as admin, ThreadPoolExecutor(1) as pool:
            admin.replicaof("127.0.0.1", "1")
            promoted = pool.submit(lambda: (time.sleep(0.5), admin.replicaof("NO", "ONE")))
            assert run(wire.execute("SET", "a", "2")) in (True, b"OK")
            promoted.result()
        run(wire.close())
        run(settle_close(client))


def test_a_read_only_server_is_an_error_and_its_connection_is_dropped(run):
    with RedisServer() as server:
        base = redis.Redis if run is run_sync else redis.asyncio.Redis
        wire = Wire(client := base.from_url(server.url, retry=None))
        run(wire.execute("SET", "a", "1"))
        with redis.Redis.from_url(server.url) as admin:
            admin.replicaof("127.0.0.1", "1")
        with pytest.raises(redis.ReadOnlyError):
            run(wire.execute("SET", "a", "2"))
        assert not wire._kept
        run(settle_close(client))


FORKED = """
import ctypes, os, redis
from django_multisession.redis_wire import Wire
from django_multisession.twins import run_sync
wire = Wire(redis.Redis.from_url({url!r}))
run_sync(wire.execute("GET", "a"))
child = ctypes.PyDLL(None).fork()  # as uWSGI's, of which Python is not told
key, answer = ("a", b"1") if child else ("b", b"2")
wrong = sum(run_sync(wire.execute("GET", key)) != answer for _ in range(500))
if child:
    wrong += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
os._exit(min(wrong, 100))
"""


def test_a_fork_of_which_python_is_not_told_shares_no_connection(server):
    code = FORKED.format(url=server.url)
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_a_server_that_has_gone_is_an_error(run):
    with RedisServer() as server:
        kind = redis.Redis if run is run_sync else redis.asyncio.Redis
        wire = Wire(client := kind.from_url(server.url))
        run(wire.execute("SET", "a", "1"))
    with pytest.raises(redis.ConnectionError):
        run(wire.execute("GET", "a"))
    run(wire.close())
    run(settle_close(client))


def test_a_time_out_is_not_asked_again(run, client_of, server):
    wire = Wire(client_of(socket_timeout=0.2, retry=None))
    run(wire.execute("GET", "a"))
    with redis.Redis.from_url(server.url) as admin:
        before = admin.info("stats")["total_connections_received"]
        admin.client_pause(500)
        with pytest.raises(redis.TimeoutError):
            run(wire.execute("GET", "a"))
        assert admin.info("stats")["total_connections_received"] == before
    assert run(wire.execute("GET", "b")) == b"2"


def test_a_client_that_is_told_to_retry_does(run, client_of, server):
    backoff = redis.backoff.ConstantBackoff(0)
    kind = redis.retry.Retry if run is run_sync else redis.asyncio.retry.Retry
    wire = Wire(client_of(socket_timeout=0.2, retry=kind(backoff, 10)))
    run(wire.execute("GET", "a"))
    with redis.Redis.from_url(server.url) as admin:
        admin.client_pause(500)
    assert run(wire.execute("GET", "a")) == b"1"


def test_a_pipeline_takes_the_connection_that_was_kept(run, client_of, server):
    before = connections_of(server)
    wire = Wire(client := client_of())
    for _ in range(3):
        run(wire.execute("GET", "a"))
        pipeline = client.pipeline(transaction=False)
        pipeline.get("b")
        assert run(wire.run(pipeline.execute)) == [b"2"]
    assert connections_of(server) == before + 1


@pytest.mark.parametrize("pipeline", [False, True])
def test_a_connection_is_not_kept_while_somebody_waits_for_one(runner, server, pipeline):
    """Two connections: one is taken for a second, one is asked for again and again, and a third task comes."""

    async def crowd() -> None:
        pool = redis.asyncio.BlockingConnectionPool.from_url(server.url, max_connections=2, timeout=0.5)
        wire = Wire(client := redis.asyncio.Redis.from_pool(pool))
        served = asyncio.Event()

        async def busy() -> None:
            while not served.is_set():
                assert await wire.execute("GET", "a") == b"1"
                await asyncio.sleep(0)

        async def third() -> None:
            await asyncio.sleep(0.1)
            commands = client.pipeline(transaction=False)
            commands.get("b")
            answer = await (wire.run(commands.execute) if pipeline else wire.execute("GET", "b"))
            assert answer in (b"2", [b"2"])
            served.set()

        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            for task in (wire.execute("BLPOP", "nothing", 1), busy(), third()):
                tasks.create_task(task)
        await wire.close()
        await client.aclose()

    runner.run(crowd())


def test_threads_and_pipelines_never_take_more_than_there_are(server):
    wire = Wire(client := redis.Redis.from_url(server.url, max_connections=6))

    def visit(number: int) -> int:
        for _ in range(100):
            assert run_sync(wire.execute("GET", "a")) == b"1"
            pipeline = client.pipeline(transaction=False)
            pipeline.get("b")
            assert run_sync(wire.run(pipeline.execute)) == [b"2"]
        return number

    with ThreadPoolExecutor(6) as pool:
        assert len(list(pool.map(visit, range(6)))) == 6
    run_sync(wire.close())
    client.close()


def test_all_go_back_in_the_end(run, client_of):
    wire = Wire(client := client_of())
    run(wire.execute("GET", "a"))
    pool = client.connection_pool
    assert len(pool._in_use_connections) == 1
    run(wire.close())
    assert (len(pool._in_use_connections), len(pool._available_connections)) == (0, 1)


def test_none_is_kept_after_the_end(runner, server):
    async def late() -> int:
        wire = Wire(client := redis.asyncio.Redis.from_url(server.url))
        command = asyncio.ensure_future(wire.execute("GET", "a"))
        for _ in range(3):
            await asyncio.sleep(0)
        await wire.close()
        assert await command == b"1"
        await client.aclose()
        return len(wire._kept)

    assert runner.run(late()) == 0


def test_threads_never_share_one(server):
    wire = Wire(client := redis.Redis.from_url(server.url, max_connections=8))
    barrier = Barrier(8)

    def ask(number: int) -> set[bytes]:
        client.set(f"own:{number}", str(number))
        barrier.wait(30)
        return {run_sync(wire.execute("GET", f"own:{number}")) for _ in range(300)}

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [{str(number).encode()} for number in range(8)]
    assert len(wire._kept) <= 4
    run_sync(wire.close())
    client.close()


@pytest.mark.parametrize("options", [{"max_connections": 1}, {"max_connections": 2}])
def test_a_small_pool_is_never_used_up(run, client_of, options):
    wire = Wire(client := client_of(**options))
    for _ in range(2):
        assert run(wire.execute("GET", "a")) == b"1"
    assert len(wire._kept) == options["max_connections"] // 2
    assert run(wire.run(client.get, "b")) == b"2"


class TestTheClientsOwnWay:
    """What hangs on a client sees each command."""

    def test_a_client_of_another_class(self, run, client_of):
        base = redis.Redis if run is run_sync else redis.asyncio.Redis
        seen = []

        class Traced(base):
            def execute_command(self, *command: Any, **options: Any) -> Any:
                seen.append(command)
                return super().execute_command(*command, **options)

        wire = Wire(client_of(Traced))
        assert run(wire.execute("GET", "a")) == b"1"
        assert seen == [("GET", "a")]

    def test_tracing_that_replaces_the_method(self, run, client_of, monkeypatch):
        """As OpenTelemetry's, Sentry's and Datadog's does, also after connections were kept."""
        wire = Wire(client := client_of())
        run(wire.execute("GET", "a"))
        seen = []
        own = type(client).execute_command

        def traced(self: Any, *command: Any, **options: Any) -> Any:
            seen.append(command)
            return own(self, *command, **options)

        monkeypatch.setattr(type(client), "execute_command", traced)
        assert run(wire.execute("GET", "b")) == b"2"
        assert seen == [("GET", "b")]

    def test_tracing_by_a_proxy_that_equals_what_it_wraps(self, run, client_of, monkeypatch):
        """As wrapt makes them."""
        wire = Wire(client := client_of())
        own, seen = type(client).execute_command, []

        class Proxy:
            __module__, __wrapped__ = own.__module__, own

            def __eq__(self, other: object) -> bool:
                return own == other

            def __hash__(self) -> int:
                return hash(own)

            def __get__(self, instance: Any, owner: type) -> Any:
                return self if instance is None else lambda *command: (seen.append(command), own(instance, *command))[1]

        monkeypatch.setattr(type(client), "execute_command", Proxy())
        assert run(wire.execute("GET", "b")) == b"2"
        assert seen == [("GET", "b")]

    def test_metrics(self, run, client_of, taken, monkeypatch):
        wire = Wire(client_of())
        monkeypatch.setattr(recorder, "is_enabled", lambda: True)
        assert [run(wire.execute("GET", key)) for key in "ab"] == [b"1", b"2"]
        assert len(taken) == 2

    @pytest.mark.parametrize(
        "options",
        [
            {"credential_provider": redis.UsernamePasswordCredentialProvider("default", "")},
            {"protocol": 3, "cache_config": CacheConfig()},
        ],
        ids=["credentials", "caching"],
    )
    def test_a_special_pool(self, server, options):
        with redis.Redis.from_url(server.url, **options) as client:
            assert Wire(client)._most == 0

    def test_a_client_of_one_connection(self, server, taken):
        with redis.Redis(port=server.port, single_connection_client=True) as client:
            wire = Wire(client)
            assert [run_sync(wire.execute("GET", key)) for key in "ab"] == [b"1", b"2"]
        assert len(taken) == 1

    def test_connections_of_another_class(self, run, client_of):
        base = redis.Connection if run is run_sync else redis.asyncio.Connection
        wire = Wire(client_of(connection_class=type("Faked", (base,), {})))
        assert run(wire.execute("GET", "a")) == b"1"
        assert not wire._kept

    def test_a_small_pool(self, server, monkeypatch):
        monkeypatch.undo()
        with redis.Redis.from_url(server.url, max_connections=99) as client:
            assert Wire(client)._most == 0
        with redis.Redis.from_url(server.url) as client:
            assert Wire(client)._most == 50

    def test_a_pool_of_another_class(self, server):
        pool = redis.BlockingConnectionPool.from_url(server.url)
        wire = Wire(client := redis.Redis(connection_pool=pool))
        assert run_sync(wire.execute("GET", "a")) == b"1"
        assert not wire._kept
        client.close()
