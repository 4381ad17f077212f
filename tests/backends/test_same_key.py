"""Fifty requests that change the same keys of one session at once: a counter, a list, Django's messages."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.contrib.messages import constants
from django.contrib.messages.storage.session import SessionStorage
from django.db import transaction
from django.http import HttpResponse
from django.test import RequestFactory, override_settings

from django_multisession.testing.stored import close_connections, saved

from ..children import child
from ..conftest import ENGINES
from ..routers import SessionRouter

REQUESTS = 50
RULES = {"count": "sum", "list": "append", "flags": "union", "wizard": "deep"}

FEWER_ENGINES = pytest.mark.parametrize("engine_name", ["memory", "redis", "sqlite"])

pytestmark = pytest.mark.slow


@pytest.fixture(params=list(ENGINES))
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _rules() -> Iterator[None]:
    with override_settings(MULTISESSION_MERGE=RULES):
        yield


def change(data: Any, number: int) -> None:
    """What each request does, be it to the session or within change()."""
    data["count"] += 1
    data["list"] = [*data["list"], number]
    data["flags"] = sorted({*data["flags"], number})
    data["wizard"] = {"steps": {**data["wizard"]["steps"], str(number): number}}


def begun(Store: Any) -> str:
    return saved(lambda store: store, Store, count=0, list=[], flags=[], wizard={"steps": {}})


def assert_all_counted(Store: Any, key: str, messages: bool = False) -> None:
    data, numbers = Store(key).load(), list(range(REQUESTS))
    assert data["count"] == REQUESTS
    assert sorted(data["list"]) == sorted(data["flags"]) == numbers
    assert data["wizard"] == {"steps": {str(number): number for number in numbers}}
    if messages:
        assert sorted(message[3] for message in json.loads(data["_messages"])) == sorted(map(str, numbers))


def message(session: Any, number: int) -> Any:
    """A request's storage of Django's messages, with one that it has added."""
    request = RequestFactory().get("/")
    request.session = session
    storage = SessionStorage(request)
    len(storage)  # loads what is there
    storage.add(constants.INFO, str(number))
    return storage


class TestThreads:
    """In one process; of the other engines two processes of 25 threads each do the same, below."""

    @FEWER_ENGINES
    def test_by_change(self, Store):
        assert_all_counted(Store, self.of_all(Store, lambda session, n: session.change(lambda data: change(data, n))))

    @FEWER_ENGINES
    def test_by_rules(self, Store):
        def request(session: Any, number: int) -> None:
            change(session, number)
            message(session, number).update(HttpResponse())
            session.save()

        assert_all_counted(Store, self.of_all(Store, request), messages=True)

    @pytest.mark.parametrize("engine_name", [name for name, (_, alias) in ENGINES.items() if alias])
    def test_by_change_in_transactions(self, Store):
        def request(session: Any, number: int) -> None:
            with transaction.atomic(using=SessionRouter.alias):
                session.change(lambda data: change(data, number))

        assert_all_counted(Store, self.of_all(Store, request))

    @staticmethod
    def of_all(Store: Any, request: Any) -> str:
        """All load before any saves, as requests of one page do."""
        key, barrier = begun(Store), Barrier(REQUESTS)

        def one(number: int) -> None:
            try:
                session = Store(key)
                session.get("count")
                barrier.wait(60)
                request(session, number)
            finally:
                close_connections()

        with ThreadPoolExecutor(REQUESTS) as pool:
            list(pool.map(one, range(REQUESTS)))
        return key


class TestTasks:
    def test_by_change(self, Store, runner):
        async def request(session: Any, number: int) -> None:
            async def achange(data: dict[str, Any]) -> None:
                await asyncio.sleep(0)
                change(data, number)

            await session.achange((lambda data: change(data, number)) if number % 2 else achange)

        key = begun(Store)
        runner.run(self.of_all(Store, key, request))
        assert_all_counted(Store, key)

    def test_by_rules(self, Store, runner):
        async def request(session: Any, number: int) -> None:
            change(session, number)
            message(session, number).update(HttpResponse())
            await session.asave()

        key = begun(Store)
        runner.run(self.of_all(Store, key, request))
        assert_all_counted(Store, key, messages=True)

    @staticmethod
    async def of_all(Store: Any, key: str, request: Any) -> None:
        all_loaded = asyncio.Barrier(REQUESTS)

        async def one(number: int) -> None:
            session = Store(key)
            await session.aget("count")
            await all_loaded.wait()
            await request(session, number)

        await asyncio.gather(*map(one, range(REQUESTS)))


CHILD = """
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from threading import Barrier
from django.db import connections
from django.http import HttpResponse
from tests.backends.test_same_key import change, message
Store = import_module(settings.SESSION_ENGINE).SessionStore
barrier = Barrier(25)

def request(number):
    try:
        by_change, by_rules = map(Store, given["keys"])
        by_change.get("count"), by_rules.get("count")
        barrier.wait(120)
        by_change.change(lambda data: change(data, number))
        change(by_rules, number)
        message(by_rules, number).update(HttpResponse())
        by_rules.save()
    finally:
        connections.close_all()

with ThreadPoolExecutor(25) as pool:
    list(pool.map(request, given["numbers"]))
"""


@pytest.mark.parametrize("engine_name", [name for name in ENGINES if name != "memory"])
def test_two_processes(Store):
    keys, more = [begun(Store), begun(Store)], {"MULTISESSION_MERGE": RULES}
    processes = [child(CHILD, keys=keys, numbers=list(n), more=more) for n in (range(25), range(25, 50))]
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    for key, messages in zip(keys, (False, True), strict=True):
        assert_all_counted(Store, key, messages=messages)
