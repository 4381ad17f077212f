"""Sessions in a SQL database, through Django's ORM. What is stored, and by which statements: see `storage.py`."""

from asgiref.sync import sync_to_async
from django.db import connections

from ...payload.codecs import Serialized
from ...records import Record
from .. import base
from . import checks  # noqa: F401  registers them
from .statements import database
from .storage import DbStorage


class SessionStore(base.SessionStore):
    """`SESSION_ENGINE = "django_multisession.backends.db"`"""

    def _wrote(self, record: Record, serialized: Serialized | None) -> None:
        base = self._base
        super()._wrote(record, serialized)
        if connections[database()].in_atomic_block:
            self._base, self._committed = base, False

    def _forget(self, id: str) -> None:
        super()._forget(id)
        if connections[database()].in_atomic_block:
            self._ended = None  # it may be rolled back

    storage = DbStorage(call=lambda function, *arguments: function(*arguments))
    astorage = DbStorage(call=lambda function, *arguments: sync_to_async(function)(*arguments))
