"""Takes the pictures of the pages in docs/images/ again, on the example site: `python docs/screenshots.py`.

Needs the `test` extra and Chromium (`apt install chromium`).
"""

import os
import random
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import django
from playwright.sync_api import Browser, sync_playwright

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "example_project"))

from launcher import site  # noqa: E402

IMAGES = DOCS / "images"
WINDOWS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
)
LINUX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
MAC = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.6 Safari/605.1.15"
)
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.6 Mobile/15E148 Safari/604.1"
)
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


def fill(environment: dict[str, str]) -> None:
    """Users, and two weeks of sessions, straight into the stores of the site; "ann" has five."""
    os.environ.update(environment, DJANGO_SETTINGS_MODULE="demo_site.settings")
    django.setup()
    from django.contrib.auth.models import User

    chance = random.Random(5)  # noqa: S311 - the same pictures each time
    users = [User.objects.create(username=name) for name in USERS]
    for user_agent in (LINUX, WINDOWS, WINDOWS, IPHONE, MAC):
        insert(chance, users[0], user_agent)
    for _ in range(SESSIONS):
        user_agent = chance.choices((WINDOWS, IPHONE, LINUX, MAC), (9, 7, 4, 3))[0]
        insert(chance, chance.choice([None, *users[1:]] if chance.random() < 0.8 else [None]), user_agent)


def insert(chance: random.Random, user: Any, user_agent: str) -> None:
    from django.conf import settings
    from django.contrib.sessions.serializers import JSONSerializer

    from django_multisession import engine
    from django_multisession.payload import codecs
    from django_multisession.records import Record, identify, utcnow
    from django_multisession.twins import run_sync

    data: dict[str, Any] = {"visits": chance.randint(1, 99)}
    if chance.random() < 0.4:
        data["cart"] = {f"product-{number}": 1 for number in range(int(chance.lognormvariate(2, 1.2)))}
    if user:
        client = {"ip": f"203.0.113.{chance.randint(1, 254)}", "user_agent": user_agent}
        data |= {"_auth_user_id": str(user.pk), "_auth_user_backend": "", "_auth_user_hash": "", "_client": client}
    id = identify(f"{chance.getrandbits(128):032x}")
    age = timedelta(days=min(13.5, chance.expovariate(0.3)))
    updated = utcnow() - age * min(1.0, chance.expovariate(3))
    expires = updated + timedelta(seconds=settings.SESSION_COOKIE_AGE)
    payload = codecs.encode(data, id, JSONSerializer)
    user_id = str(user.pk) if user else None
    record = Record(id, payload, user_id, utcnow() - age, updated, expires, version=1)
    run_sync(engine.store().storage.insert(record))


def sign_in(browser: Browser, url: str, **options: Any) -> Any:
    page = browser.new_context(base_url=url, locale="en-GB", timezone_id="UTC", **options).new_page()
    page.goto("/sign-in/")
    page.get_by_label("Name").fill("demo")
    page.get_by_label("Password").fill("open-sesame")
    page.locator("main").get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/")
    return page


def shoot(browser: Browser, url: str) -> None:
    for user_agent in (WINDOWS, IPHONE):
        sign_in(browser, url, user_agent=user_agent)
    for name, options in SHOTS.items():
        page = sign_in(browser, url, user_agent=LINUX, **options)
        page.goto("/sessions/")
        page.screenshot(path=IMAGES / f"{name}.png", full_page=True)
        page.get_by_role("listitem").get_by_role("button", name="Sign out").first.click()  # its own is the first


def shoot_admin(browser: Browser, url: str) -> None:
    for name, options in ADMIN_SHOTS.items():
        page = sign_in(browser, url, user_agent=LINUX, **options)
        for each, path in ADMIN_PAGES.items():
            page.goto(path)
            page.screenshot(path=IMAGES / f"{name.format(page=each)}.png", full_page=True)


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
