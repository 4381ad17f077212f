"""Sessions that are on the old side, as records: what `SessionStore` needs to use one there, and to send it back there.

Such a record is in memory only. Its version is `THERE` and more, so that a save of it is told from one of a record in
`to`, whatever the numbers of both are. Of an engine of this package it is otherwise the record as it is stored. Of
another its payload is `PLAIN` and a pickle of the data: what that engine takes, `SESSION_SERIALIZER` or
`MULTISESSION_MAX_BYTES` may not take.
"""

import dataclasses
import pickle
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.utils.dateparse import parse_datetime

from ...payload import codecs
from ...records import Record, from_epoch, in_milliseconds, utcnow
from ...user_sessions.devices import LOGIN_AT_KEY

THERE = 1 << 62  # more than any session is saved, and less than a server's integers hold
PLAIN = b"\0"  # no header of codecs.py
EXPIRY_KEY = "_session_expiry"  # Django's: seconds since the last save, or an ISO text


class Plain:
    """A `SESSION_SERIALIZER` of memory: its bytes never leave the process that made them."""

    def dumps(self, data: dict[str, Any]) -> bytes:
        return pickle.dumps(data, pickle.HIGHEST_PROTOCOL)

    def loads(self, body: bytes) -> Any:
        return pickle.loads(body)  # noqa: S301  made by this process, of what the old engine had loaded


def is_there(record: Record) -> bool:
    return record.version >= THERE


def is_plain(record: Record) -> bool:
    return record.payload[:1] == PLAIN


def as_there(record: Record) -> Record:
    """A record of the old side's own storage, for a `SessionStore`."""
    return dataclasses.replace(record, version=record.version + THERE)


def as_stored(record: Record) -> Record:
    """The reverse of `as_there()`."""
    return dataclasses.replace(record, version=record.version - THERE)


def plain(data: dict[str, Any]) -> bytes:
    return PLAIN + Plain().dumps(data)


def data_of(record: Record, serializer: type) -> dict[str, Any]:
    """The data of a record of either kind. Raises `PayloadUnreadable`."""
    if is_plain(record):
        return dict(Plain().loads(record.payload[1:]))
    return codecs.decode(record.payload, record.id, serializer)


def record_of(id: str, data: dict[str, Any], expires_at: datetime, version: int = THERE) -> Record:
    """The record of a session of another engine: the log-in and the last save where they can be told, else now."""
    now = utcnow()
    updated_at = _updated_at(data, expires_at, now)
    user_id = data.get(SESSION_KEY)
    return Record(
        id=id,
        payload=plain(data),
        user_id=None if user_id in (None, "") else str(user_id),
        created_at=signed_in_at(data) or now,
        updated_at=updated_at,
        expires_at=expires_at,
        version=version,
    )


def signed_in_at(data: dict[str, Any]) -> datetime | None:
    """The log-in, to the second, where the data say it (see `devices.py`)."""
    seconds = data.get(LOGIN_AT_KEY)
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < 1 << 33:
        return from_epoch(int(seconds * 1000))
    return None


def age_of(data: dict[str, Any]) -> timedelta | datetime:
    """How long the session lives from its last save on, or the moment of its end."""
    expiry = data.get(EXPIRY_KEY)
    if isinstance(expiry, str):
        expiry = parse_datetime(expiry)
    if isinstance(expiry, datetime):
        return in_milliseconds(expiry)
    return timedelta(seconds=expiry or settings.SESSION_COOKIE_AGE)


def _updated_at(data: dict[str, Any], expires_at: datetime, now: datetime) -> datetime:
    age = age_of(data)
    return now if isinstance(age, datetime) else min(now, expires_at - age)
