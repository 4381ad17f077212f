"""The SQL engine keeps nothing of Django's connections: none outlives its thread, and no statement passes by those who
watch them."""

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext
from asgiref.testing import ApplicationCommunicator
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.asgi import get_asgi_application
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import SimpleTestCase
from django.test.testcases import DatabaseOperationForbidden
from django.test.utils import CaptureQueriesContext

from django_multisession import databases
from django_multisession.models import Session
from django_multisession.records import utcnow
from django_multisession.testing.faces import SyncFace
from django_multisession.testing.stored import saved
from tests.routers import SessionRouter

# Connections that nobody closes are what is tested here; psycopg and sqlite3 warn when they are let go.
unclosed = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed"
)


@pytest.fixture(params=["sqlite", "postgres", "mysql"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def visit(Store: Any) -> None:
    session = Store()
    session.create()
    session["a"] = 1
    session.save()
    assert Store(session.session_key)["a"] == 1


async def avisit(Store: Any) -> None:
    async with ThreadSensitiveContext():  # as each request of Django's ASGI handler: a thread of its own
        session = Store()
        await session.acreate()
        await session.aset("a", 1)
        await session.asave()
        assert await Store(session.session_key).aget("a") == 1


# What is left of threads


def connection_objects() -> int:
    gc.collect()
    return sum(issubclass(type(each), BaseDatabaseWrapper) for each in gc.get_objects())


def connections_of_the_server(engine_name: str) -> int:
    gc.collect()
    if engine_name == "sqlite":
        return open_files(settings.SQLITE_FILE.name)
    table = {
        "postgres": "pg_stat_activity WHERE backend_type = 'client backend'",
        "mysql": "information_schema.processlist",
    }
    with connections[SessionRouter.alias].cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table[engine_name]}")
        return int(cursor.fetchone()[0])


def open_files(name: str) -> int:
    connections[SessionRouter.alias].close()  # as long as one is open SQLite closes none of the process's descriptors
    descriptors = [each for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return sum(str(each.readlink()).startswith(name) for each in descriptors)


def in_threads(number: int, function: Callable[[], object]) -> None:
    """In a thread of its own each, 20 at once. None of them closes anything."""
    for _ in range(number // 20):
        threads = [Thread(target=function) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def asks_django() -> None:
    get_user_model().objects.using(SessionRouter.alias).count()


@unclosed
@pytest.mark.parametrize("face_name", ["sync", "async"])
def test_threads_that_end_leave_as_many_connections_as_after_a_query_of_django(Store, engine_name, face_name):
    ways = {"sync": lambda: visit(Store), "async": lambda: asyncio.run(avisit(Store))}
    in_threads(20, asks_django)
    before = connection_objects(), connections_of_the_server(engine_name)
    in_threads(200, ways[face_name])
    after = connection_objects(), settled_at(before[1], lambda: connections_of_the_server(engine_name))
    assert after == before
    assert Session.objects.using(SessionRouter.alias).count() == 200


def settled_at(wanted: int, count: Callable[[], int]) -> int:
    """A server notices a hang-up a bit after it."""
    for _ in range(100):
        if (now := count()) <= wanted:
            break
        asyncio.run(asyncio.sleep(0.05))
    return now


@unclosed
@pytest.mark.parametrize("max_age", [0, 60])
def test_requests_to_asgi_leave_no_connections(Store, engine_name, max_age, monkeypatch):
    monkeypatch.setitem(connections.settings[SessionRouter.alias], "CONN_MAX_AGE", max_age)
    key = saved(SyncFace(), Store, count=0)

    async def requests(number: int) -> None:
        for _ in range(number):
            await a_request(get_asgi_application(), key)

    asyncio.run(requests(5))
    before = connection_objects(), connections_of_the_server(engine_name)
    asyncio.run(requests(150))
    after = connection_objects(), settled_at(before[1], lambda: connections_of_the_server(engine_name))
    assert after == before
    assert Store(key)["count"] == 155


async def a_request(application: Any, key: str) -> None:
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/count/",
        "query_string": b"",
        "headers": [(b"cookie", f"sessionid={key}".encode())],
    }
    communicator = ApplicationCommunicator(application, scope)
    await communicator.send_input({"type": "http.request", "body": b""})
    assert (await communicator.receive_output(5))["status"] == 200
    await communicator.receive_output(5)
    await communicator.wait(5)


# Who watches a connection


@pytest.fixture
def connection(Store, face) -> Iterator[Any]:
    """The face's own, persistent, and in use by the engine already."""
    saved(face, Store)
    return face.run(lambda: connections[SessionRouter.alias])


def every_statement(face: Any, Store: Any) -> int:
    """Use the engine; how many statements that takes."""
    key = saved(face, Store, _auth_user_id="1", a=1)  # INSERT
    session = face(Store(key))
    session["a"] = 2  # SELECT
    session.save()  # UPDATE
    verbs = face.verbs(Store)
    [record] = verbs.of_user("1")  # SELECT
    verbs.touch(record.id, record.expires_at)  # UPDATE
    assert len(verbs.scan(None, 10)) == 2  # SELECT
    session.delete()  # DELETE
    return 7


def test_a_hook_on_an_instances_cursor_sees_each_statement(Store, face, connection, monkeypatch):
    """As debug toolbars and agents that count queries set it."""
    seen, original = [], connection.cursor
    monkeypatch.setattr(connection, "cursor", lambda *given: seen.append(given) or original(*given), raising=False)
    assert every_statement(face, Store) == len(seen)


def test_a_class_that_prepares_each_cursor_prepares_ours(Store, face, connection, monkeypatch):
    """As django-tenants' does, which sets the schema before each cursor is handed out."""
    seen, original = [], type(connection)._cursor
    monkeypatch.setattr(type(connection), "_cursor", lambda self, *given: seen.append(self) or original(self, *given))
    assert every_statement(face, Store) == seen.count(connection)


def test_an_execute_wrapper_sees_each_statement(Store, face, connection):
    seen = []

    def wrapper(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        assert every_statement(face, Store) == len(seen)
    every_statement(face, Store)
    assert len(seen) == 7


def test_captured_queries_are_all_there(Store, face, connection):
    """And so assertNumQueries() counts them."""
    with CaptureQueriesContext(connection) as captured:
        assert every_statement(face, Store) == len(captured)
    verbs = [query["sql"].split()[0] for query in captured]
    assert Counter(verbs) == {"INSERT": 1, "SELECT": 3, "UPDATE": 2, "DELETE": 1}


def test_a_test_case_that_forbids_the_database_forbids_ours(Store, connection):
    """In use before or not."""

    class Forbidding(SimpleTestCase):
        databases = set()

    Forbidding.setUpClass()
    try:
        with pytest.raises(DatabaseOperationForbidden, match="Database queries"):
            Store("a" * 32).load()
    finally:
        Forbidding.doClassCleanups()


@pytest.fixture
def schemas(Store: Any) -> Iterator[Callable[[str], Any]]:
    """Two schemas of PostgreSQL with a table of sessions each, and a connection that goes by the one that is set."""
    connection = connections[SessionRouter.alias]
    original, current, table = connection.cursor, ["public"], Session._meta.db_table

    def cursor() -> Any:
        found = original()
        found.execute(f"SET search_path = {current[0]}")
        return found

    with original() as asking:
        for name in ("red", "blue"):
            asking.execute(f"CREATE SCHEMA {name}")
            asking.execute(f"CREATE TABLE {name}.{table} (LIKE public.{table} INCLUDING ALL)")
    connection.cursor = cursor
    yield lambda name: current.__setitem__(0, name)
    del connection.cursor
    with connection.cursor() as asking:
        asking.execute("SET search_path = DEFAULT; DROP SCHEMA red CASCADE; DROP SCHEMA blue CASCADE")


@pytest.mark.parametrize("engine_name", ["postgres"])
def test_a_key_of_one_schema_opens_nothing_in_another(Store, schemas):
    schemas("red")
    key = saved(SyncFace(), Store, color="red")
    assert Store(key)["color"] == "red"
    schemas("blue")
    assert Store(key).load() == {}
    assert not Store().exists(key)
    schemas("red")
    assert Store(key)["color"] == "red"


@pytest.fixture
def moved(Store: Any) -> Iterator[Callable[[str], None]]:
    """An alias that is one database and then another, as with override_settings(DATABASES=...) or a site that moves."""
    alias = "moved"

    def move(to: str) -> None:
        if alias in connections.settings:
            connections[alias].close()
            del connections[alias]
        connections.settings[alias] = dict(connections.settings[to])

    SessionRouter.alias = alias
    yield move
    SessionRouter.alias = "default"
    connections[alias].close()
    del connections[alias], connections.settings[alias]


@pytest.mark.parametrize("engine_name", ["sqlite"])
def test_statements_are_those_of_the_database_that_an_alias_is_now(Store, moved):
    for database in ("default", "postgres", "mysql", "default"):
        moved(database)
        key = saved(SyncFace(), Store, database=database)
        session = Store(key)
        assert session["database"] == database
        session["a"] = 1
        session.save()
        session.flush()
        assert not Store().exists(key)


def test_the_clock_of_the_database(Store, engine_name, clock):
    host = utcnow()
    clock.shift(3600)
    behind = timedelta(hours=1) if engine_name != "sqlite" else timedelta(0)  # which has none of its own
    assert abs(databases.clock(SessionRouter.alias) + behind - utcnow()) < timedelta(seconds=60)
    assert abs(databases.clock(SessionRouter.alias) + behind - host - timedelta(hours=1)) < timedelta(seconds=60)
