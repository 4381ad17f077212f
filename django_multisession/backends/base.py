"""`Storage`, the eight verbs that an engine implements, and `SessionStore`, every algorithm, written once.

Core coroutines are private, take the storage first, and await only its verbs or each other; each public method is one
line over its core, once per face (see `twins.py`). `SessionStore` knows no server; a `Storage` knows nothing of
Django's sessions.
"""

import dataclasses
import logging
from collections.abc import Coroutine, Iterable
from datetime import datetime
from typing import Any, ClassVar, Protocol

from django.contrib.auth import SESSION_KEY as USER_ID_KEY
from django.contrib.sessions.backends.base import CreateError, SessionBase

from .. import checks, codecs, lifecycle, limits, merging, purge  # noqa: F401  checks: even if the app is not installed
from ..conf import conf
from ..exceptions import EngineUnavailable, PayloadUnreadable, SessionConflict, SessionEnded, SessionNotSerializable
from ..records import Page, Record, identify, in_milliseconds, new_session_key, utcnow
from ..signals import session_ended
from ..twins import ASYNC, SYNC, run_sync

USER_ID_LENGTH = 255  # characters: a user id is an indexed column in SQL, and a part of a key's name in Redis
ATTEMPTS = 1000  # each one that fails means that another save came through, or that a random key is taken

GONE = "The session was deleted by another request: the user may have logged out."

logger = logging.getLogger("django.security.SuspiciousSession")


class Storage(Protocol):
    """One kind of server. Verbs are stateless, one round trip each, and raise `EngineUnavailable` when it fails."""

    async def read(self, id: str) -> Record | None:
        """The live record, always from the primary; never an expired one, whatever the server's sweeper has done."""

    async def insert(self, record: Record) -> bool:
        """Create atomically; `False` if the id is taken."""

    async def replace(self, record: Record) -> Record | None:
        """Store `record` if the stored version is `record.version - 1`, and answer what the store now holds.

        That is `record` itself (saved), another record (conflict) or `None` (gone or expired). Never creates.
        """

    async def touch(self, id: str, expires_at: datetime) -> bool:
        """Move the expiry and `updated_at` (now) of a live record, neither data nor version; `False` if it is gone."""

    async def remove(self, ids: Iterable[str]) -> int:
        """Delete, and count what was there. Missing ids are no error."""

    async def of_user(self, user_id: str) -> list[Record]:
        """A user's records that the server has not removed, live or not, by index, never by scan; see `listing.py`."""

    async def scan(self, after: str | None, limit: int) -> Page:
        """A page of about `limit` records, live or not; `after` is `None`, then the `next` of the page before."""

    async def purge(self, before: datetime, limit: int) -> int:
        """Delete at most `limit` records (where the server expires by itself: leftovers) that expired before then."""


class SessionStore(SessionBase):
    """One request's session. An engine's subclass only says where its storages are."""

    storage: ClassVar[Any]  # a Storage over a synchronous client, the process's own
    astorage: ClassVar[Any]  # a Storage over an asynchronous client, the running event loop's own

    may_touch = True  # cleared by @no_touch: an unchanged save does nothing then

    _record: Record | None = None  # as last read or written: what the next save follows
    _base: Record | None = None  # as last read or surely written: what a merge goes by
    _serialized: codecs.Serialized | None = None  # its data: what a save is compared with
    _identified: tuple[str | None, str] = (None, "")  # the session key that was hashed last, and its id
    _committed = True  # False: written in a transaction that may yet be rolled back
    _changes: tuple[lifecycle.Change, ...] = ()  # of the session's user, not seen to yet

    # Core

    async def _load(self, storage: Storage) -> dict[str, Any]:
        self._serialized = None
        self._record = self._base = await self._read(storage, self.session_key)
        if self._record is None:
            # Never adopt a key that the store does not know: the browser chose it (session fixation).
            self._session_key = None
            return {}
        data, self._serialized = self._open(self._record)
        return data or {}

    async def _read(self, storage: Storage, session_key: str | None) -> Record | None:
        record = await storage.read(self._id_of(session_key)) if session_key else None
        return None if record is None or limits.is_over(record) else record

    async def _data(self, storage: Storage, no_load: bool = False) -> dict[str, Any]:
        """What `SessionBase._get_session()` gives, for a core coroutine of either face."""
        self.accessed = True
        if not hasattr(self, "_session_cache"):
            self._session_cache = {} if no_load or self.session_key is None else await self._load(storage)
        return self._session_cache

    async def _exists(self, storage: Storage, session_key: str | None) -> bool:
        return await self._read(storage, session_key) is not None

    async def _create(self, storage: Storage, created_at: datetime | None = None) -> None:
        await self._data(storage, no_load=True)
        for _ in range(ATTEMPTS):
            if await self._insert(storage, key := self._get_new_session_key(), created_at):
                self._session_key = key
                self.modified = True
                return
        raise EngineUnavailable(f"The store has refused {ATTEMPTS} new session keys as taken.")

    async def _save(self, storage: Storage, must_create: bool = False) -> None:
        if self.session_key is None:
            return await self._create(storage)
        await self._data(storage, no_load=must_create)
        if not must_create:
            await self._update(storage)
        elif not await self._insert(storage, self.session_key):
            raise CreateError

    async def _insert(self, storage: Storage, session_key: str, created_at: datetime | None = None) -> bool:
        serialized = codecs.serialize(self._session_cache, self.serializer)
        record = self._new_record(self._id_of(session_key), serialized, created_at)
        if not await storage.insert(record):
            return False
        self._wrote(record, serialized)
        if created_at is None:  # else it goes on under another key
            self._note(record, None, record.user_id)
        return True

    async def _update(self, storage: Storage) -> None:
        if (stored := await self._stored(storage)) is None:
            raise SessionEnded(GONE)
        if stored.expires_at <= stored.updated_at and self._expires_at(stored.created_at, utcnow()) <= utcnow():
            return None  # saved before to be over at once, by set_expiry() into the past
        for _ in range(ATTEMPTS):
            serialized = codecs.serialize(self._session_cache, self.serializer)
            if serialized == self._serialized:
                return await self._touch(storage, stored)
            record = self._next_record(stored, serialized)
            if (held := await storage.replace(record)) is None:
                raise SessionEnded(GONE)
            if held == record:
                self._note(record, stored.user_id, record.user_id)
                return self._wrote(record, serialized)
            self._resolve(held)
            stored = held
        raise SessionConflict(self._session_cache, self._data_of(stored) or {}, ATTEMPTS)

    async def _stored(self, storage: Storage) -> Record | None:
        """The record that this object has loaded or written, else (after `clear()`) the one in the store."""
        if self.session_key is None:  # loading found nothing
            return None
        if self._record is None or self._record.id != self._id_of(self.session_key):
            self._record = self._base = await self._read(storage, self.session_key)
            self._serialized = None
        elif not self._committed:
            await self._look_again(storage)
        return self._record

    async def _look_again(self, storage: Storage) -> None:
        """The transaction in which this object wrote may be rolled back by now, and others may have saved since."""
        held = await self._read(storage, self.session_key)
        if held and held == self._record:
            self._wrote(held, self._serialized)
        elif held and held != self._base:
            self._resolve(held)
        else:
            self._record, self._serialized, self._committed = held, None, True

    async def _touch(self, storage: Storage, stored: Record) -> None:
        now = utcnow()
        expires_at = self._expires_at(stored.created_at, now, stored)
        fresh = expires_at == stored.expires_at and now - stored.updated_at < limits.window(expires_at - now)
        if fresh or not self.may_touch:
            return
        if not await storage.touch(stored.id, expires_at):
            raise SessionEnded(GONE)
        self._record = dataclasses.replace(stored, expires_at=expires_at, updated_at=now)

    async def _delete(self, storage: Storage, session_key: str | None = None) -> None:
        if key := session_key or self.session_key:
            record = self._record if self._record and self._record.id == self._id_of(key) else None
            if record is None and session_ended.has_listeners(Record):
                record = await storage.read(self._id_of(key))
            if await storage.remove([self._id_of(key)]) and record:
                self._note(record, record.user_id, None)

    def _note(self, record: Record, before: str | None, now: str | None) -> None:
        if before != now:
            self._changes += (lifecycle.Change(record, before, now),)

    async def _cycle_key(self, storage: Storage) -> None:
        await self._data(storage)
        old_key = self.session_key
        old = await self._newest(storage) if old_key else None
        same_user = old is not None and old.user_id == self._user_id()
        await self._create(storage, created_at=old.created_at if old and same_user else None)
        if old_key and not await storage.remove([self._id_of(old_key)]) and old and old.user_id:
            # Logged out meanwhile. (An anonymous session goes on: a log-in form was sent twice.)
            await storage.remove([self._id_of(str(self.session_key))])
            self.clear()
            self._session_key = None
            raise SessionEnded(GONE)

    async def _newest(self, storage: Storage) -> Record | None:
        """What is stored under the own key, with the changes of others merged into the data."""
        stored = await self._stored(storage)
        if stored is None or (held := await storage.read(stored.id)) is None:
            return stored
        if held.version != stored.version:
            self._resolve(held)
        return held

    def _id_of(self, session_key: str) -> str:
        key, id = self._identified  # hashing takes longer, and a save asks again for what the load did
        if key != session_key:
            self._identified = session_key, id = session_key, identify(session_key)
        return id

    # Conflicts

    def _resolve(self, held: Record) -> None:
        """Another request has saved: do as the site has chosen, and go on from what the store holds."""
        if conf.ON_CONFLICT == "raise":
            raise SessionConflict(self._session_cache, self._data_of(held) or {})
        if conf.ON_CONFLICT == "merge":
            self._merge(held)
        self._record = self._base = held
        self._serialized, self._committed = None, True

    def _merge(self, held: Record) -> None:
        if held.user_id != self._user_id():
            raise SessionEnded("The session was saved with another user meanwhile.")
        if (stored := self._data_of(held)) is not None:  # else it is of no use to anybody
            merging.adopt(self._data_of(self._base) or {}, self._session_cache, stored, self.serializer)

    # From session data to record, and back

    def _next_record(self, stored: Record, serialized: codecs.Serialized) -> Record:
        created_at = stored.created_at if stored.user_id == self._user_id() else None
        return self._new_record(stored.id, serialized, created_at, stored)

    def _new_record(
        self, id: str, serialized: codecs.Serialized, created_at: datetime | None, stored: Record | None = None
    ) -> Record:
        now = utcnow()
        return Record(
            id=id,
            payload=codecs.close(serialized, id),
            user_id=self._user_id(),
            created_at=created_at or now,
            updated_at=now,
            expires_at=self._expires_at(created_at or now, now, stored),
            version=stored.version + 1 if stored else 1,
        )

    def _open(self, record: Record) -> tuple[dict[str, Any] | None, codecs.Serialized | None]:
        """The data (`None` if it is unreadable), and its bytes if today's keys and settings would close them again."""
        try:
            serialized, current = codecs.open_(record.payload, record.id, self.serializer)
            return codecs.deserialize(serialized, self.serializer), serialized if current else None
        except PayloadUnreadable as error:
            logger.warning("Session data corrupted: %s (id %s).", error.reason, record.id)
            return None, None

    def _data_of(self, record: Record | None) -> dict[str, Any] | None:
        return self._open(record)[0] if record else None

    def _wrote(self, record: Record, serialized: codecs.Serialized | None) -> None:
        self._record = self._base = record
        self._serialized, self._committed = serialized, True

    def _user_id(self) -> str | None:
        user_id = self._session_cache.get(USER_ID_KEY)
        if user_id is None or user_id == "":
            return None
        if len(str(user_id)) > USER_ID_LENGTH:
            raise SessionNotSerializable(USER_ID_KEY) from ValueError(f"over {USER_ID_LENGTH} characters")
        return str(user_id)

    def _expires_at(self, created_at: datetime, now: datetime, stored: Record | None = None) -> datetime:
        """When the session is to end. What is stored stays while it is but little too early: writing it costs more."""
        # Does no I/O: _session_cache is there by now.
        # From an aware moment: a naive one plus some time is off by an hour where the clocks go back.
        wanted = limits.latest(in_milliseconds(self.get_expiry_date(modification=now)), created_at, active_at=now)
        if stored and limits.NO_TIME <= wanted - stored.expires_at < limits.window(wanted - now):
            return stored.expires_at
        return wanted

    # Faces

    def _run(self, core: Coroutine[Any, Any, None]) -> None:
        self._changes = ()
        run_sync(core)
        if self._changes:
            run_sync(lifecycle.follow(SYNC, self))

    async def _arun(self, core: Coroutine[Any, Any, None]) -> None:
        self._changes = ()
        await core
        if self._changes:
            await lifecycle.follow(ASYNC, self)

    def load(self) -> dict[str, Any]:
        return run_sync(self._load(self.storage))

    async def aload(self) -> dict[str, Any]:
        return await self._load(self.astorage)

    def exists(self, session_key: str | None) -> bool:
        return run_sync(self._exists(self.storage, session_key))

    async def aexists(self, session_key: str | None) -> bool:
        return await self._exists(self.astorage, session_key)

    def create(self) -> None:
        self._run(self._create(self.storage))

    async def acreate(self) -> None:
        await self._arun(self._create(self.astorage))

    def save(self, must_create: bool = False) -> None:
        self._run(self._save(self.storage, must_create))

    async def asave(self, must_create: bool = False) -> None:
        await self._arun(self._save(self.astorage, must_create))

    def delete(self, session_key: str | None = None) -> None:
        self._run(self._delete(self.storage, session_key))

    async def adelete(self, session_key: str | None = None) -> None:
        await self._arun(self._delete(self.astorage, session_key))

    def cycle_key(self) -> None:
        self._run(self._cycle_key(self.storage))

    async def acycle_key(self) -> None:
        await self._arun(self._cycle_key(self.astorage))

    @classmethod
    def clear_expired(cls) -> None:
        purge.purge(store=cls, grace=0)

    @classmethod
    async def aclear_expired(cls) -> None:
        await purge.apurge(store=cls, grace=0)

    # insert() is atomic, so a new key needs no probe with exists().

    def _get_new_session_key(self) -> str:
        return new_session_key()

    async def _aget_new_session_key(self) -> str:
        return self._get_new_session_key()

    async def adelete_test_cookie(self) -> None:
        await super().adelete_test_cookie()
        self.modified = True  # as delete_test_cookie() does and Django's own async twin forgets
