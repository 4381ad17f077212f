"""Commands to Redis on connections that are kept from one to the next: close to the wire.

redis-py's pool asks the kernel before each command whether an answer was left unread on the connection, which takes
about as long as checking and decoding a session. A connection is kept here only after its answer was read to the end,
and dropped after anything else, a cancelled task and a killed thread included: so there is nothing to ask for. On one
that the server has closed meanwhile a command fails, and is given to redis-py's own client, which connects anew and
retries as it is told to. What must not come twice is sent on a connection only after the question.

What hangs on the client is not gone round: where `execute_command` is not redis-py's own (tracing), its metrics are
collected, or its pool is a special one (Sentinel, client-side caching, credentials that are renewed), each command goes
the client's own way.
"""

import os
from collections import deque
from collections.abc import Callable
from types import FunctionType
from typing import Any

import redis
import redis.asyncio
from redis.observability import recorder

from .twins import settle

try:
    import hiredis
except ImportError:
    hiredis = None  # type: ignore[assignment]

# Connections, redis-py's default. A smaller pool may be meant to be used up to the last, by a cache too: it keeps none.
SMALLEST_POOL = 100
PLAIN_POOLS = redis.ConnectionPool, redis.asyncio.ConnectionPool, redis.asyncio.BlockingConnectionPool
OWN_MODULES = "redis.client", "redis.connection", "redis.asyncio.client", "redis.asyncio.connection"
OWN_WAYS = redis.Redis.execute_command, redis.asyncio.Redis.execute_command


class Wire:
    """Constructed with a synchronous or asynchronous client. Half of its pool's connections may be kept, at most."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._pool = client.connection_pool
        self._kept: deque[Any] = deque()
        self._kept_by = os.getpid()
        self._waiting: deque[None] = deque()  # for a connection of the pool: a count that threads cannot get wrong
        self._most = self._pool.max_connections // 2 if _is_plain(client) else 0

    async def execute(self, *command: Any, once: bool = False) -> Any:
        """The answer as the server sends it. Raises what `client.execute_command()` does.

        `once`: that it may have come, and its answer was lost, is an error then, unless the client is told to retry.
        """
        if not self._most or not _is_own_way(type(self.client).execute_command) or recorder.is_enabled():
            return await settle(self.client.execute_command(*command))
        packed = [hiredis.pack_command(command)] if hiredis else None  # asynchronous connections do it in Python
        connection, was_kept = await self._take()
        was_read = False
        try:
            if not (once and was_kept and await _is_closed(connection)):
                await settle(connection.send_packed_command(packed or connection.pack_command(*command)))
                answer = await settle(connection.read_response())
                was_read = True
                return answer
        except redis.ResponseError as error:
            # By one that is to be retried the connection is not the one that is wanted: it leads to a replica, say.
            was_read = not isinstance(error, (redis.ReadOnlyError, *connection.retry_on_error))
            if was_read:
                raise
        except (redis.ConnectionError, redis.TimeoutError) as error:
            was_closed = was_kept and not once and isinstance(error, redis.ConnectionError)
            if not was_closed and not connection.retry.get_retries():
                raise
        finally:
            if was_read and not self._waiting and len(self._kept) < self._most and not connection.should_reconnect():
                self._kept.append(connection)
            else:
                await self._give_back(connection, was_read)
        return await self.run(self.client.execute_command, *command)

    async def run(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What a function answers that takes its connection from the pool, as a pipeline does.

        There has to be one: what is kept is given back, one now and meanwhile all that others have done with.
        """
        self._waiting.append(None)
        try:
            await self._lend()
            return await settle(function(*arguments, **options))
        finally:
            self._waiting.pop()

    async def close(self) -> None:
        """Give all connections back to the pool, those that are in use when their answer has come."""
        self._most = 0
        while self._kept:
            await self._lend()

    async def _take(self) -> tuple[Any, bool]:
        """A connection, and whether it was kept."""
        if (
            self._kept_by != os.getpid()
        ):  # a server that forks without Python's knowledge: the parent's are no one's here
            self._kept, self._kept_by = deque(), os.getpid()
        try:
            return self._kept.pop(), True
        except IndexError:
            return await self.run(self._pool.get_connection), False

    async def _lend(self) -> None:
        try:
            connection = self._kept.pop()
        except IndexError:
            return
        await settle(self._pool.release(connection))

    async def _give_back(self, connection: Any, was_read: bool) -> None:
        if not was_read:
            await settle(connection.disconnect(nowait=True))
        await settle(self._pool.release(connection))


async def _is_closed(connection: Any) -> bool:
    """As redis-py's pool asks: what can be read is the end."""
    try:
        return bool(await settle(connection.can_read()))
    except (redis.ConnectionError, redis.TimeoutError, OSError):
        return True


def _is_plain(client: Any) -> bool:
    """Whether keeping connections takes nothing away that the client or its pool does for each command."""
    pool = client.connection_pool
    if type(pool) not in PLAIN_POOLS or pool.max_connections < SMALLEST_POOL:
        return False
    special = client.connection or getattr(pool, "cache", None) or pool.connection_kwargs.get("credential_provider")
    return pool.connection_class.__module__ in OWN_MODULES and not special


def _is_own_way(method: Any) -> bool:
    """By identity and type, since a proxy around a function may say that it is equal to it."""
    found = method is OWN_WAYS[0] or method is OWN_WAYS[1]
    return found and type(method) is FunctionType and method.__module__ in OWN_MODULES
