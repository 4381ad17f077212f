"""A table that is purged, ours or another's, and which of its rows go."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from django.apps import apps
from django.conf import settings
from django.core.exceptions import FieldDoesNotExist
from django.db import connections, router
from django.db.models import BigIntegerField, BooleanField, ExpressionWrapper, F, Q
from django.db.models.expressions import RawSQL
from django.utils import timezone

from ..exceptions import InvalidOption

# With "+", by no column, as SQLite sees it. Of two bounds on one side it takes either for the index, and by this one a
# purge would read all rows that live.
IS_NUMBER = f"+expires_at BETWEEN {1 - 2**63} AND {2**63 - 1}"


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
        is_number = RawSQL(IS_NUMBER, [], BooleanField())  # noqa: S611  no input
        return rows.annotate(_key=RawSQL("rowid", [], BigIntegerField())).filter(is_number)

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
