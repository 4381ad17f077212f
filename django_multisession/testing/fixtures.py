"""The fixtures of the contract, as a pytest plugin: a conftest.py names this module in `pytest_plugins`.

An engine's tests override `engine_name`, and `Store` where its sessions are removed in some other way than here.
"""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import pytest
import time_machine
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connections
from django.test import override_settings

from ..records import utcnow
from ..twins import run_sync
from .faces import AsyncFace, Face, SyncFace

pytest.register_assert_rewrite("django_multisession.testing.contract")

MANY = 10_000  # records: more than a test makes


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """An event loop of the test's own, which takes its clients and database connections with it."""
    with asyncio.Runner() as runner:
        yield runner
        runner.run(sync_to_async(connections.close_all)())


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    """Wraps a store so that a test written once drives its synchronous or its asynchronous methods."""
    return SyncFace() if request.param == "sync" else AsyncFace(request.getfixturevalue("runner"))


@pytest.fixture
def verbs(Store: Any, face: Face) -> Any:
    """The engine's storage, its verbs as plain calls."""
    return face.verbs(Store)


@pytest.fixture
def clock() -> Iterator[Any]:
    """A clock that goes on by itself, and further with `clock.shift(seconds)`."""
    with time_machine.travel(datetime.now(UTC), tick=True) as traveller:
        yield traveller


@pytest.fixture
def engine_name() -> str:
    """The dotted path of the engine, as `SESSION_ENGINE` takes it."""
    return str(settings.SESSION_ENGINE)


@pytest.fixture
def Store(engine_name: str) -> Iterator[Any]:
    """The engine's `SessionStore`, its store empty."""
    store = import_module(engine_name).SessionStore
    with override_settings(SESSION_ENGINE=engine_name):
        run_sync(_empty(store.storage))
        yield store
        run_sync(_empty(store.storage))


async def _empty(storage: Any) -> None:
    await storage.purge(utcnow(), MANY)
    after = None
    while True:
        page = await storage.scan(after, MANY)
        await storage.remove([record.id for record in page])
        if (after := page.next) is None:
            return
