"""More requests than a server has threads: what is held for each of them shows here, and nowhere else.

Real web servers, each before and after a run of real requests, and Django's own engine on the same database (on Redis:
Django's cache engine on django-redis) in the same set-up: ours may have no more growth, but for a little. By hand, the
full size, with the figures: `python -m pytest -m soak -rP tests/soak`.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from ..conftest import ENGINES
from .load import USERS, Soak, server_connections, soak
from .web import KINDS, manage, user_named

DJANGOS = {"redis": "django.contrib.sessions.backends.cache"}
BESIDE = {"mongodb": "sqlite"}  # Django has no engine for it; the site's users are in SQLite there
DB = "django.contrib.sessions.backends.db"

# What may be more at one moment than at another: a thread's connection, a parsed template, a cached regular expression.
# A leak has hundreds of requests to exceed it.
# Threads start as they are needed, and each has a connection object for each database, for a while also those of the
# event loops that its asynchronous views had.
SPARE = {"objects": 1000, "memory": 60_000, "database connections": 80}
FEW = 2 * USERS

SHORT = 240  # requests
FULL = 4000


@pytest.fixture
def _ann(Store: Any) -> Iterator[None]:
    with user_named("ann"):
        yield


@cache
def of_django(kind: str, engine_name: str, requests: int, age: int) -> Soak:
    manage("migrate", "sessions", "--verbosity", "0")  # the tests' own site has no such table
    try:
        return soak(kind, DJANGOS.get(engine_name, DB), requests, age, lambda: server_connections(engine_name))
    finally:
        manage("migrate", "sessions", "zero", "--verbosity", "0")  # nor have other tests' sites


def compare(kind: str, engine_name: str, requests: int, age: int) -> None:
    ours = soak(kind, ENGINES[engine_name][0], requests, age, lambda: server_connections(engine_name))
    theirs = of_django(kind, BESIDE.get(engine_name, engine_name), requests, age)
    for name, growth in ours.growth.items():
        print(f"{kind:13} {engine_name:9} {age:2} {name:21} {growth:6} ({theirs.growth[name]}) on {ours.warm[name]}")
    most = {name: max(theirs.growth[name], 0) + SPARE.get(name, FEW) for name in ours.growth}
    assert {name: growth for name, growth in ours.growth.items() if growth > most[name]} == {}, (most, theirs)
    assert ours.warm["sessions"] <= FEW


ALL = [(kind, name) for kind in KINDS for name in ENGINES if name != "memory"]
# Each engine, and each server with SQL and without.
CHOSEN = [
    *(pair for pair in ALL if pair[0] == "uvicorn"),
    *(("gthread", "redis"), ("gthread", "postgres"), ("gevent", "mongodb"), ("gevent", "mysql")),
    *(("granian-asgi", "redis"), ("granian-asgi", "postgres"), ("granian-wsgi", "mongodb"), ("granian-wsgi", "mysql")),
]


@pytest.mark.slow
@pytest.mark.usefixtures("_ann")
@pytest.mark.parametrize(("kind", "engine_name"), CHOSEN)
def test_a_request_leaves_nothing_behind(kind, engine_name):
    """With connections that are kept open, in threads that last and in those that do not."""
    compare(kind, engine_name, SHORT, 60)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("_ann")
@pytest.mark.parametrize("age", [0, 60])
@pytest.mark.parametrize(("kind", "engine_name"), ALL)
def test_thousands_of_requests_leave_nothing_behind(kind, engine_name, age):
    compare(kind, engine_name, FULL, age)
