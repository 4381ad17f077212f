"""Promises 4 and 9: unchanged saves write seldom; idle and absolute limits hold on every engine."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.sessions.backends.base import UpdateError
from django.http import HttpResponse
from django.test import override_settings

from django_multisession import limits
from django_multisession.decorators import no_touch
from django_multisession.records import identify, utcnow
from django_multisession.testing.stored import a_record, saved, stored

from .conftest import ENGINES

HOUR = 3600


@pytest.fixture(params=[*ENGINES, "cached_sqlite"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def read(verbs: Any) -> Any:
    return lambda key: verbs.read(identify(key))


class TestTouchAfter:
    def test_an_unchanged_save_within_the_window_writes_nothing(self, Store, face, read, clock):
        key = saved(face, Store, a=1)
        before = read(key)
        clock.shift(59)
        face(Store(key)).save()
        assert read(key) == before
        clock.shift(2)
        face(Store(key)).save()
        assert read(key).expires_at >= before.expires_at + timedelta(seconds=61)
        assert read(key).updated_at >= before.updated_at + timedelta(seconds=61)

    def test_a_busy_session_is_touched_once_in_a_window(self, Store, face, read, clock):
        key = saved(face, Store, a=1)
        seen = {read(key).expires_at}
        for _ in range(30):
            clock.shift(10)
            face(Store(key)).save()
            seen.add(read(key).expires_at)
        assert len(seen) == 6  # at the beginning, and each minute

    def test_a_changed_save_moves_the_expiry_once_in_a_window_too(self, Store, face, read, clock):
        key = saved(face, Store, a=1)
        before = read(key)
        clock.shift(30)
        session = face(Store(key))
        session["a"] = 2
        session.save()
        after = read(key)
        assert (after.expires_at, after.version) == (before.expires_at, 2)
        assert after.updated_at >= before.updated_at + timedelta(seconds=30)

    @pytest.mark.parametrize(("age", "seconds"), [(14 * 24 * HOUR, 60), (900, 9), (10, 0.1)])
    def test_the_default_is_one_percent_and_a_minute_at_most(self, age, seconds):
        assert limits.window(timedelta(seconds=age)) == timedelta(seconds=seconds)

    @pytest.mark.parametrize(("setting", "age", "seconds"), [(300, 3600, 300), (300, 400, 200), (0, 3600, 0)])
    def test_it_can_be_set_but_not_so_that_sessions_end_in_use(self, setting, age, seconds):
        with override_settings(MULTISESSION_TOUCH_AFTER=setting):
            assert limits.window(timedelta(seconds=age)) == timedelta(seconds=seconds)

    def test_nothing_is_left_of_no_time(self):
        assert limits.window(timedelta(0)) == limits.window(timedelta(seconds=-5)) == timedelta(0)

    def test_a_shorter_expiry_is_stored_at_once(self, Store, face, read):
        key = saved(face, Store, a=1)
        session = face(Store(key))
        session.set_expiry(14 * 24 * HOUR - 30)  # a little less than it was
        session.save()
        assert read(key).expires_at < utcnow() + timedelta(days=14, seconds=-29)

    def test_a_shorter_cookie_age_too(self, Store, face, read):
        key = saved(face, Store, a=1)
        with override_settings(SESSION_COOKIE_AGE=600):
            face(Store(key)).save()
        assert read(key).expires_at <= utcnow() + timedelta(seconds=600)

    def test_the_stored_expiry_is_never_later_than_the_cookies(self, Store, face, read, clock):
        key = saved(face, Store, a=1)
        for _ in range(20):
            clock.shift(17)
            session = face(Store(key))
            session.save()
            assert timedelta(seconds=-61) < read(key).expires_at - session.get_expiry_date() <= timedelta(0)


class TestNoTouch:
    @pytest.fixture(autouse=True)
    def _always(self) -> Iterator[None]:
        with override_settings(MULTISESSION_TOUCH_AFTER=0):
            yield

    def test_an_unchanged_save_is_none(self, Store, face, read, clock):
        key = saved(face, Store, a=1)
        before = read(key)
        session = face(Store(key))
        session.may_touch = False
        clock.shift(HOUR)
        session.save()
        assert read(key) == before

    def test_a_changed_one_is_saved(self, Store, face):
        key = saved(face, Store, a=1)
        session = face(Store(key))
        session.may_touch = False
        session["b"] = 2
        session.save()
        assert stored(face, Store, key) == {"a": 1, "b": 2}

    def test_the_decorator_takes_views_of_both_kinds(self, Store, runner):
        @no_touch
        def view(request: Any, number: int) -> HttpResponse:
            """What it does."""
            return HttpResponse(str(number))

        @no_touch
        async def aview(request: Any, number: int) -> HttpResponse:
            return HttpResponse(str(number))

        class Request:
            def __init__(self) -> None:
                self.session = Store()

        request, arequest = Request(), Request()
        assert view(request, 3).content == runner.run(aview(arequest, number=3)).content == b"3"
        assert request.session.may_touch is arequest.session.may_touch is False
        assert Store().may_touch is True
        assert view.__doc__ == "What it does."


class TestIdleAge:
    @pytest.fixture(autouse=True)
    def _limited(self) -> Iterator[None]:
        with override_settings(MULTISESSION_IDLE_AGE=900):
            yield

    def test_a_session_ends_when_nobody_uses_it(self, Store, face, clock):
        key = saved(face, Store, a=1)
        clock.shift(899)
        assert face(Store(key)).get("a") == 1
        clock.shift(2)
        assert face(Store(key)).load() == {}
        assert face(Store()).exists(key) is False

    def test_use_keeps_it_alive(self, Store, face, clock):
        key = saved(face, Store, a=1)
        for _ in range(5):
            clock.shift(600)
            face(Store(key)).save()
        assert face(Store()).exists(key) is True

    def test_the_server_is_told(self, Store, face, read):
        assert read(saved(face, Store)).expires_at <= utcnow() + timedelta(seconds=900)

    def test_it_does_not_make_a_short_session_longer(self, Store, face, read):
        session = face(Store())
        session.set_expiry(60)
        session.save()
        assert read(session.session_key).expires_at <= utcnow() + timedelta(seconds=60)

    def test_a_session_that_ended_is_not_saved_again(self, Store, face, clock):
        session = face(Store(saved(face, Store, a=1)))
        session["b"] = 2
        clock.shift(901)
        with pytest.raises(UpdateError):
            session.save()


class TestAbsoluteAge:
    @pytest.fixture(autouse=True)
    def _limited(self) -> Iterator[None]:
        with override_settings(MULTISESSION_ABSOLUTE_AGE=HOUR):
            yield

    def test_it_counts_from_the_log_in_and_not_from_the_last_save(self, Store, face, clock):
        session = face(Store(saved(face, Store)))
        clock.shift(HOUR / 2)
        session["_auth_user_id"] = "1"
        session.save()
        for _ in range(3):
            clock.shift(HOUR / 4)
            again = face(Store(session.session_key))
            again["count"] = again.get("count", 0) + 1
            again.save()
        clock.shift(HOUR / 4 + 1)
        assert face(Store()).exists(session.session_key) is False

    def test_a_new_key_is_no_new_log_in(self, Store, face, clock):
        session = face(Store(saved(face, Store, _auth_user_id="1")))
        clock.shift(HOUR / 2)
        session.cycle_key()
        clock.shift(HOUR / 2 + 1)
        assert face(Store()).exists(session.session_key) is False

    def test_the_server_is_told(self, Store, face, read, clock):
        key = saved(face, Store)
        born = read(key).created_at
        clock.shift(HOUR / 2)
        face(Store(key)).save()
        assert read(key).expires_at == born + timedelta(seconds=HOUR)


@pytest.mark.parametrize("setting", ["MULTISESSION_IDLE_AGE", "MULTISESSION_ABSOLUTE_AGE"])
def test_a_limit_holds_for_the_sessions_that_are_there(Store, face, clock, setting):
    key = saved(face, Store, a=1)
    clock.shift(HOUR)
    with override_settings(**{setting: HOUR / 2}):
        assert face(Store(key)).load() == {}
        assert face(Store()).exists(key) is False
        session = face(Store(key))
        session["b"] = 2
        session.save()
        assert session.session_key != key


FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@pytest.mark.parametrize("age", ["1ms", "15m", timedelta(days=36_525)])
@pytest.mark.parametrize("moments", [(LAST, LAST, LAST), (LAST, FIRST, LAST), (FIRST, LAST, LAST), (LAST, LAST, FIRST)])
def test_no_time_that_a_server_may_keep_is_past_the_calendar(age, moments):
    with override_settings(MULTISESSION_IDLE_AGE=age, MULTISESSION_ABSOLUTE_AGE=age):
        expires_at, created_at, active_at = moments
        assert limits.latest(expires_at, created_at, active_at) <= expires_at


@pytest.mark.parametrize("setting", [900, 900.0, "15m", timedelta(minutes=15)])
def test_limits_and_windows_take_every_form(setting):
    now = utcnow()
    with override_settings(
        MULTISESSION_IDLE_AGE=setting, MULTISESSION_ABSOLUTE_AGE="1h", MULTISESSION_TOUCH_AFTER=setting
    ):
        assert limits.latest(now + timedelta(days=1), now, now) == now + timedelta(minutes=15)
        assert limits.latest(now + timedelta(days=1), now - timedelta(hours=1), now) == now
        assert limits.window(timedelta(days=1)) == timedelta(minutes=15)


def test_without_limits_nothing_is_over():
    assert limits.is_over(a_record(created_at=utcnow() - timedelta(days=9999))) is False
