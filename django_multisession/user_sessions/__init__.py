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
    revoke_everyone()       pages through all sessions, as repair_index() does, until nothing old is found: so twice
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import engine
from ..twins import ASYNC, SYNC, run_sync
from . import devices, ending, listing, passes, signed_in
from .ending import Revoked
from .passes import REPAIR_PAGES, Repaired
from .people import user_id_of
from .signed_in import UserSession, UserSessions

__all__ = [
    "REPAIR_PAGES",
    "Repaired",
    "Revoked",
    "UserSession",
    "UserSessions",
    "acount",
    "arepair_index",
    "arevoke",
    "arevoke_all",
    "arevoke_everyone",
    "asessions_of",
    "count",
    "is_moving",
    "not_an_authentication",
    "repair_index",
    "revoke",
    "revoke_all",
    "revoke_everyone",
    "sessions_of",
    "user_id_of",
]


def sessions_of(user: Any, request: Any = None) -> UserSessions:
    """The live sessions of a user, newest activity first. Raises `EngineUnavailable`."""
    return run_sync(signed_in.sessions_of(SYNC, user, request))


async def asessions_of(user: Any, request: Any = None) -> UserSessions:
    return await signed_in.sessions_of(ASYNC, user, request)


def count(user: Any) -> int:
    """How many sessions `sessions_of()` would list."""
    return run_sync(signed_in.count(SYNC, user))


async def acount(user: Any) -> int:
    return await signed_in.count(ASYNC, user)


def revoke(user: Any, id: str) -> bool:
    """End one session of the user; `False` if there is none of that id (any more)."""
    return run_sync(ending.revoke(SYNC, user, id))


async def arevoke(user: Any, id: str) -> bool:
    return await ending.revoke(ASYNC, user, id)


def revoke_all(user: Any, keep: Any = None) -> Revoked:
    """End all sessions of the user, but that of the request `keep`."""
    return run_sync(ending.revoke_all(SYNC, user, keep))


async def arevoke_all(user: Any, keep: Any = None) -> Revoked:
    return await ending.revoke_all(ASYNC, user, keep)


def revoke_everyone() -> int:
    """End the sessions of all users, and count them. Anonymous ones stay, and so do log-ins of meanwhile."""
    return run_sync(passes.revoke_everyone(SYNC))


async def arevoke_everyone() -> int:
    return await passes.revoke_everyone(ASYNC)


def is_moving() -> bool:
    """Whether some sessions may lie where they cannot be listed, which no repair changes: see `backends.moving`."""
    return listing.complete(engine.storage(SYNC)) is None


def repair_index(user: Any = None, after: str | None = None, pages: int | None = None) -> Repaired:
    """Look through all sessions, `pages` pages at most, and put into the index what is missing there.

    `user` limits this to one user's; `after` is the `next` of the call before. Only Redis can lose its index.
    """
    return run_sync(passes.repair_index(SYNC, user, after, pages))


async def arepair_index(user: Any = None, after: str | None = None, pages: int | None = None) -> Repaired:
    return await passes.repair_index(ASYNC, user, after, pages)


@contextmanager
def not_an_authentication(request: Any) -> Iterator[None]:
    """A `login()` or `alogin()` within is none: somebody of the staff looks in as a user, say.

    `@require_recent_login` and `MULTISESSION_ABSOLUTE_AGE` go on as before, `MULTISESSION_MAX_PER_USER` does not count
    the session, and no `session_started` is sent. Raises `TypeError` for a session.
    """
    with devices.not_an_authentication(request):
        yield
