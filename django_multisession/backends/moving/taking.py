"""How a session changes sides. `to` is the authority, so that each step leaves one owner, whoever is killed after it.

Taking over, from the old side to `to`::

    read     what the old side has; the marks of its user, and of all users
    insert   in `to`, under the same id: of fifty at once one wins, and the others go on with what it has put there
    read     the marks again: who ends all sessions has either left them before, or finds the record in `to`
    leave    the old side, if nothing was saved there meanwhile; else merge that into `to`, and try again

Handing back, from `to` to the old side: under a claim, since that side may know no conditional save; the mark in `to`
that says so comes last, and only over what was written there.
"""

import dataclasses
import logging
from typing import Any

from ...exceptions import PayloadUnreadable, SessionNotSerializable, SessionTooLarge
from ...payload import codecs, merging
from ...records import Record
from ...twins import Face, run_sync
from ...user_sessions import rotation
from ..state import check_user_id, user_id_in
from . import marks, there
from .there import is_plain, is_there

ATTEMPTS = 100  # each that fails means that somebody else came through
UNMOVABLE = SessionTooLarge, SessionNotSerializable

logger = logging.getLogger("django_multisession")

_said: set[str] = set()  # ids of what cannot be moved, and was logged
MOST_SAID = 10_000


def as_ours(found: Record, serializer: type) -> Record:
    """The record that `to` takes. Raises `SessionTooLarge` and `SessionNotSerializable`."""
    if not is_plain(found):
        return there.as_stored(found) if is_there(found) else found
    check_user_id(found.user_id)
    payload = codecs.encode(there.data_of(found, serializer), found.id, serializer)
    return dataclasses.replace(found, payload=payload, version=1)


def stays(found: Record, error: Exception) -> Record:
    """What cannot be moved is used where it is, and the log is told once."""
    if found.id not in _said and len(_said) < MOST_SAID:
        _said.add(found.id)
        logger.warning("A session stays on the old side (id %s): %s", found.id, error)
    return found


async def put(to: Any, record: Record, held: Record | None) -> bool:
    """Store it in `to` where nothing, or a mark, was; `False`: something else is there by now."""
    if held is not None:
        record = dataclasses.replace(record, version=held.version + 1)
        return bool(await to.replace(record) == record)
    if await to.insert(record):
        return True
    if await rotation.newest(to, record.id) is not None:
        return False
    await to.remove([record.id])  # what has expired there, and nobody has swept
    return bool(await to.insert(record))


async def settle(to: Any, old: Any, found: Record, key: str | None, serializer: type) -> None:
    """Have the old side leave what was taken over, with what was saved there meanwhile merged into `to`."""
    while (newer := await old.leave(found, key)) is not None:
        await merge(to, found, newer, serializer)
        found = newer


async def merge(to: Any, found: Record, newer: Record, serializer: type) -> None:
    loaded, stored = ({} if each is None else each for each in (_data(found, serializer), _data(newer, serializer)))
    for _ in range(ATTEMPTS):
        held = await rotation.newest(to, found.id)
        if held is None or held.is_mark or (ours := _data(held, serializer)) is None:
            return
        # Not by the rules: who has saved there looks in `to` afterwards and merges by them, and nothing counts twice.
        merging.adopt(loaded, ours, stored, serializer, by_rules=False)
        record = dataclasses.replace(
            held,
            payload=codecs.encode(ours, held.id, serializer),
            user_id=user_id_in(ours),
            updated_at=max(held.updated_at, newer.updated_at),
            expires_at=newer.expires_at if held.expires_at == found.expires_at else held.expires_at,
            version=held.version + 1,
        )
        if await to.replace(record) is record:
            return


def _data(record: Record, serializer: type) -> dict[str, Any] | None:
    try:
        return there.data_of(record, serializer)
    except PayloadUnreadable:
        return None


async def settle_all(to: Any, old: Any, all_found: list[Record], keys: dict[str, str], serializer: type) -> None:
    for found, newer in await old.leave_all(all_found, keys):
        await merge(to, found, newer, serializer)
        await settle(to, old, newer, keys.get(found.id), serializer)


class Ends:
    """What the marks of users say, each asked for once."""

    def __init__(self, to: Any) -> None:
        self.to, self.known = to, dict[str | None, marks.End]()

    async def of(self, user_id: str | None) -> marks.End:
        """`None`: of all users."""
        if user_id not in self.known:
            self.known[user_id] = marks.End.of(await rotation.newest(self.to, marks.user_mark_id(user_id)))
        return self.known[user_id]


async def is_over(face: Face, ends: Ends, found: Record, serializer: type) -> bool:
    """Whether all sessions of its user have been ended since it was signed in."""
    if found.user_id is None:
        return False
    data = _data(found, serializer) or {}
    signed_in_at = there.signed_in_at(data) or (None if is_plain(found) else found.created_at)
    for user_id in (found.user_id, None):
        end = await ends.of(user_id)
        if end.ends(found, signed_in_at):
            return True
        if end.may_end(signed_in_at) and not await rotation.is_accepted(face, rotation.log_in_of(data)):
            return True
    return False


async def after_commit(to: Any, function: Any, *arguments: Any) -> bool:
    """Have a coroutine function run after the open transaction of `to`; `False` where none is open."""
    deferred = getattr(to, "after_commit", None)
    return deferred is not None and bool(await deferred(lambda: run_sync(function(*arguments))))


async def hand_back(to: Any, old: Any, held: Record, key: str | None) -> Record | None:
    """The session on the old side; where another is handing it back just now, or it cannot be, what `to` has."""
    id, claim = held.id, marks.claim(held.id)
    if not await put(to, claim, None):
        return held
    try:
        return await _handed_back(to, old, id, key)
    finally:
        await to.remove([claim.id])


async def _handed_back(to: Any, old: Any, id: str, key: str | None) -> Record | None:
    # Read anew: another may have handed it back before the claim, and it may have been saved there since.
    while (held := await rotation.newest(to, id)) is not None and not held.is_mark:
        await old.put(held, key)
        mark = marks.over(held, marks.BACK)
        if await to.replace(mark) == mark:
            break
    else:
        if not marks.gives_way(held):  # ended meanwhile
            await old.remove(id, key)
            return None if marks.is_ended(held) else held
    found: Record | None = await old.read(id, key)
    return found
