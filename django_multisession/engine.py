"""The engine that `SESSION_ENGINE` names: its store class, its kind, its storages. No other module reads the setting.

Whether a store is one of this package is told by the modules in which its classes are: no engine is imported for that.
"""

from importlib import import_module
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from .twins import Face

IN_SQL = "db", "cached_db"  # kinds
PACKAGE = "django_multisession."
BACKENDS = f"{PACKAGE}backends."


def name() -> str:
    return settings.SESSION_ENGINE


def store_class() -> Any:
    """The `SessionStore` class of the engine, whoever has made it."""
    return import_module(name()).SessionStore


def store() -> Any:
    """The same, for what only an engine of this package can do. Raises `ImproperlyConfigured` with any other."""
    if not is_ours(found := store_class()):
        raise ImproperlyConfigured(
            f"SESSION_ENGINE is {name()!r}: it cannot list the sessions of a user. "
            "django_multisession.backends.redis, .mongodb, .db and .cached_db can."
        )
    return found


def storage(face: Face) -> Any:
    return getattr(store(), face.storage)


def kind() -> str:
    """What it is or builds on: "redis", "mongodb", "db", "cached_db", "base" (a third one), "" (none of ours)."""
    try:
        return kind_of(store_class())
    except (AttributeError, ImportError, ImproperlyConfigured):
        return ""


def kind_of(store: type) -> str:
    ours = (each.__module__ for each in store.__mro__ if each.__module__.startswith(BACKENDS))
    return next(ours, "").removeprefix(BACKENDS).partition(".")[0]


def is_ours(store: type) -> bool:
    return kind_of(store) != ""


def import_error() -> Exception | None:
    """Why what the setting names is no engine that can be imported: misspelled, say, or its driver is missing."""
    try:
        module = import_module(name())
    except (AttributeError, ImportError, ImproperlyConfigured) as error:  # the first where it is no text
        return error
    # Where the class is made when it is asked for, as for a move, the engine's own checks tell what it lacks.
    has_class = not {"SessionStore", "__getattr__"}.isdisjoint(vars(module))
    return None if has_class else ImportError(f"module {name()!r} has no attribute 'SessionStore'")
