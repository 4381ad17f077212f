"""Sessions in Redis or Valkey, through django-redis. What is stored, and by which commands: see `storage.py`."""

from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import classproperty

from ...conf import conf
from ...connections import Connections
from .. import base
from . import checks  # noqa: F401  registers them

try:
    from . import clients
    from .storage import RedisStorage
except ImportError as error:
    raise ImproperlyConfigured("This session engine needs: pip install django-multisession[redis].") from error

connections = Connections(
    lambda: RedisStorage(clients.configured()),
    lambda storage: RedisStorage(clients.asynchronous(storage.client)),
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
