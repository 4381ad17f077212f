"""Whatever the order of the steps of two requests, statement by statement and command by command: whoever begins after
a change has returned sees it; nothing uncommitted and nothing of an older snapshot is ever cached; a rollback and the
loss of the cache change nothing."""

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.sessions.backends.base import UpdateError
from django.db import connections, transaction
from django.test import override_settings

from django_multisession.backends import redis
from django_multisession.backends.cached_db import copies
from django_multisession.records import identify, utcnow
from django_multisession.testing.faces import SyncFace
from django_multisession.testing.stored import saved
from django_multisession.twins import run_sync
from tests.routers import SessionRouter

from .steps import WHO, Steps, steps

TIMES = 1000  # of each promise, on each interface

pytestmark = pytest.mark.slow


@pytest.fixture
def engine_name() -> str:
    return "cached_postgres"


@pytest.fixture(autouse=True)
def _touch_at_once() -> Iterator[None]:
    with override_settings(MULTISESSION_TOUCH_AFTER=0):
        yield


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest, Store: Any) -> Iterator[Steps]:
    with steps(request.param, 3) as found:
        found.storage_of = lambda: Store.storage if request.param == "sync" else Store.astorage
        yield found


class Watched:
    """One session, and what those changes that have returned have left of it."""

    def __init__(self, Store: Any, run: Steps) -> None:
        self.Store, self.run = Store, run
        self.key = saved(SyncFace(), Store, a=1)
        self.id = identify(self.key)
        run.state = lambda: run.state_of(self.id)
        self.since = 0  # an index of the history: whoever begins now sees what is from there on

    @property
    def storage(self) -> Any:
        return self.run.storage_of()

    def after(self, *deeds: Any) -> Any:
        async def one_after_the_other() -> None:
            for deed in deeds:
                await deed()
                self.since = max(self.since, self.run.last.get(WHO.get(), 0))

        return one_after_the_other

    async def read(self) -> None:
        since = self.since
        record = await self.storage.read(self.id)
        assert record in self.run.history[since:]

    async def loaded(self) -> Any:
        session = self.Store(self.key)
        await session._data(self.storage)
        return session

    async def save(self) -> None:
        session = await self.loaded()
        session[f"by {WHO.get()}"] = 1
        with suppress(UpdateError):
            await session._save(self.storage)

    async def touch(self) -> None:
        session = await self.loaded()
        with suppress(UpdateError):
            await session._save(self.storage)

    async def delete(self) -> None:
        await self.Store(self.key)._delete(self.storage)

    async def revoke(self) -> None:
        await self.storage.remove([self.id])

    async def cycle_key(self) -> None:
        session = await self.loaded()
        await session._cycle_key(self.storage)

    async def purge(self) -> None:
        await self.storage.purge(utcnow(), 100)

    def settled(self) -> None:
        """In the end the cache says what the database says, twice: as it is, and once it was asked."""
        for _ in range(2):
            assert run_sync(self.Store.storage.read(self.id)) == self.run.state_of(self.id)


DEEDS = ["read", "save", "touch", "delete", "revoke", "cycle_key", "purge"]


def race(Store: Any, run: Steps, chance: random.Random, lose: Any = None) -> None:
    watched = Watched(Store, run)
    if chance.randrange(2):
        run_sync(Store.storage.read(watched.id))  # a hot read, then, else a miss
    requests = [watched.after(getattr(watched, chance.choice(DEEDS)), watched.read) for _ in range(2)]
    if lose:
        requests.append(watched.after(lambda: lose(watched)))
    run.run(requests, [chance.randrange(len(requests)) for _ in range(16)])
    watched.settled()


def test_whoever_begins_later_sees_no_older_state(Store, run):
    chance = random.Random(1)
    for _ in range(TIMES):
        race(Store, run, chance)


def test_the_loss_of_the_cache_at_any_step_loses_nothing(Store, run):
    """Eviction, FLUSHALL, a restart without data: what was there is not there any more."""
    chance, client = random.Random(2), redis.SessionStore.storage.client

    async def lose(watched: Watched) -> None:
        for _ in range(chance.randrange(1, 4)):
            run.stop()
            client.flushall() if chance.randrange(2) else client.delete(copies._key(watched.id))

    for _ in range(TIMES):
        race(Store, run, chance, lose)


@pytest.mark.parametrize("protection", ["lease", "forget"])
def test_the_interleavings_find_what_would_be_wrong(Store, run, monkeypatch, protection):
    """Each half of the protocol is taken away in turn: the tests above must fail then."""
    if protection == "lease":
        monkeypatch.setattr(copies, "FILL", "redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1")
        monkeypatch.setitem(copies.SHA, copies.FILL, "0" * 40)
    else:
        monkeypatch.setattr(copies.Copies, "_forget", _does_nothing)
    chance = random.Random(3)
    with pytest.raises(AssertionError):  # noqa: PT012
        for _ in range(TIMES):
            race(Store, run, chance)


async def _does_nothing(self: Any, keys: Any) -> None: ...


class RolledBackError(Exception):
    pass


LEVELS = "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"


def test_nothing_uncommitted_and_no_older_snapshot_is_cached(Store, run):
    """A transaction on each level that reads, changes or both, and commits or is rolled back, beside two requests."""
    chance = random.Random(4)
    for _ in range(TIMES):
        watched = Watched(Store, run)
        if chance.randrange(2):
            run_sync(Store.storage.read(watched.id))
        committing: list[int] = []
        committed: list[int] = []
        rolls_back, level = chance.randrange(2), chance.choice(LEVELS)
        changes = chance.randrange(3)

        def transact() -> None:
            with suppress(RolledBackError), transaction.atomic(using=SessionRouter.alias):
                with connections[SessionRouter.alias].cursor() as cursor:
                    cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")  # noqa: B023
                    cursor.execute("SELECT 1 FROM django_multisession_session LIMIT 1")
                run.stop()
                version = read_within()
                if changes:  # noqa: B023
                    assert change_within(version) == read_within()
                run.stop()
                if rolls_back:  # noqa: B023
                    raise RolledBackError
                committing.append(1)  # noqa: B023
            if changes and not rolls_back:  # noqa: B023
                committed.append(1)  # noqa: B023

        def read_within() -> Any:
            record = run_sync(Store.storage.read(watched.id))  # noqa: B023
            return record and record.version

        def change_within(version: Any) -> Any:
            if changes == 1:  # noqa: B023
                session = Store(watched.key)  # noqa: B023
                session["b"] = 2
                session.save()
                return 2
            run_sync(Store.storage.remove([watched.id]))  # noqa: B023
            return None

        async def look() -> None:
            is_committed = bool(committed)  # noqa: B023
            record = await watched.storage.read(watched.id)  # noqa: B023
            version = record and record.version
            assert version == 1 or (committing and changes and not rolls_back)  # noqa: B023
            if is_committed:
                assert version == (2 if changes == 1 else None)  # noqa: B023

        requests = [sync_to_async(transact) if run.workers[0].face == "async" else _plainly(transact)]
        requests += [watched.after(look, look) for _ in range(2)]
        run.run(requests, [chance.randrange(3) for _ in range(24)])
        watched.settled()


def _plainly(function: Any) -> Any:
    async def call() -> None:
        function()

    return call
