"""The same key twice, through Django's request and response: messages, cookies, other browsers."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from threading import Barrier
from typing import Any

import pytest
from django.contrib import messages
from django.db import connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import Client, override_settings
from django.urls import path

from django_multisession.testing.stored import close_connections, saved, stored

from ..browsers import AUTH, COOKIE, DJANGOS, OURS, Browser, new_user
from ..routers import SessionRouter
from ..urls import urlpatterns as pages

MESSAGES = "django.contrib.messages.middleware.MessageMiddleware"
SESSION_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
FALLBACK_STORAGE = "django.contrib.messages.storage.fallback.FallbackStorage"
REQUESTS = 20
FIREFOX, CURL = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "curl/8.5.0"

loaded: Barrier  # by all the requests that are under way


@pytest.fixture(params=["memory", "redis", "postgres"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def noise(text: str, size: int) -> str:
    """Always the same of one text, and not to be compressed, as the cookie of messages is."""
    return Random(text).randbytes(size // 2).hex()


def add(request: HttpRequest, text: str) -> HttpResponse:
    request.session.get("start")  # as request.user does; FallbackStorage loads it only if its cookie says so
    len(messages.get_messages(request))
    loaded.wait(60)
    messages.info(request, text + noise(text, int(request.GET.get("noise", 0))))
    return HttpResponse()


def show(request: HttpRequest) -> HttpResponse:
    shown = [str(message) for message in messages.get_messages(request)]
    loaded.wait(60)
    return JsonResponse({"shown": shown})


def count(data: dict[str, Any]) -> int:
    data["count"] = data.get("count", 0) + 1
    return int(data["count"])


def change(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"count": request.session.change(count)})


async def achange(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"count": await request.session.achange(count)})


def change_and_fail(request: HttpRequest) -> HttpResponse:
    request.session.change(count)
    return HttpResponse(status=500)


def cycle(request: HttpRequest) -> HttpResponse:
    request.session.cycle_key()
    return HttpResponse()


async def acycle(request: HttpRequest) -> HttpResponse:
    await request.session.acycle_key()
    return HttpResponse()


urlpatterns = [
    path("add/<text>/", add),
    path("show/", show),
    path("change/", change),
    path("achange/", achange),
    path("change_and_fail/", change_and_fail),
    path("cycle/", cycle),
    path("acycle/", acycle),
    *pages,
]


@pytest.fixture(autouse=True)
def _site(Store: Any) -> Iterator[None]:
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[OURS, AUTH, MESSAGES]):
        yield


def ask(*urls: str, cookies: dict[str, str]) -> list[Any]:
    """The answers to requests of one browser that run side by side."""
    global loaded
    loaded = Barrier(len(urls))

    def one(url: str) -> Any:
        client = Client()
        for name, value in cookies.items():
            client.cookies[name] = value
        try:
            return client.get(url)
        finally:
            close_connections()

    with ThreadPoolExecutor(len(urls)) as pool:
        return list(pool.map(one, urls))


def shown(answer: Any) -> list[str]:
    return list(answer.json()["shown"])


class TestMessages:
    @pytest.fixture(params=[OURS, DJANGOS], autouse=True)
    def _middleware(self, request: pytest.FixtureRequest) -> Iterator[None]:
        with override_settings(MIDDLEWARE=[request.param, AUTH, MESSAGES]):
            yield

    @pytest.fixture
    def cookies(self, Store: Any) -> dict[str, str]:
        return {COOKIE: saved(lambda store: store, Store, start=1)}

    @override_settings(MESSAGE_STORAGE=SESSION_STORAGE)
    def test_none_is_lost_and_none_comes_back(self, cookies):
        first, second = ([f"{name}{number}" for number in range(REQUESTS)] for name in "ab")
        ask(*(f"/add/{text}/" for text in first), cookies=cookies)
        answers = ask("/show/", *(f"/add/{text}/" for text in second), cookies=cookies)
        assert sorted(shown(answers[0])) == sorted(first)
        [answer] = ask("/show/", cookies=cookies)
        assert sorted(shown(answer)) == sorted(second)
        [answer] = ask("/show/", cookies=cookies)
        assert shown(answer) == []

    @override_settings(MESSAGE_STORAGE=FALLBACK_STORAGE)
    def test_what_the_cookie_does_not_hold(self, Store, cookies):
        """Messages beyond the size of a cookie are in the session, all of them."""
        texts = [f"{number:03}" for number in range(REQUESTS)]
        answers = ask(*(f"/add/{text}/?noise=10000" for text in texts), cookies=cookies)
        cookies["messages"] = answers[-1].cookies["messages"].value  # says that there are more
        [answer] = ask("/show/", cookies=cookies)
        assert sorted(shown(answer)) == [text + noise(text, 10000) for text in texts]
        assert "_messages" not in Store(cookies[COOKIE]).load()


class TestCookies:
    @pytest.fixture
    def a(self, face: Any) -> str:
        """What the names of asynchronous pages begin with."""
        return "a" if face.name == "async" else ""

    @pytest.mark.parametrize("on_conflict", ["merge", "overwrite", "raise"])
    def test_a_visitor_without_a_session(self, Store, face, a, on_conflict):
        browser = Browser(face)
        with override_settings(MULTISESSION_ON_CONFLICT=on_conflict):
            counts = [browser.get(f"/{a}change/").json()["count"] for _ in range(3)]
        assert counts == [1, 2, 3]
        assert stored(face, Store, browser.key) == {"count": 3}

    def test_one_whose_key_nobody_knows_gets_another(self, Store, face, a):
        browser = Browser(face)
        browser.key = "unknown" * 5
        assert browser.get(f"/{a}change/").json() == {"count": 1}
        assert browser.key != "unknown" * 5
        assert stored(face, Store, browser.key) == {"count": 1}

    def test_what_was_saved_before_an_error_is_found_again(self, Store, face, a):
        browser = Browser(face)
        browser.get("/change_and_fail/")
        assert browser.get(f"/{a}change/").json() == {"count": 2}


@pytest.mark.parametrize("engine_name", ["postgres"])
@pytest.mark.parametrize("middleware", [OURS, DJANGOS])
def test_changes_of_views_in_transactions(Store, monkeypatch, middleware):
    """The middleware saves each session once more, after the commit: no other's change is undone by that."""
    monkeypatch.setitem(connections.settings[SessionRouter.alias], "ATOMIC_REQUESTS", True)
    cookies = {COOKIE: saved(lambda store: store, Store, count=0)}
    with override_settings(MIDDLEWARE=[middleware]):
        answers = ask(*["/change/"] * REQUESTS, cookies=cookies)
    assert sorted(answer.json()["count"] for answer in answers) == list(range(1, REQUESTS + 1))
    assert Store(cookies[COOKIE]).load() == {"count": REQUESTS}


class TestAnotherBrowser:
    """MULTISESSION_ON_CLIENT_CHANGE holds where nothing but a change or a new key makes the view load the session."""

    @pytest.fixture
    def signed_in(self, face: Any) -> Iterator[Callable[..., Any]]:
        user, pre = new_user("ann"), "a" if face.name == "async" else ""
        browser = Browser(face)
        with override_settings(MULTISESSION_ON_CLIENT_CHANGE="end", MULTISESSION_TRACK_CLIENT=True):
            browser.get(f"/{pre}sign_in_as/ann/", user_agent=FIREFOX)
            browser.get(f"/{pre}change/", user_agent=FIREFOX)
            yield lambda page, agent: (browser.get(f"/{pre}{page}/", user_agent=agent), browser.key)
        user.delete()

    def test_a_change_sees_nothing_of_it(self, signed_in):
        assert signed_in("change", FIREFOX)[0].json() == {"count": 2}
        assert signed_in("change", CURL)[0].json() == {"count": 1}

    def test_a_new_key_is_none_of_it(self, Store, face, signed_in):
        _, key = signed_in("cycle", CURL)
        assert "_auth_user_id" not in stored(face, Store, key)
        assert "count" not in stored(face, Store, key)
