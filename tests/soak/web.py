"""Real web servers in front of the site, and what they and their stores hold."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import httpx
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connections

from example_project.servers import Server

from ..children import SHARED
from ..routers import SessionRouter

ROOT = Path(__file__).parents[2]
THREADS = 4  # of those servers that have threads of their own: fewer than the users of a run
SETTLE_SECONDS = 60  # a server may take a moment to see that a client has gone


class WebServer(Server):
    """One worker process, on settings of the test's process; `first` goes before all else on its path."""

    address = "http://127.0.0.1:{port}"
    arguments: ClassVar[tuple[str, ...]]  # of `python -m`, with "{port}" in them
    asynchronous: ClassVar[bool] = True  # whether it can serve asynchronous views

    def __init__(self, first: Path = ROOT, **changes: Any) -> None:
        super().__init__()
        self.environment = environment(first, **changes)

    def __enter__(self) -> Self:
        """Some servers say that they are ready before their worker has loaded the site."""
        super().__enter__()
        self.get("version")
        return self

    def __exit__(self, kind: Any, error: BaseException | None, at: Any) -> None:
        if error is not None:
            error.add_note(self._last_lines())
        super().__exit__(kind, error, at)

    def get(self, page: str) -> Any:
        """What a page answers to nobody in particular, as soon as the server does."""
        with httpx.Client(transport=httpx.HTTPTransport(retries=8), timeout=60) as client:
            return client.get(f"{self.url}/{page}/").raise_for_status().json()

    def command(self) -> list[str]:
        return [sys.executable, "-m", *(argument.format(port=self.port) for argument in self.arguments)]


class Uvicorn(WebServer):
    ready_line = b"Uvicorn running on"
    arguments = ("uvicorn", "tests.soak.applications:asgi", "--port", "{port}", "--no-access-log")


class Gthread(WebServer):
    ready_line = b"Booting worker"
    kind: ClassVar[tuple[str, ...]] = ("gthread", "--threads", str(THREADS))

    def command(self) -> list[str]:
        fixed = ["gunicorn", "tests.soak.applications:wsgi", "--bind", f"127.0.0.1:{self.port}"]
        return [sys.executable, "-m", *fixed, "--worker-tmp-dir", str(self.directory), "--worker-class", *self.kind]


class Gevent(Gthread):
    kind = ("gevent", "--worker-connections", "100")
    asynchronous = False  # one thread, and asyncio knows no greenlets: all take the loop of one for their own


class GranianAsgi(WebServer):
    ready_line = b"Started worker-1"
    arguments = ("granian", "tests.soak.applications:asgi", "--interface", "asgi", "--port", "{port}")


class GranianWsgi(WebServer):
    ready_line = b"Started worker-1"
    arguments = (
        *("granian", "tests.soak.applications:wsgi", "--interface", "wsgi", "--port", "{port}"),
        *("--blocking-threads", str(THREADS)),
    )


KINDS = {
    "uvicorn": Uvicorn,
    "gthread": Gthread,
    "gevent": Gevent,
    "granian-asgi": GranianAsgi,
    "granian-wsgi": GranianWsgi,
}


def environment(first: Path = ROOT, **changes: Any) -> dict[str, str]:
    path = [str(first), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    site = json.dumps(shared() | changes, default=str)
    names = {"DJANGO_SETTINGS_MODULE": "tests.soak.site", "TEST_SITE": site}
    return {**os.environ, **names, "PYTHONPATH": os.pathsep.join(path)}


def manage(*command: str) -> None:
    """A command of the site, in a process of its own."""
    subprocess.run([sys.executable, "-m", "django", *command], env=environment(), check=True)


def shared(**options: Any) -> dict[str, Any]:
    """The settings of the test's process, with the database under test as the only one."""
    database = {**connections[SessionRouter.alias].settings_dict, "TEST": {}}
    return {name: getattr(settings, name) for name in SHARED} | {"DATABASES": {"default": database | options}}


@contextmanager
def user_named(name: str) -> Iterator[Any]:
    """One in the database of the site, which is the one under test."""
    users = get_user_model()._base_manager.using(SessionRouter.alias)
    yield users.get_or_create(username=name, defaults={"password": "!"})[0]
    users.filter(username=name).delete()


def process_counts(server: WebServer) -> dict[str, int]:
    """What the worker process holds; `memory` in KB."""
    answer = server.get("held")
    proc = Path("/proc") / str(answer["pid"])
    [memory] = [line.split()[1] for line in (proc / "status").read_text().splitlines() if line.startswith("VmRSS")]
    return {**answer["counts"], "files": len(list((proc / "fd").iterdir())), "memory": int(memory)}


def settled(measure: Callable[[], dict[str, int]]) -> dict[str, int]:
    """The least of several measures in a row: what somebody keeps stays in all of them."""
    deadline, least = time.monotonic() + SETTLE_SECONDS, measure()
    while time.monotonic() < deadline:
        time.sleep(0.3)
        newest = measure()
        smaller = {name: min(number, newest[name]) for name, number in least.items()}
        if smaller == least:
            return least
        least = smaller
    return least
