"""What each verb takes, by the number of sessions in the store and of one user. For one engine, that of `site.py`."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from benchmarks.costs import site  # noqa: F401  sets Django up
from benchmarks.costs.filling import fill, sized
from django_multisession import engine, user_sessions
from django_multisession.purge import purge
from django_multisession.statistics import collect
from django_multisession.twins import run_sync

SIZE = 600  # bytes as JSON
USUAL = 10  # sessions of a user
EXPIRED = 1000
CALLS = 50
SLOW = 5  # calls of what takes long
MOST_COUNTED = 100_000  # sessions: beyond, the whole pass is measured once


def user_ids(first: int, sessions: int) -> Iterator[int]:
    return (first + number // USUAL for number in range(sessions))


def median(calls: int, call: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """Milliseconds, after one call that is not counted, unless it is to be the only one."""
    took = []
    for _ in range(calls + 1):
        before()
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return statistics.median(took[1:] or took) * 1000


def grown(sizes: list[int], of_user: list[int]) -> dict[str, Any]:
    """By the size of the store, then with the last size by that of one user."""
    admin = signed_in_admin()
    keys: list[str] = []
    found: dict[str, Any] = {"store": {}, "user": {}}
    for size in sizes:
        keys += fill(user_ids(1000 + len(keys) // USUAL, size - len(keys)), SIZE)
        found["store"][size] = of_store(keys, admin)
    numbers = itertools.count(10**9)
    for count in of_user:
        found["user"][count] = of_one(next(numbers), count, admin)
    return found


def signed_in_admin() -> Client:
    user, _ = get_user_model().objects.get_or_create(username="admin", is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(user)
    return client


def of_store(keys: list[str], admin: Client) -> dict[str, float]:
    some = itertools.cycle(keys[:: max(1, len(keys) // 997)])
    users = itertools.cycle(range(1000, 1000 + max(1, len(keys) // USUAL), max(1, len(keys) // 9970)))
    fresh = itertools.count(2 * 10**9)
    storage, store = engine.store().storage, engine.store()
    calls = SLOW if len(keys) <= MOST_COUNTED else 0

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
        "load": median(CALLS, lambda: store(next(some))["visits"]),
        "load and save": median(CALLS, write),
        "create, signed in": median(CALLS, create),
        "list of a user's ten": median(CALLS, lambda: user_sessions.sessions_of(next(users))),
        "revoke a user's ten": median(SLOW, lambda: user_sessions.revoke_all(user), ten),
        "scan, a page of 500": median(SLOW, lambda: run_sync(storage.scan(None, 500))),
        "purge of 1,000 expired": median(SLOW, lambda: purge(grace=0), expired),
        "statistics of all": median(calls, collect),
        "admin overview": median(SLOW, lambda: shown(admin, "changelist")),
    }


def of_one(user: int, count: int, admin: Client) -> dict[str, float]:
    person, _ = get_user_model().objects.get_or_create(pk=user, username=str(user))

    def many() -> None:
        fill(iter([user] * count), SIZE)

    many()
    calls = CALLS if count <= USUAL else SLOW
    return {
        "load of one": median(CALLS, one_of(user)),
        "list": median(calls, lambda: user_sessions.sessions_of(user)),
        "count": median(calls, lambda: user_sessions.count(user)),
        "admin page of the user": median(SLOW, lambda: shown(admin, "user", person.pk)),
        "revoke all": median(SLOW, lambda: user_sessions.revoke_all(user), many),
    }


def one_of(user: int) -> Callable[[], object]:
    [key] = fill(iter([user]), SIZE)
    return lambda: engine.store()(key)["visits"]


def shown(admin: Client, name: str, *arguments: object) -> None:
    response = admin.get(reverse(f"admin:django_multisession_session_{name}", args=arguments))
    if response.status_code != 200:
        raise RuntimeError(f"{name}: {response.status_code}")
