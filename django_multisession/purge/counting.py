"""What a purge would remove, counted without removing it."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.db import connections
from django.db.models import BigIntegerField, Count, F, Func
from django.db.models.functions import TruncDate

from ..records import EPOCH, utcnow
from .tables import Criteria, Table

DAY = 24 * 60 * 60 * 1000  # milliseconds


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
