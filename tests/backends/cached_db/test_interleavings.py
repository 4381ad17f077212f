"""Whatever the order of the steps of two requests, statement by statement and command by command: whoever begins after
a change has returned sees it; nothing uncommitted and nothing of an older snapshot is ever cached; a rollback and the
loss of the cache change nothing.

Each ordered pair of DEEDS meets TIMES times for each promise on each interface, in an order of steps by chance.
"""

import copy
import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.sessions.backends.base import UpdateError
from django.db import Error, connections, transaction
from django.test import override_settings

from django_multisession.backends import redis
from django_multisession.backends.cached_db import copies, transactions
from django_multisession.records import identify, utcnow
from django_multisession.testing.faces import SyncFace
from django_multisession.testing.stored import saved
from django_multisession.twins import run_sync
from tests.routers import SessionRouter

from .steps import WHO, Steps, steps

DEEDS = ["hot_read", "miss", "save", "touch", "delete", "revoke", "cycle_key", "purge"]
TIMES = 16  # of each of 64 pairs: 1,024
LEVELS = "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"

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
        yield found


class Watched:
    """One session, and what those changes that have returned have left of it."""

    def __init__(self, Store: Any, run: Steps) -> None:
        self.Store, self.run = Store, run
        self.storage = Store.storage if run.workers[0].face == "sync" else Store.astorage
        self.key = saved(SyncFace(), Store, a=1)
        self.id = run.id = identify(self.key)
        self.since = 0  # an index of the history: whoever begins now sees what is from there on

    def after(self, *deeds: Any) -> Any:
        async def one_after_the_other() -> None:
            for deed in deeds:
                await deed()
                self.since = max(self.since, self.run.last.get(WHO.get(), 0))

        return one_after_the_other

    async def read(self) -> Any:
        since = self.since
        record = await self.storage.read(self.id)
        assert record in self.run.history[since:]
        return record

    hot_read = read

    async def miss(self) -> None:
        evict(self.id)
        await self.read()

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
            assert run_sync(self.Store.storage.read(self.id)) == self.run.committed()


def evict(id: str) -> None:
    redis.SessionStore.storage.client.delete(copies._key(id))


def pairs() -> Iterator[tuple[int, tuple[str, str]]]:
    yield from product(range(TIMES), product(DEEDS, repeat=2))


@contextmanager
def watched(Store: Any, run: Steps, number: int, pair: tuple[str, str]) -> Iterator[Watched]:
    """A session that is copied where one of both reads a copy, is not where one of both misses, and else every other
    time."""
    found = Watched(Store, run)
    if "hot_read" in pair or ("miss" not in pair and number % 2):
        run_sync(Store.storage.read(found.id))
    try:
        yield found
    except AssertionError as error:
        error.add_note(f"{pair[0]} and {pair[1]}, number {number}")
        raise
    found.settled()


def race(Store: Any, run: Steps, chance: random.Random, number: int, pair: tuple[str, str], lose: Any = None) -> None:
    with watched(Store, run, number, pair) as session:
        requests = [session.after(getattr(session, deed), session.read) for deed in pair]
        if lose:
            requests.append(session.after(lambda: lose(session)))
        run.run(requests, [0, *(chance.randrange(len(requests)) for _ in range(16))])


def races(Store: Any, run: Steps, chance: random.Random, lose: Any = None) -> None:
    for number, pair in pairs():
        race(Store, run, chance, number, pair, lose)


def test_whoever_begins_later_sees_no_older_state(Store, run):
    races(Store, run, random.Random(1))


def test_the_loss_of_the_cache_at_any_step_loses_nothing(Store, run):
    """Eviction, FLUSHALL, a restart without data: what was there is not there any more."""
    chance, client = random.Random(2), redis.SessionStore.storage.client

    async def lose(session: Watched) -> None:
        for _ in range(chance.randrange(1, 4)):
            run.stop()
            client.flushall() if chance.randrange(2) else evict(session.id)

    races(Store, run, chance, lose)


class RolledBackError(Exception):
    pass


def in_a_transaction(session: Watched, deed: str, level: str, rolls_back: bool) -> Any:
    """The deed on the synchronous interface, as a view in `atomic()` does it; what it has changed it sees itself."""
    run, within = session.run, copy.copy(session)
    within.storage = session.Store.storage

    def transact() -> None:
        within.since = session.since
        try:
            with suppress(RolledBackError, Error), transaction.atomic(using=SessionRouter.alias):
                with connections[SessionRouter.alias].cursor() as cursor:
                    cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
                    cursor.execute("SELECT 1 FROM django_multisession_session LIMIT 1")
                run.stop()
                run_sync(getattr(within, deed)())
                look_within()
                run.stop()
                if rolls_back:
                    raise RolledBackError
        finally:
            if run.holder == WHO.get():
                run.holder = None

    def look_within() -> None:
        if run.holder != WHO.get():  # nobody else can have changed it then
            return run_sync(within.read())
        with connections[SessionRouter.alias].cursor() as cursor:
            cursor.execute("SELECT version FROM django_multisession_session WHERE session_id = %s", [session.id])
            row = cursor.fetchone()
        record = run_sync(within.storage.read(session.id))
        assert (record and record.version) == (row and row[0])

    if run.workers[0].face == "async":
        return sync_to_async(transact)

    async def plainly() -> None:
        transact()

    return plainly


def race_of_a_transaction(
    Store: Any, run: Steps, chance: random.Random, number: int, pair: tuple[str, str], way: tuple[str, bool]
) -> None:
    """The first deed of the pair in a transaction, beside the second and two reads."""
    with watched(Store, run, number, pair) as session:
        deeds = in_a_transaction(session, pair[0], *way), getattr(session, pair[1]), session.read
        run.run([session.after(deed, session.read) for deed in deeds], [0, *(chance.randrange(3) for _ in range(24))])


def races_of_transactions(Store: Any, run: Steps, chance: random.Random) -> None:
    ways = list(product(LEVELS, [False, True]))
    for at, (number, pair) in enumerate(pairs()):
        race_of_a_transaction(Store, run, chance, number, pair, ways[(at + number) % len(ways)])


def test_nothing_uncommitted_and_no_older_snapshot_is_cached(Store, run):
    """On each level, where the transaction commits and where it is rolled back."""
    races_of_transactions(Store, run, random.Random(4))


async def _does_nothing(self: Any, keys: Any) -> None: ...


UNPROTECTED: dict[str, tuple[tuple[Any, str, Any], ...]] = {
    "lease": (
        (copies, "FILL", "redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1"),
        (copies, "SHA", defaultdict(lambda: "0" * 40)),
    ),
    "word": ((copies.Copies, "_forget", _does_nothing),),
    "snapshot": ((transactions, "EACH_ITS_SNAPSHOT", [level.lower() for level in LEVELS]),),
    "own reads": ((transactions, "has_changed", lambda alias, id: False),),
    "commit": ((transactions, "in_transaction", lambda alias: False),),
}


@pytest.mark.parametrize("protection", UNPROTECTED)
def test_the_interleavings_find_what_would_be_wrong(Store, run, monkeypatch, protection):
    """Each part of the protocol is taken away in turn: a test above must fail then."""
    for where, name, instead in UNPROTECTED[protection]:
        monkeypatch.setattr(where, name, instead)
    chance = random.Random(3)
    with pytest.raises(AssertionError):
        races_of_transactions(Store, run, chance) if protection not in ("lease", "word") else races(Store, run, chance)
