"""Sessions in Redis or Valkey, through django-redis.

One STRING per session, at `<prefix>:<id>`, big-endian::

    version u64 | expires_at i64 | updated_at i64 | created_at i64 | indexed u32 | length u16 | user id | payload

with times in milliseconds since 1970, and `length` that of the UTF-8 user id (0: anonymous). One sorted set per user,
at `<prefix>:user:<user id>`, holds the ids of the user's sessions, as 32 bytes each, scored by the hour since 1970 by
which Redis will have expired them, and one to spare; `indexed` is that hour. So the index is written when the user
changes or the expiry passes that hour, by the script that writes the record and before it, and each save is one
command. An index may hold too much (it is checked against the records when read), never too little: a score rises, but
does not fall when an expiry moves back.

A record lives for the time that is left of it by the caller's clock, `left`; the index goes by the server's (TIME, in
the scripts): clocks may differ, and a caller's may stand still. Only what is read for a request is compared with the
caller's clock.

    read     GET <key>
    insert   SET <key> <value> NX PX <left>; of a user's: EVALSHA INSERT <key> <user>
    replace  EVALSHA REPLACE <key> <user>: compare the version, list it under its user if it is not, then SET ... PXAT
    touch    EVALSHA TOUCH <key>: SETRANGE the expiry and updated_at, then PEXPIREAT; where it passes the hour it
             answers the user, and is sent again with <user>
    remove   DEL <key> ...
    of_user  ZRANGE <user> 0 -1; then GET each, and ZRANGE again, in one pipeline; where many members had ended, EVAL
             FORGET <user> <key> ...: ZREM those whose session is not there
    scan     SCAN ... MATCH <prefix>:????...; then GET each, in one pipeline
    purge    TIME; ZRANGE ... BYSCORE and ZREM of the users' sets, found by SCAN: Redis expires no members of a set
    index    EVAL INDEX <user> <key>: ZADD, PEXPIREAT, trim, to repair an index that was lost
    may_miss INFO stats: has anything been evicted? ZRANGE <user> 0 0: is there an index?

What must not come twice, an insert or a removal, is not sent again when its answer was lost: it is looked up what
became of it. Whatever else is found where a session or an index should be is none, and a line in the log.

Needs Redis 6.2 (ZADD GT, PXAT) or any Valkey.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import redis

from ...conf import conf
from ...exceptions import EngineUnavailable
from ...records import Page, Record, epoch_now, from_epoch, to_epoch
from . import answers as redis_answers
from . import clients, leftovers, waiting
from .answers import ID_LENGTH, NO_MORE_VERSIONS, TIMES, pack
from .failures import MISREAD, Impossible, Lost, is_demoted, is_unasked
from .pool import Commands
from .scripts import INDEX, INSERT, REPLACE, SHA, TOUCH

GLOB = re.compile(r"([*?\[\]\\^-])")  # what a pattern of SCAN may take for its own
SCAN_COUNT = 100  # sets whose expired members are in memory at once
MOST_SCANS = 20  # for one page
MOST_PURGE_SCANS = 100  # for one part of a purge, which can be stopped between two
SENDINGS = 2  # of what must not come twice: again only when it is sure that it has not come

Command = tuple[Any, ...]
Meaning = Callable[[Any], Any]


class RedisStorage:
    """Constructed with `redis.Redis` or `redis.asyncio.Redis`, of a pool that does not decode responses."""

    expires_itself = True

    def __init__(self, client: Any) -> None:
        self.client = client
        self.commands = Commands(client)

    async def read(self, id: str) -> Record | None:
        try:
            return await self._send(("GET", self._key(id)), partial(redis_answers.live, id))  # type: ignore[no-any-return]
        except Impossible:
            return redis_answers.nothing("Session record corrupted (id %s).", id)  # type: ignore[no-any-return]

    async def read_anew(self, id: str) -> Record | None:
        """The same on a new connection, for a payload that does not verify: it may be another's. No verb."""
        await self.commands.refresh()
        return await self.read(id)

    async def insert(self, record: Record) -> bool:
        """Where the answer was lost: what is stored is compared with what was sent."""
        try:
            return await self._insert_surely(record)
        except waiting.NotReplicated:  # the browser will not learn of it
            await self._ask([("DEL", self._key(record.id))])
            raise

    async def _insert_surely(self, record: Record) -> bool:
        sent = pack(record)
        for sending in range(SENDINGS):
            with suppress(Lost):
                if await self._insert(record, sent):
                    return True
                if not sending:
                    return False
            await self.commands.refresh()
            if (held := await self._held(record.id)) is not None:
                return redis_answers.is_the_same(held, sent) and self._is_known_to_last()
        raise EngineUnavailable("Redis: the answers to an insert were lost.")

    async def replace(self, record: Record) -> Record | None:
        """As `insert()`: sent again it would answer that nothing is there, if it has been removed since."""
        if record.version > NO_MORE_VERSIONS:
            return None
        sent = pack(record)
        for _ in range(SENDINGS):
            with suppress(Lost):
                return await self._replace(record, sent)
            await self.commands.refresh()
            held = await self._held(record.id)
            if held is not None and redis_answers.is_the_same(held, sent) and self._is_known_to_last():
                return record
            if isinstance(redis_answers.record(record.id, held), Impossible):
                return redis_answers.nothing("Session record corrupted (id %s).", record.id)  # type: ignore[no-any-return]
        raise EngineUnavailable("Redis: the answers to a save were lost.")

    async def touch(self, id: str, expires_at: datetime) -> bool:
        key, now, expires = self._key(id), epoch_now(), to_epoch(expires_at)
        arguments, meaning = (expires - now, TIMES.pack(expires, now), now), redis_answers.done_or_user
        try:
            answer = await self._run(TOUCH, meaning, [key], *arguments, b"")
            if isinstance(answer, str):  # whose it is, since the hour is a new one: its name makes that of the set
                keys = [key, self._user_key(answer)]
                answer = await self._run(TOUCH, meaning, keys, *arguments, answer, bytes.fromhex(id))
        except Impossible:
            answer = redis_answers.nothing("Session record corrupted (id %s).", id)
        return answer is True

    async def remove(self, ids: Iterable[str]) -> int:
        """Where the answer was lost: what is there no more counts as removed, the rest is removed again. By then the
        first command may have come after all, so that what the second finds gone counts too."""
        keys, removed = [self._key(id) for id in ids], 0
        for sending in range(SENDINGS):
            if not keys:
                return removed
            with suppress(Lost):
                found = int(await self._send(("DEL", *keys), redis_answers.number, once=True))
                return removed + (len(keys) if sending else found)
            await self.commands.refresh()
            first_bytes = await self._ask([("GETRANGE", key, 0, 0) for key in keys])
            left = [key for key, found in zip(keys, first_bytes, strict=True) if found]
            if len(left) < len(keys):
                self._is_known_to_last()
            removed, keys = removed + len(keys) - len(left), left
        if keys:
            raise EngineUnavailable("Redis: the answers to a removal were lost.")
        return removed

    async def of_user(self, user_id: str) -> list[Record]:
        """What Redis still holds, whatever the caller's clock says.

        The index is asked for again in the trip of the records, behind them: whose key was cycled meanwhile is gone
        there, and listed by then under the new one.
        """
        index, known, records = ("ZRANGE", self._user_key(user_id), 0, -1), set[bytes](), list[Record]()
        try:
            members = await self._ask_one(index, redis_answers.members)
        except Impossible:
            redis_answers.nothing("Session index corrupted (user %s).", user_id)
            return []
        while new := [each for each in members if each not in known]:
            known.update(new)
            found, [members] = await self._read_all(redis_answers.ids_of_members(new, user_id), index)
            members = redis_answers.of_index(members, index[1], [])
            records += [record for record in found if record.user_id == user_id]
        await self._forget(user_id, known - {bytes.fromhex(record.id) for record in records}, members)
        return records

    async def scan(self, after: str | None, limit: int) -> Page:
        """A page in the order of SCAN: `next` is its cursor, a page may be a little longer than `limit` or repeat a
        record that moved, and misses none that was there all the time. Among much else it may be empty. It has what
        Redis still holds, whatever the caller's clock says."""
        cursor, ids, match = int(after or 0), list[str](), self._key("?" * ID_LENGTH, escape=True)
        for _ in range(MOST_SCANS):
            cursor, keys = await self._scan(cursor, match, limit)
            ids = redis_answers.ids_of_keys(keys)
            if ids or not cursor:
                break
        records, _ = await self._read_all(ids)
        return Page(records, next=str(cursor) if cursor else None)

    async def purge(self, before: datetime, limit: int) -> int:
        """Trim members that expired before then, by the server's clock too, from the users' sets."""
        removed, after = await self.purge_from(None, before, limit)
        while after is not None and removed < limit:
            more, after = await self.purge_from(after, before, limit - removed)
            removed += more
        return removed

    async def purge_from(self, after: str | None, before: datetime, limit: int) -> tuple[int, str | None]:
        """A part of that: how many were trimmed, and the `after` of the next part. No verb: without it each batch of a
        purge would walk again over all that those before it have gone through."""
        before, removed, cursor = min(before, await self.clock()), 0, int(after or 0)
        match = self._user_key("*", escape=True)
        for _ in range(MOST_PURGE_SCANS):
            page = cursor
            cursor, keys = await self._scan(page, match, SCAN_COUNT)
            removed += await leftovers.trim(self._ask, keys, before, limit - removed)
            if removed >= limit:
                return removed, str(page)  # which may have some left
            if not cursor:
                return removed, None
        return removed, str(cursor)

    async def clock(self) -> datetime:
        """The server's now. No verb."""
        seconds, microseconds = await self._ask_one(("TIME",), redis_answers.two_numbers)
        return from_epoch(seconds * 1000 + microseconds // 1000).astimezone(UTC)

    async def index(self, records: Iterable[Record]) -> int:
        """List records under their users where they are not, and count them. No verb: other servers lose no index."""
        listed = [
            ("EVAL", INDEX, 2, self._user_key(record.user_id), self._key(record.id), bytes.fromhex(record.id))
            for record in records
            if record.user_id is not None
        ]
        answers = zip(listed, await self._ask(listed), strict=True)
        return sum(redis_answers.of_index(answer, user_key, 0) for (_, _, _, user_key, *_), answer in answers)

    async def may_miss(self, user_id: str) -> bool:
        """Whether the index may lack sessions of the user: it is not there, or Redis has evicted some. No verb."""
        with suppress(EngineUnavailable):  # an ACL without INFO, say: it may, then
            stats, listed = await self._ask([("INFO", "stats"), ("ZRANGE", self._user_key(user_id), 0, 0)])
            return stats.get("evicted_keys") != 0 or not listed or isinstance(listed, Impossible)
        return True

    def close(self) -> None:
        self.client.close()  # a cache alias's client shares its pool with the cache, and leaves that open

    async def aclose(self) -> None:
        await clients.aclose(self.client)

    async def _insert(self, record: Record, value: bytes) -> bool:
        if record.user_id is not None:
            return bool(await self._write(INSERT, redis_answers.done, record, value, once=True))
        return await self._set_new(record, value)

    async def _set_new(self, record: Record, value: bytes) -> bool:
        left = to_epoch(record.expires_at) - epoch_now()
        expiry = ("PX", left) if left > 0 else ("PXAT", 1)  # Redis refuses 0 and less; 1 is long past
        command = "SET", self._key(record.id), value, "NX", *expiry
        return bool(await self._send(command, redis_answers.was_set, once=True))

    async def _replace(self, record: Record, value: bytes) -> Record | None:
        arguments, meaning = (epoch_now(), (record.version - 1).to_bytes(8, "big")), partial(redis_answers.held, record)
        try:
            return await self._write(REPLACE, meaning, record, value, *arguments, once=True)  # type: ignore[no-any-return]
        except Impossible:
            return redis_answers.nothing("Session record corrupted (id %s).", record.id)  # type: ignore[no-any-return]

    async def _held(self, id: str) -> bytes | None:
        """What is stored, as it is; nothing at all of somebody else's type."""
        with suppress(Impossible):
            return await self._send(("GET", self._key(id)), redis_answers.value)  # type: ignore[no-any-return]
        return b""

    async def _scan(self, cursor: int, match: str, count: int) -> tuple[int, list[bytes]]:
        command = "SCAN", cursor, "MATCH", match, "COUNT", count
        return await self._ask_one(command, redis_answers.cursor_and_keys)  # type: ignore[no-any-return]

    async def _forget(self, user_id: str, gone: set[bytes], members: Sequence[bytes]) -> None:
        with suppress(EngineUnavailable):  # who may not write can list all the same
            await leftovers.forget(self._ask, self._user_key(user_id), self._key, gone, members)

    async def _read_all(self, ids: list[str], *behind: Command) -> tuple[list[Record], list[Any]]:
        """The records, and the answers to the commands behind theirs."""
        found, answers = await self._records(ids, behind)
        if any(isinstance(each, Impossible) for each in found):
            await self.commands.refresh()
            found, answers = await self._records(ids, behind)
        for id, each in zip(ids, found, strict=True):
            if isinstance(each, Impossible):
                redis_answers.nothing("Session record corrupted (id %s).", id)
        return [each for each in found if isinstance(each, Record)], answers

    async def _records(
        self, ids: list[str], behind: Sequence[Command]
    ) -> tuple[list[Record | Impossible | None], list[Any]]:
        values = await self._ask([*(("GET", self._key(id)) for id in ids), *behind])
        found = [redis_answers.record(id, value) for id, value in zip(ids, values, strict=False)]
        return found, values[len(ids) :]

    async def _write(
        self, script: str, meaning: Meaning, record: Record, value: bytes, *arguments: object, once: bool = False
    ) -> Any:
        keys, member = [self._key(record.id)], b""
        if record.user_id is not None:
            keys.append(self._user_key(record.user_id))
            member = bytes.fromhex(record.id)
        left = to_epoch(record.expires_at) - epoch_now()
        return await self._run(script, meaning, keys, left, value, member, *arguments, once=once)

    async def _run(self, script: str, meaning: Meaning, keys: list[str], *arguments: object, **how: bool) -> Any:
        try:
            return await self._send(("EVALSHA", SHA[script], len(keys), *keys, *arguments), meaning, **how)
        except redis.exceptions.NoScriptError:  # a new or restarted server; EVAL makes it known
            return await self._send(("EVAL", script, len(keys), *keys, *arguments), meaning, **how)

    def _is_known_to_last(self) -> bool:
        """Of what was written though its answer was lost: nobody has told how many replicas have it."""
        if conf.REDIS_WAIT:
            raise waiting.NotReplicated
        return True

    async def _send(self, command: Command, meaning: Meaning, once: bool = False, lasting: bool = False) -> Any:
        """Raises `Impossible` where there is something else than a session or an index, and `Lost` with `once`."""
        try:
            if conf.REDIS_WAIT and (once or lasting):
                return await waiting.execute(self.commands, command, meaning, once)
            return await self.commands.execute(command, meaning, once)
        except redis.exceptions.NoScriptError:
            raise
        except (redis.RedisError, OSError) as error:
            if redis_answers.is_of_another_type(error):
                raise Impossible from error
            raise EngineUnavailable(f"Redis: {error}") from error

    async def _ask_one(self, command: Command, meaning: Meaning) -> Any:
        """For what is rare, and ends or counts sessions: the connection is looked at before."""
        try:
            return meaning(*await self._ask([command]))
        except Impossible:
            await self.commands.refresh()
        return meaning(*await self._ask([command]))

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to many in one trip, which may come twice; `Impossible` in the place of another type's."""
        try:
            return await self._pipeline(commands)
        except (redis.ConnectionError, *MISREAD):
            await self.commands.refresh()
        except (redis.RedisError, OSError) as error:
            await self.commands.refresh()
            if not is_demoted(error) and not is_unasked(error, "EVAL"):
                raise EngineUnavailable(f"Redis: {error}") from error
        try:
            return await self._pipeline(commands)
        except (redis.RedisError, OSError, *MISREAD) as error:
            raise EngineUnavailable(f"Redis: {error}") from error

    async def _pipeline(self, commands: Sequence[Command]) -> list[Any]:
        answers = await self.commands.all(commands) if commands else []
        return [redis_answers.answer_or_impossible(answer) for answer in answers]

    def _key(self, id: str, escape: bool = False) -> str:
        prefix = GLOB.sub(r"\\\1", conf.KEY_PREFIX) if escape else conf.KEY_PREFIX
        return f"{prefix}:{id}"

    def _user_key(self, user_id: str, escape: bool = False) -> str:
        return self._key(f"user:{user_id}", escape)
