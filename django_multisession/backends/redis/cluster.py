"""Sessions in Redis Cluster: the format of `storage.py`, with a session and its user's set in different slots.

No command and no script touches two slots. A session is listed under its user first, by a command of its own, where the
user or the hour changes; what is then sent to the session says whether that will do, so that no index lacks one::

    insert   of a user's: EVALSHA LIST_ALONE <user>, then SET <key> <value> NX PX <left>
    replace  EVALSHA REPLACE_ALONE <key>; before it LIST_ALONE where what was read shows that it is due. Where it
             answers that it was due after all, both are sent
    touch    EVALSHA TOUCH_ALONE <key>, the same way
    remove   DEL <key>, each by itself
    of_user  ZRANGE <user> 0 -1; GET each; ZRANGE again, until there is nothing new
    scan     SCAN, CLUSTER NODES and INFO replication of one primary after another: see `cluster_walk.py`
    purge    the same for the users' sets
    index    GETRANGE <key> 32 35, then EVAL INDEX_ALONE <user>
    may_miss ZRANGE <user> 0 0; INFO and CLUSTER NODES of its node; GET <prefix>:index: see `cluster_whole.py`

A node that fails over or restarts may lose what is in the index while the sessions are elsewhere. So `<prefix>:index`
says of which nodes and slots the index is known to be whole. It is written where all nodes are empty before the first
log-in, and by a repair of the index that has gone through all.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from ...conf import conf
from ...exceptions import EngineUnavailable
from ...records import Page, Record, epoch_now, from_epoch, to_epoch
from . import answers as redis_answers
from . import leftovers
from .answers import HOUR, ID_LENGTH, INDEXED, TIMES
from .cluster_clients import is_cluster
from .cluster_commands import ClusterCommands
from .cluster_walk import Node, Position, ranges
from .cluster_whole import Whole
from .failures import Impossible
from .scripts import INDEX_ALONE, LIST_ALONE, REPLACE_ALONE, TOUCH_ALONE
from .storage import MOST_PURGE_SCANS, MOST_SCANS, SCAN_COUNT, Command, RedisStorage

LISTINGS = 3  # of one write: the second is for an hour that began meanwhile
STANDSTILL = 200  # times, 50 ms each, that a walk gets nowhere since slots are on their way
KNOWN = 10_000  # sessions, of which this process knows under which hour they are listed

# What was read or written last: {id: (user id, hour)}. It saves a question, and decides nothing.
listed: dict[str, tuple[str | None, int]] = {}


class ClusterStorage(RedisStorage):
    """Constructed with `redis.cluster.RedisCluster` or `redis.asyncio.RedisCluster`."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.commands: ClusterCommands = ClusterCommands(client)  # type: ignore[assignment]
        self._ahead = 0  # milliseconds by which the servers' clock is ahead of ours, as last heard
        self._is_marked = False

    async def read(self, id: str) -> Record | None:
        try:
            return await self._send(("GET", self._key(id)), partial(_live, id))  # type: ignore[no-any-return]
        except Impossible:
            return redis_answers.nothing("Session record corrupted (id %s).", id)  # type: ignore[no-any-return]

    async def touch(self, id: str, expires_at: datetime) -> bool:
        now, expires = epoch_now(), to_epoch(expires_at)
        user_id, left = listed.get(id, (None, 0))[0] or "", expires - now
        hour = await self._list_if_due(user_id, id, left, lasting=False)
        for _ in range(LISTINGS):
            arguments = left, TIMES.pack(expires, now), now, user_id, hour
            try:
                answer = await self._run(TOUCH_ALONE, _hour_and_user, [self._key(id)], *arguments)
            except Impossible:
                answer = redis_answers.nothing("Session record corrupted (id %s).", id)
            if answer is None:
                return False
            is_done, hour, user_id = answer
            if is_done:
                _know(id, listed.get(id, (user_id, 0))[0], hour)
                return True
            hour = await self._list(user_id, id, left, hour, lasting=False)
        raise EngineUnavailable("Redis: a session could not be listed under its user.")

    async def remove(self, ids: Iterable[str]) -> int:
        """Of many at once a node that fails meanwhile may make the number too low."""
        if len(ids := list(ids)) == 1:
            return await super().remove(ids)
        if conf.REDIS_WAIT:
            return await self._remove_each(ids)
        return sum(map(redis_answers.number, await self._ask([("DEL", self._key(id)) for id in ids])))

    async def _remove_each(self, ids: list[str]) -> int:
        """Where one is not known to be on replicas, or its node is away, the others are removed before that is said:
        at once, since each would wait as long in vain."""
        removed = 0
        for number, id in enumerate(ids):
            try:
                removed += await super().remove([id])
            except EngineUnavailable:
                with suppress(EngineUnavailable):
                    await self._ask([("DEL", self._key(id)) for id in ids[number + 1 :]])
                raise
        return removed

    async def scan(self, after: str | None, limit: int) -> Page:
        """As of one server; `next` is a `Position`."""
        position, ids = Position.parse(after), list[str]()
        if after is None:
            position.began = [Whole.noted(told) for _, told in await self._primaries()]
        match = self._key("?" * ID_LENGTH, escape=True)
        for _ in range(MOST_SCANS):
            if not position.left or (ids := redis_answers.ids_of_keys(await self._step(position, match, limit))):
                break
        records, _ = await self._read_all(ids)
        page = Page(records, next=str(position) if position.left else None)
        page.began = position.began  # type: ignore[attr-defined]
        return page

    async def purge_from(self, after: str | None, before: datetime, limit: int) -> tuple[int, str | None]:
        before, removed, position = min(before, await self.clock()), 0, Position.parse(after)
        match = self._user_key("*", escape=True)
        for _ in range(MOST_PURGE_SCANS):
            if not position.left:
                return removed, None
            page = str(position)
            keys = await self._step(position, match, SCAN_COUNT)
            removed += await leftovers.trim(self._ask, keys, before, limit - removed)
            if removed >= limit:
                return removed, page
        return removed, str(position)

    async def clock(self) -> datetime:
        """The now of the server that is slowest."""
        now = min([await self._time(node) for node in await self.commands.primaries()])
        return from_epoch(now).astimezone(UTC)

    async def index(self, records: Iterable[Record]) -> int:
        wanted = [record for record in records if record.user_id is not None]
        hours = await self._ask([("GETRANGE", self._key(record.id), *_OFFSETS) for record in wanted])
        found = [
            ("EVAL", INDEX_ALONE, 1, self._user_key(record.user_id), int.from_bytes(hour, "big"), _member(record.id))
            for record, hour in zip(wanted, hours, strict=True)
            if record.user_id is not None and isinstance(hour, bytes) and len(hour) == 4
        ]
        answers = zip(found, await self._ask(found), strict=True)
        return sum(redis_answers.of_index(answer, user_key, 0) for (_, _, _, user_key, *_), answer in answers)

    async def index_is_whole(self, page: Page) -> None:
        """All sessions have been listed again, in a walk of which this is the last page. No verb."""
        await self._send(("SET", self._key("index"), " ".join(page.began)), redis_answers.was_set)  # type: ignore[attr-defined]

    async def may_miss(self, user_id: str) -> bool:
        with suppress(EngineUnavailable, Impossible, KeyError):  # an ACL without INFO, say: it may, then
            user_key = self._user_key(user_id)
            members = await self._ask_one(("ZRANGE", user_key, 0, 0), redis_answers.members)
            node = await self.commands.node_of_slot(slot := self.client.keyslot(user_key))
            info = await self.commands.at(node, "INFO")
            if not members or info["evicted_keys"] != 0:
                return True
            told = Node.told(await self.commands.at(node, "CLUSTER NODES"), info)
            whole = Whole(await self._ask_one(("GET", self._key("index")), redis_answers.value))
            if whole.has_stayed(slot, told):
                return False
            return not whole.was_nowhere_else(told, [each for _, each in await self._primaries()])
        return True

    # The index

    async def _insert(self, record: Record, value: bytes) -> bool:
        left = to_epoch(record.expires_at) - epoch_now()
        if record.user_id is not None:
            hour = await self._list(record.user_id, record.id, left)
            value = value[: INDEXED.start] + hour.to_bytes(4, "big") + value[INDEXED.stop :]
        if not await self._set_new(record, value):
            return False
        _know(record.id, record.user_id, hour if record.user_id is not None else 0)
        return True

    async def _replace(self, record: Record, value: bytes) -> Record | None:
        user_id, left = record.user_id, to_epoch(record.expires_at) - epoch_now()
        hour = await self._list_if_due(user_id, record.id, left)
        for _ in range(LISTINGS):
            arguments = left, value, epoch_now(), (record.version - 1).to_bytes(8, "big"), hour
            try:
                answer = await self._run(REPLACE_ALONE, _value_or_hour, [self._key(record.id)], *arguments, once=True)
                if answer is None or isinstance(answer, bytes):
                    return redis_answers.held(record, answer)
            except Impossible:
                return redis_answers.nothing("Session record corrupted (id %s).", record.id)  # type: ignore[no-any-return]
            is_done, hour, _ = answer
            if is_done:
                _know(record.id, user_id, hour)
                return record
            hour = await self._list(str(user_id), record.id, left, hour)
        raise EngineUnavailable("Redis: a session could not be listed under its user.")

    async def _list_if_due(self, user_id: str | None, id: str, left: int, lasting: bool = True) -> int:
        """The hour under which it is listed now, or 0: it was not due, or nobody knows."""
        if not user_id or id not in listed:
            return 0
        known_user, hour = listed[id]
        expires = epoch_now() + self._ahead + left
        if known_user == user_id and hour >= -(-expires // HOUR):
            return 0
        return await self._list(user_id, id, left, lasting=lasting)

    async def _list(self, user_id: str, id: str, left: int, least: int = 0, lasting: bool = True) -> int:
        if not self._is_marked:
            await self._mark_if_empty()
        keys, arguments = [self._user_key(user_id)], (left, _member(id), least)
        hour, now = await self._run(LIST_ALONE, redis_answers.two_numbers, keys, *arguments, lasting=lasting)
        self._ahead = now - epoch_now()
        return int(hour)

    async def _mark_if_empty(self) -> None:
        """Where nothing is anywhere, no index lacks anything."""
        with suppress(EngineUnavailable, Impossible):  # an ACL without DBSIZE: a repair says it, then
            if await self._ask_one(("GET", self._key("index")), redis_answers.value) is None:
                primaries = await self._primaries()
                sizes = [await self.commands.at(node, "DBSIZE") for node, _ in primaries]
                if not any(sizes):
                    whole = " ".join(Whole.noted(told) for _, told in primaries)
                    await self._send(("SET", self._key("index"), whole, "NX"), redis_answers.was_set)
        self._is_marked = True

    # All nodes

    async def _primaries(self) -> list[tuple[Any, Node]]:
        return [(node, await self._told(node)) for node in await self.commands.primaries()]

    async def _told(self, node: Any) -> Node:
        nodes = await self.commands.at(node, "CLUSTER NODES")
        return Node.told(nodes, await self.commands.at(node, "INFO", "replication"))

    async def _time(self, node: Any) -> int:
        seconds, microseconds = redis_answers.two_numbers(await self.commands.at(node, "TIME"))
        return seconds * 1000 + microseconds // 1000

    async def _step(self, position: Position, match: str, count: int) -> list[bytes]:
        """The keys of the next page of a SCAN. Raises `EngineUnavailable` where slots are nowhere for too long."""
        for _ in range(STANDSTILL):
            if found := await self._next(position):
                node, told = found
                position.at(node.name, told)
                if position.slots - position.done:
                    answer = await self.commands.at(node, "SCAN", position.cursor, "MATCH", match, "COUNT", count)
                    position.cursor, keys = redis_answers.cursor_and_keys(answer)
                    if not position.cursor:
                        await self._end(position, node)
                    return keys
                position.end(told)  # what was left there has gone elsewhere
            await self.commands.look_again()
        raise EngineUnavailable(f"Redis: all keys were gone over but those of slots {self._stuck(position)}.")

    async def _next(self, position: Position) -> tuple[Any, Node] | None:
        """The node to go on at. What is on its way comes last, at its target; none while that does not take it."""
        if position.address and (node := self.client.get_node(node_name=position.address)):
            return node, await self._told(node)
        slot = min(position.left - position.halves.keys() or position.left)
        told = await self._told(node := await self.commands.node_of_slot(slot))
        if not position.is_half(slot, told):
            position.halves.pop(slot, None)
            return node, told
        if (target := await self.commands.node_at(told.addresses, told.id, told.leaving[slot])) is None:
            return None
        its = await self._told(target)
        return (target, its) if slot in its.slots | its.arriving else None

    async def _end(self, position: Position, node: Any) -> None:
        """What is still on its way there counts if its source has not had it back meanwhile."""
        told, sources = await self._told(node), dict[str, Node]()
        for slot in told.arriving & position.slots & position.halves.keys():
            identity = position.halves[slot][1]
            if identity not in sources:
                sources[identity] = await self._told(await self.commands.node_of_slot(slot))
            if not position.is_half(slot, sources[identity]):
                del position.halves[slot]
        position.end(told)

    def _stuck(self, position: Position) -> str:
        to = {f"{slot} (not taken by node {id})" for slot, (id, _) in position.halves.items()}
        return ", ".join(sorted(to)) or ranges(position.left)

    # Slots

    async def _records(
        self, ids: list[str], behind: Sequence[Command]
    ) -> tuple[list[Record | Impossible | None], list[Any]]:
        """What is behind is asked for when the others have answered: nodes know no order among them."""
        found, _ = await super()._records(ids, ())
        return found, await self._ask(behind)

    async def _forget(self, user_id: str, gone: set[bytes], members: Sequence[bytes]) -> None:
        """Nothing: who signs in is listed before the session is there, and no script can look at both."""


_OFFSETS = INDEXED.start, INDEXED.stop - 1


def _member(id: str) -> bytes:
    return bytes.fromhex(id)


def _live(id: str, value: Any) -> Record | None:
    record = redis_answers.live(id, value)
    if record:
        _know(id, record.user_id, int.from_bytes(value[INDEXED], "big"))
    return record


def _know(id: str, user_id: str | None, hour: int) -> None:
    if len(listed) >= KNOWN:
        listed.clear()
    listed[id] = user_id, hour


def _hour_and_user(answer: Any) -> tuple[bool, int, str] | None:
    """What TOUCH_ALONE and REPLACE_ALONE say of the hour, and of whose it is."""
    if answer is None:
        return None
    try:
        is_done, hour, *user = answer
        return bool(int(is_done)), int(hour), user[0].decode() if user else ""
    except (TypeError, ValueError, AttributeError) as error:
        raise Impossible from error


def _value_or_hour(answer: Any) -> Any:
    return answer if isinstance(answer, bytes) else _hour_and_user(answer)


def storage_of(client: Any) -> RedisStorage:
    return ClusterStorage(client) if is_cluster(client) else RedisStorage(client)
