"""`@require_recent_login`."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.test import RequestFactory, override_settings
from django.views import View

from django_multisession.decorators import require_recent_login
from django_multisession.exceptions import InvalidOption

from .browsers import AUTH, DJANGOS, OURS, Browser, new_user
from .contract import saved

MINUTE = 60


@pytest.fixture(params=["memory", "redis", "postgres"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[OURS, DJANGOS])
def _middleware(request: pytest.FixtureRequest) -> Iterator[None]:
    with override_settings(MIDDLEWARE=[request.param, AUTH]):
        yield


@pytest.fixture
def browser(Store: Any, face: Any, _middleware: None) -> Iterator[Browser]:
    user = new_user("ann")
    yield Browser(face)
    user.delete()


@pytest.fixture
def a(face: Any) -> str:
    """What the names of asynchronous pages begin with."""
    return "a" if face.name == "async" else ""


def test_who_has_just_signed_in_may_go_on(browser, a, clock):
    browser.get(f"/{a}sign_in_as/ann/")
    clock.shift(14 * MINUTE)
    assert browser.get(f"/{a}recent/").content == b"sensitive"


def test_who_has_not_signs_in_again(browser, a, clock):
    browser.get(f"/{a}sign_in_as/ann/")
    for _ in range(3):
        clock.shift(6 * MINUTE)
        browser.get("/count/")
    sent = browser.get(f"/{a}recent/?page=2")
    assert sent.status_code == 302
    assert sent.headers["Location"] == f"/accounts/login/?next=/{a}recent/%3Fpage%3D2"
    browser.get(f"/{a}sign_in_as/ann/")
    assert browser.get(f"/{a}recent/").content == b"sensitive"


def test_who_is_not_signed_in_signs_in(browser, a):
    assert browser.get(f"/{a}recent/").status_code == 302


def test_a_new_key_is_no_log_in(browser, a, clock):
    browser.get(f"/{a}sign_in_as/ann/")
    clock.shift(16 * MINUTE)
    browser.get("/change_password/" if not a else "/achange_password/")
    assert browser.get(f"/{a}recent/").status_code == 302


def test_a_log_in_from_before_the_time_was_recorded(browser, Store, face, a, clock):
    ann = get_user_model().objects.get(username="ann")
    browser.key = saved(
        face,
        Store,
        _auth_user_id=str(ann.pk),
        _auth_user_backend="django.contrib.auth.backends.ModelBackend",
        _auth_user_hash=ann.get_session_auth_hash(),
    )
    assert browser.get(f"/{a}recent/").content == b"sensitive"
    clock.shift(16 * MINUTE)
    assert browser.get(f"/{a}recent/").status_code == 302


@pytest.mark.parametrize("age", [900, 900.0, "15m", timedelta(minutes=15)])
def test_the_age_is_a_duration(age):
    view = require_recent_login(age)(lambda request: HttpResponse())
    assert view(request_of(AnonymousUser())).status_code == 302


@pytest.mark.parametrize("age", [None, "", "900", "soon", -1, True])
def test_what_is_none(age):
    with pytest.raises(InvalidOption):
        require_recent_login(age)


def request_of(user: Any, session: Any = None) -> Any:
    request = RequestFactory().get("/x/")
    request.user, request.session = user, session
    return request


def test_the_login_page_can_be_another():
    view = require_recent_login(60, login_url="/sudo/", redirect_field_name="to")(lambda request: HttpResponse())
    assert view(request_of(AnonymousUser())).headers["Location"] == "/sudo/?to=/x/"


def test_a_session_that_knows_of_no_log_in():
    view = require_recent_login(60)(lambda request: HttpResponse())
    assert view(request_of(get_user_model()(pk=1), {})).status_code == 302


def test_a_class_of_asynchronous_views(runner):
    """Django marks what `as_view()` makes: `inspect` of Python 3.11 does not see it."""

    class Page(View):
        async def get(self, request: Any) -> HttpResponse:
            return HttpResponse()

    async def auser() -> Any:
        return request.user

    request = request_of(AnonymousUser())
    request.auser = auser
    assert runner.run(require_recent_login(60)(Page.as_view())(request)).status_code == 302


def test_it_needs_an_engine_of_the_package(settings):
    """With another one no log-in is recorded: people would sign in again and again."""
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    view = require_recent_login(60)(lambda request: HttpResponse())
    with pytest.raises(ImproperlyConfigured, match="engine"):
        view(request_of(get_user_model()(pk=1), {}))


def test_it_needs_the_app(monkeypatch):
    view = require_recent_login(60)(lambda request: HttpResponse())
    monkeypatch.setattr("django_multisession.decorators.apps.is_installed", lambda name: False)
    with pytest.raises(ImproperlyConfigured, match="INSTALLED_APPS"):
        view(request_of(get_user_model()(pk=1), {}))
