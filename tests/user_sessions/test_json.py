"""The pages for users as JSON: `Accept: application/json`, and `DELETE`."""

import json
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.test import Client, override_settings
from django.utils.dateparse import parse_datetime

from django_multisession.testing.stored import saved
from django_multisession.user_sessions import sessions_of, views

from .test_views import _site, browser, one_request, signed_in, token, user_of  # noqa: F401  fixtures

JSON = {"accept": "application/json"}


@pytest.fixture
def ann(user_of: Any) -> Any:  # noqa: F811
    return user_of("ann")


@pytest.fixture(params=["redis", "sqlite"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def listed(client: Client, query: str = "") -> Any:
    response = client.get(f"/sessions/{query}", headers=JSON)
    assert response.headers["Content-Type"] == "application/json"
    assert "Accept" in response.headers["Vary"]
    return response.json()


def delete(client: Client, path: str, **data: Any) -> Any:
    headers = {"x-csrftoken": token(client)}
    return client.delete(f"/sessions/{path}", json.dumps(data), "application/json", headers=headers)


def test_the_list(Store, ann):
    one, _ = browser(ann), browser(ann, **{"user-agent": "curl/8.0"})
    found = listed(one)
    assert set(found) == {"sessions", "complete", "more"}
    assert (found["complete"], found["more"]) == (True, 0)
    own, other = found["sessions"]
    assert set(own) == {"id", "created_at", "last_seen", "expires_at", "ip", "user_agent", "device", "is_current"}
    assert (own["is_current"], own["ip"], own["device"]) == (True, "127.0.0.1", "Firefox on Linux")
    assert (other["is_current"], other["user_agent"]) == (False, "curl/8.0")
    [known] = [each for each in sessions_of(ann, one_request(one)) if not each.is_current]
    assert other["id"] == known.id
    assert abs((parse_datetime(other["created_at"]) - known.created_at).total_seconds()) < 0.001
    assert one.cookies[settings.SESSION_COOKIE_NAME].value not in json.dumps(found)


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        ("application/json; version=1.0", True),  # as Django REST framework's clients ask
        ("application/json; indent=4, */*; q=0.1", True),
        ("application/json; version=1; q=0.2, */*", False),
        ("application/json", True),
        ("application/json, text/html;q=0.5", True),
        ("application/json; charset=utf-8", True),
        ("application/json;charset=UTF-8;q=0.9, */*;q=0.1", True),
        ("text/html;q=0, application/json;q=abc", True),
        (";/;, */", False),
        ("text/html", False),
        ("*/*", False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", False),
        ("text/csv", False),
        ("", False),
        ("application/json;q=0.1, text/html", False),
    ],
)
@pytest.mark.parametrize("engine_name", ["memory"])
def test_who_gets_json(Store, ann, accept, is_json):
    response = browser(ann).get("/sessions/", headers={"accept": accept})
    assert ("json" in response.headers["Content-Type"]) is is_json


def test_a_page_says_how_many_more_there_are(Store, ann, monkeypatch):
    monkeypatch.setattr(views, "PER_PAGE", 2)
    one = browser(ann)
    for _ in range(4):
        saved(lambda store: store, Store, _auth_user_id=str(ann.pk))
    found = [listed(one, f"?page={number}") for number in (1, 2, 3)]
    assert [len(each["sessions"]) for each in found] == [2, 2, 1]
    assert [each["more"] for each in found] == [3, 1, 0]
    assert len({session["id"] for each in found for session in each["sessions"]}) == 5


def test_one_is_ended(Store, ann):
    one, other = browser(ann), browser(ann)
    id = listed(one)["sessions"][1]["id"]
    gone = delete(one, f"end/{id}/")
    assert (gone.status_code, gone.content) == (204, b"")
    assert not signed_in(other)
    again = delete(one, f"end/{id}/")
    assert (again.status_code, again.json()["error"]) == (404, "not_found")
    assert set(again.json()) == {"error", "detail"}
    assert signed_in(one)


@pytest.mark.parametrize("id", ["nope!", "a.b", "%00", "%ED%A0%80", "ä", "a" * 5000])
def test_what_can_be_no_session_is_not_found(Store, ann, id):
    one = browser(ann)
    gone = delete(one, f"end/{id}/")
    assert (gone.status_code, gone.json()["error"]) == (404, "not_found")
    assert signed_in(one)


def test_the_own_one_is_a_sign_out(Store, ann):
    one = browser(ann)
    own = listed(one)["sessions"][0]
    assert delete(one, f"end/{own['id']}/").status_code == 204
    assert sessions_of(ann) == []


def test_that_of_another_is_not_found(Store, ann, user_of):  # noqa: F811
    bob = user_of("bob")
    other = Client()
    other.force_login(bob)
    [theirs] = sessions_of(bob)
    assert delete(browser(ann), f"end/{theirs.id}/").status_code == 404
    assert signed_in(other)


def test_all_others_are_ended(Store, ann):
    one, other = browser(ann), browser(ann)
    assert delete(one, "end-others/").status_code == 204
    assert [signed_in(one), signed_in(other)] == [True, False]


@pytest.mark.parametrize(("password", "status"), [("secret", 204), ("wrong", 403), (None, 403), (["secret"], 403)])
def test_all_others_with_the_password(Store, ann, password, status):
    with override_settings(MULTISESSION_CONFIRM_PASSWORD=True):
        one, other = browser(ann), browser(ann)
        answer = delete(one, "end-others/", **({} if password is None else {"password": password}))
    assert answer.status_code == status
    assert signed_in(other) is (status == 403)
    if status == 403:
        assert answer.json()["error"] == "password_needed"


@pytest.mark.parametrize("body", [b'{"password": "\\ud800"}', b"[" * 200_000, b"\xff", b"null"])
@pytest.mark.parametrize("engine_name", ["memory"])
def test_of_a_hostile_body_nothing_is_believed(Store, ann, body):
    with override_settings(MULTISESSION_CONFIRM_PASSWORD=True):
        one, other = browser(ann), browser(ann)
        headers = {"x-csrftoken": token(one)}
        answer = one.delete("/sessions/end-others/", body, "application/json", headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (403, "password_needed")
    assert signed_in(other)


def test_whose_password_is_hashed_anew_stays_signed_in(Store, ann):
    """As after an update of Django, whose hashers take more rounds with each."""
    ann.password = PBKDF2PasswordHasher().encode("secret", "salt", 1)
    ann.save()
    hashers = {"PASSWORD_HASHERS": ["django.contrib.auth.hashers.PBKDF2PasswordHasher"]}
    one, other = [Client(headers={"user-agent": "curl/8.0"}) for _ in range(2)]
    for each in (one, other):
        each.get("/sign_in_as/ann/")
    with override_settings(MULTISESSION_CONFIRM_PASSWORD=True, **hashers):
        assert delete(one, "end-others/", password="secret").status_code == 204
    ann.refresh_from_db()
    assert "$1$" not in ann.password
    assert [signed_in(one), signed_in(other)] == [True, False]


@pytest.mark.parametrize("path", ["end/abc/", "end-others/"])
@pytest.mark.parametrize("in_the_site", [True, False], ids=["the site checks too", "alone"])
def test_without_a_csrf_token_nothing_is_ended(Store, ann, path, in_the_site, caplog):
    added = ["django.middleware.csrf.CsrfViewMiddleware"] if in_the_site else []
    with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, *added]):
        one, other = browser(ann), browser(ann)
        refused = one.delete(f"/sessions/{path}")
    assert (refused.status_code, refused.json()["error"]) == (403, "csrf_failed")
    assert [record.levelname for record in caplog.records if record.name == "django.security.csrf"] == ["WARNING"]
    assert signed_in(other)


def test_of_a_stranger(Store):
    for method, path in (("get", ""), ("delete", "end/abc/"), ("delete", "end-others/")):
        response = getattr(Client(), method)(f"/sessions/{path}", headers=JSON)
        assert (response.status_code, response.json()["error"]) == (401, "not_signed_in")


def test_of_a_stranger_where_every_view_needs_a_log_in(Store):
    """`LoginRequiredMiddleware` would send a program to a page."""
    added = "django.contrib.auth.middleware.LoginRequiredMiddleware"
    with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, added]):
        test_of_a_stranger(Store)
        assert Client().get("/sessions/").url == "/sign_in/?next=/sessions/"


@pytest.mark.parametrize("path", ["end/abc/", "end-others/"])
def test_another_method(Store, ann, path):
    one = browser(ann)
    response = one.get(f"/sessions/{path}", headers=JSON)
    assert (response.status_code, response.json()["error"]) == (405, "method_not_allowed")
    assert response.headers["Allow"] == "POST, DELETE"
    assert response.json()["detail"] == "Use one of: POST, DELETE."


@pytest.mark.parametrize("engine_name", ["redis"])
def test_what_may_be_incomplete_says_so(Store, ann):
    one, other = browser(ann), browser(ann)
    headers = {"x-csrftoken": token(one)}
    assert Store.storage.client.delete(f"session:user:{ann.pk}") == 1
    assert listed(one)["complete"] is False
    answer = one.delete("/sessions/end-others/", headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"ended": 0, "complete": False})
    assert signed_in(other)
