"""Sessions in a SQL database, read from Redis. What is stored, and in which order: see `storage.py`."""

from ...connections import Connections
from ...exceptions import driver_missing
from .. import db
from . import checks  # noqa: F401  registers them

try:
    from .copies import Copies
except ImportError as error:
    raise driver_missing(error, "redis", redis="5.2", django_redis="5.4") from error

from .storage import CachedStorage

connections = Connections(
    Copies,
    lambda copies: Copies(of=copies),
    settings={"CACHES", "SESSION_CACHE_ALIAS"}
    | {f"MULTISESSION_{name}" for name in ("REDIS", "TIMEOUT", "CACHE_AGE", "KEY_PREFIX")},
)


class Storage(CachedStorage):
    told = property(lambda self: connections.sync())
    copies = told


class AsyncStorage(Storage):
    copies = property(lambda self: connections.running())


class SessionStore(db.SessionStore):
    """`SESSION_ENGINE = "django_multisession.backends.cached_db"`"""

    storage = Storage(db.SessionStore.storage.call)
    astorage = AsyncStorage(db.SessionStore.astorage.call)
