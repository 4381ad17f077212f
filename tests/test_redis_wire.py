"""Connections that are kept between commands, on real servers: never an answer of somebody else, never one too many."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.cache import CacheConfig
from redis.observability import recorder

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

    def test_a_pool_of_another_class(self, server):
        pool = redis.BlockingConnectionPool.from_url(server.url)
        wire = Wire(client := redis.Redis(connection_pool=pool))
        assert run_sync(wire.execute("GET", "a")) == b"1"
        assert not wire._kept
        client.close()
