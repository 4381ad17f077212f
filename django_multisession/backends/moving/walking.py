"""Going through the old side in batches, and how much is left there.

    tables    by primary key, never OFFSET
    caches    on Redis: SCAN by the cache's own form and version of keys
    files     as the directory lists them
    redis     django-redis-sessions: SCAN
    ours      `scan()`

What is in no such place (local memory, memcached, signed cookies, an engine that is not known) cannot be walked: its
sessions move as people come, and the rest expires.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from django.conf import settings
from django.core.cache import caches
from django.utils import timezone

from ...exceptions import InvalidOption
from ...records import identify, utcnow
from ...twins import SYNC, Face, run_sync
from .adapters import InCache, InFile, InRedis, InTable
from .plan import Plan

PAGE = 1000


class Row(NamedTuple):
    """A session of the old side: `key` where it is kept by keys, `live` as far as the list tells."""

    id: str
    key: str | None
    live: bool = True


class Walk:
    """`next()` gives page after page, then `None`. Raises `InvalidOption` for what cannot be walked."""

    def __init__(self, sides: Plan, face: Face, size: int = PAGE) -> None:
        self.old, self.size = sides.storage(face).old, size
        self.after: str | None = None
        self.ended = False
        self.rows = _rows_of(sides, self.old, size) if sides.is_foreign else None

    async def next(self) -> list[Row] | None:
        if self.rows is not None:
            page: list[Row] | None = await self.old._ask(next, self.rows, None)
            return page
        if self.ended:
            return None
        scanned = await self.old.scan(self.after, self.size)
        self.after, now = scanned.next, utcnow()
        self.ended = scanned.next is None
        return [Row(record.id, None, record.is_live(now)) for record in scanned]


Rows = Iterator[list[Row]]


def _rows_of(sides: Plan, old: Any, size: int) -> Rows:
    walk = next((walk for kind, walk in WALKS.items() if isinstance(old, kind)), None)
    if walk is None or (rows := walk(old, size)) is None:
        raise InvalidOption("from", sides.from_.__module__, CANNOT)
    return rows


CANNOT = "it cannot be walked. Its sessions move as people come, and the rest expires there."


def _table(old: Any, size: int) -> Rows:
    rows, last = old.model._base_manager.using(old.alias).order_by("pk"), None
    while True:
        after = rows if last is None else rows.filter(pk__gt=last)
        page = list(after.values_list("pk", "session_key", "expire_date")[:size])
        if not page:
            return
        now = timezone.now()
        yield [Row(identify(key), key, expire_date > now) for _, key, expire_date in page]
        last = page[-1][0]


def _cache(old: Any, size: int) -> Rows | None:
    cache: Any = caches[settings.SESSION_CACHE_ALIAS]
    prefix = old.engine.cache_key_prefix
    if hasattr(cache, "client") and hasattr(cache.client, "get_client"):  # django-redis
        client, make = cache.client.get_client(write=True), cache.client.make_key
    elif hasattr(getattr(cache, "_cache", None), "get_client"):  # Django's Redis
        client, make = cache._cache.get_client(None, write=True), cache.make_key
    else:
        return None
    start = str(make(prefix))
    if str(make(f"{prefix}x")) != f"{start}x":  # a KEY_FUNCTION of the site's own, from which no key can be had
        return None
    return _scan(client, start, size)


def _redis(old: Any, size: int) -> Rows:
    session = old.engine("x" * 32)
    return _scan(session.server, session.get_real_stored_key(""), size)


def _scan(client: Any, start: str, size: int) -> Rows:
    pattern = "".join(f"\\{each}" if each in "*?[]\\" else each for each in start) + "*"
    names = (_text(name).removeprefix(start) for name in client.scan_iter(match=pattern, count=size))
    return _batches((Row(identify(name), name) for name in names), size)


def _text(name: bytes | str) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name


def _files(old: Any, size: int) -> Rows:
    session = old.engine()
    with os.scandir(session.storage_path) as entries:
        prefixed = (each.name for each in entries if each.name.startswith(session.file_prefix))
        names = (name.removeprefix(session.file_prefix) for name in prefixed)
        yield from _batches((Row(identify(name), name) for name in names if "_" not in name), size)


def _batches(rows: Iterable[Row], size: int) -> Rows:
    rows = iter(rows)
    while page := list(islice(rows, size)):
        yield page


WALKS: dict[type, Callable[[Any, int], Rows | None]] = {
    InTable: _table,
    InCache: _cache,
    InFile: _files,
    InRedis: _redis,
}


def left(sides: Plan, at_most: int | None = None) -> int | None:
    """How many live sessions the old side has; `None` where it cannot be walked. Raises `EngineUnavailable`."""
    return run_sync(aleft(sides, SYNC, at_most))


async def aleft(sides: Plan, face: Face, at_most: int | None = None) -> int | None:
    try:
        walk = Walk(sides, face)
    except InvalidOption:
        return None
    if isinstance(walk.old, InTable):  # in one statement, whatever expired rows lie there
        return int(await walk.old._ask(walk.old.count_live, at_most))
    found = 0
    while (page := await walk.next()) is not None and (at_most is None or found < at_most):
        # Of files and caches the list does not tell.
        found += sum([row.live and await _is_live(walk.old, row) for row in page])
    return found


async def _is_live(old: Any, row: Row) -> bool:
    return not isinstance(old, InFile) or await old.read(row.id, str(row.key)) is not None
