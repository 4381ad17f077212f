"""What docs/deployment.md says to paste and to do, done."""

import itertools
import re
from typing import Any, ClassVar

import pytest
from django.contrib.sessions.serializers import JSONSerializer
from django.http import HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import path

from django_multisession.payload import codecs

from .test_docs import DOCS, blocks

PAGE = DOCS / "deployment.md"
OURS = "django_multisession.middleware.SessionMiddleware"
NOWHERE = "redis://127.0.0.1:1/0"


def snippet(name: str) -> dict[str, Any]:
    [code] = [each for each in blocks(PAGE, "python") if each.startswith(f"# {name}")]
    names: dict[str, Any] = {"__name__": "pasted"}
    exec(code, names)
    return names


health = snippet("mysite/health.py")
urlpatterns = [path("alive/", health["alive"]), path("sessions/", health["sessions"])]


@pytest.fixture
def engine_name() -> str:
    return "redis"


class TestProbes:
    @pytest.fixture(autouse=True)
    def _site(self):
        with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[OURS], SESSION_SAVE_EVERY_REQUEST=True):
            yield

    def answers(self) -> list[HttpResponse]:
        return [Client().get(f"/{page}/") for page in ("alive", "sessions")]

    def test_they_store_nothing(self, Store):
        alive, sessions = self.answers()
        assert (alive.status_code, sessions.status_code) == (200, 200)
        assert not alive.cookies
        assert not sessions.cookies

    def test_only_the_one_for_monitoring_asks_the_store(self, Store):
        with override_settings(MULTISESSION_REDIS=NOWHERE):
            alive, sessions = self.answers()
        assert (alive.status_code, sessions.status_code) == (200, 503)


def test_the_address_is_that_of_the_proxys_header():
    request = RequestFactory().get("/", headers={"X-Real-IP": "192.0.2.7", "X-Forwarded-For": "10.1.1.1"})
    assert snippet("mysite/proxies.py")["client_ip"](request) == "192.0.2.7"
    assert "X-Real-IP $remote_addr" in PAGE.read_text()


class TestSecretRotation:
    """Each deploy of the table beside the one before it: what either writes, both read."""

    KEYS: ClassVar = {"old": "o" * 50, "new": "n" * 50}

    def steps(self) -> list[dict[str, Any]]:
        rows = re.findall(r"^\| (?:before|\d)[^|]*\| (\w+) \| `\[(\w*)\]` \|$", PAGE.read_text(), re.MULTILINE)
        assert len(rows) == 4
        return [
            {"SECRET_KEY": self.KEYS[key], "SECRET_KEY_FALLBACKS": [self.KEYS[other]] if other else []}
            for key, other in rows
        ]

    def test_neighbours_read_each_other(self):
        for before, after in itertools.pairwise(self.steps()):
            for writer, reader in itertools.permutations([before, after]):
                with override_settings(**writer):
                    payload = codecs.encode({"a": 1}, "id", JSONSerializer)
                with override_settings(**reader):
                    assert codecs.decode(payload, "id", JSONSerializer) == {"a": 1}
