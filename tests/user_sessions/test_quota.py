"""`MULTISESSION_MAX_PER_USER`: it holds whoever signs in with whom, on every engine and both faces."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.serializers import JSONSerializer
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db import transaction
from django.test import AsyncClient, Client, override_settings

from django_multisession import user_sessions
from django_multisession.exceptions import TooManySessions
from django_multisession.payload import codecs
from django_multisession.records import identify, utcnow
from django_multisession.testing.stored import a_record, close_connections, saved, stored
from django_multisession.twins import SYNC, run_sync
from django_multisession.user_sessions import quota
from django_multisession.user_sessions.lifecycle import handle

from ..browsers import AUTH, DJANGOS, OURS, new_user
from ..conftest import CACHED, ENGINES
from ..routers import SessionRouter

USER = "_auth_user_id"
ANN = "1"
LOGINS, LIMIT = 50, 3


@pytest.fixture(params=[*ENGINES, "cached_sqlite"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _limited() -> Iterator[None]:
    with override_settings(MULTISESSION_MAX_PER_USER=LIMIT):
        yield


@pytest.fixture
def refusing() -> Iterator[None]:
    with override_settings(MULTISESSION_ON_MAX="refuse"):
        yield


@pytest.fixture
def sign_in(face: Any, Store: Any) -> Callable[..., str]:
    return lambda user_id=ANN, **data: saved(face, Store, **{USER: user_id, **data})


def keys_left(face: Any, Store: Any, keys: Any) -> list[str]:
    return [key for key in keys if face(Store()).exists(key)]


class TestEvict:
    def test_the_oldest_go(self, Store, face, sign_in, clock):
        keys = []
        for _ in range(5):
            keys.append(sign_in())
            clock.shift(60)
        assert keys_left(face, Store, keys) == keys[2:]

    def test_the_oldest_is_that_of_the_oldest_log_in_however_busy(self, Store, face, sign_in, clock):
        keys = []
        for _ in range(3):
            keys.append(sign_in())
            clock.shift(120)
            face(Store(keys[0])).save()
        sign_in()
        assert keys_left(face, Store, keys) == keys[1:]

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_others_and_the_anonymous_do_not_count(self, Store, face, sign_in):
        keys = [sign_in(str(user), a=number) for user in (1, 2) for number in range(LIMIT)]
        keys += [saved(face, Store, a=1) for _ in range(5)]
        assert keys_left(face, Store, keys) == keys

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_what_is_over_a_limit_does_not_count(self, Store, face, sign_in, clock):
        keys = [sign_in() for _ in range(LIMIT)]
        clock.shift(3600)
        with override_settings(MULTISESSION_ABSOLUTE_AGE=600):
            sign_in()
        assert keys_left(face, Store, keys) == keys

    def test_a_log_in_of_an_anonymous_session_counts_when_it_is_saved(self, Store, face, sign_in, clock):
        keys = [sign_in() for _ in range(LIMIT)]
        clock.shift(1)
        session = face(Store(saved(face, Store, cart=1)))
        session.cycle_key()
        session[USER] = ANN
        assert keys_left(face, Store, keys) == keys
        session.save()
        assert len(keys_left(face, Store, keys)) == LIMIT - 1
        assert stored(face, Store, session.session_key) == {"cart": 1, USER: ANN}

    def test_saves_and_new_keys_of_one_who_is_signed_in_evict_nobody(self, Store, face, sign_in):
        keys = [sign_in() for _ in range(LIMIT)]
        session = face(Store(keys[0]))
        session["a"] = 1
        session.save()
        session.cycle_key()
        session["a"] = 2
        session.save()
        assert keys_left(face, Store, [*keys, session.session_key]) == [*keys[1:], session.session_key]

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_a_lower_limit_holds_from_the_next_log_in_on(self, Store, face, sign_in, clock):
        keys = [sign_in() for _ in range(LIMIT)]
        clock.shift(1)
        with override_settings(MULTISESSION_MAX_PER_USER=1):
            last = sign_in()
        assert keys_left(face, Store, [*keys, last]) == [last]


class TestRefuse:
    pytestmark = pytest.mark.usefixtures("refusing")

    def test_the_log_in_fails_and_leaves_nothing(self, Store, face, sign_in, verbs):
        keys = [sign_in() for _ in range(LIMIT)]
        with pytest.raises(TooManySessions, match="Signed in 3 times already") as caught:
            sign_in()
        assert isinstance(caught.value, PermissionDenied)
        assert caught.value.limit == LIMIT
        assert {record.id for record in verbs.scan(None, 10)} == set(map(identify, keys))

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_a_session_that_is_refused_can_be_used_on_anonymously(self, Store, face, sign_in):
        for _ in range(LIMIT):
            sign_in()
        session = face(Store(saved(face, Store, cart=1)))
        session[USER] = ANN
        with pytest.raises(TooManySessions):
            session.save()
        assert session.session_key is None
        assert dict(session.items()) == {}
        session["message"] = "Sign out elsewhere first."
        session.save()
        assert stored(face, Store, session.session_key) == {"message": "Sign out elsewhere first."}

    def test_after_one_is_signed_out_there_is_room_again(self, Store, face, sign_in):
        keys = [sign_in() for _ in range(LIMIT)]
        face(Store(keys[0])).flush()
        assert keys_left(face, Store, [sign_in()])

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_the_oldest_waits_for_others_to_give_way(self, Store, monkeypatch):
        """It sees a younger log-in that is about to refuse itself."""
        ours, younger = self.two(Store)
        naps = []

        def sleep(seconds: float) -> None:
            naps.append(seconds)
            run_sync(Store.storage.remove([younger.id]))

        run_sync(quota._admit(SYNC._replace(sleep=sleep), Store.storage, ours, ANN, 1))
        assert naps == [quota.PAUSE]

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_but_not_for_ever(self, Store):
        """The younger one was there first, by a clock that is ahead of ours."""
        ours, younger = self.two(Store)
        naps: list[float] = []
        with pytest.raises(TooManySessions):
            run_sync(quota._admit(SYNC._replace(sleep=naps.append), Store.storage, ours, ANN, 1))
        assert len(naps) == quota.LOOKS
        assert [record.id for record in run_sync(Store.storage.of_user(ANN))] == [younger.id]

    @staticmethod
    def two(Store: Any) -> Any:
        ours = a_record("a" * 64, user_id=ANN, payload=codecs.encode({}, "a" * 64, JSONSerializer))
        created_at, payload = utcnow() + timedelta(seconds=5), codecs.encode({}, "b" * 64, JSONSerializer)
        younger = a_record("b" * 64, user_id=ANN, created_at=created_at, payload=payload)
        for record in (ours, younger):
            run_sync(Store.storage.insert(record))
        return ours, younger


@pytest.mark.parametrize("on_max", ["evict", "refuse"])
class TestFiftyLogIns:
    def test_threads(self, Store, on_max):
        barrier = Barrier(LOGINS)

        def log_in(number: int) -> str | None:
            try:
                session = Store()
                barrier.wait(60)
                session[USER] = ANN
                session.save()
                return str(session.session_key)
            except TooManySessions:
                return None
            finally:
                close_connections()

        with override_settings(MULTISESSION_ON_MAX=on_max), ThreadPoolExecutor(LOGINS) as pool:
            keys = list(pool.map(log_in, range(LOGINS)))
        self.assert_it_holds(on_max, keys, run_sync(Store.storage.of_user(ANN)))

    def test_tasks(self, Store, runner, on_max):
        async def log_in(all_there: asyncio.Barrier) -> str | None:
            session = Store()
            await all_there.wait()
            await session.aset(USER, ANN)
            try:
                await session.asave()
            except TooManySessions:
                return None
            return str(session.session_key)

        async def race() -> tuple[list[str | None], Any]:
            barrier = asyncio.Barrier(LOGINS)
            keys = await asyncio.gather(*(log_in(barrier) for _ in range(LOGINS)))
            return keys, await Store.astorage.of_user(ANN)

        with override_settings(MULTISESSION_ON_MAX=on_max):
            keys, left = runner.run(race())
        self.assert_it_holds(on_max, keys, left)

    def assert_it_holds(self, on_max: str, keys: list[str | None], left: Any) -> None:
        ids = {record.id for record in left}
        if on_max == "evict":
            assert len(ids) == LIMIT
            assert None not in keys
        else:
            assert ids == {identify(key) for key in keys if key}
            assert 1 <= len(ids) <= LIMIT


class TestSetting:
    @pytest.mark.parametrize("engine_name", ["memory"])
    @pytest.mark.parametrize("path", [False, True])
    def test_a_function_of_the_user_id(self, Store, face, sign_in, path):
        given = f"{__name__}.limit" if path else limit
        with override_settings(MULTISESSION_MAX_PER_USER=given):
            for user in ("1", "2", "3"):
                for _ in range(4):
                    sign_in(user)
        counts = [face.functions(user_sessions).count(user) for user in (1, 2, 3)]
        assert counts == [1, 2, 4]

    def test_it_may_ask_the_database(self, Store, face, sign_in):
        with override_settings(MULTISESSION_MAX_PER_USER=asks_the_database):
            sign_in()
            sign_in()
        assert face.functions(user_sessions).count(ANN) == 1

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_none_may_sign_in(self, Store, face, sign_in):
        with override_settings(MULTISESSION_MAX_PER_USER=lambda user_id: 0):
            assert keys_left(face, Store, [sign_in()]) == []

    def test_a_function_that_answers_no_number_lets_nobody_in(self, Store, face, verbs):
        session = face(Store())
        session[USER] = ANN
        wrong = override_settings(MULTISESSION_MAX_PER_USER=lambda user_id: "3")
        with wrong, pytest.raises(ImproperlyConfigured, match="answered '3'"):
            session.save()
        assert verbs.of_user(ANN) == []

    def test_a_function_that_fails_lets_nobody_in(self, Store, face, verbs):
        session = face(Store())
        session[USER] = ANN
        with override_settings(MULTISESSION_MAX_PER_USER=fails), pytest.raises(LookupError):
            session.save()
        assert session.session_key is None  # else the middleware would tell it the browser, with the 500
        assert verbs.scan(None, 10) == []

    def test_nothing_is_asked_without_a_limit(self, Store, face, sign_in, monkeypatch):
        monkeypatch.setattr(type(Store.storage), "of_user", None)
        with override_settings(MULTISESSION_MAX_PER_USER=None):
            sign_in()

    def test_nothing_is_asked_by_other_saves(self, Store, face, sign_in, monkeypatch):
        key = sign_in()
        monkeypatch.setattr(type(Store.storage), "of_user", None)
        session = face(Store(key))
        session["a"] = 1
        session.save()
        session.cycle_key()
        session.flush()


def limit(user_id: str) -> int | None:
    return {"1": 1, "2": 2}.get(user_id)


def fails(user_id: str) -> int:
    raise LookupError


def asks_the_database(user_id: str) -> int:
    return 1 + get_user_model().objects.filter(username="nobody").count()


@pytest.mark.parametrize("engine_name", [name for name, (_, alias) in (ENGINES | CACHED).items() if alias])
class TestTransactions:
    """A log-in counts when it is committed: before that others do not see it."""

    def test_the_limit_is_looked_after_when_it_commits(self, Store):
        for number in range(LIMIT):
            saved(lambda store: store, Store, **{USER: ANN}, a=number)
        with transaction.atomic(using=SessionRouter.alias):
            saved(lambda store: store, Store, **{USER: ANN})
            assert user_sessions.count(ANN) == LIMIT + 1
        assert user_sessions.count(ANN) == LIMIT

    def test_a_log_in_that_is_rolled_back_evicts_nobody(self, Store):
        for number in range(LIMIT):
            saved(lambda store: store, Store, **{USER: ANN}, a=number)
        before = {session.id for session in user_sessions.sessions_of(ANN)}
        with transaction.atomic(using=SessionRouter.alias):
            saved(lambda store: store, Store, **{USER: ANN})
            transaction.set_rollback(True, using=SessionRouter.alias)
        assert {session.id for session in user_sessions.sessions_of(ANN)} == before

    @pytest.mark.usefixtures("refusing")
    def test_it_is_refused_after_the_commit(self, Store):
        for _ in range(LIMIT):
            saved(lambda store: store, Store, **{USER: ANN})
        with pytest.raises(TooManySessions), transaction.atomic(using=SessionRouter.alias):
            saved(lambda store: store, Store, **{USER: ANN})
        assert user_sessions.count(ANN) == LIMIT


class TestPages:
    """What a browser sees of it."""

    @pytest.fixture
    def ann(self) -> Any:
        user = new_user("ann")
        yield user
        user.delete()

    @pytest.fixture(params=[OURS, DJANGOS])
    def middleware(self, request: Any) -> Iterator[None]:
        with override_settings(MIDDLEWARE=[request.param, AUTH]):
            yield

    def sign_in(self, asynchronous: bool = False) -> tuple[Any, int]:
        if asynchronous:
            client: Any = AsyncClient()
            return client, asyncio.run(client.get("/asign_in/")).status_code
        client = Client()
        return client, client.get("/sign_in/").status_code

    def test_the_oldest_is_signed_out(self, Store, ann, middleware):
        browsers = [self.sign_in()[0] for _ in range(LIMIT + 1)]
        users = [browser.get("/look/").json()["user"] for browser in browsers]
        assert sorted(users) == ["", "ann", "ann", "ann"]

    @pytest.mark.usefixtures("refusing")
    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_a_403_and_no_cookie(self, Store, ann, middleware, asynchronous):
        for _ in range(LIMIT):
            assert self.sign_in()[1] == 200
        browser, status = self.sign_in(asynchronous)
        assert status == 403
        assert "sessionid" not in browser.cookies
        assert user_sessions.count(ann) == LIMIT

    def test_the_handle_is_that_of_the_list(self, Store, ann, middleware):
        browser, _ = self.sign_in()
        [session] = user_sessions.sessions_of(ann)
        assert session.id == handle(identify(browser.cookies["sessionid"].value))
