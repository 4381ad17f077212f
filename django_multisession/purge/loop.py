"""The loop of the purge: short batches, of which each may be the last: at a bound, when it is told to, by a `kill -9`.

The next run goes on. How a SQL table is swept is in `sweep.py`; other engines are purged by their storages'
`purge(before, limit)`.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..durations import Duration, as_seconds, positive
from ..records import utcnow
from ..signals import sessions_purged
from ..twins import Face, settle
from .sweep import Batch
from .targets import Sweep, target

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


async def purge(
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
