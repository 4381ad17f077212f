"""`SessionMiddleware`: Django's cookies, no thread, the key after a 5xx, and a 503 when the store is away."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from http.cookies import SimpleCookie
from typing import Any

import pytest
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse
from django.test import RequestFactory, override_settings
from django.utils import translation

from django_multisession import middleware, responses
from django_multisession.exceptions import EngineUnavailable
from django_multisession.records import identify
from django_multisession.testing.stored import saved, stored
from django_multisession.twins import run_sync

from .browsers import AUTH, COOKIE, DJANGOS, OURS, Browser, new_user
from .children import child
from .conftest import ENGINES

OUTAGES_IN_LOOPS = """
import asyncio, logging
from django.test import RequestFactory
from django_multisession import responses
from django_multisession.backends.mongodb import SessionStore
from django_multisession.exceptions import EngineUnavailable

said, told = set(), []

class Keep(logging.Handler):
    def emit(self, record):
        told.append(record.getMessage())

async def ask():
    try:
        await SessionStore("x" * 32).aload()
    except EngineUnavailable as error:
        said.add(str(error))
        responses.unavailable(RequestFactory().get("/"), error)

logging.getLogger("django.request").addHandler(Keep())
for _ in range(3):
    asyncio.run(ask())
print(json.dumps([sorted(said), told]))
"""


@pytest.fixture(params=[*ENGINES, "cached_sqlite"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _middleware() -> Iterator[None]:
    with override_settings(MIDDLEWARE=[OURS, AUTH]):
        yield


@pytest.fixture
def ann() -> Any:
    user = new_user("ann")
    yield user
    user.delete()


@pytest.fixture
def browser(Store, face) -> Browser:
    return Browser(face)


def pages(face: Any) -> tuple[str, str, str]:
    return ("/count/", "/look/", "/untouched/") if face.name == "sync" else ("/acount/", "/alook/", "/auntouched/")


class TestAsDjangos:
    def test_a_session_is_saved_and_found_again(self, browser, Store, face):
        count, look, _ = pages(face)
        assert [browser.get(count).json()["count"] for _ in range(3)] == [1, 2, 3]
        assert browser.get(look).json()["count"] == 3
        assert stored(face, Store, browser.key) == {"count": 3}

    @pytest.mark.parametrize("every", [False, True])
    @pytest.mark.parametrize("page", range(3))
    @pytest.mark.parametrize("cookie", ["known", "unknown", "none"])
    def test_cookies_and_vary_are_those_of_djangos(self, Store, face, every, page, cookie):
        seen = []
        for session_middleware in (OURS, DJANGOS):
            with override_settings(MIDDLEWARE=[session_middleware, AUTH], SESSION_SAVE_EVERY_REQUEST=every):
                browser = Browser(face)
                if cookie != "none":
                    browser.key = saved(face, Store, count=1) if cookie == "known" else "u" * 32
                response = browser.get(pages(face)[page])
                seen.append((described(response.cookies), response.headers.get("Vary"), response.status_code))
        if (cookie, every) == ("known", True) and page > 0:
            assert seen[0] == ([], *seen[1][1:])  # nothing was asked or written: see test_silent_saves.py
            return
        if (cookie, every, page) == ("unknown", True, 2) and face.name == "async":
            assert seen[0][0] == ["deleted"]  # Django's makes a session for the visitor who has none
        else:
            assert seen[0] == seen[1]

    def test_an_expiry_of_the_sessions_own_is_in_the_cookie(self, browser, Store, face):
        session = face(Store())
        session.set_expiry(300)
        session.save()
        browser.key = session.session_key
        assert browser.get(pages(face)[0]).cookies[COOKIE]["max-age"] == 300

    def test_a_session_deleted_meanwhile_is_a_400(self, browser, Store, face, monkeypatch):
        browser.get(pages(face)[0])
        key = browser.key
        original = Store._save

        async def too_late(self: Any, storage: Any, must_create: bool = False) -> None:
            await storage.remove([identify(key)])
            await original(self, storage, must_create)

        monkeypatch.setattr(Store, "_save", too_late)
        assert browser.get(pages(face)[0]).status_code == 400
        assert face(Store()).exists(key) is False

    def test_no_session_no_matter(self):
        request = RequestFactory().get("/")
        response = middleware.SessionMiddleware(lambda request: HttpResponse()).process_response(
            request, HttpResponse("as it was")
        )
        assert response.content == b"as it was"


def described(cookies: SimpleCookie) -> list[str]:
    """What a response does to the session cookie, but for its value and the second at which it ends."""
    if COOKIE not in cookies:
        return []
    morsel = cookies[COOKIE]
    if not morsel.value:
        return ["deleted"]
    assert len(morsel.value) == 32
    return sorted(f"{name}={value}" for name, value in morsel.items() if name != "expires")


class TestAfterAnError:
    """A rotated key reaches the browser with a 5xx too."""

    def test_a_log_in(self, browser, Store, face, ann):
        browser.get("/count/")
        old = browser.key
        assert browser.get("/fail_after/signing_in/").status_code == 502
        assert browser.key != old
        assert face(Store()).exists(old) is False
        assert browser.get("/look/").json()["count"] == 1

    def test_a_change_of_password(self, browser, Store, face, ann):
        browser.get("/sign_in/")
        old = browser.key
        assert browser.get("/fail_after/password/").status_code == 502
        assert browser.key != old
        assert len(run_sync(Store.storage.of_user(str(ann.pk)))) == 1

    def test_what_was_rolled_back_leaves_the_cookie(self, browser, Store, face, ann, engine_name):
        """On SQL, where the old session is there again; on other servers it is gone, rolled back or not."""
        browser.get("/count/")
        old = browser.key
        assert browser.get("/fail_in_a_transaction/signing_in/").status_code == 502
        assert face(Store()).exists(browser.key)
        assert (browser.key == old) is (engine_name in ("sqlite", "postgres", "mysql", "cached_sqlite"))
        assert browser.get("/look/").json()["count"] == 1

    def test_the_cookie_is_as_after_a_success(self, browser, ann):
        browser.get("/count/")
        failed = browser.get("/fail_after/signing_in/")
        assert failed.cookies[COOKIE]["httponly"]
        assert failed.cookies[COOKIE]["max-age"] == settings.SESSION_COOKIE_AGE
        assert "Cookie" in failed.headers["Vary"]

    def test_the_data_are_not_saved(self, browser):
        browser.get("/count/")
        failed = browser.get("/fail_after/counting/")
        assert failed.status_code == 502
        assert COOKIE not in failed.cookies
        assert browser.get("/look/").json()["count"] == 1

    def test_a_new_session_is_not_saved_either(self, browser, verbs):
        assert COOKIE not in browser.get("/fail_after/counting/").cookies
        assert verbs.scan(None, 10) == []

    def test_signing_out_deletes_the_cookie(self, browser, ann):
        browser.get("/sign_in/")
        assert browser.get("/fail_after/signing_out/").cookies[COOKIE].value == ""


@pytest.fixture
def away(Store, monkeypatch) -> Any:
    """A store that can no longer be reached for some of its verbs."""

    def fail(*verbs: str) -> None:
        async def unreachable(self: Any, *arguments: Any) -> Any:
            raise EngineUnavailable("gone fishing")

        for verb in verbs:
            monkeypatch.setattr(type(Store.storage), verb, unreachable)

    return fail


class TestUnavailable:
    @pytest.fixture(autouse=True)
    def _nothing_told(self) -> Iterator[None]:
        responses._told.clear()
        yield
        responses._told.clear()

    @pytest.mark.parametrize(
        ("verbs", "page"), [(["read"], 1), (["read"], 0), (["replace"], 0)], ids=["reading", "writing", "saving"]
    )
    def test_503_and_the_cookie_stays(self, browser, face, away, verbs, page, caplog):
        browser.get(pages(face)[0])
        away(*verbs)
        assert_unavailable(browser.get(pages(face)[page]))
        assert "Sessions unavailable" in caplog.text
        assert "gone fishing" in caplog.text

    def test_with_save_every_request_too(self, browser, face, away):
        browser.get(pages(face)[0])
        away("read")
        with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
            assert_unavailable(browser.get(pages(face)[2]))

    def test_a_page_without_a_session_works(self, browser, face, away):
        browser.get(pages(face)[0])
        away("read")
        assert browser.get(pages(face)[2]).status_code == 200

    def test_other_middleware_that_asks_for_it(self, Store, face, away):
        """As LoginRequiredMiddleware does: Django has made a 500 of the error by the time that it reaches us."""
        browser = Browser(face)
        browser.client.raise_request_exception = False
        browser.key = saved(face, Store)
        away("read")
        with override_settings(MIDDLEWARE=[OURS, f"{__name__}.asks_for_the_session"]):
            assert_unavailable(browser.get(pages(face)[2]))

    def test_other_middleware_makes_no_traceback_per_request(self, Store, face, away, caplog):
        browser = Browser(face)
        browser.client.raise_request_exception = False
        browser.key = saved(face, Store)
        away("read")
        with override_settings(MIDDLEWARE=[OURS, f"{__name__}.asks_for_the_session"]):
            for _ in range(3):
                assert_unavailable(browser.get(pages(face)[2]))
        assert [(record.getMessage(), record.exc_info) for record in caplog.records] == [
            (f"Sessions unavailable: gone fishing ({pages(face)[2]})", None)
        ]

    @pytest.mark.parametrize(
        "middleware",
        [[DJANGOS, "asks_for_the_session"], ["asks_afterwards", OURS]],
        ids=["Django's", "outside of ours"],
    )
    def test_what_nobody_else_tells_django_does(self, Store, face, away, caplog, middleware):
        browser = Browser(face)
        browser.client.raise_request_exception = False
        browser.key = saved(face, Store)
        away("read")
        paths = [each if "." in each else f"{__name__}.{each}" for each in middleware]
        with override_settings(MIDDLEWARE=paths):
            assert browser.get(pages(face)[2]).status_code == 500
        assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [EngineUnavailable]

    def test_another_error_is_a_500_as_ever(self, browser):
        browser.client.raise_request_exception = False
        assert browser.get("/unhandled/").status_code == 500

    def test_the_sites_own_template(self, browser, face, away, tmp_path):
        (tmp_path / "503.html").write_text("Back soon")
        templates = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [tmp_path]}]
        browser.get(pages(face)[0])
        away("read")
        with override_settings(TEMPLATES=templates):
            assert browser.get(pages(face)[1]).content == b"Back soon"

    @pytest.mark.parametrize("broken", ["{% nonsense %}", "{% extends 'missing.html' %}", "{% url 'nowhere' %}"])
    def test_a_template_of_the_site_that_fails(self, browser, face, away, tmp_path, broken, caplog):
        """An outage is not the time to lose the page as well; the log has why."""
        (tmp_path / "503.html").write_text(broken)
        [templates] = settings.TEMPLATES
        browser.get(pages(face)[0])
        away("read")
        with override_settings(TEMPLATES=[{**templates, "DIRS": [tmp_path]}]):
            for _ in range(2):
                page = browser.get(pages(face)[1])
                assert page.status_code == 503
                assert "You have not been signed out" in page.content.decode()
        [failure] = [each.getMessage() for each in caplog.records if each.name == "django_multisession"]
        assert "503.html" in failure

    def test_our_page_is_complete_in_itself(self, browser, face, away):
        browser.get(pages(face)[0])
        away("read")
        page = browser.get(pages(face)[1]).content.decode()
        assert "You have not been signed out" in page
        assert not re.search(r"\b(src|href)=", page)

    def test_in_german(self):
        with translation.override("de"):
            page = responses.unavailable(RequestFactory().get("/")).content.decode()
        assert '<html lang="de">' in page
        assert "Sie wurden nicht abgemeldet" in page

    def test_json(self, browser, face, away):
        browser.get(pages(face)[0])
        away("read")
        answer = browser.get(pages(face)[1], accept="application/json")
        assert_unavailable(answer)
        assert answer.json()["error"] == "unavailable"
        assert set(answer.json()) == {"error", "detail"}

    def test_one_line_per_outage_and_minute(self, browser, face, away, caplog, monkeypatch):
        browser.get(pages(face)[0])
        away("read")
        now = [1000.0]
        monkeypatch.setattr(responses.time, "monotonic", lambda: now[0])
        for second in range(0, 130, 10):
            now[0] = 1000.0 + second
            assert_unavailable(browser.get(pages(face)[1]))
        assert [record.getMessage() for record in caplog.records if record.name == "django.request"] == [
            f"Sessions unavailable: gone fishing ({pages(face)[1]})"
        ] * 3
        assert all(record.exc_info is None for record in caplog.records)
        monkeypatch.undo()

    def test_another_outage_is_told_at_once(self, caplog):
        request = RequestFactory().get("/")
        for why in ("Redis is away", "Redis is away", "no route to host", "Redis is away"):
            responses.unavailable(request, EngineUnavailable(why))
        assert len(caplog.records) == 2

    def test_what_was_told_takes_no_room(self):
        for number in range(1000):
            responses.unavailable(RequestFactory().get("/"), EngineUnavailable(str(number)))
        assert len(responses._told) <= responses.MOST_TOLD

    def test_the_log_is_not_flooded_by_whatever_the_driver_says(self, caplog):
        for number in range(1000):
            responses.unavailable(RequestFactory().get("/"), EngineUnavailable(f"gone {number}"))
        assert len(caplog.records) == responses.MOST_TOLD

    @pytest.mark.slow
    def test_mongodb_names_another_client_in_each_event_loop(self):
        """An asynchronous view on a WSGI server has an event loop, so a client, per request.

        In a process of its own: PyMongo leaves a socket open where the end of a loop cancels a monitor that connects.
        """
        uri = "mongodb://127.0.0.1:1/mysite?serverSelectionTimeoutMS=1000"
        process = child(OUTAGES_IN_LOOPS, more={"MULTISESSION_MONGODB": uri})
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        said, told = json.loads(out)
        assert len(said) == 3
        assert len(told) == 1

    def test_of_many_threads_at_once_one_tells(self, caplog):
        barrier = threading.Barrier(20)

        def answer() -> None:
            barrier.wait(60)
            for _ in range(50):
                responses.unavailable(RequestFactory().get("/"), EngineUnavailable("gone fishing"))

        threads = [threading.Thread(target=answer) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(caplog.records) == 1


def asks_for_the_session(get_response: Any) -> Any:
    def ask(request: Any) -> Any:
        request.session.get("count")
        return get_response(request)

    return ask


def asks_afterwards(get_response: Any) -> Any:
    def ask(request: Any) -> Any:
        response = get_response(request)
        request.session.get("count")
        return response

    return ask


def assert_unavailable(response: Any) -> None:
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "10"
    assert "Cookie" in response.headers["Vary"]
    assert "no-store" in response.headers["Cache-Control"]
    assert COOKIE not in response.cookies


def scope(path: str, key: str) -> dict[str, Any]:
    cookie = [(b"cookie", f"{COOKIE}={key}".encode())]
    return {"type": "http", "method": "GET", "path": path, "headers": cookie, "query_string": b"", "asgi": {}}


async def request(handler: Any, path: str, key: str) -> int:
    """One request to the ASGI application, without a client that would use threads of its own."""
    sent: list[dict[str, Any]] = []
    messages = iter([{"type": "http.request", "body": b""}])

    async def receive() -> dict[str, Any]:
        try:
            return next(messages)
        except StopIteration:
            await asyncio.Event().wait()  # the browser stays connected
            raise

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await handler(scope(path, key), receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize("engine_name", ["memory", "redis", "mongodb"])
@pytest.mark.parametrize(("session_middleware", "in_threads"), [(OURS, False), (DJANGOS, True)])
def test_no_thread_works_for_an_asynchronous_request(Store, runner, monkeypatch, session_middleware, in_threads):
    """Counted under load: the threads in which anything of the session runs, for Django's middleware as a control."""
    keys = [saved(lambda store: store, Store, count=0) for _ in range(20)]
    ran_in: set[int] = set()

    def noted(name: str) -> Any:
        original = getattr(Store, name)

        def note(self: Any, *arguments: Any, **options: Any) -> Any:
            ran_in.add(threading.get_ident())
            return original(self, *arguments, **options)

        return note

    for name in ("__init__", "is_empty", "get_expiry_age", "get_expire_at_browser_close", "_save", "save", "asave"):
        monkeypatch.setattr(Store, name, noted(name))

    async def load(handler: Any) -> list[int]:
        return await asyncio.gather(*(request(handler, "/acount/", key) for key in keys * 3))

    with override_settings(MIDDLEWARE=[session_middleware]):
        assert set(runner.run(load(ASGIHandler()))) == {200}
    assert (ran_in != {threading.get_ident()}) is in_threads
    assert {Store(key)["count"] for key in keys} <= {1, 2, 3}
