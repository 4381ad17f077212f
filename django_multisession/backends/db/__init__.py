"""Sessions in a SQL database, through Django's ORM. What is stored, and by which statements: see `storage.py`."""

from typing import Any

from asgiref.sync import sync_to_async

from ...databases import in_transaction
from ...payload.codecs import Serialized
from ...records import Record
from .. import base
from . import checks  # noqa: F401  registers them
from .statements import database, is_committed
from .storage import DbStorage

MOST = 100  # writes of one object in a transaction; of older ones a savepoint's roll-back makes changes of others


class SessionStore(base.SessionStore):
    """`SESSION_ENGINE = "django_multisession.backends.db"`"""

    _writes: tuple[Record, ...] = ()  # of this object since `_base`, each of which may yet be rolled back

    def _wrote(self, record: Record, serialized: Serialized | None) -> None:
        base = self._base
        before = () if self._committed else tuple(each for each in self._writes[-MOST:] if each.id == record.id)
        super()._wrote(record, serialized)
        # A task's thread has another connection than the one it wrote over.
        if is_committed(record) is not None or in_transaction(database()):
            self._base, self._committed, self._writes = base, False, (*before, record)

    async def _look_again(self, storage: Any) -> None:
        committed = [each for each in self._writes if is_committed(each)]
        if committed and committed[-1] is self._writes[-1]:
            self._base, self._committed = self._record, True  # what others have saved since is on top of it
            return
        self._base = committed[-1] if committed else self._base
        held = await self._read(storage, self.session_key)
        if held and held in (self._record, *self._writes):  # by its times too: others may count to the same number
            self._seen_own(held, await storage.in_transaction())
        else:
            self._seen_again(held)

    def _seen_own(self, held: Record, may_be_rolled_back: bool) -> None:
        """What this object wrote last, or before a savepoint that was rolled back."""
        self._serialized = self._serialized if held == self._record else None
        self._record, self._committed = held, not may_be_rolled_back
        self._base = self._base if may_be_rolled_back else held

    async def _delete(self, storage: Any, session_key: str | None = None) -> None:
        await super()._delete(storage, session_key)
        if self._ended and await storage.in_transaction():
            self._ended = None  # it may be rolled back

    storage = DbStorage(call=lambda function, *arguments: function(*arguments))
    astorage = DbStorage(call=lambda function, *arguments: sync_to_async(function)(*arguments))
