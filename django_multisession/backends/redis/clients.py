"""The Redis client that the settings name, and its asynchronous twin."""

import inspect
from typing import Any

import redis
import redis.asyncio
from django.conf import settings
from django.core.cache import InvalidCacheBackendError
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from django_redis import get_redis_connection
from redis.exceptions import RedisClusterException

from ...conf import conf
from ...connections import is_of_network
from ...exceptions import EngineUnavailable
from . import cluster_clients, urls
from . import pool as redis_pool

# Connection options that are objects of the synchronous client.
SYNCHRONOUS = {"parser_class", "retry", "redis_connect_func", "connection_pool"}


def configured() -> Any:
    """A client with the settings of that of `MULTISESSION_REDIS`, else of the cache alias's, for its primary.

    Raises `ImproperlyConfigured` where it decodes responses, or the alias is not django-redis's.
    """
    client = _of_setting(conf.REDIS) if conf.REDIS else _of_alias(settings.SESSION_CACHE_ALIAS)
    is_cluster = cluster_clients.is_cluster(client)
    options = client.get_connection_kwargs() if is_cluster else client.connection_pool.connection_kwargs
    if options.get("decode_responses"):
        raise ImproperlyConfigured("The Redis client of the sessions must not decode responses: payloads are bytes.")
    if is_cluster:
        cluster_clients.heed_announced_addresses(client)
    return client if is_cluster else redis_pool.for_sessions(client)


def _of_setting(setting: str) -> Any:
    try:
        if "://" not in setting:
            return import_string(setting)()
        return urls.client_of(setting, socket_timeout=conf.TIMEOUT, socket_connect_timeout=conf.TIMEOUT)
    except RedisClusterException as error:  # its client looks at once
        raise cluster_clients.problem(error) from error
    except (redis.RedisError, ImportError, TypeError, ValueError, OSError) as error:
        if isinstance(error, redis.RedisError) or is_of_network(error):  # a function's, that looked
            raise EngineUnavailable(f"Redis: {error}") from error
        raise ImproperlyConfigured(
            f"MULTISESSION_REDIS is neither a Redis URL nor the path of a function that returns a client: {error}"
        ) from error


def _of_alias(alias: str) -> Any:
    try:
        return get_redis_connection(alias, write=True)
    except (NotImplementedError, InvalidCacheBackendError) as error:
        raise ImproperlyConfigured(
            f"CACHES[{alias!r}] (SESSION_CACHE_ALIAS) is not a django-redis cache of one server. Set its BACKEND to "
            "'django_redis.cache.RedisCache', name such an alias, or set MULTISESSION_REDIS."
        ) from error


def asynchronous(client: Any) -> Any:
    """An asynchronous client with the settings of a synchronous one.

    At most as many connections as the synchronous pool may have; tasks beyond that wait for one, up to
    `MULTISESSION_TIMEOUT`, where redis-py's own default would fail at once.
    """
    if cluster_clients.is_cluster(client):
        return cluster_clients.asynchronous(client)
    pool = client.connection_pool
    if isinstance(pool, redis.sentinel.SentinelConnectionPool):
        return _of_sentinel(pool)
    kind = _asynchronous_kind(pool.connection_class)
    options = {"connection_class": kind, "max_connections": pool.max_connections, "timeout": conf.TIMEOUT}
    options |= _options(pool.connection_kwargs, kind)
    if redis_pool.is_plain(pool):
        return redis.asyncio.Redis.from_pool(redis_pool.AsyncPool(**options))
    return redis.asyncio.Redis.from_pool(redis.asyncio.BlockingConnectionPool(**options))


def _of_sentinel(pool: Any) -> Any:
    manager, kind = pool.sentinel_manager, _asynchronous_kind(pool.connection_class)
    addresses = [each.connection_pool.connection_kwargs for each in manager.sentinels]
    sentinel = redis.asyncio.Sentinel(  # type: ignore[no-untyped-call]
        [(address["host"], address["port"]) for address in addresses], sentinel_kwargs=manager.sentinel_kwargs
    )
    options = _options(pool.connection_kwargs, kind)
    return sentinel.master_for(pool.service_name, ssl=issubclass(kind, redis.asyncio.SSLConnection), **options)


async def aclose(client: Any) -> None:
    """Close an asynchronous client, and those to its sentinels."""
    if cluster_clients.is_cluster(client):
        return await cluster_clients.aclose(client)
    await client.aclose()
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for sentinel in manager.sentinels if manager else ():
        await sentinel.aclose()


def _asynchronous_kind(kind: type) -> type:
    for name in ("SSLConnection", "UnixDomainSocketConnection"):
        if issubclass(kind, getattr(redis, name)):
            return getattr(redis.asyncio, name)  # type: ignore[no-any-return]
    return redis.asyncio.Connection


def _options(options: dict[str, Any], kind: type) -> dict[str, Any]:
    classes = [each for each in kind.__mro__ if each is not object]
    accepted = {name for each in classes for name in inspect.signature(each).parameters} - SYNCHRONOUS
    accepted = {name for name in accepted if not name.startswith(redis_pool.OF_THE_POOL)}
    return {name: value for name, value in options.items() if name in accepted}
