"""Bytes on the server for each session, and for each user who has any. For one engine, that of `site.py`."""

from collections.abc import Iterator
from typing import Any

from django.db import connection

from benchmarks.costs import site  # noqa: F401  sets Django up
from benchmarks.costs.filling import fill, records
from django_multisession import engine

USUAL = 10  # sessions of a user, beside those who have one


def measured(sizes: list[int], sessions: int) -> dict[int, dict[str, float]]:
    return {size: of_size(size, sessions) for size in sizes}


def of_size(size: int, sessions: int) -> dict[str, float]:
    """A session s and a user u: with as many users as sessions s + u each, with ten sessions a user s + u / 10."""
    alone = growth(iter(range(sessions)), size) / sessions
    together = growth((number // USUAL for number in range(sessions)), size) / sessions
    user = max(0.0, (alone - together) * USUAL / (USUAL - 1))
    payload = [len(record.payload) for _, record in records(iter(range(50)), size)]
    return {"payload": sum(payload) / len(payload), "session": alone - user, "user": user}


def growth(users: Iterator[Any], size: int) -> float:
    used = {"redis": _redis, "db": _postgres, "mongodb": _mongodb}[engine.kind()]
    before = used(empty=True)
    fill(users, size)
    return used() - before


def occupied() -> float:
    """All that the engine has of the server's memory or disk now."""
    if engine.kind() == "redis":
        return float(engine.store().storage.client.info("memory")["used_memory"])
    return _postgres() if engine.kind() == "db" else _mongodb()


def _redis(empty: bool = False) -> float:
    client = engine.store().storage.client
    if empty:
        client.flushdb()
        return 0.0
    # Not by how the server's memory has grown: that has the buffers of connections, too.
    return float(sum(client.memory_usage(key, samples=0) or 0 for key in client.scan_iter(count=1000)))


def _postgres(empty: bool = False) -> float:
    with connection.cursor() as cursor:
        if empty:
            cursor.execute("TRUNCATE django_multisession_session")
        cursor.execute("SELECT pg_total_relation_size('django_multisession_session')")
        return float(cursor.fetchone()[0])


def _mongodb(empty: bool = False) -> float:
    collection = engine.store().storage.collection
    if empty:
        collection.delete_many({})
        return 0.0
    told = collection.database.command("collStats", collection.name)
    return float(told["size"] + told["totalIndexSize"])
