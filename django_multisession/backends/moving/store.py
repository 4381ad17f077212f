"""The `SessionStore` of a move: that of `to`, over a `MovingStorage` that knows the keys which this store has met."""

import dataclasses
from contextlib import suppress
from datetime import datetime
from typing import Any

from ...exceptions import SessionConflict
from ...payload import codecs
from ...records import Record
from ...user_sessions import rotation
from .. import base
from .cookies import is_cookie, server_key
from .plan import FACES, plan
from .storage import MOVE, Keys
from .taking import UNMOVABLE, as_ours
from .there import PLAIN, Plain, as_there, is_plain, is_there


class Sides:
    """Of a class: a storage that knows no keys."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.face = FACES[name]

    def __get__(self, session: Any, owner: Any) -> Any:
        return owner._plan().storage(self.face, None if session is None else session._keys)


class Moving(base.SessionStore):
    _plan = staticmethod(plan)
    storage = Sides()
    astorage = Sides()

    def __init__(self, session_key: str | None = None) -> None:
        self._keys = Keys()
        super().__init__(session_key)

    def _id_of(self, session_key: str) -> str:
        return self._keys.know(session_key, self._plan().is_cookies)

    # The cookie of signed_cookies is its key: the browser is given another when the session is saved, or taken over.

    async def _load(self, storage: Any) -> dict[str, Any]:
        cookie, data = self.session_key, await super()._load(storage)
        if self.session_key and self._record and is_cookie(str(cookie)) and self._plan().phase == MOVE:
            self.modified = True
            if not is_there(self._record):
                self._session_key = server_key(str(cookie))
        return data

    async def _create(self, storage: Any, created_at: datetime | None = None) -> None:
        await super()._create(storage, created_at)
        self._rename()

    async def _save(self, storage: Any, must_create: bool = False) -> None:
        if not must_create and await self._is_anybodys(storage):
            self._session_key = self._record = self._base = None  # see cookies.py
        await super()._save(storage, must_create)
        self._rename()

    async def _is_anybodys(self, storage: Any) -> bool:
        """Whether a session of nobody is still in its cookie, which it is to leave."""
        if self._plan().phase != MOVE or not self._plan().is_cookies or not is_cookie(str(self.session_key)):
            return False
        await self._data(storage)
        return self._record is not None and is_there(self._record) and self._record.user_id is None

    def _rename(self) -> None:
        record, renamed = self._record, self._keys.renamed
        if renamed and record and (cookie := renamed.pop(record.id, None)):
            self._session_key = cookie
            self._record = self._base = dataclasses.replace(record, id=self._id_of(cookie))
            self.modified = True

    # What stays with another engine is that engine's: whatever it takes, and however much.

    @property
    def serializer(self) -> type:
        return Plain if self._is_plain() else self._own_serializer

    @serializer.setter
    def serializer(self, serializer: type) -> None:
        self._own_serializer = serializer

    def _is_plain(self) -> bool:
        if (record := self._record) is not None:
            return is_plain(record)
        found = self._plan()
        return found.starts_there and found.is_foreign

    def _close(self, serialized: codecs.Serialized, id: str) -> bytes:
        return PLAIN + serialized.body if self._is_plain() else super()._close(serialized, id)

    def _opened(self, record: Record) -> tuple[dict[str, Any], codecs.Serialized | None]:
        if not is_plain(record):
            serialized, current = codecs.open_(record.payload, record.id)
            data = codecs.deserialize(serialized, self._own_serializer)
        else:
            serialized, current = codecs.Serialized(codecs.CUSTOM, record.payload[1:]), True
            data = Plain().loads(serialized.body)
        is_copy = data.pop(rotation.COPY_OF, None) is not None
        return data, serialized if current and not is_copy else None

    def _wrote(self, record: Record, serialized: codecs.Serialized | None) -> None:
        made_there = record.id in self._keys.there and not is_there(record)
        super()._wrote(as_there(record) if made_there else record, serialized)

    def _only_moved(self, before: Record | None, held: Record) -> bool:
        """No conflict: it was taken over, before our save or just after it."""
        stored = self._data_of(held)
        moved = before is not None and is_there(before) is not is_there(held)
        if not moved or stored is None:
            return False
        # What we have made of it too, unless that only looks so: another has counted to the same number.
        return stored == self._data_of(self._base) or (stored == self._session_cache and held.id in self._keys.saved)

    def _note(self, record: Record, before: str | None, now: str | None) -> None:
        """To whoever is told of it, a limit say, the record is as on the new side."""
        if before != now and is_plain(record):
            with suppress(*UNMOVABLE):
                record = as_ours(record, self._own_serializer)
        super()._note(record, before, now)

    def _resolve(self, held: Record, rotated: bool = False) -> Record:
        before, self._record = self._record, held  # what is merged is compared as `held` keeps it
        if self._only_moved(before, held):
            self._base, self._serialized, self._committed = held, None, True
            return held
        try:
            return super()._resolve(held, rotated)
        except SessionConflict:
            self._record = before
            raise
