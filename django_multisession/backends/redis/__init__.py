"""Sessions in Redis or Valkey, through django-redis. What is stored, and by which commands: see `storage.py`."""

from django.utils.functional import classproperty

from ...conf import conf
from ...connections import Connections
from ...exceptions import driver_missing
from .. import base
from . import checks  # noqa: F401  registers them

try:
    from . import clients
    from .cluster import storage_of
    from .storage import RedisStorage
except ImportError as error:
    raise driver_missing(error, "redis", redis="5.2", django_redis="5.4") from error

connections = Connections(
    lambda: storage_of(clients.configured()),
    lambda storage: storage_of(clients.asynchronous(storage.client)),
    settings={"CACHES", "SESSION_CACHE_ALIAS", "MULTISESSION_REDIS", "MULTISESSION_TIMEOUT"},
    names=lambda: [conf.KEY_PREFIX],
)


class SessionStore(base.SessionStore):
    """`SESSION_ENGINE = "django_multisession.backends.redis"`"""

    @classproperty
    def storage(cls) -> RedisStorage:
        return connections.sync()

    @classproperty
    def astorage(cls) -> RedisStorage:
        return connections.running()
