"""The old side where it is the engine of `to`, or another of ours, in another place: `from_settings`.

MULTISESSION_REDIS, MULTISESSION_MONGODB    as the settings of these names, for the old side
database                                    the alias of the old side's SQL database
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import router

from ...connections import Connections
from ...twins import SYNC, Face

DATABASE = "database"
CLIENTS = "MULTISESSION_REDIS", "MULTISESSION_MONGODB"
NAMES = *CLIENTS, DATABASE


def check(said: dict[str, Any], foreign: bool) -> None:
    if foreign and said:
        raise ImproperlyConfigured("MULTISESSION_MOVE: from_settings is for a 'from' of this package.")
    if set(said) - set(NAMES):
        raise ImproperlyConfigured(f"MULTISESSION_MOVE: from_settings has {said!r}; it takes {', '.join(NAMES)}.")


def storage(store: Any, said: dict[str, Any], face: Face) -> Any:
    """Raises `ImproperlyConfigured` for what is not to be said of that engine."""
    if DATABASE in said:
        return _in_database(getattr(store, face.storage), said[DATABASE])
    connections = _connections(store, tuple(sorted(said.items())))
    return connections.sync() if face is SYNC else connections.running()


def differs(store: Any, said: dict[str, Any]) -> bool:
    """Whether the settings name another place than those of the site."""
    if DATABASE in said:
        return bool(said[DATABASE] != router.db_for_write(store.storage.model))
    return any(getattr(settings, name, None) != value for name, value in said.items())


@lru_cache(maxsize=16)
def _connections(store: Any, said: tuple[tuple[str, Any], ...]) -> Connections[Any]:
    module = next((each.__module__ for each in store.__mro__ if _has_connections(each.__module__)), None)
    if module is None:
        raise ImproperlyConfigured(f"MULTISESSION_MOVE: from_settings has {dict(said)!r}, and 'from' has no client.")
    own: Connections[Any] = import_module(module).connections

    def open_sync() -> Any:
        with own._lock, _settings(dict(said)):  # who opens the new side's client waits: it would read these too
            return own._open_sync()

    return Connections(open_sync, own._open_async, settings={"MULTISESSION_MOVE", *CLIENTS, "MULTISESSION_TIMEOUT"})


def _has_connections(module: str) -> bool:
    return hasattr(import_module(module), "connections") and isinstance(import_module(module).connections, Connections)


@contextmanager
def _settings(said: dict[str, Any]) -> Iterator[None]:
    before = {name: getattr(settings, name) for name in said if hasattr(settings, name)}
    for name, value in said.items():
        setattr(settings, name, value)
    try:
        yield
    finally:
        for name in said:
            setattr(settings, name, before[name]) if name in before else delattr(settings, name)


def _in_database(own: Any, alias: str) -> Any:
    class InDatabase(type(own)):  # type: ignore[misc]
        def database(self) -> str:
            return alias

    return InDatabase(own.call)
