"""Marks in `to`: what became of a session that is not there, and who has ended all sessions of a user.

Each is a record whose payload is of the kind `codecs.ROTATED`, so that it is in no list, and the new engine alone takes
it for missing. Under the id of a session its body says::

    ended      the session is over, whatever the old side still has; until no copy there can be live any more
    back       it was handed back to the old side, or is used there again
    <empty>    its key is being cycled (see rotation.py): `ended` in a moment

Under SHA-256("moved user" <user id>) and, of all users, SHA-256("moved everyone"), a body of JSON::

    {"at": <milliseconds since 1970>, "kept": <the id of the session that was kept, or null>, "password": <as "at">}

of which `at` ends what was signed in until then, and `password` what was, and has no log-in of today's password.

Under SHA-256("handing back" <id>) lies the claim of who hands a session back just now.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from django.conf import settings

from ...exceptions import PayloadUnreadable
from ...payload import codecs
from ...records import Record, from_epoch, to_epoch, utcnow
from ...user_sessions import rotation

ENDED, BACK, CLAIM, RETIRED = b"ended", b"back", b"claim", b""
OF_A_USER = timedelta(days=400)  # for longer no browser keeps a cookie


def mark(body: bytes, id: str, expires_at: datetime, version: int = 1) -> Record:
    return rotation.mark_under(id, body, expires_at, version)


def over(record: Record, body: bytes) -> Record:
    """The mark that takes a record's place, for as long as a copy elsewhere may live."""
    return mark(body, record.id, latest(record.expires_at), record.version + 1)


def latest(expires_at: datetime) -> datetime:
    """When the copy on the other side has surely expired. It may have been saved just now, and last longer."""
    return max(expires_at, utcnow() + timedelta(seconds=settings.SESSION_COOKIE_AGE))


def longest() -> datetime:
    """The same where nothing is known of it."""
    return latest(utcnow())


def body_of(record: Record | None) -> bytes | None:
    """What a mark says; `None` if it is none, or not of this site."""
    if record is None or not record.is_mark:
        return None
    try:
        return codecs.open_(record.payload, record.id)[0].body
    except PayloadUnreadable:
        return None


def gives_way(record: Record | None) -> bool:
    """Whether the old side has the session, if anyone has."""
    return record is None or body_of(record) == BACK


def is_ended(record: Record | None) -> bool:
    """A mark that cannot be read, its key being gone, was most likely that of an end."""
    return record is not None and record.is_mark and body_of(record) in (ENDED, None)


# Of a user


def user_mark_id(user_id: str | None) -> str:
    """`None`: of all users."""
    return sha256(b"moved everyone" if user_id is None else b"moved user" + user_id.encode()).hexdigest()


def claim(id: str) -> Record:
    """A mark under which whoever hands a session back is alone; it outlasts a request, and no more."""
    return mark(CLAIM, sha256(b"handing back" + id.encode()).hexdigest(), utcnow() + rotation.MARK_AGE)


@dataclass(frozen=True)
class End:
    """What a user mark says."""

    at: datetime | None = None
    kept: str | None = None
    password: datetime | None = None

    @classmethod
    def of(cls, record: Record | None) -> "End":
        said: dict[str, Any] = json.loads(body_of(record) or b"{}")
        at, password = (said[name] and from_epoch(said[name]) if said else None for name in ("at", "password"))
        return cls(at, said.get("kept"), password)

    def mark(self, user_id: str | None, version: int) -> Record:
        times = {name: moment and to_epoch(moment) for name, moment in (("at", self.at), ("password", self.password))}
        body = json.dumps({**times, "kept": self.kept}).encode()
        return mark(body, user_mark_id(user_id), utcnow() + OF_A_USER, version)

    def ends(self, record: Record, signed_in_at: datetime | None) -> bool:
        """`signed_in_at` is known to the second only: that of the end itself is over."""
        return self.at is not None and record.id != self.kept and (signed_in_at is None or signed_in_at <= self.at)

    def may_end(self, signed_in_at: datetime | None) -> bool:
        """Unless it has a log-in of today's password."""
        return self.password is not None and (signed_in_at is None or signed_in_at <= self.password)
