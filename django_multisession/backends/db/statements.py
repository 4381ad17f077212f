"""The statements of the SQL engine, each a function of the database's alias: those of requests, and the others."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from django.apps import apps
from django.contrib.auth import SESSION_KEY as USER_ID_KEY
from django.core.exceptions import ImproperlyConfigured
from django.db import DataError, Error, IntegrityError, connections, router, transaction
from django.db.models import QuerySet, sql
from django.db.models.expressions import RawSQL

from ...databases import call_first_after_commit, clock_sql, codes, in_transaction, is_test_case
from ...exceptions import SessionNotSerializable
from ...purge import sweep, tables
from ...records import Record, epoch_now, from_epoch, to_epoch

LAST = to_epoch(datetime.max.replace(tzinfo=UTC))
LARGEST = 2**63 - 1
FIRST = -LARGEST - 1
DAY = 24 * 60 * 60 * 1000  # milliseconds; more than a mistake in the time zone makes of a clock
NO_SUCH_CHARACTERS = 1366  # of MySQL, whose drivers do not agree on the kind of error

logger = logging.getLogger("django.security.SuspiciousSession")

FIELDS = ("session_id", "data", "user_id", "created_at", "updated_at", "expires_at", "version")


@lru_cache
def session_model() -> Any:
    # Not before the apps are loaded: Django may import an engine earlier.
    if not apps.is_installed("django_multisession"):
        raise ImproperlyConfigured("Add 'django_multisession' to INSTALLED_APPS and run: manage.py migrate")
    return apps.get_model("django_multisession", "Session")


def database() -> str:
    return router.db_for_write(session_model())


# Hot statements: SQL from the ORM, once per database and vendor; parameters are in the order of the keyword arguments.
Statement = Callable[[str, str], str]


@lru_cache
def read_sql(alias: str, vendor: str) -> str:
    rows = _matching(alias, session_id="", expires_at__gt=0).values_list(*FIELDS)
    return _compiled(alias, rows.query)


@lru_cache
def _locking_read_sql(alias: str, vendor: str) -> str:
    rows = _matching(alias, session_id="", expires_at__gt=0).select_for_update().values_list(*FIELDS)
    statement = _compiled(alias, rows.query)
    # Whose INSERT met a duplicate shares that row's lock with all whose did: each that wants it alone is a deadlock.
    return statement.replace("FOR UPDATE", "LOCK IN SHARE MODE") if vendor == "mysql" else statement


@lru_cache
def _insert_sql(alias: str, vendor: str) -> str:
    model = session_model()
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
def touch_sql(alias: str, vendor: str) -> str:
    return _update_sql(alias, {"expires_at": 0, "updated_at": 0}, session_id="", expires_at__gt=0)


@lru_cache
def _remove_sql(alias: str, vendor: str) -> str:
    return _compiled(alias, _matching(alias, session_id="").query.chain(klass=sql.DeleteQuery))


def _update_sql(alias: str, values: dict[str, Any], **lookups: Any) -> str:
    query: Any = _matching(alias, **lookups).query.chain(klass=sql.UpdateQuery)
    query.add_update_values(values)
    return _compiled(alias, query)


def _matching(alias: str, **lookups: Any) -> QuerySet[Any]:
    rows: QuerySet[Any] = session_model()._base_manager.using(alias)
    for lookup, value in lookups.items():  # one by one: filter() sorts its arguments
        rows = rows.filter(**{lookup: value})
    return rows


def _compiled(alias: str, query: Any) -> str:
    statement, _ = query.get_compiler(alias).as_sql()
    return str(statement)


# The cursor is asked for each time, though that takes about as long as a read itself: other packages hang on
# connection.cursor(). django-tenants sets the schema there, debug toolbars count, SimpleTestCase forbids.
def execute(alias: str, statement: Statement, *parameters: Any) -> int:
    """How many rows a hot statement changed (on MySQL too: matched)."""
    connection = connections[alias]
    with connection.cursor() as cursor:
        cursor.execute(statement(alias, connection.vendor), parameters)
        return int(cursor.rowcount)


def fetch(alias: str, statement: Statement, *parameters: Any) -> list[Any]:
    connection = connections[alias]
    with connection.cursor() as cursor:
        cursor.execute(statement(alias, connection.vendor), parameters)
        return list(cursor.fetchall())


def fetch_newest(alias: str, *parameters: Any) -> list[Any]:
    """What an UPDATE sees. In a transaction a plain SELECT may still see the snapshot with which that began (MySQL's
    REPEATABLE READ), where the version that the UPDATE just missed is the stored one for ever."""
    statement = _locking_read_sql if connections[alias].in_atomic_block else read_sql
    return fetch(alias, statement, *parameters)


class Commit:
    """Of the transaction of the caller's in which a record was written: `is_committed(record)`."""

    has_come = False

    def __call__(self) -> None:
        self.has_come = True


def is_committed(record: Record) -> bool | None:
    """`None`: it was written in no transaction. `False` also where nobody knows: Django tells of no commit then."""
    found: Commit | None = vars(record).get("commit")
    return None if found is None else found.has_come


def _written(alias: str, record: Record, rows: int) -> int:
    """How many rows. In a transaction of the caller's a record that was written knows of its commit."""
    if rows and in_transaction(alias):
        vars(record)["commit"] = commit = Commit()
        if connections[alias].in_atomic_block and not is_test_case(alias):  # else Django tells of none
            call_first_after_commit(alias, commit)
    return rows


def insert(alias: str, record: Record) -> bool:
    try:
        with _storable(record):
            return bool(_written(alias, record, execute(alias, _insert_sql, record.id, *_values(alias, record))))
    except IntegrityError:
        if _names_conflicts(alias) or not fetch_newest(alias, record.id, FIRST):
            raise
        return False


def replace(alias: str, record: Record) -> int:
    where = record.id, record.version - 1, epoch_now()
    with _storable(record):
        return _written(alias, record, execute(alias, _replace_sql, *_values(alias, record), *where))


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


def record_of(row: Any) -> Record | None:
    """A record from a row of the hot SELECT, whose columns no field has converted."""
    id, payload, user_id, created, updated, expires, version = row
    if wrong := [name for name, value in zip(FIELDS, row, strict=True) if not COLUMNS[name](value)]:
        logger.warning("Session row unreadable: %s (id %.70r).", ", ".join(wrong), id)
        return None
    return Record(id, bytes(payload), user_id, from_epoch(created), from_epoch(updated), from_epoch(expires), version)


def remove(alias: str, ids: list[str]) -> int:
    if len(ids) == 1:
        return execute(alias, _remove_sql, ids[0])
    return int(session_model()._base_manager.filter(session_id__in=ids)._raw_delete(alias)) if ids else 0


# The others
def of_user(alias: str, user_id: str) -> list[Record]:
    try:
        return records_of(_select(_recent(alias).filter(user_id=user_id)))
    except (DataError, ValueError):  # it cannot be stored either
        return []


def scan(alias: str, after: str, limit: int) -> tuple[list[Record], str | None]:
    rows = _recent(alias).order_by("session_id")
    if connections[alias].vendor == "sqlite":  # text that is no UTF-8 cannot be a parameter; X'' is behind all texts
        bounds = after.encode(errors="surrogateescape")
        rows = rows.extra(where=["session_id > CAST(%s AS TEXT)", "session_id < X''"], params=[bounds])
    else:
        rows = rows.filter(session_id__gt=after)
    found = _select(rows[:limit])
    return records_of(found), found[-1][0] if len(found) == limit else None


def _recent(alias: str) -> Any:
    return _matching(alias).filter(expires_at__gt=RawSQL(f"{clock_sql(alias)} - {DAY}", []))  # noqa: S611  no input


def purge(alias: str, before: datetime, limit: int) -> int:
    batch, _ = sweep.batch(tables.Table(session_model(), alias), tables.Criteria(before), None, limit)
    return batch.removed


def after_commit(alias: str, function: Callable[[], object]) -> bool:
    if not connections[alias].in_atomic_block:
        return False
    transaction.on_commit(function, using=alias)
    return True


def _select(rows: QuerySet[Any]) -> list[Any]:
    with connections[rows.db].cursor() as cursor:
        cursor.execute(*rows.values_list(*FIELDS).query.get_compiler(rows.db).as_sql())
        return list(cursor.fetchall())


def records_of(rows: Iterable[Any]) -> list[Record]:
    return [record for row in rows if (record := record_of(row))]
