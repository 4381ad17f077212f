"""The purge of a SQL table, batch by batch, in the order of its expiry index.

A sweep of the expired resumes where the batch before ended. On PostgreSQL a batch is one statement::

    WITH doomed AS MATERIALIZED (
        SELECT ctid, expires_at FROM <table> WHERE expires_at >= <last> AND expires_at < <before>
        ORDER BY expires_at LIMIT <limit> FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM <table> WHERE ctid = ANY (ARRAY(SELECT ctid FROM doomed))
            AND CASE WHEN expires_at < <before> THEN TRUE END RETURNING 1
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

from typing import Any, NamedTuple

from django.db import connections, transaction
from django.db.models import Q

from ..databases import guarded
from .tables import Criteria, Position, Table

FEW = 100  # rows that MySQL deletes one by one


class Batch(NamedTuple):
    examined: int
    removed: int
    ended: bool


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
    # With CASE, by no index: where few rows seem to have expired the planner would read all of them for each batch.
    statement = """
        WITH doomed AS MATERIALIZED (
            SELECT ctid, {expiry} FROM {table} WHERE {resume}{expiry} < %s
            ORDER BY {expiry} LIMIT %s FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM doomed))
                AND CASE WHEN {expiry} < %s THEN TRUE END RETURNING 1
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
