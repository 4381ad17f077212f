"""What comes from Redis: the one place that makes a record of it, or nothing. The format is in `storage.py`.

Anything may be stored there, by anybody, and an answer may be one to another question. `Impossible` is raised then.
"""

import logging
import re
import struct
from collections.abc import Iterable
from typing import Any

import redis

from ...records import Record, epoch_now, from_epoch, to_epoch
from .failures import Impossible
from .scripts import NO_SET, SAVED

HEADER = struct.Struct(">QqqqIH")
TIMES = struct.Struct(">qq")  # expires_at, updated_at
INDEXED = slice(32, 36)
HOUR = 3_600_000  # milliseconds
ID_LENGTH = 64
ID = re.compile(b"[0-9a-f]{64}")
MEMBER_LENGTH = 32  # bytes: an id in a user's set
NO_MORE_VERSIONS = 2**64 - 1  # of which no next one can be written: nobody has saved a session that often


logger = logging.getLogger("django.security.SuspiciousSession")


def pack(record: Record) -> bytes:
    """The value stored under the record's key. The scripts put the hour into it under which they have listed it."""
    user = (record.user_id or "").encode()
    expires, updated, created = to_epoch(record.expires_at), to_epoch(record.updated_at), to_epoch(record.created_at)
    indexed = max(0, -(-expires // HOUR)) + 1 if user else 0
    return HEADER.pack(record.version, expires, updated, created, indexed, len(user)) + user + record.payload


def unpack(id: str, value: Any, now: int = 0) -> Record | None:
    """The reverse of `pack()`, or nothing if its time is up by our clock, which may be ahead of the server's.

    Raises `Impossible` for whatever `pack()` has not made: it may be anything.
    """
    try:
        version, expires, updated, created, _, length = HEADER.unpack_from(value)
        payload_at = HEADER.size + length
        user_id = value[HEADER.size : payload_at].decode() or None
        if len(value) < payload_at or version == NO_MORE_VERSIONS or expires < 0 or updated < 0 or created < 0:
            raise Impossible
        times = from_epoch(created), from_epoch(updated), from_epoch(expires)
    except (struct.error, ValueError, OverflowError, TypeError) as error:
        raise Impossible from error
    return Record(id, value[payload_at:], user_id, *times, version) if expires > now else None


def live(id: str, value: Any) -> Record | None:
    return None if value is None else unpack(id, value, epoch_now())


def is_the_same(value: Any, sent: bytes) -> bool:
    """Whether what is stored is what was sent, but for the hour that the script puts in."""
    return isinstance(value, bytes) and value[: INDEXED.start] + value[INDEXED.stop :] == (
        sent[: INDEXED.start] + sent[INDEXED.stop :]
    )


def record(id: str, value: Any) -> Record | Impossible | None:
    """For one of many."""
    if value is None or isinstance(value, Impossible):
        return value
    try:
        return unpack(id, value)
    except Impossible as error:
        return error


def held(sent: Record, answer: Any) -> Record | None:
    """What a REPLACE of the record says that there is now."""
    if isinstance(answer, bytes):
        return live(sent.id, answer)
    return sent if done(answer) else None


def done_or_user(answer: Any) -> bool | str:
    """What a TOUCH says: whether there was something to touch, or whose index is to be written."""
    try:
        return answer.decode() if isinstance(answer, bytes) else done(answer)
    except UnicodeDecodeError as error:
        raise Impossible from error


def done(answer: Any) -> bool:
    if answer is not None and (type(answer) is not int or answer != SAVED):
        raise Impossible
    return answer is not None


def was_set(answer: Any) -> bool:
    if answer not in (None, False, True, b"OK") or type(answer) is int:  # True: what a client makes of OK
        raise Impossible
    return bool(answer)


def number(answer: Any) -> int:
    if type(answer) is not int:
        raise Impossible
    return answer


def two_numbers(answer: Any) -> tuple[int, int]:
    try:
        first, second = answer
        return int(first), int(second)
    except (TypeError, ValueError) as error:
        raise Impossible from error


def value(answer: Any) -> bytes | None:
    if not isinstance(answer, bytes | None):
        raise Impossible
    return answer


def members(answer: Any) -> list[bytes]:
    if not isinstance(answer, list) or not all(isinstance(each, bytes) for each in answer):
        raise Impossible
    return answer


def cursor_and_keys(answer: Any) -> tuple[int, list[bytes]]:
    try:
        cursor, keys = answer
        return int(cursor), members(keys)
    except (TypeError, ValueError) as error:
        raise Impossible from error


def answer_or_impossible(answer: Any) -> Any:
    """An answer in a pipeline; errors are among them."""
    if not isinstance(answer, Exception):
        return answer
    if is_of_another_type(answer) or is_of_no_set(answer):
        return Impossible(str(answer))
    raise answer


def nothing(message: str, *arguments: object) -> Any:
    """What becomes of what is not ours."""
    logger.warning(message, *arguments)


def ids_of_keys(keys: Iterable[bytes]) -> list[str]:
    """Of the keys that have the length of a session's: a user's may have it too."""
    found = [key[-ID_LENGTH:] for key in keys]
    for id in found:
        if not ID.fullmatch(id) and not id.startswith(b"user:"):
            nothing("No session: %r.", id)
    return [id.decode() for id in found if ID.fullmatch(id)]


def ids_of_members(members: Iterable[bytes], user_id: str) -> list[str]:
    found = list(members)
    for member in found:
        if len(member) != MEMBER_LENGTH:
            nothing("Session index corrupted (user %s): %r.", user_id, member)
    return [member.hex() for member in found if len(member) == MEMBER_LENGTH]


def of_index(answer: Any, key: str | bytes, otherwise: Any) -> Any:
    """An answer about a user's set, one of many."""
    if isinstance(answer, Impossible):
        nothing("Session index corrupted (%r).", key)
        return otherwise
    return answer


def is_of_another_type(error: Exception) -> bool:
    """Whether there is something else than a string or a set under the key that a command was for."""
    return isinstance(error, redis.ResponseError) and "WRONGTYPE" in str(error)  # before 7.0 within a script's error


def is_of_no_set(error: Exception) -> bool:
    """The same of a user's key in a script."""
    return isinstance(error, redis.ResponseError) and NO_SET in str(error)
