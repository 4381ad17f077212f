"""Chromium on the rendered pages: it measures them, photographs them and joins the pictures into sheets."""

import mimetypes
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from django.contrib.staticfiles import finders
from playwright.sync_api import sync_playwright

WIDTHS = 320, 390, 1280  # pixels
SCHEMES = "light", "dark"
HEIGHT = 800
TALLEST = 1600  # of a picture: what is below looks as what is above
DESK = 1280
WIDER = "where => Math.max(...[...document.querySelectorAll(where)].map(each => each.scrollWidth - each.clientWidth))"
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
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def window(browser: Any, pages: dict[str, str]) -> Iterator[Any]:
    """In which each of the pages is under its name as the path."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Answer, pages))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page(base_url=f"http://127.0.0.1:{server.server_port}")
    try:
        yield page
    finally:
        page.close()
        server.shutdown()
        server.server_close()


class _Answer(BaseHTTPRequestHandler):
    """A page by its name, or a static file, which the browser need not ask for twice."""

    def __init__(self, pages: dict[str, str], *connection: Any) -> None:
        self.pages = pages
        super().__init__(*connection)

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith(STATIC) and (found := finders.find(path.removeprefix(STATIC))):
            return self.answer(mimetypes.guess_type(found)[0] or "", Path(found).read_bytes())
        self.answer("text/html; charset=utf-8", self.pages.get(path.strip("/"), "").encode())

    def answer(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        for name, value in (("Content-Type", kind), ("Content-Length", len(body)), ("Cache-Control", "max-age=600")):
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def opened(page: Any, name: str, widths: Sequence[int], schemes: Sequence[str]) -> Iterator[tuple[int, str]]:
    """One page, in each width and scheme, which it is in while its pair is yielded."""
    page.goto(f"/{name}")
    for width in widths:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        for scheme in schemes:
            page.emulate_media(color_scheme=scheme)
            yield width, scheme


def overflow(page: Any) -> int:
    """Pixels by which the page is wider than the window, or, on a desk, a table of the admin than its place."""
    tables = ", .results" if page.viewport_size["width"] >= DESK else ""  # on a phone these may be pushed aside
    return int(page.evaluate(WIDER, f":root{tables}"))


def photograph(page: Any, file: Path) -> None:
    height = page.evaluate("document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": page.viewport_size["width"], "height": min(height, TALLEST)}
    page.screenshot(path=file, clip=clip, full_page=True, animations="disabled")  # colours fade from scheme to scheme


def sheet(browser: Any, shots: list[Shot], file: Path) -> None:
    """A row for each language, with all its widths and schemes."""
    rows = [
        [shot for shot in shots if shot.language == each] for each in dict.fromkeys(shot.language for shot in shots)
    ]
    body = "".join(f"<tr><th>{row[0].language}{''.join(map(_cell, row))}" for row in rows)
    source = file.with_suffix(".html")
    source.write_text(f"<style>td {{ vertical-align: top }}</style><table>{body}</table>")
    page = browser.new_page()
    page.goto(source.as_uri())
    page.set_viewport_size({"width": page.evaluate("document.documentElement.scrollWidth"), "height": HEIGHT})
    page.screenshot(path=file, full_page=True)
    page.close()


def _cell(shot: Shot) -> str:
    return f'<td>{shot.width} {shot.scheme}<br><img src="{shot.file}" width="{shot.width}">'
