"""The client's own way for a command that must not come twice, or must come over a new connection."""

import copy
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

import redis
from redis.retry import Retry

from .failures import Lost, is_lost

# Else the client's own retries hold for all that is sent.
CAN_BE_CAREFUL = hasattr(Retry, "call_with_retry") and all(
    hasattr(redis.ConnectionPool, name) for name in ("get_connection", "release")
)


def careful(client: Any, once: bool, new: bool) -> Any:
    """The client, but for its retries (`once`), the connections that it has kept (`new`), and a tracer's wrapper around
    this one instance, which leads to both."""
    if not CAN_BE_CAREFUL:
        return client
    own, client = client, copy.copy(client)
    vars(client).pop("execute_command", None)
    client.connection, client.connection_pool = None, _Lender(own.connection_pool, once, new)
    client.auto_close_connection_pool = False
    return client


class _Lender:
    """A pool over the client's own, for one command."""

    def __init__(self, pool: Any, once: bool, new: bool) -> None:
        self._pool, self._once, self._new = pool, once, new

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        found = self._pool.get_connection(*arguments, **options)
        if hasattr(found, "__await__"):
            return self._awaited(found)
        if self._new:
            found.disconnect()  # it connects when it sends
        return self._lent(found)

    async def _awaited(self, found: Any) -> Any:
        connection = await found
        if self._new:
            await connection.disconnect(nowait=True)
        return self._lent(connection)

    def _lent(self, connection: Any) -> Any:
        if self._once:
            connection.retry = _CarefulRetry(connection)
        return connection

    def release(self, connection: Any) -> Any:
        if self._once:
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
        self.connection.retry, this = self.own, self.connection.retry
        try:
            if is_lost(error, self.connection):
                raise Lost from error
        finally:
            self.connection.retry = this
