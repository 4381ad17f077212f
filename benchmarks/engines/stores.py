"""The workloads of run.py on a session engine: through its store alone, and through whole requests of Django's."""

import asyncio
import os
import sys
from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from itertools import count
from types import ModuleType
from typing import Any

import django
from django.conf import settings

from benchmarks.engines import data
from benchmarks.engines import shims as engines_shims
from benchmarks.engines.contenders import Contender

STORE = ("read", "write", "create", "create signed in", "sliding", "64 KB", "async", "log-in")
SETTINGS = "engines_settings"
REQUEST = ("request read", "request write", "request log-in", "request async")


class Router:
    """Sessions are in the database `alias`."""

    alias = "default"

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return self.alias

    db_for_write = db_for_read


def configure(contender: Contender, addresses: dict[str, Any]) -> None:
    sys.modules.update(dict.fromkeys(contender.blocked))
    module = sys.modules[SETTINGS] = ModuleType(SETTINGS)  # not settings.configure(): no site uses that
    vars(module).update(_defaults(contender, addresses) | _filled(contender.settings, addresses))
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS
    django.setup()
    if contender.shim:
        getattr(engines_shims, contender.shim)(addresses)
    if "DATABASES" in contender.settings or contender.server in ("postgres", "sqlite"):
        _migrate(contender)


def _defaults(contender: Contender, addresses: dict[str, Any]) -> dict[str, Any]:
    sql = ["django.contrib.contenttypes", "django.contrib.auth"] if contender.server in ("postgres", "sqlite") else []
    return {
        "SECRET_KEY": "a benchmark's secret key, as long as one of Django's",
        "USE_TZ": True,
        "ALLOWED_HOSTS": ["*"],
        "ROOT_URLCONF": "benchmarks.engines.views",
        "INSTALLED_APPS": [*sql, *contender.apps],
        "MIDDLEWARE": [contender.middleware] if contender.engine else [],
        "SESSION_ENGINE": contender.engine or "",
        "DATABASES": _databases(contender, addresses),
        "DATABASE_ROUTERS": ["benchmarks.engines.stores.Router"],
    }


def _databases(contender: Contender, addresses: dict[str, Any]) -> dict[str, Any]:
    import dj_database_url

    if contender.server == "sqlite":
        options = {"init_command": "PRAGMA journal_mode = WAL", "transaction_mode": "IMMEDIATE", "timeout": 20}
        lasting = dj_database_url.parse(f"sqlite:///{addresses['sqlite']}", conn_max_age=None)
        return {"default": lasting | {"OPTIONS": options}}
    if contender.server == "postgres":
        lasting = dj_database_url.parse(addresses["postgres"], conn_max_age=None)
        pooled = dj_database_url.parse(addresses["postgres"])
        return {
            "default": lasting | {"OPTIONS": contender.options},
            "pooled": pooled | {"OPTIONS": {**contender.options, "pool": True}},
        }
    return {}


def _filled(value: Any, addresses: dict[str, Any]) -> Any:
    """Settings with the servers' addresses in them; "{x}" alone becomes the address x as it is, a number maybe."""
    if isinstance(value, dict):
        return {name: _filled(each, addresses) for name, each in value.items()}
    if isinstance(value, str) and value.startswith("{"):
        return addresses[value.strip("{}")]
    return value


def _migrate(contender: Contender) -> None:
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    if contender.server in ("postgres", "sqlite"):
        from django.contrib.auth.models import User

        User.objects.bulk_create(
            [User(id=number, username=f"user{number}") for number in range(1, data.USERS + 1)], ignore_conflicts=True
        )


class Workloads:
    def __init__(self, contender: Contender, addresses: dict[str, Any], runner: asyncio.Runner) -> None:
        self.contender, self.runner = contender, runner
        self.names = (() if contender.requests_only else STORE) + REQUEST
        self.numbers = count(1)
        if contender.engine:
            self.Store = import_module(contender.engine).SessionStore

    @cached_property
    def keys(self) -> list[str]:
        return [self.stored(data.signed_in(number)) for number in range(data.CONCURRENT)]

    @cached_property
    def large(self) -> str:
        return self.stored(data.large(1))

    def start(self, workload: str, calls: int) -> Callable[[int], Any]:
        if workload.startswith("request"):
            return self._start_request(workload.removeprefix("request "), calls)
        Router.alias = "default"
        if workload == "sliding":
            self.write(self.keys[1])  # so that it was written within the touch window
        visitors = self._visitors(calls) if workload == "log-in" else []
        return {
            "read": lambda number: self.Store(self.keys[1])["visits"],
            "write": lambda number: self.write(self.keys[1]),
            "create": lambda number: self.stored(anonymous),
            "create signed in": lambda number: self.stored(signed_in),
            "sliding": lambda number: self.save(self.keys[1]),
            "64 KB": lambda number: self.write(self.large),
            "async": lambda number: self.runner.run(self.gather()),
            "log-in": lambda number: self.log_in(visitors[number]),
        }[workload]

    def stored(self, values: dict[str, Any]) -> str:
        session = self.Store()
        for name, value in values.items():
            session[name] = value
        session.save()
        return str(session.session_key)

    def write(self, key: str) -> None:
        session = self.Store(key)
        session["visits"] = next(self.numbers)
        session.save()

    def save(self, key: str) -> None:
        session = self.Store(key)
        session["visits"]
        session.save()

    def log_in(self, key: str) -> None:
        """What `django.contrib.auth.login()` does with the session, and the middleware's save."""
        session = self.Store(key)
        session.cycle_key()
        for name, value in signed_in_as.items():
            session[name] = value
        session.save()

    async def awrite(self, key: str) -> None:
        session = self.Store(key)
        await session.aset("visits", next(self.numbers))
        await session.asave()

    async def gather(self) -> None:
        await asyncio.gather(*map(self.awrite, self.keys))

    def fill(self, sessions: int) -> None:
        for number in range(sessions):
            self.stored(data.signed_in(number))

    def table(self) -> dict[str, Any]:
        from django.apps import apps

        meta = apps.get_model(self.contender.model or "")._meta
        columns = {field.name: field.column for field in meta.fields}
        expiry = next(columns[name] for name in ("expires_at", "expire_date") if name in columns)
        return {"table": meta.db_table, "key": meta.pk.column, "expiry": expiry, "columns": [*columns.values()]}

    def _visitors(self, calls: int) -> list[str]:
        return [self.stored(data.visitor(number)) for number in range(calls)]

    # Whole requests

    def _start_request(self, workload: str, calls: int) -> Callable[[int], Any]:
        from benchmarks.engines import requests

        if workload == "async":
            Router.alias = "pooled" if "pooled" in settings.DATABASES else "default"
            paths = [("/awrite", key) for key in (self.keys if self.contender.engine else [""] * data.CONCURRENT)]
            return lambda number: self.runner.run(requests.agather(paths))
        Router.alias = "default"
        if not self.contender.engine:
            return lambda number: requests.get("/nothing", "")
        keys = self._visitors(calls) if workload == "log-in" else [self.keys[1]] * calls
        path = {"read": "/read", "write": "/write", "log-in": "/log-in"}[workload]
        return lambda number: requests.get(path, keys[number])


anonymous, signed_in, signed_in_as = data.visitor(1), data.signed_in(1), data.auth(1)
