"""Takes the pictures of the pages in docs/images/ again, on the example site: `python docs/screenshots.py`.

Needs the `test` extra and Chromium (`apt install chromium`).
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "example_project"))

from launcher import site  # noqa: E402

IMAGES = DOCS / "images"
WINDOWS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
)
LINUX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.6 Mobile/15E148 Safari/604.1"
)
DESK = {"width": 1000, "height": 640}
PHONE = {"width": 390, "height": 844}
SHOTS: dict[str, dict[str, Any]] = {
    "user-sessions-light": {"viewport": DESK, "color_scheme": "light"},
    "user-sessions-dark": {"viewport": DESK, "color_scheme": "dark"},
    "user-sessions-phone": {"viewport": PHONE, "color_scheme": "light"},
}


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
        page.get_by_role("listitem").get_by_role("button", name="Sign out").click()


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with site("redis", "for-pictures-only", ports=(0,)) as [server], sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shoot(browser, server.url)
        browser.close()


if __name__ == "__main__":
    main()
