"""The checks of the Redis engine; their list is in `checks/__init__.py`."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.core import checks
from django.utils.module_loading import import_string
from django.utils.version import get_version_tuple

from ... import engine
from ...checks import Problems, check, import_problem, is_callable, messages
from ...conf import conf
from . import urls


@check("E007", "redis", "cached_db")
def cache_alias_missing() -> Problems:
    if not conf.REDIS and settings.SESSION_CACHE_ALIAS not in settings.CACHES:
        message = f"SESSION_CACHE_ALIAS {settings.SESSION_CACHE_ALIAS!r} is not in CACHES."
        yield message, "Add a django-redis cache of that name to CACHES, or set MULTISESSION_REDIS."


@check("E008", "redis", "cached_db")
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


@check("E009", "redis", "cached_db")
def redis_setting_unusable() -> Problems:
    if conf.REDIS and not (_connections({"LOCATION": conf.REDIS}) or is_callable(conf.REDIS)):
        message = "MULTISESSION_REDIS is neither a Redis URL nor the dotted path of a callable"
        yield (
            f"{message}{import_problem(conf.REDIS)}.",
            "Set it to a URL such as 'redis://localhost/1' or to a function that returns a client.",
        )


@check("E010", "redis", "cached_db")
def responses_decoded() -> Problems:
    if any(options.get("decode_responses") for options in _connections(_sessions_cache())):
        message = "The Redis client of the sessions decodes responses, but payloads are bytes."
        yield message, "Take decode_responses out of the URL and of CONNECTION_POOL_KWARGS."


@check("E016", "redis")
def database_of_a_cluster() -> Problems:
    if conf.REDIS and urls.kind_of(conf.REDIS) == urls.CLUSTER:
        with suppress(ValueError):
            if number := urls.options_of(conf.REDIS).get("db"):
                message = f"MULTISESSION_REDIS names database {number} of a cluster, which has number 0 alone."
                yield message, "Take the number out of the URL; MULTISESSION_KEY_PREFIX keeps sites apart."


@check("E022", "redis", "cached_db")
def database_without_number() -> Problems:
    for url in _locations(_sessions_cache()):
        if (path := urls.database_of(url)) and not path.isdecimal():
            message = f"The Redis URL of the sessions has {path!r} where a database number belongs; redis-py takes 0."
            yield message, "End it with a number, as in 'redis://localhost/1'."


@check("W002", "redis")
def sessions_in_default_cache() -> Problems:
    is_default = not conf.REDIS and settings.SESSION_CACHE_ALIAS == "default" and "default" in settings.CACHES
    if is_default and _has_one_client(settings.CACHES["default"]):  # else E008 says what is wrong
        message = "The sessions are in the database of CACHES['default']: cache.clear() signs everybody out."
        yield message, "Set SESSION_CACHE_ALIAS to a cache with a database of its own, as in 'redis://localhost/1'."


@check("W003", "redis")
def database_shared_with_cache() -> Problems:
    sessions = _sessions_cache()
    for alias, cache in settings.CACHES.items():
        if cache is not sessions and _databases(cache) & _databases(sessions):
            message = f"The sessions are in the database of CACHES[{alias!r}]: its clear() signs everybody out."
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

    if urls.kind_of(url := str(cache.get("LOCATION"))):
        with suppress(ValueError):
            if urls.kind_of(url) == urls.SENTINEL:
                return [{"host": urls.service_of(url)} | urls.options_of(url)]
            return [{"host": host, "port": port} | urls.options_of(url) for host, port in urls.addresses(url)]
        return []
    options, connections = cache.get("OPTIONS", {}), []
    defaults = {"host": "localhost", "port": 6379, "db": options.get("db", 0)}
    for each in _locations(cache):
        with suppress(ValueError):
            found = parse_url(each)  # type: ignore[no-untyped-call]
            connections.append(defaults | options.get("CONNECTION_POOL_KWARGS", {}) | found)
    return connections


def _locations(cache: Mapping[str, Any]) -> list[str]:
    """The URLs of a cache: django-redis takes several, the first of which is the primary's."""
    location = cache.get("LOCATION")
    if urls.kind_of(location):
        return [str(location)]
    return [str(each) for each in (location if isinstance(location, list | tuple) else str(location).split(","))]


# The Redis server


def too_old(info: Mapping[str, Any]) -> Problems:
    version = str(info.get("redis_version", "6.2"))  # Valkey tells the one that it is compatible with
    if get_version_tuple(version) < (6, 2):
        yield f"Redis {version} cannot keep sessions: it has no SET ... PXAT.", "Use Redis 6.2 or later, or Valkey."


def evicting(info: Mapping[str, Any]) -> Problems:
    # All that we write has an expiry: volatile-* evicts it just as allkeys-* does.
    if (policy := info.get("maxmemory_policy", "noeviction")) != "noeviction":
        message = (
            f"Redis may evict live sessions (signing users out) and their index: its maxmemory-policy is {policy}."
        )
        yield message, "Set it to noeviction; a cache that shares the server needs a server of its own then."


def of_another_mode(info: Mapping[str, Any], for_a_cluster: bool) -> Problems:
    mode = info.get("redis_mode", info.get("server_mode"))  # the latter is Valkey's
    if mode == "cluster" and not for_a_cluster:
        message = "Redis is a node of a cluster, but its client is for one server: it refuses the keys of other nodes."
        yield message, "Set MULTISESSION_REDIS to 'redis+cluster://host:port,host:port'."


def too_few_replicas(infos: Sequence[Mapping[str, Any]]) -> Problems:
    replicas = min(int(info.get("connected_slaves", 0)) for info in infos)
    if replicas < conf.REDIS_WAIT:
        message = (
            f"MULTISESSION_REDIS_WAIT is {conf.REDIS_WAIT}, but a primary has {replicas} replicas: no save succeeds."
        )
        yield message, "Add replicas, or lower MULTISESSION_REDIS_WAIT."


def _infos(client: Any, is_cluster: bool) -> list[Mapping[str, Any]]:
    """INFO of the server, or of each primary of the cluster."""
    if not is_cluster:
        return [client.info()]
    return [client.info(target_nodes=node) for node in client.get_primaries()]


def ask_redis(deploy: bool = False) -> list[checks.CheckMessage]:
    from . import connections
    from .cluster_clients import WrongMode, is_cluster

    try:
        client = connections.sync().client
        infos = _infos(client, is_cluster(client))
    except WrongMode as error:  # a cluster's URL, and the server is in none
        hint = "Use a URL of 'redis://' for one server, and of 'redis+cluster://' for a cluster."
        return messages("E017", [(str(error), hint)])
    except Exception as error:  # whatever it is: a server that is down must not keep `migrate` from running
        hint = "Run the check again where the server can be reached and INFO is allowed."
        return messages("W005", [(f"Redis could not be checked: {error}", hint)])
    problems = messages("E017", of_another_mode(infos[0], is_cluster(client)))
    problems += messages("E018", too_few_replicas(infos)) if deploy and not problems else []
    worst = next((info for info in infos if info.get("maxmemory_policy", "noeviction") != "noeviction"), infos[0])
    return problems + messages("E015", too_old(infos[0])) + messages("W006", evicting(worst))


@checks.register(checks.Tags.database)
def redis_server(databases: Sequence[str] | None = None, **_kwargs: object) -> list[checks.CheckMessage]:
    # Django 5.2 calls it without --database as well.
    return ask_redis() if databases and engine.kind() == "redis" else []


@checks.register(deploy=True)
def redis_server_deployed(**_kwargs: object) -> list[checks.CheckMessage]:
    return ask_redis(deploy=True) if engine.kind() == "redis" else []
