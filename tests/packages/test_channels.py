"""Channels: sessions and users of WebSockets and of its HTTP consumers.

Its own communicators are not used: they ask for Daphne.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from channels.auth import AuthMiddlewareStack, get_user, login, logout
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.sessions import SessionMiddlewareStack
from django.contrib.auth import get_user_model
from django.core.exceptions import SuspiciousOperation
from django.test import Client

from django_multisession.exceptions import SessionEnded
from django_multisession.records import identify
from django_multisession.twins import run_sync

from ..browsers import BACKEND, COOKIE

SECONDS = 60  # at most, for an answer


class Shop(AsyncJsonWebsocketConsumer):
    """Does what it is told, and answers with the user, the session's key and its data."""

    async def receive_json(self, content: Any, **options: Any) -> None:
        try:
            await getattr(self, content["do"])(*content["with"])
        except SessionEnded:
            return await self.send_json("ended")
        user, session = await get_user(self.scope), self.scope["session"]
        data = {key: value for key, value in await session.aitems() if not key.startswith("_")}
        await self.send_json({"user": user.get_username(), "key": session.session_key, "data": data})

    async def look(self) -> None:
        pass

    async def sign_in(self, name: str) -> None:
        await login(self.scope, await get_user_model().objects.aget(username=name), backend=BACKEND)
        await self.scope["session"].asave()

    async def sign_in_in_a_thread(self, name: str) -> None:
        """As Channels' documentation has it."""
        await login(self.scope, await get_user_model().objects.aget(username=name), backend=BACKEND)
        await database_sync_to_async(self.scope["session"].save)()

    async def sign_out(self) -> None:
        await logout(self.scope)

    async def put(self, key: str, value: Any) -> None:
        await self.scope["session"].aset(key, value)
        await self.scope["session"].asave()


@asynccontextmanager
async def socket(key: str) -> AsyncIterator[Any]:
    """A connected WebSocket that brings the cookie; called with what the consumer is to do, it gives the answer."""
    headers = [(b"cookie", f"{COOKIE}={key}".encode())]
    scope = {"type": "websocket", "path": "/", "headers": headers}
    application = ApplicationCommunicator(AuthMiddlewareStack(Shop.as_asgi()), scope)

    async def exchange(**message: Any) -> Any:
        await application.send_input(message)
        return await application.receive_output(SECONDS)

    async def tell(do: str, *arguments: Any) -> Any:
        answer = await exchange(type="websocket.receive", text=json.dumps({"do": do, "with": arguments}))
        return json.loads(answer["text"])

    assert (await exchange(type="websocket.connect"))["type"] == "websocket.accept"
    yield tell
    await application.send_input({"type": "websocket.disconnect", "code": 1000})
    await application.wait(SECONDS)


@pytest.fixture
def browser(ann: Any) -> Client:
    """With a session that has something in it."""
    client = Client()
    client.get("/count/")
    return client


def key_of(client: Client) -> str:
    return client.cookies[COOKIE].value


async def in_a_thread(function: Any, *arguments: Any) -> Any:
    return await database_sync_to_async(function)(*arguments)


@pytest.mark.parametrize("sign_in", ["sign_in", "sign_in_in_a_thread"])
def test_who_signs_in_over_a_socket_is_signed_in(Store, browser, ann, runner, sign_in):
    async def over_a_socket(key: str) -> Any:
        async with socket(key) as tell:
            assert (await tell("look"))["user"] == ""
            return await tell(sign_in, "ann")

    before = key_of(browser)
    answer = runner.run(over_a_socket(before))
    assert (answer["user"], answer["data"]) == ("ann", {"count": 1})
    assert Store().exists(before) is False
    listed = [record.id for record in run_sync(Store.storage.of_user(str(ann.pk)))]
    assert listed == [identify(answer["key"])]
    browser.cookies[COOKIE] = answer["key"]
    assert browser.get("/count/").json() == {"user": "ann", "count": 2}


def test_who_has_signed_in_before_is_known_on_a_socket_and_signs_out_there(Store, browser, ann, runner):
    browser.get("/sign_in/")
    key = key_of(browser)

    async def over_a_socket() -> Any:
        async with socket(key) as tell:
            assert (await tell("look"))["user"] == "ann"
            return await tell("sign_out")

    assert runner.run(over_a_socket()) == {"user": "", "key": None, "data": {}}
    assert run_sync(Store.storage.of_user(str(ann.pk))) == []
    assert browser.get("/look/").json() == {"user": "", "count": None}
    assert Store().exists(key) is False


def test_a_socket_that_stays_open_loses_nothing_of_what_requests_save(browser, runner):
    async def over_a_socket() -> Any:
        async with socket(key_of(browser)) as tell:
            await tell("look")
            await in_a_thread(browser.get, "/count/")
            return await tell("put", "seat", "7A")

    assert runner.run(over_a_socket())["data"] == {"count": 2, "seat": "7A"}
    assert browser.get("/look/").json()["count"] == 2


def test_a_log_out_elsewhere_is_not_undone_by_a_socket_that_stays_open(Store, browser, runner):
    browser.get("/sign_in/")
    key = key_of(browser)

    async def over_a_socket() -> Any:
        async with socket(key) as tell:
            await tell("look")
            await in_a_thread(browser.get, "/sign_out/")
            return await tell("put", "seat", "7A")

    assert runner.run(over_a_socket()) == "ended"
    assert Store().exists(key) is False


@pytest.mark.parametrize("asynchronously", [False, True])
def test_a_session_that_was_ended_meanwhile_answers_400(Store, runner, asynchronously):
    """Channels' own `test_session_save_update_error`: what is saved at the end is what was saved before."""

    async def ended_meanwhile(scope: Any, receive: Any, send: Any) -> None:
        session = scope["session"]
        if asynchronously:
            await session.asave()
            await Store(session.session_key).aflush()
        else:
            await in_a_thread(session.save)
            await in_a_thread(Store(session.session_key).flush)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def request() -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        await ApplicationCommunicator(SessionMiddlewareStack(ended_meanwhile), scope).wait(SECONDS)

    with pytest.raises(SuspiciousOperation, match="session was deleted"):
        runner.run(request())
