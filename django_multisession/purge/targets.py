"""What a purge works on: a SQL table (see `sweep.py`), or the storage of an engine that has none."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from socket import gethostname
from typing import Any, Protocol, cast

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connections, router, transaction

from .. import engine
from ..databases import asking, clock
from ..durations import Duration, as_age, as_seconds
from ..exceptions import InvalidOption
from ..records import utcnow
from ..twins import run_sync
from .asked import Asked
from .counting import ages, count, days
from .lease import Lease
from .sweep import Batch, batch
from .tables import Criteria, Position, Table, table_of

GRACE = timedelta(hours=1)

# Rows per batch, and the pause after it in seconds, if nothing else is asked for. `None`: as long as the batch took, so
# that of SQLite's one write lock, and of what MariaDB's disk can take, half is left to others.
PACE: tuple[int, float | None] = 1000, 0
PACES: dict[str, tuple[int, float | None]] = {"sqlite": (250, None), "mysql": (1000, None)}

Call = Callable[..., Any]

logger = logging.getLogger("django_multisession.purge")


class Sweep(Protocol):
    """A run over a target, in batches."""

    name: str
    by_server: bool

    async def start(self) -> bool: ...
    async def batch(self, size: int, most: int) -> Batch | None: ...
    async def more(self, ended: bool) -> bool: ...
    async def stop(self) -> None: ...
    async def record(self, started: datetime, purged: Any) -> None: ...


@dataclass(frozen=True)
class Target:
    """`table`, or `storage` where there is none."""

    asked: Asked
    table: Table | None = None
    storage: Any = None

    @property
    def criteria(self) -> Criteria:
        """By this host's clock: for what removes nothing."""
        return self.asked.at(utcnow())

    @property
    def pace(self) -> tuple[int, float | None]:
        return PACES.get(connections[self.table.alias].vendor, PACE) if self.table else PACE

    @property
    def by_server(self) -> bool:
        """The server expires these sessions by itself; a purge only tidies up."""
        return bool(getattr(self.storage, "expires_itself", False))

    def count(self, at_most: int | None = None) -> int | None:
        """How many rows a sweep will look at. Raises `EngineUnavailable`."""
        return int(self._ask(count, self.criteria, at_most)) if self.table else None

    def live(self, at_most: int | None = None) -> int:
        """How many live sessions would go, of `at_most`. Raises `EngineUnavailable`, and `InvalidOption` as a purge."""
        return int(self._by_server(self._live, at_most)) if self.table and self.criteria.live_too else 0

    def _live(self, table: Table, criteria: Criteria, at_most: int | None) -> int:
        now = criteria.before + timedelta(seconds=self.asked.grace)
        return int(table.matching(criteria).filter(table.where(gte=table.moment(now)))[:at_most].count())

    def days(self) -> dict[date, int]:
        """How many would go, by day of expiry. Raises `EngineUnavailable`, and `InvalidOption` as a purge."""
        return dict(self._by_server(days)) if self.table else {}

    def ages(self, days: int, at_most: int) -> list[int]:
        """How many expired on each of the last days, and before; see `sweep.ages()`. Raises `EngineUnavailable`."""
        return list(self._ask(ages, self.criteria, days, at_most)) if self.table else []

    def sweep(self, call: Call, pause: float) -> Sweep:
        if self.table:
            return TableSweep(self.table, self.asked, call, pause)
        return StorageSweep(self.storage, self.asked, self.by_server)

    def _by_server(self, function: Call, *arguments: Any) -> Any:
        assert self.table
        since, alias = utcnow(), self.table.alias
        return self._ask(function, self.asked.by(run_sync(asking(_called, alias, clock, alias)), since), *arguments)

    def _ask(self, function: Call, *arguments: Any) -> Any:
        assert self.table
        return run_sync(asking(_called, self.table.alias, function, self.table, *arguments))


def _called(function: Call, *arguments: Any) -> Any:
    return function(*arguments)


def target(
    face: str = "storage",
    *,
    grace: Duration = GRACE,
    older_than: Duration | None = None,
    created_before: Duration | datetime | None = None,
    anonymous_only: bool = False,
    database: str | None = None,
    model: Any = None,
    store: Any = None,
) -> Target:
    """Find what the options of `purge()` mean; `face` is the store's attribute with its storage."""
    if not isinstance(anonymous_only, bool):  # the text "false", as someone may write in JSON, would be true
        raise InvalidOption("anonymous_only", anonymous_only, "write true or false.")
    asked = Asked(
        grace=as_seconds("grace", grace),
        older_than=as_age("older_than", older_than),
        created_before=as_age("created_before", created_before),
        anonymous_only=anonymous_only,
    )
    table, storage = (
        _of_store(store or engine.store_class(), face, database) if model is None else _of_model(model, database)
    )
    if not (table and table.ours):
        _refuse(older_than=older_than, created_before=created_before, anonymous_only=anonymous_only)
    if not table:
        _refuse(database=database)
    return Target(asked, table, storage)


def _of_model(model: Any, database: str | None) -> tuple[Table | None, Any]:
    return table_of(model, database), None


def _of_store(store: Any, face: str, database: str | None) -> tuple[Table | None, Any]:
    if hasattr(store, "get_model_class"):  # Django's db and cached_db, and those who build on them
        return table_of(store.get_model_class(), database), None
    if not engine.is_ours(store):
        raise InvalidOption(
            "SESSION_ENGINE",
            engine.name(),
            "its sessions cannot be purged; those of django_multisession.backends.db, redis and mongodb and of "
            "Django's db and cached_db can, and with model a table that has an expire_date.",
        )
    storage = getattr(store, face)
    return (table_of(storage.model, database), None) if hasattr(storage, "model") else (None, storage)


def _refuse(**options: Any) -> None:
    for name, value in options.items():
        if value is not None and value is not False:
            raise InvalidOption(name, value, "only the table of django_multisession.backends.db can be asked that.")


class TableSweep:
    """`call` runs a function: directly, or in Django's database thread."""

    by_server = False

    def __init__(self, table: Table, asked: Asked, call: Call, pause: float) -> None:
        self.table, self.asked, self.call = table, asked, call
        self.name = table.name
        self.lease = Lease(table.alias, table.name, pause)
        self.position: Position | None = None

    async def start(self) -> bool:
        """`False`: another purge has the lease. Raises `InvalidOption` where the clocks differ."""
        since = utcnow()
        self.criteria = self.asked.by(await self._ask(clock, self.table.alias), since)
        return bool(await self._ask(self.lease.acquire))

    async def batch(self, size: int, most: int) -> Batch | None:
        """Look at so many rows, and remove so many at most. `None`: the lease was lost."""
        return cast(Batch | None, await self._ask(self._batch, size, most))

    def _batch(self, size: int, most: int) -> Batch | None:
        if not self.lease.renew():
            return None
        if self.position is None and self.criteria.live_too:
            self.criteria = replace(self.criteria, until=self.table.last())
        done, self.position = batch(self.table, self.criteria, self.position, size, most)
        return done

    async def more(self, ended: bool) -> bool:
        return bool(await self._ask(self._more, ended))

    def _more(self, ended: bool) -> bool:
        if not self.criteria.expiry_only:
            return not ended
        rows = self.table.matching(self.criteria)
        if not ended and self.position:  # past those that are dead but still in the index
            rows = rows.filter(self.table.where(gte=self.position.expiry))
        return bool(rows.exists())

    async def stop(self) -> None:
        await self._ask(self.lease.release)

    async def record(self, started: datetime, purged: Any) -> None:
        await self._ask(record, self.table.name, started, purged)

    async def _ask(self, function: Call, *arguments: Any) -> Any:
        return await asking(self.call, self.table.alias, function, *arguments)


def record(table: str, started: datetime, purged: Any) -> None:
    """Keep a `PurgeRun`, and of the others the newest. That it cannot be kept is no reason for a purge to fail."""
    model: Any = apps.get_model("django_multisession", "PurgeRun")
    alias = router.db_for_write(model)
    values = {name: getattr(purged, name) for name in ("rows", "batches", "more", "reason")}
    times = {"started_at": started, "ended_at": utcnow()}
    try:
        with transaction.atomic(using=alias):
            runs = model._base_manager.using(alias)
            run = runs.create(table=table, host=gethostname()[:255], **times, **values)
            runs.filter(pk__lte=run.pk - model.KEPT)._raw_delete(alias)
    except (Error, ImproperlyConfigured) as error:
        logger.warning("The purge of %s could not be recorded: %s", table, error)


class StorageSweep:
    """Needs no lease: the server sees to it that of two purges each removes other records.

    A storage whose `purge(before, limit)` goes by that moment has `async def clock() -> datetime | None`, the server's
    now in UTC; one whose server looks at its own clock needs none. One that has to look for what has expired has
    `async def purge_from(after, before, limit) -> tuple[int, str | None]` too: how many it removed, and where to go on.
    """

    name = "the session store"

    def __init__(self, storage: Any, asked: Asked, by_server: bool) -> None:
        self.storage, self.asked, self.by_server = storage, asked, by_server
        self.after: str | None = None

    async def start(self) -> bool:
        since = utcnow()
        server = await self.storage.clock() if hasattr(self.storage, "clock") else None
        self.before = (self.asked.by(server, since) if server else self.asked.at(since)).before
        return True

    async def batch(self, size: int, most: int) -> Batch:
        if hasattr(self.storage, "purge_from"):
            removed, self.after = await self.storage.purge_from(self.after, self.before, most)
            return Batch(removed, removed, ended=self.after is None)
        removed = await self.storage.purge(self.before, most)
        return Batch(removed, removed, ended=removed < most)

    async def more(self, ended: bool) -> bool:
        return not ended

    async def stop(self) -> None:
        """There is no lease to release."""

    async def record(self, started: datetime, purged: Any) -> None:
        """Nobody needs to know when the leftovers were removed, and such a site may have no SQL database."""
