"""Sessions in MongoDB, through pymongo. What is stored, and by which commands: see `storage.py`."""

from typing import Any
from urllib.parse import parse_qsl

from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import classproperty
from django.utils.module_loading import import_string

from ...conf import conf
from ...connections import Connections, is_of_network
from ...exceptions import EngineUnavailable, driver_missing
from ...twins import run_sync
from .. import base
from .checks import database_and_query

try:
    import pymongo
    from pymongo.errors import ConfigurationError, ConnectionFailure, OperationFailure, PyMongoError

    from .storage import MongoStorage, logger
except ImportError as error:
    raise driver_missing(error, "mongodb", pymongo="4.13") from error

# Options with which a URI says itself how long to wait; without any, MongoDB's driver waits for ever, and without the
# last the server for a majority.
TIMEOUTS = ("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS", "wTimeoutMS")


def open_sync() -> MongoStorage:
    if not conf.MONGODB:
        raise ImproperlyConfigured(
            "Set MULTISESSION_MONGODB to a URI with a database, such as 'mongodb://localhost/mysite'."
        )
    try:
        client = _of_uri(conf.MONGODB) if "://" in conf.MONGODB else import_string(conf.MONGODB)()
        fault = _fault(client)
    except (PyMongoError, AttributeError, ImportError, TypeError, ValueError, OSError) as error:
        if _is_outage(error):
            raise EngineUnavailable(f"MongoDB: {error}") from error
        raise ImproperlyConfigured(
            "MULTISESSION_MONGODB is neither a usable MongoDB URI nor the path of a function that returns a "
            f"client: {error}"
        ) from error
    if fault:
        client.close()
        raise ImproperlyConfigured(f"The URI of MULTISESSION_MONGODB {fault}")
    return MongoStorage(client, indexed={})


def _is_outage(error: Exception) -> bool:
    """Whether no client could be made for what may pass, so that the next use is to try again."""
    # What a name server does not answer to a mongodb+srv:// URI, PyMongo calls a mistake in that.
    of_dns = type(error.__cause__).__module__ in ("dns.resolver", "dns.exception")
    of_server = isinstance(error, ConnectionFailure | OperationFailure) or is_of_network(error)
    return of_server or (isinstance(error, ConfigurationError) and of_dns)


def _of_uri(uri: str) -> Any:
    """What the URI does not say: how long to wait, and that a majority of the servers has a write before it is done.
    Else the next primary may not know of it: of a log-out, say. (Some servers' own default is one.)"""
    said = {name.lower() for name, _ in parse_qsl(database_and_query(uri)[1])}
    timeout = {name: int(conf.TIMEOUT * 1000) for name in TIMEOUTS}
    options: dict[str, Any] = {} if "timeoutms" in said else timeout
    defaults = {"w": "majority", **options}
    return pymongo.MongoClient(uri, **{name: value for name, value in defaults.items() if name.lower() not in said})


def _fault(client: Any) -> str | None:
    try:
        client.get_default_database()
    except ConfigurationError:
        return "must name a database, as in 'mongodb://localhost/mysite'."
    return None if client.write_concern.acknowledged else "has w=0: a save must know whether it happened."


def open_async(storage: MongoStorage) -> MongoStorage:
    """Over an asynchronous client made with the arguments of the synchronous one."""
    return MongoStorage(pymongo.AsyncMongoClient(**storage.client._init_kwargs), storage.indexed)


def _names() -> list[str]:
    where = conf.MONGODB or ""
    return [conf.MONGODB_COLLECTION, database_and_query(where)[0] if "://" in where else where]


connections = Connections(
    open_sync,
    open_async,
    settings={"MULTISESSION_MONGODB", "MULTISESSION_TIMEOUT"},
    names=_names,
)


def make_indexes() -> None:
    """Make the collection's indexes. An outage is logged: the first insert tries again."""
    try:
        run_sync(connections.sync().ensure_indexes())
    except EngineUnavailable as unavailable:
        logger.error("The indexes of the session collection are not made yet. %s", unavailable)


class SessionStore(base.SessionStore):
    """`SESSION_ENGINE = "django_multisession.backends.mongodb"`"""

    @classproperty
    def storage(cls) -> MongoStorage:
        return connections.sync()

    @classproperty
    def astorage(cls) -> MongoStorage:
        return connections.running()
