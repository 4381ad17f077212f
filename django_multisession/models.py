"""The table of the SQL engine."""

from datetime import datetime
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext_lazy as _

from .records import from_epoch, in_milliseconds, to_epoch


class EpochField(models.BigIntegerField):  # type: ignore[type-arg]
    """A moment, stored as milliseconds since 1970 in UTC.

    Eight bytes on every database, whatever `USE_TZ`, `TIME_ZONE` and the connection's time zone are, and an integer on
    the wire: a `timestamptz` doubles what a session read costs on PostgreSQL. In Python it is what a `DateTimeField`
    would give: an aware datetime, or a naive local one where `USE_TZ` is off.
    """

    description = _("Moment, as milliseconds since 1970")

    def from_db_value(self, value: int | None, expression: Any, connection: Any) -> datetime | None:
        return None if value is None else self.to_python(value)

    def to_python(self, value: Any) -> Any:
        if isinstance(value, str):  # dumpdata's
            return parse_datetime(value) or super().to_python(value)
        if not isinstance(value, int):
            return value if isinstance(value, datetime) else super().to_python(value)
        moment = from_epoch(value)
        return moment if settings.USE_TZ else timezone.make_naive(moment)

    def get_prep_value(self, value: Any) -> Any:
        if isinstance(value, datetime):
            return to_epoch(in_milliseconds(value))
        return super().get_prep_value(value)

    def formfield(self, *args: Any, **kwargs: Any) -> Any:
        return models.Field.formfield(self, *args, **kwargs)


class SessionIdField(models.CharField):  # type: ignore[type-arg]
    """Without the index for LIKE that Django gives each varchar key on PostgreSQL: nobody looks for parts of an id."""

    def db_type(self, connection: Any) -> str | None:
        found = super().db_type(connection)
        return found and found.replace("varchar", "character varying") if connection.vendor == "postgresql" else found


class Session(models.Model):
    """A `Record`, as a row. The hot path goes by `backends.db.DbStorage`, which reads and writes no instances."""

    session_id = SessionIdField(_("session id"), max_length=64, primary_key=True)
    data = models.BinaryField(_("data"))
    user_id = models.CharField(_("user id"), max_length=255, null=True, blank=True)  # noqa: DJ001  anonymous is not a user
    created_at = EpochField(_("created at"))
    updated_at = EpochField(_("updated at"))
    expires_at = EpochField(_("expires at"))
    version = models.BigIntegerField(_("version"), default=1)

    class Meta:
        verbose_name = _("session")
        verbose_name_plural = _("sessions")
        indexes = [
            models.Index(fields=["expires_at"], name="multisession_expiry"),
            models.Index(fields=["user_id", "expires_at"], name="multisession_user_expiry"),
        ]

    def __str__(self) -> str:
        return str(self.session_id)


class PurgeLease(models.Model):
    """Who purges a table, until when; where the database has no advisory locks (see `purge/lease.py`)."""

    name = models.CharField(max_length=64, primary_key=True)
    holder = models.CharField(max_length=32)
    expires_at = EpochField()

    def __str__(self) -> str:
        return self.name


class PurgeRun(models.Model):
    """What a run of the purge did. The newest `KEPT` are kept; `reason` is one of `purge/loop.py`'s, or "error"."""

    KEPT: ClassVar = 100

    table = models.CharField(_("table"), max_length=255)
    started_at = EpochField(_("started at"))
    ended_at = EpochField(_("ended at"))
    rows = models.BigIntegerField(_("rows"))
    batches = models.BigIntegerField(_("batches"))
    more = models.BooleanField(_("more are waiting"))
    reason = models.CharField(_("reason"), max_length=32)
    host = models.CharField(_("host"), max_length=255)

    class Meta:
        verbose_name = _("purge")
        verbose_name_plural = _("purges")

    def __str__(self) -> str:
        return f"{self.table}, {self.started_at:%Y-%m-%d %H:%M}: {self.rows} ({self.reason})"
