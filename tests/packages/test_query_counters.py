"""Query counters see each statement that the SQL engine sends, in the first request and in all that follow."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import settings
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ..routers import SessionRouter
from ..soak.web import environment

TABLE = "django_multisession_session"
REQUESTS = 3

# Django's test client on the site of the soak test, with the toolbar around it.
TOOLBAR = """
import json, django
django.setup()
from django.test import Client
from debug_toolbar.store import get_store
from django.urls import include, path
from tests.soak import views
views.urlpatterns.append(path("__debug__/", include("debug_toolbar.urls")))
client = Client()
client.get("/put/first/")
seen = []
for number in range(3):
    before = set(get_store().request_ids())
    client.get(f"/put/{number}/")
    [request] = set(get_store().request_ids()) - before
    seen.append([query["sql"] for query in get_store().panel(request, "SQLPanel")["queries"]])
    client.get("/look/")
print(json.dumps(seen))
"""


@pytest.fixture(params=["sqlite", "postgres", "mysql"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(Store: Any) -> Client:
    client = Client()
    client.get("/count/")
    return client


def verbs(statements: list[str]) -> list[str]:
    return [statement.split()[0] for statement in statements if TABLE in statement]


@contextmanager
def captured() -> Iterator[list[str]]:
    """`assertNumQueries()`, Django's test runner and its debug log go by this."""
    statements: list[str] = []
    with CaptureQueriesContext(connections[SessionRouter.alias]) as context:
        yield statements
    statements += [query["sql"] for query in context.captured_queries]


@contextmanager
def wrapped() -> Iterator[list[str]]:
    """`execute_wrapper()` is what instrumentation is told to use."""
    statements: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        statements.append(sql)
        return execute(sql, params, many, context)

    with connections[SessionRouter.alias].execute_wrapper(note):
        yield statements


@contextmanager
def replaced() -> Iterator[list[str]]:
    """A cursor of somebody's own in place of the connection's, as toolbars and agents have it."""
    connection, statements = connections[SessionRouter.alias], list[str]()
    original = connection.cursor

    class Noting:
        def __init__(self) -> None:
            self.cursor = original()

        def execute(self, sql: str, params: Any = None) -> Any:
            statements.append(sql)
            return self.cursor.execute(sql, params)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.cursor, name)

        def __enter__(self) -> "Noting":
            return self

        def __exit__(self, *error: object) -> None:
            self.cursor.close()

    connection.cursor = Noting
    try:
        yield statements
    finally:
        del connection.cursor


@pytest.mark.parametrize("counter", [captured, wrapped, replaced])
def test_each_statement_is_counted(client, counter):
    for _ in range(REQUESTS):
        with counter() as statements:
            client.get("/count/")
        assert verbs(statements) == ["SELECT", "UPDATE"]
        client.get("/look/")


def test_the_toolbar_shows_each_statement(Store):
    changes = {
        "DEBUG_TOOLBAR_CONFIG": {"SHOW_TOOLBAR_CALLBACK": "builtins.bool"},  # to everybody, without DEBUG
        "INSTALLED_APPS": [*settings.INSTALLED_APPS, "debug_toolbar"],
        "DEBUG_TOOLBAR_PANELS": ["debug_toolbar.panels.sql.SQLPanel"],
        "TEMPLATES": settings.TEMPLATES,
        "STATIC_URL": settings.STATIC_URL,
        "MIDDLEWARE": ["debug_toolbar.middleware.DebugToolbarMiddleware", *settings.MIDDLEWARE],
    }
    command = [sys.executable, "-c", TOOLBAR]
    done = subprocess.run(command, env=environment(**changes), check=True, stdout=subprocess.PIPE, text=True)
    assert [verbs(statements) for statements in json.loads(done.stdout)] == [["SELECT", "UPDATE"]] * REQUESTS
