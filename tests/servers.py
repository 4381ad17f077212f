"""The servers of a test run: those that `TEST_*_URL` name, else throw-away ones, started here on free ports.

Each pytest process (each worker of `-n`) has its own. Under `CI` one that cannot start is a failure, never a skip.
"""

import atexit
import os
from functools import cache

from example_project.clusters import RedisCluster
from example_project.servers import MariaDBServer, MongoDBServer, PostgresServer, RedisNode, RedisServer, Server

KINDS = {"redis": RedisServer, "mongodb": MongoDBServer, "postgres": PostgresServer, "mysql": MariaDBServer}
OPTIONS = {"postgres": ("-c", "max_connections=300"), "mysql": ("--max-connections=300",)}  # 200 requests at once
MISSING: dict[str, str] = {}  # kind: why there is none


@cache
def url_of(kind: str) -> str | None:
    """The URL of the run's own server, or `None` (and the reason in MISSING)."""
    if url := os.environ.get(f"TEST_{kind.upper()}_URL"):
        return url
    try:
        return start(KINDS[kind], *OPTIONS.get(kind, ())).url
    except FileNotFoundError as error:
        if os.environ.get("CI"):
            raise
        MISSING[kind] = str(error)
        return None


@cache
def cluster() -> RedisCluster:
    """The run's own cluster of Redis, started when a test asks for it first: three primaries, each with a replica.

    Tests that move slots or kill nodes start one of their own.
    """
    found = RedisCluster(RedisNode, replicas=1)
    atexit.register(found.close)
    return found.start()


def start(kind: type[Server], *options: str) -> Server:
    server = kind(*options).start()
    atexit.register(server.close)
    return server
