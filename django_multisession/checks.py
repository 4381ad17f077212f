"""Numbered system checks, one short function per mistake.

Always, without any I/O::

    E001  a MULTISESSION_* setting of an unknown name
    E002  the SQL engine without this app in INSTALLED_APPS: no table
    W001  another engine without it: no commands
    E003  SESSION_ENGINE names a module of this package that cannot be imported (misspelled, or its driver is missing)
    E004  a setting of a wrong type or range
    E005  MULTISESSION_ENCRYPTION_KEYS is no list of usable keys
    E006  encryption keys, but no cryptography library
    E007  redis: SESSION_CACHE_ALIAS is not in CACHES
    E008  redis: SESSION_CACHE_ALIAS is no django-redis cache, or one of shards
    E009  redis: MULTISESSION_REDIS is neither a Redis URL nor the path of a callable
    E010  redis: the client decodes responses
    W002  redis: sessions live in the cache "default", which cache.clear() flushes
    W003  redis: another cache flushes the database of the sessions
    E011  mongodb: MULTISESSION_MONGODB is not set
    E012  mongodb: MULTISESSION_MONGODB is neither a MongoDB URI nor the path of a callable
    E013  mongodb: the URI names no database
    E014  mongodb: MULTISESSION_MAX_BYTES is more than a document can hold

Under `check --deploy`::

    W004  SESSION_SERIALIZER is a pickle

Under `check --deploy` and `check --database` (which `migrate` runs first), of the server::

    W005  redis: it could not be asked
    E015  redis: it is older than 6.2
    W006  redis: it evicts sessions when its memory is full
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from django.utils.version import get_version_tuple

from . import codecs
from .conf import NAMES, conf

Problems = Iterator[tuple[str, str]]  # what is wrong, what to do
Check = Callable[..., list[checks.CheckMessage]]

BACKENDS = "django_multisession.backends."
EVERY_SITE = "", "base", "db", "mongodb", "redis"
EVERY_ENGINE = EVERY_SITE[1:]
MONGODB_DOCUMENT = 16 * 1024 * 1024 - 4096  # bytes; the fields beside the payload need less than these 4 KiB


def engine() -> str:
    """What SESSION_ENGINE is or builds on: "redis", "mongodb", "db", "base" (a third engine), "" (not ours)."""
    try:
        store = import_string(f"{settings.SESSION_ENGINE}.SessionStore")
    except (ImportError, ImproperlyConfigured):
        return ""
    ours = (each.__module__ for each in store.__mro__ if each.__module__.startswith(BACKENDS))
    return next(ours, "").removeprefix(BACKENDS)


def check(number: str, *engines: str, tags: Sequence[str] = (), deploy: bool = False) -> Callable[..., Check]:
    """Register a generator of problems as a check for sites with one of these engines."""

    def decorate(problems: Callable[[], Problems]) -> Check:
        def run(**_kwargs: object) -> list[checks.CheckMessage]:
            return messages(number, problems()) if engine() in engines else []

        checks.register(*tags, deploy=deploy)(run)
        return run

    return decorate


def messages(number: str, problems: Iterable[tuple[str, str]]) -> list[checks.CheckMessage]:
    level = checks.Error if number.startswith("E") else checks.Warning
    return [level(message, hint=hint, id=f"django_multisession.{number}") for message, hint in problems]


# Settings and installation


@check("E001", *EVERY_SITE)
def unknown_setting() -> Problems:
    for name in dir(settings):
        if name.startswith("MULTISESSION_") and name not in NAMES:
            yield f"There is no setting {name}.", _suggestion(name)


def _suggestion(name: str) -> str:
    known = [each.removeprefix("MULTISESSION_") for each in NAMES]
    close = get_close_matches(name.removeprefix("MULTISESSION_"), known, n=1)
    return f"Did you mean MULTISESSION_{close[0]}?" if close else f"There are: {', '.join(NAMES)}."


INSTALL = "Add 'django_multisession' to INSTALLED_APPS, then run: manage.py migrate"


@check("E002", "db")
def table_not_installed() -> Problems:
    if not apps.is_installed("django_multisession"):
        yield "'django_multisession' is not in INSTALLED_APPS: the sessions have no table.", INSTALL


@check("W001", "mongodb", "redis")
def commands_not_installed() -> Problems:
    if not apps.is_installed("django_multisession"):
        yield "'django_multisession' is not in INSTALLED_APPS: its commands are missing.", INSTALL


@check("E003", *EVERY_SITE)
def engine_not_importable() -> Problems:
    if settings.SESSION_ENGINE.startswith("django_multisession."):
        try:
            import_module(settings.SESSION_ENGINE)
        except (ImportError, ImproperlyConfigured) as error:
            yield f"SESSION_ENGINE cannot be imported: {error}", f"There are: {BACKENDS}redis, .mongodb and .db."


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.001 <= value < float("inf")


def _is_key_prefix(value: object) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable() and " " not in value


def _is_collection(value: object) -> bool:
    return isinstance(value, str) and all(value.split(".")) and not {"$", "\0"} & set(value)


VALID: dict[str, tuple[Callable[[Any], bool], str]] = {
    "KEY_PREFIX": (_is_key_prefix, "a text that is not empty and has no spaces"),
    "MONGODB_COLLECTION": (_is_collection, "the name of a MongoDB collection"),
    "TIMEOUT": (_is_seconds, "a positive number of seconds"),
    "MAX_BYTES": (lambda value: _is_whole(value, 1), "a positive whole number of bytes"),
    "COMPRESS_OVER": (lambda value: value is None or _is_whole(value, 0), "a whole number of bytes, or None"),
}


@check("E004", *EVERY_ENGINE)
def invalid_setting() -> Problems:
    for name, (is_valid, kind) in VALID.items():
        if not is_valid(value := getattr(conf, name)):
            default = NAMES[f"MULTISESSION_{name}"].default
            yield f"MULTISESSION_{name} is {value!r}.", f"Set it to {kind}, or leave it out for {default!r}."


@check("E005", *EVERY_ENGINE)
def unusable_encryption_keys() -> Problems:
    hint = 'Set it to a list of keys, each made with: python -c "import secrets; print(secrets.token_hex(32))"'
    if not isinstance(conf.ENCRYPTION_KEYS, list | tuple):
        yield "MULTISESSION_ENCRYPTION_KEYS is not a list.", hint
        return
    try:
        codecs.encryption_keys()
    except (ImproperlyConfigured, TypeError):
        yield "A key of MULTISESSION_ENCRYPTION_KEYS is not 32 bytes (raw, in hex or in base64).", hint


@check("E006", *EVERY_ENGINE)
def cryptography_missing() -> Problems:
    if conf.ENCRYPTION_KEYS and find_spec("cryptography") is None:
        yield "MULTISESSION_ENCRYPTION_KEYS needs cryptography.", "pip install django-multisession[encryption]"


@check("W004", *EVERY_ENGINE, tags=[checks.Tags.security], deploy=True)
def pickle_serializer() -> Problems:
    if "pickle" in settings.SESSION_SERIALIZER.lower():
        message = "SESSION_SERIALIZER is a pickle: whoever learns SECRET_KEY can run code on the server."
        yield message, "Leave it out, for JSON, or write a serializer for the types that you need."


# Redis


@check("E007", "redis")
def cache_alias_missing() -> Problems:
    if not conf.REDIS and settings.SESSION_CACHE_ALIAS not in settings.CACHES:
        message = f"SESSION_CACHE_ALIAS {settings.SESSION_CACHE_ALIAS!r} is not in CACHES."
        yield message, "Add a django-redis cache of that name to CACHES, or set MULTISESSION_REDIS."


@check("E008", "redis")
def cache_not_django_redis() -> Problems:
    if not conf.REDIS and (cache := _sessions_cache()) and not _has_one_client(cache):
        message = f"SESSION_CACHE_ALIAS {settings.SESSION_CACHE_ALIAS!r} is no django-redis cache of one server."
        yield message, "Set its BACKEND to 'django_redis.cache.RedisCache', or set MULTISESSION_REDIS."


def _has_one_client(cache: Mapping[str, Any]) -> bool:
    from django_redis.cache import RedisCache
    from django_redis.client import ShardClient

    backend = import_string(cache["BACKEND"])
    client = import_string(cache.get("OPTIONS", {}).get("CLIENT_CLASS", "django_redis.client.DefaultClient"))
    return issubclass(backend, RedisCache) and not issubclass(client, ShardClient)


@check("E009", "redis")
def redis_setting_unusable() -> Problems:
    if conf.REDIS and not (_connections({"LOCATION": conf.REDIS}) or _is_callable(conf.REDIS)):
        message = "MULTISESSION_REDIS is neither a Redis URL nor the dotted path of a callable."
        yield message, "Set it to a URL such as 'redis://localhost/1' or to a function that returns a client."


@check("E010", "redis")
def responses_decoded() -> Problems:
    if any(options.get("decode_responses") for options in _connections(_sessions_cache())):
        message = "The Redis client of the sessions decodes responses, but payloads are bytes."
        yield message, "Take decode_responses out of the URL and of CONNECTION_POOL_KWARGS."


@check("W002", "redis")
def sessions_in_default_cache() -> Problems:
    if not conf.REDIS and settings.SESSION_CACHE_ALIAS == "default" and "default" in settings.CACHES:
        message = "The sessions are in the database of CACHES['default']: cache.clear() logs everybody out."
        yield message, "Set SESSION_CACHE_ALIAS to a cache with a database of its own, as in 'redis://localhost/1'."


@check("W003", "redis")
def database_shared_with_cache() -> Problems:
    sessions = _sessions_cache()
    for alias, cache in settings.CACHES.items():
        if cache is not sessions and _databases(cache) & _databases(sessions):
            message = f"The sessions are in the database of CACHES[{alias!r}]: its clear() logs everybody out."
            yield message, "Give them a database of their own: another number at the end of their URL."


def _sessions_cache() -> Any:
    if conf.REDIS:
        return {"LOCATION": conf.REDIS}
    caches: Mapping[str, Any] = settings.CACHES
    return caches.get(settings.SESSION_CACHE_ALIAS, {})


def _databases(cache: Any) -> set[tuple[str, ...]]:
    """Which databases of which servers a cache is in; behind sentinels the host is a service name."""
    sentinels = str(cache.get("OPTIONS", {}).get("SENTINELS"))
    names = ("path", "host", "port", "db")
    return {(sentinels, *(str(options.get(name)) for name in names)) for options in _connections(cache)}


def _connections(cache: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The options of a cache's connections to its servers; none if its LOCATION is not Redis."""
    from redis.connection import parse_url

    location, options = cache.get("LOCATION"), cache.get("OPTIONS", {})
    defaults = {"host": "localhost", "port": 6379, "db": options.get("db", 0)}
    connections = []
    for url in location if isinstance(location, list | tuple) else str(location).split(","):
        with suppress(ValueError):
            found = parse_url(str(url))  # type: ignore[no-untyped-call]
            connections.append(defaults | options.get("CONNECTION_POOL_KWARGS", {}) | found)
    return connections


# MongoDB


@check("E011", "mongodb")
def mongodb_setting_missing() -> Problems:
    if not conf.MONGODB:
        yield "MULTISESSION_MONGODB is not set.", "Set it to a URI such as 'mongodb://localhost/mysite'."


@check("E012", "mongodb")
def mongodb_setting_unusable() -> Problems:
    if conf.MONGODB and not (_is_mongodb_uri(conf.MONGODB) or _is_callable(conf.MONGODB)):
        message = "MULTISESSION_MONGODB is neither a MongoDB URI nor the dotted path of a callable."
        yield message, "Write it as 'mongodb://user:password@host/database', quoted by urllib.parse.quote_plus()."


@check("E013", "mongodb")
def mongodb_uri_without_database() -> Problems:
    if _is_mongodb_uri(conf.MONGODB) and not urlsplit(str(conf.MONGODB)).path.strip("/"):
        message = "The URI of MULTISESSION_MONGODB names no database."
        yield message, "Add a slash and a name after the hosts, as in 'mongodb://localhost/mysite'."


@check("E014", "mongodb")
def max_bytes_over_document() -> Problems:
    if _is_whole(conf.MAX_BYTES, MONGODB_DOCUMENT + 1):
        message = "MULTISESSION_MAX_BYTES is more than a MongoDB document can hold, 16 MiB."
        yield message, f"Set it to {MONGODB_DOCUMENT} at most; large sessions slow down every request."


def _is_mongodb_uri(value: object) -> bool:
    from pymongo.errors import PyMongoError
    from pymongo.uri_parser import parse_uri

    with suppress(PyMongoError, ValueError):
        # Parsing an SRV address would ask the DNS.
        return isinstance(value, str) and (value.startswith("mongodb+srv://") or bool(parse_uri(value, warn=True)))
    return False


def _is_callable(path: object) -> bool:
    with suppress(ImportError):
        return isinstance(path, str) and callable(import_string(path))
    return False


# The Redis server


def too_old(info: Mapping[str, Any]) -> Problems:
    version = str(info.get("redis_version", "6.2"))  # Valkey tells the one that it is compatible with
    if get_version_tuple(version) < (6, 2):
        yield f"Redis {version} cannot keep sessions: it has no SET ... PXAT.", "Use Redis 6.2 or later, or Valkey."


def evicting(info: Mapping[str, Any]) -> Problems:
    # All that we write has an expiry: volatile-* evicts it just as allkeys-* does.
    if (policy := info.get("maxmemory_policy", "noeviction")) != "noeviction":
        message = (
            f"Redis may evict live sessions (logging users out) and their index: its maxmemory-policy is {policy}."
        )
        yield message, "Set it to noeviction; a cache that shares the server needs a server of its own then."


def ask_redis() -> list[checks.CheckMessage]:
    from .backends.redis import connections

    try:
        info = connections.sync().client.info()
    except Exception as error:  # whatever it is: a server that is down must not keep `migrate` from running
        hint = "Run the check again where the server can be reached and INFO is allowed."
        return messages("W005", [(f"Redis could not be checked: {error}", hint)])
    return messages("E015", too_old(info)) + messages("W006", evicting(info))


@checks.register(checks.Tags.database)
def redis_server(databases: Sequence[str] | None = None, **_kwargs: object) -> list[checks.CheckMessage]:
    # Django 5.2 calls it without --database as well.
    return ask_redis() if databases and engine() == "redis" else []


@checks.register(deploy=True)
def redis_server_deployed(**_kwargs: object) -> list[checks.CheckMessage]:
    return ask_redis() if engine() == "redis" else []
