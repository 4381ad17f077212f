"""What goes through all sessions there are, page by page: ending everybody's, and repairing the index by user."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import engine
from ..records import Record, utcnow
from ..twins import Face
from . import listing
from .ending import ROUNDS, end
from .lifecycle import REVOKED
from .people import user_id_of

PAGE = 1000  # records
REPAIR_PAGES = 50  # in one request: of about 1,000 sessions, or of 20,000 keys where few of them are sessions


@dataclass(frozen=True)
class Repaired:
    """How many sessions were missing in the index, and where to go on (`None`: it was gone through to the end)."""

    indexed: int
    next: str | None = None


async def revoke_everyone(face: Face) -> int:
    """A session whose key is cycled meanwhile may be passed by: the copy is behind the page, and the original, before
    it, is soon gone. So the pages are gone through again, for sessions that were there at the start."""
    began = utcnow()
    await listing.end_unlisted(engine.storage(face), None)
    ended = await _end_each(face, lambda record: record.user_id is not None)
    for _ in range(ROUNDS):
        passed_by = await _end_each(face, lambda record: record.user_id is not None and record.created_at <= began)
        if not passed_by:
            break
        ended += passed_by
    return ended


async def _end_each(face: Face, wanted: Callable[[Record], bool]) -> int:
    storage, after, ended = engine.storage(face), None, 0
    while True:
        page = await storage.scan(after, PAGE)
        ended += await end(face, storage, [each for each in listing.ours(page) if wanted(each)], REVOKED)
        if (after := page.next) is None:
            return ended


async def repair_index(face: Face, user: Any, after: str | None, pages: int | None) -> Repaired:
    storage, user_id = engine.storage(face), None if user is None else user_id_of(user)
    indexed = looked_at = 0
    while hasattr(storage, "index") and looked_at != pages:
        page = await storage.scan(after, PAGE)
        indexed += await storage.index([each for each in listing.ours(page) if user_id in (None, each.user_id)])
        after, looked_at = page.next, looked_at + 1
        if after is None:
            if user_id is None and hasattr(storage, "index_is_whole"):
                await storage.index_is_whole(page)
            break
    return Repaired(indexed, after)
