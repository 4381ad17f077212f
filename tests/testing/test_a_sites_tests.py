"""What docs/testing.md shows, in the processes of a site: one that `startproject` has made, and its tests run by
`manage.py test` and by pytest. The servers' addresses are this run's, and nothing else is changed."""

import os
import re
import shutil
from collections.abc import Iterator

import pytest
from redis import Redis

from .. import servers
from ..sites import Site
from ..test_docs import DOCS, blocks
from .test_isolation import OURS

pytestmark = pytest.mark.slow

PAGE = DOCS / "testing.md"
WARNING = "These tests use the session store of the site"
SETTINGS = """
MIDDLEWARE = ["django_multisession.middleware.SessionMiddleware" if "Session" in name else name for name in MIDDLEWARE]
LOGIN_URL = "admin:login"
"""
URLS = """
from django.urls import include
urlpatterns += [path("sessions/", include("django_multisession.urls"))]
"""
IN_MONGODB = """
from .settings import *
SESSION_ENGINE = "django_multisession.backends.mongodb"
MULTISESSION_MONGODB = {url!r}
"""
IN_MEMORY = """
from .settings import *
SESSION_ENGINE = "django_multisession.backends.memory"
"""
UNISOLATED = """
from django.test import SimpleTestCase

class Careless(SimpleTestCase):
    databases = {"default"}  # so Django runs the checks that ask servers, and migrates, before this test

    def test_that_stores_a_session(self):
        self.client.session.save()
"""
EACH_WORKER = """
import os, pathlib, pytest
from django_multisession import engine
from django_multisession.conf import conf

@pytest.fixture(autouse=True)
def _sees_nobody_elses_session(isolated_sessions):
    assert engine.store().storage.client.keys(conf.KEY_PREFIX + ":*") == []
    pathlib.Path(f"worker.{os.environ['PYTEST_XDIST_WORKER']}").write_text(conf.KEY_PREFIX)
"""


@pytest.fixture(scope="module")
def redis() -> str:
    if not (url := servers.url_of("redis")):
        pytest.skip(servers.MISSING["redis"])
    return url


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, redis: str) -> Site:
    """With the files that the page shows, and tests beside them that isolate nothing."""
    settings = {"SESSION_ENGINE": "django_multisession.backends.redis", "MULTISESSION_REDIS": redis}
    site = Site(tmp_path_factory.mktemp("site"), **settings)
    site.write(SETTINGS)
    added = {"mysite/in_memory.py": IN_MEMORY, "careless.py": UNISOLATED, "tests/__init__.py": ""}
    (site.directory / "tests").mkdir()
    for name, code in (files_of_the_page() | added).items():
        (site.directory / name).write_text(code)
    with (site.directory / "mysite" / "urls.py").open("a") as urls:
        urls.write(URLS)
    return site


def files_of_the_page() -> dict[str, str]:
    """By the names that the first lines of the blocks tell."""
    found = [code for language in ("python", "ini") for code in blocks(PAGE, language)]
    return {named[1]: code for code in found if (named := re.match(r"# (\S+)\n", code))}


def run(site: Site, *arguments: str) -> str:
    """The output of tests that have passed."""
    done = site.python(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_page_shows_these_tests(site: Site) -> None:
    assert sorted(files_of_the_page()) == ["pytest.ini", *(f"tests/test_{name}.py" for name in NAMES)]


NAMES = "cart", "client", "in_a_browser", "live", "with_pytest"


def test_they_pass_under_manage_py_test(site: Site, left: None) -> None:
    output = run(site, "manage.py", "test", "tests.test_cart", "tests.test_client", "tests.test_live")
    assert "Ran 5 tests" in output
    assert WARNING not in output


def test_they_pass_on_mongodb(site: Site) -> None:
    """`migrate` makes the indexes of the site's collection before them, which is no use of it by a test."""
    if not (url := servers.url_of("mongodb")):
        pytest.skip(servers.MISSING["mongodb"])
    (site.directory / "mysite" / "in_mongodb.py").write_text(IN_MONGODB.format(url=url))
    output = run(site, "manage.py", "test", "tests.test_client", "--settings", "mysite.in_mongodb")
    assert "Ran 3 tests" in output
    assert WARNING not in output


def test_a_browser_signs_out_the_other(site: Site, left: None) -> None:
    if not shutil.which("chromium") and not os.environ.get("CI"):
        pytest.skip("chromium is missing: apt install chromium")
    output = run(site, "manage.py", "test", "tests.test_in_a_browser")
    assert "Ran 1 test" in output
    assert WARNING not in output


def test_they_pass_in_two_workers_of_pytest(site: Site, left: None) -> None:
    (site.directory / "tests" / "conftest.py").write_text(EACH_WORKER)
    output = run(site, *PYTEST, "-n", "2", "tests", "--ignore", "tests/test_in_a_browser.py")
    assert "10 passed" in output
    assert WARNING not in output
    first, second = (path.read_text() for path in site.directory.glob("worker.gw*"))
    assert first != second


@pytest.fixture
def left(redis: str) -> Iterator[None]:
    """What lies in Redis before is all that lies there afterwards."""
    with Redis.from_url(redis) as client:
        before = client.keys()
        yield
        assert client.keys() == before


UNUSED = "cacheprovider", "hypothesispytest", "cov", "anyio", "freezegun", "time_machine"  # half the time of a start
PYTEST = "-m", "pytest", "-q", *OURS, *(f"-pno:{plugin}" for plugin in UNUSED)
RUNNERS = {"manage.py": ("manage.py", "test", "careless"), "pytest": (*PYTEST, "-o", "usefixtures=", "careless.py")}


@pytest.mark.parametrize("runner", RUNNERS)
def test_whoever_isolates_nothing_is_warned(site: Site, runner: str) -> None:
    assert run(site, *RUNNERS[runner]).count(WARNING) == 1


def test_in_memory_there_is_nothing_to_warn_of(site: Site, left: None) -> None:
    output = run(site, *RUNNERS["manage.py"], "--settings", "mysite.in_memory")
    assert "Ran 1 test" in output
    assert WARNING not in output
