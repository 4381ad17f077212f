"""The check of the SQL engine that asks the database; the list is in `checks/__init__.py`."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, router, transaction

from ... import engine
from ...checks import Problems, messages
from ...purge import ERROR, RUNNING
from ...purge.targets import target
from ...records import utcnow

OVERDUE = timedelta(days=7)


@checks.register(checks.Tags.database)
def sessions_not_purged(databases: Sequence[str] | None = None, **_kwargs: object) -> list[checks.CheckMessage]:
    # Django 5.2 calls it without --database as well.
    if not databases or engine.kind() not in engine.IN_SQL or not apps.is_installed("django_multisession"):
        return []
    return messages("W008", purge_overdue(set(databases)))


def purge_overdue(databases: set[str]) -> Problems:
    table, runs = target().table, apps.get_model("django_multisession", "PurgeRun")
    alias = router.db_for_write(runs)
    if table and {table.alias, alias} <= databases and _is_overdue(table, runs._base_manager.using(alias)):
        message = f"{table.name} has rows that expired {OVERDUE.days} days ago or earlier, and was not purged since."
        yield message, "Run manage.py purgesessions each day; runs that end with an error do not count."


def _is_overdue(table: Any, runs: Any) -> bool:
    limit = utcnow() - OVERDUE
    purged = runs.filter(table=table.name, ended_at__gte=limit).exclude(reason__in=[ERROR, RUNNING])
    try:
        # Atomic: a statement that fails must not spoil the transaction that the caller may be in.
        with transaction.atomic(using=table.alias), transaction.atomic(using=runs.db):
            return not purged.exists() and bool(table.rows().filter(table.where(lt=limit)).exists())
    except (Error, ImproperlyConfigured):  # not migrated yet, or not there, as `migrate` and each request will tell
        return False
