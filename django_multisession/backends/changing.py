"""`SessionStore.change()`: a function of the newest data, called again where another request came first.

Each call is made on a draft, a copy of the session that is saved as any session is, but for conflicts: a draft that
was overtaken is thrown away, with all that the function did to it. What becomes of one that was saved is brought home
into the session. So whatever is raised in between, the session is as before.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import isawaitable, iscoroutine
from typing import Any

from .. import limits
from ..exceptions import SessionConflict, SessionEnded
from ..payload import codecs, merging
from ..records import Record
from ..twins import SYNC
from .state import AGAIN, GONE, Overtaken
from .storage import Storage

Data = dict[str, Any]

_at_work: ContextVar[tuple[Any, ...]] = ContextVar("django_multisession.change", default=())  # the sessions


async def change(session: Any, storage: Storage, function: Callable[[Data], Any], attempts: int) -> Any:
    with _once(session):
        known = getattr(session, "_record", None)
        await session._data(storage)
        if session._rotated_in is not None:
            await session._rotate_again(storage, session._rotated_in)
        draft = Draft(session)
        await draft.look(storage, known)
        for _ in range(attempts):
            try:
                return await draft.saved(storage, function)
            except Overtaken as overtaken:
                draft = Draft(session)
                draft.go_on(overtaken)
        raise SessionConflict(session._session_cache, draft.copy._session_cache, attempts)


@contextmanager
def _once(session: Any) -> Iterator[None]:
    """Refuse a change within a change: each would overtake the other for ever."""
    if any(session is other for other in _at_work.get()):
        raise RuntimeError("change() of a session was called by a function that changes the same session.")
    token = _at_work.set((*_at_work.get(), session))
    try:
        yield
    finally:
        _at_work.reset(token)


class Draft:
    def __init__(self, session: Any) -> None:
        self.session, self.state = session, dict(vars(session))
        self.copy = copy.copy(session)
        self.before, self.copy._session_cache = (
            codecs.as_loaded(session._session_cache, session.serializer) for _ in range(2)
        )
        self.copy._on_conflict = "merge"

    async def look(self, storage: Storage, known: Record | None) -> None:
        """Take over what others have saved since the session was loaded, which `known` is from."""
        if self.copy.session_key is None:
            return  # a new session
        stored: Record | None = await self.copy._stored(storage)
        if stored is None:
            raise SessionEnded(GONE)
        if stored is not known:
            return  # read just now
        # No locking read, as for who needs to know: of two in transactions neither could save then. A conflict tells.
        held = await storage.read(stored.id)
        if held is None or held.is_mark or limits.is_over(held):
            await self.copy._follow(storage)
        elif (held.version, held.payload) != (stored.version, stored.payload):
            self.copy._resolve(held)

    def go_on(self, overtaken: Overtaken) -> None:
        self.copy._session_key = overtaken.session_key
        self.copy._resolve(overtaken.held, rotated=True)

    async def saved(self, storage: Storage, function: Callable[[Data], Any]) -> Any:
        """What the function has returned. Raises `Overtaken`."""
        result = await _called(self.session._face is SYNC, function, self.copy._session_cache)
        self.copy._on_conflict = AGAIN
        await self.copy._save(storage)
        self.bring_home()
        return result

    def bring_home(self) -> None:
        """The session takes over what was saved, and keeps what was done to it meanwhile."""
        session, record = self.session, self.copy._record
        session.accessed = session.modified = True  # the cookie of a new session, or key, is to be sent
        newer = session._record if session._record is not self.state.get("_record") else None
        if newer and record and newer.id == record.id and newer.version > record.version:
            return  # two changes of one session object at once: the later has been here before
        saved, ours = codecs.as_loaded(self.copy._session_cache, session.serializer), session._session_cache
        for loaded in (self.before, session._data_of(session._base) or {}):
            merging.adopt(loaded, ours, saved, session.serializer, by_rules=False)
        _sort(ours, saved)
        self.copy._on_conflict = None
        for name, value in vars(self.copy).items():
            if name != "_session_cache" and value is not self.state.get(name):
                setattr(session, name, value)


def _sort(ours: Data, saved: Data) -> None:
    """The order of what was saved: else the next save would find other bytes."""
    items = {**{key: ours[key] for key in saved if key in ours}, **ours}
    ours.clear()
    ours.update(items)


async def _called(sync: bool, function: Callable[[Data], Any], data: Data) -> Any:
    result = function(data)
    if not isawaitable(result):
        return result
    if not sync:
        return await result
    if iscoroutine(result):
        result.close()
    raise TypeError("change() was given a coroutine function: await achange() instead.")
