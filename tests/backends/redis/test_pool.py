"""Commands over the sessions' own pool, on real servers: never an answer of somebody else, never one too many."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from threading import Barrier
from typing import Any

import pytest
import redis
import redis.asyncio

from django_multisession.backends.redis import clients as redis_clients
from django_multisession.backends.redis import pool as redis_pool
from django_multisession.backends.redis.failures import Impossible, Lost, retries
from django_multisession.backends.redis.pool import AsyncPool, Commands, Pool, for_sessions
from django_multisession.twins import run_sync, settle
from example_project.servers import RedisServer

from ...proxies import Proxy


class Interrupted(BaseException):
    """As a greenlet's time-out, a signal handler's or Ctrl-C."""


class Wire(Commands):
    """Answers as they are."""

    async def ask(self, *command: Any, once: bool = False) -> Any:
        return await self.execute(command, lambda answer: answer, once)


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
def commands_of(run: Any, server: Any) -> Iterator[Any]:
    """Makes commands over clients of the sessions' own pool, and closes those."""
    made = []

    def make(url: str = server.url, **options: Any) -> Wire:
        made.append(client := client_for(run, url, **options))
        return Wire(client)

    yield make
    for client in made:
        run(settle_close(client))


def client_for(run: Any, url: str, **options: Any) -> Any:
    if run is run_sync:
        return for_sessions(redis.Redis.from_url(url, **options))
    options = {"max_connections": 100, "timeout": 5} | options
    return redis.asyncio.Redis.from_pool(AsyncPool.from_url(url, **options))


async def settle_close(client: Any) -> None:
    await settle(getattr(client, "aclose", client.close)())


def retry_of(run: Any, seconds: float, retries: int) -> Any:
    kind = redis.retry.Retry if run is run_sync else redis.asyncio.retry.Retry
    return kind(redis.backoff.ConstantBackoff(seconds), retries)


@pytest.fixture
def asked(monkeypatch: Any) -> list[Any]:
    """The connections of which the kernel was asked."""
    found: list[Any] = []
    for kind in (redis.connection.AbstractConnection, redis.asyncio.connection.AbstractConnection):
        name = "can_read" if hasattr(kind, "can_read") else "can_read_destructive"  # asynchronous ones before 8
        can_read = getattr(kind, name)

        def counting(self: Any, *arguments: Any, can_read: Any = can_read, **named: Any) -> Any:
            found.append(self)
            return can_read(self, *arguments, **named)

        monkeypatch.setattr(kind, name, counting)
    return found


def connections_of(server: Any) -> int:
    with redis.Redis.from_url(server.url) as client:
        return len(client.client_list()) - 1


def received(server: Any) -> int:
    """How many connections the server has been asked for, with this one."""
    with redis.Redis.from_url(server.url) as client:
        return int(client.info("stats")["total_connections_received"])


def test_the_kernel_is_asked_of_a_new_connection_and_of_one_that_was_idle_for_long(
    run, commands_of, asked, monkeypatch
):
    wire = commands_of()
    assert [run(wire.ask("GET", key)) for key in "abab"] == [b"1", b"2", b"1", b"2"]
    assert len(asked) == 1
    monkeypatch.setattr(redis_pool, "IDLE", 0)
    assert [run(wire.ask("GET", key)) for key in "ab"] == [b"1", b"2"]
    assert len(asked) == 3
    assert len(set(asked)) == 1


def test_an_unknown_script_loses_no_connection(run, commands_of, server):
    wire = commands_of()
    run(wire.ask("GET", "a"))
    before = received(server)
    with pytest.raises(redis.exceptions.NoScriptError):
        run(wire.ask("EVALSHA", "0" * 40, 0))
    assert run(wire.ask("GET", "a")) == b"1"
    assert received(server) == before + 1


@pytest.mark.parametrize("once", [False, True])
def test_an_unknown_script_is_no_answer_to_another_question(run, commands_of, server, once):
    """It is one to what somebody asked before over the same connection."""
    with Proxy(server.port) as proxy:
        wire = commands_of(f"redis://127.0.0.1:{proxy.port}/0", retry=None)
        assert run(wire.ask("GET", "b")) == b"2"
        proxy.say(b"-NOSCRIPT No matching script. Please use EVAL.\r\n")
        if once:
            with pytest.raises(Lost):
                run(wire.ask("GET", "a", once=True))
        assert run(wire.ask("GET", "a")) == b"1"
        assert run(wire.ask("GET", "b")) == b"2"


def test_an_error_of_the_server_is_raised(run, commands_of):
    wire = commands_of()
    with pytest.raises(redis.ResponseError, match="unknown command"):
        run(wire.ask("NONSENSE"))
    assert run(wire.ask("GET", "a")) == b"1"


def test_an_impossible_answer_is_asked_for_once_more_on_a_new_connection(run, commands_of, server):
    wire, answers = commands_of(), []

    def meaning(answer: bytes) -> bytes:
        answers.append(answer)
        if len(answers) == 1:
            raise Impossible
        return answer

    run(wire.ask("GET", "b"))
    before = received(server)
    assert run(wire.execute(("GET", "a"), meaning)) == b"1"
    assert answers == [b"1", b"1"]
    assert received(server) == before + 2


def test_what_stays_impossible_is_raised_and_what_must_not_come_twice_is_lost(run, commands_of):
    wire, answers = commands_of(), []

    def meaning(answer: bytes) -> None:
        answers.append(answer)
        raise Impossible

    with pytest.raises(Impossible):
        run(wire.execute(("GET", "a"), meaning))
    assert len(answers) == 2
    with pytest.raises(Lost):
        run(wire.execute(("GET", "a"), meaning, once=True))
    assert len(answers) == 3


def test_an_answer_that_was_not_read_reaches_nobody(run, commands_of, monkeypatch):
    """Interrupted between question and answer: the next question on that connection would get this answer."""
    wire = commands_of()
    run(wire.ask("GET", "a"))
    [connection] = wire.client.connection_pool._available_connections
    read = connection.read_response

    def interrupted(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(connection, "read_response", read)
        raise Interrupted

    monkeypatch.setattr(connection, "read_response", interrupted)
    with pytest.raises(Interrupted):
        run(wire.ask("GET", "a"))
    assert not getattr(connection, "is_connected", vars(connection).get("_sock"))  # the latter before redis-py 8
    assert [run(wire.ask("GET", "b")) for _ in range(3)] == [b"2"] * 3


def test_a_task_that_was_cancelled_leaves_no_answer(runner, server):
    async def race() -> int:
        wire = Wire(client := client_for(runner.run, server.url))
        for number in range(200):
            task = asyncio.ensure_future(wire.ask("GET", "a"))
            for _ in range(number % 10):  # at another place each time
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await wire.ask("GET", "b") == b"2"
        await client.aclose()
        return len(client.connection_pool._in_use_connections)

    assert runner.run(race()) == 0


def test_a_connection_that_the_server_has_closed(run, commands_of, server):
    wire = commands_of(retry=None)
    run(wire.ask("GET", "a"))
    with redis.Redis.from_url(server.url) as admin:
        for each in admin.client_list():
            if each["cmd"] == "get":
                admin.client_kill_filter(_id=each["id"])
    assert run(wire.ask("GET", "b")) == b"2"


@pytest.mark.parametrize("once", [False, True])
def test_on_a_closed_connection_a_command_comes_at_most_once(run, commands_of, server, once):
    wire = commands_of(retry=None)
    run(wire.ask("GET", "a"))
    with redis.Redis.from_url(server.url) as admin:
        admin.set("c", "3")
        admin.client_kill_filter(_type="normal", skipme=True)
        admin.config_resetstat()
        if once:
            with pytest.raises(Lost):
                run(wire.ask("DEL", "c", once=True))
            assert "cmdstat_del" not in admin.info("commandstats")
        else:
            assert run(wire.ask("DEL", "c")) == 1
            assert admin.info("commandstats")["cmdstat_del"]["calls"] == 1


@pytest.mark.parametrize("retries", [0, 10])
@pytest.mark.parametrize("once", [False, True])
def test_what_may_have_come_is_lost_or_sent_again(run, commands_of, once, retries, monkeypatch):
    """The connection breaks after the server has done it."""
    wire = commands_of(retry=retry_of(run, 0, retries))
    run(wire.ask("SET", "c", "3"))
    [connection] = wire.client.connection_pool._available_connections
    read = connection.read_response

    def broken(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(connection, "read_response", read)
        raise redis.ConnectionError

    monkeypatch.setattr(connection, "read_response", broken)
    if once:
        with pytest.raises(Lost):
            run(wire.ask("DEL", "c", once=True))
    else:
        assert run(wire.ask("GET", "c")) == b"3"
    assert run(wire.ask("GET", "b")) == b"2"


@pytest.mark.parametrize("once", [False, True])
def test_an_error_to_be_retried_is_given_to_the_client(run, commands_of, once):
    """A primary that has become a replica behind its name: the connection still leads to it."""
    with RedisServer() as server:
        wire = commands_of(server.url, retry=retry_of(run, 0.2, 10), retry_on_error=[redis.ReadOnlyError])
        run(wire.ask("SET", "a", "1"))
        with redis.Redis.from_url(server.url) as admin, ThreadPoolExecutor(1) as pool:
            admin.replicaof("127.0.0.1", "1")
            promoted = pool.submit(lambda: (time.sleep(0.5), admin.replicaof("NO", "ONE")))
            assert run(wire.ask("SET", "a", "2", once=once)) in (True, b"OK")
            promoted.result()


@pytest.mark.parametrize("once", [False, True])
def test_a_read_only_server_is_an_error_and_its_connection_is_dropped(run, commands_of, once):
    with RedisServer() as server:
        wire = commands_of(server.url, retry=None)
        run(wire.ask("SET", "a", "1"))
        with redis.Redis.from_url(server.url) as admin:
            admin.replicaof("127.0.0.1", "1")
            before = admin.info("stats")["total_connections_received"]
            with pytest.raises(redis.ReadOnlyError):
                run(wire.ask("SET", "a", "2", once=once))
            assert admin.info("stats")["total_connections_received"] > before


FORKED = """
import ctypes, os, redis
from django_multisession.backends.redis.pool import Commands, for_sessions
from django_multisession.twins import run_sync
commands = Commands(for_sessions(redis.Redis.from_url({url!r})))
ask = lambda key: run_sync(commands.execute(("GET", key), lambda answer: answer))
ask("a")
child = ctypes.PyDLL(None).fork()  # as uWSGI's, of which Python is not told
key, answer = ("a", b"1") if child else ("b", b"2")
wrong = sum(ask(key) != answer for _ in range(500))
if child:
    wrong += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
os._exit(min(wrong, 100))
"""


def test_a_fork_of_which_python_is_not_told_shares_no_connection(server):
    code = FORKED.format(url=server.url)
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_a_server_that_has_gone_is_an_error(run, commands_of):
    with RedisServer() as server:
        wire = commands_of(server.url)
        run(wire.ask("SET", "a", "1"))
    with pytest.raises(redis.ConnectionError):
        run(wire.ask("GET", "a"))


@pytest.mark.parametrize("once", [False, True])
def test_a_time_out_is_not_asked_again(run, commands_of, server, once):
    wire = commands_of(socket_timeout=0.2, retry=retry_of(run, 0, 0))
    run(wire.ask("GET", "a"))
    with redis.Redis.from_url(server.url) as admin:
        before = admin.info("stats")["total_connections_received"]
        admin.client_pause(500)
        with pytest.raises(redis.TimeoutError):
            run(wire.ask("GET", "a", once=once))
        assert admin.info("stats")["total_connections_received"] == before
    assert run(wire.ask("GET", "b")) == b"2"


@pytest.mark.parametrize("once", [False, True])
def test_a_client_that_is_told_to_retry_does_so_with_what_may_come_twice(run, commands_of, server, once):
    wire = commands_of(socket_timeout=0.2, retry=retry_of(run, 0, 10), retry_on_timeout=True)
    run(wire.ask("GET", "a"))
    with redis.Redis.from_url(server.url) as admin:
        admin.client_pause(500, all=False)  # writes: redis-py before 8 does not retry a connection's first words
    if once:
        with pytest.raises(Lost):
            run(wire.ask("SET", "c", "3", once=True))
    else:
        assert run(wire.ask("SET", "c", "3")) in (True, b"OK")
    assert run(wire.ask("GET", "a")) == b"1"


def test_a_pipeline_takes_the_connection_of_the_single_commands(run, commands_of, server, asked):
    before = connections_of(server)
    wire = commands_of()
    run(wire.ask("GET", "a"))
    asked.clear()
    for _ in range(3):
        run(wire.ask("GET", "a"))
        pipeline = wire.client.pipeline(transaction=False)
        pipeline.get("b")
        assert run(settle(pipeline.execute())) == [b"2"]
    assert connections_of(server) == before + 1
    assert len({id(each) for each in asked[:3]}) == 1  # before each pipeline


def test_no_idle_connection_is_used_after_a_failure(run, commands_of, server):
    """One was closed: others have been too, most likely."""
    wire = commands_of(retry=None)
    pool = wire.client.connection_pool
    for connection in [run(settle(pool.get_connection())) for _ in range(3)]:
        run(settle(pool.give(connection)))
    with redis.Redis.from_url(server.url) as admin:
        admin.client_kill_filter(_type="normal", skipme=True)
    assert [run(wire.ask("GET", "a")) for _ in range(3)] == [b"1"] * 3


@pytest.mark.parametrize("pipeline", [False, True])
def test_whoever_waits_for_a_connection_gets_one(runner, server, pipeline):
    """Two connections: one is taken for a second, one is asked for again and again, and a third task comes."""

    async def crowd() -> None:
        wire = Wire(client := client_for(runner.run, server.url, max_connections=2, timeout=0.5))
        served = asyncio.Event()

        async def busy() -> None:
            while not served.is_set():
                assert await wire.ask("GET", "a") == b"1"
                await asyncio.sleep(0)

        async def third() -> None:
            await asyncio.sleep(0.1)
            commands = client.pipeline(transaction=False)
            commands.get("b")
            answer = await (commands.execute() if pipeline else wire.ask("GET", "b"))
            assert answer in (b"2", [b"2"])
            served.set()

        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            for task in (wire.ask("BLPOP", "nothing", 1), busy(), third()):
                tasks.create_task(task)
        await client.aclose()

    runner.run(crowd())


def test_tasks_never_take_more_than_there_are(runner, server):
    before = connections_of(server)

    async def crowd() -> int:
        wire = Wire(client := client_for(runner.run, server.url, max_connections=3))
        assert await asyncio.gather(*(wire.ask("GET", "a") for _ in range(200))) == [b"1"] * 200
        open_now = await asyncio.to_thread(connections_of, server)
        await client.aclose()
        return open_now

    assert runner.run(crowd()) <= before + 3


def test_threads_and_pipelines_never_take_more_than_there_are(server):
    wire = Wire(client := client_for(run_sync, server.url, max_connections=6))

    def visit(number: int) -> int:
        for _ in range(100):
            assert run_sync(wire.ask("GET", "a")) == b"1"
            pipeline = client.pipeline(transaction=False)
            pipeline.get("b")
            assert pipeline.execute() == [b"2"]
        return number

    with ThreadPoolExecutor(6) as pool:
        assert len(list(pool.map(visit, range(6)))) == 6
    client.close()


def test_one_too_many_is_an_error(server):
    wire = Wire(client := client_for(run_sync, server.url, max_connections=1))
    connection = client.connection_pool.get_connection()
    with pytest.raises(redis.ConnectionError, match="Too many connections"):
        run_sync(wire.ask("GET", "a"))
    client.connection_pool.release(connection)
    assert run_sync(wire.ask("GET", "a")) == b"1"
    client.close()


def test_all_are_closed_in_the_end(run, commands_of, server):
    before = connections_of(server)
    wire = commands_of()
    run(wire.ask("GET", "a"))
    assert connections_of(server) == before + 1
    run(settle_close(wire.client))
    assert connections_of(server) == before


def test_threads_never_share_one(server):
    wire = Wire(client := client_for(run_sync, server.url, max_connections=8))
    barrier = Barrier(8)

    def ask(number: int) -> set[bytes]:
        client.set(f"own:{number}", str(number))
        barrier.wait(30)
        return {run_sync(wire.ask("GET", f"own:{number}")) for _ in range(300)}

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [{str(number).encode()} for number in range(8)]
    client.close()


@pytest.fixture
def given(server: Any) -> Iterator[Any]:
    """A client that is configured, and the one that the sessions have of it."""
    made = []

    def make(kind: Any = redis.Redis, **options: Any) -> Any:
        made.append(client := kind.from_url(server.url, **options))
        return client, for_sessions(client)

    yield make
    for client in made:
        client.close()


SPECIAL = {
    "credentials": lambda: {"credential_provider": redis.UsernamePasswordCredentialProvider("default", "")},
    "connections": lambda: {"connection_class": type("Faked", (redis.Connection,), {})},
}
if find_spec("redis.cache"):
    from redis.cache import CacheConfig

    SPECIAL["caching"] = lambda: {"protocol": 3, "cache_config": CacheConfig()}
if find_spec("redis.maint_notifications"):
    from redis.maint_notifications import MaintNotificationsConfig

    NOTIFIED = {"maint_notifications_config": MaintNotificationsConfig(enabled=True)}
    SPECIAL["notifications"] = lambda: {"protocol": 3, **NOTIFIED}


UNTRIED = """
import redis
redis.__version__ = {version!r}
from django_multisession.backends.redis.pool import for_sessions
client = redis.Redis()
assert for_sessions(client) is client
"""


class TestTheClientsOwnWay:
    """What hangs on a client sees each command."""

    @pytest.mark.parametrize("once", [False, True])
    def test_a_client_of_another_class(self, given, once):
        seen = []

        class Traced(redis.Redis):
            def execute_command(self, *command: Any, **options: Any) -> Any:
                seen.append(command)
                return super().execute_command(*command, **options)

        client, used = given(Traced)
        assert used is client
        assert run_sync(Wire(used).ask("GET", "a", once=once)) == b"1"
        assert seen == [("GET", "a")]

    @pytest.mark.parametrize("once", [False, True])
    def test_tracing_that_replaces_the_method(self, run, commands_of, monkeypatch, once):
        """As OpenTelemetry's, Sentry's and Datadog's does, also after connections were used."""
        wire = commands_of()
        run(wire.ask("GET", "a"))
        seen = []
        own = type(wire.client).execute_command

        def traced(self: Any, *command: Any, **options: Any) -> Any:
            seen.append(command)
            return own(self, *command, **options)

        monkeypatch.setattr(type(wire.client), "execute_command", traced)
        assert run(wire.ask("GET", "b", once=once)) == b"2"
        assert seen == [("GET", "b")]

    def test_tracing_of_one_client(self, run, commands_of):
        wire = commands_of()
        own, seen = wire.client.execute_command, []
        wire.client.execute_command = lambda *command: (seen.append(command), own(*command))[1]
        assert run(wire.ask("GET", "b")) == b"2"
        assert seen == [("GET", "b")]

    def test_tracing_of_the_client_that_is_configured(self, server):
        client = redis.Redis.from_url(server.url)
        client.execute_command = client.execute_command
        assert for_sessions(client) is client
        client.close()

    def test_tracing_by_a_proxy_that_equals_what_it_wraps(self, run, commands_of, monkeypatch):
        """As wrapt makes them."""
        wire = commands_of()
        own, seen = type(wire.client).execute_command, []

        class Proxy:
            __module__, __wrapped__ = own.__module__, own

            def __eq__(self, other: object) -> bool:
                return own == other

            def __hash__(self) -> int:
                return hash(own)

            def __get__(self, instance: Any, owner: type) -> Any:
                return self if instance is None else lambda *command: (seen.append(command), own(instance, *command))[1]

        monkeypatch.setattr(type(wire.client), "execute_command", Proxy())
        assert run(wire.ask("GET", "b")) == b"2"
        assert seen == [("GET", "b")]

    def test_metrics(self, run, commands_of, asked, monkeypatch):
        recorder = pytest.importorskip("redis.observability.recorder", reason="redis-py before 7.2 collects none")
        wire = commands_of()
        monkeypatch.setattr(recorder, "is_enabled", lambda: True)
        assert [run(wire.ask("GET", key)) for key in "ab"] == [b"1", b"2"]
        assert len(asked) == 2  # redis-py's own way asks each time

    @pytest.mark.parametrize("version", ["5.1.1", "8.2.0", "9.0.0b1"])
    def test_a_release_that_was_not_tried(self, version):
        """In a process of its own, where redis-py says that it is another."""
        code = UNTRIED.format(version=version)
        assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0

    @pytest.mark.parametrize("special", SPECIAL)
    def test_a_special_pool(self, given, special):
        client, used = given(**SPECIAL[special]())
        assert used is client

    def test_a_client_of_one_connection(self, server):
        with redis.Redis(port=server.port, single_connection_client=True) as client:
            assert for_sessions(client) is client
            before = connections_of(server)
            assert [run_sync(Wire(client).ask("GET", key)) for key in "ab"] == [b"1", b"2"]
            assert connections_of(server) == before

    def test_a_pool_of_another_class(self, server):
        pool = redis.BlockingConnectionPool.from_url(server.url)
        client = redis.Redis(connection_pool=pool)
        assert for_sessions(client) is client
        assert run_sync(Wire(client).ask("GET", "a")) == b"1"
        pool.disconnect()

    def test_the_asynchronous_twin_of_a_special_pool(self, given, runner):
        _, used = given(credential_provider=redis.UsernamePasswordCredentialProvider("default", ""))

        async def kind() -> type:
            client = redis_clients.asynchronous(used)
            await client.aclose()
            return type(client.connection_pool)

        assert runner.run(kind()) is redis.asyncio.BlockingConnectionPool


def test_a_pool_of_the_sessions_own_has_the_clients_settings(given):
    client, used = given(max_connections=7, client_name="sessions", health_check_interval=3, protocol=2)
    theirs, ours = client.connection_pool, used.connection_pool
    assert isinstance(ours, Pool)
    assert ours is not theirs
    assert ours.max_connections == 7
    for name in ("host", "port", "db", "client_name", "health_check_interval", "protocol"):
        assert ours.connection_kwargs[name] == theirs.connection_kwargs[name]
    assert used.client_getname() in ("sessions", b"sessions")
    used.close()


def test_the_retries_of_a_client_as_redis_py_makes_it_are_the_pools(server):
    with redis.Redis(port=server.port) as client:
        used = for_sessions(client)
        assert retries(used.connection_pool.make_connection()) == retries(client.connection_pool.make_connection())
        used.close()
