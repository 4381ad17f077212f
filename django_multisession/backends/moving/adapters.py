"""How sessions of known engines are read: what the server has, when it expires, and nothing created on the way.

table       `db`, `cached_db`, django-user-sessions, django-qsessions: one SELECT of the row, by the exact key
cache       Django's `cache`: GET, and the time to live where the cache can tell it
file        the file, and its age
redis       django-redis-sessions: GET and TTL
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.apps import apps
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore as Djangos
from django.core.exceptions import FieldDoesNotExist
from django.db import connections, router
from django.utils import timezone

from ...records import Record, in_milliseconds, utcnow
from .cookies import SIGNED_COOKIES, InCookie
from .foreign import Foreign, decoded
from .there import age_of, record_of

Found = tuple[dict[str, Any], datetime]  # the data, and the expiry

COLUMNS = "ip", "user_agent"  # that packages keep beside the data


class InTable(Foreign):
    """Of the engines with a table as Django's `AbstractBaseSession` has it. The row decides, whatever a cache says."""

    @staticmethod
    def app_of(engine: Any) -> str | None:
        """The app that has the table; `None` for a model of the site's own, which Django checks when it is imported."""
        for each in engine.__mro__:
            if each.__module__ in ADAPTERS:
                return str(each.__module__.partition(".backends")[0])
            if "get_model_class" in vars(each):
                break
        return None

    @property
    def model(self) -> Any:
        if hasattr(self.engine, "get_model_class"):
            return self.engine.get_model_class()
        return apps.get_model(self.engine.__module__.partition(".")[0], "Session")  # django-user-sessions

    @property
    def alias(self) -> str:
        return str(router.db_for_write(self.model))

    @property
    def updates_only(self) -> bool:  # type: ignore[override]
        return hasattr(self.engine, "get_model_class")  # Django's own save(), with force_update

    def rows(self) -> Any:
        return self.model._base_manager.using(self.alias)

    def newest_rows(self) -> Any:
        # Else a transaction may show a row as it was when it began. Who only reads takes no lock: a view in a
        # transaction (ATOMIC_REQUESTS) would keep all other requests of its session waiting.
        return self.rows().select_for_update() if connections[self.alias].in_atomic_block else self.rows()

    def count_live(self, at_most: int | None = None) -> int:
        return int(self.rows().filter(expire_date__gt=timezone.now())[:at_most].count())

    def find(self, key: str) -> Found | None:
        return self.find_all([key], self.rows()).get(key)

    def find_all(self, keys: list[str], rows: Any) -> dict[str, Found]:
        live = rows.filter(session_key__in=keys, expire_date__gt=timezone.now())
        wanted, session = set(keys), self.engine()
        return {
            key: (data, in_milliseconds(expire_date))
            for key, text, expire_date in live.values_list("session_key", "session_data", "expire_date")
            # MySQL's usual collation takes "abc" and "ABC" for one key.
            if key in wanted and (data := decoded(session, text)) is not None
        }

    async def read_all(self, keys: dict[str, str]) -> dict[str, Record]:
        return await self._read_all(keys, self.rows())

    async def _read_all(self, keys: dict[str, str], rows: Any) -> dict[str, Record]:
        ids = {key: id for id, key in keys.items() if self.can_ask(key)}
        found = await self._ask(self.find_all, list(ids), rows) if ids else {}
        return {ids[key]: record_of(ids[key], *each) for key, each in found.items()}

    async def leave_all(self, found: list[Record], keys: dict[str, str]) -> list[tuple[Record, Record]]:
        """In two statements: each commit of its own is a wait for the disk."""
        now = await self._read_all({each.id: keys[each.id] for each in found}, self.newest_rows())
        newer = [(each, now[each.id]) for each in found if each.id in now and now[each.id].payload != each.payload]
        saved = {each.id for each, _ in newer}
        if gone := [keys[each.id] for each in found if each.id in now and each.id not in saved]:
            await self._ask(self._remove_all, gone)
        return newer

    def _remove(self, key: str) -> None:
        self._remove_all([key])

    def _remove_all(self, keys: list[str]) -> None:
        if self.engine.delete is Djangos.delete:
            self.rows().filter(session_key__in=keys).delete()  # and reads none of them
        else:
            for key in keys:  # it has something else to remove too, from a cache say
                super()._remove(key)

    def prepared(self, session: Any, data: dict[str, Any]) -> None:
        columns = [name for name in COLUMNS if hasattr(session, name) and _has(self.model, name)]
        if columns and (kept := self.rows().filter(session_key=session.session_key).values(*columns).first()):
            vars(session).update(kept)
        if hasattr(session, "user_id"):
            session.user_id = data.get(SESSION_KEY)


def _has(model: Any, name: str) -> bool:
    try:
        return bool(model._meta.get_field(name))
    except FieldDoesNotExist:
        return False


class InCache(Foreign):
    updates_only = True

    def find(self, key: str) -> Found | None:
        session = self.engine(key)
        data = session._cache.get(session.cache_key)  # load() would take an error for an empty session
        if not isinstance(data, dict):
            return None
        left = time_to_live(session._cache, session.cache_key)
        return data, self.expiry(session, data) if left is None else utcnow() + left


def time_to_live(cache: Any, key: str) -> timedelta | None:
    """What a cache's entry has left; `None` where that cannot be asked, or it has no end."""
    milliseconds: Any = None
    if hasattr(cache, "pttl"):  # django-redis
        milliseconds = cache.pttl(key)
    elif hasattr(cache, "_expire_info"):  # Django's local memory
        until = cache._expire_info.get(cache.make_key(key))
        milliseconds = until and until * 1000 - utcnow().timestamp() * 1000
    elif hasattr(getattr(cache, "_cache", None), "get_client"):  # Django's Redis
        milliseconds = cache._cache.get_client(None, write=True).pttl(cache.make_key(key))
    return timedelta(milliseconds=milliseconds) if milliseconds and milliseconds > 0 else None


class InFile(Foreign):
    updates_only = True

    def find(self, key: str) -> Found | None:
        session = self.engine(key)
        try:
            with Path(session._key_to_file(key)).open(encoding="ascii") as file:
                text, saved = file.read(), os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return None
        if (data := decoded(session, text)) is None:
            return None
        age = age_of(data)
        expires_at = age if isinstance(age, datetime) else datetime.fromtimestamp(saved, UTC) + age
        return (data, in_milliseconds(expires_at)) if expires_at > utcnow() else None


class InRedis(Foreign):
    """django-redis-sessions."""

    def find(self, key: str) -> Found | None:
        session = self.engine(key)
        name = session.get_real_stored_key(key)
        text = session.server.get(name)
        if text is None or (data := decoded(session, text.decode() if isinstance(text, bytes) else text)) is None:
            return None
        left = session.server.pttl(name)
        return data, utcnow() + timedelta(milliseconds=left) if left > 0 else self.expiry(session, data)

    def _remove(self, key: str) -> None:
        session = self.engine(key)  # whose own delete() swallows errors
        session.server.delete(session.get_real_stored_key(key))


ADAPTERS: dict[str, type[Foreign]] = {
    "django.contrib.sessions.backends.db": InTable,
    "django.contrib.sessions.backends.cached_db": InTable,
    "django.contrib.sessions.backends.cache": InCache,
    "django.contrib.sessions.backends.file": InFile,
    SIGNED_COOKIES: InCookie,
    "redis_sessions.session": InRedis,
    "user_sessions.backends.db": InTable,
    "qsessions.backends.db": InTable,
    "qsessions.backends.cached_db": InTable,
}


def adapter_of(engine: type) -> type[Foreign]:
    """By the module of the engine, or of what it builds on."""
    return next((ADAPTERS[each.__module__] for each in engine.__mro__ if each.__module__ in ADAPTERS), Foreign)
