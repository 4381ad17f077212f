"""The JSON on the pages has the keys and the types of what is really answered."""

import json
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client, override_settings

from django_multisession.models import PurgeRun

from ..browsers import AUTH, OURS, new_user
from .fences import HERE

BLOCKS = [block for block in HERE if block.language == "json"]
ACCEPT = {"accept": "application/json", "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0"}


@pytest.fixture
def client(Store: Any) -> Iterator[Client]:
    """A browser in which ann has signed in."""
    settings = {"MIDDLEWARE": [OURS, AUTH], "ROOT_URLCONF": "tests.docs.urls", "MULTISESSION_TRACK_CLIENT": True}
    user = new_user("ann")
    with override_settings(**settings):
        yield signed_in(Client())
    user.delete()


def signed_in(client: Client) -> Client:
    assert client.get("/sign_in_as/ann/", headers=ACCEPT).status_code == 200
    return client


def refusal(client: Client) -> Any:
    with override_settings(MULTISESSION_MAX_PER_USER=1, MULTISESSION_ON_MAX="refuse"):
        return Client().get("/sign_in_as/ann/", headers=ACCEPT).json()


def listed(client: Client) -> Any:
    return client.get("/sessions/", headers=ACCEPT).json()


def printed(*command: str) -> Any:
    out = StringIO()
    call_command(*command, "--json", stdout=out)
    return json.loads(out.getvalue())


def counted(client: Client) -> Any:
    return printed("sessions", "stats", "--no-progress")


def purged(client: Client) -> Any:
    with override_settings(SESSION_ENGINE="django_multisession.backends.db"):
        found = printed("purgesessions", "--no-progress")
    PurgeRun.objects.all().delete()
    return found


REAL: dict[str, Callable[[Client], Any]] = {
    '{"error": "too_many_sessions"': refusal,
    '{"sessions": [': listed,
    '{"sessions": 3': counted,
    '{"rows"': purged,
}


def shape(value: Any) -> Any:
    """Keys and types; of a list that of its first member."""
    match value:
        case dict():
            return {key: shape(each) for key, each in value.items()}
        case list():
            return [shape(each) for each in value[:1]]
        case bool() | str() | None:
            return type(value).__name__
    return "number"


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_it_looks_like_what_is_answered(block: Any, client: Client) -> None:
    [real] = [real for start, real in REAL.items() if block.code.startswith(start)]
    shown, answered = shape(json.loads(block.code)), shape(real(client))
    if real is counted:  # the page says that it leaves some out, and its days and names are examples
        answered |= {name: shown[name] for name in ("log_ins", "names")}
        answered = {name: answered[name] for name in shown}
    assert shown == answered
