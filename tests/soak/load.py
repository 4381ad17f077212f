"""Users who come, sign in, look, change things and leave, over HTTP; and what is left of it where."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import httpx
from django.conf import settings
from django.db import connections

from ..routers import SessionRouter
from .web import KINDS, THREADS, WebServer, process_counts, settled, shared

USERS = 2 * THREADS  # at once
VISIT = (  # the keys that the session has after each page
    ("put/before", ["before"]),
    ("sign_in/ann", ["before"]),
    ("look", ["before"]),
    ("aput/later", ["before", "later"]),
    ("alook", ["before", "later"]),
    ("put/last", ["before", "last", "later"]),
    ("cycle", ["before", "last", "later"]),
    ("look", ["before", "last", "later"]),
    ("asign_out", []),
    ("look", []),
)
CLOSING = httpx.Limits(max_keepalive_connections=0)


def visits(server: WebServer, requests: int) -> None:
    """About so many requests, by users at once, each a new one after his visit; every other one keeps no connection."""
    each = requests // (USERS * len(VISIT))
    with ThreadPoolExecutor(USERS) as pool:
        list(pool.map(lambda user: [visit(server, keeps=bool(user % 2)) for _ in range(each)], range(USERS)))


def visit(server: WebServer, keeps: bool) -> None:
    with httpx.Client(base_url=server.url, timeout=60, limits=httpx.Limits() if keeps else CLOSING) as browser:
        signed_in = ""
        for name, keys in VISIT:
            page = name if server.asynchronous else name.removeprefix("a")
            signed_in = {"sign_in/ann": "ann", "asign_out": ""}.get(name, signed_in)
            answer = browser.get(f"/{page}/")
            assert (page, answer.status_code) == (page, 200), answer.text[:500]
            assert (page, answer.json()) == (page, {"user": signed_in, "keys": keys})


@dataclass(frozen=True)
class Soak:
    """What a process and its store hold after the warm-up, and how much more of it after the run."""

    warm: dict[str, int]
    growth: dict[str, int]


def soak(kind: str, engine: str, requests: int, age: int, server_connections: Callable[[], int]) -> Soak:
    database = shared(CONN_MAX_AGE=age)["DATABASES"]
    with KINDS[kind](DATABASES=database, SESSION_ENGINE=engine) as server:

        def measure() -> dict[str, int]:
            return {**process_counts(server), "server connections": server_connections()}

        visits(server, USERS * len(VISIT))
        warm = settled(measure)
        visits(server, requests)
        after = settled(measure)
    return Soak(warm, {name: number - warm[name] for name, number in after.items()})


# Connections, as each server counts them; those of the test's own process are among them, the same before and after.


def server_connections(engine_name: str) -> int:
    return COUNTS[engine_name]()


def _one(statement: str) -> Any:
    with connections[SessionRouter.alias].cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def _mongodb() -> int:
    client = import_module(settings.SESSION_ENGINE).SessionStore.storage.client
    return int(client.admin.command("serverStatus")["connections"]["current"])


def _redis() -> int:
    return len(import_module(settings.SESSION_ENGINE).SessionStore.storage.client.client_list())


COUNTS: dict[str, Callable[[], int]] = {
    "redis": _redis,
    "mongodb": _mongodb,
    "sqlite": lambda: 0,  # its connections are open files
    "postgres": lambda: len(_one("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")),
    "mysql": lambda: len(_one("SHOW PROCESSLIST")),
}
