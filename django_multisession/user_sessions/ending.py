"""Ending sessions of a user: one of them, all, all but one."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from .. import engine
from ..records import Record
from ..twins import Face
from . import lifecycle, listing, rotation, signed_in
from .lifecycle import REVOKED, handle
from .people import user_id_of
from .signed_in import own_id_of

ROUNDS = 10  # at most: each beyond the second means that somebody has signed in meanwhile


@dataclass(frozen=True)
class Revoked:
    """How many sessions were `ended`, and whether the index from which they were taken was `complete`.

    `foreign`: so many records of this user id are not of this site; they were left alone, and `complete` is `None`.
    """

    ended: int
    complete: bool | None = True
    foreign: int = field(default=0, compare=False)


async def revoke(face: Face, user: Any, id: str) -> bool:
    storage = engine.storage(face)
    held = await listing.of_user(storage, user_id_of(user))
    return bool(await end(face, storage, [record for record in held if handle(record.id) == id], REVOKED))


async def revoke_all(face: Face, user: Any, keep: Any) -> Revoked:
    storage, user_id, own_id = engine.storage(face), user_id_of(user), own_id_of(keep)
    kept = []

    def keeps(record: Record) -> bool:
        kept.append(own := record.id == own_id)
        return own

    revoked = await end_all(face, user_id, REVOKED, keeps, own_id)
    if not signed_in.can_lose(storage, user_id):
        return revoked
    own = await storage.read(own_id) if own_id and not any(kept) else None
    if own and own.user_id == user_id:
        return replace(revoked, complete=signed_in.lost(user_id))
    return replace(revoked, complete=None) if await storage.may_miss(user_id) else revoked


async def end_all(
    face: Face, user_id: str, reason: str, keeps: Callable[[Record], bool], kept: str | None = None
) -> Revoked:
    """A core coroutine, for others to give a reason. Ends when there is nothing new: a log-in of meanwhile is found.

    `kept`: the id of a session that stays, which a list may not have.
    """
    storage, ended = engine.storage(face), 0
    await listing.end_unlisted(storage, user_id, kept, reason == lifecycle.PASSWORD)
    for _ in range(ROUNDS):
        held = await listing.of_user(storage, user_id)
        found = [record for record in held if not keeps(record)]
        if not found:
            break
        ended += await end(face, storage, found, reason)
    return Revoked(ended, signed_in.unless_foreign(user_id, held.foreign, listing.complete(storage)), held.foreign)


async def end(face: Face, storage: Any, records: list[Record], reason: str) -> int:
    """End sessions. What has expired is removed too, as a host with a slow clock takes it; but it has ended already.
    So is the copy of one whose key is being cycled: that is one session."""
    expired = {record.id for record in await listing.expired(storage, records)}
    ending = rotation.each_once(each for each in records if each.id not in expired)
    if len(ending) < len(records):
        await storage.remove({record.id for record in records} - {record.id for record in ending})
    return await lifecycle.end(face, storage, ending, reason)
