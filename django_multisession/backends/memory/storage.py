"""Sessions in a dictionary of `Record`s by id: what the verbs of a storage mean, in as few lines as they take.

The lock stands for the atomicity that a server gives. Records are never changed, so readers need no lock.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from threading import Lock
from weakref import WeakSet

from ...records import Page, Record, utcnow

FEWEST = 1000  # records before an insert looks for expired ones


class MemoryStorage:
    def __init__(self) -> None:
        self._start()
        STORAGES.add(self)

    def _start(self) -> None:
        self.records: dict[str, Record] = {}
        self.lock = Lock()
        self._swept_at = FEWEST

    async def read(self, id: str) -> Record | None:
        record = self.records.get(id)
        return record if record and record.is_live(utcnow()) else None

    async def insert(self, record: Record) -> bool:
        with self.lock:
            self._sweep()
            return self.records.setdefault(record.id, record) is record

    async def replace(self, record: Record) -> Record | None:
        with self.lock:
            stored = await self.read(record.id)
            if stored and stored.version == record.version - 1:
                self.records[record.id] = stored = record
            return stored

    async def touch(self, id: str, expires_at: datetime) -> bool:
        with self.lock:
            if stored := await self.read(id):
                self.records[id] = replace(stored, expires_at=expires_at, updated_at=utcnow())
            return stored is not None

    async def remove(self, ids: Iterable[str]) -> int:
        with self.lock:
            return sum(self.records.pop(id, None) is not None for id in ids)

    async def of_user(self, user_id: str) -> list[Record]:
        return [record for record in self._all() if record.user_id == user_id]

    async def scan(self, after: str | None, limit: int) -> Page:
        found = sorted((record for record in self._all() if record.id > (after or "")), key=lambda record: record.id)
        return Page(found[:limit], next=found[limit - 1].id if len(found) > limit else None)

    async def purge(self, before: datetime, limit: int) -> int:
        with self.lock:
            expired = [record.id for record in self._all() if record.expires_at < before][:limit]
            for id in expired:
                del self.records[id]
            return len(expired)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Begin with nothing; at the end, what there was before is back."""
        with self.lock:
            before, self.records = self.records, {}
        try:
            yield
        finally:
            with self.lock:
                self.records = before

    def _all(self) -> list[Record]:
        return list(self.records.values())

    def _sweep(self) -> None:
        """Nobody else would: no other process sees these records, so `purgesessions` cannot. Looking each time that
        their number has doubled costs an insert one step, taken over all of them."""
        if len(self.records) < self._swept_at:
            return
        now = utcnow()
        for id in [record.id for record in self._all() if not record.is_live(now)]:
            del self.records[id]
        self._swept_at = max(FEWEST, 2 * len(self.records))


STORAGES: WeakSet[MemoryStorage] = WeakSet()


def _forked() -> None:
    """A child begins with nothing: of a session that it had a copy of, it would never hear that it was ended."""
    for storage in list(STORAGES):
        storage._start()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forked)
