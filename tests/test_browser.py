"""Two browsers, signed in as one user: headless Chromium, on the example site as `manage.py demo` runs it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from example_project.servers import free_port

playwright = (
    pytest.importorskip("playwright.sync_api")
    if not os.environ.get("CI")
    else __import__("playwright.sync_api", fromlist=["sync_api"])
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
START_SECONDS = 120
NAME, PASSWORD = "demo", "open-sesame"
NEW_PASSWORD = "a much better phrase"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture(scope="module", params=["redis"])
def site(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of the example site."""
    port = free_port()
    command = [sys.executable, str(ROOT / "example_project" / "manage.py"), "demo", "--engine", request.param]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "demo_site.settings"}
    process = subprocess.Popen([*command, "--port", str(port)], env=environment, stdout=subprocess.PIPE)
    try:
        yield answering(f"http://127.0.0.1:{port}/", process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def answering(url: str, process: Any) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "The demo has ended."
        try:
            with urlopen(url, timeout=5):
                return url
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{url} does not answer.")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        if os.environ.get("CI"):
            raise FileNotFoundError("chromium is missing: apt install chromium")
        pytest.skip("chromium is missing: apt install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_browser(chromium: Any, site: str) -> Iterator[Callable[..., Any]]:
    """Opens a browser of its own (cookies and all) on the site, and gives its page."""
    contexts: list[Any] = []

    def open_(**options: Any) -> Any:
        contexts.append(chromium.new_context(base_url=site, locale="en-GB", **options))
        return contexts[-1].new_page()

    yield open_
    for context in contexts:
        context.close()


def sign_in(page: Any, password: str = PASSWORD) -> Any:
    page.goto("/sign-in/")
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("Password").fill(password)
    page.locator("main").get_by_role("button", name="Sign in").click()
    assert signed_in(page)
    return page


def signed_in(page: Any) -> bool:
    """At its next click."""
    page.goto("/")
    return bool(page.locator("#user").count())


@pytest.fixture(autouse=True)
def _alone(open_browser: Any, site: str) -> None:
    """Nobody else is signed in when a test begins."""
    page = sign_in(open_browser())
    page.goto("/sessions/")
    if page.get_by_role("button", name="End all other sessions").count():
        page.get_by_role("button", name="End all other sessions").click()
    page.get_by_role("listitem").get_by_role("button", name="Sign out").click()


@pytest.mark.parametrize("javascript", [True, False], ids=["JavaScript", "none"])
def test_one_browser_ends_the_session_of_the_other(open_browser, javascript):
    one = sign_in(open_browser(java_script_enabled=javascript))
    other = sign_in(open_browser(user_agent=FIREFOX))
    one.goto("/sessions/")
    assert one.get_by_role("heading", name="Your sessions").count() == 1
    sessions = one.locator("ul.sessions > li")
    assert sessions.count() == 2
    theirs = sessions.filter(has_text="Firefox on Linux")
    assert theirs.get_attribute("aria-current") is None
    assert "127.0.0.1" in theirs.inner_text()
    assert "this one" in one.locator("li[aria-current=true]").inner_text()
    theirs.get_by_role("button", name="End").click()
    assert one.get_by_role("status").inner_text() == "The session was ended."
    assert sessions.count() == 1
    assert not signed_in(other)
    assert signed_in(one)


def test_all_others_are_ended_at_once(open_browser):
    one, *others = (sign_in(open_browser()) for _ in range(4))
    one.goto("/sessions/")
    one.get_by_role("button", name="End all other sessions").click()
    assert one.get_by_role("status").inner_text() == "3 sessions were ended."
    assert [signed_in(other) for other in others] == [False] * 3
    assert signed_in(one)


def test_ending_the_own_session_signs_out(open_browser):
    one = sign_in(open_browser())
    one.goto("/sessions/")
    one.get_by_role("listitem").get_by_role("button", name="Sign out").click()
    assert not signed_in(one)


def test_a_change_of_password_signs_the_other_out(open_browser):
    one, other = sign_in(open_browser()), sign_in(open_browser())
    change_password(one, PASSWORD, NEW_PASSWORD)
    try:
        assert signed_in(one)
        assert not signed_in(other)
        one.goto("/sessions/")
        assert one.locator("ul.sessions > li").count() == 1
    finally:
        change_password(one, NEW_PASSWORD, PASSWORD)


def change_password(page: Any, old: str, new: str) -> None:
    page.goto("/change-password/")
    page.get_by_label("Old password").fill(old)
    page.get_by_label("New password").fill(new)
    page.get_by_label("Once more").fill(new)
    page.locator("main").get_by_role("button", name="Change password").click()
    page.wait_for_url("**/")


def test_the_sixth_log_in_ends_the_oldest_session(open_browser):
    pages = [sign_in(open_browser()) for _ in range(6)]
    assert [signed_in(page) for page in pages] == [False, True, True, True, True, True]
