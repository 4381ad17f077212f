"""A second engine in memory, for moves from one of this package to another."""

from django_multisession.backends.memory import MemoryStorage
from django_multisession.backends.memory import SessionStore as First


class SessionStore(First):
    storage = astorage = MemoryStorage()
