"""Starts the example site: the store that an engine needs, the database's tables and web servers that share both.

SQL sessions have to be purged: for that engine Celery's worker and beat are started too, and their broker.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clusters import RedisCluster
from servers import CeleryBeat, CeleryWorker, MongoDBServer, PostgresServer, RedisNode, RedisServer, Server, ServerError

HERE = Path(__file__).resolve().parent
MIGRATE_SECONDS = 60

# Per engine: the environment variable that says where a server is, and the server to start if it does not.
STORES: dict[str, tuple[str, Callable[[], Any]]] = {
    "redis": ("REDIS_URL", RedisServer),
    "mongodb": ("MONGODB_URL", MongoDBServer),
    "db": ("DATABASE_URL", PostgresServer),
}
CLUSTERS: dict[str, tuple[str, Callable[[], Any]]] = {"redis": ("REDIS_CLUSTER_URL", partial(RedisCluster, RedisNode))}


class WebServer(Server):
    """The example site under uvicorn."""

    address = "http://127.0.0.1:{port}/"
    ready_line = b"Uvicorn running on"

    def __init__(self, environment: dict[str, str], port: int) -> None:
        super().__init__(port=port)
        self.environment = environment

    def command(self) -> list[str]:
        options = ["--app-dir", str(HERE), "--port", str(self.port), "--timeout-graceful-shutdown", "3"]
        return [sys.executable, "-m", "uvicorn", "demo_site.asgi:application", *options]


@contextmanager
def site(
    engine: str, secret_key: str, ports: Sequence[int], stage: str = "new", cluster: bool = False
) -> Iterator[list[WebServer]]:
    """Web servers on the ports (0: any free one), in front of one store. They stop first, the store last.

    `cluster`: the store has three nodes. `stage`: of a move from Django's own engine, see `DEMO_MOVE` in the settings.
    """
    environment = {**os.environ, "SESSION_BACKEND": engine, "SECRET_KEY": secret_key, "DEMO_MOVE": stage}
    environment["DEMO_PORTS"] = " ".join(str(port) for port in ports if port)
    with ExitStack() as stack:
        variable, store = (CLUSTERS if cluster else STORES)[engine]
        if not environment.get(variable):
            environment[variable] = stack.enter_context(store()).url
        if not environment.get("DATABASE_URL"):
            folder = stack.enter_context(TemporaryDirectory(prefix="multisession-"))
            environment["DATABASE_URL"] = f"sqlite:///{folder}/db.sqlite3"
        migrate(environment)
        if engine == "db":
            start_celery(environment, stack)
        yield [stack.enter_context(WebServer(environment, port)) for port in ports]


def deploy(servers: Sequence[WebServer], stage: str) -> Iterator[WebServer]:
    """Replace the servers one by one, each on its port; yields it when it is up again."""
    for server in servers:
        server.stop()
        server.environment["DEMO_MOVE"] = stage
        yield server.start()


def manage(environment: dict[str, str], *command: str) -> str:
    """What a command of the site prints. A process of its own, as settings are read once per process."""
    done = subprocess.run(
        [sys.executable, str(HERE / "manage.py"), *command],
        check=False,
        env=environment,
        timeout=MIGRATE_SECONDS,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ServerError(f"manage.py {command[0]} failed:\n{done.stderr}")
    return done.stdout


def start_celery(environment: dict[str, str], stack: ExitStack) -> None:
    if not environment.get("CELERY_BROKER_URL"):
        environment["CELERY_BROKER_URL"] = stack.enter_context(RedisServer()).url
    path = [str(HERE), *filter(None, [environment.get("PYTHONPATH")])]
    celery = {**environment, "PYTHONPATH": os.pathsep.join(path)}
    stack.enter_context(CeleryWorker("demo_site.celery", celery, "--queues", "low", "--concurrency", "1"))
    stack.enter_context(CeleryBeat("demo_site.celery", celery))


def migrate(environment: dict[str, str]) -> None:
    """Make the tables and the demo user."""
    manage(environment, "migrate", "--verbosity", "0")
