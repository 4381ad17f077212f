"""Sessions in Redis or Valkey, through django-redis.

One STRING per session, at `<prefix>:<id>`, big-endian::

    version u64 | expires_at i64 | updated_at i64 | created_at i64 | indexed u32 | length u16 | user id | payload

with times in milliseconds since 1970, and `length` that of the UTF-8 user id (0: anonymous). One sorted set per user,
at `<prefix>:user:<user id>`, holds the ids of the user's sessions, as 32 bytes each, scored by expiry in hours since
1970, rounded up; `indexed` is that hour. So the index is written when the user or the hour changes, by the script that
writes the record and before it, and each save is one command. An index may hold too much (it is checked against the
records when read), never too little: a score rises, but does not fall when an expiry moves back.

    read     GET <key>
    insert   SET <key> <value> NX PXAT <expires_at>; of a user's: EVALSHA INSERT <key> <user>
    replace  EVALSHA REPLACE <key> <user>: compare the version, list it under its user if it is not, then SET ... PXAT
    touch    EVALSHA TOUCH <key>: SETRANGE the expiry and updated_at, then PEXPIREAT; where the hour is a new one it
             answers the user, and is sent again with <user>
    remove   DEL <key> ...
    of_user  ZRANGE <user> (<now> +inf BYSCORE; then GET each, in one pipeline
    scan     SCAN ... MATCH <prefix>:????...; then GET each, in one pipeline
    purge    ZRANGE ... BYSCORE and ZREM of the users' sets, found by SCAN: Redis expires no members of a set
    index    EVAL INDEX <user>: ZADD, trim, PEXPIREAT, to repair an index that was lost
    may_miss INFO stats: has anything been evicted? ZRANGE <user> 0 0: is there an index?

Needs Redis 6.2 (PXAT) or any Valkey.
"""

import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from hashlib import sha1
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import classproperty

from ..conf import conf
from ..connections import Connections
from ..exceptions import EngineUnavailable
from ..records import Page, Record, epoch_now, from_epoch, to_epoch
from ..twins import run_sync
from . import base

try:
    import redis

    from .. import redis_clients, redis_wire
except ImportError as error:
    raise ImproperlyConfigured("This session engine needs: pip install django-multisession[redis].") from error

HEADER = struct.Struct(">QqqqIH")
EXPIRES_AT = struct.Struct(">8xq")
HOUR = 3_600_000  # milliseconds
ID_LENGTH = 64
SCAN_COUNT = 100  # sets whose expired members are in memory at once
MOST_SCANS = 20  # for one page

# What a script answers; else nil (gone), REPLACE: the stored value (conflict), TOUCH: whose index is to be written.
SAVED = 1

# List a session under its user, and forget those that have expired.
LIST = """
local function list(user, now, hour, id)
    redis.call('ZREMRANGEBYSCORE', user, '-inf', now / 3600000)
    local added = redis.call('ZADD', user, 'GT', hour, id)
    redis.call('PEXPIREAT', user, redis.call('ZREVRANGE', user, 0, 0, 'WITHSCORES')[2] * 3600000)
    return added
end
"""
# Redis refuses an expiry of 0 and less; 1 is long past too.
PXAT = "math.max(1, (struct.unpack('>i8', value, 9)))"
INDEX = f"""{LIST}
local now, hour, id = unpack(ARGV)
return list(KEYS[1], now, hour, id)
"""
INSERT = f"""{LIST}
local now, value, id = unpack(ARGV)
list(KEYS[2], now, struct.unpack('>I4', value, 33), id)
return redis.call('SET', KEYS[1], value, 'NX', 'PXAT', {PXAT}) and 1
"""
REPLACE = f"""{LIST}
local now, value, id, version = unpack(ARGV)
local mark = string.sub(value, 33, 38 + struct.unpack('>I2', value, 37))
local head = redis.call('GETRANGE', KEYS[1], 0, 31 + #mark)
if #head < 38 or struct.unpack('>i8', head, 9) <= tonumber(now) then return nil end
if string.sub(head, 1, 8) ~= version then return redis.call('GET', KEYS[1]) end
if KEYS[2] and string.sub(head, 33) ~= mark then list(KEYS[2], now, struct.unpack('>I4', mark), id) end
redis.call('SET', KEYS[1], value, 'PXAT', {PXAT})
return 1
"""
TOUCH = f"""{LIST}
local now, times, pxat, hour, user, id = unpack(ARGV)
local head = redis.call('GETRANGE', KEYS[1], 0, 37)
if #head < 38 or struct.unpack('>i8', head, 9) <= tonumber(now) then return nil end
local length = struct.unpack('>I2', head, 37)
if length > 0 and string.sub(head, 33, 36) ~= hour then
    local stored = redis.call('GETRANGE', KEYS[1], 38, 37 + length)
    if stored ~= user then return stored end
    list(KEYS[2], now, struct.unpack('>I4', hour), id)
    redis.call('SETRANGE', KEYS[1], 32, hour)
end
redis.call('SETRANGE', KEYS[1], 8, times)
redis.call('PEXPIREAT', KEYS[1], pxat)
return 1
"""
SHA = {script: sha1(script.encode(), usedforsecurity=False).hexdigest() for script in (INSERT, REPLACE, TOUCH)}


def pack(record: Record) -> bytes:
    """The value stored under the record's key."""
    user = (record.user_id or "").encode()
    expires, updated, created = to_epoch(record.expires_at), to_epoch(record.updated_at), to_epoch(record.created_at)
    indexed = _hour(expires) if user else 0
    return HEADER.pack(record.version, expires, updated, created, indexed, len(user)) + user + record.payload


def unpack(id: str, value: bytes) -> Record:
    """The reverse of `pack()`."""
    version, expires, updated, created, _, length = HEADER.unpack_from(value)
    payload_at = HEADER.size + length
    user_id = value[HEADER.size : payload_at].decode() or None
    return Record(
        id, value[payload_at:], user_id, from_epoch(created), from_epoch(updated), from_epoch(expires), version
    )


class RedisStorage:
    """Constructed with `redis.Redis` or `redis.asyncio.Redis`, of a pool that does not decode responses."""

    expires_itself = True

    def __init__(self, client: Any) -> None:
        self.client = client
        self.wire = redis_wire.Wire(client)

    async def read(self, id: str) -> Record | None:
        return _live(id, await self._send("GET", f"{conf.KEY_PREFIX}:{id}"))

    async def insert(self, record: Record) -> bool:
        if record.user_id is not None:
            return bool(await self._write(INSERT, record, once=True) == SAVED)
        pxat = _pxat(to_epoch(record.expires_at))
        return bool(await self._send("SET", self._key(record.id), pack(record), "NX", "PXAT", pxat, once=True))

    async def replace(self, record: Record) -> Record | None:
        answer = await self._write(REPLACE, record, struct.pack(">Q", record.version - 1))
        return record if answer == SAVED else _live(record.id, answer)

    async def touch(self, id: str, expires_at: datetime) -> bool:
        key, now, expires = self._key(id), epoch_now(), to_epoch(expires_at)
        times, hour = struct.pack(">qq", expires, now), struct.pack(">I", _hour(expires))
        arguments = [now, times, _pxat(expires), hour]
        answer = await self._run(TOUCH, [key], *arguments, b"")
        if isinstance(answer, bytes):  # whose it is, since the hour is a new one: its name makes that of the set
            keys = [key, self._user_key(answer.decode())]
            answer = await self._run(TOUCH, keys, *arguments, answer, bytes.fromhex(id))
        return bool(answer == SAVED)

    async def remove(self, ids: Iterable[str]) -> int:
        keys = [self._key(id) for id in ids]
        return int(await self._send("DEL", *keys, once=True)) if keys else 0

    async def of_user(self, user_id: str) -> list[Record]:
        now = f"({epoch_now() / HOUR}"
        ids = await self._ask(self.client.zrange, self._user_key(user_id), now, "+inf", byscore=True)
        records = await self._read_all([id.hex() for id in ids])
        return [record for record in records if record.user_id == user_id]

    async def scan(self, after: str | None, limit: int) -> Page:
        """A page in the order of SCAN: `next` is its cursor, a page may be a little longer than `limit` or repeat a
        record that moved, and misses none that was there all the time. Among much else it may be empty."""
        cursor, ids, match = int(after or 0), list[str](), self._key("?" * ID_LENGTH, escape=True)
        for _ in range(MOST_SCANS):
            cursor, keys = await self._ask(self.client.scan, cursor, match=match, count=limit)
            ids = [id for key in keys if ":" not in (id := key.decode()[-ID_LENGTH:])]  # else it is a user's set
            if ids or not cursor:
                break
        return Page(await self._read_all(ids), next=str(cursor) if cursor else None)

    async def purge(self, before: datetime, limit: int) -> int:
        """Trim members that expired before then from the users' sets."""
        removed, cursor, match = 0, 0, self._user_key("*", escape=True)
        while removed < limit:
            cursor, keys = await self._ask(self.client.scan, cursor, match=match, count=SCAN_COUNT)
            removed += await self._trim(keys, before, limit - removed)
            if not cursor:
                break
        return removed

    async def index(self, records: Iterable[Record]) -> int:
        """List records under their users where they are not, and count them. No verb: other servers lose no index."""
        pipeline = self.client.pipeline(transaction=False)
        for record in records:
            if record.user_id is not None:
                listed = epoch_now(), _hour(to_epoch(record.expires_at)), bytes.fromhex(record.id)
                pipeline.eval(INDEX, 1, self._user_key(record.user_id), *listed)
        return sum(await self._ask(pipeline.execute))

    async def may_miss(self, user_id: str) -> bool:
        """Whether the index may lack sessions of the user: it is not there, or Redis has evicted some. No verb."""
        with suppress(EngineUnavailable):  # an ACL without INFO, say: it may, then
            pipeline = self.client.pipeline(transaction=False)
            pipeline.info("stats")
            pipeline.zrange(self._user_key(user_id), 0, 0)
            stats, listed = await self._ask(pipeline.execute)
            return stats.get("evicted_keys") != 0 or not listed
        return True

    def close(self) -> None:
        run_sync(self.wire.close())
        self.client.close()  # a cache alias's client shares its pool with the cache, and leaves that open

    async def aclose(self) -> None:
        await self.wire.close()
        await redis_clients.aclose(self.client)

    async def _trim(self, keys: list[bytes], before: datetime, limit: int) -> int:
        until, found = f"({to_epoch(before) / HOUR}", self.client.pipeline(transaction=False)
        for key in keys:
            found.zrange(key, "-inf", until, byscore=True, offset=0, num=limit)
        expired = zip(keys, await self._ask(found.execute), strict=True)
        pipeline = self.client.pipeline(transaction=False)
        for key, ids in expired:
            if ids := ids[:limit]:
                pipeline.zrem(key, *ids)
                limit -= len(ids)
        return sum(await self._ask(pipeline.execute))

    async def _read_all(self, ids: list[str]) -> list[Record]:
        pipeline = self.client.pipeline(transaction=False)
        for id in ids:
            pipeline.get(self._key(id))
        values = await self._ask(pipeline.execute)
        return [record for id, value in zip(ids, values, strict=True) if (record := _live(id, value))]

    async def _write(self, script: str, record: Record, *arguments: object, once: bool = False) -> Any:
        keys, member = [self._key(record.id)], b""
        if record.user_id is not None:
            keys.append(self._user_key(record.user_id))
            member = bytes.fromhex(record.id)
        return await self._run(script, keys, epoch_now(), pack(record), member, *arguments, once=once)

    async def _run(self, script: str, keys: list[str], *arguments: object, once: bool = False) -> Any:
        try:
            return await self._send("EVALSHA", SHA[script], len(keys), *keys, *arguments, once=once)
        except redis.exceptions.NoScriptError:  # a new or restarted server; EVAL makes it known
            return await self._send("EVAL", script, len(keys), *keys, *arguments, once=once)

    async def _send(self, *command: Any, once: bool = False) -> Any:
        try:
            return await self.wire.execute(*command, once=once)
        except redis.exceptions.NoScriptError:
            raise
        except (redis.RedisError, OSError) as error:
            raise EngineUnavailable(f"Redis: {error}") from error

    async def _ask(self, command: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """As `_send()`, for what the client makes of more than one command, or of an answer."""
        try:
            return await self.wire.run(command, *arguments, **options)
        except (redis.RedisError, OSError) as error:
            raise EngineUnavailable(f"Redis: {error}") from error

    def _key(self, id: str, escape: bool = False) -> str:
        return f"{_escaped(conf.KEY_PREFIX) if escape else conf.KEY_PREFIX}:{id}"

    def _user_key(self, user_id: str, escape: bool = False) -> str:
        return self._key(f"user:{user_id}", escape)


def _live(id: str, value: bytes | None) -> Record | None:
    """The record, unless its time is up by our clock, which may be ahead of the server's."""
    if value is None:
        return None
    try:
        return unpack(id, value) if EXPIRES_AT.unpack_from(value)[0] > epoch_now() else None
    except (struct.error, ValueError, OverflowError):
        base.logger.warning("Session record corrupted (id %s).", id)
        return None


def _hour(milliseconds: int) -> int:
    """The hour since 1970 in which the moment lies, rounded up; none before 1970."""
    return max(0, -(-milliseconds // HOUR))


def _pxat(milliseconds: int) -> int:
    return max(1, milliseconds)


def _escaped(text: str) -> str:
    return "".join(f"[{each}]" if each in "*?[" else each for each in text)


connections = Connections(
    lambda: RedisStorage(redis_clients.configured()),
    lambda storage: RedisStorage(redis_clients.asynchronous(storage.client)),
    settings={"CACHES", "SESSION_CACHE_ALIAS", "MULTISESSION_REDIS", "MULTISESSION_TIMEOUT"},
)


class SessionStore(base.SessionStore):
    """`SESSION_ENGINE = "django_multisession.backends.redis"`"""

    @classproperty
    def storage(cls) -> RedisStorage:
        return connections.sync()

    @classproperty
    def astorage(cls) -> RedisStorage:
        return connections.running()
