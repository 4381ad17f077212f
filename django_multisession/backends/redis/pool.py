"""Commands to Redis, one at a time, over a pool of redis-py's that asks the kernel less often.

redis-py's pool asks the kernel before each command whether an answer was left unread on the connection, which takes
about as long as checking and decoding a session. For single commands `Pool` and `AsyncPool` ask only of connections
that have been idle for over a second; for pipelines and all else they are redis-py's. They are made from the settings
of the client that is configured, for the sessions alone. A connection is dropped after anything but a whole answer, a
cancelled task and a killed thread included, and after an answer that cannot be one to what was asked. A command fails
on one that the server has closed meanwhile, or that leads to what is a primary no more: then all that are kept are
dropped, and it comes again on a new one, unless it must not come twice: then `Lost` says that nobody knows, and whoever
sent it finds out.

What hangs on the client is not gone round: where `execute_command` is not redis-py's own (tracing), its metrics are
collected, the client or its pool is a special one (Sentinel, client-side caching, credentials that are renewed), or
redis-py's release is none of those that this was tried with, each command goes the client's own way.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from inspect import signature
from time import monotonic
from types import FunctionType
from typing import Any

import redis
import redis.asyncio
from django.utils.version import get_version_tuple

from ...twins import settle
from .careful import careful
from .failures import MISREAD, Impossible, Lost, is_demoted, is_lost, is_unasked, is_worth_another

try:
    from hiredis import pack_command  # asynchronous connections do it in Python
except ImportError:
    pack_command = None  # type: ignore[assignment]
try:
    from redis.observability import recorder
except ImportError:  # redis-py before 7.2
    recorder = None  # type: ignore[assignment]

TRIED = (5, 2), (8, 1)  # the oldest and the newest release of redis-py with which this was
USED = {  # of what redis-py does not promise to keep
    redis.ConnectionPool: ("_lock", "_available_connections", "_in_use_connections", "pid"),
    redis.asyncio.BlockingConnectionPool: ("_available_connections", "_in_use_connections", "ensure_connection"),
    redis.Connection: ("retry", "retry_on_error", "pack_command", "send_packed_command", "read_response"),
    redis.asyncio.Connection: ("retry", "retry_on_error", "pack_command", "send_packed_command", "read_response"),
}
KNOWN = (
    TRIED[0] <= get_version_tuple(redis.__version__)[:2] <= TRIED[1]
    and all(hasattr(made, name) for kind, names in USED.items() for made in [kind()] for name in names)
    and (recorder is None or hasattr(recorder, "is_enabled"))
)

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
Meaning = Callable[[Any], Any]


def unnotified(kind: Any) -> dict[str, Any]:
    """While it may be notified, redis-py's pool hands out connections with something unread."""
    if "maint_notifications_config" not in signature(kind).parameters:
        return {}
    from redis.maint_notifications import MaintNotificationsConfig

    return {"maint_notifications_config": MaintNotificationsConfig(enabled=False)}


class Again(Exception):
    """A new connection may do better; the error is the `__cause__`."""


class Pool(redis.ConnectionPool):
    """Beside redis-py's own ways, for pipelines and all else: `take()` and `give()` ask the kernel less often.

    A connection that was in use when the kept ones were dropped is dropped when it comes back: so each that is taken
    afterwards is a new one.
    """

    generation = 0  # of the connections that may be kept

    def __init__(self, **options: Any) -> None:
        super().__init__(**unnotified(redis.ConnectionPool), **options)

    def take(self) -> Any:
        """The connection that was used last, as it is, if that was less than a second ago; else as redis-py does."""
        if self.pid == os.getpid():  # else a fork: redis-py forgets the parent's
            with self._lock:
                free = self._available_connections
                if free and is_fresh(free[-1]):
                    self._in_use_connections.add(connection := free.pop())
                    connection.generation = self.generation
                    return connection
        return self.get_connection(*NAMELESS)

    def give(self, connection: Any, whole: bool = True) -> None:
        """Back, after a whole answer or not."""
        if not whole:
            connection.disconnect()
        if not whole or connection.generation != self.generation:
            return self.release(connection)
        connection.idle_since = monotonic()
        with self._lock:
            if connection in self._in_use_connections:  # of a parent it is not
                self._in_use_connections.remove(connection)
                self._available_connections.append(connection)

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        generation = self.generation
        connection = super().get_connection(*NAMELESS)
        connection.generation = generation  # type: ignore[attr-defined]
        return connection

    def release(self, connection: Any) -> None:
        connection.idle_since = NEVER
        if connection.generation != self.generation:
            connection.disconnect()
        super().release(connection)

    def make_connection(self) -> Any:
        connection = super().make_connection()
        connection.generation = self.generation  # type: ignore[attr-defined]
        return connection

    def disconnect(self, inuse_connections: bool = True) -> None:
        with self._lock:
            self.generation += 1
            for connection in self._available_connections:
                connection.disconnect()
        if inuse_connections:
            super().disconnect()


class AsyncPool(redis.asyncio.BlockingConnectionPool):
    """The same for an event loop. Where all are in use, a task waits for one."""

    generation = 0
    waiting = 0

    def __init__(self, **options: Any) -> None:
        super().__init__(**unnotified(redis.asyncio.ConnectionPool), **options)

    async def take(self) -> Any:
        free = self._available_connections
        if free and not self.waiting and is_fresh(free[-1]):
            self._in_use_connections.add(connection := free.pop())
            connection.generation = self.generation  # type: ignore[attr-defined]
            return connection
        return await self.get_connection(*NAMELESS)

    async def give(self, connection: Any, whole: bool = True) -> None:
        if not whole:
            await connection.disconnect(nowait=True)
        if self.waiting or not whole or connection.generation != self.generation:  # redis-py tells whoever waits
            return await self.release(connection)
        connection.idle_since = monotonic()
        self._in_use_connections.remove(connection)
        self._available_connections.append(connection)

    async def get_connection(self, *arguments: Any, **options: Any) -> Any:
        self.waiting += 1
        try:
            return await super().get_connection(*NAMELESS)  # type: ignore[no-untyped-call]
        finally:
            self.waiting -= 1

    async def ensure_connection(self, connection: Any) -> None:
        connection.generation = self.generation
        await asyncio.sleep(0)  # what has come meanwhile is seen only after the event loop has read it
        await super().ensure_connection(connection)

    async def release(self, connection: Any) -> None:
        connection.idle_since = NEVER
        if connection.generation != self.generation:
            await connection.disconnect(nowait=True)
        await super().release(connection)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        self.generation += 1
        idle, self._available_connections = self._available_connections, []  # no task takes one that is being closed
        for connection in idle:
            await connection.disconnect(nowait=not inuse_connections)
        if inuse_connections:
            await super().disconnect()


def is_fresh(connection: Any) -> bool:
    return bool(monotonic() - connection.idle_since < IDLE)


class Commands:
    """Constructed with a synchronous or asynchronous client."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._pool = client.connection_pool
        self._waits = isinstance(self._pool, AsyncPool)
        self._is_ours = self._waits or isinstance(self._pool, Pool)

    async def execute(
        self,
        command: Command,
        meaning: Meaning,
        once: bool = False,
        packed: bytes | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Any:
        """What the answer means. Raises what `client.execute_command()` does.

        `meaning` raises `Impossible` for what can be no answer: the command is sent once more then, on a new
        connection. With `once` it is not sent again after anything but a refusal: `Lost` is raised instead. `packed` is
        the command as it is sent, where the caller can say it in less time. `meanwhile` may be called, between the
        command and its answer.
        """
        is_direct = self._is_ours and _is_own_way(self.client) and not _is_measured()
        try:
            if is_direct:
                return await self._directly(command, meaning, once, packed, meanwhile)
            return await self._own_way(command, meaning, once)
        except Again:
            await self.refresh()
        return await self._own_way(command, meaning, once, new=True)

    async def refresh(self) -> None:
        """Use no connection any more that is kept now."""
        if "inuse_connections" in signature(self._pool.disconnect).parameters:  # else it would close those in use
            await settle(self._pool.disconnect(inuse_connections=False))

    async def _directly(
        self,
        command: Command,
        meaning: Meaning,
        once: bool,
        packed: bytes | None,
        meanwhile: Callable[[], None] | None,
    ) -> Any:
        if packed is None and pack_command is not None:
            packed = pack_command(command)
        connection = self._pool.take()
        if self._waits:  # settle() would do, and take longer
            connection = await connection
        whole = False
        try:
            sent = connection.send_packed_command([packed] if packed else connection.pack_command(*command))
            if self._waits:
                await sent
            if meanwhile is not None:
                meanwhile()
            answer = connection.read_response()
            found = meaning(await answer if self._waits else answer)
            whole = True
            return found
        except (redis.RedisError, Impossible) as error:
            whole = isinstance(error, redis.exceptions.NoScriptError) and not is_unasked(error, command[0])
            is_another = is_unasked(error, command[0])
            if once and (is_another or is_lost(error, connection)):
                raise Lost from error
            if is_another or is_worth_another(error, connection):
                raise Again from error
            raise
        finally:
            given = self._pool.give(connection, whole)
            if self._waits:
                await given

    async def together(self, commands: Sequence[Command], once: bool) -> list[Any]:
        """The answers to some that go over one connection, errors among them; with `once` as `execute()`. They are sent
        once more where the first is refused by what is a primary no more."""
        answers = await self._at_once(commands, once)
        if not is_demoted(answers[0]):
            return answers
        await self.refresh()
        return await self._at_once(commands, once, new=True)

    async def all(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to many in one trip, errors among them."""
        return await self._at_once(commands, once=False)

    async def _at_once(self, commands: Sequence[Command], once: bool, new: bool = False) -> list[Any]:
        client = careful(self.client, once, new and not self._is_ours) if once or new else self.client
        pipeline = client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await settle(pipeline.execute(raise_on_error=False))

    async def _own_way(self, command: Command, meaning: Meaning, once: bool, new: bool = False) -> Any:
        client = careful(self.client, once, new and not self._is_ours) if once or new else self.client
        try:
            return meaning(await settle(client.execute_command(*command)))
        except (Impossible, *MISREAD, redis.RedisError) as error:
            is_misread = not isinstance(error, redis.RedisError) or is_unasked(error, command[0])
            if is_misread and once:
                raise Lost from error
            if is_misread and new:
                raise Impossible from error
            if is_misread or (is_demoted(error) and not new):
                raise Again from error
            raise


def for_sessions(client: Any) -> Any:
    """A client of a `Pool` with the settings of the given one; that one where this would take something away."""
    pool = client.connection_pool
    if type(client) is not redis.Redis or type(pool) is not redis.ConnectionPool or not is_plain(pool):
        return client
    if client.connection or not _is_own_way(client):
        return client
    options = {name: value for name, value in pool.connection_kwargs.items() if not name.startswith(OF_THE_POOL)}
    kind, most = pool.connection_class, pool.max_connections
    return redis.Redis.from_pool(Pool(connection_class=kind, max_connections=most, **options))


def is_plain(pool: Any) -> bool:
    """Whether another pool takes nothing away that this one does for each command."""
    options = pool.connection_kwargs
    notified = getattr(options.get("maint_notifications_config"), "enabled", None) is True
    special = getattr(pool, "cache", None) or options.get("credential_provider") or notified
    return KNOWN and pool.connection_class.__module__ in OWN_MODULES and not special


def _is_own_way(client: Any) -> bool:
    """By identity, since a proxy around a function may say that it is equal to it."""
    method = type(client).execute_command
    return (method is OWN_WAY or method is OWN_ASYNC_WAY) and "execute_command" not in vars(client)


def _is_measured() -> bool:
    return recorder is not None and recorder.is_enabled()
