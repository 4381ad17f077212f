"""A take-over, forced between the steps of everything else that a request may do with the same session.

Each step is a verb of `to`, or one of the old side. Whatever the order: what was ended stays ended, what was saved is
there, and one side alone has the session.
"""

import dataclasses
import random
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.sessions.backends.base import UpdateError

from django_multisession import engine
from django_multisession.records import identify
from django_multisession.twins import ASYNC, SYNC, run_sync
from django_multisession.user_sessions import ending
from tests.interleaving import THOROUGHLY, Stepwise, interleave_async, interleave_sync

from .conftest import saved_on

TIMES = 1000 if THOROUGHLY else 40  # for each pair, engine and face
COMBINATIONS = [
    ("db", "memory"), ("cache", "memory"), ("file", "memory"), ("ours", "memory"),
    ("db", "redis"), ("cache", "redis"), ("django-redis", "redis"), ("cached_db", "redis"),
    ("db", "mongodb"), ("cache", "sqlite"), ("db", "postgres"), ("ours", "postgres"),
]  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(params=COMBINATIONS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def names(request):
    return request.param


@pytest.fixture
def old_name(names):
    return names[0]


@pytest.fixture
def new_name(names):
    return names[1]


class SteppingOld(Stepwise):
    """The old side, of which what it is can be asked without a step."""

    def __getattr__(self, name: str) -> Any:
        if name in ("foreign", "listed", "can_ask", "storage"):
            return getattr(self._storage, name)
        return super().__getattr__(name)


class Request:
    """A request of one session, on a server in a phase; `storage` stops before each step."""

    def __init__(self, site: Any, face: Any, phase: str, key: str) -> None:
        self.Store, self.face = site.at(phase), ASYNC if face.name == "async" else SYNC
        self.session, self.key = self.Store(key), key
        self.session._face = self.face

    def over(self, stepwise: Any) -> Any:
        """The session's storage, each side of it stopping as `stepwise` does."""
        storage = getattr(self.session, self.face.storage)
        stop = stepwise._stop
        return dataclasses.replace(
            storage, to=Stepwise(storage.to, stop), old=SteppingOld(storage.old, stop), sync=None
        )


def together(face: Any, requests: list[Any], chance: random.Random) -> None:
    order = [chance.randrange(2) for _ in range(40)]
    if face.name == "sync":
        interleave_sync(None, requests, order)
    else:

        async def on_the_loop() -> None:
            await interleave_async(None, requests, order)

        face.runner.run(on_the_loop())


# What the other request does; "came through" is what it notes.


async def load(request, storage):
    return await request.session._data(storage)


async def save(request, storage):
    await request.session._data(storage)
    request.session["written"] = True
    await request.session._save(storage)


async def touch(request, storage):
    await request.session._data(storage)
    request.session.set_expiry(100_000)
    await request.session._save(storage)


async def log_out(request, storage):
    await request.session._data(storage)
    request.session.clear()
    await request.session._delete(storage)


async def log_out_unloaded(request, storage):
    await request.session._delete(storage)


async def cycle(request, storage):
    await request.session._data(storage)
    await request.session._cycle_key(storage)


async def revoke(request, storage):
    """As `revoke()`, by the id in a list, which knows no key."""
    await storage.remove([identify(request.key)])


async def revoke_all(request, storage):
    with without_keys(storage):
        await ending.end_all(SYNC, "9", "revoked", lambda record: False)


def without_keys(storage):
    return override_storage(dataclasses.replace(storage, keys=type(storage.keys)()))


class override_storage:
    def __init__(self, storage):
        self.storage = storage

    def __enter__(self):
        self.kept, engine.storage = engine.storage, lambda face: self.storage

    def __exit__(self, *exception):
        engine.storage = self.kept


async def password(request, storage):
    with without_keys(storage):
        await ending.end_all(SYNC, "9", "password", lambda record: False)


async def limit(request, storage):
    """What a newer log-in evicts, it has from a list: so it is there only if it has been moved."""
    from django_multisession.user_sessions import lifecycle

    bare = dataclasses.replace(storage, keys=type(storage.keys)())
    found = [record for record in await bare.of_user("9") if record.id == identify(request.key)]
    request.evicted = bool(found)
    await lifecycle.end(SYNC, bare, found, lifecycle.LIMIT)


ENDS = {"log_out": log_out, "log_out_unloaded": log_out_unloaded, "revoke": revoke, "revoke_all": revoke_all}
GOES_ON = {"load": load, "save": save, "touch": touch}
DATA = {"a": 1, "_auth_user_id": "9", "_login_at": 1_000_000_000}


def exists(site, face, key, phase="move"):
    return face(site.at(phase)()).exists(key)


def owners(site, key):
    return [site.is_old(key), site.is_new(key)]


def move_and(site, face, chance, names, deed, phases):
    """Pairs of a take-over and a deed, in random orders; yields each afterwards."""
    for _ in range(TIMES):
        key = saved_on(site.old, **DATA)
        mover, other = Request(site, face, "move", key), Request(site, face, chance.choice(phases), key)
        errors = []

        async def moving(stepwise, mover=mover):
            await mover.session._data(mover.over(stepwise))

        async def doing(stepwise, other=other, errors=errors):
            try:
                await deed(other, other.over(stepwise))
            except UpdateError as error:
                errors.append(error)

        together(face, [moving, doing], chance)
        yield SimpleNamespace(key=key, mover=mover.session, other=other.session, errors=errors, request=other)


@pytest.mark.parametrize("deed", GOES_ON.values(), ids=GOES_ON)
def test_nothing_live_is_lost(site, face, names, deed):
    chance = random.Random(1)
    for pair in move_and(site, face, chance, names, deed, ["prepare", "move"]):
        assert pair.errors == []
        assert (pair.mover.session_key, pair.other.session_key) == (pair.key, pair.key)
        assert owners(site, pair.key) == [False, True]
        data = site.new(pair.key).load()
        assert {**data, **DATA} == data
        assert data.get("written", False) is (deed is save)
        assert ("_session_expiry" in data) is (deed is touch)


@pytest.mark.parametrize("deed", ENDS.values(), ids=ENDS)
def test_nothing_ended_comes_back(site, face, names, deed):
    chance = random.Random(2)
    for pair in move_and(site, face, chance, names, deed, ["prepare", "move"]):
        for phase in ("prepare", "move", "back"):
            if (deed is revoke_all) and phase != "move":
                continue  # what is used on the old side cannot be found there: it is not taken over
            assert exists(site, face, pair.key, phase) is False
        assert exists(site, face, pair.key) is False
        assert not site.is_new(pair.key)


def test_a_password_ends_it_unless_it_is_that_of_today(site, face, names, monkeypatch):
    chance = random.Random(3)
    monkeypatch.setattr("django_multisession.user_sessions.rotation._is_accepted", lambda log_in: False)
    monkeypatch.setitem(DATA, "_auth_user_hash", "x")
    monkeypatch.setitem(DATA, "_auth_user_backend", "x")
    for pair in move_and(site, face, chance, names, password, ["prepare", "move"]):
        assert exists(site, face, pair.key) is False


def test_a_limit_ends_what_it_finds(site, face, names):
    chance, evicted = random.Random(4), set()
    for pair in move_and(site, face, chance, names, limit, ["prepare", "move"]):
        assert exists(site, face, pair.key) is not pair.request.evicted
        evicted.add(pair.request.evicted)
        if not pair.request.evicted:
            assert owners(site, pair.key) == [False, True]


def test_a_cycled_key_is_dead_and_its_session_lives_once(site, face, names):
    chance = random.Random(5)
    for pair in move_and(site, face, chance, names, cycle, ["prepare", "move"]):
        assert pair.errors == []
        assert exists(site, face, pair.key) is False
        new_key = pair.other.session_key
        assert new_key != pair.key
        assert exists(site, face, new_key)
        assert {**DATA, **face(site.at("move")(new_key)).load()} == DATA
        assert owners(site, new_key) == [False, True]
        assert not site.is_old(pair.key)


def test_two_movers_and_one_session(site, face, names):
    chance = random.Random(6)
    for pair in move_and(site, face, chance, names, load, ["move"]):
        assert pair.mover._session_cache == pair.other._session_cache == DATA
        assert owners(site, pair.key) == [False, True]


def test_handing_back_and_everything_else(site, face, names):
    """`move` and `back` side by side: the session is wherever the last one has put it, and whole."""
    chance = random.Random(7)
    for _ in range(TIMES):
        key = saved_on(site.at("move"), **DATA)
        requests = [Request(site, face, phase, key) for phase in ("back", chance.choice(["move", "back"]))]

        async def go(stepwise, request, name):
            storage = request.over(stepwise)
            await request.session._data(storage)
            request.session[name] = 1
            await request.session._save(storage)

        both = [lambda stepwise, r=r, n=n: go(stepwise, r, n) for r, n in zip(requests, "xy", strict=True)]
        together(face, both, chance)
        data = face(site.at("move")(key)).load()
        assert {**data, **DATA} == data
        if requests[1].Store._plan().phase == "move" or site.old_is_ours:
            assert (data["x"], data["y"]) == (1, 1)


@pytest.mark.parametrize("deed", [log_out, log_out_unloaded], ids=lambda deed: deed.__name__)
def test_handing_back_brings_nothing_back(site, face, names, deed):
    chance = random.Random(8)
    for _ in range(TIMES):
        key = saved_on(site.at("move"), **DATA)
        requests = [Request(site, face, "back", key), Request(site, face, chance.choice(["move", "back"]), key)]

        async def back(stepwise, request=requests[0]):
            storage = request.over(stepwise)
            await request.session._data(storage)
            with suppress(UpdateError):
                request.session["x"] = 1
                await request.session._save(storage)

        async def end(stepwise, request=requests[1]):
            await deed(request, request.over(stepwise))

        together(face, [back, end], chance)
        for phase in ("prepare", "move", "back"):
            assert exists(site, face, key, phase) is False


def test_the_steps_are_forced(site, face, names):
    """That each side stops: without it the tests above would show nothing."""
    key = saved_on(site.old, **DATA)
    steps = []

    async def stop():
        steps.append(1)

    request = Request(site, face, "move", key)

    async def loading():
        await request.session._data(request.over(Stepwise(None, stop)))

    (face.runner.run if face.name == "async" else run_sync)(loading())
    assert len(steps) >= 9
