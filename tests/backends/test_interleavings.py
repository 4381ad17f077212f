"""Promise 2, forced: whatever the order of the verbs of a save, a touch and a log-out, the session stays gone."""

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.contrib.sessions.backends.base import UpdateError
from django.test import override_settings

from django_multisession.records import identify
from django_multisession.testing.stored import saved, stored

from ..conftest import ENGINES
from ..interleaving import interleave_async, interleave_sync, so_many

TIMES = 1000  # interleavings for each engine and face, or `so_many`
BATCH = 50

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _touch_at_once() -> Iterator[None]:
    with override_settings(MULTISESSION_TOUCH_AFTER=0):
        yield


@pytest.fixture(params=list(ENGINES))
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_log_out_wins_whatever_the_order(Store, face, verbs, engine_name):
    chance = random.Random(1)
    for _ in range(so_many(TIMES, engine_name) // BATCH):
        keys = [saved(face, Store, a=1, _auth_user_id="9") for _ in range(BATCH)]
        came_through = [race(Store, face, key, chance.choice([write, touch, rewrite]), log_out, chance) for key in keys]
        assert 0 < sum(came_through) < BATCH  # either came first at times
        assert verbs.scan(None, BATCH) == []
        assert verbs.of_user("9") == []


def test_a_cycled_key_stays_gone_whatever_the_order(Store, face, verbs, engine_name):
    chance = random.Random(2)
    for _ in range(so_many(TIMES, engine_name) // 4):
        key = saved(face, Store, a=1)
        race(Store, face, key, chance.choice([write, touch, rewrite]), cycle, chance)
        assert verbs.read(identify(key)) is None


def test_a_log_out_while_the_key_is_cycled_leaves_no_copy(Store, face, verbs, engine_name):
    """Nothing is left of a session that the log-out had found, also where its key was cycled before it was removed."""
    chance, came_through, found = random.Random(3), [], []

    async def log_out_of_what_is_found(session: Any, storage: Any) -> None:
        found.append(session.session_key is not None)
        await log_out(session, storage)

    for _ in range(so_many(TIMES, engine_name) // 4):
        key = saved(face, Store, a=1, _auth_user_id="9")
        came_through.append(race(Store, face, key, cycle, log_out_of_what_is_found, chance))
        assert [record.user_id for record in verbs.scan(None, BATCH)] == ["9"] * (not found[-1])
        for record in verbs.scan(None, BATCH):
            verbs.remove([record.id])
    assert 0 < sum(came_through) < len(came_through)
    assert 0 < sum(found) < len(found)


def test_two_saves_keep_both_changes_whatever_the_order(Store, face, engine_name):
    chance = random.Random(4)
    for _ in range(so_many(TIMES, engine_name) // 10):
        key = saved(face, Store, a=1)
        race(Store, face, key, write, write_too, chance, gone=False)
        assert stored(face, Store, key) == {"a": 1, "written": True, "written too": True}


async def write_too(session: Any, storage: Any) -> None:
    session["written too"] = True
    await session._save(storage)


async def write(session: Any, storage: Any) -> None:
    session["written"] = True
    await session._save(storage)


async def touch(session: Any, storage: Any) -> None:
    await session._save(storage)


async def rewrite(session: Any, storage: Any) -> None:
    session.clear()
    await session._save(storage)


async def log_out(session: Any, storage: Any) -> None:
    session.clear()
    await session._delete(storage)


async def cycle(session: Any, storage: Any) -> None:
    await session._cycle_key(storage)


def race(Store: Any, face: Any, key: str, change: Any, end: Any, chance: random.Random, gone: bool = True) -> bool:
    """Interleave two requests of one session, verb by verb; `True` if the change came through."""
    saves = []

    async def changing(storage: Any) -> None:
        session = await loaded(storage)
        if session.session_key is None:
            return  # it came second and found nothing: a new session then, of no interest here
        with suppress(UpdateError):
            await change(session, storage)
            saves.append(session)

    async def ending(storage: Any) -> None:
        await end(await loaded(storage), storage)

    async def loaded(storage: Any) -> Any:
        session = Store(key)
        await session._data(storage)
        return session

    async def on_the_loop() -> None:
        await interleave_async(Store.astorage, [changing, ending], order)

    order = [chance.randrange(2) for _ in range(12)]
    if face.name == "sync":
        interleave_sync(Store.storage, [changing, ending], order)
    else:
        face.runner.run(on_the_loop())
    assert face(Store()).exists(key) is not gone
    return bool(saves)
