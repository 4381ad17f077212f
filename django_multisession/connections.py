"""Clients that outlive a request: one per process on the synchronous face, one per running event loop on the other.

Asynchronous clients are bound to the loop that opened them, so each loop gets its own, and it is closed with its loop:
every way of running one (`asyncio.run()`, `async_to_sync`, uvicorn, pytest) ends it with `loop.shutdown_asyncgens()`,
which finishes the suspended generator that holds the client.
"""

import asyncio
import atexit
import os
from collections.abc import AsyncGenerator, Callable
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from django.core.signals import setting_changed

from .twins import run_sync


class Closable(Protocol):
    def close(self) -> None: ...

    async def aclose(self) -> None: ...


S = TypeVar("S", bound=Closable)


class Connections(Generic[S]):
    """The storages of one engine: `open_sync()` makes the first, `open_async()` turns it into a loop's own.

    `settings` names what they depend on: when a test overrides one of these, they are made anew.
    """

    _all: "WeakSet[Connections[Any]]" = WeakSet()

    def __init__(self, open_sync: Callable[[], S], open_async: Callable[[S], S], settings: set[str]) -> None:
        self._open_sync = open_sync
        self._open_async = open_async
        self._settings = settings
        self._kept: list[object] = []
        self._lock = Lock()
        self._reset()
        Connections._all.add(self)

    def _reset(self) -> None:
        self._sync: S | None = None
        self._async: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[S, AsyncGenerator[S, None]]] = (
            WeakKeyDictionary()
        )

    def sync(self) -> S:
        """The process's storage."""
        if self._sync is None:
            with self._lock:
                if self._sync is None:
                    self._sync = self._open_sync()
        return self._sync

    def running(self) -> S:
        """The running event loop's storage. Raises `RuntimeError` where none runs."""
        loop = asyncio.get_running_loop()
        try:
            return self._async[loop][0]
        except KeyError:
            return self._open_in(loop)

    def _open_in(self, loop: asyncio.AbstractEventLoop) -> S:
        open_here = self._async
        # keyrefs() is a copy: the loops of other threads come and go meanwhile.
        for ended in [each for ref in open_here.keyrefs() if (each := ref()) is not None and each.is_closed()]:
            open_here.pop(ended, None)  # ended without shutdown_asyncgens()
        keeper = _keep(self._open_async(self.sync()), lambda: open_here.pop(loop, None))
        storage = run_sync(keeper.__anext__())
        open_here[loop] = storage, keeper
        return storage

    def close(self) -> None:
        """Close the process's client and forget the others; each of those is closed when its loop ends."""
        storage, self._kept = self._sync, [each for each in (*self._kept, self._async) if each]
        self._reset()
        if storage is not None:
            storage.close()

    @classmethod
    def _setting_changed(cls, *, setting: str, **kwargs: object) -> None:
        for connections in list(cls._all):
            if setting in connections._settings:
                connections.close()

    @classmethod
    def _forked(cls) -> None:
        """A child opens its own clients. The parent's stay referenced: closing one would hang up on the parent."""
        for connections in list(cls._all):
            connections._kept += [connections._sync, connections._async]
            connections._lock = Lock()
            connections._reset()


async def _keep(storage: S, forget: Callable[[], object]) -> AsyncGenerator[S, None]:
    try:
        yield storage
    finally:
        forget()
        await storage.aclose()


@atexit.register
def close_all() -> None:
    """Close the clients of this process, as it does when it ends."""
    for connections in list(Connections._all):
        connections.close()


setting_changed.connect(Connections._setting_changed)
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=Connections._forked)
