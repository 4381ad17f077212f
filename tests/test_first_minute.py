"""What README and the quick start say to paste works as it stands, in a site that `startproject` has just made.

The servers' addresses are the test's, and nothing else is changed.
"""

import os
import re
import runpy
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from django.core.management import call_command

from . import servers
from .test_docs import DOCS, ROOT, blocks

README = ROOT / "README.md"
QUICKSTART = DOCS / "quickstart.md"
INSTALL = DOCS / "install.md"
PASSWORD = "open-sesame-7"


class Fresh:
    """A site that `startproject` makes, in a directory of its own, and its `manage.py` in new processes."""

    def __init__(self, directory: Path, redis: str, mongodb: str) -> None:
        self.directory = directory
        self.urls = {"redis://localhost:6379/1": redis, "mongodb://localhost:27017/mysite": mongodb}
        environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        self.environment = environment | {"PYTHONPATH": str(ROOT), "DJANGO_SUPERUSER_PASSWORD": PASSWORD}
        self.run("-m", "django", "startproject", "mysite", ".")

    def paste(self, code: str) -> None:
        """At the end of the file that the first line names."""
        [name] = re.findall(r"\A# (mysite/\w+\.py)", code)
        for given, real in self.urls.items():
            code = code.replace(given, real)
        with (self.directory / name).open("a") as file:
            file.write("\n" + code)

    def run(self, *arguments: str) -> str:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, **self.there)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def manage(self, *arguments: str) -> str:
        return self.run("manage.py", *arguments)

    @property
    def there(self) -> dict:
        return {"cwd": self.directory, "env": self.environment}

    @contextmanager
    def served(self) -> Iterator[httpx.Client]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with (self.directory / "server.log").open("w") as log:
            command = [sys.executable, "manage.py", "runserver", "--noreload", str(port)]
            process = subprocess.Popen(command, stdout=log, stderr=log, **self.there)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", follow_redirects=True, timeout=60) as browser:
                wait_for(browser, process)
                yield browser
        finally:
            process.kill()
            process.wait()


def wait_for(browser: httpx.Client, process: subprocess.Popen) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            browser.get("/admin/login/")
            return
        except httpx.ConnectError:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)


def sign_in(browser: httpx.Client, start: str) -> httpx.Response:
    """As a visitor who wants the page `start`, and is led to the log-in first."""
    page = browser.get(start)
    data = {"username": "ann", "password": PASSWORD, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
    data["next"] = start
    return browser.post(page.url, data=data, headers={"Referer": str(page.url)})


@pytest.fixture
def fresh(tmp_path: Path) -> Fresh:
    redis, mongodb = servers.url_of("redis"), servers.url_of("mongodb")
    if not (redis and mongodb):
        pytest.skip(str(servers.MISSING))
    return Fresh(tmp_path, redis, mongodb)


def pasted(page: Path, of: str) -> list[str]:
    return [code for code in blocks(page, "python") if code.startswith(f"# mysite/{of}")]


def engine_of(code: str) -> str:
    return re.findall(r"^SESSION_ENGINE = \"django_multisession\.backends\.(\w+)\"", code, re.MULTILINE)[0]


def has_the_pages(fresh: Fresh) -> None:
    """Migrates, signs in through HTTP, and sees where that was."""
    fresh.manage("migrate")
    fresh.manage("createsuperuser", "--noinput", "--username", "ann", "--email", "ann@example.com")
    with fresh.served() as browser:
        page = sign_in(browser, "/sessions/")
        assert (page.status_code, page.url.path) == (200, "/sessions/")
        assert "Your sessions" in page.text
        assert "this one" in page.text
        assert "127.0.0.1" in page.text
        assert browser.get("/admin/django_multisession/session/").status_code == 200
        assert browser.get("/static/django_multisession/pages.css").status_code == 200
    assert "System check identified no issues" in (fresh.directory / "server.log").read_text()


ENGINES = {engine_of(code): code for code in pasted(README, "settings.py") if "SESSION_ENGINE" in code}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_the_readme_is_pasted(fresh: Fresh, engine: str) -> None:
    for code in (pasted(README, "settings.py")[0], pasted(README, "urls.py")[0], ENGINES[engine]):
        fresh.paste(code)
    has_the_pages(fresh)
    if engine == "db":  # Django's app may go, as the README says
        fresh.paste('# mysite/settings.py\nINSTALLED_APPS.remove("django.contrib.sessions")\n')
        with fresh.served() as browser:
            assert sign_in(browser, "/sessions/").url.path == "/sessions/"


@pytest.mark.slow
def test_the_quick_start_is_followed(fresh: Fresh) -> None:
    first, *others = pasted(QUICKSTART, "settings.py")
    for code in (first, pasted(QUICKSTART, "urls.py")[0]):
        fresh.paste(code)
    has_the_pages(fresh)
    assert [engine_of(code) for code in others] == ["redis", "mongodb"]
    for code in others:  # they are those of the README, which are pasted there
        assert code.splitlines()[1:] == [line.partition("  #")[0] for line in ENGINES[engine_of(code)].splitlines()[1:]]
    [code] = [each for each in blocks(QUICKSTART, "python") if "def where" in each]
    asked = "from django.contrib.auth.models import User; ann = User.objects.get()"
    (fresh.directory / "ask.py").write_text(f"{code}\n{asked}\nprint(len(where(ann)), sign_out_everywhere(ann))\n")
    assert "1 1" in fresh.manage("shell", "-c", "exec(open('ask.py').read())")


def test_the_readme_has_each_engine_that_ships() -> None:
    assert set(ENGINES) == {"redis", "mongodb", "db", "cached_db"}


TO_INSTALL = {engine_of(code): code for code in pasted(INSTALL, "settings.py") if "SESSION_ENGINE" in code}


def test_install_has_each_engine_that_ships() -> None:
    assert set(TO_INSTALL) == {*ENGINES, "memory"}
    assert pasted(INSTALL, "urls.py") == pasted(QUICKSTART, "urls.py")


@pytest.mark.parametrize("engine", TO_INSTALL)
def test_what_is_pasted_leaves_djangos_settings_whole(tmp_path: Path, engine: str) -> None:
    """By install.md and then by the engine's own page: an app that is there twice keeps Django from starting."""
    call_command("startproject", "mysite", str(tmp_path))
    settings = tmp_path / "mysite" / "settings.py"
    before = runpy.run_path(str(settings))
    page = DOCS / f"{engine.replace('_', '-')}.md"
    parts = settings.read_text(), pasted(INSTALL, "settings.py")[0], TO_INSTALL[engine], blocks(page, "python")[0]
    settings.write_text("\n".join(parts))
    after = runpy.run_path(str(settings))
    assert after["INSTALLED_APPS"] == [*before["INSTALLED_APPS"], "django_multisession"]
    assert after["SESSION_ENGINE"] == f"django_multisession.backends.{engine}"
    ours = "django_multisession.middleware.SessionMiddleware"
    assert after["MIDDLEWARE"] == [ours if ".sessions." in name else name for name in before["MIDDLEWARE"]]


@pytest.mark.slow
def test_an_existing_site_moves_as_the_readme_says(fresh: Fresh) -> None:
    """Signed in with Django's engine before, still signed in after each deploy."""
    fresh.manage("migrate")
    fresh.manage("createsuperuser", "--noinput", "--username", "ann", "--email", "ann@example.com")
    with fresh.served() as browser:
        assert sign_in(browser, "/admin/").status_code == 200
    [move] = [code for code in blocks(README, "python") if "MULTISESSION_MOVE" in code]
    for code in (pasted(README, "settings.py")[0], pasted(README, "urls.py")[0], ENGINES["redis"]):
        fresh.paste(code)
    fresh.paste(f"# mysite/settings.py\n{move}")
    assert is_signed_in(fresh, browser)
    fresh.paste('# mysite/settings.py\nMULTISESSION_MOVE["phase"] = "move"\n')
    fresh.manage("sessions", "move")
    assert is_signed_in(fresh, browser)
    fresh.paste(f"{ENGINES['redis']}\ndel MULTISESSION_MOVE\n")
    assert is_signed_in(fresh, browser)


def is_signed_in(fresh: Fresh, before: httpx.Client) -> bool:
    with fresh.served() as browser:
        browser.cookies.set("sessionid", before.cookies["sessionid"])
        return browser.get("/sessions/").url.path == "/sessions/"


def test_the_addresses_are_those_of_the_package() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"].values()
    for page in (README, QUICKSTART, ROOT / "SECURITY.md", INSTALL):
        for url in re.findall(r"https://[\w.-]*\.example\b[^\s)`\]\"']*", page.read_text()):
            assert url.rstrip(".,") in known, (page.name, url)
