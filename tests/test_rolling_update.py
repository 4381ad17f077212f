"""Servers of 0.1.0 and of today's code, both in front of one store: an update one server at a time logs nobody out.

`tests/data` has the wheel of 0.1.0. The servers are real ones, a synchronous and an asynchronous one.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

import httpx
import pytest
from django.conf import settings

import django_multisession
from django_multisession.conf import conf
from django_multisession.twins import run_sync

from .conftest import ENGINES
from .soak.web import KINDS, WebServer, user_named

pytestmark = pytest.mark.slow

WHEEL = Path(__file__).parent / "data" / "django_multisession-0.1.0-py3-none-any.whl"
COOKIE = settings.SESSION_COOKIE_NAME
SAVES = 12  # at once
HOUR = 3600


class Fleet:
    """One server of each version; `a` is the one that a test uses first, `b` the other one."""

    def __init__(self, old: str, new: str) -> None:
        self.kinds, self.stack, self.servers = (old, new), ExitStack(), list[WebServer]()

    def start(self) -> None:
        """With the settings that the test's process has now."""
        if not self.servers:
            folder = Path(self.stack.enter_context(TemporaryDirectory(prefix="multisession-")))
            ZipFile(WHEEL).extractall(folder)
            old, new = (KINDS[kind] for kind in self.kinds)
            self.servers = [self.stack.enter_context(server) for server in (old(first=folder), new())]
            packages = [Path(server.get("version")["package"]) for server in self.servers]
            assert packages == [folder / "django_multisession" / "__init__.py", Path(django_multisession.__file__)]

    def turn(self, which: str) -> None:
        self.a, self.b = self.servers if which == "old first" else reversed(self.servers)


class Browser(httpx.Client):
    """Brings its one cookie to whichever server it is sent to."""

    def at(self, server: WebServer, page: str) -> Any:
        return self.get(f"{server.url}/{page}/", timeout=60).raise_for_status().json()

    @property
    def key(self) -> str:
        return str(self.cookies[COOKIE])

    def user_at(self, *servers: WebServer) -> list[str]:
        return users_at(self.key, *servers)


def users_at(key: str, *servers: WebServer) -> list[str]:
    """Who is signed in with a key, as each server sees it."""
    return [get(server, "look", key).raise_for_status().json()["user"] for server in servers]


def get(server: WebServer, page: str, key: str) -> httpx.Response:
    return httpx.get(f"{server.url}/{page}/", cookies={COOKIE: key}, timeout=60)


@pytest.fixture(
    scope="module",
    params=[
        *((name, "gthread", "uvicorn") for name in ENGINES if name != "memory"),
        ("redis", "uvicorn", "gthread"),
        ("postgres", "uvicorn", "gthread"),
    ],
    ids="-".join,
)
def combination(request: pytest.FixtureRequest) -> Iterator[tuple[str, Fleet]]:
    engine_name, old, new = request.param
    fleet = Fleet(old, new)
    with fleet.stack:
        yield engine_name, fleet


@pytest.fixture
def engine_name(combination: tuple[str, Fleet]) -> str:
    return combination[0]


@pytest.fixture(params=["old first", "new first"])
def fleet(request: pytest.FixtureRequest, combination: tuple[str, Fleet], Store: Any) -> Iterator[Fleet]:
    _, fleet = combination
    fleet.start()
    fleet.turn(request.param)
    with user_named("ann"):
        yield fleet


@pytest.fixture
def new_browser() -> Iterator[Any]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Browser())


@pytest.fixture
def browser(new_browser: Any) -> Browser:
    return new_browser()


@pytest.mark.parametrize("face", ["", "a"])
def test_who_has_signed_in_on_one_is_signed_in_on_both(fleet, browser, face):
    browser.at(fleet.a, f"{face}put/cart")
    browser.at(fleet.b, f"{face}sign_in/ann")
    assert browser.at(fleet.a, f"{face}put/visits") == {"user": "ann", "keys": ["cart", "visits"]}
    assert browser.at(fleet.b, f"{face}look") == {"user": "ann", "keys": ["cart", "visits"]}
    assert browser.user_at(fleet.a, fleet.b) == ["ann", "ann"]


def test_what_both_change_at_once_is_merged(fleet, browser):
    browser.at(fleet.a, "sign_in/ann")
    pages = [(fleet.a, "slow_put"), (fleet.b, "slow_put"), (fleet.a, "aslow_put"), (fleet.b, "aslow_put")]

    def save(number: int) -> Any:
        server, page = pages[number % len(pages)]
        return get(server, f"{page}/{number:02}", browser.key)

    with ThreadPoolExecutor(SAVES) as pool:
        assert {answer.status_code for answer in pool.map(save, range(SAVES))} == {200}
    kept = {"user": "ann", "keys": [f"{number:02}" for number in range(SAVES)]}
    assert [browser.at(fleet.a, "look"), browser.at(fleet.b, "look")] == [kept, kept]


@pytest.mark.parametrize("page", ["sign_out", "asign_out"])
def test_a_log_out_on_one_is_one_on_both_and_stays_one(fleet, browser, page):
    browser.at(fleet.a, "sign_in/ann")
    with ThreadPoolExecutor() as pool:
        late = pool.submit(get, fleet.a, "slow_put/late", browser.key)
        get(fleet.b, page, browser.key).raise_for_status()
    assert late.result().status_code in (200, 400)  # it came too early or too late
    assert browser.user_at(fleet.a, fleet.b) == ["", ""]


@pytest.mark.parametrize("page", ["cycle", "acycle"])
def test_a_new_key_is_good_on_both_and_the_old_one_on_none(fleet, browser, page):
    browser.at(fleet.a, "sign_in/ann")
    browser.at(fleet.b, "put/cart")
    old = browser.key
    browser.at(fleet.a, page)
    assert browser.key != old
    assert [browser.user_at(fleet.a, fleet.b), users_at(old, fleet.a, fleet.b)] == [["ann", "ann"], ["", ""]]
    for server in (fleet.a, fleet.b):
        planted = get(server, "put/planted", old)
        assert planted.json() == {"user": "", "keys": ["planted"]}
        assert planted.cookies[COOKIE] not in (old, browser.key)
    assert browser.at(fleet.b, "look") == {"user": "ann", "keys": ["cart"]}


def test_a_save_on_one_while_the_other_changes_the_key_logs_nobody_out(fleet, browser):
    browser.at(fleet.a, "sign_in/ann")
    before = browser.key
    with ThreadPoolExecutor() as pool:
        late = pool.submit(get, fleet.a, "slow_put/late", before)
        browser.at(fleet.b, "cycle")
    assert late.result().status_code in (200, 400)
    assert browser.user_at(fleet.a, fleet.b) == ["ann", "ann"]
    assert users_at(before, fleet.a, fleet.b) == ["", ""]


def test_both_list_and_end_the_same_sessions(fleet, new_browser):
    phone, laptop, tablet = (new_browser() for _ in range(3))
    for browser, server in ((phone, fleet.a), (laptop, fleet.b), (tablet, fleet.a)):
        browser.at(server, "sign_in/ann")
    of_a, of_b = phone.at(fleet.a, "listed"), phone.at(fleet.b, "listed")
    assert (len(of_a["sessions"]), of_a["complete"]) == (3, True)
    assert sorted(of_a["sessions"]) == sorted(of_b["sessions"])
    [tablets] = [id for id, is_current in tablet.at(fleet.a, "listed")["sessions"] if is_current]
    assert phone.at(fleet.b, f"revoke/{tablets}") == {"ended": True}
    assert [each.user_at(fleet.a, fleet.b) for each in (phone, laptop, tablet)] == [["ann"] * 2, ["ann"] * 2, [""] * 2]
    assert phone.at(fleet.b, "revoke_all") == {"ended": 1, "complete": True}
    assert [each.user_at(fleet.a, fleet.b) for each in (phone, laptop)] == [["ann"] * 2, [""] * 2]


def test_what_both_have_done_is_listed_to_the_end(fleet, new_browser, Store, engine_name):
    """Later and earlier expiries, new keys and log-outs, each on the other server than the one before."""
    browsers = [new_browser() for _ in range(6)]
    for number, browser in enumerate(browsers):
        one, other = (fleet.a, fleet.b) if number % 2 else (fleet.b, fleet.a)
        browser.at(one, "sign_in/ann")
        browser.at(other, f"expire_in/{(number + 1) * HOUR}")
        browser.at(one, "acycle")
        browser.at(other, f"expire_in/{(2 * number + 1) * HOUR}")
    browsers.pop().at(fleet.a, "sign_out")
    browsers.pop().at(fleet.b, "sign_out")
    for server in (fleet.a, fleet.b):
        listed = browsers[0].at(server, "listed")
        assert (len(listed["sessions"]), listed["complete"]) == (len(browsers), True)
    if engine_name == "redis":
        look_at_the_index(Store.storage, len(browsers))


def look_at_the_index(storage: Any, sessions: int) -> None:
    """Each record is in its user's set, and outlives neither its score there (in hours) nor the set."""
    client = storage.client
    [name] = client.keys(f"{conf.KEY_PREFIX}:user:*")
    scores = {member.hex(): score for member, score in client.zrange(name, 0, -1, withscores=True)}
    records = run_sync(storage.scan(None, 1000))  # few: one page has them all
    ends = {each.id: client.pexpiretime(f"{conf.KEY_PREFIX}:{each.id}") / 1000 for each in records if each.user_id}
    assert len(ends) == sessions
    assert {id for id, end in ends.items() if scores[id] * HOUR < end} == set()
    assert client.pexpiretime(name) / 1000 >= max(ends.values())
