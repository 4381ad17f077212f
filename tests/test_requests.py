"""Engines behind Django's own middleware and `django.contrib.auth`, sync and async."""

import asyncio
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connections
from django.test import AsyncClient, Client, override_settings

from django_multisession.records import identify
from django_multisession.twins import run_sync

from .conftest import ENGINES

COOKIE = settings.SESSION_COOKIE_NAME


@pytest.fixture(params=list(ENGINES))
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ann() -> Any:
    user, _ = get_user_model().objects.get_or_create(username="ann")
    user.set_password("secret")
    user.save()
    yield user
    user.delete()


@pytest.fixture
def client(Store, ann) -> Client:
    return Client()


def key_of(client: Any) -> str:
    return str(client.cookies[COOKIE].value)


def sessions_of(Store: Any, user: Any) -> list[str]:
    return [record.id for record in run_sync(Store.storage.of_user(str(user.pk)))]


def test_signing_in_links_the_session_to_its_user(Store, client, ann):
    client.get("/count/")
    anonymous = key_of(client)
    client.get("/sign_in/")
    assert key_of(client) != anonymous
    assert Store().exists(anonymous) is False
    assert sessions_of(Store, ann) == [identify(key_of(client))]
    assert client.get("/count/").json() == {"user": "ann", "count": 2}


def test_signing_in_asynchronously_links_it_too(Store, ann):
    client = AsyncClient()
    asyncio.run(client.get("/asign_in/"))
    assert sessions_of(Store, ann) == [identify(key_of(client))]
    assert dict(Store(key_of(client)).items())["async"] is True


def test_a_changed_password_keeps_the_own_session(Store, client, ann):
    client.get("/sign_in/")
    key = key_of(client)
    client.get("/change_password/")
    assert client.get("/look/").json()["user"] == "ann"
    assert key_of(client) != key
    assert sessions_of(Store, ann) == [identify(key_of(client))]


@pytest.mark.parametrize("face", ["sync", "async"])
def test_signing_out_ends_the_session(Store, client, ann, face):
    client.get("/sign_in/")
    key = key_of(client)
    if face == "sync":
        client.get("/sign_out/")
    else:
        asynchronous = AsyncClient()
        asynchronous.cookies[COOKIE] = key
        asyncio.run(asynchronous.get("/asign_out/"))
    assert sessions_of(Store, ann) == []
    client.cookies[COOKIE] = key
    assert client.get("/look/").json()["user"] == ""


def test_force_login_and_the_clients_session(Store, client, ann):
    client.force_login(ann)
    session = client.session
    session["count"] = 5
    session.save()
    assert client.get("/count/").json() == {"user": "ann", "count": 6}


def test_a_session_deleted_during_the_request_answers_400(Store, client):
    client.get("/count/")
    key = key_of(client)

    class Deleting(Store):
        def save(self, must_create: bool = False) -> None:
            if self.session_key == key:
                Store(key).delete()
            super().save(must_create)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("django.contrib.sessions.middleware.SessionMiddleware.process_request", use(Deleting))
        assert client.get("/count/").status_code == 400
    assert Store().exists(key) is False


def use(store: Any) -> Any:
    def process_request(self: Any, request: Any) -> None:
        request.session = store(request.COOKIES.get(COOKIE))

    return process_request


def test_a_view_that_looks_at_no_session_does_not_vary(client):
    client.get("/count/")
    assert "Cookie" not in client.get("/untouched/").headers.get("Vary", "")
    assert "Cookie" in client.get("/look/").headers["Vary"]


def test_an_unknown_cookie_is_not_adopted(Store, client):
    client.cookies[COOKIE] = "attackerattackerattackerattacker"
    client.get("/count/")
    assert key_of(client) != "attackerattackerattackerattacker"
    assert Store().exists("attackerattackerattackerattacker") is False


@pytest.mark.parametrize("query", ["", "?save"])
def test_a_rolled_back_view_saves_its_session(Store, client, query):
    client.get("/count/")
    for connection in connections.all():
        connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        client.get(f"/fail_in_the_view/{query}")
    finally:
        for connection in connections.all():
            connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert client.get("/look/").json()["count"] == 99


def test_save_every_request_moves_the_expiry(Store, client, clock):
    client.get("/count/")
    before = run_sync(Store.storage.read(identify(key_of(client))))
    clock.shift(3600)
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        client.get("/look/")
    after = run_sync(Store.storage.read(identify(key_of(client))))
    assert after.expires_at > before.expires_at
    assert after.version == before.version
