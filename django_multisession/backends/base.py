"""`SessionStore`: every algorithm of a session, written once, over the `Storage` of an engine.

Core coroutines are private, take the storage first, and await only its verbs or each other; each public method is one
line over its core, once per face (see `twins.py`). `SessionStore` knows no server; a `Storage` knows nothing of
Django's sessions.
"""

import dataclasses
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any, ClassVar, TypeVar

from django.conf import settings
from django.contrib.sessions.backends.base import CreateError

from .. import limits
from ..exceptions import EngineUnavailable, PayloadUnreadable, SessionConflict, SessionEnded
from ..payload import codecs, equality, merging
from ..records import Record, new_session_key, utcnow
from ..signals import session_ended
from ..twins import ASYNC, SYNC, run_sync
from ..user_sessions import clients, devices, lifecycle, rotation
from . import changing
from .state import GONE, SessionState, user_id_in
from .state import logger as logger
from .storage import Storage

ATTEMPTS = 1000  # each one that fails means that another save came through, or that a random key is taken

T = TypeVar("T")
Data = dict[str, Any]


class SessionStore(SessionState):
    """One request's session. An engine's subclass only says where its storages are."""

    storage: ClassVar[Any]  # a Storage over a synchronous client, the process's own
    astorage: ClassVar[Any]  # a Storage over an asynchronous client, the running event loop's own

    may_touch = True  # cleared by @no_touch: an unchanged save does nothing then

    # Core

    async def _load(self, storage: Storage) -> dict[str, Any]:
        self._serialized = None
        self._record = self._base = await self._read(storage, self.session_key)
        data, self._serialized = await self._open_surely(storage)
        if (record := self._record) is not None:
            if data is None:
                return {}
            if user_id_in(data) == record.user_id:
                return data
            logger.warning("Session record refused: it says another user than its data (id %s).", record.id)
            self._record = self._base = self._serialized = None
        # Never adopt a key that the store does not know: the browser chose it (session fixation).
        self._session_key = None
        return {}

    async def _read(self, storage: Storage, session_key: str | None) -> Record | None:
        record = await storage.read(self._id_of(session_key)) if session_key else None
        return None if record is None or limits.is_over(record) else record

    async def _data(self, storage: Storage, no_load: bool = False) -> dict[str, Any]:
        """What `SessionBase._get_session()` gives, for a core coroutine of either face."""
        self.accessed = True
        if not hasattr(self, "_session_cache"):
            if self._watched and self.session_key and not no_load:
                self._session_cache = await clients.load(self._face, self)
            else:
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
        self._silent = False
        if not must_create:
            if self._rotated_in is not None:
                await self._rotate_again(storage, self._rotated_in)
            await self._update(storage)
        elif not await self._insert(storage, self.session_key):
            raise CreateError

    async def _insert(self, storage: Storage, session_key: str, created_at: datetime | None = None) -> bool:
        devices.settle_login(self)
        data = {**self._session_cache, **self._link} if self._link else self._session_cache
        serialized = codecs.serialize(data, self.serializer)
        record = self._new_record(self._id_of(session_key), serialized, created_at or devices.since(self))
        if not await storage.insert(record):
            return False
        self._wrote(record, None if self._link else serialized)
        self._ended = None
        if created_at is None:  # else it goes on under another key
            self._note(record, None, record.user_id)
        return True

    async def _update(self, storage: Storage) -> None:
        if (stored := await self._stored(storage)) is None:
            raise SessionEnded(GONE)
        if stored.expires_at <= stored.updated_at and self._expires_at(stored.created_at, utcnow()) <= utcnow():
            return None  # saved before to be over at once, by set_expiry() into the past
        devices.settle_login(self)
        for _ in range(ATTEMPTS):
            serialized = codecs.serialize(self._session_cache, self.serializer)
            if equality.is_same(serialized, self._serialized, self.serializer):
                return await self._touch(storage, stored)
            record = self._next_record(stored, serialized)
            held = await storage.replace(record)
            if held is record:  # an equal one is of another who has counted to the same number, in the same moment
                self._note(record, devices.user_before(self, stored), record.user_id)
                return self._wrote(record, serialized)
            if held is None or held.is_mark:
                stored = await self._follow(storage)
            else:
                stored = self._resolve(held)
        raise SessionConflict(self._session_cache, self._data_of(stored) or {}, ATTEMPTS)

    async def _stored(self, storage: Storage) -> Record | None:
        """The record that this object has loaded or written, else (after `clear()`) the one in the store."""
        if self.session_key is None or self._ended == self._id_of(self.session_key):  # loading found nothing; deleted
            return None
        if self._record is None or self._record.id != self._id_of(self.session_key):
            self._record = self._base = await self._read(storage, self.session_key)
            self._serialized = None
        elif not self._committed:
            await self._look_again(storage)
        return self._record

    async def _look_again(self, storage: Storage) -> None:
        """The transaction in which this object wrote may be rolled back by now, and others may have saved since."""
        self._seen_again(await self._read(storage, self.session_key))

    async def _touch(self, storage: Storage, stored: Record) -> None:
        now = utcnow()
        expires_at = self._expires_at(stored.created_at, now, stored)
        fresh = expires_at == stored.expires_at and now - stored.updated_at < limits.window(expires_at - now)
        if fresh or not self.may_touch:
            self._silent = settings.SESSION_SAVE_EVERY_REQUEST and not self.modified
            if not self._silent and not await self._exists(storage, self.session_key):
                await self._follow(storage)
        elif await storage.touch(stored.id, expires_at):
            self._record = dataclasses.replace(stored, expires_at=expires_at, updated_at=now)
        else:
            await self._follow(storage)

    async def _delete(self, storage: Storage, session_key: str | None = None) -> None:
        if not (key := session_key or self.session_key):
            return
        id = self._id_of(key)
        record = self._flushed = self._record if self._record and self._record.id == id else None
        if record is None and session_ended.has_listeners(Record):
            record = await storage.read(id)
        if (ended := await rotation.remove(storage, id)) and record:
            self._note(dataclasses.replace(record, id=ended), record.user_id, None)
        self._forget(id)

    async def _open_surely(self, storage: Storage) -> tuple[dict[str, Any] | None, codecs.Serialized | None]:
        """As `_open()`, of the own record. What does not verify may be another's, of a connection out of step: then
        all that it says is, and what is read anew takes its place, be it nothing."""
        try:
            return self._opened(self._record) if self._record else (None, None)
        except PayloadUnreadable:
            if hasattr(storage, "read_anew") and self._record:
                record = await storage.read_anew(self._record.id)
                self._record = self._base = None if record is None or limits.is_over(record) else record
            return self._open(self._record) if self._record else (None, None)

    # Rotation: see rotation.py

    async def _cycle_key(self, storage: Storage) -> None:
        await self._data(storage)
        old_key = self.session_key
        old = await self._newest(storage)
        if old is None or old.user_id is None or old.user_id != self._user_id():
            return await self._renew(storage, old)
        log_in = rotation.log_in_of(self._session_cache)
        accepted = await rotation.is_accepted(self._face, log_in)
        if accepted and self.session_key != old_key:  # another request has cycled it, just now
            self.modified = True
        else:
            await self._rotate(storage, old, leave_mark=accepted)
        self._rotated_in = log_in if accepted else None

    async def _newest(self, storage: Storage) -> Record | None:
        """What is stored under the own key, or that to which another request has cycled it; `None`: nothing.

        The changes of others are merged into the data. A user's session that was ended is an error.
        """
        if (stored := await self._stored(storage)) is None:
            return None
        if (held := await storage.read(stored.id)) is not None and not held.is_mark:
            return held if held.version == stored.version else self._resolve(held)
        if stored.user_id is None:
            return None
        try:
            return await self._follow(storage)
        except SessionEnded:
            self._leave()
            raise

    async def _renew(self, storage: Storage, old: Record | None) -> None:
        """A new key for a session without a user, or for another user's. The old one is dead at once."""
        old_id = self._id_of(self.session_key) if self.session_key else None
        await self._create(storage, old.created_at if old and old.user_id == self._user_id() else None)
        # An anonymous session goes on though it is gone: a log-in form was sent twice.
        if old_id and not await rotation.remove(storage, old_id) and old and old.user_id:
            await self._undo(storage)

    async def _rotate(self, storage: Storage, old: Record, leave_mark: bool) -> None:
        """A new key for the session of a user; `leave_mark`: requests that have loaded it may go on under it."""
        old_key, same_user = str(self.session_key), old.user_id == self._user_id()
        self._link = {rotation.COPY_OF: old.id}
        await self._create(storage, old.created_at if same_user else None)
        self._link = {}
        if leave_mark and not await storage.insert(rotation.mark(old.id, old_key, str(self.session_key))):
            await storage.remove([self._id_of(str(self.session_key))])  # another request was faster
            self._session_key, self._record, self._base = old_key, old, old
            await self._follow(storage)
            return
        newer = await rotation.retire(storage, old)
        if newer is None and (leave_mark or not await rotation.remove(storage, old.id)):
            await self._undo(storage, rotation.mark_id(old.id))
        if newer and newer != old:
            merging.adopt(self._data_of(old) or {}, self._session_cache, self._data_of(newer) or {}, self.serializer)
            await self._update(storage)

    async def _undo(self, storage: Storage, *others: str) -> None:
        """The session has been ended while its key was cycled: the copy ends too."""
        await storage.remove([self._id_of(str(self.session_key)), *others])
        self._leave()
        raise SessionEnded(GONE)

    async def _rotate_again(self, storage: Storage, log_in: dict[str, Any]) -> None:
        """The first save after a rotation: what was cycled for a new password, or user, leads nobody there."""
        self._rotated_in = None
        if rotation.log_in_of(self._session_cache) == log_in or await rotation.is_accepted(self._face, log_in):
            return
        if old := await self._newest(storage):
            await self._rotate(storage, old, leave_mark=False)

    async def _follow(self, storage: Storage) -> Record:
        """Go on under the key to which another request has cycled ours. Raises `SessionEnded` where none has."""
        if self._record and self._record.user_id:
            key, record = await rotation.follow(storage, str(self.session_key))
            if key and record and not limits.is_over(record):
                ours, theirs = (rotation.log_in_of(self._data_of(each) or {}) for each in (self._base, record))
                if await rotation.is_same(self._face, ours, theirs):
                    self._session_key = key
                    return self._resolve(record, rotated=True)
        raise SessionEnded(GONE)

    # Faces

    def _run(self, core: Coroutine[Any, Any, T]) -> T:
        self._changes, self._face = (), SYNC
        result = run_sync(core)
        if self._changes:
            run_sync(lifecycle.follow(SYNC, self))
        return result

    async def _arun(self, core: Coroutine[Any, Any, T]) -> T:
        self._changes, self._face = (), ASYNC
        result = await core
        if self._changes:
            await lifecycle.follow(ASYNC, self)
        return result

    def load(self) -> dict[str, Any]:
        return run_sync(clients.load(SYNC, self) if self._watched else self._load(self.storage))

    async def aload(self) -> dict[str, Any]:
        return await (clients.load(ASYNC, self) if self._watched else self._load(self.astorage))

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

    def change(self, function: Callable[[Data], T]) -> T:
        """Call `function` with the newest data, save what it leaves, and return what it returns.

        It is called again, on what is newest then, where another request came first: it should do nothing but that.
        Raises `SessionEnded` where the session is gone.
        """
        result: T = self._run(changing.change(self, self.storage, function, ATTEMPTS))
        return result

    async def achange(self, function: Callable[[Data], Awaitable[T]] | Callable[[Data], T]) -> T:
        """As `change()`; `function` may be a coroutine function."""
        result: T = await self._arun(changing.change(self, self.astorage, function, ATTEMPTS))
        return result

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
        from .. import purge  # no request needs it

        purge.purge(store=cls, grace=0)

    @classmethod
    async def aclear_expired(cls) -> None:
        from .. import purge  # no request needs it

        await purge.apurge(store=cls, grace=0)

    # insert() is atomic, so a new key needs no probe with exists().

    def _get_new_session_key(self) -> str:
        return new_session_key()

    async def _aget_new_session_key(self) -> str:
        return self._get_new_session_key()

    async def adelete_test_cookie(self) -> None:
        await super().adelete_test_cookie()
        self.modified = True  # as delete_test_cookie() does and Django's own async twin forgets
