"""Sessions in a SQL database, through Django's ORM. What is stored, and by which statements: see `storage.py`."""

from typing import Any

from asgiref.sync import sync_to_async

from ...databases import in_transaction
from ...payload.codecs import Serialized
from ...records import Record
from .. import base
from . import checks  # noqa: F401  registers them
from .statements import Commit, commit_of, database
from .storage import DbStorage


class SessionStore(base.SessionStore):
    """`SESSION_ENGINE = "django_multisession.backends.db"`"""

    _commit: Commit | None = None  # of the transaction in which this object wrote last

    def _wrote(self, record: Record, serialized: Serialized | None) -> None:
        base, is_seen_again = self._base, record == self._record
        super()._wrote(record, serialized)
        commit = commit_of(record)
        if commit or in_transaction(database()):  # a task's thread has another connection than the one it wrote over
            self._base, self._committed = base, False
        self._commit = self._commit if is_seen_again else commit

    async def _look_again(self, storage: Any) -> None:
        if self._commit is None or not self._commit.has_come:
            return await super()._look_again(storage)
        self._base, self._committed = self._record, True  # what others have saved since is on top of it

    def _forget(self, id: str) -> None:
        super()._forget(id)
        if in_transaction(database()):
            self._ended = None  # it may be rolled back

    storage = DbStorage(call=lambda function, *arguments: function(*arguments))
    astorage = DbStorage(call=lambda function, *arguments: sync_to_async(function)(*arguments))
