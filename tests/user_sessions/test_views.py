""" "Your sessions", through Django's request and response, on every engine."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import AsyncClient, Client, override_settings
from django.urls import include, path
from django.utils import translation

from django_multisession.backends.redis import storage as redis_storage
from django_multisession.records import identify
from django_multisession.twins import run_sync
from django_multisession.user_sessions import passes, sessions_of, views

from ..conftest import ENGINES
from ..urls import urlpatterns as pages

urlpatterns = [*pages, path("sessions/", include("django_multisession.urls"))]

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
BUTTON = '<button id="end-'
MIDDLEWARE = [
    "django_multisession.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]


@pytest.fixture(params=list(ENGINES))
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _site(Store: Any) -> Iterator[None]:
    options = {"ROOT_URLCONF": __name__, "MIDDLEWARE": MIDDLEWARE, "MULTISESSION_TRACK_CLIENT": True}
    with override_settings(LOGIN_URL="/sign_in/", **options):
        yield


@pytest.fixture
def user_of(_databases: None) -> Iterator[Any]:
    made = []

    def user_of(name: str) -> Any:
        user, _ = get_user_model().objects.get_or_create(username=name)
        user.set_password("secret")
        user.save()
        made.append(user)
        return user

    yield user_of
    for user in made:
        user.delete()


def browser(user: Any, **headers: str) -> Client:
    """A client in which the user is signed in by a request of its own, as in a browser."""
    client = Client(headers={"user-agent": FIREFOX, **headers}, enforce_csrf_checks=True)
    assert user.username == "ann"
    client.get("/sign_in/")
    return client


def token(client: Client) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', client.get("/sessions/").text)
    assert found
    return found[1]


def post(client: Client, path: str) -> Any:
    return client.post(path, {"csrfmiddlewaretoken": token(client)}, follow=True)


def signed_in(client: Client) -> bool:
    return bool(client.get("/look/").json()["user"])


def test_it_lists_the_sessions_and_marks_the_own(user_of):
    ann = user_of("ann")
    one, _ = browser(ann), browser(ann, **{"user-agent": "curl/8.0"})
    page = one.get("/sessions/").text
    assert page.count(BUTTON) == 2
    assert page.count('aria-current="true"') == 1
    assert "Firefox on Linux" in page
    assert page.count("127.0.0.1") == 2
    assert one.cookies[settings.SESSION_COOKIE_NAME].value not in page


def test_of_a_stranger_it_wants_a_log_in():
    for method, page in (("get", ""), ("post", "end/abc/"), ("post", "end-others/"), ("post", "repair/")):
        response = getattr(Client(), method)(f"/sessions/{page}")
        assert response.status_code == 302
        assert response.url == "/sign_in/?next=/sessions/"


def test_a_session_is_ended(user_of):
    ann = user_of("ann")
    one, other = browser(ann), browser(ann)
    [theirs] = [each for each in sessions_of(ann, one_request(one)) if not each.is_current]
    assert "That session was signed out." in post(one, f"/sessions/end/{theirs.id}/").text
    assert not signed_in(other)
    assert signed_in(one)
    assert "There is no such session" in post(one, f"/sessions/end/{theirs.id}/").text


def one_request(client: Client) -> Any:
    class Request:
        session = client.session

    return Request()


def test_all_others_are_ended(user_of):
    ann = user_of("ann")
    one, *others = (browser(ann) for _ in range(4))
    assert "3 sessions were signed out." in post(one, "/sessions/end-others/").text
    assert [signed_in(each) for each in (one, *others)] == [True, False, False, False]
    assert "There are no other sessions." in one.get("/sessions/").text


def test_the_own_session_is_ended_as_by_signing_out(user_of):
    ann = user_of("ann")
    one = browser(ann)
    [own] = sessions_of(ann)
    response = one.post(f"/sessions/end/{own.id}/", {"csrfmiddlewaretoken": token(one)})
    assert response.status_code == 302
    assert not signed_in(one)
    assert sessions_of(ann) == []


def test_nobody_sees_or_ends_a_session_of_another(user_of):
    ann, bob = user_of("ann"), user_of("bob")
    one, other = browser(ann), Client()
    other.force_login(bob)
    [theirs] = sessions_of(bob)
    assert theirs.id not in one.get("/sessions/").text
    assert "There is no such session" in post(one, f"/sessions/end/{theirs.id}/").text
    assert "0 sessions were signed out." in post(one, "/sessions/end-others/").text
    assert signed_in(other)


@pytest.mark.parametrize(("page", "asked"), [("end/abc/", 405), ("end-others/", 200), ("repair/", 405)])
def test_ending_takes_a_post_with_a_token(user_of, page, asked):
    one = browser(user_of("ann"))
    assert one.get(f"/sessions/{page}").status_code == asked
    assert one.post(f"/sessions/{page}").status_code == 403


def test_hostile_headers_are_escaped(user_of):
    one = browser(user_of("ann"), **{"user-agent": "<script>alert(1)</script>" + "x" * 9999})
    page = one.get("/sessions/").text
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "x" * 300 not in page


def test_it_works_without_messages(user_of):
    ann = user_of("ann")
    with override_settings(MIDDLEWARE=MIDDLEWARE[:2]):
        one = browser(ann)
        assert post(one, "/sessions/end-others/").status_code == 200


def test_it_is_never_cached(user_of):
    assert "no-store" in browser(user_of("ann")).get("/sessions/").headers["Cache-Control"]


def test_it_speaks_the_language_of_the_request(user_of):
    one = browser(user_of("ann"))
    with translation.override("de"):
        page = one.get("/sessions/").text
    assert '<html lang="de">' in page
    assert "Ihre Sitzungen" in page


def test_it_works_on_an_asynchronous_server(user_of, runner):
    ann = user_of("ann")
    one, other = AsyncClient(headers={"user-agent": FIREFOX}), browser(ann)

    async def visit() -> Any:
        await one.get("/sign_in/")
        assert (await one.get("/sessions/")).text.count(BUTTON) == 2
        return await one.post("/sessions/end-others/", follow=True)

    page = runner.run(visit())
    assert "1 session was signed out." in page.text
    assert page.text.count(BUTTON) == 1
    assert not signed_in(other)


@pytest.mark.parametrize("engine_name", ["redis"])
def test_a_store_that_does_not_answer_is_a_503(Store, user_of):
    """Sessions can be read here, and the index of the users' cannot."""
    one = browser(user_of("ann"))
    form = {"csrfmiddlewaretoken": token(one)}
    client = Store.storage.client
    client.execute_command("ACL", "SETUSER", "default", "-@sortedset")
    try:
        assert one.get("/sessions/").status_code == 503
        for page in ("end/abc/", "end-others/"):
            assert one.post(f"/sessions/{page}", form).status_code == 503
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+@sortedset")
    assert signed_in(one)


def test_a_long_list_is_paged_and_all_others_are_ended(Store, user_of, clock, monkeypatch):
    monkeypatch.setattr(views, "PER_PAGE", 3)
    ann = user_of("ann")
    one = browser(ann)
    clock.shift(timedelta(seconds=1))  # or all may have been seen in the same millisecond
    for _ in range(5):
        start(Store, ann)
    pages = [one.get(f"/sessions/?page={number}").text for number in (1, 2)]
    assert [page.count(BUTTON) for page in pages] == [3, 3]
    assert pages[0].index('aria-current="true"') < pages[0].index(BUTTON)  # the own one is the oldest, and comes first
    assert 'aria-current="true"' not in pages[1]
    assert ["Page 1 of 2" in pages[0], "Page 2 of 2" in pages[1]] == [True, True]
    assert ['rel="next" href="?page=2"' in pages[0], 'rel="prev" href="?page=1"' in pages[1]] == [True, True]
    assert one.get("/sessions/?page=nonsense").text.count(BUTTON) == 3
    assert "5 sessions were signed out." in post(one, "/sessions/end-others/").text
    assert len(sessions_of(ann)) == 1
    assert "Page 1" not in one.get("/sessions/").text


def start(Store: Any, user: Any) -> str:
    session = Store()
    session["_auth_user_id"] = str(user.pk)
    session.save()
    return str(session.session_key)


def test_of_a_complete_list_nothing_is_repaired(user_of, monkeypatch):
    monkeypatch.setattr(views, "repair_index", None)
    one = browser(user_of("ann"))
    assert "incomplete" not in post(one, "/sessions/repair/").text


@pytest.mark.parametrize("engine_name", ["redis"])
class TestLostIndex:
    @pytest.fixture
    def client(self, Store: Any) -> Any:
        return Store.storage.client

    @pytest.fixture
    def ann(self, user_of: Any) -> Any:
        return user_of("ann")

    @pytest.fixture
    def lose_index(self, client: Any, ann: Any) -> Any:
        def lose() -> None:
            assert client.delete(f"session:user:{ann.pk}") == 1  # as an eviction does

        return lose

    def test_a_get_tells_it_and_repairs_nothing(self, client, ann, lose_index):
        one, _ = browser(ann), browser(ann)
        lose_index()
        client.config_resetstat()
        page = one.get("/sessions/").text
        assert "This list may be incomplete" in page
        assert page.count(BUTTON) == 1
        assert "There are no other sessions." not in page
        assert "cmdstat_scan" not in client.info("commandstats")
        assert not client.exists(f"session:user:{ann.pk}")

    def test_ending_all_others_tells_it_and_not_that_all_is_done(self, ann, lose_index):
        one, other = browser(ann), browser(ann)
        form = {"csrfmiddlewaretoken": token(one)}
        lose_index()
        page = one.post("/sessions/end-others/", form, follow=True).text
        assert "0 sessions were signed out." in page
        assert "There may be more." in page
        assert "This list may be incomplete" in page
        assert signed_in(other)
        assert "The list is complete again." in post(one, "/sessions/repair/").text
        assert "1 session was signed out." in post(one, "/sessions/end-others/").text
        assert not signed_in(other)
        assert "incomplete" not in one.get("/sessions/").text

    def test_a_server_that_may_have_lost_some_is_looked_through_once(self, Store, ann, monkeypatch):
        """It has evicted something, of whomever: that stays so when all is found."""

        async def may_miss(user_id: str) -> bool:
            return True

        monkeypatch.setattr(Store.storage, "may_miss", may_miss)
        one, other = browser(ann), browser(ann)
        page = post(one, "/sessions/end-others/").text
        assert "1 session was signed out." in page
        assert "There may be more." in page
        assert "The list is complete again." in post(one, "/sessions/repair/").text
        assert "may be" not in post(one, "/sessions/end-others/").text
        assert not signed_in(other)

    def test_and_so_it_does_without_messages(self, ann, lose_index):
        with override_settings(MIDDLEWARE=MIDDLEWARE[:2]):
            one = browser(ann)
            form = {"csrfmiddlewaretoken": token(one)}
            lose_index()
            assert "This list may be incomplete" in one.post("/sessions/end-others/", form, follow=True).text

    def test_a_session_that_is_not_listed(self, ann, lose_index):
        one, other = browser(ann), browser(ann)
        [theirs] = [each for each in sessions_of(ann, one_request(one)) if not each.is_current]
        form = {"csrfmiddlewaretoken": token(one)}
        lose_index()
        page = one.post(f"/sessions/end/{theirs.id}/", form, follow=True).text
        assert "was not found, but the list may be incomplete" in page
        assert signed_in(other)

    def test_the_repair_goes_on_where_it_ended(self, Store, client, ann, lose_index, monkeypatch):
        monkeypatch.setattr(passes, "PAGE", 5)
        monkeypatch.setattr(views, "REPAIR_PAGES", 2)
        one, other = browser(ann), browser(ann)
        for _ in range(98):
            start(Store, ann)
        lose_index()
        form = {"csrfmiddlewaretoken": token(one)}
        found, presses = 0, 0
        while "may be incomplete" in one.get("/sessions/").text:
            client.config_resetstat()
            page = one.post("/sessions/repair/", form, follow=True).text
            assert client.info("commandstats")["cmdstat_scan"]["calls"] <= 2 * redis_storage.MOST_SCANS
            found += int(re.findall(r"(\d+) sessions? w\w+ found", page)[0])
            presses += 1
            told = "have been looked through yet" in page, "Go on looking" in page, "complete again" not in page
            assert len(set(told)) == 1
        assert found == 100
        assert presses > 3
        assert len(sessions_of(ann)) == 100
        post(one, "/sessions/end-others/")
        assert not signed_in(other)

    def test_activity_that_lists_the_own_session_does_not_hide_it(self, Store, ann, lose_index):
        one, _ = browser(ann), browser(ann)
        lose_index()
        one.get("/sessions/")
        own = one.cookies[settings.SESSION_COOKIE_NAME].value
        run_sync(Store.storage.index([run_sync(Store.storage.read(identify(own)))]))
        assert sessions_of(ann, one_request(one)).complete
        assert "This list may be incomplete" in one.get("/sessions/").text
        assert "There may be more." in post(one, "/sessions/end-others/").text

    def test_only_the_own_sessions_are_listed_again(self, client, user_of, ann, lose_index):
        one, bob = browser(ann), user_of("bob")
        other = Client()
        other.force_login(bob)
        lose_index()
        client.delete(f"session:user:{bob.pk}")
        assert "1 session was found." in post(one, "/sessions/repair/").text
        assert not client.exists(f"session:user:{bob.pk}")
