"""How the session of a user begins and ends: what happens then, and who is told.

A store's core coroutines only note what they have done (`Change`), and its public methods call `follow()` after them:
it needs to know the face, which a core coroutine does not. With SQL in a transaction it waits for the commit.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from ..exceptions import EngineUnavailable, TooManySessions
from ..records import Record
from ..signals import session_client_changed, session_ended, session_started
from ..twins import SYNC, Face, run_sync, settle
from . import devices, listing, quota, rotation
from .listing import handle as handle

BATCH = 250  # records per removal: short for every server, and for whoever waits for it

# Why a session ended
LOGOUT = "logout"  # it was flushed or deleted: by logout(), by a log-in as somebody else, by Django for its auth hash
REVOKED = "revoked"  # by a call of `user_sessions`
LIMIT = "limit"  # MULTISESSION_MAX_PER_USER, by a newer log-in
PASSWORD = "password"  # noqa: S105  is none
DEACTIVATED = "deactivated"
DELETED = "deleted"
CLIENT = "client"  # MULTISESSION_ON_CLIENT_CHANGE = "end"

logger = logging.getLogger("django_multisession")


class Change(NamedTuple):
    """A record that was written or removed: whose it was before and is now (`None`: nobody's)."""

    record: Record
    before: str | None
    now: str | None


async def follow(face: Face, store: Any) -> None:
    """See to the changes that a store has made. Raises `TooManySessions`, its session being gone then."""
    changes, store._changes = store._changes, ()
    storage = getattr(store, face.storage)
    if not await _deferred(storage, lambda: run_sync(_follow(SYNC, store.storage, store, changes))):
        await _follow(face, storage, store, changes)


async def _follow(face: Face, storage: Any, store: Any, changes: Iterable[Change]) -> None:
    for change in changes:
        if change.before is not None:
            await _tell(face, [(change.record.id, change.before)], LOGOUT)
        if change.now is not None:
            await _begin(face, storage, store, change.record, change.now)


async def _begin(face: Face, storage: Any, store: Any, record: Record, user_id: str) -> None:
    try:
        surplus = await quota.surplus(face, storage, record, user_id)
    except EngineUnavailable:
        raise  # an outage empties no session
    except Exception as error:  # refused, or the site's function failed: a 500 would give the browser the key
        store.clear()
        store._session_key = None
        if not isinstance(error, TooManySessions):
            await storage.remove([record.id])
        raise
    if session_started.has_listeners(Record):
        about = await _about(storage, record, user_id)
        await settle(face.send(session_started, sender=Record, user_id=user_id, id=handle(record.id), **about))
    await end(face, storage, surplus, LIMIT)


async def _about(storage: Any, record: Record, user_id: str) -> dict[str, Any]:
    """From where somebody has signed in, and whether no other live session of the user is from such a browser."""
    from . import browsers  # it takes a while to be imported

    ip, agent = (devices.client_of(record).get(each) for each in ("ip", "user_agent"))
    if not agent:
        return {"device": None, "ip": ip, "is_new_device": None}
    others = [each for each in await listing.live(storage, await listing.of_user(storage, user_id)) if each != record]
    known = {devices.kind_of(devices.client_of(each).get("user_agent") or "") for each in others}
    return {"device": browsers.name_of(agent), "ip": ip, "is_new_device": devices.kind_of(agent) not in known}


async def tell_of_change(face: Face, storage: Any, record: Record, about: dict[str, Any]) -> None:
    """Send `session_client_changed`; within a SQL transaction after its commit."""
    named = {"sender": Record, "user_id": record.user_id, "id": handle(record.id), **about}
    if not await _deferred(storage, partial(SYNC.send, session_client_changed, **named)):
        await settle(face.send(session_client_changed, **named))


async def end(face: Face, storage: Any, records: Sequence[Record], reason: str) -> int:
    """Remove records of users, tell of it, and count what was there."""
    if not session_ended.has_listeners(Record):
        batches = (records[at : at + BATCH] for at in range(0, len(records), BATCH))
        return sum([await rotation.remove_all(storage, [record.id for record in batch]) for batch in batches])
    # One by one: another may be removing them too, and only who did it tells of it.
    gone = [(id, record.user_id) for record in records if (id := await rotation.remove(storage, record.id))]
    if not await _deferred(storage, lambda: run_sync(_tell(SYNC, gone, reason))):
        await _tell(face, gone, reason)
    return len(gone)


async def _tell(face: Face, gone: Iterable[tuple[str, str | None]], reason: str) -> None:
    if not session_ended.has_listeners(Record):
        return
    for id, user_id in gone:
        await settle(face.send(session_ended, sender=Record, user_id=user_id, id=handle(id), reason=reason))


async def _deferred(storage: Any, function: Callable[[], object]) -> bool:
    after_commit = getattr(storage, "after_commit", None)
    return after_commit is not None and await after_commit(partial(_after_commit, function))


def _after_commit(function: Callable[[], object]) -> None:
    """What fails is logged: raised, it would keep Django from calling the hooks that come later, the site's own too."""
    try:
        function()
    except TooManySessions:
        raise  # an answer, for who has signed in
    except Exception as error:
        traceback = not isinstance(error, EngineUnavailable)
        logger.error("What follows a log-in or log-out has failed after the commit: %s", error, exc_info=traceback)
