"""An engine of a site's own: it builds on the base, and its kind is none of the package's."""

from django_multisession.backends import base
from django_multisession.backends.memory import MemoryStorage


class SessionStore(base.SessionStore):
    storage = astorage = MemoryStorage()
