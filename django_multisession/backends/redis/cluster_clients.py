"""Clients of a cluster: the synchronous one's asynchronous twin, and what is wrong where there is none."""

import inspect
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.cluster
from django.core.exceptions import ImproperlyConfigured
from redis.cluster import RedisCluster

from ...exceptions import EngineUnavailable

# Options that are objects of the synchronous client, or that are given by themselves.
OWN = {"host", "port", "retry", "redis_connect_func", "parser_class", "connection_class", "startup_nodes", "url"}


class WrongMode(ImproperlyConfigured):
    """A cluster's client for a server that is in none."""


def is_cluster(client: Any) -> bool:
    return isinstance(client, RedisCluster | redis.asyncio.RedisCluster)


def asynchronous(client: RedisCluster) -> Any:
    """It asks for the nodes at its first command, and starts from those that are known now."""
    options: dict[str, Any] = dict(client.get_connection_kwargs())  # type: ignore[no-untyped-call]
    accepted = set(inspect.signature(redis.asyncio.RedisCluster.__init__).parameters) - OWN
    nodes = [redis.asyncio.cluster.ClusterNode(node.host, node.port) for node in client.get_nodes()]  # type: ignore[no-untyped-call]
    return redis.asyncio.RedisCluster(
        startup_nodes=nodes,
        ssl=bool(options.get("ssl")) or issubclass(options.get("connection_class", object), redis.SSLConnection),
        address_remap=client.nodes_manager.address_remap,
        reinitialize_steps=client.reinitialize_steps,
        **{name: value for name, value in options.items() if name in accepted - {"ssl"}},
    )


async def aclose(client: Any) -> None:
    """redis-py closes only what knows its nodes. After an error a client is to learn of them anew, and what other tasks
    had under way meanwhile has connected some again."""
    await client.aclose()
    for name in ("nodes_cache", "startup_nodes"):
        await client.nodes_manager.aclose(name)


def heed_announced_addresses(client: RedisCluster) -> None:
    """redis-py takes the address that MOVED names as it is. What CLUSTER SLOTS says it remaps: so that is asked for."""
    if client.nodes_manager.address_remap:
        client.reinitialize_steps = 1


def problem(error: Exception) -> Exception:
    """What a cluster's client says when it looks for the nodes, which it does when it is made."""
    text = f"{error} {error.__cause__ or error.__context__ or ''}"
    if "Cluster mode is not enabled" in text or "cluster support disabled" in text:
        return WrongMode(f"MULTISESSION_REDIS is for a cluster, but the server is none: {error}")
    if "Argument 'db'" in text or "``db``" in text:
        return ImproperlyConfigured(f"Redis Cluster has one database, number 0: {error}")
    return EngineUnavailable(f"Redis: {error}")
