"""Promise 7: an outage is an outage: `EngineUnavailable`, the cookie kept, and work again when the server is back."""

import shutil
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dj_database_url
import pytest
import redis
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.test import Client, override_settings

from django_multisession.exceptions import EngineUnavailable
from django_multisession.testing.stored import KEY, USER_ID
from example_project.servers import MariaDBServer, MongoDBServer, PostgresServer, RedisServer

from ..routers import SessionRouter

COOKIE = settings.SESSION_COOKIE_NAME
REDIS, MONGODB, DB = (f"django_multisession.backends.{name}" for name in ("redis", "mongodb", "db"))
pytestmark = [
    pytest.mark.slow,
    # PyMongo's asynchronous client leaves sockets to the garbage collector whose connecting it gave up.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]

TIMEOUT = 0.3  # seconds
WAIT = {"postgresql": {"connect_timeout": 2}, "mysql": {"connect_timeout": 2, "read_timeout": 2}}  # Django's OPTIONS

SERVERS = {"redis": RedisServer, "mongodb": MongoDBServer, "postgres": PostgresServer, "mysql": MariaDBServer}


@contextmanager
def using(kind: str, url: str, **more: Any) -> Iterator[Any]:
    """The `SessionStore` of the engine at that URL."""
    module = {"redis": REDIS, "mongodb": MONGODB}.get(kind, DB)
    setting = {REDIS: "MULTISESSION_REDIS", MONGODB: "MULTISESSION_MONGODB"}.get(module)
    options: dict[str, Any] = {setting: url, "MULTISESSION_TIMEOUT": TIMEOUT} if setting else {}
    with (
        override_settings(SESSION_ENGINE=module, MULTISESSION_TOUCH_AFTER=0, **options),
        _database(None if setting else url, **more),
    ):
        yield import_module(module).SessionStore


@contextmanager
def _database(url: str | None, **more: Any) -> Iterator[None]:
    """A database at the URL, under an alias of its own, and the session table routed to it."""
    if url is None:
        yield
        return
    alias = f"outage{next(numbers)}"
    entry = {**dj_database_url.parse(url), "OPTIONS": WAIT.get(urlsplit(url).scheme, {}), **more}
    connections.settings[alias] = connections.configure_settings({**connections.settings, alias: entry})[alias]
    SessionRouter.alias = alias
    try:
        yield
    finally:
        SessionRouter.alias = "default"
        connections[alias].close()
        del connections[alias], connections.settings[alias]


numbers = count()


@pytest.fixture(params=list(SERVERS))
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "mysql" and not shutil.which("mariadbd", path="/usr/sbin:/usr/bin:/usr/local/bin"):
        pytest.skip("mariadbd is not installed")
    return str(request.param)


@pytest.fixture
def server(kind: str) -> Iterator[Any]:
    with SERVERS[kind]() as server:
        yield server


@pytest.fixture
def Store(kind: str, server: Any) -> Iterator[Any]:
    with using(kind, server.url) as store:
        if SessionRouter.alias != "default":
            call_command("migrate", database=SessionRouter.alias, verbosity=0)
        yield store


def attempts(face: Any, Store: Any, session: Any) -> dict[str, Callable[[], object]]:
    """Each operation on a session that was loaded while all was well."""
    changed, deleted = session(), session()
    changed["b"] = 2
    return {
        "load": lambda: face(Store(KEY)).load(),
        "exists": lambda: face(Store()).exists(KEY),
        "save": changed.save,
        "touch": session().save,
        "create": lambda: face(Store()).create(),
        "delete": deleted.delete,
        "flush": session().flush,
        "cycle_key": session().cycle_key,
    }


def assert_all_unavailable(operations: dict[str, Callable[[], object]], but: tuple[str, ...] = ()) -> None:
    for name, operation in operations.items():
        if name in but:
            operation()
            continue
        with pytest.raises(EngineUnavailable) as caught:
            operation()
        assert caught.value.__cause__ is not None, name


def test_a_stopped_server_is_an_outage_until_it_is_back(Store, face, server):
    original = face(Store())
    original["a"] = 1
    original[USER_ID] = "9"
    original.save()
    key = original.session_key

    def session() -> Any:
        loaded = face(Store(key))
        assert loaded["a"] == 1
        return loaded

    operations = attempts(face, Store, session)
    server.stop()
    assert_all_unavailable(operations)
    server.start()
    key = soon(lambda: new_session(face, Store))
    assert face(Store(key))["c"] == 3


def new_session(face: Any, Store: Any) -> str:
    session = face(Store())
    session["c"] = 3
    session.save()
    return str(session.session_key)


def soon(operation: Callable[[], Any]) -> Any:
    """MongoDB's driver looks for a lost server twice a second, which is longer than these tests' timeout."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return operation()
        except EngineUnavailable:
            if time.monotonic() > deadline:
                raise


def test_the_cookie_survives_an_outage(Store, kind, server):
    client = Client(raise_request_exception=False)
    client.get("/count/")
    key = client.cookies[COOKIE].value
    server.stop()
    for page in ("look", "count", "sign_out"):
        response = client.get(f"/{page}/")
        assert response.status_code == 500
        assert COOKIE not in response.cookies
    assert client.cookies[COOKIE].value == key
    server.start()
    soon(Store(key).load)
    kept = kind != "redis"  # whose throw-away server keeps nothing on disk
    assert client.get("/count/").json()["count"] == (2 if kept else 1)


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield listener.getsockname()[1]


def test_a_server_that_never_answers_is_an_outage_after_the_timeout(face, kind, black_hole):
    urls = {"redis": f"redis://127.0.0.1:{black_hole}/0", "mongodb": f"mongodb://127.0.0.1:{black_hole}/x"}
    scheme = {"postgres": "postgresql", "mysql": "mysql"}.get(kind)
    url = urls.get(kind) or f"{scheme}://root@127.0.0.1:{black_hole}/x"
    with using(kind, url) as Store:
        with pytest.raises(EngineUnavailable):
            face(Store(KEY)).load()
        with pytest.raises(EngineUnavailable):
            face(Store()).create()


def test_a_refused_connection_is_an_outage(face, kind):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    scheme = {"redis": "redis", "mongodb": "mongodb", "postgres": "postgresql", "mysql": "mysql"}[kind]
    path = "0" if kind == "redis" else "x"
    with using(kind, f"{scheme}://127.0.0.1:{port}/{path}") as Store:
        for operation in (face(Store(KEY)).load, face(Store()).create, lambda: face(Store(KEY)).delete(KEY)):
            with pytest.raises(EngineUnavailable):
                operation()


def test_a_wrong_password_is_an_outage(face, kind, server):
    address = urlsplit(server.url)
    url = address._replace(netloc=f"nobody:wrong@{address.hostname}:{address.port}").geturl()
    if kind == "postgres":
        url = address._replace(netloc=f"nobody@{address.hostname}:{address.port}").geturl()  # trusts any password
    with using(kind, url) as Store:
        for operation in (face(Store(KEY)).load, face(Store()).create, lambda: face(Store()).exists(KEY)):
            with pytest.raises(EngineUnavailable):
                operation()


def test_a_read_only_replica_refuses_writes_as_an_outage(face):
    with RedisServer() as primary, using("redis", primary.url) as Store:
        original = face(Store())
        original["a"] = 1
        original.save()
        with RedisServer("--replicaof", "127.0.0.1", str(primary.port)) as replica:
            wait_for_replica(replica.url)
            with override_settings(MULTISESSION_REDIS=replica.url):

                def session() -> Any:
                    loaded = face(Store(original.session_key))
                    assert loaded["a"] == 1
                    return loaded

                assert_all_unavailable(attempts(face, Store, session), but=("load", "exists"))


def wait_for_replica(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        for _ in range(200):
            if client.info("replication")["master_link_status"] == "up" and client.dbsize():
                return
            time.sleep(0.1)
    raise AssertionError("the replica never caught up")


def test_a_dropped_table_is_an_outage(face, tmp_path):
    with using("sqlite", f"sqlite:///{tmp_path}/db.sqlite3") as Store:
        for operation in (face(Store(KEY)).load, face(Store()).create, lambda: face(Store()).exists(KEY)):
            with pytest.raises(EngineUnavailable):
                operation()


def test_a_locked_sqlite_is_an_outage_and_no_log_out(face, tmp_path):
    file = tmp_path / "db.sqlite3"
    with using("sqlite", f"sqlite:///{file}", OPTIONS={"timeout": 0.1}) as Store:
        call_command("migrate", database=SessionRouter.alias, verbosity=0)
        original = face(Store())
        original["a"] = 1
        original.save()

        def session() -> Any:
            loaded = face(Store(original.session_key))
            assert loaded["a"] == 1
            return loaded

        operations = attempts(face, Store, session)
        with locked(file):
            assert_all_unavailable(operations)
        operations["save"]()
        assert face(Store(original.session_key))["b"] == 2


@contextmanager
def locked(file: Path) -> Iterator[None]:
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        holder.close()


def test_ignore_exceptions_of_the_cache_swallows_nothing(face):
    with RedisServer() as server:
        cache = {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": server.url,
            "OPTIONS": {"IGNORE_EXCEPTIONS": True},
        }
        caches = {**settings.CACHES, "sessions": cache}
        with override_settings(CACHES=caches, SESSION_ENGINE=REDIS, MULTISESSION_TOUCH_AFTER=0):
            from django_multisession.backends.redis import SessionStore as Store

            original = face(Store())
            original.save()

            def session() -> Any:
                loaded = face(Store(original.session_key))
                loaded.get("a")
                return loaded

            operations = attempts(face, Store, session)
            server.stop()
            assert_all_unavailable(operations)
