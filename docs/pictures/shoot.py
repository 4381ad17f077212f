"""Chromium on the rendered pages: it measures them, photographs them and joins the pictures into sheets."""

import html
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from django.contrib.staticfiles import finders
from playwright.sync_api import sync_playwright

WIDTHS = 320, 390, 1280
SCHEMES = "light", "dark"
HEIGHT = 800
TALLEST = 1600  # of a picture: what is below looks as what is above
SITE = "http://site.test"
STATIC = "/static/"


class Shot(NamedTuple):
    page: str
    language: str
    width: int
    scheme: str

    @property
    def file(self) -> str:
        return f"{self.page}-{self.language}-{self.width}-{self.scheme}.png"


@contextmanager
def chromium() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def window(browser: Any, pages: dict[str, str], width: int, scheme: str) -> Iterator[Any]:
    """In which each of the pages is under its name as the path."""
    context = browser.new_context(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
    page = context.new_page()
    page.route("**/*", lambda route: _answer(route, pages))
    yield page
    context.close()


def _answer(route: Any, pages: dict[str, str]) -> None:
    path = urlsplit(route.request.url).path
    if path.strip("/") in pages:
        return route.fulfill(body=pages[path.strip("/")], content_type="text/html; charset=utf-8")
    found = finders.find(path.removeprefix(STATIC)) if path.startswith(STATIC) else None
    return route.fulfill(path=found) if found else route.fulfill(status=404, body="")


def overflow(page: Any) -> int:
    """Pixels by which the page is wider than the window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def photograph(page: Any, file: Path) -> None:
    height = page.evaluate("document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": page.viewport_size["width"], "height": min(height, TALLEST)}
    page.screenshot(path=file, clip=clip, full_page=True)


def sheet(browser: Any, shots: list[Shot], folder: Path, file: Path) -> None:
    """A row for each language."""
    rows: dict[str, list[Shot]] = {}
    for shot in shots:
        rows.setdefault(shot.language, []).append(shot)
    body = "".join(f"<tr><th>{html.escape(name)}{''.join(map(_cell, row))}" for name, row in rows.items())
    page = browser.new_page()
    (folder / file.with_suffix(".html").name).write_text(f"<style>td {{vertical-align: top}}</style><table>{body}</table>")
    page.goto((folder / file.with_suffix(".html").name).as_uri())
    page.set_viewport_size({"width": page.evaluate("document.documentElement.scrollWidth"), "height": HEIGHT})
    page.screenshot(path=file, full_page=True)
    page.close()


def _cell(shot: Shot) -> str:
    return f'<td>{shot.width} {shot.scheme}<br><img src="{shot.file}" width="{shot.width}">'
