"""Sessions of a test's own: a Redis prefix, a MongoDB collection and a dictionary in which nothing else lies."""

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.test import override_settings

from .. import engine
from ..backends import memory
from ..conf import conf
from ..connections import Connections

RUN = secrets.token_hex(4)  # names of two runs differ, be it on two machines


@contextmanager
def isolated_sessions() -> Iterator[None]:
    """Within it, sessions are kept apart from those of the site, of other processes and of other tests.

    The names are `<MULTISESSION_KEY_PREFIX>-test-<run>-<process id>`, and so for the MongoDB collection. What is under
    them is removed at the end. The settings are changed for all threads, not for other processes. The SQL engine is in
    Django's test database and needs no names of its own; of `cached_db` it is the copies in Redis that are removed.
    """
    suffix = f"-test-{RUN}-{os.getpid()}"
    names = {
        "MULTISESSION_KEY_PREFIX": conf.KEY_PREFIX + suffix,
        "MULTISESSION_MONGODB_COLLECTION": conf.MONGODB_COLLECTION + suffix,
    }
    with override_settings(**names), memory.SessionStore.storage.aside():
        before = {name: connections.changes for name, connections in _used()}
        try:
            yield
        finally:
            _empty(before)


class IsolatedSessionsMixin:
    """Put it before the `TestCase`: each test runs in `isolated_sessions()`, from before `setUp()` to after the end."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        with isolated_sessions():
            return super().__call__(*arguments, **options)  # type: ignore[misc]

    def debug(self) -> None:
        with isolated_sessions():
            super().debug()  # type: ignore[misc]


def _used() -> Iterator[tuple[str, Connections[Any]]]:
    """Whichever engine these tests have used: an engine made of engines has used two."""
    for name in EMPTIED:
        if module := sys.modules.get(engine.BACKENDS + name):
            yield name, module.connections


def _empty(before: dict[str, int]) -> None:
    """Other settings within a test have closed what it had opened: that is opened once more, if it can be."""
    for name, connections in _used():
        if storage := connections.opened:
            EMPTIED[name](storage)
        elif connections.changes > before.get(name, 0):
            with suppress(Exception):  # what only those settings have named, and may be gone
                EMPTIED[name](connections.sync())


def _empty_redis(storage: Any) -> None:
    # One by one: on a cluster the keys of a command must lie in one slot.
    for key in list(storage.client.scan_iter(match=storage._key("*", escape=True), count=1000)):
        storage.client.unlink(key)


def _empty_mongodb(storage: Any) -> None:
    storage.collection.drop()
    storage.indexed.pop(conf.MONGODB_COLLECTION, None)


EMPTIED: dict[str, Callable[[Any], None]] = {
    "redis": _empty_redis,
    "mongodb": _empty_mongodb,
    "cached_db": lambda copies: copies.clear(),
}
