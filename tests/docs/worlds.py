"""What a page's Python code finds, and what is then done with what it has made: one generator for each page.

A world yields the names that the page takes for granted, and goes on when all blocks of the page have run.
"""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from tempfile import TemporaryDirectory
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.file import SessionStore as FileStore
from django.core import mail
from django.dispatch import Signal
from django.http import HttpResponse, HttpResponseBadRequest, JsonResponse
from django.test import RequestFactory, override_settings

from django_multisession import signals
from django_multisession.engine import store
from django_multisession.models import PurgeRun
from django_multisession.purge import purge
from django_multisession.testing.stored import saved
from django_multisession.user_sessions import repair_index, revoke_all

World = Iterator[dict[str, Any]]
WORLDS: dict[str, Callable[[], World]] = {}
OUR_SIGNALS = [each for each in vars(signals).values() if isinstance(each, Signal)]


def of(page: str) -> Callable[[Callable[[], World]], Callable[[], World]]:
    def register(world: Callable[[], World]) -> Callable[[], World]:
        WORLDS[page] = world
        return world

    return register


def request_of(user: Any, session: Any = None, **data: str) -> Any:
    request = RequestFactory().post("/", data)
    request.user, request.session = user, session if session is not None else store()()
    return request


def session_of(user: Any) -> Any:
    """One in which the user is signed in."""
    return store()(saved(lambda each: each, store(), _auth_user_id=str(user.pk)))


def new_user() -> User:
    user, _ = User.objects.get_or_create(username="ann", email="ann@example.com")
    return user


def listened(signal: Signal, **arguments: Any) -> None:
    """The page's receiver gets what we send."""
    answers = signal.send_robust(sender=None, **arguments)
    assert answers
    for receiver, error in answers:
        assert not isinstance(error, Exception), (receiver, error)


@of("async.md")
def asynchronous() -> World:
    names: dict[str, Any] = {}
    yield names
    request = request_of(AnonymousUser())
    first, second = (asyncio.run(names["cart"](request)) for _ in range(2))
    assert [json.loads(each.content)["items"] for each in (first, second)] == [1, 2]


@of("concurrency.md")
def concurrency() -> World:
    async def sign_in(request: Any, state: Any) -> HttpResponse:
        return HttpResponse(state)

    names: dict[str, Any] = {
        "JsonResponse": JsonResponse,
        "HttpResponseBadRequest": HttpResponseBadRequest,
        "count": lambda user: 3,
        "sign_in": sign_in,
    }
    yield names
    request = request_of(AnonymousUser())
    counted = [names["add_to_cart"](request, SimpleNamespace(key="hat", stock=2)) for _ in range(3)]
    assert [json.loads(each.content)["count"] for each in counted] == [1, 2, 2]
    request.session["openid_states"] = {"of this tab": "nonce"}
    request.GET = {"state": "of this tab"}
    assert [asyncio.run(names["callback"](request)).status_code for _ in range(2)] == [200, 400]
    assert json.loads(names["unread"](request).content) == {"unread": 3}


@of("db.md")
def sql() -> World:
    with override_settings(SESSION_ENGINE="django_multisession.backends.db"):
        session_of(SimpleNamespace(pk=42))
        yield {}
        assert purge(created_before=0).rows == 1
        PurgeRun.objects.all().delete()


def remembered(path: str) -> Any:
    """Its class looks at the setting once in a process."""
    return mock.patch.object(FileStore, "_storage_path", path, create=True)


@of("moving.md")
def moving() -> World:
    sides = {"from": "django.contrib.sessions.backends.file", "to": "django_multisession.backends.memory"}
    engine = {"SESSION_ENGINE": "django_multisession.backends.moving", "MULTISESSION_MOVE": {**sides, "phase": "move"}}
    with TemporaryDirectory() as there, override_settings(**engine, SESSION_FILE_PATH=there), remembered(there):
        FileStore().create()
        names: dict[str, Any] = {}
        yield names
        assert (names["moved"].moved, names["moved"].reason) == (1, "done")


@of("purging.md")
def purging() -> World:
    with override_settings(SESSION_ENGINE="django_multisession.backends.db"):
        names: dict[str, Any] = {}
        yield names
        assert names["purged"].reason == "done"
        PurgeRun.objects.all().delete()
        listened(signals.sessions_purged, purged=names["purged"], table="django_multisession_session")


@of("redis.md")
def redis_clients() -> World:
    names: dict[str, Any] = {}
    yield names
    with names["mysite.clients"].sessions() as client:
        assert client.connection_pool.connection_kwargs["socket_timeout"] == 2


@of("mongodb.md")
def mongodb_clients() -> World:
    names: dict[str, Any] = {}
    yield names
    with names["mysite.clients"].sessions() as client:
        assert client.get_default_database().name == "mysite"


@of("settings.md")
def settings() -> World:
    """The modules that its examples name."""
    clients, proxies, sessions = (ModuleType(f"mysite.{name}") for name in ("clients", "proxies", "sessions"))
    clients.sessions = proxies.client_ip = sessions.higher = max  # type: ignore[attr-defined]
    with mock.patch.dict(os.environ, SESSION_KEY="5" * 64):
        yield {each.__name__: each for each in (clients, proxies, sessions)}


@of("sessions-api.md")
def sessions_api() -> World:
    user = new_user()
    session, other = session_of(user), session_of(user)
    request = request_of(user, session, id="0123456789abcdef")
    names: dict[str, Any] = {"request": request}
    yield names
    assert (store()().exists(session.session_key), store()().exists(other.session_key)) == (True, False)
    assert (names["found"].sessions, names["found"].users, names["found"].complete) == (1, 1, True)
    told = {"user_id": str(user.pk), "id": "0123456789abcdef"}
    mail.outbox.clear()
    for is_new in (False, True):
        listened(signals.session_started, **told, device=None, ip="192.0.2.1", is_new_device=is_new)
    assert [message.to for message in mail.outbox] == [["ann@example.com"]]
    listened(signals.session_ended, **told, reason="logout")
    user.delete()


@of("sessions-lost-index.md")
def lost_index() -> World:
    user = new_user()
    session = session_of(user)
    yield {"user": user, "revoke_all": revoke_all, "repair_index": repair_index}
    assert not store()().exists(session.session_key)
    user.delete()


@of("sessions-pages.md")
def sessions_pages() -> World:
    names: dict[str, Any] = {}
    try:
        yield names
        model_admin = admin.site.get_model_admin(User)
        assert isinstance(model_admin, names["PeopleAdmin"])
        assert "end_all_sessions" in model_admin.actions
    finally:
        if admin.site.is_registered(User):
            admin.site.unregister(User)
        admin.site.register(User, UserAdmin)


@of("sessions-policies.md")
def policies() -> World:
    names: dict[str, Any] = {}
    yield names
    request = RequestFactory().get("/", headers={"X-Forwarded-For": "203.0.113.9,192.0.2.1"})
    assert names["mysite.proxies"].client_ip(request) == "192.0.2.1"
    assert [names["most_sessions"]("42", data) for data in ({"kiosk": True}, {})] == [1, 5]
    seen = {"ip": None, "user_agent": None}
    listened(signals.session_client_changed, user_id="42", id="0", changed="browser", before=seen, now=seen)
    user = new_user()
    request = request_of(AnonymousUser())
    names["look_in"](request, user.pk)
    assert names["change_email"](request).status_code == 302  # to the login page: nobody has signed in
    errors: list[Any] = []
    form = SimpleNamespace(add_error=lambda field, error: errors.append(error))
    user.backend = "django.contrib.auth.backends.ModelBackend"
    with override_settings(MULTISESSION_MAX_PER_USER=0, MULTISESSION_ON_MAX="refuse"):
        names["signed_in"](request_of(AnonymousUser()), user, form)
    assert errors == ["Sign out on another device first."]
    names["signed_in"](request := request_of(AnonymousUser()), user, form)
    assert names["change_email"](request) is None
    assert len(errors) == 1
    user.delete()
