"""What is recorded at a log-in, and how it reads."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import login
from django.http import HttpRequest
from django.test import override_settings
from django.utils import translation

from django_multisession import user_sessions
from django_multisession.testing.stored import saved, stored
from django_multisession.user_sessions import browsers, devices
from django_multisession.user_sessions.browsers import name_of
from django_multisession.user_sessions.devices import ip_of

from ..browsers import AUTH, BACKEND, DJANGOS, OURS, Browser, new_user
from ..conftest import ENGINES

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"


@pytest.fixture(params=[*ENGINES, "cached_sqlite"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ann(Store: Any) -> Iterator[Any]:
    user = new_user("ann")
    yield user
    user.delete()


@pytest.fixture(params=[OURS, DJANGOS])
def middleware(request: pytest.FixtureRequest) -> Iterator[str]:
    with override_settings(MIDDLEWARE=[request.param, AUTH]):
        yield request.param


@pytest.fixture
def tracking() -> Iterator[None]:
    with override_settings(MULTISESSION_TRACK_CLIENT=True):
        yield


def sign_in(face: Any, user_agent: str = FIREFOX) -> Browser:
    browser = Browser(face)
    browser.get(f"/{'a' if face.name == 'async' else ''}sign_in_as/ann/", user_agent=user_agent)
    return browser


class TestLogIn:
    def test_where_from_is_recorded(self, face, ann, middleware, tracking):
        sign_in(face)
        [session] = user_sessions.sessions_of(ann)
        assert (session.ip, session.user_agent, session.device) == ("127.0.0.1", FIREFOX, "Firefox on Linux")

    def test_not_unless_the_site_wants_it(self, Store, face, ann, middleware):
        browser = sign_in(face)
        [session] = user_sessions.sessions_of(ann)
        assert (session.ip, session.user_agent, session.device) == (None, None, None)
        assert "_client" not in stored(face, Store, browser.key)

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_the_newest_log_in_counts(self, Store, face, ann, middleware, tracking):
        browser = sign_in(face)
        path = f"/{'a' if face.name == 'async' else ''}sign_in_as/ann/"
        browser.get(path, user_agent="curl/8.5.0")
        [session] = user_sessions.sessions_of(ann)
        assert session.user_agent == "curl/8.5.0"
        with override_settings(MULTISESSION_TRACK_CLIENT=False):
            browser.get(path)
        assert "_client" not in stored(face, Store, browser.key)

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_later_requests_do_not_change_it(self, face, ann, middleware, tracking):
        sign_in(face).get("/count/", user_agent="curl/8.5.0")
        [session] = user_sessions.sessions_of(ann)
        assert session.user_agent == FIREFOX

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_a_log_in_without_a_browser(self, face, ann, tracking):
        Browser(face).client.force_login(ann)
        [session] = user_sessions.sessions_of(ann)
        assert (session.ip, session.user_agent, session.device) == (None, "", None)

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_when_it_was_is_recorded_always(self, Store, face, ann):
        assert abs(stored(face, Store, sign_in(face).key)["_login_at"] - time.time()) < 60

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_sessions_of_another_package_are_left_alone(self, Store, ann, tracking):
        from django.contrib.sessions.backends.cache import SessionStore

        request = HttpRequest()
        request.session = SessionStore()
        login(request, ann, backend=BACKEND)
        assert not {"_login_at", "_client"} & set(request.session.keys())


HOSTILE = {
    "long": "x" * 100_000,
    "terminal": "\x1b[31mred\x07",
    "html": "<script>alert(1)</script>",
    "bidi": "a\u202eb\u200bc",
    "control": "\x00\x7f\x85",
    "empty": "",
    "latin": "é" * 300,
}


@pytest.mark.parametrize("header", HOSTILE.values(), ids=HOSTILE)
def test_hostile_headers_are_cut(header):
    kept = devices._printable(header)
    assert len(kept) <= 256
    assert kept.isprintable()
    assert "<script>" in kept or "<" not in header  # escaped where it is shown


@pytest.mark.parametrize("engine_name", ["memory"])
def test_what_others_have_recorded_is_shown_as_it_would_be_recorded_here(Store, ann):
    """A session that was moved has what another package took for a header."""
    for header in HOSTILE.values():
        saved(lambda store: store, Store, _auth_user_id=str(ann.pk), _client={"ip": None, "user_agent": header})
    shown = [session.user_agent for session in user_sessions.sessions_of(ann)]
    assert sorted(shown) == sorted(map(devices._printable, HOSTILE.values()))


@pytest.mark.parametrize("recorded", [None, 7, ["a"], {}])
def test_what_is_no_text_is_not_known(recorded):
    assert devices.agent_in({"user_agent": recorded}) is None


def request_from(address: object, **headers: str) -> HttpRequest:
    request = HttpRequest()
    request.META.update(headers, REMOTE_ADDR=address)
    return request


ADDRESSES = [
    ("192.0.2.77", "192.0.2.77", "192.0.2.0"),
    (" 192.0.2.77", "192.0.2.77", "192.0.2.0"),
    ("2001:db8:1:2:3::4", "2001:db8:1:2:3::4", "2001:db8:1::"),
    ("2001:DB8::1", "2001:db8::1", "2001:db8::"),
    ("::ffff:192.0.2.77", "192.0.2.77", "192.0.2.0"),
    ("fe80::1%eth0", "fe80::1", "fe80::"),
    ("", None, None),
    (None, None, None),
    ("unix:", None, None),
    ("192.0.2.77:8080", None, None),
    ("192.0.2.77, 10.0.0.1", None, None),
    ("'; DROP TABLE", None, None),
]


@pytest.mark.parametrize(("address", "whole", "network"), ADDRESSES)
class TestAddress:
    def test_whole(self, address, whole, network, tracking):
        assert ip_of(request_from(address)) == whole

    def test_anonymous(self, address, whole, network):
        with override_settings(MULTISESSION_TRACK_CLIENT="anonymize"):
            assert ip_of(request_from(address)) == network


class TestProxy:
    def test_its_header_is_not_believed(self, tracking):
        request = request_from("10.0.0.1", HTTP_X_FORWARDED_FOR="192.0.2.1", HTTP_X_REAL_IP="192.0.2.1")
        assert ip_of(request) == "10.0.0.1"

    @pytest.mark.parametrize("given", [f"{__name__}.of_the_proxy", lambda request: of_the_proxy(request)])
    def test_unless_the_site_says_how(self, tracking, given):
        with override_settings(MULTISESSION_CLIENT_IP=given):
            assert ip_of(request_from("10.0.0.1", HTTP_X_REAL_IP="192.0.2.1")) == "192.0.2.1"
            assert ip_of(request_from("10.0.0.1")) is None


def of_the_proxy(request: HttpRequest) -> str | None:
    return request.META.get("HTTP_X_REAL_IP")


CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
)
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 "
    "Mobile/15E148 Safari/604.1"
)
NAMES = {
    FIREFOX: "Firefox on Linux",
    CHROME: "Chrome on Windows",
    IPHONE: "Mobile Safari on iOS",
    "curl/8.5.0": "curl",
    "x" * 256: None,
    "": None,
    None: None,
}


@pytest.mark.parametrize(("user_agent", "name"), NAMES.items())
def test_a_device_has_a_name(user_agent, name):
    assert name_of(user_agent) == name


def test_a_system_without_a_browser(monkeypatch):
    monkeypatch.setattr(browsers, "_parsed", lambda user_agent: (None, "Linux"))
    assert name_of("x") == "Linux"


def test_the_name_is_translated(monkeypatch):
    monkeypatch.setattr(browsers, "_", {"%(browser)s on %(system)s": "%(browser)s unter %(system)s"}.__getitem__)
    with translation.override("de"):
        assert name_of(FIREFOX) == "Firefox unter Linux"


def test_without_the_library_there_is_no_name(monkeypatch):
    monkeypatch.setattr(browsers, "ua_parser", None)
    assert name_of(FIREFOX) is None
