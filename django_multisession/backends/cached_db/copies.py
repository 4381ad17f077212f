"""Copies of records in Redis, which may vanish at any time, and the leases that they are stored under.

One STRING per session that was read, at `<prefix>:copy:<id>`: a lease, or the copy that took its place::

    lease    "l" | token (16 random bytes), for MULTISESSION_TIMEOUT
    copy     "c" | MAC (16) | moment of the lease i64 | the record, as `backends.redis` packs it

A copy lives for MULTISESSION_CACHE_AGE from the moment of its lease, which is signed with the rest: see `signing.py`.

    take     SET <key> <lease> NX GET PX <ms>; the copy, or nothing and the lease is there (before Redis 7, and where
             the client makes a boolean of the answer: EVALSHA TAKE)
    fill     EVALSHA FILL <key> <lease> <copy> <ms>: put the copy in the place of the lease, if that is there
    forget   DEL <key>; of several: one DEL each, in one pipeline

Redis that cannot be reached is asked again after `PAUSE`, by one request at a time; see `Outage`.
"""

import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b, sha1
from itertools import islice
from math import ceil
from threading import Lock
from time import monotonic
from typing import Any, NamedTuple

import redis

from ...conf import conf
from ...exceptions import EngineUnavailable
from ...records import Record, epoch_now
from ..redis import answers, clients
from ..redis.cluster_clients import is_cluster
from ..redis.cluster_commands import ClusterCommands
from ..redis.failures import MISREAD, Impossible
from ..redis.pool import Commands, Pool
from ..redis.storage import GLOB
from .outage import TELLING, Outage
from .signing import REFUSED, Refused, begun, is_of_fallback, seal, unseal

LEASE, TOKEN_SIZE = b"l", 16  # bytes
AT_ONCE = 500  # DELs in one trip, after which an event loop goes on with others
OFTEN = 3  # then it is this client's way, and not that of one command which came again on a new connection
TIME_OUTS = "socket_timeout", "socket_connect_timeout"  # of which redis-py has none before 8.0
LEASE_SIZE = 1 + TOKEN_SIZE

# As the protocol has it, for a key's length, key, and lease; the milliseconds follow. hiredis takes five times as long.
SET = b"*7\r\n$3\r\nSET\r\n$%%d\r\n%%b\r\n$%d\r\n%%b\r\n$2\r\nNX\r\n$3\r\nGET\r\n$2\r\nPX\r\n" % LEASE_SIZE

TAKE = """
local held = redis.call('GET', KEYS[1])
if not held then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return held
"""
FILL = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
# Each hot read brings a token of its own, and a call of the kernel for it takes 3 % of the read.
DRAWN = 256
# Of this process, since a forked one has its parent's, whether or not the server that forks tells Python.
_leases: dict[int, deque[bytes]] = {}

SHA = {script: sha1(script.encode(), usedforsecurity=False).hexdigest() for script in (TAKE, FILL)}


class Lease(NamedTuple):
    """The right to store a copy, which whoever changes the session takes away."""

    value: bytes
    moment: int  # milliseconds since 1970, by this host's clock
    since: float  # the same by a clock that nobody sets


class Copies:
    """Over the process's synchronous client, or with `of` over the running event loop's."""

    def __init__(self, of: "Copies | None" = None) -> None:
        self._of = of
        self._commands: Any = None  # of one server, or of a cluster
        # Read once: with these settings this object changes too.
        self._prefix, self._age, self._lasting = _key(""), conf.CACHE_AGE * 1000, b"%d" % (conf.TIMEOUT * 1000)
        self._packed = SET + b"$%d\r\n%b\r\n" % (len(self._lasting), self._lasting)
        self._lock = Lock()
        self._in_vain = 0  # SET ... GET, one after the other
        self.outage: Outage = of.outage if of else Outage()

    async def take(self, place: str, id: str) -> Record | Lease | Refused | None:
        """The copy, or a lease; `None`: another has the lease, or Redis is away.

        All that a hot read costs is here: what only a miss needs is made after the answer, and no coroutine more.
        """
        if self.outage.is_known and not await self._may_read():
            return None
        value, since = _new_lease(), monotonic()
        meaning = Reading(place, id, self._age, value)
        try:
            commands = self._commands or self._opened()
            if self._in_vain < OFTEN:
                key = (self._prefix + id).encode()
                command = "SET", key, value, "NX", "GET", "PX", self._lasting
                packed = self._packed % (len(key), key, value)
                found = await commands.execute(command, meaning, packed=packed, meanwhile=meaning.begin)
            else:
                found = await self._run(TAKE, meaning, id, value, self._lasting)
        except BaseException as error:
            found = await self._take_after(error, meaning, id, value)
        else:
            if self._in_vain or self.outage.is_known:
                self._taken(found)
        return found if found is not value else _lease(value, since)

    async def fill(self, place: str, lease: Lease, record: Record) -> None:
        left = int((conf.CACHE_AGE - (monotonic() - lease.since)) * 1000)
        if left > 0:
            copy = seal(place, record, lease.moment)
            await self._fill(record.id, lease.value, copy, left)

    async def forget(self, ids: Iterable[str]) -> None:
        """Take copies and leases away. Where Redis is not told now, it is when it answers again; the copies that it
        has go on until then, or until they are too old."""
        keys = [_key(id) for id in ids]
        if self.outage.may_ask():
            await self._tell(keys)
        else:
            self.outage.untold(keys)

    def clear(self) -> None:
        """Take all away that lies under the prefix, whoever has stored it. What cannot be reached ends by its age."""
        if not self._commands or not self.outage.may_ask():
            return
        client, match = self._commands.client, GLOB.sub(r"\\\1", self._prefix) + "*"
        with suppress(redis.RedisError, OSError):
            for key in list(client.scan_iter(match=match, count=1000)):  # one by one: in a cluster their slots differ
                client.unlink(key)

    def ping(self) -> None:
        """Raises what the client does."""
        self._opened().client.ping()

    def close(self) -> None:
        if self._commands:
            self._commands.client.close()

    async def aclose(self) -> None:
        if self._commands:
            await clients.aclose(self._commands.client)

    async def _fill(self, id: str, *arguments: object) -> None:
        if not self.outage.may_ask():
            return
        try:
            await self._run(FILL, answers.number, id, *arguments)
        except BaseException as error:
            self._after("FILL", error)
        else:
            self.outage.answered("FILL")

    async def _tell(self, keys: list[str]) -> None:
        """Of these, and of what Redis has not heard yet."""
        try:
            with self.outage.telling(keys) as owed:
                if not owed:
                    return
                await self._forget(owed)
        except BaseException as error:
            self._after(TELLING, error)
        else:
            self.outage.answered(TELLING)

    async def _may_read(self) -> bool:
        """What changed while Redis could not be told may have copies there: it hears of that first."""
        if not self.outage.may_ask():
            return False
        if self.outage.has_untold:
            await self._tell([])
        return not self.outage.has_untold

    def _after(self, name: str, error: BaseException) -> Any:
        """What comes of an answer that was none. Raises what is no outage: a cancelled task's, a wrong setting's."""
        if isinstance(error, Impossible) and name != TELLING:
            return answers.nothing("Session copy refused: Redis has answered something else (%s).", name) or REFUSED
        if isinstance(error, redis.RedisError | EngineUnavailable | OSError):
            return self.outage.failed(name, error)
        self.outage.unknown()
        raise error

    async def _take_after(self, error: BaseException, meaning: Any, id: str, value: bytes) -> Any:
        """By the script, if it was SET ... NX GET that this client or server does not know."""
        if isinstance(error, redis.ResponseError) and "syntax" in str(error):
            self._in_vain = OFTEN
        elif isinstance(error, _Boolean):
            self._in_vain += 1
        else:
            return self._after("SET", error)
        try:
            found = await self._run(TAKE, meaning, id, value, self._lasting)
        except BaseException as error_of_script:
            return self._after("SET", error_of_script)
        self.outage.answered("SET")
        return found

    def _taken(self, found: Any) -> None:
        if self._in_vain < OFTEN and isinstance(found, Record):
            self._in_vain = 0
        self.outage.answered("SET")

    async def _run(self, script: str, meaning: Any, id: str, *arguments: object) -> Any:
        try:
            return await self._opened().execute(("EVALSHA", SHA[script], 1, _key(id), *arguments), meaning)
        except redis.exceptions.NoScriptError:  # a new or restarted server; EVAL makes it known
            return await self._opened().execute(("EVAL", script, 1, _key(id), *arguments), meaning)

    async def _forget(self, owed: dict[str, float]) -> None:
        """What was told is taken out. What fails of many is sent again as a single one is, over a new connection."""
        while keys := list(islice(owed, AT_ONCE)):
            for key in keys if len(keys) == 1 else await self._forget_together(owed, keys):
                await self._opened().execute(("DEL", key), answers.number)
                del owed[key]

    async def _forget_together(self, owed: dict[str, float], keys: list[str]) -> list[str]:
        """What is left of the keys. Not to be asked for again from a node that does not answer: each would be waited
        for."""
        try:
            found = await self._opened().all([("DEL", key) for key in keys])
        except (redis.ConnectionError, *MISREAD):
            return keys
        failed = {key: answer for key, answer in zip(keys, found, strict=True) if isinstance(answer, Exception)}
        for key in keys:
            until = owed.pop(key)
            if key in failed:
                owed[key] = until  # behind those that were not tried yet
        for answer in failed.values():
            if isinstance(answer, redis.TimeoutError):
                raise answer
        return list(failed)

    def _opened(self) -> Any:
        if self._commands is None:
            with self._lock:
                self._commands = self._commands or _commands_of(self._client())
        return self._commands

    def _client(self) -> Any:
        if self._of:
            return clients.asynchronous(self._of._opened().client)
        client = clients.configured()
        if isinstance(getattr(client, "connection_pool", None), Pool):  # which is the sessions' own; a cluster has none
            options = client.connection_pool.connection_kwargs
            options |= {name: conf.TIMEOUT for name in TIME_OUTS if options.get(name) is None}
        return client


def _commands_of(client: Any) -> Any:
    return ClusterCommands(client) if is_cluster(client) else Commands(client)


class _Boolean(Exception):
    """A client made one of the answer to SET ... GET, as redis-py does where it was not told of GET."""


def _key(id: str) -> str:
    return f"{conf.KEY_PREFIX}:copy:{id}"


class Reading:
    """What the answer means: the copy, or that very lease if it is there now. Raises `Impossible` for what is none."""

    __slots__ = ("_age", "_id", "_lease", "_mac", "_place")

    def __init__(self, place: str, id: str, age: float, lease: bytes) -> None:
        self._place, self._id, self._age, self._lease = place, id, age, lease
        self._mac: blake2b | None = None

    def begin(self) -> None:
        """What can be done before the answer is there: a hot read has time while the server works, and none after."""
        self._mac = begun(self._place, self._id)

    def __call__(self, answer: Any) -> Record | Refused | bytes | None:
        if answer is None or answer == self._lease:
            return self._lease
        if isinstance(answer, bool):
            raise _Boolean
        if not isinstance(answer, bytes):
            raise Impossible
        if len(answer) == LEASE_SIZE and answer[:1] == LEASE:
            return None
        mac, self._mac = self._mac or begun(self._place, self._id), None  # a hash is good for one
        try:
            return unseal(mac, self._id, answer, self._age)
        except Impossible:
            if is_of_fallback(self._place, self._id, answer):
                return REFUSED
            raise


def _new_lease() -> bytes:
    try:
        return _leases[os.getpid()].pop()  # which hands out each once, to whichever thread
    except (KeyError, IndexError):
        drawn = os.urandom(TOKEN_SIZE * DRAWN)
        leases = (LEASE + drawn[at : at + TOKEN_SIZE] for at in range(0, len(drawn), TOKEN_SIZE))
        _leases[os.getpid()] = deque(leases)
        return LEASE + os.urandom(TOKEN_SIZE)


def _lease(value: bytes, since: float) -> Lease:
    return Lease(value, epoch_now() - ceil((monotonic() - since) * 1000), since)
