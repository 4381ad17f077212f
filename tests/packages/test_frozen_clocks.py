"""Sites' tests set the clock to where they need it, years back, and sign in there."""

from contextlib import AbstractContextManager
from typing import Any

import freezegun
import pytest
import time_machine
from django.test import AsyncClient, Client

from ..conftest import ENGINES

MOMENT = "2012-01-14 12:00:01"

CLOCKS = {
    "freezegun": lambda: freezegun.freeze_time(MOMENT, real_asyncio=True),
    "freezegun, ticking": lambda: freezegun.freeze_time(MOMENT, tick=True, real_asyncio=True),
    "time-machine": lambda: time_machine.travel(MOMENT, tick=False),
    "time-machine, ticking": lambda: time_machine.travel(MOMENT, tick=True),
}


@pytest.fixture(params=[name for name in ENGINES if name != "memory"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=CLOCKS)
def frozen(request: pytest.FixtureRequest) -> AbstractContextManager[Any]:
    return CLOCKS[request.param]()


def test_who_signs_in_years_ago_is_signed_in(ann, frozen):
    client = Client()
    with frozen:
        client.force_login(ann)
        assert client.get("/count/").json() == {"user": "ann", "count": 1}
        session = client.session
        session["count"] = 5
        session.save()
        assert client.get("/count/").json() == {"user": "ann", "count": 6}
        client.get("/sign_out/")
        assert client.get("/look/").json() == {"user": "", "count": None}


def test_a_form_is_enough(ann, frozen):
    client = Client()
    with frozen:
        client.get("/count/")
        client.get("/sign_in/")
        assert client.get("/count/").json() == {"user": "ann", "count": 2}
        client.get("/change_password/")
        assert client.get("/look/").json() == {"user": "ann", "count": 2}


def test_asynchronously_too(ann, runner, frozen):
    client = AsyncClient()

    async def journey() -> Any:
        await client.get("/acount/")
        await client.get("/asign_in/")
        return (await client.get("/acount/")).json()

    with frozen:
        assert runner.run(journey()) == {"count": 2}
