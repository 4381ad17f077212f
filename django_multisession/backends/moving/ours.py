"""The old side where it is an engine of this package: keyed by ids, as `to` is, and saved by version."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from ...records import Page, Record
from ...user_sessions import rotation
from . import marks
from .there import as_stored, as_there


class Ours:
    """The old side's `Storage`; `key` is not asked for."""

    listed = True  # of_user() and scan() know what is there
    foreign = False

    def __init__(self, storage: Any) -> None:
        self.storage = storage

    def can_ask(self, key: str | None) -> bool:
        return True

    async def read(self, id: str, key: str | None) -> Record | None:
        record = await rotation.newest(self.storage, id)
        return record if record is None or record.is_mark else as_there(record)

    async def read_all(self, keys: dict[str, str]) -> dict[str, Record]:
        read = [await self.read(id, None) for id in keys]
        return {record.id: record for record in read if record is not None}

    async def insert(self, record: Record, key: str | None) -> bool:
        return bool(await self.storage.insert(record))

    async def put(self, record: Record, key: str | None) -> None:
        """Store it whatever is there; of use to who is alone with it."""
        while not await self.storage.insert(record):
            await self.storage.remove([record.id])

    async def replace(self, record: Record, key: str | None) -> Record | None:
        stored = as_stored(record)
        held = await self.storage.replace(stored)
        if held is stored:
            return record
        return None if held is None or held.is_mark else as_there(held)

    async def touch(self, id: str, key: str | None, expires_at: Any) -> bool:
        return bool(await self.storage.touch(id, expires_at))

    async def remove(self, id: str, key: str | None) -> bool:
        return bool(await self.storage.remove([id]))

    async def leave(self, found: Record, key: str | None) -> Record | None:
        """Remove what was found, unless it has been saved since: that is answered, and stays."""
        gone = marks.over(as_stored(found), marks.RETIRED)
        held = await self.storage.replace(gone)
        if held == gone:
            await self.storage.remove([found.id])
        return None if held is None or held.is_mark else as_there(held)

    async def leave_all(self, found: list[Record], keys: dict[str, str]) -> list[tuple[Record, Record]]:
        """The same for many: those that were saved since, as they were found and as they are."""
        left = [(each, await self.leave(each, keys.get(each.id))) for each in found]
        return [(each, newer) for each, newer in left if newer is not None]

    async def of_user(self, user_id: str) -> list[Record]:
        return list(await self.storage.of_user(user_id))

    async def scan(self, after: str | None, limit: int) -> Page:
        page: Page = await self.storage.scan(after, limit)
        return page

    async def purge(self, before: datetime, limit: int) -> int:
        return int(await self.storage.purge(before, limit))

    async def after_commit(self, function: Callable[[], object]) -> bool:
        after_commit = getattr(self.storage, "after_commit", None)
        return after_commit is not None and await after_commit(function)
