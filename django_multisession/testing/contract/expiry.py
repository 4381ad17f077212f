"""Promise: a session ends when it is to end, on time and for good."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.contrib.sessions.backends.base import UpdateError
from django.test import override_settings
from django.utils import timezone

from ...records import identify, utcnow
from ..stored import HOUR, KEY, saved


class TestExpiry:
    """Promise 9: expiry means expiry."""

    def test_an_expired_session_is_gone_for_every_method(self, Store, face, clock):
        key = saved(face, Store, a=1)
        loaded = face(Store(key))
        loaded["b"] = 2
        clock.shift(14 * 24 * 3600 + 1)
        assert face(Store()).exists(key) is False
        assert face(Store(key)).load() == {}
        with pytest.raises(UpdateError):
            loaded.save()
        assert face(Store()).exists(key) is False

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            (300, 300),
            (0, 14 * 24 * 3600),
            (None, 14 * 24 * 3600),
            (timedelta(minutes=5), 300),
            ("aware", 300),
            ("local", 300),
        ],
    )
    @pytest.mark.parametrize("use_tz", [True, False])
    def test_every_form_of_set_expiry(self, Store, face, verbs, value, seconds, use_tz):
        with override_settings(USE_TZ=use_tz):
            if value == "aware":
                value = timezone.now() + timedelta(minutes=5)
            elif value == "local":
                value = datetime.now(UTC if use_tz else None) + timedelta(minutes=5)
            session = face(Store())
            session.set_expiry(value)
            session.save()
            left = (verbs.read(identify(session.session_key)).expires_at - utcnow()).total_seconds()
            assert left == pytest.approx(seconds, abs=5)
            assert face(Store(session.session_key)).get_expiry_age() == pytest.approx(seconds, abs=5)

    def test_zero_means_the_browsers_life_and_the_usual_age_on_the_server(self, Store, face):
        session = face(Store())
        session.set_expiry(0)
        session.save()
        assert face(Store(session.session_key)).get_expire_at_browser_close() is True

    def test_none_takes_the_expiry_back(self, Store, face, verbs):
        session = face(Store())
        session.set_expiry(60)
        session.save()
        session.set_expiry(None)
        session.save()
        assert verbs.read(identify(session.session_key)).expires_at > utcnow() + HOUR

    @pytest.mark.parametrize("value", [-1, -(10**9), timedelta(days=-1), timedelta(days=-30000)])
    def test_an_expiry_in_the_past_ends_the_session_without_an_error(self, Store, face, value):
        session = face(Store())
        session.set_expiry(value)
        session.save()
        key = session.session_key
        assert face(Store(key)).load() == {}
        assert face(Store()).exists(key) is False

        key = saved(face, Store, a=1)
        session = face(Store(key))
        session.set_expiry(value)
        session.save()
        assert face(Store()).exists(key) is False

    def test_the_cookie_age_hook_is_honoured(self, Store, face, verbs):
        class Short(Store):
            def get_session_cookie_age(self) -> int:
                return 60

        assert verbs.read(identify(saved(face, Short))).expires_at < utcnow() + HOUR

    def test_an_expiry_in_the_past_can_be_saved_again(self, Store, face):
        session = face(Store(saved(face, Store, a=1)))
        session.set_expiry(-1)
        session.save()
        session["b"] = 2
        session.save()
        assert face(Store()).exists(session.session_key) is False

    def test_a_session_that_was_ended_so_does_not_come_back(self, Store, face):
        session = face(Store(saved(face, Store, a=1)))
        session.set_expiry(-1)
        session.save()
        session.set_expiry(3600)
        with pytest.raises(UpdateError):
            session.save()
        assert face(Store()).exists(session.session_key) is False

    def test_the_hour_when_the_clocks_go_back(self, Store, face):
        settings = override_settings(USE_TZ=False, TIME_ZONE="Europe/Berlin", SESSION_COOKIE_AGE=600)
        with settings, time_machine.travel(datetime(2027, 10, 31, 1, 30, tzinfo=UTC), tick=True):
            assert face(Store()).exists(saved(face, Store, a=1)) is True

    def test_get_expiry_age_with_an_expiry_does_not_load(self, Store):
        session = Store(KEY)
        assert session.get_expiry_age(expiry=5) == 5
        assert not session.accessed

    def test_clear_expired_removes_them_and_them_alone(self, Store, face, verbs):
        session = face(Store())
        session.set_expiry(-3600)  # not by a clock that has moved: a purge goes by the server's
        session.save()
        key = saved(face, Store, a=1)
        session.clear_expired()
        assert [record.id for record in verbs.scan(None, 10)] == [identify(key)]
