"""Two browsers, signed in as one user: headless Chromium, on the example site as `manage.py demo` runs it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from django.contrib.messages.storage.base import Message
from django.core.paginator import Paginator
from django.template.loader import render_to_string
from django.test import RequestFactory, override_settings
from django.utils import timezone, translation

import django_multisession
from django_multisession.charts import Bar, Chart
from django_multisession.user_sessions import UserSession
from example_project.servers import free_port

imported = import_module if os.environ.get("CI") else pytest.importorskip
playwright, axe = imported("playwright.sync_api"), imported("axe_playwright_python.sync_playwright")

Axe, expect = axe.Axe, playwright.expect
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
START_SECONDS = 120
NAME, PASSWORD = "demo", "open-sesame"
GUEST = "guest"
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
    """Opens a browser of its own (cookies and all) on the site, where nobody is signed in, and gives its page."""
    contexts: list[Any] = []

    def open_(**options: Any) -> Any:
        contexts.append(chromium.new_context(base_url=site, locale="en-GB", **options))
        return contexts[-1].new_page()

    try:
        end_all_sessions(open_())
        yield open_
    finally:
        for context in contexts:
            context.close()


def end_all_sessions(page: Any) -> None:
    """Nobody else is signed in when a test begins."""
    sign_in(page).goto("/sessions/")
    if page.get_by_role("button", name="Sign out all other sessions").count():
        sign_out_others(page)
    page.get_by_role("listitem").get_by_role("button", name="Sign out").click()


def sign_out_others(page: Any) -> None:
    page.get_by_role("button", name="Sign out all other sessions").click()
    page.get_by_role("heading", name="Sign out all other sessions?").wait_for()
    page.get_by_role("button", name="Sign out all other sessions").click()


def sign_in(page: Any, name: str = NAME, password: str = PASSWORD) -> Any:
    page.goto("/sign-in/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.locator("main").get_by_role("button", name="Sign in").click()
    assert signed_in(page)
    return page


def signed_in(page: Any) -> bool:
    """At its next click."""
    page.goto("/")
    return bool(page.locator("#user").count())


@pytest.mark.parametrize("javascript", [True, False], ids=["JavaScript", "none"])
def test_one_browser_ends_the_session_of_the_other(open_browser, javascript):
    one = sign_in(open_browser(java_script_enabled=javascript))
    other = sign_in(open_browser(user_agent=FIREFOX))
    one.goto("/sessions/")
    expect(one.get_by_role("heading", name="Your sessions")).to_have_count(1)
    sessions = one.locator("ul.sessions > li")
    expect(sessions).to_have_count(2)
    theirs = sessions.filter(has_text="Firefox on Linux")
    assert theirs.get_attribute("aria-current") is None
    assert "127.0.0.1" in theirs.inner_text()
    assert "this one" in one.locator("li[aria-current=true]").inner_text()
    theirs.get_by_role("button", name="Sign out").click()
    assert one.get_by_role("status").inner_text() == "That session was signed out."
    expect(sessions).to_have_count(1)
    assert not signed_in(other)
    assert signed_in(one)


def test_all_others_are_ended_at_once(open_browser):
    one, *others = (sign_in(open_browser()) for _ in range(4))
    one.goto("/sessions/")
    sign_out_others(one)
    assert one.get_by_role("status").inner_text() == "3 sessions were signed out."
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
        expect(one.locator("ul.sessions > li")).to_have_count(1)
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


def test_an_admin_ends_all_sessions_of_a_user(open_browser):
    admin = sign_in(open_browser())
    make_user(admin, GUEST)
    guest, again = sign_in(open_browser(user_agent=FIREFOX), GUEST), sign_in(open_browser(), GUEST)
    admin.goto(f"/admin/auth/user/?q={GUEST}")
    admin.get_by_role("link", name=GUEST, exact=True).click()
    admin.get_by_role("link", name=f"Sessions of {GUEST}").click()
    expect(admin.get_by_role("row").filter(has_text="Firefox on Linux")).to_have_count(1)
    admin.get_by_role("button", name="Sign out all sessions").click()
    admin.get_by_role("button", name="Yes, I").click()
    assert "2 sessions were signed out." in admin.locator(".messagelist").inner_text()
    assert [signed_in(page) for page in (guest, again, admin)] == [False, False, True]


def test_an_admin_ends_the_sessions_of_several_users(open_browser):
    admin = sign_in(open_browser())
    make_user(admin, "one-guest")
    make_user(admin, "two-guests")
    guests = [sign_in(open_browser(), name) for name in ("one-guest", "two-guests", "two-guests")]
    admin.goto("/admin/auth/user/?q=guest")
    for name in ("one-guest", "two-guests"):
        admin.get_by_role("row").filter(has=admin.get_by_role("link", name=name)).get_by_role("checkbox").check()
    admin.get_by_label("Action:").select_option("Sign out all sessions")
    admin.locator("button[name=index]").click()  # "Go", or since Django 6.1 "Run"
    admin.get_by_role("button", name="Yes, I").click()
    assert "3 sessions were signed out." in admin.locator(".messagelist").inner_text()
    assert [signed_in(page) for page in (*guests, admin)] == [False, False, False, True]


def make_user(page: Any, name: str) -> None:
    page.goto("/admin/auth/user/add/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password:", exact=True).fill(PASSWORD)
    page.get_by_label("Password confirmation").fill(PASSWORD)
    page.get_by_role("button", name="Save", exact=True).click()
    assert "was added successfully" in page.locator(".messagelist").inner_text()


def test_it_can_be_used_by_the_keyboard_and_heard(open_browser):
    one = sign_in(open_browser())
    sign_in(open_browser(user_agent=FIREFOX))
    one.goto("/sessions/")
    button = one.get_by_role("button", name=re.compile(r"^Sign out Firefox on Linux Last seen \S"))
    button.focus()
    one.keyboard.press("Enter")
    expect(one.get_by_role("status")).to_have_text("That session was signed out.")
    expect(one.get_by_role("status")).not_to_be_focused()
    expect(button).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_example_site(open_browser, scheme):
    one = sign_in(open_browser(color_scheme=scheme))
    sign_in(open_browser(user_agent=FIREFOX))
    one.goto("/sessions/")
    assert violations(one) == []
    one.get_by_role("button", name="Sign out Firefox").click()
    assert violations(one) == []


LANGUAGES = ["ar", "de", "en", "es", "fr", "he", "it", "ja", "ko", "pl", "pt", "zh-hans"]


@pytest.mark.parametrize(
    ("scheme", "language"), [*(("light", each) for each in LANGUAGES), ("dark", "ar"), ("dark", "en")]
)
def test_axe_finds_nothing_on_the_plain_page_of_a_phone(chromium, scheme, language):
    page = chromium.new_context(color_scheme=scheme, viewport={"width": 320, "height": 640}).new_page()
    css = Path(django_multisession.__file__).parent / "static" / "django_multisession" / "pages.css"
    page.route("**/*", lambda route: route.fulfill(body=plain_page(language), content_type="text/html"))
    page.route("**/pages.css", lambda route: route.fulfill(path=css))
    page.goto("http://site.test/")
    assert page.locator("html").get_attribute("lang") == language
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    page.context.close()


@pytest.mark.parametrize("direction", ["ltr", "rtl"])
def test_the_bars_of_a_chart_stand_over_their_ticks(chromium, direction):
    bars = [Bar(f"day {number}", number, str(number)) for number in range(1, 16)]
    chart = Chart("days", "Days", "", ("Day", "Sessions"), bars, ["first", "last"])
    css = Path(django_multisession.__file__).parent / "static" / "django_multisession" / "charts.css"
    page = chromium.new_context(viewport={"width": 800, "height": 600}).new_page()
    body = render_to_string("django_multisession/chart.html", {"chart": chart})
    page.set_content(f'<html dir="{direction}"><style>{css.read_text()}</style>{body}</html>')

    def middle(selector: str) -> float:
        box = page.locator(selector).bounding_box()
        return float(box["x"] + box["width"] / 2)

    first, last = middle("rect.bar >> nth=0"), middle("rect.bar >> nth=14")
    first_tick, last_tick = middle(".ticks span >> nth=0"), middle(".ticks span >> nth=1")
    assert (first < last) is (first_tick < last_tick) is (direction == "ltr")
    page.context.close()


@override_settings(ROOT_URLCONF="tests.user_sessions.test_views")
def plain_page(language: str) -> str:
    """The package's own templates, which the example site overrides, with all that they can show."""
    times = dict.fromkeys(("created_at", "last_seen", "expires_at"), timezone.now())
    agents = {"own": FIREFOX, "long": "x" * 200, "none": None}
    sessions = [UserSession(id, **times, user_agent=agent, ip="2001:db8::1") for id, agent in agents.items()]
    sessions[0] = replace(sessions[0], is_current=True)
    messages = [Message(20, "Done.", "success"), Message(30, "Not done.", "warning")]
    with translation.override(language):
        page = Paginator([*sessions, *sessions, *sessions], 3).get_page(2)
        context = {"sessions": sessions, "page": page, "others": 11, "messages": messages}
        context |= {"incomplete": True, "repairing": True, "password_url": "/password/"}
        return render_to_string("django_multisession/user_sessions.html", context, RequestFactory().get("/"))


def violations(page: Any) -> list[str]:
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [f"{each['id']}: {node['html']}" for each in found for node in each["nodes"]]
