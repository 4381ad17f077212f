"""Sites whose sessions are on the move: `site.at("move")` is the `SessionStore` of a server in that phase."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import pytest
import redis_sessions.settings
from django.apps import apps
from django.conf import settings
from django.contrib.admin import site as site_of_admin
from django.contrib.sessions.backends.file import SessionStore as FileStore
from django.core.cache import caches
from django.db import connections
from django.test import override_settings
from redis_sessions.session import RedisServer

from django_multisession.backends import moving
from django_multisession.backends.moving.plan import Plan, plan
from django_multisession.records import identify
from tests import servers
from tests.conftest import ENGINES, empty
from tests.routers import SessionRouter

with warnings.catch_warnings(action="ignore"):
    import user_sessions  # noqa: F401  (it asks `pkg_resources` for its version, which is deprecated)

LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "old"}
DJANGO = "django.contrib.sessions.backends."
OLD = {
    "db": (f"{DJANGO}db", None),
    "cached_db": (f"{DJANGO}cached_db", LOCMEM),
    "cache": (f"{DJANGO}cache", LOCMEM),
    "django-redis": (f"{DJANGO}cache", {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis"}),
    "Django's Redis": (
        f"{DJANGO}cache",
        {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis"},
    ),
    "file": (f"{DJANGO}file", None),
    "ours": ("tests.moving.second", None),
}
OF_OTHERS = {
    "redis_sessions": ("redis_sessions.session", None),
    "user_sessions": ("user_sessions.backends.db", None),
    "qsessions": ("qsessions.backends.db", None),
    "qsessions' cached_db": ("qsessions.backends.cached_db", LOCMEM),
}
WITH_TABLES = ["django.contrib.sessions", "user_sessions", "qsessions"]


@dataclass
class Site:
    """`old` and `new` are the engines' own stores, as of servers that know nothing of the move."""

    old: Any
    new: Any
    old_is_ours: bool

    def at(self, phase: str) -> Any:
        def planned() -> Plan:
            return replace(plan(), phase=phase)

        return type("SessionStore", (moving.SessionStore,), {"_plan": staticmethod(planned)})

    def is_old(self, key: str) -> bool:
        return bool(self.old().exists(key))

    def is_new(self, key: str) -> bool:
        return bool(self.new().exists(key))


@pytest.fixture(params=["db"])
def old_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["memory"])
def new_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def site(old_name: str, new_name: str, tmp_path: Any) -> Iterator[Site]:
    if reason := servers.MISSING.get(new_name):
        pytest.skip(reason)
    old, cache = (OLD | OF_OTHERS)[old_name]
    new, alias = ENGINES[new_name]
    installed = [app for app in WITH_TABLES if app == WITH_TABLES[0] or old.startswith(app)]
    SessionRouter.alias = alias or "default"
    with ExitStack() as stack:
        chosen: dict[str, Any] = {
            "SESSION_ENGINE": "django_multisession.backends.moving",
            "MULTISESSION_MOVE": {"from": old, "to": new, "phase": "move"},
            "INSTALLED_APPS": [*settings.INSTALLED_APPS, *installed],
            "SESSION_FILE_PATH": str(tmp_path),
        }
        if cache:
            url = settings.REDIS_URL
            made = {**cache, "LOCATION": url if cache["LOCATION"] == "redis" else cache["LOCATION"]}
            chosen |= {"CACHES": {**settings.CACHES, "old": made}, "SESSION_CACHE_ALIAS": "old"}
            if new_name == "redis":
                chosen["MULTISESSION_REDIS"] = url
        stack.enter_context(override_settings(**chosen))
        vars(FileStore).get("_storage_path") and delattr(FileStore, "_storage_path")  # which it keeps
        _make_tables(installed)
        if old_name == "redis_sessions":
            redis_sessions.settings.SESSION_REDIS_URL = f"{settings.REDIS_URL.rpartition('/')[0]}/5"
            RedisServer("x").get().flushdb()
        store = import_module(new).SessionStore
        _empty(store, cache)
        yield Site(import_module(old).SessionStore, store, old_name == "ours")
        _empty(store, cache)
    for model in [model for model in site_of_admin._registry if model._meta.app_label in WITH_TABLES]:
        site_of_admin.unregister(model)
    SessionRouter.alias = "default"


@pytest.fixture(scope="package", autouse=True)
def _drop_tables() -> Iterator[None]:
    """Those of `WITH_TABLES`: to other tests' sites they are not there yet."""
    yield
    with connections["default"].cursor() as cursor:
        for table in ("django_session", "user_sessions_session", "qsessions_session"):
            cursor.execute(f"DROP TABLE IF EXISTS {table}")


def _make_tables(installed: list[str]) -> None:
    connection = connections["default"]
    for app in installed:
        model = apps.get_model(app.rpartition(".")[2], "Session")
        if model._meta.db_table not in connection.introspection.table_names():
            with connection.schema_editor() as editor:
                editor.create_model(model)
        model._base_manager.all()._raw_delete("default")


def _empty(new: Any, cache: Any) -> None:
    if cache:
        caches["old"].clear()
    import_module("tests.moving.second").SessionStore.storage.records.clear()
    empty(new)


def saved_on(store: Any, face: Any = lambda store: store, **data: Any) -> str:
    """The key of a new session of that store."""
    session = store()
    session._session_cache = data
    face(session).save()
    return str(session.session_key)


def record_of(site: Site, key: str) -> Any:
    from django_multisession.twins import run_sync

    return run_sync(site.new.storage.read(identify(key)))
