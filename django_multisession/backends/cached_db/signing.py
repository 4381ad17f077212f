"""The signature of a copy in Redis, which makes it this site's, of one session and of one moment::

    copy     "c" | MAC (16) | moment of the lease i64 | the record, as `backends.redis` packs it

The MAC is keyed BLAKE2b, under a key of its own derived from `SECRET_KEY`, of the database's alias (and a tenant's
schema), the id, and all that is behind the MAC: so a copy opens for its own session alone, and not for longer than its
age.
"""

import hmac
import struct
from functools import lru_cache
from hashlib import blake2b, sha256
from typing import NamedTuple

from django.conf import settings
from django.utils.encoding import force_bytes

from ...conf import secret_key
from ...records import Record, epoch_now
from ..redis import answers
from ..redis.failures import Impossible

COPY, MAC_SIZE = b"c", 16  # bytes
MOMENT = struct.Struct(">q")  # milliseconds since 1970
SIGNED_AT = 1 + MAC_SIZE


class Refused(NamedTuple):
    """What is no copy of this session that may be used, or not any more."""


REFUSED = Refused()


def seal(place: str, record: Record, moment: int) -> bytes:
    signed = MOMENT.pack(moment) + answers.pack(record)
    return COPY + _finished(begun(place, record.id), signed) + signed


def unseal(mac: blake2b, id: str, copy: bytes, age: float) -> Record | Refused:
    """The record, unless it is older than `age`, in milliseconds. Raises `Impossible` for what this site has not made
    of this session. `mac` is what `begun()` gives.

    A moment that is ahead is another host's clock, and no more ahead than a copy may be old.
    """
    signed = copy[SIGNED_AT:]
    if copy[:1] != COPY or len(signed) < MOMENT.size:
        raise Impossible
    if not hmac.compare_digest(copy[1:SIGNED_AT], _finished(mac, signed)):
        raise Impossible
    now = epoch_now()
    if abs(now - MOMENT.unpack_from(signed)[0]) >= age:
        return REFUSED
    return answers.unpack(id, signed[MOMENT.size :], now) or REFUSED


def is_of_fallback(place: str, id: str, copy: bytes) -> bool:
    """While a new `SECRET_KEY` is deployed, others sign with what is a fallback here: nothing that the log need say."""
    macs = (_finished(begun(place, id, secret), copy[SIGNED_AT:]) for secret in settings.SECRET_KEY_FALLBACKS)
    return any(hmac.compare_digest(copy[1:SIGNED_AT], mac) for mac in macs)


def begun(place: str, id: str, secret: str | bytes | None = None) -> blake2b:
    """The MAC of a copy, but for what is behind it. BLAKE2 takes a key itself, and half the time that an HMAC does."""
    key = _signing_key(secret_key() if secret is None else secret)
    return blake2b(f"{place}\0{id}\0".encode(), digest_size=MAC_SIZE, key=key)


def _finished(mac: blake2b, signed: bytes) -> bytes:
    mac.update(signed)
    return mac.digest()


@lru_cache(maxsize=16)
def _signing_key(secret: str | bytes) -> bytes:
    return sha256(b"django_multisession.cached_db.copy\0" + force_bytes(secret)).digest()
