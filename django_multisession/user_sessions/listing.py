"""Which of the records that a store holds are sessions of this site, and which of these are over.

    held     what `of_user()` and `scan()` give: all that the server has not removed, whatever a clock says of it
    ours     made with a key of this site, be it an older one (`SECRET_KEY_FALLBACKS`). Another site on the same store,
             or a key that is gone, made the others: they are neither listed, nor counted, nor ended
    live     not over

Ending takes all that is ours; lists and counts take what is live. A session whose stored expiry has passed by this
host's clock is judged by the server's, which is asked then, and only then: so a host whose clock is fast misses no
session that the others still accept. The limits of the settings (`limits.is_over()`) are this host's own, as when it
reads a session. A storage without a `clock()` is taken to have the host's.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.utils.crypto import salted_hmac

from .. import limits
from ..payload import codecs
from ..records import Record, utcnow
from . import rotation

HANDLE_LENGTH = 16  # of 64 hex digits


def handle(record_id: str) -> str:
    """The public name of a session: neither its key nor its record's id can be had from it."""
    return salted_hmac("django_multisession.lifecycle", record_id, algorithm="sha256").hexdigest()[:HANDLE_LENGTH]


class Held(list[Record]):
    """A user's records that are ours, and how many others there are."""

    def __init__(self, records: Iterable[Record], foreign: int) -> None:
        super().__init__(records)
        self.foreign = foreign


async def of_user(storage: Any, user_id: str) -> Held:
    held = await storage.of_user(user_id)
    own = ours(held)
    return Held(own, foreign=len(held) - len(own))


def ours(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if codecs.is_ours(record.payload, record.id)]


def complete(storage: Any) -> bool | None:
    """`None` while sessions may lie where they cannot be listed: see `backends.moving`."""
    all_listed: bool | None = getattr(storage, "complete", True)
    return all_listed


async def end_unlisted(storage: Any, user_id: str | None, kept: str | None = None, password: bool = False) -> None:
    """Of a user (`None`: of all) what is in no list yet is to end when it is moved to where it would be in one."""
    if hasattr(storage, "end_user"):
        await storage.end_user(user_id, kept, password)


async def live(storage: Any, records: Iterable[Record]) -> list[Record]:
    """One that is there twice while its key is cycled is listed once."""
    held, here = list(records), utcnow()
    there = await _by_the_server(storage, held, here)
    found = [each for each in held if (not limits.is_over(each) if each.is_live(here) else _latest(each) > there)]
    return rotation.each_once(found)


async def expired(storage: Any, records: Iterable[Record]) -> list[Record]:
    """Those that have ended by themselves, their stored expiry having passed, and that nobody has removed yet."""
    held, here = list(records), utcnow()
    there = await _by_the_server(storage, held, here)
    return [each for each in held if not each.is_live(here) and not each.is_live(there)]


async def _by_the_server(storage: Any, records: list[Record], here: datetime) -> datetime:
    """What the time is, where it matters."""
    if all(record.is_live(here) for record in records) or not hasattr(storage, "clock"):
        return here
    there: datetime | None = await storage.clock()
    return there or here


def _latest(record: Record) -> datetime:
    return limits.latest(record.expires_at, record.created_at, record.updated_at)
