"""The sessions of a user as a list, newest activity first. Core coroutines, which `__init__.py` gives two faces."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.sessions.backends.base import SessionBase

from .. import engine, limits
from ..records import Record, identify
from ..twins import Face
from . import devices, listing, wording
from .lifecycle import handle
from .people import NOBODY, user_id_of

logger = logging.getLogger("django_multisession")


@dataclass(frozen=True)
class UserSession:
    """A session of a user. `id` is of use in calls of this module only; times are as a `DateTimeField` gives them.

    `created_at` is the log-in. `ip` and `user_agent` are `None` where nothing was recorded then.
    """

    id: str
    created_at: datetime
    last_seen: datetime
    expires_at: datetime
    ip: str | None = None
    user_agent: str | None = None
    is_current: bool = False

    @property
    def device(self) -> str | None:
        """ "Firefox on Linux", in the current language; `None` if it is not known. Needs the `devices` extra."""
        from . import browsers  # it takes a while to be imported

        return browsers.name_of(self.user_agent)

    @property
    def name(self) -> str:
        """What to call it in a list: the device, or what is known of it."""
        return wording.name_of(self.device, self.user_agent)

    @property
    def last_seen_ago(self) -> str:
        """ "3 minutes ago", in the current language."""
        return wording.ago(self.last_seen)


class UserSessions(list[UserSession]):
    """What `sessions_of()` gives. Where nothing is listed, `complete` is `None` if the engine can lose its index.

    `foreign`: so many records of this user id are not of this site, and `complete` is `None`.
    """

    def __init__(self, sessions: Iterable[UserSession] = (), complete: bool | None = True, foreign: int = 0) -> None:
        super().__init__(sessions)
        self.complete = complete
        self.foreign = foreign


async def sessions_of(face: Face, user: Any, request: Any) -> UserSessions:
    storage, user_id, own_id = engine.storage(face), user_id_of(user), own_id_of(request)
    held = await listing.of_user(storage, user_id)
    records = await listing.live(storage, held)
    own = own_record_of(request)
    can_miss = can_lose(storage, user_id)
    complete = unless_foreign(user_id, held.foreign, listing.complete(storage) if records or not can_miss else None)
    if can_miss and own and own.id == own_id and own.user_id == user_id and own_id not in {each.id for each in records}:
        complete = lost(user_id)
        records += await listing.live(storage, [own])
    records.sort(key=lambda record: (record.updated_at, record.created_at), reverse=True)
    return UserSessions((_described(record, own_id) for record in records), complete, held.foreign)


async def count(face: Face, user: Any) -> int:
    storage = engine.storage(face)
    return len(await listing.live(storage, await listing.of_user(storage, user_id_of(user))))


def own_id_of(request: Any) -> str | None:
    """The id of the record of a request's session. Raises `TypeError` for a session, which would be ignored."""
    if isinstance(request, SessionBase):
        raise TypeError("Give the request, not its session.")
    session = getattr(request, "session", None)
    key = getattr(session, "session_key", None)
    return getattr(session, "_id_of", identify)(key) if key and isinstance(key, str) else None


def own_record_of(request: Any) -> Record | None:
    """What a request has loaded; `None` where other middleware has put something else into its session."""
    record = getattr(getattr(request, "session", None), "_record", None)
    return record if isinstance(record, Record) else None


def can_lose(storage: Any, user_id: str) -> bool:
    return hasattr(storage, "index") and user_id != NOBODY


def lost(user_id: str) -> bool:
    """What `complete` is then; the log is told."""
    logger.error("The index of the sessions of user %s has been lost, at least in part: run repair_index().", user_id)
    return False


def unless_foreign(user_id: str, foreign: int, complete: bool | None) -> bool | None:
    """What `complete` is; the log is told of what is not this site's."""
    if not foreign:
        return complete
    message = "%d records of user %s were made with none of this site's keys: they are left alone."
    logger.warning(message, foreign, user_id)
    return None


def _described(record: Record, own_id: str | None) -> UserSession:
    known = devices.client_of(record)
    return UserSession(
        id=handle(record.id),
        created_at=wording.local(record.created_at),
        last_seen=wording.local(record.updated_at),
        expires_at=wording.local(limits.latest(record.expires_at, record.created_at, record.updated_at)),
        ip=known.get("ip"),
        user_agent=devices.agent_in(known),
        is_current=record.id == own_id,
    )
