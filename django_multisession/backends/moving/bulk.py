"""`move()`: the rest of the old side, in batches, while requests go on moving what they use.

It keeps no position: what was moved is gone there, so that the next run begins with what is left. Of two runs the
second leaves at once: in `to` lies a mark that says one is at it, renewed with each batch; a run that was killed keeps
others off for a minute.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any, TypedDict, Unpack

from ...durations import Duration, as_seconds, positive
from ...exceptions import InvalidOption, SessionNotSerializable, SessionTooLarge
from ...records import Record, utcnow
from ...twins import ASYNC, SYNC, Face, run_sync, settle
from ...user_sessions import rotation
from . import marks, taking
from .plan import Plan, plan
from .storage import MOVE, MovingStorage
from .walking import Row, Walk

BATCH, LARGEST_BATCH = 1000, 10_000
LEASE, LEASE_ID = timedelta(seconds=60), sha256(b"sessions move").hexdigest()
SETTLED = 1.0  # seconds after which a take-over that was seen half done has been done, or was killed

# Why a run ended
DONE, MAX_ROWS, MAX_SECONDS, STOPPED, RUNNING = "done", "max_rows", "max_seconds", "stopped", "running"

# What became of a session
MOVED, EXPIRED, UNREADABLE = "moved", "expired", "unreadable"
TOO_LARGE, UNSERIALIZABLE, GONE = "too_large", "unserializable", "gone"


@dataclass(frozen=True)
class Moved:
    """What a run has done, and seen: `expired` and what else cannot be moved stays where it is.

    `more`: the run ended before it came to the end of the old side.
    """

    moved: int
    expired: int
    unreadable: int
    too_large: int
    unserializable: int
    batches: int
    seconds: float
    more: bool
    reason: str


@dataclass(frozen=True)
class Counted:
    """What the old side has, as `--dry-run` counts it."""

    live: int
    expired: int
    unreadable: int
    too_large: int
    unserializable: int


class Options(TypedDict, total=False):
    batch_size: int  # sessions per batch (1,000)
    max_rows: int | None  # end after the batch in which so many were moved
    max_seconds: Duration | None  # end after the batch in which this time is up
    pause: Duration | None  # between two batches (none)
    stop: Callable[[], bool]  # asked before each batch and during pauses
    progress: Callable[["Progress"], object]  # called after each batch


class Progress:
    """What a run has done so far."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys((MOVED, EXPIRED, UNREADABLE, TOO_LARGE, UNSERIALIZABLE, GONE), 0)
        self.batches, self.started = 0, time.perf_counter()

    @property
    def examined(self) -> int:
        return sum(self.counts.values())

    @property
    def rows(self) -> int:
        return self.counts[MOVED]

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started


def move(**options: Unpack[Options]) -> Moved:
    """Move what the old side has to the new one. Raises `InvalidOption` and `EngineUnavailable`.

    Where another run is at it, the reason is "running".
    """
    return run_sync(_move(SYNC, **options))


async def amove(**options: Unpack[Options]) -> Moved:
    return await _move(ASYNC, **options)


async def _move(
    face: Face,
    *,
    batch_size: int = BATCH,
    max_rows: int | None = None,
    max_seconds: Duration | None = None,
    pause: Duration | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Progress], object] = lambda progress: None,
) -> Moved:
    sides, done = in_phase_move(), Progress()
    walk = Walk(sides, face, positive("batch_size", batch_size, LARGEST_BATCH))
    most = None if max_rows is None else positive("max_rows", max_rows)
    longest = None if max_seconds is None else as_seconds("max_seconds", max_seconds)
    wait = 0 if pause is None else as_seconds("pause", pause, "1h")
    lease = Lease(sides.storage(face).to, wait)
    if not await lease.acquire():
        return _moved(done, more=True, reason=RUNNING)
    try:
        await _refuse_one_place(sides, walk.old, lease)
        while True:
            if reason := _bound(done, most, longest, stop):
                return _moved(done, more=True, reason=reason)
            if (page := await walk.next()) is None:
                return _moved(done, more=False, reason=DONE)
            if not await lease.renew():
                return _moved(done, more=True, reason=RUNNING)
            await _move_all(sides.storage(face), page, done)
            progress(done)
            await _sleep(wait, stop, face)
    finally:
        await lease.release()


def in_phase_move() -> Plan:
    """Raises `InvalidOption` in any other: what is moved then would be made anew on the old side."""
    if (sides := plan()).phase != MOVE:
        raise InvalidOption("phase", sides.phase, "sessions are moved in phase 'move' only.")
    return sides


def _bound(done: Progress, most: int | None, longest: float | None, stop: Callable[[], bool]) -> str | None:
    if stop():
        return STOPPED
    if most is not None and done.rows >= most:
        return MAX_ROWS
    if longest is not None and done.seconds >= longest:
        return MAX_SECONDS
    return None


def _moved(done: Progress, more: bool, reason: str) -> Moved:
    counts = {name: number for name, number in done.counts.items() if name != GONE}
    return Moved(**counts, batches=done.batches, seconds=round(done.seconds, 3), more=more, reason=reason)


async def _move_all(storage: MovingStorage, page: list[Row], done: Progress) -> None:
    """Put a page into `to`, then have the old side leave it: what was saved or ended meanwhile is found out then."""
    found, ends = await _read_all(storage, page), taking.Ends(storage.to)
    taken = [each for row in page if (each := await _move_one(storage, row, found, ends, done)) is not None]
    since = taking.Ends(storage.to)
    stay = [each for each in taken if not await storage.ended_if_over(each, since)]
    await storage.leave(stay)
    done.counts[MOVED] += len(stay)
    done.counts[GONE] += len(taken) - len(stay)
    done.batches += 1


async def _read_all(storage: MovingStorage, page: list[Row]) -> dict[str, Record]:
    storage.keys.clear()
    storage.keys.update({row.id: row.key or "" for row in page})
    found: dict[str, Record] = await storage.old.read_all({row.id: row.key or "" for row in page if row.live})
    return found


async def _move_one(
    storage: MovingStorage, row: Row, found: dict[str, Record], ends: taking.Ends, done: Progress
) -> Record | None:
    """What was put into `to`; else it is counted what became of it."""
    held, state = await _look(storage, row, found)
    if state == MOVED and await storage.ended_if_over(found[row.id], ends):
        state = GONE
    if state == MOVED:
        if await taking.put(storage.to, taking.as_ours(found[row.id], storage.serializer), held):
            return found[row.id]
        state = GONE  # a request was faster
    done.counts[state] += 1
    return None


async def _look(storage: MovingStorage, row: Row, found: dict[str, Record]) -> tuple[Record | None, str]:
    """What `to` has, and what can be done with what the old side has."""
    if not row.live:
        return None, EXPIRED
    held = await rotation.newest(storage.to, row.id)
    if not marks.gives_way(held):
        if marks.is_ended(held) and storage.old.can_ask(row.key):
            await storage.old.remove(row.id, row.key)  # as whoever ended it was about to
        return held, GONE
    if row.id not in found:
        return held, UNREADABLE
    return held, GONE if found[row.id].is_mark else _state(storage, found[row.id])


def _state(storage: MovingStorage, found: Record) -> str:
    try:
        taking.as_ours(found, storage.serializer)
    except SessionTooLarge:
        return TOO_LARGE
    except SessionNotSerializable:
        return UNSERIALIZABLE
    return MOVED


def count(stop: Callable[[], bool] = lambda: False) -> Counted:
    """What `move()` would come by, now. Nothing is changed but leftovers of what was ended."""
    return run_sync(_count(SYNC, stop))


async def _count(face: Face, stop: Callable[[], bool]) -> Counted:
    sides, done = plan(), Progress()
    walk = Walk(sides, face)
    while not stop() and (page := await walk.next()) is not None:
        storage = sides.storage(face)
        found = await _read_all(storage, page)
        for row in page:
            done.counts[(await _look(storage, row, found))[1]] += 1
    return Counted(
        done.counts[MOVED], *(done.counts[name] for name in (EXPIRED, UNREADABLE, TOO_LARGE, UNSERIALIZABLE))
    )


def clean(stop: Callable[[], bool] = lambda: False) -> int | None:
    """Remove from the old side what has a live copy on the new one, as a crash may leave it; counts them.

    `None`: somebody moves sessions at the moment, of which some are on both sides.
    """
    return run_sync(_clean(SYNC, stop))


async def _clean(face: Face, stop: Callable[[], bool]) -> int | None:
    sides, removed = in_phase_move(), 0
    walk, lease = Walk(sides, face), Lease(sides.storage(face).to, SETTLED)
    if not await lease.acquire():
        return None
    try:
        await _refuse_one_place(sides, walk.old, lease)
        while not stop() and await lease.renew() and (page := await walk.next()) is not None:
            storage = sides.storage(face)
            if both := [row for row in page if row.live and await _has_copy(storage, row)]:
                await settle(face.sleep(SETTLED))
                removed += sum([await _remove_copy(storage, row) for row in both])
        return removed
    finally:
        await lease.release()


async def _has_copy(storage: MovingStorage, row: Row) -> bool:
    held = await storage.to.read(row.id)
    return held is not None and not held.is_mark


async def _remove_copy(storage: MovingStorage, row: Row) -> bool:
    found = await storage.old.read(row.id, row.key)
    if found is None or found.is_mark or not await _has_copy(storage, row):
        return False
    if row.key is not None:
        storage.keys[row.id] = row.key
    # Whoever took it over may have been killed before it looked for an end of all sessions of its user.
    if await storage.ended_if_over(found, taking.Ends(storage.to)):
        return True
    return bool(await storage.old.remove(row.id, row.key))


async def _sleep(seconds: float, stop: Callable[[], bool], face: Face) -> None:
    until = time.perf_counter() + seconds
    while (left := until - time.perf_counter()) > 0 and not stop():
        await settle(face.sleep(min(left, 0.1)))


async def _refuse_one_place(sides: Plan, old: Any, lease: "Lease") -> None:
    """Two names may be of one place, where every session would be taken for a copy of itself."""
    if not old.foreign and await rotation.newest(old.storage, lease.held.id) == lease.held:
        raise InvalidOption("from", sides.from_.__module__, "from_settings name the place that 'to' is in.")


class Lease:
    """A mark in `to`, of whoever moves."""

    def __init__(self, to: Any, pause: float) -> None:
        self.to, self.age = to, LEASE + timedelta(seconds=pause)
        self.held = marks.mark(b"moving", LEASE_ID, utcnow() + self.age)

    async def acquire(self) -> bool:
        return await taking.put(self.to, self.held, None)

    async def renew(self) -> bool:
        """`False`: it had expired, and another run has it."""
        renewed = dataclasses.replace(self.held, expires_at=utcnow() + self.age, version=self.held.version + 1)
        if await self.to.replace(renewed) == renewed:
            self.held = renewed
            return True
        return False

    async def release(self) -> None:
        held = await rotation.newest(self.to, self.held.id)
        if held == self.held:
            await self.to.remove([self.held.id])
