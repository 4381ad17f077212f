"""The check of whose records a store holds; the list is in `checks/__init__.py`."""

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta

from django.apps import apps
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, router, transaction

from .. import engine
from ..exceptions import EngineUnavailable
from ..payload import codecs
from ..records import Record, utcnow
from ..twins import run_sync
from . import Problems, messages

MOST = 500  # records that are looked at
FEW = 3  # of others are no reason to say anything
RECENT = timedelta(hours=1)  # what a dropped key has made is older soon, since nobody saves it any more

HINT = (
    "Give each site a MULTISESSION_KEY_PREFIX, a MULTISESSION_MONGODB_COLLECTION or a database of its own; the servers "
    "of one site need the same SECRET_KEY and MULTISESSION_ENCRYPTION_KEYS. After a change of keys wait for an hour."
)


@checks.register(checks.Tags.database)
def store_shared(databases: Sequence[str] | None = None, **_kwargs: object) -> list[checks.CheckMessage]:
    # Django 5.2 calls it without --database as well.
    return messages("W011", of_others()) if databases and _is_asked(set(databases)) else []


@checks.register(deploy=True)
def store_shared_deployed(**_kwargs: object) -> list[checks.CheckMessage]:
    return messages("W011", of_others()) if engine.kind() in ("mongodb", "redis") else []


def _is_asked(databases: set[str]) -> bool:
    if engine.kind() not in engine.IN_SQL or not apps.is_installed("django_multisession"):
        return engine.kind() in ("mongodb", "redis")
    return _alias() in databases


def _alias() -> str:
    return router.db_for_write(apps.get_model("django_multisession", "Session"))


def of_others() -> Problems:
    try:
        found = _page()
        others = [record for record in _recent(found) if not codecs.is_ours(record.payload, record.id)]
    except (
        EngineUnavailable,
        ImproperlyConfigured,
        Error,
    ):  # as each request will tell, and for what is not migrated yet
        return
    if len(others) > FEW:
        yield (
            f"Of {len(found)} records in the session store {len(others)} new ones are of none of this site's keys.",
            HINT,
        )


def _page() -> list[Record]:
    storage = engine.store().storage
    # Atomic: a statement that fails must not spoil the transaction that the caller may be in.
    with transaction.atomic(using=_alias()) if engine.kind() in engine.IN_SQL else nullcontext():
        return run_sync(storage.scan(None, MOST))


def _recent(records: list[Record]) -> list[Record]:
    since = utcnow() - RECENT
    return [record for record in records if record.updated_at > since]
