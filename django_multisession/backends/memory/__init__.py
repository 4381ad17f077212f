"""Sessions in the memory of one process: for a site's tests, and for trying things out. See `storage.py`."""

from typing import ClassVar

from .. import base
from . import checks  # noqa: F401  registers it
from .storage import MemoryStorage


class SessionStore(base.SessionStore):
    """`SESSION_ENGINE = "django_multisession.backends.memory"`"""

    storage: ClassVar[MemoryStorage] = MemoryStorage()
    astorage: ClassVar[MemoryStorage] = storage  # nothing here waits, so both faces share one
