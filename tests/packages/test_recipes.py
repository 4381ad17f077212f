"""The recipes of docs/recipes.md, as they stand there."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from channels.auth import AuthMiddlewareStack
from django.test import Client, override_settings
from django.urls import path

from django_multisession.records import identify
from django_multisession.signals import session_ended
from django_multisession.testing.stored import saved
from django_multisession.user_sessions import arevoke, arevoke_all, sessions_of
from django_multisession.user_sessions.lifecycle import handle

from ..browsers import AUTH, COOKIE, OURS, new_user
from ..test_docs import DOCS, blocks
from ..urls import urlpatterns as pages

SECONDS = 60  # at most, for an answer
LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


@pytest.fixture(params=["redis", "sqlite"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _site(Store: Any) -> Iterator[None]:
    with override_settings(MIDDLEWARE=[OURS, AUTH], CHANNEL_LAYERS=LAYERS, MULTISESSION_TRACK_CLIENT=True):
        yield


@pytest.fixture
def ann(Store: Any) -> Iterator[Any]:
    user = new_user("ann")
    yield user
    user.delete()


def recipe(word: str) -> dict[str, Any]:
    """What the block with this word defines."""
    [code] = [code for code in blocks(DOCS / "recipes.md", "python") if word in code]
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def browser(**options: Any) -> Client:
    client = Client(**options)
    client.get("/sign_in_as/ann/")
    return client


class TestRestFramework:
    @pytest.fixture(autouse=True)
    def _urls(self) -> Iterator[None]:
        names = recipe("rest_framework")

        class Urls:
            urlpatterns = [
                *pages,
                path("api/sessions/", names["SessionList"].as_view()),
                path("api/sessions/<id>/", names["SessionDetail"].as_view()),
            ]

        with override_settings(ROOT_URLCONF=Urls):
            yield

    def test_list(self, ann):
        one, _ = browser(), browser()
        found = one.get("/api/sessions/").json()
        assert found["complete"] is True
        assert sorted(each["is_current"] for each in found["sessions"]) == [False, True]
        assert {each["ip"] for each in found["sessions"]} == {"127.0.0.1"}

    def test_one_is_ended(self, ann):
        one, other = browser(), browser()
        [theirs] = [each for each in one.get("/api/sessions/").json()["sessions"] if not each["is_current"]]
        assert [one.delete(f"/api/sessions/{theirs['id']}/").status_code for _ in range(2)] == [204, 404]
        assert other.get("/api/sessions/").status_code == 403

    def test_all_others_are_ended(self, ann):
        one, *_ = (browser() for _ in range(3))
        assert one.delete("/api/sessions/").json() == {"ended": 2, "complete": True}
        assert len(sessions_of(ann)) == 1

    def test_strangers_and_forged_requests_are_refused(self, ann):
        assert Client().get("/api/sessions/").status_code == 403
        assert browser(enforce_csrf_checks=True).delete("/api/sessions/").status_code == 403
        assert len(sessions_of(ann)) == 1


class Socket:
    """A WebSocket of the recipe's consumer, with the cookie of a session."""

    def __init__(self, consumer: Any, key: str) -> None:
        headers = [(b"cookie", f"{COOKIE}={key}".encode())]
        scope = {"type": "websocket", "path": "/", "headers": headers}
        self.application = ApplicationCommunicator(AuthMiddlewareStack(consumer.as_asgi()), scope)

    async def connect(self) -> str:
        await self.application.send_input({"type": "websocket.connect"})
        return str((await self.heard())["type"])

    async def heard(self) -> Any:
        return await self.application.receive_output(SECONDS)

    async def leave(self) -> None:
        await self.application.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.application.wait(SECONDS)


class TestChannels:
    @pytest.fixture
    def consumer(self) -> Iterator[Any]:
        names = recipe("SignedInConsumer")
        yield names["SignedInConsumer"]
        assert session_ended.disconnect(names["tell_sockets"])

    def test_a_socket_is_told_and_closed_when_its_session_ends(self, ann, runner, consumer):
        keys = [browser().cookies[COOKIE].value for _ in range(3)]

        async def visit() -> None:
            sockets = [Socket(consumer, key) for key in keys]
            assert [await each.connect() for each in sockets] == ["websocket.accept"] * 3
            told = sockets[1]
            assert await arevoke(ann, handle(identify(keys[1])))
            assert json.loads((await told.heard())["text"]) == {"signed_out": "revoked"}
            closed = await told.heard()
            assert (closed["type"], closed["code"]) == ("websocket.close", 4001)
            await arevoke_all(ann)
            for each in sockets:
                if each is not told:
                    assert json.loads((await each.heard())["text"]) == {"signed_out": "revoked"}
                    assert (await each.heard())["type"] == "websocket.close"
                await each.leave()

        runner.run(visit())

    def test_who_is_not_signed_in_is_turned_away(self, Store, ann, runner, consumer):
        anonymous = saved(lambda store: store, Store, cart=1)

        async def visit() -> None:
            for key in ("", "x" * 32, anonymous):
                socket = Socket(consumer, key)
                assert await socket.connect() == "websocket.close"
                await socket.leave()

        runner.run(visit())

    def test_a_session_that_ends_while_the_socket_connects_is_not_missed(self, ann, runner, consumer, monkeypatch):
        key = browser().cookies[COOKIE].value

        async def visit() -> None:
            from channels.layers import get_channel_layer

            layer = get_channel_layer()
            join = layer.group_add

            async def too_late(group: str, channel: str) -> None:
                await arevoke_all(ann)
                await join(group, channel)

            monkeypatch.setattr(layer, "group_add", too_late)
            socket = Socket(consumer, key)
            assert await socket.connect() == "websocket.close"
            await socket.leave()

        runner.run(visit())


def test_plain_asgi(ann, runner, Store):
    application = recipe("async def application")["application"]
    key = browser().cookies[COOKIE].value

    async def ask(key: str) -> Any:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        cookies = f'consent={{"ads": [0]}}; {COOKIE}={key}', "a{b=1"  # at both Python's own SimpleCookie gives up
        headers = [(b"cookie", each.encode()) for each in cookies] if key else []
        await application({"type": "http", "path": "/", "headers": headers}, None, send)
        return json.loads(sent[1]["body"])

    async def visit() -> None:
        assert [await ask(key) for _ in range(2)] == [{"user": "ann", "calls": number} for number in (1, 2)]
        assert await ask("") == await ask("x" * 32) == {"user": "", "calls": 0}
        await arevoke_all(ann)
        assert await ask(key) == {"user": "", "calls": 0}

    runner.run(visit())
    assert sessions_of(ann) == []
