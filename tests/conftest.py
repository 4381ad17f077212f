"""Databases are the run's own: migrated once, and a test cleans up what it wrote, so threads and loops see it all."""

import os
from collections.abc import Callable, Iterator
from contextvars import copy_context
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from django.core.management import call_command
from django.db import connections
from django.test import override_settings
from hypothesis import settings as hypothesis_settings

pytest_plugins = ["django_multisession.testing.fixtures"]


import django_multisession
from django_multisession.backends import redis

from . import servers
from .routers import SessionRouter

hypothesis_settings.register_profile("default", deadline=None)
hypothesis_settings.register_profile("thorough", deadline=None, max_examples=2000)
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# Its release 2.9 asks for Django before 6.1.
collect_ignore = [] if find_spec("django_celery_beat") else ["test_django_celery_beat.py"]
if not find_spec("django_tenants"):
    collect_ignore.append("packages/test_tenants.py")

# Engine under test: its module, and for SQL the database that it uses.
ENGINES = {
    "memory": ("django_multisession.backends.memory", None),
    "redis": ("django_multisession.backends.redis", None),
    "mongodb": ("django_multisession.backends.mongodb", None),
    "sqlite": ("django_multisession.backends.db", "default"),
    "postgres": ("django_multisession.backends.db", "postgres"),
    "mysql": ("django_multisession.backends.db", "mysql"),
}
CACHED = {  # an engine made of two, by the database
    "cached_sqlite": ("django_multisession.backends.cached_db", "default"),
    "cached_postgres": ("django_multisession.backends.cached_db", "postgres"),
    "cached_mysql": ("django_multisession.backends.cached_db", "mysql"),
}


PACKAGE = Path(django_multisession.__file__).parent
if PACKAGE.parent != Path(__file__).parent.parent and "site-packages" not in PACKAGE.parts:
    raise pytest.UsageError(f"{PACKAGE}, of another checkout, would be tested. Run these tests from another folder.")


def pytest_report_header() -> list[str]:
    return [f"django_multisession: {PACKAGE}"] + [f"not installed, so not collected: {name}" for name in collect_ignore]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Each test in a context of its own: one that sets CACHES leaves a variable there, since Django opens them in a new
    `Local` then, and each hop of `sync_to_async()` looks at all variables."""
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    copy_context().run(runtestprotocol, item, nextitem=nextitem)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.fixture(scope="session")
def django_db_setup(django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock():
        for alias in connections:
            call_command("migrate", database=alias, verbosity=0)
        yield
        connections.close_all()


@pytest.fixture(autouse=True)
def _databases(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def engine_name() -> str:
    """Overridden by each engine's test module."""
    return "memory"


@pytest.fixture
def Store(engine_name: str) -> Iterator[Any]:
    """The engine's `SessionStore`, its store empty."""
    if reason := servers.MISSING.get(engine_name.removeprefix("cached_")):
        pytest.skip(reason)
    module, alias = (ENGINES | CACHED)[engine_name]
    SessionRouter.alias = alias or "default"
    store = import_module(module).SessionStore
    with override_settings(SESSION_ENGINE=module):
        empty(store)
        yield store
        empty(store)
    SessionRouter.alias = "default"


def empty(store: Any) -> None:
    """Remove all sessions, the expired ones too."""
    clean: Callable[[], object] = {
        "django_multisession.backends.memory": lambda: store.storage.records.clear(),
        "django_multisession.backends.redis": lambda: store.storage.client.flushdb(),
        "django_multisession.backends.mongodb": lambda: store.storage.collection.delete_many({}),
        "django_multisession.backends.db": _empty_table,
        "django_multisession.backends.cached_db": lambda: (_empty_table(), redis.SessionStore.storage.client.flushdb()),
    }[store.__module__]
    clean()


def _empty_table() -> None:
    from django_multisession.models import Session

    Session.objects.all()._raw_delete(SessionRouter.alias)
