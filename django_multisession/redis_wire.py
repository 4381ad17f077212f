"""Commands to Redis on connections that are kept from one to the next: close to the wire.

redis-py's pool asks the kernel before each command whether an answer was left unread on the connection, which takes
about as long as checking and decoding a session. A connection is kept here only after its answer was read to the end,
and dropped after anything else, a cancelled task and a killed thread included: so there is nothing to ask for. On one
that the server has closed meanwhile a command fails, and is given to redis-py's own client, which connects anew and
retries as it is told to. (That it may come twice harms none: scripts compare versions, and ids are not used again.)

What hangs on the client is not gone round: where `execute_command` is not redis-py's own (tracing), its metrics are
collected, or its pool is a special one (Sentinel, client-side caching, credentials that are renewed), each command goes
the client's own way.
"""

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

PLAIN_POOLS = redis.ConnectionPool, redis.asyncio.ConnectionPool, redis.asyncio.BlockingConnectionPool
# Unless somebody has replaced them already.
OWN_WAYS = {
    way
    for way in (redis.Redis.execute_command, redis.asyncio.Redis.execute_command)
    if type(way) is FunctionType and way.__module__ in ("redis.client", "redis.asyncio.client")
}


class Wire:
    """Constructed with a synchronous or asynchronous client. Half of its pool's connections may be kept, at most."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._pool = client.connection_pool
        self._kept: deque[Any] = deque()
        self._waiting: deque[None] = deque()  # for a connection of the pool: a count that threads cannot get wrong
        self._most = self._pool.max_connections // 2 if _is_plain(client) else 0

    async def execute(self, *command: Any) -> Any:
        """The answer as the server sends it. Raises what `client.execute_command()` does."""
        if not self._most or type(self.client).execute_command not in OWN_WAYS or recorder.is_enabled():
            return await settle(self.client.execute_command(*command))
        try:
            connection, was_kept = self._kept.pop(), True
        except IndexError:
            connection, was_kept = await self.run(self._pool.get_connection), False
        read = False
        try:
            # Asynchronous connections would pack it in Python.
            packed = [hiredis.pack_command(command)] if hiredis else connection.pack_command(*command)
            await settle(connection.send_packed_command(packed))
            answer = await settle(connection.read_response())
            read = True
            return answer
        except redis.ResponseError:
            read = True
            raise
        except (redis.ConnectionError, redis.TimeoutError) as error:
            was_closed = was_kept and isinstance(error, redis.ConnectionError)
            if not was_closed and not connection.retry.get_retries():
                raise
        finally:
            if read and not self._waiting and len(self._kept) < self._most and not connection.should_reconnect():
                self._kept.append(connection)
            else:
                await self._give_back(connection, read)
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
        while self._kept:
            await self._lend()

    async def _lend(self) -> None:
        try:
            connection = self._kept.pop()
        except IndexError:
            return
        await settle(self._pool.release(connection))

    async def _give_back(self, connection: Any, read: bool) -> None:
        if not read:
            await settle(connection.disconnect(nowait=True))
        await settle(self._pool.release(connection))


def _is_plain(client: Any) -> bool:
    """Whether keeping connections takes nothing away that the client or its pool does for each command."""
    pool = client.connection_pool
    special = client.connection or getattr(pool, "cache", None) or pool.connection_kwargs.get("credential_provider")
    return type(pool) in PLAIN_POOLS and not special
