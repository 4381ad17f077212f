"""`MovingStorage`: the eight verbs over two sides, of which `to` says under each id who has the session.

    to           the old side (`from`)
    a session    a copy at most, left by a crash: `to` is asked first, always
    `ended`      a copy at most
    `back`       the session
    nothing      the session, or nothing

Verbs take ids, an engine that is not of this package wants keys: `keys` are those that the `SessionStore` at work has
met. The storage of a class, which lists and ends the sessions of users, knows none.
"""

import dataclasses
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from ...records import Page, Record, identify, utcnow
from ...twins import Face
from ...user_sessions import rotation
from . import marks, taking
from .cookies import InCookie, is_cookie, server_key
from .there import is_plain, is_there

PREPARE, MOVE, BACK = "prepare", "move", "back"
PHASES = PREPARE, MOVE, BACK
OF_THE_INDEX = "index", "may_miss"  # what repairs it looks through one side, and a move has two
THERE = "there "  # before the old side's own `after`, in that of scan()


class Keys(dict[str, str]):
    """The session key of each id that was asked for, and which of these are on the old side."""

    def __init__(self) -> None:
        super().__init__()
        self.there: set[str] = set()
        self.saved: set[str] = set()  # of which the last save came through on the old side
        self.renamed: dict[str, str] = {}

    def know(self, key: str, in_cookies: bool) -> str:
        """The id of a session key, and the key is known from then on."""
        if not (in_cookies and is_cookie(key)):
            self.setdefault(id := identify(key), key)
        else:
            self[id := identify(server_key(key))] = key
        return id


@dataclasses.dataclass
class MovingStorage:
    to: Any
    old: Any
    phase: str
    face: Face
    serializer: type
    keys: Keys = dataclasses.field(default_factory=Keys)
    sync: Any = None  # a function: the same over synchronous clients, for what comes after a commit

    def __getattr__(self, name: str) -> Any:
        """What only some storages have, `to` has or has not: `clock()`, `model` ..."""
        if name in ("to", *OF_THE_INDEX) or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.to, name)

    def identify(self, key: str) -> str:
        """As `records.identify()`, and the key is known here from then on."""
        return self.keys.know(key, isinstance(self.old, InCookie))

    @property
    def complete(self) -> bool | None:
        """What a list of a user's sessions is at most: `None` where a side has no list, or may have lost it."""
        can_lose = hasattr(self.to, "index") or hasattr(getattr(self.old, "storage", None), "index")
        return True if self.old.listed and not can_lose else None

    # Verbs

    async def read(self, id: str) -> Record | None:
        return await self._read(id, await self.to.read(id))

    async def read_newest(self, id: str) -> Record | None:
        return await self._read(id, await rotation.newest(self.to, id))

    async def insert(self, record: Record) -> bool:
        if record.is_mark:
            return await self._insert_mark(record)
        if self.phase != MOVE:
            return await self._insert_there(record)
        try:
            return bool(await self.to.insert(taking.as_ours(record, self.serializer)))
        except taking.UNMOVABLE:
            return await self._insert_there(record)  # the copy of one that stays there

    async def replace(self, record: Record) -> Record | None:
        if record.is_mark:
            return await self._retire(record)
        if is_there(record):
            return await self._replace_there(record)
        held: Record | None = await self.to.replace(record)
        if not marks.gives_way(held):
            return None if marks.is_ended(held) else held
        return await self._read(record.id, held)

    async def touch(self, id: str, expires_at: datetime) -> bool:
        if id in self.keys.there:
            return await self._touch_there(id, expires_at)
        # A mark would be touched like any record.
        found = await self.read_newest(id)
        if found is None or found.is_mark:
            return False
        if is_there(found):
            return await self._touch_there(id, expires_at)
        return bool(await self.to.touch(id, expires_at))

    async def remove(self, ids: Iterable[str]) -> int:
        return sum([await self._end(id) for id in ids])

    async def of_user(self, user_id: str) -> list[Record]:
        records = list(await self.to.of_user(user_id))
        known = {record.id for record in records}
        return records + await self._unless_in_to([r for r in await self.old.of_user(user_id) if r.id not in known])

    async def scan(self, after: str | None, limit: int) -> Page:
        if after is None or not after.startswith(THERE):
            page = await self.to.scan(after, limit)
            return Page(page, next=page.next or (THERE if self.old.listed else None))
        page = await self.old.scan(after.removeprefix(THERE) or None, limit)
        return Page(await self._unless_in_to(page), next=None if page.next is None else THERE + page.next)

    async def purge(self, before: datetime, limit: int) -> int:
        removed = int(await self.to.purge(before, limit))
        return removed + await self.old.purge(before, limit - removed) if removed < limit else removed

    async def end_user(self, user_id: str | None, kept: str | None, password: bool) -> None:
        """Leave a mark for what is still to be taken over of the user, or of everyone. No verb."""
        id = marks.user_mark_id(user_id)
        while True:
            held = await rotation.newest(self.to, id)
            now, before = utcnow(), marks.End.of(held)
            end = dataclasses.replace(before, password=now) if password else marks.End(now, kept, before.password)
            if await taking.put(self.to, end.mark(user_id, 1), held):
                return

    # Reading

    async def _read(self, id: str, held: Record | None) -> Record | None:
        if marks.gives_way(held):
            return await self._read_there(id, held)
        if held is None or marks.is_ended(held):
            return None
        if self.phase == BACK and not held.is_mark and self.old.can_ask(self.keys.get(id)):
            return self._noted(await taking.hand_back(self.to, self.old, held, self.keys.get(id)))
        return self._noted(held)

    async def _read_there(self, id: str, held: Record | None) -> Record | None:
        key = self.keys.get(id)
        if not self.old.can_ask(key):
            return None
        found: Record | None = await self.old.read(id, key)
        if found is None:
            return await self._look_again(id)
        if found.is_mark or self.phase != MOVE or self._is_anybodys(found):
            return self._noted(found)
        return await self._take_over(found, held)

    async def _look_again(self, id: str) -> Record | None:
        """Another request may have moved it between the two looks."""
        held = await rotation.newest(self.to, id)
        return None if marks.gives_way(held) or marks.is_ended(held) else self._noted(held)

    async def _take_over(self, found: Record, held: Record | None) -> Record | None:
        if await self.ended_if_over(found, taking.Ends(self.to)):
            return None
        try:
            record = taking.as_ours(found, self.serializer)
        except taking.UNMOVABLE as error:
            return self._noted(taking.stays(found, error))
        if await taking.put(self.to, record, held):
            if await self.ended_if_over(found, taking.Ends(self.to)):
                return None
            await self.leave([found])
        return await self.read_newest(found.id)

    async def ended_if_over(self, found: Record, ends: taking.Ends) -> bool:
        is_over = await taking.is_over(self.face, ends, found, self.serializer)
        if is_over:
            await self._end(found.id)
        return is_over

    async def leave(self, found: list[Record]) -> None:
        """Have the old side leave what was taken over: now, or after the commit of what was put into `to`."""
        sides, keys = self.sync() if self.sync else self, dict(self.keys)
        settle, more = taking.settle_all, (found, keys, self.serializer)
        if not await taking.after_commit(self.to, settle, sides.to, sides.old, *more):
            await settle(self.to, self.old, *more)

    def _is_anybodys(self, found: Record) -> bool:
        return found.user_id is None and isinstance(self.old, InCookie)

    def _noted(self, record: Record | None) -> Record | None:
        if record is not None:
            (self.keys.there.add if is_there(record) else self.keys.there.discard)(record.id)
        return record

    async def _unless_in_to(self, records: list[Record]) -> list[Record]:
        """What a list has of the old side, but for what `to` has, or knows to be over."""
        return [record for record in records if marks.gives_way(await self.to.read(record.id))]

    # Writing

    async def _insert_mark(self, record: Record) -> bool:
        """In `to`, which decides, and where the old side can read it: servers of the old engine alone look there."""
        if not await self.to.insert(record):
            return False
        if self.old.foreign or await self.old.insert(record, None):
            return True
        await self.to.remove([record.id])
        return False

    async def _insert_there(self, record: Record) -> bool:
        self.keys.there.add(record.id)
        return bool(await self.old.insert(record, self.keys.get(record.id)))

    async def _replace_there(self, record: Record) -> Record | None:
        key = self.keys.get(record.id)
        saved: Record | None = await self.old.replace(record, key)
        (self.keys.saved.add if saved is record else self.keys.saved.discard)(record.id)
        held = await rotation.newest(self.to, record.id)
        if marks.gives_way(held):
            return saved
        if held is None or marks.is_ended(held):
            await self.old.remove(record.id, key)
            return None
        return self._noted(held)  # it was taken over meanwhile: a conflict, which is merged and saved there

    async def _touch_there(self, id: str, expires_at: datetime) -> bool:
        key = self.keys.get(id)
        touched: bool = await self.old.touch(id, key, expires_at)
        held = await rotation.newest(self.to, id)
        if marks.gives_way(held):
            return touched
        if held is None or marks.is_ended(held):
            await self.old.remove(id, key)
            return False
        self.keys.there.discard(id)
        return bool(await self.to.touch(id, expires_at))

    # Ending

    async def _retire(self, record: Record) -> Record | None:
        """The first half of what takes a cycled session away: see `rotation.retire()`."""
        while True:
            held = await rotation.newest(self.to, record.id)
            if marks.gives_way(held):
                found = await self._found_there(record.id)
                if found is None:
                    held = await rotation.newest(self.to, record.id)
                    if marks.gives_way(held):
                        return None
                    continue
                if not is_plain(found) and found.version != record.version - 1:
                    return found
                expiry = marks.latest(found.expires_at)
            elif held is None or held.is_mark or held.version != record.version - 1:
                return None if marks.is_ended(held) else held
            else:
                expiry = marks.latest(held.expires_at)
            if await taking.put(self.to, dataclasses.replace(record, expires_at=expiry, version=1), held):
                return record

    async def _found_there(self, id: str) -> Record | None:
        key = self.keys.get(id)
        found: Record | None = await self.old.read(id, key) if self.old.can_ask(key) else None
        return None if found is None or found.is_mark else found

    async def _end(self, id: str) -> bool:
        """End a session wherever it is, and leave a mark. `False`: there was none, or it had been ended."""
        while True:
            held = await rotation.newest(self.to, id)
            if held is not None and held.is_mark and marks.body_of(held) not in (marks.BACK, marks.RETIRED):
                return await self._remove_mark(held)
            if (mark := await self._mark_of_end(id, held)) is None:
                if marks.gives_way(await rotation.newest(self.to, id)):
                    return False
            elif await taking.put(self.to, mark, held):
                await self._remove_there(id)
                return True

    async def _mark_of_end(self, id: str, held: Record | None) -> Record | None:
        if held is not None and not marks.gives_way(held):
            return marks.over(held, marks.ENDED)
        if not self.old.can_ask(self.keys.get(id)):
            return marks.mark(marks.ENDED, id, marks.longest())  # it may be there: whose key this is, is not known
        found = await self.old.read(id, self.keys.get(id))
        if found is None or self._is_anybodys(found):
            return None
        return marks.mark(marks.ENDED, id, marks.latest(found.expires_at))

    async def _remove_there(self, id: str) -> None:
        key, sides = self.keys.get(id), self.sync() if self.sync else self
        if self.old.can_ask(key) and not await taking.after_commit(self.to, sides.old.remove, id, key):
            await self.old.remove(id, key)

    async def _remove_mark(self, held: Record) -> bool:
        """A rotation's mark is removed on both sides; an end stays."""
        if marks.is_ended(held):
            return False
        if not self.old.foreign:
            await self.old.remove(held.id, None)
        return bool(await self.to.remove([held.id]))
