"""What the stored sessions are like, counted in one pass over `Storage.scan()`, on any engine.

The pass keeps counts, the ids of the users it has met, and no session. What it counts says `listing.py`. Payloads are
opened for the names of their top-level keys only; one that cannot be read is counted as such. Redis may show a session
twice that moved during the pass, so its numbers may be a little high.
"""

import dataclasses
import math
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from . import engine, limits
from .exceptions import PayloadUnreadable
from .payload import codecs
from .records import Page, Record, utcnow
from .twins import run_sync
from .user_sessions import browsers, devices, listing

PAGE = 500  # records
MOST_ACTIVE = 10  # users who were active last
MOST_NAMES = 1000  # that are told apart: a site may make up keys or devices without end
NAME_LENGTH = 80  # characters
UNKNOWN = "?"  # device

MINUTE, HOUR, DAY = 60, 3600, 86400
SIZES = [4**power for power in range(4, 11)]  # bytes: 256 to 1 MiB
AGES = [HOUR, DAY, 7 * DAY, 30 * DAY, 90 * DAY, 365 * DAY]  # seconds
IDLE = [5 * MINUTE, 15 * MINUTE, HOUR, 6 * HOUR, DAY, 7 * DAY, 30 * DAY]


class Bin(NamedTuple):
    """So many `sessions` of at most `up_to` bytes or seconds, and more than the bin before; `None`: all the rest."""

    up_to: int | None
    sessions: int


@dataclass(frozen=True)
class Statistics:
    """Sizes are those of stored payloads in bytes, ages count from the log-in, days are the site's.

    `complete` is `False` if the pass ended at a bound. `foreign` records were made with none of this site's keys: they
    count nowhere else. `names` are top-level keys, with the number of their sessions. `devices` are those recorded at
    log-ins, `UNKNOWN` of those that say nothing of use. `active` are the users who were active last, by id, and when.
    """

    sessions: int = 0
    anonymous: int = 0
    users: int = 0
    bytes: int = 0
    largest: int = 0
    unreadable: int = 0
    foreign: int = 0
    complete: bool = True
    seconds: float = 0.0
    sizes: list[Bin] = field(default_factory=list)
    ages: list[Bin] = field(default_factory=list)
    idle: list[Bin] = field(default_factory=list)
    log_ins: dict[date, int] = field(default_factory=dict)
    expiries: dict[date, int] = field(default_factory=dict)
    devices: dict[str, int] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    active: list[tuple[str, datetime]] = field(default_factory=list)


Report = Callable[[int, float], object]  # takes the sessions seen so far, and the seconds


def collect(
    max_sessions: int | None = None, max_seconds: float | None = None, progress: Report | None = None
) -> Statistics:
    """Page through the live sessions, up to a bound; `progress` is called after each page.

    Raises `EngineUnavailable`, and `ImproperlyConfigured` for an engine that is not of this package.
    """
    began, tally, complete = time.perf_counter(), _Tally(), False
    most, longest = max_sessions or math.inf, max_seconds or math.inf
    for page in _pages():
        taken = page[: int(min(most - tally.seen, len(page)))]
        tally.take(taken)
        complete = page.next is None and len(taken) == len(page)
        took = time.perf_counter() - began
        if progress:
            progress(tally.seen, took)
        if tally.seen >= most or took >= longest:
            break
    return tally.result(complete, time.perf_counter() - began)


def _pages() -> Iterator[Page]:
    storage, after = engine.store().storage, None
    while True:
        page = run_sync(storage.scan(after, PAGE))
        yield page
        if (after := page.next) is None:
            return


class _Tally:
    """What `collect()` keeps while it goes on."""

    def __init__(self) -> None:
        self.now, self.serializer = utcnow(), engine.store()().serializer
        self.seen = self.largest = self.bytes = self.anonymous = self.unreadable = self.foreign = 0
        self.users = set[str]()
        self.sizes, self.ages, self.idle = ([0] * (len(bounds) + 1) for bounds in (SIZES, AGES, IDLE))
        self.log_ins, self.expiries = Counter[date](), Counter[date]()
        self.devices, self.names = Counter[str](), Counter[str]()
        self.active = dict[str, datetime]()

    def take(self, records: list[Record]) -> None:
        ours = listing.ours(records)
        self.foreign += len(records) - len(ours)
        for record in run_sync(listing.live(engine.store().storage, ours)):
            self._take(record)

    def _take(self, record: Record) -> None:
        self.seen += 1
        self._take_size(len(record.payload))
        self._take_times(record)
        if record.user_id:
            self.users.add(record.user_id)
            self._take_activity(record.user_id, record.updated_at)
            self.log_ins[day_of(record.created_at)] += 1
        else:
            self.anonymous += 1
        self._take_data(record)

    def _take_size(self, size: int) -> None:
        self.bytes += size
        self.largest = max(self.largest, size)
        self.sizes[bisect_left(SIZES, size)] += 1

    def _take_times(self, record: Record) -> None:
        self.ages[bisect_left(AGES, (self.now - record.created_at).total_seconds())] += 1
        self.idle[bisect_left(IDLE, (self.now - record.updated_at).total_seconds())] += 1
        self.expiries[day_of(limits.latest(record.expires_at, record.created_at, record.updated_at))] += 1

    def _take_activity(self, user_id: str, moment: datetime) -> None:
        self.active[user_id] = max(moment, self.active.get(user_id, moment))
        if len(self.active) > MOST_NAMES:  # the latest are kept, so none of them is lost
            self.active = dict(self._latest())

    def _latest(self) -> list[tuple[str, datetime]]:
        return sorted(self.active.items(), key=lambda each: each[1], reverse=True)[:MOST_ACTIVE]

    def _take_data(self, record: Record) -> None:
        try:
            data = codecs.decode(record.payload, record.id, self.serializer)
        except (PayloadUnreadable, ImproperlyConfigured):  # the latter: a library or a key is missing here
            self.unreadable += 1
            return
        _count(self.names, map(str, data))
        if isinstance(client := data.get(devices.CLIENT_KEY), dict):
            _count(self.devices, [browsers.name_of(client.get("user_agent")) or UNKNOWN])

    def result(self, complete: bool, seconds: float) -> Statistics:
        return Statistics(
            sessions=self.seen,
            anonymous=self.anonymous,
            users=len(self.users),
            bytes=self.bytes,
            largest=self.largest,
            unreadable=self.unreadable,
            foreign=self.foreign,
            complete=complete,
            seconds=seconds,
            sizes=_bins(SIZES, self.sizes),
            ages=_bins(AGES, self.ages),
            idle=_bins(IDLE, self.idle),
            log_ins=dict(sorted(self.log_ins.items())),
            expiries=dict(sorted(self.expiries.items())),
            devices=dict(self.devices.most_common()),
            names=dict(self.names.most_common()),
            active=self._latest(),
        )


def _bins(bounds: list[int], counts: list[int]) -> list[Bin]:
    return [Bin(*each) for each in zip([*bounds, None], counts, strict=True)]


def _count(counter: Counter[str], names: Iterable[str]) -> None:
    for name in names:
        name = name[:NAME_LENGTH]
        if name in counter or len(counter) < MOST_NAMES:
            counter[name] += 1


def day_of(moment: datetime) -> date:
    try:
        return timezone.localtime(moment).date()
    except OverflowError:  # the last day of the calendar: "never expires" as datetime.max
        return moment.date()


def as_json(found: Statistics) -> dict[str, Any]:
    """The fields, in what JSON has."""
    fields = dataclasses.asdict(found)
    del fields["active"]  # who somebody is does not belong into numbers
    for name in ("sizes", "ages", "idle"):
        fields[name] = [each._asdict() for each in getattr(found, name)]
    for name in ("log_ins", "expiries"):
        fields[name] = {day.isoformat(): sessions for day, sessions in fields[name].items()}
    return fields
