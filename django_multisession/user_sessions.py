"""Who is signed in where: list and end the sessions of a user, on any engine of this package.

`user` is a user or the primary key of one. `id` is `UserSession.id`. `request` is one with a session.

Redis may lose the index of a user's sessions, by eviction or by hand. So results have a `complete`: `True`; `False`
where it has been lost (the request's own session is not in it); `None` where that cannot be told (it is not there,
as it is for one who has no sessions, or the server has evicted keys). Then `repair_index()` looks through all sessions
and makes it again.

It is `None` too where the store has `foreign` records of a user of that id, made with none of this site's keys. They
are left alone: what is listed, what is counted and what is ended says `listing.py`.

    sessions_of(), count()  one round trip (Redis: two; MongoDB: more beyond 16 MB), however many sessions; and one to
                            ask the server's clock, where there is something that has expired by this host's
    revoke()                one more
    revoke_all()            lists and removes, until nothing new is found (Redis: and one about its index)
    revoke_everyone()       pages through all sessions, as repair_index() does
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.utils import timezone

from . import devices, lifecycle, limits, listing
from .codecs import data_of
from .lifecycle import REVOKED, handle
from .records import Record, identify
from .twins import ASYNC, SYNC, Face, run_sync

ROUNDS = 10  # at most: each beyond the second means that somebody has signed in meanwhile
PAGE = 1000  # records
REPAIR_PAGES = 50  # in one request: of about 1,000 sessions, or of 20,000 keys where few of them are sessions
EARLIEST, LATEST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)  # that any time zone can say
NOBODY = ""  # no session is stored with it, and any server takes it: other text could have a NUL, say

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
        return devices.name_of(self.user_agent)


class UserSessions(list[UserSession]):
    """What `sessions_of()` gives. Where nothing is listed, `complete` is `None` if the engine can lose its index.

    `foreign`: so many records of this user id are not of this site, and `complete` is `None`.
    """

    def __init__(self, sessions: Iterable[UserSession] = (), complete: bool | None = True, foreign: int = 0) -> None:
        super().__init__(sessions)
        self.complete = complete
        self.foreign = foreign


@dataclass(frozen=True)
class Revoked:
    """How many sessions were `ended`, and whether the index from which they were taken was `complete`.

    `foreign`: so many records of this user id are not of this site; they were left alone, and `complete` is `None`.
    """

    ended: int
    complete: bool | None = True
    foreign: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Repaired:
    """How many sessions were missing in the index, and where to go on (`None`: it was gone through to the end)."""

    indexed: int
    next: str | None = None


# Faces


def sessions_of(user: Any, request: Any = None) -> UserSessions:
    """The live sessions of a user, newest activity first. Raises `EngineUnavailable`."""
    return run_sync(_sessions_of(SYNC, user, request))


async def asessions_of(user: Any, request: Any = None) -> UserSessions:
    return await _sessions_of(ASYNC, user, request)


def count(user: Any) -> int:
    """How many sessions `sessions_of()` would list."""
    return run_sync(_count(SYNC, user))


async def acount(user: Any) -> int:
    return await _count(ASYNC, user)


def revoke(user: Any, id: str) -> bool:
    """End one session of the user; `False` if there is none of that id (any more)."""
    return run_sync(_revoke(SYNC, user, id))


async def arevoke(user: Any, id: str) -> bool:
    return await _revoke(ASYNC, user, id)


def revoke_all(user: Any, keep: Any = None) -> Revoked:
    """End all sessions of the user, but that of the request `keep`."""
    return run_sync(_revoke_all(SYNC, user, keep))


async def arevoke_all(user: Any, keep: Any = None) -> Revoked:
    return await _revoke_all(ASYNC, user, keep)


def revoke_everyone() -> int:
    """End the sessions of all users, and count them. Anonymous ones stay, and so do log-ins of meanwhile."""
    return run_sync(_revoke_everyone(SYNC))


async def arevoke_everyone() -> int:
    return await _revoke_everyone(ASYNC)


def repair_index(user: Any = None, after: str | None = None, pages: int | None = None) -> Repaired:
    """Look through all sessions, `pages` pages at most, and put into the index what is missing there.

    `user` limits this to one user's; `after` is the `next` of the call before. Only Redis can lose its index.
    """
    return run_sync(_repair_index(SYNC, user, after, pages))


async def arepair_index(user: Any = None, after: str | None = None, pages: int | None = None) -> Repaired:
    return await _repair_index(ASYNC, user, after, pages)


@contextmanager
def not_an_authentication(request: Any) -> Iterator[None]:
    """A `login()` or `alogin()` within is none: somebody of the staff looks in as a user, say.

    `@require_recent_login` and `MULTISESSION_ABSOLUTE_AGE` go on as before, `MULTISESSION_MAX_PER_USER` does not count
    the session, and no `session_started` is sent. Raises `TypeError` for a session.
    """
    with devices.not_an_authentication(request):
        yield


# Core


async def _sessions_of(face: Face, user: Any, request: Any) -> UserSessions:
    storage, user_id, own_id = _storage(face), user_id_of(user), own_id_of(request)
    held = await listing.of_user(storage, user_id)
    records = await listing.live(storage, held)
    own = own_record_of(request)
    can_miss = _can_miss(storage, user_id)
    complete = _unless_foreign(user_id, held.foreign, listing.complete(storage) if records or not can_miss else None)
    if can_miss and own and own.id == own_id and own.user_id == user_id and own_id not in {each.id for each in records}:
        complete = _lost(user_id)
        records += await listing.live(storage, [own])
    records.sort(key=lambda record: (record.updated_at, record.created_at), reverse=True)
    return UserSessions((_described(record, own_id) for record in records), complete, held.foreign)


async def _count(face: Face, user: Any) -> int:
    storage = _storage(face)
    return len(await listing.live(storage, await listing.of_user(storage, user_id_of(user))))


async def _revoke(face: Face, user: Any, id: str) -> bool:
    storage = _storage(face)
    held = await listing.of_user(storage, user_id_of(user))
    return bool(await _end(face, storage, [record for record in held if handle(record.id) == id], REVOKED))


async def _revoke_all(face: Face, user: Any, keep: Any) -> Revoked:
    storage, user_id, own_id = _storage(face), user_id_of(user), own_id_of(keep)
    kept = []

    def keeps(record: Record) -> bool:
        kept.append(own := record.id == own_id)
        return own

    revoked = await end_all(face, user_id, REVOKED, keeps, own_id)
    if not _can_miss(storage, user_id):
        return revoked
    own = await storage.read(own_id) if own_id and not any(kept) else None
    if own and own.user_id == user_id:
        return replace(revoked, complete=_lost(user_id))
    return replace(revoked, complete=None) if await storage.may_miss(user_id) else revoked


async def end_all(
    face: Face, user_id: str, reason: str, keeps: Callable[[Record], bool], kept: str | None = None
) -> Revoked:
    """A core coroutine, for others to give a reason. Ends when there is nothing new: a log-in of meanwhile is found.

    `kept`: the id of a session that stays, which a list may not have.
    """
    storage, ended = _storage(face), 0
    await listing.end_unlisted(storage, user_id, kept, reason == lifecycle.PASSWORD)
    for _ in range(ROUNDS):
        held = await listing.of_user(storage, user_id)
        found = [record for record in held if not keeps(record)]
        if not found:
            break
        ended += await _end(face, storage, found, reason)
    return Revoked(ended, _unless_foreign(user_id, held.foreign, listing.complete(storage)), held.foreign)


async def _end(face: Face, storage: Any, records: list[Record], reason: str) -> int:
    """End sessions. What has expired is removed too, as a host with a slow clock takes it; but it has ended already."""
    leftovers = {record.id for record in await listing.expired(storage, records)}
    if leftovers:
        await storage.remove(leftovers)
    return await lifecycle.end(face, storage, [each for each in records if each.id not in leftovers], reason)


async def _revoke_everyone(face: Face) -> int:
    storage, after, ended = _storage(face), None, 0
    await listing.end_unlisted(storage, None)
    while True:
        page = await storage.scan(after, PAGE)
        ended += await _end(face, storage, [each for each in listing.ours(page) if each.user_id], REVOKED)
        if (after := page.next) is None:
            return ended


async def _repair_index(face: Face, user: Any, after: str | None, pages: int | None) -> Repaired:
    storage, user_id = _storage(face), None if user is None else user_id_of(user)
    indexed = looked_at = 0
    while hasattr(storage, "index") and looked_at != pages:
        page = await storage.scan(after, PAGE)
        indexed += await storage.index([each for each in listing.ours(page) if user_id in (None, each.user_id)])
        after, looked_at = page.next, looked_at + 1
        if after is None:
            break
    return Repaired(indexed, after)


# Particulars


def user_id_of(user: Any) -> str:
    """The text by which sessions know a user. Raises `ValueError` for one that has no primary key."""
    pk = getattr(user, "pk", user)
    if pk is None or pk == "" or (isinstance(pk, tuple) and None in pk):
        raise ValueError(f"{user!r} has no primary key, so no sessions of its own.")
    key: Any = (user if hasattr(user, "_meta") else get_user_model())._meta.pk
    try:
        user_id = str(key.value_to_string(SimpleNamespace(**{key.attname: key.to_python(pk)})))
        user_id.encode()  # as every server has it
    except (ValidationError, ValueError, TypeError, OverflowError):
        return NOBODY
    return user_id


def store() -> Any:
    """The `SessionStore` class of `SESSION_ENGINE`."""
    from .backends import base

    found = import_module(settings.SESSION_ENGINE).SessionStore
    if not issubclass(found, base.SessionStore):
        raise ImproperlyConfigured(
            f"SESSION_ENGINE is {settings.SESSION_ENGINE!r}: it cannot list the sessions of a user. "
            "django_multisession.backends.redis, .mongodb and .db can."
        )
    return found


def is_moving() -> bool:
    """Whether some sessions may lie where they cannot be listed, which no repair changes: see `backends.moving`."""
    return listing.complete(_storage(SYNC)) is None


def _storage(face: Face) -> Any:
    return getattr(store(), face.storage)


def own_id_of(request: Any) -> str | None:
    """The id of the record of a request's session. Raises `TypeError` for a session, which would be ignored."""
    if isinstance(request, SessionBase):
        raise TypeError("Give the request, not its session.")
    key = getattr(getattr(request, "session", None), "session_key", None)
    return identify(key) if key and isinstance(key, str) else None


def own_record_of(request: Any) -> Record | None:
    """What a request has loaded; `None` where other middleware has put something else into its session."""
    record = getattr(getattr(request, "session", None), "_record", None)
    return record if isinstance(record, Record) else None


def _can_miss(storage: Any, user_id: str) -> bool:
    return hasattr(storage, "index") and user_id != NOBODY


def _lost(user_id: str) -> bool:
    """What `complete` is then; the log is told."""
    logger.error("The index of the sessions of user %s has been lost, at least in part: run repair_index().", user_id)
    return False


def _unless_foreign(user_id: str, foreign: int, complete: bool | None) -> bool | None:
    """What `complete` is; the log is told of what is not this site's."""
    if not foreign:
        return complete
    message = "%d records of user %s were made with none of this site's keys: they are left alone."
    logger.warning(message, foreign, user_id)
    return None


def _described(record: Record, own_id: str | None) -> UserSession:
    client = data_of(record).get(devices.CLIENT_KEY)
    known = client if isinstance(client, dict) else {}
    return UserSession(
        id=handle(record.id),
        created_at=_local(record.created_at),
        last_seen=_local(record.updated_at),
        expires_at=_local(limits.latest(record.expires_at, record.created_at, record.updated_at)),
        ip=known.get("ip"),
        user_agent=known.get("user_agent"),
        is_current=record.id == own_id,
    )


def _local(moment: datetime) -> datetime:
    moment = min(max(moment, EARLIEST), LATEST)  # whatever the store says, and "never expires" as datetime.max
    return moment if settings.USE_TZ else timezone.make_naive(moment)
