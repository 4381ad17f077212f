"""Clients that outlive a request: one per process on the synchronous face, one per running event loop on the other.

Asynchronous clients are bound to the loop that opened them, so each loop gets its own, and it is closed with its loop:
every way of running one (`asyncio.run()`, `async_to_sync`, uvicorn, pytest) ends it with `loop.shutdown_asyncgens()`,
which finishes the suspended generator that holds the client. The generator is an attribute of the loop. In a dictionary
with weak keys no loop would die before it is shut down: its client's streams, which are the value, hold it, the key.
"""

import asyncio
import atexit
import errno
import os
import socket
from collections.abc import AsyncGenerator, Callable, Iterable
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar, cast
from weakref import WeakSet

from django.core.signals import setting_changed

from . import test_runs
from .exceptions import EngineUnavailable
from .twins import run_sync


class Closable(Protocol):
    def close(self) -> None: ...

    async def aclose(self) -> None: ...


S = TypeVar("S", bound=Closable)

# Network errors for which Python has no class of its own.
NO_WAY = {errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH}

KEPT = "_django_multisession"  # the attribute of a loop: {a mark of Connections: (storage, generator)}


class Connections(Generic[S]):
    """The storages of one engine: `open_sync()` makes the first, `open_async()` turns it into a loop's own.

    `settings` names what they depend on: when a test overrides one of these, they are made anew. `names()` gives what
    the store is called, to tell a site's own from that of its tests.
    """

    _all: "WeakSet[Connections[Any]]" = WeakSet()

    def __init__(
        self,
        open_sync: Callable[[], S],
        open_async: Callable[[S], S],
        settings: set[str],
        names: Callable[[], Iterable[str]] | None = None,
    ) -> None:
        self._open_sync = open_sync
        self._open_async = open_async
        self._settings = settings
        self._names = names
        self.changes = 0  # how often the process's storage was opened, or closed
        self._kept: list[object] = []  # of the processes that this one was forked from
        self._loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        self._lock = Lock()
        self._reset()
        Connections._all.add(self)

    def _reset(self) -> None:
        self._sync: S | None = None
        self._aside: S | None = None  # open, but its name has changed, or no test has used it yet
        self._failure: EngineUnavailable | None = None  # the last one to open it
        self._mark = object()  # what loops keep under an older one is forgotten

    def sync(self) -> S:
        """The process's storage. Where it fails to open, so it does for whoever has waited for that meanwhile: a name
        server that does not answer takes seconds, which threads would else wait for in a row."""
        if (storage := self._sync) is None:
            known = self._failure
            with self._lock:
                if (storage := self._sync) is None and self._failure is not known:
                    raise EngineUnavailable(str(self._failure))
                if storage is None:
                    storage = self._opened()
        return storage

    @property
    def opened(self) -> S | None:
        """The process's storage, if it has been used."""
        return self._sync or self._aside

    def _opened(self) -> S:
        is_used = self._names is None or not test_runs.is_looked_at()
        if self._names and is_used:
            test_runs.warn_of_own(self._names())
        try:
            storage = self._aside or self._open_sync()
        except EngineUnavailable as error:
            self._failure = EngineUnavailable(str(error))  # which holds no frames
            raise
        self.changes += 1
        # Aside, its first use by a test is still to come, and is warned of then.
        self._sync, self._aside = (storage, self._aside) if is_used else (None, storage)
        return storage

    def running(self) -> S:
        """The running event loop's storage. Raises `RuntimeError` where none runs."""
        loop = asyncio.get_running_loop()
        try:
            return cast(S, getattr(loop, KEPT)[self._mark][0])
        except (AttributeError, KeyError):
            return self._open_in(loop)

    def _open_in(self, loop: asyncio.AbstractEventLoop) -> S:
        kept, mark = vars(loop).setdefault(KEPT, {}), self._mark
        keeper = _keep(self._open_async(self.sync()), lambda: kept.pop(mark, None))
        storage = run_sync(keeper.__anext__())
        kept[mark] = storage, keeper
        self._loops.add(loop)
        return storage

    def close(self) -> None:
        """Close the process's client and forget the others; each of those is closed when its loop ends."""
        storage = self.opened
        self._reset()
        if storage is not None:
            self.changes += 1
            storage.close()

    @classmethod
    def _setting_changed(cls, *, setting: str, **kwargs: object) -> None:
        for connections in list(cls._all):
            if setting in connections._settings:
                connections.close()
            elif setting.startswith("MULTISESSION_") and connections._names:
                connections._sync, connections._aside = None, connections.opened

    @classmethod
    def _forked(cls) -> None:
        """A child opens its own clients. The parent's stay referenced: closing one would hang up on the parent."""
        for connections in list(cls._all):
            connections._kept += [connections.opened, *connections._loops]
            connections._lock = Lock()
            connections._reset()


async def _keep(storage: S, forget: Callable[[], object]) -> AsyncGenerator[S, None]:
    try:
        yield storage
    finally:
        forget()
        await storage.aclose()


def is_of_network(error: BaseException) -> bool:
    """Whether a server could not be reached, which may pass; a file that is not there is a mistake."""
    known = ConnectionError, TimeoutError, socket.gaierror
    return isinstance(error, known) or (isinstance(error, OSError) and error.errno in NO_WAY)


@atexit.register
def close_all() -> None:
    """Close the clients of this process, as it does when it ends."""
    for connections in list(Connections._all):
        connections.close()


setting_changed.connect(Connections._setting_changed)
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=Connections._forked)
