"""Commands to a cluster of Redis, over redis-py's own client, which follows MOVED, ASK and TRYAGAIN.

A command goes to the node of its key by name (`target_nodes`), which redis-py does not send again after anything but
a redirection: so what must not come twice does not.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import redis
import redis.asyncio
import redis.cluster
from redis.asyncio.cluster import PipelineCommand
from redis.exceptions import AskError, ClusterError, RedisClusterException, TryAgainError

from ...exceptions import EngineUnavailable
from ...twins import settle
from .failures import MISREAD, Impossible, Lost

REDIRECTIONS = 16
REDIRECTING = AskError, TryAgainError  # MovedError is an AskError
AWAY = redis.ConnectionError, redis.TimeoutError
PAUSE = 0.05  # seconds, while slots are on their way


class ClusterCommands:
    """Constructed with a synchronous or asynchronous client of a cluster."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._waits = isinstance(client, redis.asyncio.RedisCluster)

    async def execute(
        self,
        command: tuple[Any, ...],
        meaning: Callable[[Any], Any],
        once: bool = False,
        packed: bytes | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Any:
        """As that of `pool.Commands`, of which the last two save time alone: a cluster's client does without."""
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
        """The answers to many, errors among them, which may come twice.

        Not by redis-py's pipeline: each command to a node that does not answer it sends eleven times.
        """
        answers = await self._each_to_its_node(commands)
        left = [at for at, answer in enumerate(answers) if isinstance(answer, (*REDIRECTING, redis.ConnectionError))]
        if left:
            await self.refresh()
            await self.look_again()
            found = await self._each_to_its_node([commands[at] for at in left])
            for at, answer in zip(left, await self._led_there([commands[at] for at in left], found), strict=True):
                answers[at] = answer
        return answers

    async def _led_there(self, commands: Sequence[tuple[Any, ...]], answers: list[Any]) -> list[Any]:
        """What is still redirected, one by one, until a node does not answer: each would be waited for."""
        away = None
        for at, command in enumerate(commands):
            if isinstance(answers[at], REDIRECTING) and away is None:
                try:
                    answers[at] = await self._send(command)
                except redis.RedisError as error:
                    answers[at] = error
                    away = error if isinstance(error, AWAY) else None
            elif isinstance(answers[at], REDIRECTING):
                answers[at] = away
        return answers

    async def _each_to_its_node(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """In one trip to each node, to all at once from an event loop. Raises what keeps all nodes from being known."""
        await self._know_nodes()
        at_nodes: dict[str, tuple[Any, list[int]]] = {}
        answers: list[Any] = [None] * len(commands)
        for at, command in enumerate(commands):
            try:
                with errors_of_connections():
                    node = self.client.get_node_from_key(_key_of(command))
            except redis.ConnectionError as error:  # nobody has the slot
                answers[at] = error
            else:
                at_nodes.setdefault(node.name, (node, []))[1].append(at)
        trips = [self._errors_too(node, [commands[at] for at in places]) for node, places in at_nodes.values()]
        found = await asyncio.gather(*trips) if self._waits else [await trip for trip in trips]
        for (_, places), of_node in zip(at_nodes.values(), found, strict=True):
            for at, answer in zip(places, of_node, strict=True):
                answers[at] = answer
        return answers

    async def _errors_too(self, node: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        try:
            return await self._at_once(node, commands)
        except (*AWAY, *MISREAD) as error:
            return [error] * len(commands)

    async def at(self, node: Any, *command: Any) -> Any:
        """The answer of that very node; SCAN's is its cursor and keys. Raises `EngineUnavailable`."""
        with outages():
            answer = await settle(self.client.execute_command(*command, target_nodes=node))
        if command[0] == "SCAN":
            cursors, keys = answer
            return next(iter(cursors.values())), keys
        return answer

    async def primaries(self) -> list[Any]:
        """Raises `EngineUnavailable`."""
        with outages():
            await self._know_nodes()
        return list(self.client.get_primaries())

    async def node_of(self, key: str) -> Any:
        await self._know_nodes()
        with errors_of_connections():
            return self.client.get_node_from_key(key)

    async def node_of_slot(self, slot: int) -> Any:
        """Raises `EngineUnavailable`, also where nobody has it."""
        with outages():
            await self._know_nodes()
            return self.client.nodes_manager.get_node_from_slot(slot)

    async def node_named(self, host: str, port: int) -> Any:
        """The node that others know by this address. One without a slot is none that redis-py has been told of."""
        nodes = self.client.nodes_manager
        host, port = nodes.remap_host_port(host, port)
        if found := self.client.get_node(host, port):
            return found
        kind: Any = redis.asyncio.cluster.ClusterNode if self._waits else redis.cluster.ClusterNode
        node = kind(host, port, redis.cluster.PRIMARY, **(self.client.connection_kwargs if self._waits else {}))
        return nodes.nodes_cache.setdefault(node.name, node)

    async def node_at(self, addresses: dict[str, list[tuple[str, int]]], own: str, id: str) -> Any:
        """A node by its id, if it is known to the one that was asked, whose own id is the other. It is called in the
        same way as that one: a host name that the nodes announce need not be one that clients can resolve."""
        if id not in addresses:
            return None
        find = self.client.nodes_manager.remap_host_port
        way = 0 if self.client.get_node(*find(*addresses[own][0])) else 1
        return await self.node_named(*addresses[id][way])

    async def look_again(self) -> None:
        """Ask where the slots are, after a moment."""
        if self._waits:
            await asyncio.sleep(PAUSE)
        else:
            time.sleep(PAUSE)  # noqa: ASYNC251  of the synchronous face
        with suppress(redis.RedisError, RedisClusterException, OSError):  # then the next command says it
            await settle(self.client.nodes_manager.initialize())

    async def refresh(self) -> None:
        """Use no connection any more that is idle now.

        redis-py's `disconnect_free_connections()` waits while they are closed, so that other tasks take them meanwhile.
        """
        for node in self.client.get_nodes():
            if not self._waits:
                if connection := node.redis_connection:
                    connection.connection_pool.disconnect(inuse_connections=False)
                continue
            for connection in tuple(getattr(node, "_free", ())):
                await connection.disconnect(nowait=True)

    async def together(self, commands: Sequence[tuple[Any, ...]], once: bool = True) -> list[Any]:
        """The answers to a command and what is to follow it over the same connection, errors among them.

        Redirections are followed here: redis-py's asynchronous client sends ASKING over one connection and the command
        over another, for which it was not asked.
        """
        try:
            for _ in range(REDIRECTIONS):
                answers = await self._at_once(await self.node_of(_key_of(commands[0])), commands)
                if type(answers[0]) is AskError:
                    there = await self.node_named(answers[0].host, answers[0].port)
                    answers = (await self._at_once(there, [("ASKING",), *commands]))[1:]
                if not isinstance(answers[0], REDIRECTING):
                    return answers
                await self.look_again()
        except (redis.ConnectionError, redis.TimeoutError):
            await self.look_again()
            raise
        raise redis.ConnectionError("Slots are moved from node to node without an end.")

    async def _at_once(self, node: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        with errors_of_connections():
            if self._waits:
                sent = [PipelineCommand(position, *command) for position, command in enumerate(commands)]
                await node.execute_pipeline(sent)
                answers = [each.result for each in sent]
            else:
                pipeline = self.client.get_redis_connection(node).pipeline(transaction=False)
                for command in commands:
                    pipeline.execute_command(*command)
                answers = pipeline.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, redis.ConnectionError | redis.TimeoutError | AttributeError):
                    raise answer
            return answers

    async def _send(self, command: tuple[Any, ...]) -> Any:
        try:
            node = await self.node_of(_key_of(command))
            with errors_of_connections():
                return await settle(self.client.execute_command(*command, target_nodes=node))
        except (ClusterError, Unknown) as error:
            if not _is_redirection(error):
                raise
        [answer] = await self.together([command])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _know_nodes(self) -> None:
        if self._waits:
            with errors_of_connections():
                await self.client.initialize()


def _key_of(command: tuple[Any, ...]) -> Any:
    return command[3] if command[0] in ("EVAL", "EVALSHA") else command[1]


def _is_redirection(answer: Any) -> bool:
    """One that redis-py gives up: nothing is done."""
    return isinstance(answer, Unknown) or (isinstance(answer, ClusterError) and "TTL exhausted" in str(answer))


class Unknown(redis.ConnectionError):
    """ASK names a node that redis-py does not know, and falls over."""


@contextmanager
def errors_of_connections() -> Iterator[None]:
    """What redis-py raises beside `RedisError`: of a connection, too, that another task has closed meanwhile."""
    try:
        yield
    except RedisClusterException as error:
        raise redis.ConnectionError(str(error)) from error
    except AttributeError as error:
        if error.obj is not None:
            raise
        is_unknown = error.name in ("redis_connection", "execute_command", "connection_kwargs")  # of no node
        raise (Unknown if is_unknown else redis.ConnectionError)(str(error)) from error


@contextmanager
def outages() -> Iterator[None]:
    """Whatever redis-py raises, it is an outage: nothing is to be sent again."""
    try:
        with errors_of_connections():
            yield
    except (redis.RedisError, OSError) as error:
        raise EngineUnavailable(f"Redis: {error}") from error
