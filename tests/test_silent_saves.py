"""`SESSION_SAVE_EVERY_REQUEST`: a save that asks the store for nothing, beside a request that gives a new key.

Its response may reach the browser last. With the old cookie in it the browser would be signed out.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY
from django.http import HttpResponse
from django.test import RequestFactory, override_settings

from django_multisession.decorators import no_touch
from django_multisession.middleware import SessionMiddleware
from django_multisession.testing.stored import close_connections, saved, stored

from .browsers import COOKIE


@pytest.fixture(params=["memory", "redis", "postgres"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _every_request() -> Iterator[None]:
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        yield


def elsewhere(function: Callable[[], Any]) -> Any:
    def request() -> Any:
        try:
            return function()
        finally:
            close_connections()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(request).result()


def cookie(face: Any, key: str, view: Callable[[Any], Any] = len, meanwhile: Any = None, mark: Any = None) -> Any:
    """The session's cookie in the response to a request with this key, that reads; `None`: there is none.

    `meanwhile` happens when the session has been loaded.
    """

    def page(request: Any) -> HttpResponse:
        request.session.get("count")
        view(request.session._session_cache)
        if meanwhile:
            elsewhere(meanwhile)
        return HttpResponse()

    async def apage(request: Any) -> HttpResponse:
        await request.session.aget("count")
        view(request.session._session_cache)
        if meanwhile:
            elsewhere(meanwhile)
        return HttpResponse()

    asked = RequestFactory().get("/")
    asked.COOKIES[COOKIE] = key
    chosen: Any = page if face.name == "sync" else apage
    answer: Any = SessionMiddleware(mark(chosen) if mark else chosen)(asked)
    answer = answer if face.name == "sync" else face.runner.run(answer)
    return answer.cookies[COOKIE].value if COOKIE in answer.cookies else None


def test_a_log_in_beside_it(Store, face):
    key, keys = saved(face, Store, count=1), []

    def log_in() -> None:
        session = Store(key)
        session.cycle_key()
        session[SESSION_KEY] = "9"
        session.save()
        keys.append(session.session_key)

    assert cookie(face, key, meanwhile=log_in) is None
    assert stored(face, Store, keys[0]) == {"count": 1, SESSION_KEY: "9"}


def test_a_new_key_of_the_same_user_beside_it(Store, face):
    key = saved(face, Store, count=1, **{SESSION_KEY: "9"})
    assert cookie(face, key, meanwhile=lambda: Store(key).cycle_key()) is None


def test_a_touch_that_finds_it_gone_goes_on_under_the_new_key(Store, face, clock):
    key, keys = saved(face, Store, count=1, **{SESSION_KEY: "9"}), []
    clock.shift(3600)

    def cycle() -> None:
        session = Store(key)
        session.cycle_key()
        keys.append(session.session_key)

    assert cookie(face, key, meanwhile=cycle) == keys[0]


def test_a_log_out_beside_it(Store, face):
    key = saved(face, Store, count=1)
    assert cookie(face, key, meanwhile=lambda: Store(key).flush()) is None


def test_a_touch_that_is_due_moves_the_cookie_too(Store, face, clock):
    key = saved(face, Store, count=1)
    assert cookie(face, key) is None
    clock.shift(3600)
    assert cookie(face, key) == key


def test_a_view_that_polls_moves_neither(Store, face, clock):
    key = saved(face, Store, count=1)
    clock.shift(timedelta(hours=1))
    assert cookie(face, key, mark=no_touch) is None


def test_a_new_visitor_gets_a_cookie(Store, face):
    key = cookie(face, "unknown" * 5, view=lambda data: data.update(a=1))
    assert stored(face, Store, key) == {"a": 1}


def test_what_was_changed_is_answered_with_the_cookie(Store, face):
    key = saved(face, Store, count=1)
    assert cookie(face, key, view=lambda data: data.update(count=2)) == key
    assert stored(face, Store, key) == {"count": 2}
