"""What other middleware puts into `request.session`, and engines of others: as with Django's own middleware."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import override_settings

from django_multisession import user_sessions
from django_multisession.testing.stored import saved

from .. import foreign
from ..browsers import AUTH, DJANGOS, OURS, Browser
from ..test_middleware import described

MESSAGES = "django.contrib.messages.middleware.MessageMiddleware"
ENGINES = ("db", "cache", "cached_db", "file", "signed_cookies")

PLAIN = ("untouched", "auntouched", "broken", "abroken")
OF_OURS = (
    "polled",
    "apolled",
    "look_in",
    "recent",
    "arecent",
    "sessions",
    "sessions/end/0123456789abcdef",
    "sessions/end-others",
    "sessions/repair",
    "admin/django_multisession/session",
    "admin/django_multisession/session/user/1",
    "admin/django_multisession/session/user/1/end",
)
POSTED = ("end/0123456789abcdef", "end-others", "repair", "1/end")


def visit(face: Any, page: str) -> Any:
    browser = Browser(face)
    if not page.endswith(POSTED):
        return browser.get(f"/{page}/")
    response = browser.client.post(f"/{page}/")
    return response if face.name == "sync" else face.runner.run(response)


@pytest.fixture(params=list(foreign.SESSIONS))
def session(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(foreign.Site, "session", staticmethod(foreign.SESSIONS[request.param]))
    foreign.Bare.saved.clear()
    return str(request.param)


@pytest.fixture(params=[False, True], ids=["", "every request"])
def _every(request: pytest.FixtureRequest) -> Iterator[None]:
    with override_settings(SESSION_SAVE_EVERY_REQUEST=request.param):
        yield


def site(*middleware: str) -> Any:
    names = [name if "." in name else f"{foreign.__name__}.{name}" for name in middleware]
    return override_settings(MIDDLEWARE=names, ROOT_URLCONF=foreign.__name__)


@pytest.mark.parametrize("when", ["replacing", "replacing_late"])
@pytest.mark.parametrize("page", PLAIN)
@pytest.mark.usefixtures("_every")
def test_the_middleware_answers_as_djangos(Store, face, session, page, when):
    seen = []
    for middleware in (OURS, DJANGOS):
        with site(middleware, when):
            response = visit(face, page)
            seen.append((response.status_code, described(response.cookies), response.headers.get("Vary")))
    ours, djangos = seen
    assert ours == djangos
    assert len(foreign.Bare.saved) in (0, 2)


@pytest.mark.parametrize("page", PLAIN)
def test_a_session_that_was_taken_away(Store, face, page):
    with site(OURS, "taking_away"):
        assert visit(face, page).status_code == (502 if "broken" in page else 200)


@pytest.mark.parametrize("user", [None, "ann"])
@pytest.mark.parametrize("middleware", [OURS, DJANGOS], ids=["ours", "djangos"])
@pytest.mark.parametrize("page", OF_OURS)
def test_every_page_of_the_package_answers(Store, face, session, page, middleware, user, monkeypatch):
    monkeypatch.setattr(foreign.Site, "user", user)
    with site(middleware, "replacing", AUTH, "by_token", MESSAGES):
        response = visit(face, page)
    wanted = 200 if user or page in ("polled", "apolled", "look_in") else 302
    if user and page.endswith((*POSTED[:3], "recent")):
        wanted = 302  # back to the list, or to the log-in: nobody knows when that was
    if page.startswith("admin/") and user and page.endswith("end"):
        wanted = 302
    if page.startswith("admin/") and page.split("/")[-1] in ("1", "end") and user:
        wanted = 404  # who was deleted, and has no sessions
    assert response.status_code == wanted


@pytest.mark.parametrize("engine_name", ["memory", "redis", "mongodb", "sqlite", "postgres"])
def test_the_list_marks_none_as_the_own_one(Store, face, session, monkeypatch):
    monkeypatch.setattr(foreign.Site, "user", "ann")
    saved(face, Store, _auth_user_id="1")
    with site(OURS, "replacing", "by_token", MESSAGES):
        [shown] = visit(face, "sessions").context["sessions"]
        assert not shown.is_current
        assert visit(face, "sessions/end-others").status_code == 302
    assert user_sessions.count("1") == 0


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """One of Django's own."""
    name = f"django.contrib.sessions.backends.{request.param}"
    apps = [*settings.INSTALLED_APPS, "django.contrib.sessions"]
    with override_settings(INSTALLED_APPS=apps, SESSION_ENGINE=name, SESSION_FILE_PATH=str(tmp_path)):
        from django.contrib.sessions.models import Session as DjangosSession

        with connection.schema_editor() as editor:
            editor.create_model(DjangosSession)
        with override_settings(SESSION_CACHE_ALIAS="default"):
            yield name
        with connection.schema_editor() as editor:
            editor.delete_model(DjangosSession)


class TestEnginesOfDjango:
    @pytest.mark.usefixtures("_every")
    @pytest.mark.parametrize("page", ["count", "look", "untouched", "modified", "polled", "broken"])
    def test_cookies_are_those_of_djangos_middleware(self, engine, face, page):
        if face.name == "async":
            page = f"a{page}"
        seen = []
        for middleware in (OURS, DJANGOS):
            with site(middleware, AUTH):
                browser = Browser(face)
                first = browser.get("/count/" if face.name == "sync" else "/acount/")
                second = browser.get(f"/{page}/")
                seen.append([cookie_and_more(response) for response in (first, second)])
        assert seen[0] == seen[1]

    def test_a_session_goes_on(self, engine, face):
        with site(OURS, AUTH):
            browser = Browser(face)
            page = "/count/" if face.name == "sync" else "/acount/"
            assert [browser.get(page).json()["count"] for _ in range(3)] == [1, 2, 3]

    def test_a_session_deleted_meanwhile_is_a_400(self, engine, face, monkeypatch):
        if engine.endswith("signed_cookies"):
            return  # is nowhere to be deleted
        store = import_module(engine).SessionStore
        original = store.save

        def too_late(self: Any, must_create: bool = False) -> None:
            self.delete()
            original(self, must_create)

        async def atoo_late(self: Any, must_create: bool = False) -> None:
            from asgiref.sync import sync_to_async

            await sync_to_async(too_late)(self, must_create)

        page = "/count/" if face.name == "sync" else "/acount/"
        for middleware in (OURS, DJANGOS):
            with site(middleware, AUTH), monkeypatch.context() as patch:
                browser = Browser(face)
                browser.get(page)
                patch.setattr(store, "save", too_late)
                patch.setattr(store, "asave", atoo_late)
                assert browser.get(page).status_code == 400, middleware


def cookie_and_more(response: Any) -> tuple[Any, ...]:
    cookie = response.cookies.get(settings.SESSION_COOKIE_NAME)
    described = sorted(f"{name}={value}" for name, value in cookie.items() if name != "expires") if cookie else None
    return described, response.headers.get("Vary"), response.status_code
