"""Commands to a cluster of Redis, over redis-py's own client, which follows MOVED, ASK and TRYAGAIN.

A command goes to the node of its key by name (`target_nodes`), which redis-py does not send again after anything but
a redirection: so what must not come twice does not.
"""

import time
from asyncio import sleep
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.cluster import PipelineCommand
from redis.exceptions import AskError, ClusterError, RedisClusterException, TryAgainError

from ...exceptions import EngineUnavailable
from ...twins import settle
from .failures import MISREAD, Impossible, Lost

REDIRECTIONS = 16
REDIRECTING = AskError, TryAgainError  # MovedError is an AskError
PAUSE = 0.05  # seconds, while slots are on their way


class ClusterCommands:
    """Constructed with a synchronous or asynchronous client of a cluster."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._waits = isinstance(client, redis.asyncio.RedisCluster)

    async def execute(
        self, command: tuple[Any, ...], meaning: Callable[[Any], Any], once: bool = False, packed: bytes | None = None
    ) -> Any:
        """As that of `pool.Commands`."""
        try:
            return meaning(await self._send(command))
        except (redis.ConnectionError, Impossible, *MISREAD) as error:
            if once and not isinstance(error, redis.BusyLoadingError):
                raise Lost from error
        await self.refresh()
        try:
            return meaning(await self._send(command))
        except MISREAD as error:
            raise Impossible from error

    async def all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The answers to many, errors among them, which may come twice."""
        try:
            pipeline = self.client.pipeline()
            for command in commands:
                pipeline.execute_command(*command)
            answers = await settle(pipeline.execute(raise_on_error=False))
            return [
                await self._send(command) if _is_redirection(answer) else answer
                for command, answer in zip(commands, answers, strict=True)
            ]
        except RedisClusterException as error:
            raise redis.ConnectionError(str(error)) from error

    async def at(self, node: Any, *command: Any) -> Any:
        """The answer of that very node; SCAN's is its cursor and keys. Raises `EngineUnavailable`."""
        try:
            answer = await settle(self.client.execute_command(*command, target_nodes=node))
        except (redis.RedisError, RedisClusterException, OSError) as error:
            raise EngineUnavailable(f"Redis: {error}") from error
        if command[0] == "SCAN":
            cursors, keys = answer
            return next(iter(cursors.values())), keys
        return answer

    async def primaries(self) -> list[Any]:
        await self._know_nodes()
        return list(self.client.get_primaries())

    async def node_of(self, key: str) -> Any:
        await self._know_nodes()
        return self.client.get_node_from_key(key)

    async def node_at(self, address: str, slot: int) -> Any:
        """The node of that name, else the one that has the slot."""
        await self._know_nodes()
        found = self.client.get_node(node_name=address) if address else None
        return found or self.client.nodes_manager.get_node_from_slot(slot)

    async def look_again(self) -> None:
        """Ask where the slots are, after a moment."""
        if self._waits:
            await sleep(PAUSE)
        else:
            time.sleep(PAUSE)  # noqa: ASYNC251  of the synchronous face
        with suppress(redis.RedisError, RedisClusterException, OSError):  # then the next command says it
            await settle(self.client.nodes_manager.initialize())

    async def refresh(self) -> None:
        """Use no connection any more that is idle now."""
        for node in self.client.get_nodes():
            if not self._waits:
                if connection := node.redis_connection:
                    connection.connection_pool.disconnect(inuse_connections=False)
            elif hasattr(node, "disconnect_free_connections"):  # not in redis-py before 7
                await node.disconnect_free_connections()

    async def together(self, commands: Sequence[tuple[Any, ...]], once: bool = True) -> list[Any]:
        """The answers to a command and what is to follow it over the same connection, errors among them.

        Redirections are followed here: redis-py's asynchronous client sends ASKING over one connection and the command
        over another, for which it was not asked.
        """
        try:
            for _ in range(REDIRECTIONS):
                answers = await self._at_once(await self.node_of(_key_of(commands[0])), commands)
                if type(answers[0]) is AskError and (there := self._node_named_by(answers[0])):
                    answers = (await self._at_once(there, [("ASKING",), *commands]))[1:]
                if not isinstance(answers[0], REDIRECTING):
                    return answers
                await self.look_again()
        except (redis.ConnectionError, redis.TimeoutError):
            await self.look_again()
            raise
        except RedisClusterException as error:
            raise redis.ConnectionError(str(error)) from error
        raise redis.ConnectionError("Slots are moved from node to node without an end.")

    async def _at_once(self, node: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        if self._waits:
            sent = [PipelineCommand(position, *command) for position, command in enumerate(commands)]
            await node.execute_pipeline(sent)
            answers = [each.result for each in sent]
        else:
            pipeline = self.client.get_redis_connection(node).pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            answers = pipeline.execute(raise_on_error=False)
        if isinstance(answers[0], redis.ConnectionError | redis.TimeoutError):
            raise answers[0]
        return answers

    def _node_named_by(self, error: AskError) -> Any:
        address = self.client.nodes_manager.remap_host_port(error.host, error.port)
        return self.client.get_node(*address)

    async def _send(self, command: tuple[Any, ...]) -> Any:
        try:
            node = await self.node_of(_key_of(command))
            return await settle(self.client.execute_command(*command, target_nodes=node))
        except RedisClusterException as error:
            raise redis.ConnectionError(str(error)) from error
        except ClusterError as error:
            if not _is_redirection(error):
                raise
        [answer] = await self.together([command])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _know_nodes(self) -> None:
        if self._waits:
            await self.client.initialize()


def _key_of(command: tuple[Any, ...]) -> Any:
    return command[3] if command[0] in ("EVAL", "EVALSHA") else command[1]


def _is_redirection(answer: Any) -> bool:
    return isinstance(answer, ClusterError) and "TTL exhausted" in str(answer)
