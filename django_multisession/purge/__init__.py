"""The purge: `purge()` and `apurge()`, over which `clear_expired()` and `manage.py purgesessions` are a few lines each.

`loop.py` runs it in batches, over what `targets.py` finds: a table, which `sweep.py` empties, or a storage.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypedDict, Unpack

from ..durations import Duration
from ..twins import ASYNC, SYNC, run_sync
from . import loop
from .loop import DONE, ERROR, MAX_ROWS, MAX_SECONDS, RUNNING, SERVER, STOPPED, Progress, Purged

__all__ = [
    "DONE",
    "ERROR",
    "MAX_ROWS",
    "MAX_SECONDS",
    "RUNNING",
    "SERVER",
    "STOPPED",
    "Options",
    "Progress",
    "Purged",
    "apurge",
    "purge",
]


class Options(TypedDict, total=False):
    """What `purge()` takes. A duration is a number of seconds, a timedelta, or text as 30d, 12h, 90m, 45s, 50ms."""

    batch_size: int  # rows per batch (1,000; on SQLite 250)
    max_rows: int | None  # end after so many, exactly
    max_seconds: Duration | None  # end after the batch in which this time is up
    pause: Duration | None  # between two batches (none; on SQLite and MySQL as long as the batch took)
    grace: Duration  # leave what has not been expired for this long (1 h)
    older_than: Duration | None  # also sessions that nobody saved or touched for this long
    created_before: Duration | datetime | None  # also sessions that are older than this, or from before then
    anonymous_only: bool  # only sessions without a user
    database: str | None  # alias; the one that the routers name for writes
    model: Any  # another table: a class or "app.Model" with an expire_date, as django_session's has
    store: Any  # the SessionStore class whose sessions are purged; that of SESSION_ENGINE
    stop: Callable[[], bool]  # asked before each batch and during pauses
    progress: Callable[[Progress], object]  # called after each batch


def purge(**options: Unpack[Options]) -> Purged:
    """Remove the expired sessions in batches. Raises `InvalidOption` and `EngineUnavailable`.

    What goes is decided by the server's clock. Where this host's differs from it by more than the grace, or by a minute
    where that is less, the purge is refused with `InvalidOption`.

    A table that another purge is at is left to that one: the reason is "running" then.
    """
    return run_sync(loop.purge(SYNC, **options))


async def apurge(**options: Unpack[Options]) -> Purged:
    return await loop.purge(ASYNC, **options)
