"""A second engine in memory, for moves from one of this package to another."""

from tests.memory import MemoryStorage
from tests.memory import SessionStore as First


class SessionStore(First):
    storage = astorage = MemoryStorage()
