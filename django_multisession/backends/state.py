"""What a session knows of itself without asking a store: its record, and how that and the session's data become one
another. `SessionStore` in `base.py` is this and all that asks a store.
"""

import logging
import re
from datetime import datetime
from typing import Any

from django.contrib.auth import SESSION_KEY as USER_ID_KEY
from django.contrib.sessions.backends.base import SessionBase

from .. import limits
from ..conf import conf
from ..exceptions import PayloadUnreadable, SessionConflict, SessionEnded, SessionNotSerializable
from ..payload import codecs, merging
from ..records import Record, identify, in_milliseconds, utcnow
from ..twins import SYNC, Face
from ..user_sessions import devices, lifecycle, rotation

USER_ID_LENGTH = 255  # characters: a user id is an indexed column in SQL, and a part of a key's name in Redis
GONE = "The session was deleted by another request: the user may have signed out."
AGAIN = "again"  # what a draft of change() does on a conflict
UNSTORABLE = re.compile("[\0\ud800-\udfff]")

logger = logging.getLogger("django.security.SuspiciousSession")


def user_id_in(data: dict[str, Any]) -> str | None:
    """Whose session it is, by its data."""
    user_id = data.get(USER_ID_KEY)
    return None if user_id is None or user_id == "" else str(user_id)


def check_user_id(user_id: str | None) -> str | None:
    """Raises `SessionNotSerializable` for what no store can take."""
    if user_id is not None and len(user_id) > USER_ID_LENGTH:
        raise SessionNotSerializable(USER_ID_KEY) from ValueError(f"over {USER_ID_LENGTH} characters")
    if user_id is not None and not user_id.isprintable() and UNSTORABLE.search(user_id):
        raise SessionNotSerializable(USER_ID_KEY) from ValueError("a NUL or half of a surrogate pair")
    return user_id


class Overtaken(Exception):
    """Another request has saved `held`, under this `session_key` by now, before a draft of `change()` was saved."""

    def __init__(self, session_key: str | None, held: Record) -> None:
        super().__init__()
        self.session_key, self.held = session_key, held


class SessionState(SessionBase):
    _session_cache: dict[str, Any]  # SessionBase's
    _record: Record | None = None  # as last read or written: what the next save follows
    _base: Record | None = None  # as last read or surely written: what a merge goes by
    _serialized: codecs.Serialized | None = None  # its data: what a save is compared with
    _identified: tuple[str | None, str] = (None, "")  # the session key that was hashed last, and its id
    _committed = True  # False: written in a transaction that may yet be rolled back
    _changes: tuple[lifecycle.Change, ...] = ()  # of the session's user, not seen to yet
    _watched = False  # set by the middleware, for MULTISESSION_ON_CLIENT_CHANGE: who loads it is compared
    _authenticates = True  # False: within not_an_authentication()
    _login: devices.Login | None = None  # by login(), not saved yet
    _flushed: Record | None = None  # what a flush has removed
    _ended: str | None = None  # the id of what this object itself has removed
    _rotated_in: dict[str, Any] | None = None  # the log-in with which the key was cycled, a mark being left
    _link: dict[str, Any] = {}  # what the data of a copy say of their original
    _silent = False  # the last save has asked the store for nothing, so it may have missed that the key was cycled
    _face: Face = SYNC  # of the public method at work
    _on_conflict: str | None = None  # instead of what the site has chosen: in a draft of change()

    def _note(self, record: Record, before: str | None, now: str | None) -> None:
        login, self._login = self._login, None
        if login and not login.is_one and before != now:
            now = None  # nobody has signed in
        if before != now:
            self._changes += (lifecycle.Change(record, before, now),)

    def _forget(self, id: str) -> None:
        """This object has removed a record: a save of it need not ask."""
        self._ended = id
        if self._record and self._record.id == id:
            self._record = self._base = self._serialized = None

    def _leave(self) -> None:
        """The session has been ended, and this object holds nothing of it any more."""
        self.clear()
        self._session_key = None

    def _id_of(self, session_key: str) -> str:
        key, id = self._identified  # hashing takes longer, and a save asks again for what the load did
        if key != session_key:
            self._identified = session_key, id = session_key, identify(session_key)
        return id

    # Conflicts

    def _resolve(self, held: Record, rotated: bool = False) -> Record:
        """Another request has saved: do as the site has chosen, and go on from what the store holds.

        `rotated`: under another key, which is no conflict by itself.
        """
        on_conflict = self._on_conflict or conf.ON_CONFLICT
        if on_conflict == AGAIN:
            raise Overtaken(self.session_key, held)
        if on_conflict == "raise" and not (rotated and self._only_rotated(held)):
            raise SessionConflict(self._session_cache, self._data_of(held) or {})
        if rotated or on_conflict == "merge":
            self._merge(held, by_rules=on_conflict == "merge")
        self._record = self._base = held
        self._serialized, self._committed = None, True
        return held

    def _seen_again(self, held: Record | None) -> None:
        """What this object wrote was rolled back, and others may have saved since: a touch is no conflict."""
        if held and not (self._base and held.is_same(self._base)):
            self._resolve(held)
        else:
            self._record, self._serialized, self._committed = held, None, True

    def _only_rotated(self, held: Record) -> bool:
        before, after = (self._data_of(each) or {} for each in (self._base, held))
        return rotation.without_log_in(before) == rotation.without_log_in(after)

    def _merge(self, held: Record, by_rules: bool) -> None:
        if held.user_id != self._user_id():
            raise SessionEnded("The session was saved with another user meanwhile.")
        if (stored := self._data_of(held)) is not None:  # else it is of no use to anybody
            loaded = self._data_of(self._base) or {}
            merging.adopt(loaded, self._session_cache, stored, self.serializer, by_rules)

    # From session data to record, and back

    def _next_record(self, stored: Record, serialized: codecs.Serialized) -> Record:
        goes_on = devices.user_before(self, stored) == self._user_id()
        created_at = stored.created_at if goes_on else devices.since(self)
        return self._new_record(stored.id, serialized, created_at, stored)

    def _new_record(
        self, id: str, serialized: codecs.Serialized, created_at: datetime | None, stored: Record | None = None
    ) -> Record:
        now = utcnow()
        return Record(
            id=id,
            payload=self._close(serialized, id),
            user_id=self._user_id(),
            created_at=created_at or now,
            updated_at=now,
            expires_at=self._expires_at(created_at or now, now, stored),
            version=stored.version + 1 if stored else 1,
        )

    def _close(self, serialized: codecs.Serialized, id: str) -> bytes:
        return codecs.close(serialized, id)

    def _open(self, record: Record) -> tuple[dict[str, Any] | None, codecs.Serialized | None]:
        """The data (`None` if it is unreadable), and its bytes if today's keys and settings would close them again."""
        try:
            return self._opened(record)
        except PayloadUnreadable as error:
            logger.warning("Session data corrupted: %s (id %s).", error.reason, record.id)
            return None, None

    def _opened(self, record: Record) -> tuple[dict[str, Any], codecs.Serialized | None]:
        serialized, current = codecs.open_(record.payload, record.id)
        data = codecs.deserialize(serialized, self.serializer)
        is_copy = data.pop(rotation.COPY_OF, None) is not None
        return data, serialized if current and not is_copy else None

    def _data_of(self, record: Record | None) -> dict[str, Any] | None:
        data = self._open(record)[0] if record else None
        return data if data is None or record is None or user_id_in(data) == record.user_id else None

    def _wrote(self, record: Record, serialized: codecs.Serialized | None) -> None:
        self._record = self._base = record
        self._serialized, self._committed = serialized, True

    def _user_id(self) -> str | None:
        """Raises `SessionNotSerializable` for what no store can take."""
        return check_user_id(user_id_in(self._session_cache))

    def _expires_at(self, created_at: datetime, now: datetime, stored: Record | None = None) -> datetime:
        """When the session is to end. What is stored stays while it is but little too early: writing it costs more."""
        # Does no I/O: _session_cache is there by now.
        # From an aware moment: a naive one plus some time is off by an hour where the clocks go back.
        wanted = limits.latest(in_milliseconds(self.get_expiry_date(modification=now)), created_at, active_at=now)
        if stored and limits.NO_TIME <= wanted - stored.expires_at < limits.window(wanted - now):
            return stored.expires_at
        return wanted
