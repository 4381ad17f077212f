"""The old side where it is another engine: anything with Django's `SessionStore` interface, keyed by session keys.

Its own methods write and delete. They are called in Django's thread where the request is asynchronous: the `a` twins of
engines built on Django's leave out what these have overridden. What is read is asked of its server rather than of
`load()`, where that is known (see `adapters.py`): some `load()`s create a session, adopt the key, or take an outage for
an empty session. Of the others `exists()` is asked before `load()`, and after one that gives nothing.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.core import signing
from django.core.exceptions import ImproperlyConfigured, SuspiciousOperation

from ...exceptions import EngineUnavailable, SessionNotSerializable
from ...payload.codecs import UNREADABLE
from ...records import Page, Record, in_milliseconds
from ...twins import Face, settle
from . import there

LONGEST_KEY = 128  # characters; Django's have 32
OF_THE_SITE = TypeError, ValueError, LookupError, AttributeError, ImproperlyConfigured


class Foreign:
    """`engine` is the `SessionStore` class; `serializer` that of `SESSION_SERIALIZER`."""

    listed = False
    foreign = True
    updates_only = False  # whether save() of the engine never brings back what was deleted

    def __init__(self, engine: Any, face: Face, serializer: type) -> None:
        self.engine, self.face, self.serializer = engine, face, serializer
        self.renamed: dict[str, str] = {}  # by id: the key that a save has given to what is stored

    # What an adapter may know better

    def find(self, key: str) -> tuple[dict[str, Any], datetime] | None:
        """The data of a live session and its expiry. Raises what the engine raises where it cannot tell."""
        if not self.engine().exists(key):
            return None
        session = self.engine(key)
        data = session.load()
        if session.session_key == key:
            return data, self.expiry(session, data)
        if session.session_key:  # made by load()
            session.delete(session.session_key)
        if self.engine().exists(key):
            raise EngineUnavailable(f"{self.engine.__module__} has the session, and loads nothing.")
        return None

    def expiry(self, session: Any, data: dict[str, Any]) -> datetime:
        session._session_cache = data
        return in_milliseconds(session.get_expiry_date())

    def prepared(self, session: Any, data: dict[str, Any]) -> None:
        """What the engine's `save()` needs besides the data."""

    # Verbs

    def can_ask(self, key: str | None) -> bool:
        return key is not None and len(key) <= LONGEST_KEY and key.isascii() and key.isprintable() and " " not in key

    async def read(self, id: str, key: str) -> Record | None:
        found = await self._ask(self.find, key)
        return None if found is None else there.record_of(id, *found)

    async def insert(self, record: Record, key: str) -> bool:
        return bool(await self._ask(self._save, key, self._data(record), True))

    async def put(self, record: Record, key: str) -> None:
        data = self._data(record)
        if not await self._ask(self._save, key, data, True):
            await self._ask(self._save, key, data, False)

    async def replace(self, record: Record, key: str) -> Record | None:
        return record if await self._ask(self._save, key, self._data(record), False) else None

    async def touch(self, id: str, key: str, expires_at: datetime) -> bool:
        """As saving what is there: the engine sets the expiry itself."""
        return bool(await self._ask(self._touch, key))

    async def remove(self, id: str, key: str) -> bool:
        await self._ask(self._remove, key)
        return True

    async def leave(self, found: Record, key: str) -> Record | None:
        """Remove what was found, unless it has been saved since: that is answered, and stays."""
        newer = await self.read(found.id, key)
        if newer is not None and newer.payload != found.payload:
            return newer
        if newer is not None:
            await self.remove(found.id, key)
        return None

    async def leave_all(self, found: list[Record], keys: dict[str, str]) -> list[tuple[Record, Record]]:
        """The same for many: those that were saved since, as they were found and as they are."""
        left = [(each, await self.leave(each, keys[each.id])) for each in found]
        return [(each, newer) for each, newer in left if newer is not None]

    async def read_all(self, keys: dict[str, str]) -> dict[str, Record]:
        """Of many, those that there are, by id."""
        read = [await self.read(id, key) for id, key in keys.items() if self.can_ask(key)]
        return {record.id: record for record in read if record is not None}

    async def of_user(self, user_id: str) -> list[Record]:
        return []

    async def scan(self, after: str | None, limit: int) -> Page:
        return Page()

    async def purge(self, before: datetime, limit: int) -> int:
        return 0  # `purgesessions --model` does, where there is a table

    # The engine

    def _save(self, key: str, data: dict[str, Any], must_create: bool) -> bool:
        """`False`: the key is taken, or the session is gone."""
        if not self.updates_only and bool(self.engine().exists(key)) is must_create:
            return False
        session = self.engine(key)
        session._session_cache = data
        self.prepared(session, data)
        try:
            session.save(must_create=must_create)
        except CreateError:
            return False
        except UpdateError as error:  # which Django's db raises for any error of the database
            if self.engine().exists(key):
                raise EngineUnavailable(f"{self.engine.__module__}: {error.__context__}") from error
            return False
        return True

    def _touch(self, key: str) -> bool:
        found = self.find(key)
        return found is not None and self._save(key, found[0], False)

    def _remove(self, key: str) -> None:
        self.engine().delete(key)

    def _data(self, record: Record) -> dict[str, Any]:
        return there.data_of(record, self.serializer)

    async def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await settle(self.face.call(function, *arguments))
        except SuspiciousOperation:  # a key that the engine takes for none
            return None
        except (EngineUnavailable, SessionNotSerializable, *OF_THE_SITE):
            raise
        except Exception as error:
            raise EngineUnavailable(f"{self.engine.__module__}: {error}") from error


def decoded(session: Any, text: str) -> dict[str, Any] | None:
    """What `SessionBase.decode()` gives, but `None` for what it takes for an empty session: it is not readable."""
    if data := session.decode(text):
        return dict(data)
    try:
        signing.loads(text, salt=session.key_salt, serializer=session.serializer)
    except (*UNREADABLE, signing.BadSignature):
        return None
    return {}
