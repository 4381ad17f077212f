"""What `MULTISESSION_MOVE` says: the two sides and the phase, once per value of the setting."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ... import engine
from ...conf import conf
from ...twins import ASYNC, SYNC, Face
from .. import base
from . import elsewhere
from .adapters import adapter_of
from .cookies import InCookie
from .foreign import Foreign
from .ours import Ours
from .storage import MOVE, PHASES, Keys, MovingStorage

MOVING = __name__.rpartition(".")[0]
NAMES = "from", "to", "phase", "from_settings"


class NoSide(ImproperlyConfigured):
    """An engine that cannot be a side of a move, or not this one."""


@dataclass(frozen=True)
class Plan:
    from_: Any  # the SessionStore class of the old side
    to: Any  # that of the new one
    phase: str
    from_settings: dict[str, Any] = field(default_factory=dict)

    @property
    def is_foreign(self) -> bool:
        return not issubclass(self.from_, base.SessionStore)

    @property
    def is_cookies(self) -> bool:
        return self.is_foreign and issubclass(adapter_of(self.from_), InCookie)

    @property
    def starts_there(self) -> bool:
        """Whether new sessions are made on the old side."""
        return self.phase != MOVE

    def storage(self, face: Face, keys: Keys | None = None) -> MovingStorage:
        serializer = import_string(settings.SESSION_SERIALIZER)
        keys = Keys() if keys is None else keys
        old = self._old(face, serializer, keys)
        sync: Callable[[], MovingStorage] | None = None if face is SYNC else lambda: self.storage(SYNC, keys)
        return MovingStorage(getattr(self.to, face.storage), old, self.phase, face, serializer, keys, sync)

    def _old(self, face: Face, serializer: type, keys: Keys) -> Ours | Foreign:
        if self.is_foreign:
            found = adapter_of(self.from_)(self.from_, face, serializer)
            found.renamed = keys.renamed
            return found
        if self.from_settings:
            return Ours(elsewhere.storage(self.from_, self.from_settings, face))
        return Ours(getattr(self.from_, face.storage))


def plan() -> Plan:
    """Raises `ImproperlyConfigured`."""
    said = conf.MOVE
    if not isinstance(said, dict) or not {"from", "to", "phase"} <= set(said) <= set(NAMES):
        raise ImproperlyConfigured(f"MULTISESSION_MOVE is {said!r}: a dict of {', '.join(NAMES)} (the last optional).")
    if said["phase"] not in PHASES:
        raise ImproperlyConfigured(f"MULTISESSION_MOVE: the phase is {said['phase']!r}, none of {', '.join(PHASES)}.")
    found = Plan(store_of(said["from"]), store_of(said["to"]), said["phase"], said.get("from_settings") or {})
    if not issubclass(found.to, base.SessionStore):
        raise NoSide(f"MULTISESSION_MOVE: 'to' is {said['to']!r}, which is no engine of this package.")
    elsewhere.check(found.from_settings, found.is_foreign)
    return found


def store_of(engine: str) -> Any:
    if engine == MOVING:
        raise NoSide("MULTISESSION_MOVE: a move cannot be moved.")
    try:
        return import_module(engine).SessionStore
    except (ImportError, AttributeError) as error:
        raise ImproperlyConfigured(f"MULTISESSION_MOVE: {engine!r} is no session engine: {error}") from error


def same_place(sides: Plan) -> bool:
    """Of engines of this package: whether both keep their records in the same place."""
    if sides.is_foreign:
        return sides.from_ is sides.to
    if _is_in_table(sides.from_) and _is_in_table(sides.to):  # where the copies of `cached_db` are is no matter
        said = {name: value for name, value in sides.from_settings.items() if name == elsewhere.DATABASE}
        return not elsewhere.differs(sides.to, said)
    return sides.from_ is sides.to and not elsewhere.differs(sides.to, sides.from_settings)


def _is_in_table(store: Any) -> bool:
    """Whether it is `db` or `cached_db`, which share a table; by name, since asking a storage may open a client."""
    return store.__module__ in {engine.BACKENDS + kind for kind in engine.IN_SQL}


FACES = {"storage": SYNC, "astorage": ASYNC}
