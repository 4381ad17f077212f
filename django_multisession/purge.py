"""The purge: `purge()` and `apurge()`, over which `clear_expired()` and `manage.py purgesessions` are a few lines each.

It works in short batches and can end after any of them: at a bound, when it is told to, by a `kill -9`. The next run
goes on. How a SQL table is swept is in `sweep.py`; other engines are purged by their storages' `purge(before, limit)`.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict, Unpack

from .durations import Duration, as_seconds, positive
from .records import utcnow
from .signals import sessions_purged
from .sweep import Batch
from .targets import Sweep, target
from .twins import ASYNC, SYNC, Face, run_sync, settle

LARGEST_BATCH = 10_000  # more only holds locks for longer; and SQLite takes 32,766 parameters
LONGEST_PAUSE = "1h"  # where the lease is a row, a purge that is killed keeps others off for so long

# Why a purge ended
DONE = "done"  # there was nothing left to do
SERVER = "server"  # the server expires sessions by itself, and what it leaves behind was removed
MAX_ROWS = "max_rows"
MAX_SECONDS = "max_seconds"
STOPPED = "stopped"  # stop() said so; for the command: SIGTERM or SIGINT
RUNNING = "running"  # another purge of the table is at it, or has taken over from this one
ERROR = "error"  # in PurgeRun only: an exception ended it

logger = logging.getLogger("django_multisession.purge")


@dataclass(frozen=True)
class Purged:
    """What a purge did.

    `more`: rows that should go are waiting, be it that the purge ended early or that requests had them locked. With
    `older_than`, `created_before` and `anonymous_only`: rows are waiting to be looked at.
    """

    rows: int
    batches: int
    seconds: float
    more: bool
    reason: str


@dataclass
class Progress:
    """What a running purge has done so far. A batch may look at more rows than it removes."""

    rows: int = 0
    examined: int = 0
    batches: int = 0

    def __post_init__(self) -> None:
        self.started = time.perf_counter()
        self.took = 0.0  # seconds, the last batch

    def add(self, batch: Batch, took: float) -> None:
        self.rows += batch.removed
        self.examined += batch.examined
        self.batches += 1
        self.took = took

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started


@dataclass(frozen=True)
class Bounds:
    batch_size: int
    max_rows: int | None
    max_seconds: float | None
    pause: float | None
    stop: Callable[[], bool]

    def most(self, rows: int) -> int:
        """How many the next batch may remove."""
        return self.batch_size if self.max_rows is None else min(self.batch_size, self.max_rows - rows)

    def reached(self, progress: Progress) -> str | None:
        if self.stop():
            return STOPPED
        if self.max_rows is not None and progress.rows >= self.max_rows:
            return MAX_ROWS
        # After the first batch: else a bound that is too short would look like a purge, and nothing would ever go.
        if (
            self.max_seconds is not None
            and progress.batches
            and progress.seconds + self.wait(progress) >= self.max_seconds
        ):
            return MAX_SECONDS
        return None

    def wait(self, progress: Progress) -> float:
        """Seconds to sleep before the next batch."""
        if not progress.batches:
            return 0
        return progress.took if self.pause is None else self.pause


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
    return run_sync(_purge(SYNC, **options))


async def apurge(**options: Unpack[Options]) -> Purged:
    return await _purge(ASYNC, **options)


async def _purge(
    face: Face,
    *,
    batch_size: int | None = None,
    max_rows: int | None = None,
    max_seconds: Duration | None = None,
    pause: Duration | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Progress], object] = lambda progress: None,
    **which: Any,
) -> Purged:
    found = target(face.storage, **which)
    usual_size, usual_pause = found.pace
    bounds = Bounds(
        batch_size=positive("batch_size", usual_size if batch_size is None else batch_size, LARGEST_BATCH),
        max_rows=None if max_rows is None else positive("max_rows", max_rows),
        max_seconds=None if max_seconds is None else as_seconds("max_seconds", max_seconds),
        pause=usual_pause if pause is None else as_seconds("pause", pause, LONGEST_PAUSE),
        stop=stop,
    )
    return await _run(found.sweep(face.call, bounds.pause or 0), bounds, face, progress)


async def _run(sweep: Sweep, bounds: Bounds, face: Face, report: Callable[[Progress], object]) -> Purged:
    progress, started = Progress(), utcnow()
    if not await sweep.start():
        logger.info("Another purge of %s is running.", sweep.name)
        return _purged(progress, more=True, reason=RUNNING)
    reason, more = ERROR, True
    try:
        ended = await _batches(sweep, bounds, face, progress, report)
        reason, more = ended, await sweep.more(ended in (DONE, SERVER))
    finally:
        purged = _purged(progress, more, reason)
        await sweep.stop()
        await sweep.record(started, purged)
        message = "Purged %s: %d sessions in %d batches, %.1f s (%s)."
        logger.info(message, sweep.name, purged.rows, purged.batches, purged.seconds, purged.reason)
    await settle(face.send(sessions_purged, sender=Purged, purged=purged, table=sweep.name))
    return purged


async def _batches(
    sweep: Sweep, bounds: Bounds, face: Face, progress: Progress, report: Callable[[Progress], object]
) -> str:
    while not (reason := bounds.reached(progress)):
        if not await _sleep(bounds.wait(progress), bounds.stop, face):
            return STOPPED
        began = time.perf_counter()
        if (batch := await sweep.batch(bounds.batch_size, bounds.most(progress.rows))) is None:
            return RUNNING
        progress.add(batch, time.perf_counter() - began)
        report(progress)
        if batch.ended:
            return SERVER if sweep.by_server else DONE
    return reason


async def _sleep(seconds: float, stop: Callable[[], bool], face: Face) -> bool:
    """`False` if told to stop meanwhile."""
    until = time.perf_counter() + seconds
    # In slices: a signal is handled, but ends no sleep.
    while (left := until - time.perf_counter()) > 0:
        if stop():
            return False
        await settle(face.sleep(min(left, 0.1)))
    return True


def _purged(progress: Progress, more: bool, reason: str) -> Purged:
    return Purged(progress.rows, progress.batches, round(progress.seconds, 3), more, reason)
