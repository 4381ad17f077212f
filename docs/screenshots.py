"""Takes the pictures of the pages in docs/images/ again, on the example site: `python docs/screenshots.py`.

Needs the `test` extra and `apt install chromium pngquant`. Every page there is takes `python -m docs.pictures DIR`.
"""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import django
from playwright.sync_api import Browser, sync_playwright

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS.parent / "example_project")]

from docs.pictures.agents import IPHONE, LINUX, MAC, WINDOWS  # noqa: E402
from launcher import site  # noqa: E402

IMAGES = DOCS / "images"
DESK = {"width": 1000, "height": 640}
PHONE = {"width": 390, "height": 844}
ADMIN = {"width": 1280, "height": 720}
SHOTS: dict[str, dict[str, Any]] = {
    "user-sessions-light": {"viewport": DESK, "color_scheme": "light"},
    "user-sessions-dark": {"viewport": DESK, "color_scheme": "dark"},
    "user-sessions-phone": {"viewport": PHONE, "color_scheme": "light"},
}
ADMIN_SHOTS: dict[str, dict[str, Any]] = {
    "admin-{page}-light": {"viewport": ADMIN, "color_scheme": "light"},
    "admin-{page}-dark": {"viewport": ADMIN, "color_scheme": "dark"},
}
ADMIN_PAGES = {"overview": "/admin/django_multisession/session/", "user": "/admin/django_multisession/session/?q=ann"}
USERS = ["ann", *(f"visitor-{number}" for number in range(80))]
SESSIONS = 900
ANONYMOUS = 40  # for the 80 who are not
COLOURS = 64


def fill(environment: dict[str, str]) -> None:
    """Users, and two weeks of sessions, straight into the stores of the site; "ann" has five."""
    os.environ.update(environment, DJANGO_SETTINGS_MODULE="demo_site.settings")
    django.setup()
    from django.contrib.auth.models import User

    from docs.pictures import people

    chance = random.Random(5)  # noqa: S311 - the same pictures each time
    users = [User.objects.create(username=name) for name in USERS]
    for user_agent in (LINUX, WINDOWS, WINDOWS, IPHONE, MAC):
        people.insert(chance, users[0], user_agent)
    for user_agent in people.many(chance, SESSIONS):
        people.insert(chance, chance.choice([None] * ANONYMOUS + users[1:]), user_agent)


def sign_in(browser: Browser, url: str, **options: Any) -> Any:
    page = browser.new_context(base_url=url, locale="en-GB", timezone_id="UTC", **options).new_page()
    page.goto("/sign-in/")
    page.get_by_label("Name").fill("demo")
    page.get_by_label("Password").fill("open-sesame")
    page.locator("main").get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/")
    return page


def photograph(page: Any, name: str) -> None:
    """With as many colours as its letters need, which is a third of the bytes."""
    file = IMAGES / f"{name}.png"
    page.screenshot(path=file, full_page=True)
    command = ["pngquant", "--force", "--strip", "--ext", ".png", str(COLOURS), str(file)]
    subprocess.run(command, check=True)  # noqa: S603


def shoot(browser: Browser, url: str) -> None:
    for user_agent in (WINDOWS, IPHONE):
        sign_in(browser, url, user_agent=user_agent)
    for name, options in SHOTS.items():
        page = sign_in(browser, url, user_agent=LINUX, **options)
        page.goto("/sessions/")
        photograph(page, name)
        page.get_by_role("listitem").get_by_role("button", name="Sign out").first.click()  # its own is the first


def shoot_admin(browser: Browser, url: str) -> None:
    for name, options in ADMIN_SHOTS.items():
        page = sign_in(browser, url, user_agent=LINUX, **options)
        for each, path in ADMIN_PAGES.items():
            page.goto(path)
            photograph(page, name.format(page=each))


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with site("redis", "for-pictures-only", ports=(0,)) as [server]:
        fill(server.environment)  # before Playwright's event loop, in which Django refuses to
        with sync_playwright() as started:
            browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            shoot(browser, server.url)
            shoot_admin(browser, server.url)
            browser.close()


if __name__ == "__main__":
    main()
