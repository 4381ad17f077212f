"""Sessions in a SQL database, through Django's ORM: SQLite, PostgreSQL, MariaDB and MySQL.

One row per session in `django_multisession_session` (see `models.Session`); times are milliseconds since 1970::

    read     SELECT ... WHERE session_id = %s AND expires_at > %s
    insert   INSERT ... ON CONFLICT (session_id) DO NOTHING             (MySQL: INSERT; a duplicate id is an error)
    replace  UPDATE ... WHERE session_id = %s AND version = %s AND expires_at > %s; on a miss, read
    touch    UPDATE ... SET expires_at = %s, updated_at = %s WHERE session_id = %s AND expires_at > %s
    remove   DELETE ... WHERE session_id = %s           (of several: IN (...))
    of_user  SELECT ... WHERE user_id = %s AND expires_at > <the database's now> - <a day>
    scan     SELECT ... WHERE session_id > %s AND expires_at > <the same> ORDER BY session_id LIMIT
    purge    the first batch of a sweep: see `sweep.py`

Each is a statement of its own in autocommit mode, or part of the transaction that the caller has open. The first five,
those of requests, are compiled by the ORM once per database and run many times, each by a cursor of its own: building a
queryset costs several times the query. All of them go to the database that the routers name for writes: a replica may
lag behind the log-in that was just saved.

A row that this engine cannot have written is no session, and a line in the log: see `COLUMNS`.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast

from asgiref.sync import sync_to_async
from django.apps import apps
from django.contrib.auth import SESSION_KEY as USER_ID_KEY
from django.core.exceptions import ImproperlyConfigured
from django.db import DataError, Error, IntegrityError, connections, router, transaction
from django.db.models import QuerySet, sql
from django.db.models.expressions import RawSQL

from .. import sweep
from ..codecs import Serialized
from ..databases import asking, clock, clock_sql, codes
from ..exceptions import SessionNotSerializable
from ..records import Page, Record, epoch_now, from_epoch, to_epoch
from . import base

LAST = to_epoch(datetime.max.replace(tzinfo=UTC))
LARGEST = 2**63 - 1
FIRST = -LARGEST - 1
DAY = 24 * 60 * 60 * 1000  # milliseconds
NO_SUCH_CHARACTERS = 1366  # of MySQL, whose drivers do not agree on the kind of error

logger = logging.getLogger("django.security.SuspiciousSession")

FIELDS = ("session_id", "data", "user_id", "created_at", "updated_at", "expires_at", "version")


@lru_cache
def _model() -> Any:
    # Not before the apps are loaded: Django may import an engine earlier.
    if not apps.is_installed("django_multisession"):
        raise ImproperlyConfigured("Add 'django_multisession' to INSTALLED_APPS and run: manage.py migrate")
    return apps.get_model("django_multisession", "Session")


class DbStorage:
    """`call` runs a function: directly, or for the async face in Django's database thread."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call

    async def read(self, id: str) -> Record | None:
        rows = await self._ask(_fetch, _read_sql, id, epoch_now())
        return _record(rows[0]) if rows else None

    async def read_newest(self, id: str) -> Record | None:
        """As `read()`, and within a transaction what others have committed since it began. No verb."""
        rows = await self._ask(_fetch_newest, id, epoch_now())
        return _record(rows[0]) if rows else None

    async def insert(self, record: Record) -> bool:
        return bool(await self._ask(_insert, record))

    async def replace(self, record: Record) -> Record | None:
        if await self._ask(_replace, record):
            return record
        rows = await self._ask(_fetch_newest, record.id, epoch_now())
        return _record(rows[0]) if rows else None

    async def touch(self, id: str, expires_at: datetime) -> bool:
        now = epoch_now()
        return bool(await self._ask(_execute, _touch_sql, to_epoch(expires_at), now, id, now))

    async def remove(self, ids: Iterable[str]) -> int:
        return int(await self._ask(_remove, list(ids)))

    async def of_user(self, user_id: str) -> list[Record]:
        """Those too that have expired for less than a day: a host whose clock is wrong would miss some, or has saved
        them with another time."""
        # Compared once more: MySQL's usual collation takes "Ann" and "ann" for one user.
        return [record for record in await self._ask(_of_user, user_id) if record.user_id == user_id]

    async def scan(self, after: str | None, limit: int) -> Page:
        """As `of_user()`."""
        return Page(*await self._ask(_scan, after or "", limit))

    async def purge(self, before: datetime, limit: int) -> int:
        return int(await self._ask(_purge, before, limit))

    async def clock(self) -> datetime:
        """The database's now. No verb."""
        return cast(datetime, await self._ask(clock))

    async def after_commit(self, function: Callable[[], object]) -> bool:
        """Have a function called after the open transaction, unless it is rolled back; `False` where none is open."""
        return bool(await self._ask(_after_commit, function))

    @property
    def model(self) -> Any:
        """What a purge sweeps instead of calling `purge()` in a loop: it resumes where the batch before ended."""
        return _model()

    async def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        alias = _alias()
        return await asking(self.call, alias, function, alias, *arguments)


def _alias() -> str:
    return router.db_for_write(_model())


# Hot statements: SQL from the ORM, once per database and vendor; parameters are in the order of the keyword arguments.

Statement = Callable[[str, str], str]


@lru_cache
def _read_sql(alias: str, vendor: str) -> str:
    rows = _matching(alias, session_id="", expires_at__gt=0).values_list(*FIELDS)
    return _compiled(alias, rows.query)


@lru_cache
def _locking_read_sql(alias: str, vendor: str) -> str:
    rows = _matching(alias, session_id="", expires_at__gt=0).select_for_update().values_list(*FIELDS)
    return _compiled(alias, rows.query)


@lru_cache
def _insert_sql(alias: str, vendor: str) -> str:
    model = _model()
    query = sql.InsertQuery(model)
    template = model(**dict.fromkeys(FIELDS, 0) | {"session_id": "", "data": b"", "user_id": ""})
    query.insert_values([model._meta.get_field(name) for name in FIELDS], [template])
    [(statement, _)] = query.get_compiler(alias).as_sql()
    if not _names_conflicts(alias):
        return str(statement)
    # Of that column alone: a conflict that a site's own constraint sees is an error, and no key that is taken.
    return f"{statement} ON CONFLICT ({connections[alias].ops.quote_name('session_id')}) DO NOTHING"


def _names_conflicts(alias: str) -> bool:
    """Whether an INSERT can say which conflict it ignores. MySQL's ignores all, and stores what does not fit cut."""
    return bool(connections[alias].features.supports_update_conflicts_with_target)


@lru_cache
def _replace_sql(alias: str, vendor: str) -> str:
    values = dict.fromkeys(FIELDS[1:], 0) | {"data": b"", "user_id": ""}
    return _update_sql(alias, values, session_id="", version=0, expires_at__gt=0)


@lru_cache
def _touch_sql(alias: str, vendor: str) -> str:
    return _update_sql(alias, {"expires_at": 0, "updated_at": 0}, session_id="", expires_at__gt=0)


@lru_cache
def _remove_sql(alias: str, vendor: str) -> str:
    return _compiled(alias, _matching(alias, session_id="").query.chain(klass=sql.DeleteQuery))


def _update_sql(alias: str, values: dict[str, Any], **lookups: Any) -> str:
    query: Any = _matching(alias, **lookups).query.chain(klass=sql.UpdateQuery)
    query.add_update_values(values)
    return _compiled(alias, query)


def _matching(alias: str, **lookups: Any) -> QuerySet[Any]:
    rows: QuerySet[Any] = _model()._base_manager.using(alias)
    for lookup, value in lookups.items():  # one by one: filter() sorts its arguments
        rows = rows.filter(**{lookup: value})
    return rows


def _compiled(alias: str, query: Any) -> str:
    statement, _ = query.get_compiler(alias).as_sql()
    return str(statement)


# The cursor is asked for each time, though that takes about as long as a read itself: other packages hang on
# connection.cursor(). django-tenants sets the schema there, debug toolbars count, SimpleTestCase forbids.


def _execute(alias: str, statement: Statement, *parameters: Any) -> int:
    """How many rows a hot statement changed (on MySQL too: matched)."""
    connection = connections[alias]
    with connection.cursor() as cursor:
        cursor.execute(statement(alias, connection.vendor), parameters)
        return int(cursor.rowcount)


def _fetch(alias: str, statement: Statement, *parameters: Any) -> list[Any]:
    connection = connections[alias]
    with connection.cursor() as cursor:
        cursor.execute(statement(alias, connection.vendor), parameters)
        return list(cursor.fetchall())


def _fetch_newest(alias: str, *parameters: Any) -> list[Any]:
    """What an UPDATE sees. In a transaction a plain SELECT may still see the snapshot with which that began (MySQL's
    REPEATABLE READ), where the version that the UPDATE just missed is the stored one for ever."""
    statement = _locking_read_sql if connections[alias].in_atomic_block else _read_sql
    return _fetch(alias, statement, *parameters)


def _insert(alias: str, record: Record) -> bool:
    try:
        with _storable(record):
            return bool(_execute(alias, _insert_sql, record.id, *_values(alias, record)))
    except IntegrityError:
        if _names_conflicts(alias) or not _fetch_newest(alias, record.id, FIRST):
            raise
        return False


def _replace(alias: str, record: Record) -> int:
    where = record.id, record.version - 1, epoch_now()
    with _storable(record):
        return _execute(alias, _replace_sql, *_values(alias, record), *where)


@contextmanager
def _storable(record: Record) -> Iterator[None]:
    """A user id with characters that the database cannot store is not an outage."""
    try:
        yield
    except (Error, ValueError) as error:
        if isinstance(error, DataError | ValueError) or NO_SUCH_CHARACTERS in codes(error):
            raise SessionNotSerializable(USER_ID_KEY if record.user_id else None) from error
        raise


def _values(alias: str, record: Record) -> tuple[Any, ...]:
    """The parameters for all FIELDS but the first."""
    times = map(to_epoch, (record.created_at, record.updated_at, record.expires_at))
    binary = connections[alias].Database.Binary  # type: ignore[attr-defined]
    return binary(record.payload), record.user_id, *times, record.version


# What this engine can have written. SQLite keeps any type in any column.
_is_id = re.compile("[0-9a-f]{64}").fullmatch
_is_no_text = re.compile("[\ud800-\udfff]").search  # what was no UTF-8
COLUMNS: dict[str, Callable[[Any], object]] = {
    "session_id": lambda value: type(value) is str and _is_id(value),
    "data": lambda value: isinstance(value, bytes | bytearray | memoryview),
    "user_id": lambda value: value is None or (type(value) is str and not _is_no_text(value)),
    **dict.fromkeys(FIELDS[3:6], lambda value: type(value) is int and 0 <= value <= LAST),
    "version": lambda value: type(value) is int and 0 < value < LARGEST,  # there is to be a next one
}


def _record(row: Any) -> Record | None:
    """A record from a row of the hot SELECT, whose columns no field has converted."""
    id, payload, user_id, created, updated, expires, version = row
    if wrong := [name for name, value in zip(FIELDS, row, strict=True) if not COLUMNS[name](value)]:
        logger.warning("Session row unreadable: %s (id %.70r).", ", ".join(wrong), id)
        return None
    return Record(id, bytes(payload), user_id, from_epoch(created), from_epoch(updated), from_epoch(expires), version)


def _remove(alias: str, ids: list[str]) -> int:
    if len(ids) == 1:
        return _execute(alias, _remove_sql, ids[0])
    return int(_model()._base_manager.filter(session_id__in=ids)._raw_delete(alias)) if ids else 0


# The others


def _of_user(alias: str, user_id: str) -> list[Record]:
    try:
        return _records(_select(_recent(alias).filter(user_id=user_id)))
    except (DataError, ValueError):  # it cannot be stored either
        return []


def _scan(alias: str, after: str, limit: int) -> tuple[list[Record], str | None]:
    rows = _recent(alias).order_by("session_id")
    if connections[alias].vendor == "sqlite":  # text that is no UTF-8 cannot be a parameter; X'' is behind all texts
        bounds = after.encode(errors="surrogateescape")
        rows = rows.extra(where=["session_id > CAST(%s AS TEXT)", "session_id < X''"], params=[bounds])
    else:
        rows = rows.filter(session_id__gt=after)
    found = _select(rows[:limit])
    return _records(found), found[-1][0] if len(found) == limit else None


def _recent(alias: str) -> Any:
    return _matching(alias).filter(expires_at__gt=RawSQL(f"{clock_sql(alias)} - {DAY}", []))  # noqa: S611  no input


def _purge(alias: str, before: datetime, limit: int) -> int:
    batch, _ = sweep.batch(sweep.Table(_model(), alias), sweep.Criteria(before), None, limit)
    return batch.removed


def _after_commit(alias: str, function: Callable[[], object]) -> bool:
    if not connections[alias].in_atomic_block:
        return False
    transaction.on_commit(function, using=alias)
    return True


def _select(rows: QuerySet[Any]) -> list[Any]:
    with connections[rows.db].cursor() as cursor:
        cursor.execute(*rows.values_list(*FIELDS).query.get_compiler(rows.db).as_sql())
        return list(cursor.fetchall())


def _records(rows: Iterable[Any]) -> list[Record]:
    return [record for row in rows if (record := _record(row))]


class SessionStore(base.SessionStore):
    """`SESSION_ENGINE = "django_multisession.backends.db"`"""

    def _wrote(self, record: Record, serialized: Serialized | None) -> None:
        base = self._base
        super()._wrote(record, serialized)
        if connections[_alias()].in_atomic_block:
            self._base, self._committed = base, False

    def _forget(self, id: str) -> None:
        super()._forget(id)
        if connections[_alias()].in_atomic_block:
            self._ended = None  # it may be rolled back

    storage = DbStorage(call=lambda function, *arguments: function(*arguments))
    astorage = DbStorage(call=lambda function, *arguments: sync_to_async(function)(*arguments))
