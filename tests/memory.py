"""The reference engine: a dictionary. It shows what the verbs mean in as few lines as they take.

One lock stands for the atomicity that a server gives; a real engine leaves it to the server.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from threading import Lock

from django_multisession.backends import base
from django_multisession.records import Page, Record, utcnow


class MemoryStorage:
    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.lock = Lock()

    async def read(self, id: str) -> Record | None:
        record = self.records.get(id)
        return record if record and record.is_live(utcnow()) else None

    async def insert(self, record: Record) -> bool:
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
        return sum(self.records.pop(id, None) is not None for id in ids)

    async def of_user(self, user_id: str) -> list[Record]:
        return [record for record in list(self.records.values()) if record.user_id == user_id]

    async def scan(self, after: str | None, limit: int) -> Page:
        ids = sorted(id for id in self.records if id > (after or ""))
        found = [record for id in ids[:limit] if (record := self.records.get(id))]
        return Page(found, next=ids[limit - 1] if len(ids) > limit else None)

    async def purge(self, before: datetime, limit: int) -> int:
        expired = [r.id for r in list(self.records.values()) if r.expires_at < before]
        return await self.remove(expired[:limit])


class SessionStore(base.SessionStore):
    storage = astorage = MemoryStorage()
