"""What each verb takes, by the number of sessions in the store and of one user. For one engine, that of `site.py`.

By the clock, and of the processor: of this process and of the engine's server. Of several calls the least of each
counts: what others do on the machine only adds. Users of all sizes are measured in turn.
"""

import itertools
from collections.abc import Iterator
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.urls import reverse

from benchmarks.costs import site  # noqa: F401  sets Django up
from benchmarks.costs.clocks import Times, least, quickest
from benchmarks.costs.filling import fill, sized
from benchmarks.costs.sizes import occupied
from django_multisession import engine, user_sessions
from django_multisession.purge import purge
from django_multisession.statistics import collect
from django_multisession.twins import run_sync

SIZE = 600  # bytes as JSON
USUAL = 10  # sessions of a user
EXPIRED = 1000
PURGE = "purge of 1,000 expired"
CALLS = 50
SLOW = 5  # calls of what takes long
ROUNDS = 8  # over the users
MOST_COUNTED = 100_000  # sessions: beyond, the whole pass is measured once


def user_ids(first: int, sessions: int) -> Iterator[int]:
    return (first + number // USUAL for number in range(sessions))


def grown(sizes: list[int], of_user: list[int]) -> Iterator[dict[str, Any]]:
    """By the size of the store, then with the last size by that of one user: each time all that was found by then."""
    admin = signed_in_admin()
    keys: list[str] = []
    found: dict[str, Any] = {"store": {}, "user": {}, "bytes": {}}
    empty = occupied()
    for size in sizes:
        keys += fill(user_ids(1000 + len(keys) // USUAL, size - len(keys)), SIZE)
        tidied()
        found["bytes"][size] = occupied() - empty
        found["store"][size] = of_store(keys, admin)
        yield found
    for _ in range(ROUNDS):
        for user, count in enumerate(of_user, start=10**9):
            took, known = of_one(user, count, admin), found["user"].get(count, {})
            found["user"][count] = {verb: least(took[verb], known.get(verb, took[verb])) for verb in took}
        yield found


def tidied() -> None:
    """What PostgreSQL does by itself, but at a time of its own."""
    if engine.kind() == "db":
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE django_multisession_session")


def signed_in_admin() -> Client:
    user, _ = get_user_model().objects.get_or_create(username="admin", is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(user)
    return client


def of_store(keys: list[str], admin: Client) -> dict[str, Times]:
    some = itertools.cycle(keys[:: max(1, len(keys) // 997)])
    users = itertools.cycle(range(1000, 1000 + max(1, len(keys) // USUAL), max(1, len(keys) // 9970)))
    fresh = itertools.count(2 * 10**9)
    storage, store = engine.store().storage, engine.store()
    calls = SLOW if len(keys) <= MOST_COUNTED else 1

    def write() -> None:
        session = store(next(some))
        session["visits"] += 1
        session.save()

    def create() -> None:
        session = store()
        session.update(sized(0, next(fresh), SIZE))
        session.save()

    user = 0

    def ten() -> None:
        nonlocal user
        user = next(fresh)
        fill(iter([user] * USUAL), SIZE)

    def expired() -> None:
        fill(iter([next(fresh)] * EXPIRED), SIZE, expired=True)

    return {
        "load": quickest(CALLS, lambda: store(next(some))["visits"]),
        "load and save": quickest(CALLS, write),
        "create, signed in": quickest(CALLS, create),
        "list of a user's ten": quickest(CALLS, lambda: user_sessions.sessions_of(next(users))),
        "revoke a user's ten": quickest(SLOW, lambda: user_sessions.revoke_all(user), ten),
        "scan, a page of 500": quickest(SLOW, lambda: run_sync(storage.scan(None, 500))),
        # SecantusDB reads the whole collection for each document that is to be removed if it has expired.
        **({} if engine.kind() == "mongodb" else {PURGE: quickest(SLOW, lambda: purge(grace=0), expired)}),
        "statistics of all": quickest(calls, collect),
        "admin overview": quickest(SLOW, lambda: shown(admin, "changelist")),
    }


def of_one(user: int, count: int, admin: Client) -> dict[str, Times]:
    person, _ = get_user_model().objects.get_or_create(pk=user, username=str(user))
    keys = itertools.cycle(fill(iter([user] * count), SIZE))
    return {
        "load of one": quickest(CALLS, lambda: engine.store()(next(keys))["visits"]),
        "list": quickest(2, lambda: user_sessions.sessions_of(user)),
        "count": quickest(2, lambda: user_sessions.count(user)),
        "admin page of the user": quickest(2, lambda: shown(admin, "user", person.pk)),
        "revoke all": quickest(1, lambda: user_sessions.revoke_all(user)),
    }


def shown(admin: Client, name: str, *arguments: object) -> None:
    response = admin.get(reverse(f"admin:django_multisession_session_{name}", args=arguments))
    if response.status_code != 200:
        raise RuntimeError(f"{name}: {response.status_code}")
