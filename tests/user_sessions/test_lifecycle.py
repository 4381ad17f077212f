"""`session_started` and `session_ended`: sent once, by who did it, with a reason."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any

import pytest
from django.contrib.sessions.backends.base import UpdateError
from django.db import transaction
from django.test import override_settings

from django_multisession import user_sessions
from django_multisession.exceptions import TooManySessions
from django_multisession.records import identify
from django_multisession.signals import session_ended, session_started
from django_multisession.testing.stored import close_connections, saved
from django_multisession.user_sessions.lifecycle import handle

from ..conftest import ENGINES
from ..routers import SessionRouter

USER = "_auth_user_id"
ANN, BOB = "1", "2"

Sent = list[tuple[str, ...]]


@pytest.fixture(params=[*ENGINES, "cached_sqlite"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sent() -> Iterator[Sent]:
    """What the receivers are told: the user and the handle, and of an end the reason."""
    sent: Sent = []

    def note(user_id: str, id: str, reason: str = "", **_kwargs: Any) -> None:
        sent.append((user_id, id, reason) if reason else (user_id, id))

    with connected(note):
        yield sent


@contextmanager
def connected(receiver: Callable[..., Any]) -> Iterator[None]:
    for signal in (session_started, session_ended):
        signal.connect(receiver)
    try:
        yield
    finally:
        for signal in (session_started, session_ended):
            signal.disconnect(receiver)


@pytest.fixture
def api(face: Any) -> Any:
    return face.functions(user_sessions)


@pytest.fixture
def sign_in(face: Any, Store: Any) -> Callable[..., str]:
    return lambda user_id=ANN: saved(face, Store, **{USER: user_id})


def name_of(key: str) -> str:
    return handle(identify(key))


class TestStarted:
    def test_by_a_log_in_of_somebody_new(self, sign_in, sent):
        key = sign_in()
        assert sent == [(ANN, name_of(key))]

    def test_by_a_log_in_of_an_anonymous_session(self, Store, face, sent):
        session = face(Store(saved(face, Store, cart=1)))
        session.cycle_key()
        session[USER] = ANN
        assert sent == []
        session.save()
        session["a"] = 1
        session.save()
        session.save()
        assert sent == [(ANN, name_of(session.session_key))]

    def test_not_by_a_new_key(self, Store, face, sign_in, sent):
        session = face(Store(sign_in()))
        session.cycle_key()
        session.save()
        assert len(sent) == 1

    def test_not_by_a_session_of_nobody(self, Store, face, sent):
        session = face(Store(saved(face, Store, a=1)))
        session["a"] = 2
        session.save()
        session.flush()
        assert sent == []

    def test_not_by_a_log_in_that_is_refused(self, sign_in, sent):
        with override_settings(MULTISESSION_MAX_PER_USER=1, MULTISESSION_ON_MAX="refuse"):
            sign_in()
            with pytest.raises(TooManySessions):
                sign_in()
        assert len(sent) == 1

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_not_by_a_save_that_fails(self, Store, face, sent, verbs):
        key = saved(face, Store, a=1)
        session = face(Store(key))
        session[USER] = ANN
        verbs.remove([identify(key)])
        with pytest.raises(UpdateError):
            session.save()
        assert sent == []


class TestEnded:
    def test_by_a_log_out(self, Store, face, sign_in, sent):
        key = sign_in()
        session = face(Store(key))
        session.get("a")
        session.flush()
        assert sent[1:] == [(ANN, name_of(key), "logout")]
        face(Store(key)).delete(key)
        assert len(sent) == 2

    def test_by_a_deletion_of_what_was_not_loaded(self, Store, face, sign_in, sent):
        key = sign_in()
        face(Store()).delete(key)
        assert sent[1:] == [(ANN, name_of(key), "logout")]

    def test_by_a_session_that_is_emptied(self, Store, face, sign_in, sent):
        session = face(Store(key := sign_in()))
        session.clear()
        session.save()
        assert sent[1:] == [(ANN, name_of(key), "logout")]

    def test_by_another_user_in_the_same_session(self, Store, face, sign_in, sent):
        session = face(Store(key := sign_in()))
        session[USER] = BOB
        session.save()
        assert sent[1:] == [(ANN, name_of(key), "logout"), (BOB, name_of(key))]

    def test_by_a_revocation(self, api, sign_in, sent):
        keys = [sign_in() for _ in range(3)]
        sent.clear()
        api.revoke(ANN, name_of(keys[0]))
        api.revoke(ANN, name_of(keys[0]))
        assert sent == [(ANN, name_of(keys[0]), "revoked")]
        api.revoke_all(ANN)
        api.revoke_all(ANN)
        assert sorted(sent) == sorted((ANN, name_of(key), "revoked") for key in keys)

    def test_by_a_revocation_of_everyone(self, api, Store, face, sign_in, sent):
        keys = [sign_in(ANN), sign_in(BOB)]
        saved(face, Store, a=1)
        sent.clear()
        assert api.revoke_everyone() == 2
        assert sorted(sent) == [(ANN, name_of(keys[0]), "revoked"), (BOB, name_of(keys[1]), "revoked")]

    def test_by_the_limit(self, sign_in, sent, clock):
        with override_settings(MULTISESSION_MAX_PER_USER=1):
            old = sign_in()
            clock.shift(1)
            new = sign_in()
        assert sent == [(ANN, name_of(old)), (ANN, name_of(new)), (ANN, name_of(old), "limit")]

    def test_not_by_a_log_out_that_came_second(self, Store, face, api, sign_in, sent):
        session = face(Store(sign_in()))
        session.get("a")
        api.revoke_all(ANN)
        session.flush()
        assert [each[2] for each in sent[1:]] == ["revoked"]

    def test_not_by_a_copy_that_is_taken_back(self, Store, face, api, sign_in, sent, monkeypatch):
        """A key is cycled while another request signs the session out: of one session one end is told."""
        session = face(Store(sign_in()))
        session.get("a")
        original = Store._create

        async def create(self: Any, storage: Any, created_at: Any = None) -> None:
            await original(self, storage, created_at)
            await storage.remove([record.id for record in await storage.of_user(ANN) if record.id != self._record.id])

        monkeypatch.setattr(Store, "_create", create)
        with pytest.raises(UpdateError):
            session.cycle_key()
        assert len(sent) == 1
        assert api.count(ANN) == 0


def test_of_two_who_revoke_all_at_once_each_session_is_told_once(Store, sent):
    for _ in range(20):
        saved(lambda store: store, Store, **{USER: ANN})
    sent.clear()
    barrier = Barrier(4)

    def revoke(_: int) -> int:
        try:
            barrier.wait(60)
            return user_sessions.revoke_all(ANN).ended
        finally:
            close_connections()

    with ThreadPoolExecutor(4) as pool:
        ended = sum(pool.map(revoke, range(4)))
    assert ended == len(sent) == len(set(sent)) == 20


@pytest.mark.parametrize("engine_name", ["memory", "redis", "sqlite"])
def test_receivers_may_be_asynchronous(Store, face, api, sign_in):
    told = []

    async def note(**named: Any) -> None:
        await asyncio.sleep(0)
        told.append(named.get("reason", "started"))

    with connected(note):
        face(Store(sign_in())).flush()
        sign_in()
        api.revoke_all(ANN)
    assert told == ["started", "logout", "started", "revoked"]


@pytest.mark.parametrize("engine_name", ["memory"])
def test_a_receiver_that_fails_stops_nobody(Store, face, api, sign_in, caplog):
    def fail(**kwargs: Any) -> None:
        raise RuntimeError("a receiver's own")

    with connected(fail):
        sign_in()
        assert api.revoke_all(ANN).ended == 1
    assert "a receiver's own" in caplog.text


@pytest.mark.parametrize("engine_name", [name for name, (_, alias) in ENGINES.items() if alias])
class TestTransactions:
    def test_it_is_told_after_the_commit(self, Store, sent):
        with transaction.atomic(using=SessionRouter.alias):
            key = saved(lambda store: store, Store, **{USER: ANN})
            user_sessions.revoke_all(ANN)
            assert sent == []
        assert sent == [(ANN, name_of(key)), (ANN, name_of(key), "revoked")]

    def test_what_is_rolled_back_is_not_told(self, Store, sent):
        key = saved(lambda store: store, Store, **{USER: ANN})
        sent.clear()
        with transaction.atomic(using=SessionRouter.alias):
            saved(lambda store: store, Store, **{USER: BOB})
            user_sessions.revoke_all(ANN)
            transaction.set_rollback(True, using=SessionRouter.alias)
        assert sent == []
        assert Store().exists(key)
