"""A whole move, and the way back, as rolling deploys: real servers replaced one by one while 200 browsers click.

No answer is a log-out, no cookie is deleted, no change is lost that was saved on the new side.
"""

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import StringIO
from typing import Any

import httpx
import pytest
from django.core.management import call_command
from django.test import override_settings

from tests.soak.web import Gthread, Uvicorn, WebServer, user_named

from .conftest import OLD

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BROWSERS = 200
CLICKERS = 4  # threads, of which each has its own browsers
COOKIE = "sessionid"
MOVES = {"db-redis": ("db", "redis"), "cache-sql": ("django-redis", "postgres"), "sql-mongodb": ("our SQL", "mongodb")}
OLD["our SQL"] = ("django_multisession.backends.db", None)


@pytest.fixture
def names(move):
    return MOVES[move]


@pytest.fixture
def old_name(names):
    return names[0]


@pytest.fixture
def new_name(names):
    return names[1]


class Fleet:
    """Two servers of different kinds behind a balancer, which takes one out before it is replaced."""

    def __init__(self, settings: Any, stack: ExitStack) -> None:
        self.settings, self.stack = settings, stack
        self.up: dict[WebServer, int] = {}  # and how many requests each has at the moment
        self.changed = threading.Condition()

    def changes(self, stage: str) -> dict[str, Any]:
        move = self.settings.MULTISESSION_MOVE
        alone = {"old": move["from"], "new": move["to"]}.get(stage)
        more = {"MULTISESSION_REDIS": getattr(self.settings, "MULTISESSION_REDIS", None)}
        if alone:
            return {"SESSION_ENGINE": alone, **more}
        engine = "django_multisession.backends.moving"
        return {"SESSION_ENGINE": engine, "MULTISESSION_MOVE": {**move, "phase": stage}, **more}

    def start(self, kind: type[WebServer], stage: str) -> WebServer:
        server = self.stack.enter_context(kind(**self.changes(stage)))
        with self.changed:
            self.up[server] = 0
        return server

    def deploy(self, stage: str) -> None:
        """One by one: so one of the new and one of the old run side by side for a while."""
        for old in list(self.up) or [None, None]:
            kind = type(old) if old else [Uvicorn, Gthread][len(self.up)]
            self.start(kind, stage)
            if old:
                time.sleep(0.3)
                self.stop(old)

    def stop(self, server: WebServer) -> None:
        with self.changed:
            self.changed.wait_for(lambda: len(self.up) > 1)
            busy = self.up.pop(server)
            self.leaving = {server: busy}
            assert self.changed.wait_for(lambda: self.leaving[server] == 0, timeout=60)
        server.stop()

    @contextmanager
    def one(self, chance: random.Random) -> Iterator[WebServer]:
        with self.changed:
            server = chance.choice(list(self.up))
            self.up[server] += 1
        try:
            yield server
        finally:
            with self.changed:
                (self.up if server in self.up else self.leaving)[server] -= 1
                self.changed.notify_all()


class Browser(httpx.Client):
    def __init__(self) -> None:
        # No connection is kept: a server may close one just when a request goes out.
        super().__init__(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))
        self.clicks = 0

    def click(self, server: WebServer, page: str) -> dict[str, Any]:
        answer = self.get(f"{server.url}/{page}/")
        assert answer.status_code == 200, (answer.status_code, server.environment["TEST_SITE"])
        assert "Max-Age=0" not in answer.headers.get("set-cookie", ""), "a cookie was deleted"
        self.clicks += 1
        return dict(answer.json())


@pytest.fixture
def fleet(site, settings):
    with ExitStack() as stack, user_named("ann"):
        yield Fleet(settings, stack)


@pytest.fixture
def browsers(fleet):
    fleet.deploy("old")
    with ExitStack() as stack:
        browsers = [stack.enter_context(Browser()) for _ in range(BROWSERS)]
        for browser in browsers:
            with fleet.one(random.Random()) as server:
                assert browser.click(server, "sign_in/ann")["user"] == "ann"
        yield browsers


@contextmanager
def clicking(fleet: Fleet, browsers: list[Browser]) -> Iterator[None]:
    """All browsers, again and again, at whichever server is up."""
    over, errors = threading.Event(), []

    def click(number: int) -> None:
        chance, own = random.Random(number), browsers[number::CLICKERS]
        try:
            while not over.is_set():
                browser = chance.choice(own)
                with fleet.one(chance) as server:
                    page = chance.choice(["look", "look", f"put/k{browser.clicks % 5}"])
                    state = browser.click(server, page)
                    assert state["user"] == "ann", (state, server.environment["TEST_SITE"])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=click, args=[number]) for number in range(CLICKERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert errors == []


def everybody(fleet: Fleet, browsers: list[Browser]) -> None:
    chance = random.Random(9)
    for browser in browsers:
        with fleet.one(chance) as server:
            assert browser.click(server, "look")["user"] == "ann"


def sessions_move(*options: str) -> dict[str, Any]:
    out = StringIO()
    call_command("sessions", "move", "--json", *options, stdout=out)
    return dict(json.loads(out.getvalue()))


@pytest.mark.parametrize("move", ["db-redis", pytest.param("cache-sql", marks=pytest.mark.soak), "sql-mongodb"])
def test_nobody_notices(site, fleet, browsers):
    keys = [browser.cookies[COOKIE] for browser in browsers]
    with clicking(fleet, browsers):
        fleet.deploy("prepare")
        fleet.deploy("move")
        moved = sessions_move("--batch-size=50")
        assert moved["reason"] == "done"
        assert sessions_move("--status") == {"left": 0}
        fleet.deploy("new")
    everybody(fleet, browsers)
    assert [browser.cookies[COOKIE] for browser in browsers] == keys
    assert all(site.is_new(key) for key in keys)
    assert min(browser.clicks for browser in browsers) > 1


@pytest.mark.parametrize(
    "move",
    [
        pytest.param("db-redis", marks=pytest.mark.soak),
        "cache-sql",
        pytest.param("sql-mongodb", marks=pytest.mark.soak),
    ],
)
def test_and_back_again(site, fleet, browsers, settings):
    keys = [browser.cookies[COOKIE] for browser in browsers]
    with clicking(fleet, browsers):
        fleet.deploy("prepare")
        fleet.deploy("move")
        assert sessions_move()["reason"] == "done"
        fleet.deploy("back")
    everybody(fleet, browsers)  # by use only: the old engine runs alone when all have come by
    with override_settings(MULTISESSION_MOVE={**settings.MULTISESSION_MOVE, "phase": "back"}):
        assert sessions_move("--status") == {"left": BROWSERS}
    with clicking(fleet, browsers):
        fleet.deploy("old")
    everybody(fleet, browsers)
    assert [browser.cookies[COOKIE] for browser in browsers] == keys
    assert all(site.is_old(key) for key in keys)


@pytest.mark.parametrize("move", ["db-redis"])
def test_without_it_everybody_is_logged_out(site, fleet, browsers):
    """What the move is for: the new engine beside the old one, at one look each."""
    fleet.start(Uvicorn, "new")
    new = list(fleet.up)[-1]
    answer = browsers[0].get(f"{new.url}/look/")
    assert answer.json()["user"] != "ann"
