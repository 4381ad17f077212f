"""What servers do for each verb, counted: how it grows with the store, and with the sessions of one user.

sqlite     steps of its virtual machine
postgres   rows of the sessions' table that were read
mysql      rows that were read and removed, of any table
redis      commands, each of a pipeline too
mongodb    commands, and documents that were sent; what is looked for must begin an index
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connections
from django.test import Client
from django.urls import reverse

from django_multisession import statistics, user_sessions
from django_multisession.admin import session_charts
from django_multisession.backends import mongodb
from django_multisession.backends.redis import SessionStore as RedisStore
from django_multisession.backends.redis import leftovers
from django_multisession.purge import purge
from django_multisession.records import Record
from django_multisession.testing.faces import SyncFace
from django_multisession.testing.stored import saved
from django_multisession.twins import run_sync

from ..routers import SessionRouter
from .test_round_trips import MongoListener, copied, insert_at_once

pytestmark = [pytest.mark.slow, pytest.mark.urls("tests.admin.test_sessions")]

ENGINES = ["redis", "mongodb", "sqlite", "postgres", "mysql", "cached_sqlite"]
TIMES = 10  # as many
STORE, USER = 100, 25  # sessions, before
TABLE = "django_multisession_session"
OVER = timedelta(days=30)
ANN, EVE = "7000001", "7000002"  # no user that a test makes
NO_WORK = {"info", "config|resetstat", "select", "client|setinfo", "hello"}  # of Redis: connecting, and counting

Work = dict[str, int]


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def admin(Store: Any, settings: Any) -> Iterator[Client]:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.messages.middleware.MessageMiddleware"]
    user = get_user_model().objects.create_superuser("boss")
    (client := Client()).force_login(user)
    yield client
    user.delete()


@pytest.fixture
def fill(Store: Any, engine_name: str) -> Callable[..., None]:
    """Stores so many sessions of each of the users; the next call stores others."""
    face, made = SyncFace(), iter(range(10**6))
    saved(face, Store, _auth_user_id="0")
    [template] = face.verbs(Store).of_user("0")

    def fill(users: Any, each: int, ago: timedelta = timedelta()) -> None:
        records = [_another(template, next(made), str(user), ago) for user in users for _ in range(each)]
        insert_at_once(Store, engine_name.removeprefix("cached_"), records)
        if "postgres" in engine_name:  # which would come to it later, and plan otherwise then
            connections[SessionRouter.alias].cursor().execute(f"VACUUM ANALYZE {TABLE}")

    return fill


def _another(template: Record, number: int, user: str, ago: timedelta) -> Record:
    ago += timedelta(seconds=number)  # no two at once: each of them would be opened for a list
    times = {name: getattr(template, name) - ago for name in ("created_at", "expires_at")}
    return replace(copied(template, f"{number:064x}"), user_id=user, **times)


@pytest.fixture
def work_of(Store: Any, engine_name: str) -> Callable[[Callable[[], object]], int]:
    if engine_name == "mongodb":
        mongodb.connections.close()  # one from before the listener does not tell it anything

    def count(operation: Callable[[], object]) -> int:
        with contextlib.ExitStack() as stack:
            found = [stack.enter_context(counter()) for counter in COUNTERS[engine_name]]
            operation()
        return sum(each.work for each in found)

    return count


@contextmanager
def redis() -> Iterator[Any]:
    client, found = RedisStore.storage.client, SimpleNamespace(work=0)
    client.config_resetstat()
    yield found
    asked = client.info("commandstats")
    found.work = sum(each["calls"] for name, each in asked.items() if name.removeprefix("cmdstat_") not in NO_WORK)


@contextmanager
def sqlite() -> Iterator[Any]:
    connection, found = connections[SessionRouter.alias], SimpleNamespace(work=0)
    connection.ensure_connection()

    def step() -> None:
        found.work += 1

    connection.connection.set_progress_handler(step, 1)
    try:
        yield found
    finally:
        connection.connection.set_progress_handler(None, 1)


@contextmanager
def postgres() -> Iterator[Any]:
    """A table as small as that is read as a whole, one of a million rows is not: what can use an index is to."""
    before, found = _rows_of_postgres(), SimpleNamespace(work=0)
    cursor = connections[SessionRouter.alias].cursor()
    cursor.execute("SET enable_seqscan = off")
    try:
        yield found
    finally:
        cursor.execute("RESET enable_seqscan")
    found.work = _rows_of_postgres() - before


def _rows_of_postgres() -> int:
    with connections[SessionRouter.alias].cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute(f"SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = '{TABLE}'")
        [(rows,)] = cursor.fetchall()
    return int(rows)


@contextmanager
def mysql() -> Iterator[Any]:
    before, found = _rows_of_mysql(), SimpleNamespace(work=0)
    yield found
    found.work = _rows_of_mysql() - before


def _rows_of_mysql() -> int:
    with connections[SessionRouter.alias].cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS WHERE Variable_name RLIKE 'Handler_(read|delete)'")
        return sum(int(value) for _, value in cursor.fetchall())


@contextmanager
def mongo() -> Iterator[Any]:
    listener, found = Documents(), SimpleNamespace(work=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MongoListener, "started", lambda self, event: listener.started(event))
        patch.setattr(MongoListener, "succeeded", lambda self, event: listener.succeeded(event))
        yield found
    found.work = listener.work
    indexes = mongodb.SessionStore.storage.collection.index_information().values()
    first = {index["key"][0][0] for index in indexes}
    assert all(first & set(expected) for expected in listener.filters), listener.filters


class Documents:
    """Of the commands that were sent. What SecantusDB reads for a page by `_id` says nothing of `mongod`."""

    def __init__(self) -> None:
        self.work, self.filters = 0, list[Any]()

    def started(self, event: Any) -> None:
        self.work += 1
        expected = event.command.get("filter", {})
        if event.command_name == "find":
            self.filters.append(expected)

    def succeeded(self, event: Any) -> None:
        cursor = event.reply.get("cursor", {})
        self.work += len(cursor.get("firstBatch", cursor.get("nextBatch", [])))


COUNTERS: dict[str, list[Any]] = {
    "redis": [redis],
    "mongodb": [mongo],
    "sqlite": [sqlite],
    "postgres": [postgres],
    "mysql": [mysql],
    "cached_sqlite": [sqlite, redis],
}


def grown(before: Work, after: Work, times: dict[str, int]) -> dict[str, tuple[int, int]]:
    """What has grown more than it may: so many times, which is once where it does not say."""
    assert all([*before.values(), *after.values()])
    return {
        verb: (before[verb], after[verb])
        for verb in before
        if after[verb] > 1.3 * before[verb] * times.get(verb, 1) + STORE // 2
    }


def shown(admin: Client, page: str, *arguments: str) -> None:
    assert admin.get(reverse(f"admin:django_multisession_session_{page}", args=arguments)).status_code == 200


def test_with_the_store(Store, engine_name, fill, work_of, admin, monkeypatch):
    monkeypatch.setattr(statistics, "PAGE", 50)
    monkeypatch.setattr(session_charts, "MOST_SESSIONS", STORE // 2)
    monkeypatch.setattr(session_charts, "MOST_SECONDS", 60)
    # PostgreSQL looks at a batch again by its ids or, while that is cheaper, at all rows up to it.
    walked = engine_name not in ("redis", "mongodb", "postgres")
    through_all = {"statistics"} | ({"purge"} if engine_name == "redis" else {"purge of the idle"})

    def verbs() -> Work:
        fill([ANN], 10)
        fill([EVE], 20, OVER)
        return {
            "list": work_of(lambda: user_sessions.sessions_of(ANN)),
            "count": work_of(lambda: user_sessions.count(ANN)),
            "revoke": work_of(lambda: user_sessions.revoke(ANN, user_sessions.sessions_of(ANN)[0].id)),
            "revoke all": work_of(lambda: user_sessions.revoke_all(ANN)),
            "scan": work_of(lambda: run_sync(Store.storage.scan(None, 20))),
            "overview": work_of(lambda: shown(admin, "changelist")),
            "statistics": work_of(statistics.collect),
            "purge": work_of(lambda: purge(batch_size=10, pause=0)),
            **({"purge of the idle": work_of(idle)} if walked else {}),
        }

    def idle() -> None:
        purge(older_than="1d", batch_size=25, pause=0)

    fill(range(100, 100 + STORE // 5), 5)
    before = verbs()
    fill(range(1000, 1000 + (TIMES - 1) * STORE // 5), 5)
    # Redis expires sessions by itself: a purge walks the users' sets, all of them.
    assert grown(before, verbs(), dict.fromkeys(through_all, TIMES)) == {}


def test_with_the_sessions_of_a_user(fill, work_of, admin, monkeypatch):
    monkeypatch.setattr(leftovers, "MOST_GONE", 10)  # beyond which Redis is asked once more

    def verbs(many: int) -> Work:
        fill([ANN], many)
        return {
            "list": work_of(lambda: user_sessions.sessions_of(ANN)),
            "count": work_of(lambda: user_sessions.count(ANN)),
            "page": work_of(lambda: shown(admin, "user", ANN)),
            "revoke all": work_of(lambda: user_sessions.revoke_all(ANN)),
        }

    before = verbs(USER)
    assert grown(before, verbs(USER * TIMES), dict.fromkeys(before, TIMES)) == {}


@pytest.mark.parametrize("engine_name", ENGINES[1:], indirect=True)
def test_with_what_has_expired(fill, work_of):
    """Of Redis, which expires sessions by itself, see `redis/test_growth.py`."""

    def purged(many: int) -> Work:
        fill([ANN], many, OVER)
        return {"purge": work_of(lambda: purge(batch_size=20, pause=0))}

    assert grown(purged(USER), purged(USER * TIMES), {"purge": TIMES}) == {}
