"""`session_started` says from where; `session_client_changed` and `MULTISESSION_ON_CLIENT_CHANGE`."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core import mail
from django.test import Client, override_settings

from django_multisession.signals import session_client_changed, session_ended, session_started
from django_multisession.testing.stored import close_connections
from django_multisession.user_sessions import devices, sessions_of

from ..browsers import AUTH, OURS, Browser, new_user
from ..conftest import ENGINES
from ..test_docs import DOCS, blocks

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
UPDATED = "Mozilla/5.0 (X11; Linux x86_64; rv:141.2) Gecko/20100101 Firefox/141.2"
CURL = "curl/8.5.0"


@pytest.fixture(params=["memory", "redis", "mongodb", "sqlite", "postgres"])
def engine_name(request: pytest.FixtureRequest) -> str:
    assert request.param in ENGINES
    return str(request.param)


@pytest.fixture(autouse=True)
def _site(Store: Any) -> Iterator[None]:
    with override_settings(MIDDLEWARE=[OURS, AUTH], MULTISESSION_TRACK_CLIENT=True):
        yield


@pytest.fixture
def ann(Store: Any) -> Iterator[Any]:
    user = new_user("ann")
    user.email = "ann@example.com"
    user.save()
    yield user
    user.delete()


@pytest.fixture
def told() -> Iterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []

    def note(signal: Any, sender: Any, **named: Any) -> None:
        name = {session_started: "started", session_ended: "ended", session_client_changed: "changed"}[signal]
        found.append({"what": name, **named})

    for each in (session_started, session_ended, session_client_changed):
        each.connect(note)
    yield found
    for each in (session_started, session_ended, session_client_changed):
        each.disconnect(note)


def sign_in(face: Any, user_agent: str = FIREFOX) -> Browser:
    browser = Browser(face)
    browser.get(f"/{'a' if face.name == 'async' else ''}sign_in_as/ann/", user_agent=user_agent)
    return browser


def look(browser: Browser, user_agent: str = FIREFOX) -> Any:
    """A page that asks for the session."""
    page = "/look/" if browser.face.name == "sync" else "/alook/"
    return browser.get(page, user_agent=user_agent)


class TestStarted:
    def test_it_says_from_where(self, face, ann, told):
        sign_in(face)
        [session] = sessions_of(ann)
        assert told == [
            {
                "what": "started",
                "user_id": str(ann.pk),
                "id": session.id,
                "device": "Firefox on Linux",
                "ip": "127.0.0.1",
                "is_new_device": True,
            }
        ]

    def test_a_new_device_is_one_of_no_other_live_session(self, face, ann, told):
        for agent in (FIREFOX, FIREFOX, UPDATED, CURL, CURL):
            sign_in(face, agent)
        assert [each["is_new_device"] for each in told] == [True, False, False, True, False]

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_one_whose_session_has_ended_is_new_again(self, face, ann, told):
        browser = sign_in(face)
        browser.get("/sign_out/")
        sign_in(face)
        assert [each["is_new_device"] for each in told if each["what"] == "started"] == [True, True]

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_one_that_this_log_in_signs_out_was_there_before(self, face, ann, told):
        with override_settings(MULTISESSION_MAX_PER_USER=1):
            sign_in(face)
            sign_in(face)
        assert [each["is_new_device"] for each in told if each["what"] == "started"] == [True, False]

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_nothing_is_known_where_nothing_is_recorded(self, face, ann, told):
        with override_settings(MULTISESSION_TRACK_CLIENT=False):
            sign_in(face)
        [started] = told
        assert (started["device"], started["ip"], started["is_new_device"]) == (None, None, None)

    def test_the_recipe_writes_to_the_user_at_a_new_device(self, face, ann):
        names: dict[str, Any] = {}
        [code] = [code for code in blocks(DOCS / "sessions-api.md", "python") if "send_mail(" in code]
        exec(code, names)
        try:
            for agent in (FIREFOX, FIREFOX, CURL):
                sign_in(face, agent)
        finally:
            assert session_started.disconnect(names["tell_of_new_device"])
        assert [message.to for message in mail.outbox] == [["ann@example.com"]] * 2
        assert "Firefox on Linux" in mail.outbox[0].body
        assert "127.0.0.1" in mail.outbox[0].body


class TestChanged:
    @pytest.fixture(autouse=True)
    def _signal(self) -> Iterator[None]:
        with override_settings(MULTISESSION_ON_CLIENT_CHANGE="signal"):
            yield

    def changes(self, told: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [each for each in told if each["what"] == "changed"]

    def test_another_browser_is_told_once(self, face, ann, told):
        browser = sign_in(face)
        look(browser)
        assert self.changes(told) == []
        for agent in (CURL, FIREFOX, CURL, "other"):
            assert look(browser, agent).status_code == 200
        [change] = self.changes(told)
        [session] = sessions_of(ann)
        assert (change["user_id"], change["id"], change["changed"]) == (str(ann.pk), session.id, "browser")
        assert change["before"] == {"ip": "127.0.0.1", "user_agent": FIREFOX}
        assert change["now"] == {"ip": "127.0.0.1", "user_agent": CURL}
        assert session.user_agent == FIREFOX

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_an_update_is_no_other_browser(self, face, ann, told):
        look(sign_in(face), UPDATED)
        assert self.changes(told) == []

    @pytest.mark.parametrize("engine_name", ["memory"])
    @pytest.mark.parametrize("watched", [True, False])
    def test_another_network_where_the_site_wants_it(self, face, ann, told, watched, monkeypatch):
        browser = sign_in(face)
        for ip in ("127.0.0.200", "192.0.2.1"):
            monkeypatch.setattr(devices, "ip_of", lambda request, ip=ip: ip)
            with override_settings(MULTISESSION_CLIENT_NETWORK=watched):
                look(browser)
        assert [(each["changed"], each["now"]["ip"]) for each in self.changes(told)] == (
            [("network", "192.0.2.1")] if watched else []
        )

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_nothing_where_nothing_was_recorded_and_for_the_anonymous(self, face, ann, told):
        with override_settings(MULTISESSION_TRACK_CLIENT=False):
            browser = sign_in(face)
        look(browser, CURL)
        stranger = Browser(face)
        stranger.get("/count/", user_agent=FIREFOX)
        look(stranger, CURL)
        assert self.changes(told) == []

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_ignored_by_default(self, face, ann, told):
        with override_settings(MULTISESSION_ON_CLIENT_CHANGE="ignore"):
            look(sign_in(face), CURL)
        assert self.changes(told) == []

    @pytest.mark.slow
    @pytest.mark.parametrize("engine_name", ["redis", "mongodb", "sqlite", "postgres"])
    @pytest.mark.parametrize("mode", ["signal", "end"])
    def test_of_twenty_requests_at_once_one_tells(self, Store, ann, told, mode):
        client = Client()
        client.get("/sign_in_as/ann/", headers={"user-agent": FIREFOX})
        cookies = client.cookies

        def ask(_: int) -> int:
            thief = Client()
            thief.cookies = cookies
            try:
                return thief.get("/look/", headers={"user-agent": CURL}).status_code
            finally:
                close_connections()

        with override_settings(MULTISESSION_ON_CLIENT_CHANGE=mode), ThreadPoolExecutor(20) as pool:
            assert set(pool.map(ask, range(20))) <= {200, 400}
        assert len(self.changes(told)) == 1


class TestEnded:
    @pytest.fixture(autouse=True)
    def _end(self) -> Iterator[None]:
        with override_settings(MULTISESSION_ON_CLIENT_CHANGE="end"):
            yield

    def test_the_view_sees_nothing_of_it(self, Store, face, ann, told):
        browser = sign_in(face)
        key = browser.key
        browser.get("/count/" if face.name == "sync" else "/acount/", user_agent=FIREFOX)
        answer = look(browser, CURL)
        assert answer.json()["count"] is None
        assert face(Store()).exists(key) is False
        assert sessions_of(ann) == []
        [changed, ended] = sorted((each for each in told if each["what"] != "started"), key=lambda each: each["what"])
        assert (changed["changed"], ended["reason"]) == ("browser", "client")
        assert changed["id"] == ended["id"]

    def test_and_that_of_the_same_browser_stays(self, Store, face, ann, told):
        browser = sign_in(face)
        look(browser, UPDATED)
        assert face(Store()).exists(browser.key)
        assert len(sessions_of(ann)) == 1
