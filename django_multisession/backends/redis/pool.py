"""Commands to Redis, one at a time, over a pool of redis-py's that asks the kernel less often.

redis-py's pool asks the kernel before each command whether an answer was left unread on the connection, which takes
about as long as checking and decoding a session. For single commands `Pool` and `AsyncPool` ask only of connections
that have been idle for over a second; for pipelines and all else they are redis-py's. They are made from the settings
of the client that is configured, for the sessions alone. A connection is dropped after anything but a whole answer, a
cancelled task and a killed thread included, and after an answer that cannot be one to what was asked. On one that the
server has closed meanwhile a command fails, and comes again on a new one, unless it must not come twice: then `Lost`
says that nobody knows, and whoever sent it finds out.

What hangs on the client is not gone round: where `execute_command` is not redis-py's own (tracing), its metrics are
collected, or the client or its pool is a special one (Sentinel, client-side caching, credentials that are renewed),
each command goes the client's own way.
"""

import asyncio
import copy
import os
from collections.abc import Callable, Sequence
from inspect import iscoroutinefunction, signature
from time import monotonic
from types import FunctionType
from typing import Any

import redis
import redis.asyncio

from ...exceptions import EngineUnavailable
from ...twins import settle

try:
    import hiredis
except ImportError:
    hiredis = None  # type: ignore[assignment]
try:
    from redis.observability import recorder
except ImportError:  # redis-py before 7.2
    recorder = None  # type: ignore[assignment]
try:
    from redis.maint_notifications import MaintNotificationsConfig

    # While it may be notified, redis-py's pool hands out connections with something unread.
    UNNOTIFIED: dict[str, Any] = {"maint_notifications_config": MaintNotificationsConfig(enabled=False)}
except ImportError:  # redis-py before 7
    UNNOTIFIED = {}

MISREAD = TypeError, ValueError, LookupError  # what redis-py raises for an answer of another shape
IDLE = 1.0  # seconds after which the kernel is asked
NEVER = float("-inf")
NAMELESS = () if signature(redis.ConnectionPool.get_connection).parameters["command_name"].default is None else ("",)
OWN_MODULES = "redis.client", "redis.connection", "redis.asyncio.client", "redis.asyncio.connection"
OWN_WAY, OWN_ASYNC_WAY = (
    method if type(method) is FunctionType and method.__module__ in OWN_MODULES else None  # it is traced already
    for method in (redis.Redis.execute_command, redis.asyncio.Redis.execute_command)
)
# Connection options that are notes which a pool makes for itself.
OF_THE_POOL = "maint", "orig_", "oss_", "event_dispatcher", "himport_registry"


Command = tuple[Any, ...]


class Lost(Exception):
    """A command that must not come twice may have come: its answer is not known."""


class Impossible(EngineUnavailable):
    """What was answered is no answer to the question: it is one to another, or somebody else's data."""

    def __init__(self, message: str = "Redis has answered something else than was asked.") -> None:
        super().__init__(message)


class Pool(redis.ConnectionPool):
    """Beside redis-py's own ways, for pipelines and all else: `take()` and `give()` ask the kernel less often."""

    def take(self) -> Any:
        """The connection that was used last, as it is, if that was less than a second ago; else as redis-py does."""
        if self.pid == os.getpid():  # else a fork: redis-py forgets the parent's
            with self._lock:
                free = self._available_connections
                if free and monotonic() - free[-1].idle_since < IDLE:
                    self._in_use_connections.add(connection := free.pop())
                    return connection
        return self.get_connection(*NAMELESS)

    def give(self, connection: Any) -> None:
        connection.idle_since = monotonic()
        with self._lock:
            if connection in self._in_use_connections:  # of a parent it is not
                self._in_use_connections.remove(connection)
                self._available_connections.append(connection)

    def make_connection(self) -> Any:
        connection = super().make_connection()
        connection.idle_since = NEVER  # type: ignore[attr-defined]
        return connection


class AsyncPool(redis.asyncio.BlockingConnectionPool):
    """The same for an event loop. Where all are in use, a task waits for one."""

    generation = 0  # of the connections that may be used
    waiting = 0

    async def take(self) -> Any:
        free = self._available_connections
        if free and not self.waiting and self._is_fresh(free[-1]):
            self._in_use_connections.add(connection := free.pop())
            return connection
        return await self.get_connection(*NAMELESS)

    async def give(self, connection: Any) -> None:
        connection.idle_since = monotonic()
        if self.waiting:  # redis-py tells whoever waits
            await self.release(connection)
        else:
            self._in_use_connections.remove(connection)
            self._available_connections.append(connection)

    async def get_connection(self, *arguments: Any, **options: Any) -> Any:
        self.waiting += 1
        try:
            return await super().get_connection(*NAMELESS)  # type: ignore[no-untyped-call]
        finally:
            self.waiting -= 1

    def make_connection(self) -> Any:
        connection = super().make_connection()  # type: ignore[no-untyped-call]
        connection.idle_since, connection.generation = NEVER, self.generation
        return connection

    async def ensure_connection(self, connection: Any) -> None:
        if connection.generation != self.generation:
            connection.generation = self.generation
            await connection.disconnect(nowait=True)
        await asyncio.sleep(0)  # what has come meanwhile is seen only after the event loop has read it
        await super().ensure_connection(connection)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Idle ones are closed when they are next taken: redis-py would be closing one that a task takes meanwhile."""
        self.generation += 1
        if inuse_connections:
            await super().disconnect()

    def _is_fresh(self, connection: Any) -> bool:
        recent = connection.generation == self.generation and monotonic() - connection.idle_since < IDLE
        return bool(recent and connection.is_connected)


class Commands:
    """Constructed with a synchronous or asynchronous client."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._pool = client.connection_pool
        self._waits = isinstance(self._pool, AsyncPool)
        self._is_ours = self._waits or isinstance(self._pool, Pool)

    async def execute(self, command: Command, meaning: Callable[[Any], Any], once: bool = False) -> Any:
        """What the answer means. Raises what `client.execute_command()` does.

        `meaning` raises `Impossible` for what can be no answer: the command is sent once more then, on a new
        connection. With `once` it is not sent again after anything but a refusal: `Lost` is raised instead.
        """
        if not self._is_ours or not _is_own_way(self.client) or _is_measured():
            return await self._own_way(command, meaning, once)
        packed = [hiredis.pack_command(command)] if hiredis else None  # asynchronous connections do it in Python
        connection = self._pool.take()
        if self._waits:  # settle() would do, and take longer
            connection = await connection
        was_read = False
        try:
            sent = connection.send_packed_command(packed or connection.pack_command(*command))
            if self._waits:
                await sent
            answer = connection.read_response()
            found = meaning(await answer if self._waits else answer)
            was_read = True
            return found
        except redis.exceptions.NoScriptError:
            was_read = True
            raise
        except (redis.RedisError, Impossible) as error:
            if once and _is_lost(error, connection):
                raise Lost from error
            if not _is_worth_another(error, connection):
                raise
        finally:
            if not was_read:
                await settle(connection.disconnect(nowait=True))
            given = self._pool.give(connection)
            if self._waits:
                await given
        await self.refresh()
        return await self._own_way(command, meaning, once, again=True)

    async def together(self, commands: Sequence[Command], once: bool) -> list[Any]:
        """The answers to some that go over one connection, errors among them; with `once` as `execute()`."""
        pipeline = (self._careful() if once else self.client).pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await settle(pipeline.execute(raise_on_error=False))

    async def refresh(self) -> None:
        """Use no connection any more that is idle now."""
        await settle(self._pool.disconnect(inuse_connections=False))

    async def _own_way(self, command: Command, meaning: Callable[[Any], Any], once: bool, again: bool = False) -> Any:
        client = self._careful() if once else self.client
        try:
            return meaning(await settle(client.execute_command(*command)))
        except (Impossible, *MISREAD) as error:
            if once:
                raise Lost from error
            if again:
                raise Impossible from error
        await self.refresh()
        return await self._own_way(command, meaning, once, again=True)

    def _careful(self) -> Any:
        """The client, but for its retries, and for a tracer's wrapper around this one instance, which leads to them."""
        client = copy.copy(self.client)
        vars(client).pop("execute_command", None)
        client.connection, client.connection_pool = None, _CarefulPool(self._pool)
        client.auto_close_connection_pool = False
        return client


class _CarefulPool:
    """A pool whose connections are never told to send a command again of which the answer was lost."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        found = self._pool.get_connection(*arguments, **options)
        return self._awaited(found) if hasattr(found, "__await__") else self._lent(found)

    async def _awaited(self, found: Any) -> Any:
        return self._lent(await found)

    def _lent(self, connection: Any) -> Any:
        connection.retry = _CarefulRetry(connection)
        return connection

    def release(self, connection: Any) -> Any:
        connection.retry = connection.retry.own
        return self._pool.release(connection)


class _CarefulRetry:
    """Retries what the server has refused, as its connection's own does, and nothing else."""

    def __init__(self, connection: Any) -> None:
        self.connection, self.own = connection, connection.retry

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)

    def call_with_retry(self, do: Callable[[], Any], *arguments: Any, **options: Any) -> Any:
        once = self._aonce if iscoroutinefunction(self.own.call_with_retry) else self._once
        return self.own.call_with_retry(lambda: once(do), *arguments, **options)

    def _once(self, do: Callable[[], Any]) -> Any:
        try:
            return do()
        except redis.RedisError as error:
            self._look_at(error)
            raise

    async def _aonce(self, do: Callable[[], Any]) -> Any:
        try:
            return await do()
        except redis.RedisError as error:
            self._look_at(error)
            raise

    def _look_at(self, error: redis.RedisError) -> None:
        self.connection.retry, careful = self.own, self.connection.retry
        try:
            if _is_lost(error, self.connection):
                raise Lost from error
        finally:
            self.connection.retry = careful


def for_sessions(client: Any) -> Any:
    """A client of a `Pool` with the settings of the given one; that one where this would take something away."""
    pool = client.connection_pool
    if type(client) is not redis.Redis or type(pool) is not redis.ConnectionPool or not is_plain(pool):
        return client
    if client.connection or not _is_own_way(client):
        return client
    options = {name: value for name, value in pool.connection_kwargs.items() if not name.startswith(OF_THE_POOL)}
    kind, most = pool.connection_class, pool.max_connections
    return redis.Redis.from_pool(Pool(connection_class=kind, max_connections=most, **UNNOTIFIED, **options))


def is_plain(pool: Any) -> bool:
    """Whether another pool takes nothing away that this one does for each command."""
    options = pool.connection_kwargs
    notified = getattr(options.get("maint_notifications_config"), "enabled", None) is True
    special = getattr(pool, "cache", None) or options.get("credential_provider") or notified
    return pool.connection_class.__module__ in OWN_MODULES and not special


def _is_own_way(client: Any) -> bool:
    """By identity, since a proxy around a function may say that it is equal to it."""
    method = type(client).execute_command
    return (method is OWN_WAY or method is OWN_ASYNC_WAY) and "execute_command" not in vars(client)


def _is_measured() -> bool:
    return recorder is not None and recorder.is_enabled()


def _is_lost(error: Exception, connection: Any) -> bool:
    """Nobody knows what became of the command. A server that does not answer in time is an outage, unless the client is
    told to retry."""
    if isinstance(error, redis.TimeoutError):
        return _retries(connection) != 0
    return isinstance(error, redis.ConnectionError | Impossible) and not isinstance(error, redis.BusyLoadingError)


def _is_worth_another(error: Exception, connection: Any) -> bool:
    """Whether a new connection may do better: by one that is read-only the connection leads to a replica, say."""
    others = redis.ConnectionError, redis.ReadOnlyError, *connection.retry_on_error
    return isinstance(error, others) or _is_lost(error, connection)


def _retries(connection: Any) -> int:
    retry = connection.retry
    return int(retry.get_retries() if hasattr(retry, "get_retries") else retry._retries)  # redis-py before 6
