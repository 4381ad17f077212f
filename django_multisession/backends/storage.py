"""`Storage`: the eight verbs that an engine implements, over records."""

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from ..records import Page, Record


class Storage(Protocol):
    """One kind of server. Verbs are stateless, one round trip each, and raise `EngineUnavailable` when it fails."""

    async def read(self, id: str) -> Record | None:
        """The live record, always from the primary; never an expired one, whatever the server's sweeper has done."""

    async def insert(self, record: Record) -> bool:
        """Create atomically; `False` if the id is taken."""

    async def replace(self, record: Record) -> Record | None:
        """Store `record` if the stored version is `record.version - 1`, and answer what the store now holds.

        That is `record` itself (saved), another record (conflict; an equal one too, which another has stored) or
        `None` (gone or expired). Never creates.
        """

    async def touch(self, id: str, expires_at: datetime) -> bool:
        """Move the expiry and `updated_at` (now) of a live record, neither data nor version; `False` if it is gone."""

    async def remove(self, ids: Iterable[str]) -> int:
        """Delete, and count what was there. Missing ids are no error."""

    async def of_user(self, user_id: str) -> list[Record]:
        """A user's records that the server has not removed, live or not, by index, never by scan; see `listing.py`."""

    async def scan(self, after: str | None, limit: int) -> Page:
        """A page of about `limit` records, live or not; `after` is `None`, then the `next` of the page before."""

    async def purge(self, before: datetime, limit: int) -> int:
        """Delete at most `limit` records (where the server expires by itself: leftovers) that expired before then."""
