"""How a site has set its database up: transactions around views, connections that last or do not, a replica."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.signals import request_finished, request_started
from django.db import connections, transaction
from django.http import HttpRequest, JsonResponse
from django.test import Client, override_settings
from django.urls import path

from django_multisession import engine, user_sessions
from django_multisession.backends.cached_db import transactions
from django_multisession.testing.faces import SyncFace
from django_multisession.testing.stored import saved
from tests.browsers import COOKIE, DJANGOS, OURS
from tests.routers import SessionRouter

from .test_transactions import elsewhere, is_cached


@pytest.fixture(params=["cached_sqlite", "cached_postgres"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def save(request: HttpRequest) -> JsonResponse:
    """Saves within the view, and answers what it sees of that and what others do."""
    Store, key = engine.store_class(), request.session.session_key
    request.session["a"] = 2
    request.session.save()
    found = {"within": Store(key).load(), "others": elsewhere(Store(key).load)}
    if "fails" in request.GET:
        raise RuntimeError
    return JsonResponse(found)


urlpatterns = [path("save/", save)]


@pytest.fixture(params=[OURS, DJANGOS], ids=["ours", "Django's"])
def browser(request: Any, Store: Any, monkeypatch: Any) -> Iterator[Client]:
    """Of a session that is copied, on a site with a transaction around each view."""
    monkeypatch.setitem(connections.settings[SessionRouter.alias], "ATOMIC_REQUESTS", True)
    found = Client(raise_request_exception=False)
    found.cookies[COOKIE] = key = saved(SyncFace(), Store, a=1)
    Store(key).load()
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[request.param]):
        yield found


def test_atomic_requests(Store, browser):
    key = browser.cookies[COOKIE].value
    assert browser.get("/save/").json() == {"within": {"a": 2}, "others": {"a": 1}}
    assert [Store(key).load() for _ in range(2)] == [{"a": 2}] * 2


def test_atomic_requests_of_a_view_that_fails(Store, browser):
    key = browser.cookies[COOKIE].value
    assert browser.get("/save/?fails").status_code == 500
    assert is_cached(Store, key)
    assert [Store(key).load() for _ in range(2)] == [{"a": 1}] * 2
    assert not transactions.PENDING


@pytest.mark.parametrize("age", [0, 600, None])
def test_connections_that_last_and_that_do_not(Store, face, monkeypatch, age):
    """Django closes what is too old at the beginning and at the end of each request, in the request's thread."""
    connection = face.run(lambda: connections[SessionRouter.alias])
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", age)
    face.run(connection.close)  # it asks for its age when it is opened
    key = saved(face, Store, a=0)
    for number in range(1, 4):
        face.run(lambda: request_started.send(None))
        assert [face(Store(key)).load() for _ in range(2)] == [{"a": number - 1}] * 2
        face.run(lambda: changing_in_a_transaction(Store, key, number))  # noqa: B023
        face.run(lambda: request_finished.send(None))
        assert (connection.connection is None) is (age == 0)
    assert not transactions.PENDING


def changing_in_a_transaction(Store: Any, key: str, number: int) -> None:
    with transaction.atomic(using=SessionRouter.alias):
        session = Store(key)
        session["a"] = number
        session.save()
        assert Store(key).load() == {"a": number}


class WithReplica(SessionRouter):
    """A replica lags behind. Of this one any use is an error: there is no such database."""

    def db_for_read(self, model: type, **hints: object) -> str | None:
        return "replica" if model._meta.app_label == "django_multisession" else None


def test_a_replica_is_never_read(Store, face):
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.WithReplica"]):
        key = saved(face, Store, a=1, _auth_user_id="9")
        for number in (1, 2):
            session = face(Store(key))
            assert session.load()["a"] == number
            session["a"] = number + 1
            session.save()
        session.cycle_key()
        assert face(Store(key)).load() == {}
        assert face.functions(user_sessions).revoke_all("9").ended == 1
        assert face(Store(session.session_key)).load() == {}
