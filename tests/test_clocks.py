"""Hosts whose clocks differ list, count and end the same sessions: what is over says the server's clock."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.test import override_settings

from django_multisession import user_sessions
from django_multisession.records import identify, utcnow
from django_multisession.statistics import collect
from django_multisession.user_sessions import Revoked

from .conftest import ENGINES
from .contract import saved

USER = "_auth_user_id"
ANN = "1"
HOUR = timedelta(hours=1)
WRONG = 3 * HOUR  # a mistake in the time zone, say


# These two have no clock but the host's.
@pytest.fixture(params=[name for name in ENGINES if name not in ("memory", "sqlite")])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def api(face: Any) -> Any:
    return face.functions(user_sessions)


@pytest.fixture
def sign_in(face: Any, Store: Any) -> Callable[..., str]:
    return lambda user_id=ANN, **data: saved(face, Store, **{USER: user_id, **data})


@pytest.fixture(autouse=True)
def _short_sessions() -> Iterator[None]:
    with override_settings(SESSION_COOKIE_AGE=2 * 3600):
        yield


def host(ahead: timedelta) -> Any:
    return time_machine.travel(datetime.now(UTC) + ahead, tick=True)


class TestFast:
    def test_it_lists_and_counts_those_of_others(self, api, sign_in):
        sign_in()
        with host(WRONG):
            assert len(api.sessions_of(ANN)) == api.count(ANN) == 1
            assert collect().sessions == 1

    def test_it_ends_them(self, Store, face, api, sign_in):
        keys = [sign_in() for _ in range(2)]
        with host(WRONG):
            [session, _] = api.sessions_of(ANN)
            assert api.revoke(ANN, session.id)
            assert api.revoke_all(ANN) == Revoked(1, complete=True)
        assert not any(face(Store()).exists(key) for key in keys)

    def test_it_ends_everyones(self, Store, face, api, sign_in):
        key = sign_in()
        with host(WRONG):
            assert api.revoke_everyone() == 1
        assert not face(Store()).exists(key)

    def test_its_log_in_does_not_take_others_from_the_list(self, api, sign_in):
        sign_in()
        with host(WRONG):
            sign_in()
        assert len(api.sessions_of(ANN)) == 2
        assert api.revoke_all(ANN) == Revoked(2, complete=True)

    def test_its_limit_counts_those_of_others(self, Store, face, api, sign_in):
        key = sign_in()
        with host(WRONG), override_settings(MULTISESSION_MAX_PER_USER=1):
            newer = sign_in()
            assert face(Store()).exists(newer)
        assert not face(Store()).exists(key)

    def test_an_idle_limit_that_was_there_all_the_time(self, api, sign_in):
        with override_settings(MULTISESSION_IDLE_AGE=3600):
            sign_in()
            with host(WRONG):
                assert api.count(ANN) == 1


class TestSlow:
    def test_it_lists_and_ends_its_own_and_those_of_others(self, Store, face, api, sign_in):
        key = sign_in()
        with host(-WRONG):
            own = sign_in()
            assert len(api.sessions_of(ANN)) == api.count(ANN) == 2
            assert api.revoke_all(ANN) == Revoked(2, complete=True)
            assert not face(Store()).exists(own)
        assert not face(Store()).exists(key)

    def test_what_it_has_made_others_end_too(self, Store, face, api, sign_in):
        with host(-WRONG):
            own = sign_in()
        assert api.revoke_all(ANN).complete is True
        with host(-WRONG):
            assert not face(Store()).exists(own)


class TestRight:
    def test_what_has_expired_is_not_listed_but_removed(self, Store, face, api, sign_in, verbs):
        session = face(Store(sign_in()))
        session.set_expiry(-60)
        session.save()
        sign_in()
        assert len(api.sessions_of(ANN)) == api.count(ANN) == 1
        assert api.revoke_all(ANN) == Revoked(1)
        assert verbs.of_user(ANN) == []


def test_the_servers_clock(verbs):
    before = utcnow()
    assert before - HOUR < verbs.clock() < utcnow() + HOUR
    with host(WRONG):
        assert verbs.clock() < utcnow() - 2 * HOUR
    assert verbs.clock().tzinfo is UTC


@pytest.mark.parametrize("engine_name", ["mongodb"])
def test_a_purge_of_a_fast_host_removes_no_live_session(Store, face, sign_in, verbs):
    key = sign_in()
    with host(WRONG):
        assert verbs.purge(utcnow(), 100) == 0
    assert face(Store()).exists(key)
    assert identify(key) in {record.id for record in verbs.of_user(ANN)}
