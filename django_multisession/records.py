"""`Record`: the only thing that crosses the border between a `SessionStore` and a server."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from django.contrib.sessions.backends.base import VALID_KEY_CHARS

KEY_LENGTH = 32  # characters, as Django's: 165 bits
LETTERS = (VALID_KEY_CHARS * 8)[:256].encode()  # what each random byte becomes
UNFAIR = bytes(range(256 - 256 % len(VALID_KEY_CHARS), 256))  # these would favour the first letters

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
_from_timestamp = datetime.fromtimestamp
NO_SESSION = 0x83  # of a payload's header: of this package (see codecs.py), and of a kind that no session has
EXACT = 1 << 42  # milliseconds, until 2109: up to there a float of seconds keeps whole microseconds, and is faster


@dataclass(frozen=True, init=False)
class Record:
    """A session as a server keeps it. Times are aware, in UTC, in whole milliseconds (MongoDB keeps no finer ones)."""

    id: str  # identify(session_key), never the key itself
    payload: bytes  # what codecs.close() made of the data
    user_id: str | None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    version: int  # 1 when inserted, one more with each replace

    def __init__(
        self,
        id: str,
        payload: bytes,
        user_id: str | None,
        created_at: datetime,
        updated_at: datetime,
        expires_at: datetime,
        version: int,
    ) -> None:
        # As the one that dataclasses makes, which sets a frozen instance's fields one by one and takes thrice as long.
        self.__dict__.update(
            id=id,
            payload=payload,
            user_id=user_id,
            created_at=created_at,
            updated_at=updated_at,
            expires_at=expires_at,
            version=version,
        )

    def is_live(self, now: datetime) -> bool:
        return self.expires_at > now

    def is_same(self, other: "Record") -> bool:
        """Of two records of one session: whether nobody has saved it in between. A touch is no save."""
        return (self.version, self.payload) == (other.version, other.payload)

    @property
    def is_mark(self) -> bool:
        """No session, but what became of one (see `rotation.py`): the header of its payload says so."""
        return self.payload[:1] != b"" and self.payload[0] & NO_SESSION == NO_SESSION


def new_session_key() -> str:
    """Random letters and digits. Django's `get_random_string()` asks the system for each: longer than a save takes."""
    return os.urandom(2 * KEY_LENGTH).translate(LETTERS, UNFAIR)[:KEY_LENGTH].decode()


def identify(session_key: str) -> str:
    """The id at rest of a session key: its SHA-256 in hex, so that a stolen store opens no session."""
    return sha256(session_key.encode("utf-8", "surrogatepass")).hexdigest()


def utcnow() -> datetime:
    """Now, in the form that a `Record` keeps."""
    return from_epoch(epoch_now())


def epoch_now() -> int:
    """Now, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def in_milliseconds(moment: datetime) -> datetime:
    """The moment in UTC, cut to whole milliseconds. A naive one is local time, as with `USE_TZ = False`."""
    if moment.tzinfo is UTC and moment.microsecond % 1000 == 0:
        return moment
    try:
        moment = moment.astimezone(UTC)
    except (OverflowError, ValueError):  # the first or last day of the calendar: "never expires" as datetime.max
        moment = moment.replace(tzinfo=UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def to_epoch(moment: datetime) -> int:
    """Milliseconds since 1970 of an aware datetime."""
    return (moment - EPOCH) // MILLISECOND


def from_epoch(milliseconds: int) -> datetime:
    """The reverse of `to_epoch()`."""
    if 0 <= milliseconds < EXACT:
        return _from_timestamp(milliseconds / 1000, UTC)
    return EPOCH + timedelta(milliseconds=milliseconds)


class Page(list[Record]):
    """A page of `Storage.scan()`, and the `after` of the `next` one (`None`: this was the last). Marks are left out."""

    def __init__(self, records: Iterable[Record] = (), next: str | None = None) -> None:
        super().__init__(record for record in records if not record.is_mark)
        self.next = next
