"""The purge of a SQL table, batch by batch, in the order of its expiry index.

A sweep of the expired resumes where the batch before ended. On PostgreSQL a batch is one statement::

    WITH doomed AS MATERIALIZED (
        SELECT ctid, expires_at FROM <table> WHERE expires_at >= <last> AND expires_at < <before>
        ORDER BY expires_at LIMIT <limit> FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM <table> WHERE ctid = ANY (ARRAY(SELECT ctid FROM doomed)) AND expires_at < <before> RETURNING 1
    ) SELECT (SELECT count(*) FROM doomed), (SELECT count(*) FROM gone), (SELECT max(expires_at) FROM doomed)

and elsewhere two, in one transaction where the database can skip locked rows (MySQL 8, MariaDB 10.6)::

    SELECT expires_at, session_id FROM <table> WHERE expires_at < <before> AND expires_at >= <last>
        ORDER BY expires_at LIMIT <limit> [FOR UPDATE SKIP LOCKED]
    DELETE FROM <table> WHERE session_id IN (...) [AND expires_at < <before> AND expires_at <= <last>, if not locked]
    (MySQL: DELETE <table> FROM <table> FORCE INDEX (PRIMARY) WHERE session_id IN (...))

With further criteria rows that stay are in between, so a batch looks at the next <limit> rows of the index, and the
DELETE picks::

    SELECT expires_at, session_id FROM <table> WHERE expires_at <= <last of all> AND expires_at >= <last>
        AND (expires_at > <last> OR session_id > <its id>) ORDER BY expires_at, session_id LIMIT <limit>
    [SELECT session_id FROM <table> WHERE <criteria> AND session_id IN (...) LIMIT <max_rows left>, if those are fewer]
    [SELECT session_id FROM <table> WHERE <criteria> AND session_id IN (...) FOR UPDATE SKIP LOCKED]
    DELETE FROM <table> WHERE session_id IN (...) [AND <criteria> AND expires_at <= <last>, if not locked]
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from django.apps import apps
from django.conf import settings
from django.core.exceptions import FieldDoesNotExist
from django.db import connections, router, transaction
from django.db.models import BigIntegerField, Count, ExpressionWrapper, F, Func, Q
from django.db.models.expressions import RawSQL
from django.db.models.functions import TruncDate
from django.utils import timezone

from .databases import asking, clock, guarded
from .exceptions import InvalidOption
from .records import EPOCH, utcnow

__all__ = ["asking", "clock"]  # for who asks a table

FEW = 100  # rows that MySQL deletes one by one
DAY = 24 * 60 * 60 * 1000  # milliseconds
FIRST, LAST = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class Criteria:
    """Which rows go: those that expired before then, or are idle, or old; of the anonymous ones only, if so asked."""

    before: datetime
    updated_before: datetime | None = None
    created_before: datetime | None = None
    anonymous_only: bool = False
    until: Any = None  # where a walk over live rows ends: those that are touched as it goes on move ahead of it

    @property
    def expiry_only(self) -> bool:
        return not (self.updated_before or self.created_before or self.anonymous_only)

    @property
    def live_too(self) -> bool:
        return bool(self.updated_before or self.created_before)


class Batch(NamedTuple):
    examined: int
    removed: int
    ended: bool


class Position(NamedTuple):
    expiry: Any
    pk: Any = None


class Table:
    """Ours, Django's `django_session`, or that of another model with an `expire_date`."""

    def __init__(self, model: Any, alias: str | None = None) -> None:
        self.model = apps.get_model(model) if isinstance(model, str) else model
        self.ours = self.model._meta.label == "django_multisession.Session"
        self.expiry = "expires_at" if self.ours else "expire_date"
        self.field = self.model._meta.get_field(self.expiry)
        self.alias = alias or router.db_for_write(self.model)
        self.name = self.model._meta.db_table
        # SQLite keeps any type in any column, so an id may be what no parameter can be.
        self.by_row = self.ours and connections[self.alias].vendor == "sqlite"

    def moment(self, moment: datetime) -> datetime:
        return moment if self.ours or settings.USE_TZ else timezone.make_naive(moment, timezone.get_default_timezone())

    def where(self, **lookups: Any) -> Q:
        """`where(gte=moment)`: a condition on the expiry."""
        return Q(*((f"{self.expiry}__{lookup}", value) for lookup, value in lookups.items()))

    def rows(self) -> Any:
        """With `_key`, by which a row is found again; without those whose expiry is no number."""
        rows = self.model._base_manager.using(self.alias)
        if not self.by_row:
            return rows.annotate(_key=F("pk"))
        return rows.annotate(_key=RawSQL("rowid", [], BigIntegerField())).filter(self.where(gt=FIRST, lte=LAST))

    def matching(self, criteria: Criteria) -> Any:
        doomed = self.where(lt=self.moment(criteria.before))
        if criteria.updated_before:
            doomed |= Q(updated_at__lt=criteria.updated_before)
        if criteria.created_before:
            doomed |= Q(created_at__lt=criteria.created_before)
        return self.rows().filter(doomed, **({"user_id": None} if criteria.anonymous_only else {}))

    def walked(self, criteria: Criteria) -> Any:
        """The rows that a sweep looks at."""
        if not criteria.live_too:
            return self.rows().filter(self.where(lt=self.moment(criteria.before)))
        return self.rows() if criteria.until is None else self.rows().filter(self.where(lte=criteria.until))

    def last(self) -> Any:
        """The last expiry of all."""
        found = self.positions(self.rows().order_by(f"-{self.expiry}")[:1])
        return found[0].expiry if found else None

    def positions(self, rows: Any) -> list[Position]:
        # The bare number: as a moment it may be a naive local one, which is ambiguous for an hour each autumn.
        expiry = ExpressionWrapper(F(self.expiry), BigIntegerField()) if self.ours else F(self.expiry)
        return [Position(*row) for row in rows.annotate(_expiry=expiry).values_list("_expiry", "_key")]


def table_of(model: Any, database: str | None) -> Table:
    """The table of `--model` and `--database`; raises `InvalidOption`."""
    if database is not None and database not in connections:
        raise InvalidOption("database", database, f"there are {', '.join(connections)}.")
    try:
        table = Table(model, database)
    except (LookupError, ValueError):
        raise InvalidOption("model", model, "write an installed model as app.Model.") from None
    except FieldDoesNotExist:
        raise InvalidOption("model", model, "it has no expire_date, as Django's AbstractBaseSession does.") from None
    if table.field.model._meta.db_table != table.name:
        raise InvalidOption("model", model, f"its expire_date is in another table, {table.field.model._meta.db_table}.")
    return table


# A batch: what was removed, and where the next one goes on


def batch(
    table: Table, criteria: Criteria, after: Position | None, size: int, most: int | None = None
) -> tuple[Batch, Position | None]:
    """Look at the next `size` rows, of which `most` may go."""
    most = size if most is None else most
    if criteria.expiry_only:  # those that are looked at go
        size = most
    by_place = criteria.expiry_only and connections[table.alias].vendor == "postgresql"
    one = _by_place if by_place else _by_key
    done, last = guarded(table.alias, one, table, criteria, after, size, most)
    return done, last or after


def _by_place(
    table: Table, criteria: Criteria, after: Position | None, size: int, most: int
) -> tuple[Batch, Position | None]:
    connection = connections[table.alias]
    quote = connection.ops.quote_name
    names = {"table": quote(table.name), "expiry": quote(table.field.column)}
    before = table.field.get_db_prep_value(table.moment(criteria.before), connection, prepared=False)
    # Not before the last expiry, rather than behind it: more rows may have that very one.
    resume, last = ("", []) if after is None else ("{expiry} >= %s AND ".format(**names), [after.expiry])
    # Nobody needs to wait for the disk: a batch that a crash of the server undoes is one for the next run.
    hasty = ", set_config('synchronous_commit', 'off', true)" if connection.get_autocommit() else ""
    statement = """
        WITH doomed AS MATERIALIZED (
            SELECT ctid, {expiry} FROM {table} WHERE {resume}{expiry} < %s
            ORDER BY {expiry} LIMIT %s FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM doomed)) AND {expiry} < %s RETURNING 1
        ) SELECT (SELECT count(*) FROM doomed), (SELECT count(*) FROM gone), (SELECT max({expiry}) FROM doomed) {hasty}
        """.format(resume=resume, hasty=hasty, **names)  # noqa: S608  of quoted names
    with connection.cursor() as cursor:
        cursor.execute(statement, [*last, before, size, before])
        examined, removed, expiry, *_ = cursor.fetchone()
    return Batch(examined, removed, ended=examined < size), Position(expiry) if examined else None


def _by_key(
    table: Table, criteria: Criteria, after: Position | None, size: int, most: int
) -> tuple[Batch, Position | None]:
    window = _window(table, criteria, after)[:size]
    if not connections[table.alias].features.has_select_for_update_skip_locked:
        found, ended = _looked_at(table, criteria, window, size, most)
        # The criteria once more: a session that was saved or touched meanwhile lives.
        removed = _delete(_still(table, criteria, found)) if found else 0
        return Batch(len(found), removed, ended), found[-1] if found else None
    with transaction.atomic(using=table.alias):
        # Where live rows are in between they are looked at, not locked.
        found, ended = _looked_at(table, criteria, _locked(window) if criteria.expiry_only else window, size, most)
        ids = [each.pk for each in found]
        if found and not criteria.expiry_only:
            ids = list(_locked(_still(table, criteria, found)).values_list("_key", flat=True))
        return Batch(len(found), _delete_locked(table, ids), ended), found[-1] if found else None


def _looked_at(table: Table, criteria: Criteria, window: Any, size: int, most: int) -> tuple[list[Position], bool]:
    """The rows of the window up to the last one that may go, and whether there are no more behind them."""
    found = table.positions(window)
    if most < len(found):
        matching = _still(table, criteria, found).order_by(table.expiry, "_key").values_list("_key", flat=True)
        if len(ids := list(matching[:most])) == most:
            return found[: 1 + [each.pk for each in found].index(ids[-1])], False
    return found, len(found) < size  # fewer rows than asked for: there were no more


def _delete_locked(table: Table, ids: list[Any]) -> int:
    """Delete rows that nobody else can change now, touching no others: MySQL would wait for those that are locked."""
    connection = connections[table.alias]
    if connection.vendor != "mysql" or not ids:
        return _delete(table.rows().filter(_key__in=ids))
    pk, quote = table.model._meta.pk, connection.ops.quote_name
    names = {"table": quote(table.name), "pk": quote(pk.column)}
    values = [pk.get_db_prep_value(id, connection, prepared=False) for id in ids]
    with connection.cursor() as cursor:
        if len(ids) <= FEW:  # of a small table the optimizer reads all rows, whatever index it is told to use
            statement = "DELETE FROM {table} WHERE {pk} = %s".format(**names)  # noqa: S608  of quoted names
            cursor.executemany(statement, [[value] for value in values])
        else:
            statement = "DELETE {table} FROM {table} FORCE INDEX (PRIMARY) WHERE {pk} IN ".format(**names)
            cursor.execute(statement + f"({', '.join(['%s'] * len(values))})", values)
        return int(cursor.rowcount)


def _still(table: Table, criteria: Criteria, found: list[Position]) -> Any:
    rows = table.matching(criteria).filter(table.where(lte=found[-1].expiry))
    return rows.filter(_key__in=[each.pk for each in found])


def _locked(rows: Any) -> Any:
    return rows.select_for_update(skip_locked=True)


def _delete(rows: Any) -> int:
    return rows._raw_delete(rows.db) or 0  # None: Django saw that no row can match


def _window(table: Table, criteria: Criteria, after: Position | None) -> Any:
    rows = table.walked(criteria)
    if after is not None:
        rows = rows.filter(table.where(gte=after.expiry))
    if criteria.expiry_only:  # all that was looked at before is gone, or locked: no need to know the last id
        return rows.order_by(table.expiry)
    if after is not None:
        rows = rows.filter(table.where(gt=after.expiry) | Q(_key__gt=after.pk))
    return rows.order_by(table.expiry, "_key")


# Without removing


def count(table: Table, criteria: Criteria, at_most: int | None = None) -> int:
    """How many rows a sweep will look at."""
    return int(table.walked(criteria)[:at_most].count())


def days(table: Table, criteria: Criteria) -> dict[date, int]:
    """How many rows would go, by the day, in UTC, on which they expire or did."""
    rows = table.matching(criteria).order_by().values(_day=_day(table)).annotate(_rows=Count("*")).order_by("_day")
    counted = rows.values_list("_day", "_rows")
    return {_date(day) if table.ours else day: number for day, number in counted}


def _date(day: int) -> date:
    try:
        return (EPOCH + timedelta(days=int(day))).date()
    except OverflowError:  # none of this engine's rows
        return date.min


def _day(table: Table) -> Any:
    if not table.ours:
        return TruncDate(table.expiry, tzinfo=UTC)  # MySQL may not know other time zones
    divided = "DIV" if connections[table.alias].vendor == "mysql" else "/"
    return Func(F(table.expiry), template=f"%(expressions)s {divided} {DAY}", output_field=BigIntegerField())


def ages(table: Table, criteria: Criteria, days: int, at_most: int) -> list[int]:
    """How many of the expired rows did so less than one day ago, less than two, and so on; at last all others.

    Each is counted up to `at_most`, so no more of the index is read (PostgreSQL: and its dead entries in between).
    """
    now = utcnow()
    ends = [min(criteria.before, now - timedelta(days=day)) for day in range(days + 1)]
    return [_between(table, *within, at_most) for within in zip([*ends[1:], None], ends, strict=True)]


def _between(table: Table, first: datetime | None, end: datetime, at_most: int) -> int:
    within = table.where(lt=table.moment(end))
    if first:
        within &= table.where(gte=table.moment(first))
    # The expiry alone, in its order: with the primary key, or in any order, the server would read the table too.
    return int(table.rows().filter(within).order_by(table.expiry).values(table.expiry)[:at_most].count())
