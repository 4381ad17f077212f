"""A log-in that is refused: the page that says why, and its offer to sign out the oldest session."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import signing
from django.test import Client, override_settings
from django.urls import include, path

from django_multisession import responses
from django_multisession.testing.stored import close_connections, saved
from django_multisession.user_sessions import sessions_of

from ..browsers import AUTH, COOKIE, DJANGOS, OURS, Browser, new_user
from ..urls import urlpatterns as pages

urlpatterns = [*pages, path("sessions/", include("django_multisession.urls"))]
JSON = {"accept": "application/json"}
OFFER = "/sessions/sign-out-oldest/"


@pytest.fixture(params=["redis", "sqlite"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _site(Store: Any) -> Iterator[None]:
    limited = {"MULTISESSION_MAX_PER_USER": 2, "MULTISESSION_ON_MAX": "refuse", "LOGIN_URL": "/sign_in/"}
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[OURS, AUTH], **limited):
        yield


@pytest.fixture
def ann(Store: Any) -> Iterator[Any]:
    user = new_user("ann")
    yield user
    user.delete()


@pytest.fixture
def full(Store: Any, ann: Any, clock: Any) -> list[str]:
    """The keys of as many sessions as are allowed, the oldest first."""
    keys = []
    for _ in range(2):
        keys.append(saved(lambda store: store, Store, _auth_user_id=str(ann.pk)))
        clock.shift(1)
    return keys


def sign_in(face: Any, **headers: str) -> Any:
    return Browser(face).get(f"/{'a' if face.name == 'async' else ''}sign_in_as/ann/", **headers)


def token_in(page: str) -> str:
    return re.findall(r'name="token" value="([^"]+)"', page)[0]


def test_it_says_why_and_offers_to_sign_out_the_oldest(face, ann, full):
    answer = sign_in(face)
    assert answer.status_code == 403
    assert "as many devices as are allowed (2)" in answer.text
    assert f'action="{OFFER}"' in answer.text
    assert COOKIE not in answer.cookies or not answer.cookies[COOKIE].value
    assert "no-store" in answer.headers["Cache-Control"]
    assert len(sessions_of(ann)) == 2


def test_the_offer_ends_the_oldest_and_signs_nobody_in(Store, face, ann, full):
    client = Client(enforce_csrf_checks=True)
    answer = client.post(OFFER, {"token": token_in(sign_in(face).text)})
    assert answer.status_code == 200
    assert "The oldest session was signed out." in answer.text
    assert 'href="/sign_in/"' in answer.text
    assert COOKIE not in answer.cookies
    assert [Store().exists(key) for key in full] == [False, True]
    assert sign_in(face).status_code == 200


def test_the_offer_is_for_strangers_where_every_view_needs_a_log_in(Store, face, ann, full):
    added = "django.contrib.auth.middleware.LoginRequiredMiddleware"
    token = token_in(sign_in(face).text)
    with override_settings(MIDDLEWARE=[OURS, AUTH, added]):
        assert Client().post(OFFER, {"token": token}).status_code == 200
    assert len(sessions_of(ann)) == 1


def test_it_works_once(face, ann, full):
    token = token_in(sign_in(face).text)
    assert Client().post(OFFER, {"token": token}).status_code == 200
    sign_in(face)
    again = Client().post(OFFER, {"token": token})
    assert (again.status_code, "has ended already" in again.text) == (404, True)
    assert len(sessions_of(ann)) == 2


@pytest.mark.slow
def test_of_twenty_at_once_one_ends_a_session(face, ann, full):
    token = token_in(sign_in(face).text)

    def use(_: int) -> int:
        try:
            return Client().post(OFFER, {"token": token}, headers=JSON).status_code
        finally:
            close_connections()

    with ThreadPoolExecutor(20) as pool:
        assert sorted(pool.map(use, range(20))) == [204] + [404] * 19
    assert len(sessions_of(ann)) == 1


def test_it_lives_for_minutes(face, ann, full, monkeypatch):
    token = token_in(sign_in(face).text)
    monkeypatch.setattr(responses, "TOKEN_AGE", -1)
    late = Client().post(OFFER, {"token": token})
    assert (late.status_code, "This offer has expired." in late.text) == (400, True)
    assert len(sessions_of(ann)) == 2


def test_a_forged_one_ends_nothing(Store, ann, full):
    [_, oldest] = sessions_of(ann)
    forged = signing.dumps([str(ann.pk), oldest.id], salt="another")
    for token in ("", "x", forged):
        assert Client().post(OFFER, {"token": token}).status_code == 400
    assert Client().get(OFFER).status_code == 405
    assert len(sessions_of(ann)) == 2


def test_json(face, ann, full):
    answer = sign_in(face, **JSON)
    assert answer.status_code == 409
    found = answer.json()
    assert (found["error"], found["limit"]) == ("too_many_sessions", 2)
    offer = found["sign_out_oldest"]
    done = [Client().post(offer["url"], {"token": offer["token"]}, headers=JSON) for _ in range(2)]
    assert [each.status_code for each in done] == [204, 404]
    assert done[1].json()["error"] == "not_found"


def test_the_token_may_be_sent_as_json(face, ann, full):
    offer = sign_in(face, **JSON).json()["sign_out_oldest"]
    sent = [{"token": offer["token"]}, {"token": offer["token"]}, {"token": "x"}, {}, [], None]
    done = [Client().post(offer["url"], each, "application/json", headers=JSON).status_code for each in sent]
    assert done == [204, 404, 400, 400, 400, 400]


def test_without_the_pages_it_says_why_alone(face, ann, full):
    with override_settings(ROOT_URLCONF="tests.urls"):
        assert "<form" not in sign_in(face).text
        assert "sign_out_oldest" not in sign_in(face, **JSON).json()


def test_the_sites_own_template(face, ann, full, tmp_path):
    (tmp_path / "django_multisession").mkdir()
    (tmp_path / "django_multisession" / "refused.html").write_text("No more than {{ limit }}.")
    with override_settings(
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [tmp_path]}]
    ):
        assert sign_in(face).text == "No more than 2."


def test_a_view_that_saves_by_itself_is_answered_so_too(Store, ann, full):
    """`TooManySessions` leaves the view then, and not the middleware."""
    with override_settings(ROOT_URLCONF=saving):
        answer = Client().get("/save/")
    assert answer.status_code == 403
    assert "as many devices as are allowed" in answer.text


def _save(request: Any) -> None:
    request.session["_auth_user_id"] = str(get_user_model().objects.get(username="ann").pk)
    request.session.save()


class saving:
    urlpatterns = [path("save/", _save)]


def test_with_djangos_middleware_it_is_its_403(face, ann, full):
    with override_settings(MIDDLEWARE=[DJANGOS, AUTH]):
        answer = sign_in(face)
    assert answer.status_code == 403
    assert "token" not in answer.text
