"""The `SessionStore` of a move: that of `to`, over a `MovingStorage` that knows the keys which this store has met."""

from typing import Any

from ... import codecs, rotation
from ...exceptions import SessionConflict
from ...records import Record
from .. import base
from .plan import FACES, plan
from .storage import Keys
from .there import PLAIN, Plain, is_plain


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
        id = super()._id_of(session_key)
        self._keys[id] = session_key
        return id

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

    def _resolve(self, held: Record, rotated: bool = False) -> Record:
        before, self._record = self._record, held  # what is merged is compared as `held` keeps it
        if self._data_of(held) == self._session_cache:  # taken over just after our save: no conflict
            self._base, self._serialized, self._committed = held, None, True
            return held
        try:
            return super()._resolve(held, rotated)
        except SessionConflict:
            self._record = before
            raise
