"""List and end the sessions of a user: on every engine, on both faces, and whatever happens meanwhile."""

import asyncio
import dataclasses
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from threading import Barrier
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.base import UpdateError
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.test import override_settings
from django.utils import timezone

from django_multisession import engine as session_engine
from django_multisession import user_sessions
from django_multisession.payload import codecs
from django_multisession.records import identify, utcnow
from django_multisession.testing.stored import a_record, close_connections, saved, stored
from django_multisession.twins import ASYNC, SYNC
from django_multisession.user_sessions import Repaired, Revoked, lifecycle, passes
from django_multisession.user_sessions import ending as user_sessions_ending
from example_project.servers import RedisServer

from ..conftest import ENGINES
from ..interleaving import interleave_async, interleave_sync

USER = "_auth_user_id"
ANN, BOB = "1", "2"
LOGINS = 50
HOUR = 3600


@pytest.fixture(params=[*ENGINES, "cached_sqlite"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def api(face: Any) -> Any:
    """`user_sessions`, its functions those of the face."""
    return face.functions(user_sessions)


@pytest.fixture
def sign_in(face: Any, Store: Any) -> Callable[..., str]:
    """Store a session of a user, and return its key."""
    return lambda user_id=ANN, **data: saved(face, Store, **{USER: user_id, **data})


def request_of(Store: Any, key: str | None) -> Any:
    """A request whose session is loaded, as it is by `request.user`."""
    session = Store(key)
    session.get("")
    return SimpleNamespace(session=session)


def handles(keys: Any) -> set[str]:
    return {lifecycle.handle(identify(key)) for key in keys}


class TestList:
    def test_it_has_the_users_sessions_and_nobody_elses(self, Store, face, api, sign_in):
        mine = {sign_in(ANN), sign_in(ANN)}
        sign_in(BOB)
        saved(face, Store, a=1)
        assert {session.id for session in api.sessions_of(ANN)} == handles(mine)
        assert api.count(ANN) == 2
        assert api.sessions_of("3") == []
        assert api.count("3") == 0

    def test_an_anonymous_session_is_never_listed(self, Store, face, api):
        for data in ({"a": 1}, {USER: ""}, {USER: None}):
            saved(face, Store, **data)
        session = face(Store(saved(face, Store, a=1)))
        session[USER] = ANN
        session.save()
        assert {each.id for each in api.sessions_of(ANN)} == handles([session.session_key])
        session.clear()
        session.save()
        assert api.sessions_of(ANN) == []
        assert api.revoke_everyone() == 0

    def test_the_newest_activity_comes_first(self, Store, face, api, sign_in, clock):
        keys = []
        for _ in range(3):
            keys.append(sign_in())
            clock.shift(HOUR)
        assert [session.id for session in api.sessions_of(ANN)] == [next(iter(handles([key]))) for key in keys[::-1]]
        face(Store(keys[0])).save()
        first = api.sessions_of(ANN)[0]
        assert {first.id} == handles(keys[:1])

    def test_last_seen_comes_with_the_touches(self, Store, face, api, sign_in, clock, verbs):
        key = sign_in()
        [before] = api.sessions_of(ANN)
        clock.shift(30)
        face(Store(key)).save()
        assert api.sessions_of(ANN) == [before]
        clock.shift(31)
        face(Store(key)).save()
        [after] = api.sessions_of(ANN)
        assert after.last_seen >= before.last_seen + timedelta(seconds=61)
        assert after.created_at == before.created_at
        assert verbs.read(identify(key)).version == 1

    def test_times_are_those_of_the_record(self, api, sign_in, verbs):
        record = verbs.read(identify(sign_in()))
        [session] = api.sessions_of(ANN)
        assert (session.created_at, session.last_seen, session.expires_at) == (
            record.created_at,
            record.updated_at,
            record.expires_at,
        )

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_times_are_local_without_time_zones(self, api, sign_in):
        sign_in()
        [aware] = api.sessions_of(ANN)
        with override_settings(USE_TZ=False, TIME_ZONE="Asia/Kolkata"):
            [naive] = api.sessions_of(ANN)
            assert timezone.make_aware(naive.created_at) == aware.created_at
        assert naive.created_at.tzinfo is None

    def test_what_is_over_a_limit_is_not_listed_but_ended(self, api, sign_in, clock, verbs):
        sign_in()
        clock.shift(2 * HOUR)
        sign_in()
        with override_settings(MULTISESSION_ABSOLUTE_AGE=HOUR):
            [session] = api.sessions_of(ANN)
            assert session.expires_at == session.created_at + timedelta(seconds=HOUR)
            assert api.count(ANN) == 1
            assert api.revoke_all(ANN).ended == 2
        assert verbs.of_user(ANN) == []

    def test_the_requests_own_is_marked(self, Store, face, api, sign_in):
        own, other = sign_in(), sign_in()
        sessions = api.sessions_of(ANN, face.run(request_of, Store, own))
        assert {session.id for session in sessions if session.is_current} == handles([own])
        assert {session.id for session in sessions if not session.is_current} == handles([other])
        assert sessions.complete

    @pytest.mark.parametrize("engine_name", ["memory"])
    @pytest.mark.parametrize("request_", [None, SimpleNamespace(), SimpleNamespace(session=None)], ids=repr)
    def test_no_request_marks_none(self, api, sign_in, request_):
        sign_in()
        assert [session.is_current for session in api.sessions_of(ANN, request_)] == [False]

    def test_a_handle_is_no_key(self, Store, face, api, sign_in):
        key = sign_in()
        [session] = api.sessions_of(ANN)
        assert len(session.id) == 16
        assert session.id not in identify(key)
        assert not face(Store(session.id)).exists(session.id)
        assert stored(face, Store, session.id) == {}
        with override_settings(SECRET_KEY="another"):
            assert {session.id} != handles([key])

    def test_a_session_that_cannot_be_read_is_listed_and_ended(self, api, sign_in, verbs, caplog):
        key = sign_in(_client={"ip": "192.0.2.1", "user_agent": "curl"})
        record = verbs.read(identify(key))
        authentic = codecs.close(codecs.Serialized(codecs.JSON, b"junk"), record.id)
        verbs.replace(dataclasses.replace(record, payload=authentic, version=2))
        [session] = api.sessions_of(ANN)
        assert (session.ip, session.user_agent, session.device) == (None, None, None)
        assert api.revoke(ANN, session.id)

    @pytest.mark.parametrize("engine_name", ["memory"])
    @pytest.mark.parametrize("client", [None, "a text", [], {}, {"ip": None}])
    def test_a_client_that_somebody_else_has_written(self, api, sign_in, client):
        sign_in(_client=client)
        assert [session.ip for session in api.sessions_of(ANN)] == [None]

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_a_user_session_cannot_be_changed(self, api, sign_in):
        sign_in()
        with pytest.raises(dataclasses.FrozenInstanceError):
            api.sessions_of(ANN)[0].ip = "192.0.2.1"


class Ticket(models.Model):
    """A "user" whose primary key is a UUID."""

    id = models.UUIDField(primary_key=True)

    class Meta:
        app_label = "auth"
        managed = False

    def __str__(self) -> str:
        return str(self.id)


@pytest.mark.parametrize("engine_name", ["memory"])
class TestUser:
    @pytest.mark.parametrize("user", [1, "1", "01", " 1"], ids=repr)
    def test_a_primary_key_in_any_form(self, api, sign_in, user):
        sign_in(ANN)
        assert api.count(user) == 1

    def test_a_user(self, api, sign_in):
        sign_in(ANN)
        assert api.count(get_user_model()(pk=1)) == 1

    def test_a_user_with_another_kind_of_key(self, api, sign_in):
        key = UUID(int=7)
        sign_in(str(key))
        assert api.count(Ticket(id=key)) == 1
        assert api.count(Ticket(id=key.hex)) == 1

    @pytest.mark.parametrize("user", ["ann", "1; DROP", "é" * 300, object()], ids=["name", "sql", "long", "object"])
    def test_nobody(self, api, sign_in, user):
        sign_in(ANN)
        assert api.sessions_of(user) == []
        assert api.revoke_all(user) == Revoked(0)

    @pytest.mark.parametrize(
        "user", [None, "", AnonymousUser(), get_user_model()()], ids=["None", "empty", "anonymous", "unsaved"]
    )
    def test_who_has_no_primary_key(self, Store, api, user):
        for call in (api.sessions_of, api.count, api.revoke_all, lambda user: api.revoke(user, "x")):
            with pytest.raises(ValueError, match="no primary key"):
                call(user)

    @pytest.mark.parametrize("engine", ["cache", "db", "signed_cookies"])
    def test_another_packages_engine(self, Store, api, engine):
        with (
            override_settings(SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}"),
            pytest.raises(ImproperlyConfigured, match="cannot list the sessions of a user"),
        ):
            api.sessions_of(ANN)


@pytest.mark.parametrize("user", ["a\0b", "\udcff", float("inf")], ids=["NUL", "surrogate", "inf"])
def test_a_user_of_whom_some_servers_cannot_be_asked(api, sign_in, user):
    sign_in(ANN)
    assert api.sessions_of(user) == []
    assert api.revoke_all(user) == Revoked(0)
    assert api.revoke(user, "x") is False


class TestRevoke:
    def test_one(self, Store, face, api, sign_in):
        gone, stays = sign_in(), sign_in()
        [handle] = handles([gone])
        assert api.revoke(ANN, handle) is True
        assert api.revoke(ANN, handle) is False
        assert stored(face, Store, gone) == {}
        assert face(Store()).exists(stays)

    def test_nobody_elses(self, Store, face, api, sign_in):
        key = sign_in(BOB)
        [handle] = handles([key])
        assert api.revoke(ANN, handle) is False
        assert face(Store()).exists(key)

    @pytest.mark.parametrize("engine_name", ["memory"])
    @pytest.mark.parametrize("id", ["", "0" * 16, "é", "*", "x" * 10_000])
    def test_none(self, api, sign_in, id):
        sign_in()
        assert api.revoke(ANN, id) is False
        assert api.count(ANN) == 1

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_a_key_or_a_records_id_is_no_handle(self, api, sign_in):
        key = sign_in()
        assert api.revoke(ANN, key) is False
        assert api.revoke(ANN, identify(key)) is False

    def test_all(self, Store, face, api, sign_in):
        keys = [sign_in() for _ in range(3)]
        others = [sign_in(BOB), saved(face, Store, a=1)]
        assert api.revoke_all(ANN) == Revoked(3)
        assert api.revoke_all(ANN) == Revoked(0)
        assert not any(face(Store()).exists(key) for key in keys)
        assert all(face(Store()).exists(key) for key in others)

    def test_all_but_the_own(self, Store, face, api, sign_in):
        own, _ = sign_in(), sign_in()
        request = face.run(request_of, Store, own)
        assert api.revoke_all(ANN, keep=request) == Revoked(1)
        assert {session.id for session in api.sessions_of(ANN)} == handles([own])

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_a_request_of_somebody_else_keeps_nothing(self, Store, face, api, sign_in):
        sign_in()
        own = sign_in(BOB)
        assert api.revoke_all(ANN, keep=face.run(request_of, Store, own)) == Revoked(1)
        assert face(Store()).exists(own)

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_a_session_instead_of_its_request_is_an_error(self, Store, face, api, sign_in):
        own = face.run(request_of, Store, sign_in())
        for call in (lambda: api.revoke_all(ANN, keep=own.session), lambda: api.sessions_of(ANN, own.session)):
            with pytest.raises(TypeError, match="Give the request"):
                call()
        assert api.count(ANN) == 1

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_more_than_a_batch(self, api, sign_in, verbs, monkeypatch):
        monkeypatch.setattr(lifecycle, "BATCH", 2)
        for _ in range(5):
            sign_in()
        assert api.revoke_all(ANN) == Revoked(5)
        assert verbs.of_user(ANN) == []

    def test_everyone(self, Store, face, api, sign_in, monkeypatch):
        monkeypatch.setattr(passes, "PAGE", 4)
        keys = [sign_in(str(number % 3)) for number in range(20)]
        anonymous = [saved(face, Store, a=1) for _ in range(5)]
        assert api.revoke_everyone() == 20
        assert api.revoke_everyone() == 0
        assert not any(face(Store()).exists(key) for key in keys)
        assert all(face(Store()).exists(key) for key in anonymous)


class TestConcurrentLogIns:
    """All of them are listed."""

    def test_threads(self, Store):
        barrier = Barrier(LOGINS)

        def log_in(number: int) -> str:
            try:
                session = Store()
                barrier.wait(60)
                session[USER] = ANN
                session.save()
                return str(session.session_key)
            finally:
                close_connections()

        with ThreadPoolExecutor(LOGINS) as pool:
            keys = list(pool.map(log_in, range(LOGINS)))
        assert {session.id for session in user_sessions.sessions_of(ANN)} == handles(keys)

    def test_tasks(self, Store, runner):
        async def log_in(all_there: asyncio.Barrier) -> str:
            session = Store()
            await all_there.wait()
            await session.aset(USER, ANN)
            await session.asave()
            return str(session.session_key)

        async def race() -> set[str]:
            barrier = asyncio.Barrier(LOGINS)
            keys = await asyncio.gather(*(log_in(barrier) for _ in range(LOGINS)))
            assert len(set(keys)) == LOGINS
            return handles(keys)

        keys = runner.run(race())
        assert {session.id for session in runner.run(user_sessions.asessions_of(ANN))} == keys


@pytest.fixture
def lose_index(Store: Any, engine_name: str) -> Callable[..., None]:
    """What an eviction does to the index of a user's sessions; other servers than Redis keep theirs themselves."""

    def lose(user_id: str = ANN) -> None:
        if engine_name == "redis":
            assert Store.storage.client.delete(f"session:user:{user_id}") == 1

    return lose


class TestLostIndex:
    """It never turns `revoke_all()` into a silent no-op."""

    def test_revoke_all_tells_it(self, Store, face, api, sign_in, lose_index, engine_name, caplog):
        own = face.run(request_of, Store, sign_in())
        sign_in()
        lose_index()
        lost = engine_name == "redis"
        assert api.revoke_all(ANN, keep=own) == Revoked(0 if lost else 1, complete=not lost)
        assert ("repair_index" in caplog.text) is lost
        assert api.repair_index() == Repaired(2 if lost else 0)
        assert api.revoke_all(ANN, keep=own) == Revoked(1 if lost else 0)

    def test_and_so_it_does_after_a_log_in_has_made_a_new_index(
        self, Store, face, api, sign_in, lose_index, engine_name
    ):
        own = face.run(request_of, Store, sign_in())
        lose_index()
        sign_in()
        assert api.revoke_all(ANN, keep=own) == Revoked(1, complete=engine_name != "redis")

    def test_the_list_tells_it_and_has_the_own(self, Store, face, api, sign_in, lose_index, engine_name, caplog):
        key = sign_in()
        own = face.run(request_of, Store, key)
        sign_in()
        lose_index()
        sessions = api.sessions_of(ANN, own)
        assert {session.id for session in sessions if session.is_current} == handles([key])
        assert sessions.complete is (engine_name != "redis")
        assert ("repair_index" in caplog.text) is not sessions.complete

    def test_a_session_that_has_ended_meanwhile_is_no_loss(self, Store, face, api, sign_in):
        key = sign_in()
        own = face.run(request_of, Store, key)
        face(Store(key)).delete()
        assert api.revoke_all(ANN, keep=own) == Revoked(0, complete=True)

    def test_a_log_in_that_is_not_saved_yet_is_no_loss(self, Store, face, api):
        own = SimpleNamespace(session=Store())
        session = face(own.session)
        session.create()
        session[USER] = ANN
        assert api.revoke_all(ANN, keep=own).complete is not False
        assert api.sessions_of(ANN, own).complete is not False
        session.save()
        assert api.sessions_of(ANN, own).complete

    def test_after_a_log_out_nothing_is_missing(self, Store, face, api, sign_in):
        own = face.run(request_of, Store, sign_in())
        face(own.session).flush()
        assert api.sessions_of(ANN, own) == []
        assert api.sessions_of(ANN, own).complete is not False
        assert api.revoke_all(ANN) == Revoked(0)  # the index is there, so nothing was lost

    def test_without_an_own_request_nothing_is_called_complete(self, api, sign_in, lose_index, engine_name):
        sign_in()
        assert api.sessions_of(ANN).complete is True
        lose_index()
        lost = engine_name == "redis"
        assert api.sessions_of(ANN).complete is (None if lost else True)
        assert api.revoke_all(ANN) == (Revoked(0, complete=None) if lost else Revoked(1))
        assert api.repair_index(ANN) == Repaired(1 if lost else 0)
        assert api.revoke_all(ANN) == Revoked(1 if lost else 0)

    def test_who_never_signed_in_looks_like_it(self, Store, api, engine_name):
        assert api.revoke_all(ANN) == Revoked(0, complete=None if engine_name == "redis" else True)
        assert api.sessions_of(ANN).complete is (None if engine_name == "redis" else True)

    @pytest.mark.parametrize("engine_name", ["redis"])
    def test_a_server_that_has_evicted_keys(self, Store, face, api):
        """An index that a log-in has made anew has some sessions only, and nothing else would tell."""
        with (
            RedisServer("--maxmemory", "20mb", "--maxmemory-policy", "allkeys-random") as server,
            override_settings(MULTISESSION_REDIS=server.url),
        ):
            saved(face, Store, **{USER: ANN})
            client = Store.storage.client
            for number in range(40):
                client.set(f"junk:{number}", b"x" * 1_000_000)
            assert client.info("stats")["evicted_keys"] > 0
            saved(face, Store, **{USER: ANN})
            revoked = api.revoke_all(ANN)
        assert (revoked.ended > 0, revoked.complete) == (True, None)

    @pytest.mark.parametrize("engine_name", ["redis"])
    def test_a_server_that_does_not_say_whether_it_has(self, Store, api, sign_in):
        sign_in()
        client = Store.storage.client
        client.acl_setuser("mute", enabled=True, nopass=True, keys="*", commands=["+@all", "-info"])
        address = client.connection_pool.connection_kwargs
        with override_settings(
            MULTISESSION_REDIS=f"redis://mute:x@{address['host']}:{address['port']}/{address['db']}"
        ):
            assert api.revoke_all(ANN) == Revoked(1, complete=None)
        client.acl_deluser("mute")

    def test_the_repair_can_be_resumed(self, api, sign_in, lose_index, engine_name, monkeypatch):
        monkeypatch.setattr(passes, "PAGE", 5)
        for _ in range(40):
            sign_in()
        lose_index()
        steps = [api.repair_index(pages=1)]
        while steps[-1].next is not None:
            steps.append(api.repair_index(after=steps[-1].next, pages=1))
        assert sum(step.indexed for step in steps) == (40 if engine_name == "redis" else 0)
        assert len(steps) > 3 or engine_name != "redis"
        assert api.count(ANN) == 40
        assert api.repair_index() == Repaired(0)

    def test_the_repair_can_be_for_one_user(self, api, sign_in, lose_index, engine_name):
        sign_in(ANN)
        sign_in(BOB)
        lose_index(ANN)
        lose_index(BOB)
        assert api.repair_index(BOB) == Repaired(1 if engine_name == "redis" else 0)
        assert api.count(BOB) == 1
        assert api.count(ANN) == (0 if engine_name == "redis" else 1)

    def test_activity_heals_it(self, Store, face, api, sign_in, lose_index, settings):
        key = sign_in()
        lose_index()
        settings.SESSION_COOKIE_AGE += 3 * HOUR  # Redis: the index is written when the expiry passes its hour
        face(Store(key)).save()
        assert api.count(ANN) == 1

    @pytest.mark.parametrize("engine_name", ["redis"])
    def test_the_repair_does_not_shorten_the_life_of_an_index(self, Store, face, api, sign_in):
        sign_in()
        client = Store.storage.client
        before = client.pexpiretime(f"session:user:{ANN}")
        verbs = face.verbs(Store)
        [record] = verbs.of_user(ANN)
        assert verbs.index([dataclasses.replace(record, expires_at=utcnow() + timedelta(minutes=1))]) == 0
        assert verbs.index([a_record()]) == 0  # anonymous
        assert client.pexpiretime(f"session:user:{ANN}") == before

    @pytest.mark.parametrize("engine_name", ["redis"])
    def test_an_index_outlives_what_it_lists(self, Store, face, sign_in, clock):
        """Whatever order long and short sessions come in, and after touches and changes of the expiry."""
        client = Store.storage.client
        chance = random.Random(1)
        keys = [sign_in() for _ in range(5)]
        for _ in range(30):
            clock.shift(chance.choice([0, 70, 2 * HOUR]))
            session = face(Store(chance.choice(keys)))
            if chance.random() < 0.5:
                session.set_expiry(chance.choice([100_000, HOUR * 24, HOUR * 24 * 30]))
            session.save()
            ends = [client.pexpiretime(f"session:{identify(key)}") for key in keys]
            assert client.pexpiretime(f"session:user:{ANN}") >= max(ends)


class TestRaces:
    """Forced: whatever the order of the verbs of two requests."""

    TIMES = 60

    @pytest.fixture
    def race(self, Store, face, monkeypatch, verbs) -> Callable[..., None]:
        chance = random.Random(5)

        def race(change: Any, end: Any) -> None:
            order = [chance.randrange(2) for _ in range(12)]

            async def ending(storage: Any) -> None:
                with monkeypatch.context() as patch:
                    patch.setattr(session_engine, "storage", lambda face: storage)
                    await end(SYNC if face.name == "sync" else ASYNC)

            async def on_the_loop() -> None:
                await interleave_async(Store.astorage, [change, ending], order)

            if face.name == "sync":
                interleave_sync(Store.storage, [change, ending], order)
            else:
                face.runner.run(on_the_loop())

        return race

    @pytest.fixture(autouse=True)
    def _touch_at_once(self) -> Iterator[None]:
        with override_settings(MULTISESSION_TOUCH_AFTER=0):
            yield

    @pytest.mark.slow
    @pytest.mark.parametrize("how", ["all", "one"])
    def test_what_is_in_flight_does_not_undo_a_revocation(self, Store, face, sign_in, race, verbs, how):
        for number in range(self.TIMES):
            key = sign_in()

            async def change(storage: Any, key: str = key, number: int = number) -> None:
                session = Store(key)
                await session._data(storage)
                if session.session_key is None:
                    return
                if number % 3:
                    session[f"key{number}"] = number
                with suppress(UpdateError):
                    await (session._cycle_key if number % 3 == 2 else session._save)(storage)

            async def end(face: Any, key: str = key) -> None:
                if how == "all":
                    await user_sessions_ending.revoke_all(face, ANN, None)
                else:
                    await user_sessions_ending.revoke(face, ANN, lifecycle.handle(identify(key)))

            race(change, end)
            assert verbs.read(identify(key)) is None
            left = verbs.scan(None, 10)  # of a key that was cycled before it was looked for
            assert len(left) <= (number % 3 == 2)
            assert {record.id for record in verbs.of_user(ANN)} == {record.id for record in left}
            if how == "all":
                assert left == [] or number % 3 == 2
            verbs.remove([record.id for record in left])

    @pytest.mark.slow
    def test_a_log_in_meanwhile_is_revoked_or_listed(self, Store, face, sign_in, race, verbs):
        listed = []
        for _ in range(self.TIMES):
            sign_in()

            async def log_in(storage: Any) -> None:
                session = Store()
                session["cart"] = 1
                await session._save(storage)
                await session._cycle_key(storage)
                session[USER] = ANN
                await session._save(storage)

            async def end(face: Any) -> None:
                await user_sessions_ending.revoke_all(face, ANN, None)

            race(log_in, end)
            left = verbs.scan(None, 10)
            assert {record.id for record in verbs.of_user(ANN)} == {record.id for record in left if record.user_id}
            listed.append(len(left))
            verbs.remove([record.id for record in left])
        assert set(listed) <= {0, 1}

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_log_ins_without_end_do_not_keep_it_for_ever(self, Store, api, sign_in, monkeypatch):
        """Each time that it looks there is one more. It gives up after a while."""
        original = type(Store.storage).of_user

        async def of_user(self: Any, user_id: str) -> Any:
            saved(lambda store: store, Store, **{USER: user_id})
            return await original(self, user_id)

        monkeypatch.setattr(type(Store.storage), "of_user", of_user)
        assert api.revoke_all(ANN).ended == user_sessions_ending.ROUNDS
        monkeypatch.undo()
        assert api.count(ANN) == 0
