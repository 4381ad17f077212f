"""Fifty requests of one session at the moment of its move: threads, tasks and two processes."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from tests.children import child
from tests.routers import SessionRouter

from .conftest import saved_on

REQUESTS = 50


@pytest.fixture(params=["django-redis", "Django's Redis", "ours", "db"])
def old_name(request):
    return request.param


@pytest.fixture(params=["redis", "memory", "sqlite"])
def new_name(request):
    return request.param


def answered(session):
    return session.session_key, session._session_cache.get("_auth_user_id")


def expected(numbers=range(REQUESTS)):
    return {f"n{number}": number for number in numbers}


@pytest.mark.parametrize("phases", [["move"], ["prepare", "move"]], ids=str)
def test_threads(site, phases):
    """All have loaded before any saves, as requests of one page do."""
    key = saved_on(site.old, _auth_user_id="9")
    barrier = threading.Barrier(REQUESTS)

    def request(number):
        try:
            session = site.at(phases[number % len(phases)])(key)
            session.get("a")
            barrier.wait(60)
            session[f"n{number}"] = number
            session.save()
            return answered(session)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(REQUESTS) as pool:
        answers = list(pool.map(request, range(REQUESTS)))
    assert answers == [(key, "9")] * REQUESTS
    assert site.new(key).load() == {"_auth_user_id": "9", **expected()}
    assert not site.is_old(key)


@pytest.mark.slow
@pytest.mark.parametrize("phases", [["move"], ["prepare", "move"]], ids=str)
def test_tasks(site, phases, runner):
    key = saved_on(site.old, _auth_user_id="9")

    async def request(number, loaded):
        session = site.at(phases[number % len(phases)])(key)
        await session.aget("a")
        await loaded.wait()
        await session.aset(f"n{number}", number)
        await session.asave()
        return answered(session)

    async def all_at_once():
        loaded = asyncio.Barrier(REQUESTS)
        return await asyncio.gather(*(request(number, loaded) for number in range(REQUESTS)))

    assert runner.run(all_at_once()) == [(key, "9")] * REQUESTS
    assert site.new(key).load() == {"_auth_user_id": "9", **expected()}
    assert not site.is_old(key)


def test_whoever_comes_first_while_the_others_run(site):
    """Each loads and saves at its own pace, all of them in `move`."""
    key = saved_on(site.old, _auth_user_id="9")

    def request(number):
        try:
            session = site.at("move")(key)
            session[f"n{number}"] = number
            session.save()
            return answered(session)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(REQUESTS) as pool:
        assert list(pool.map(request, range(REQUESTS))) == [(key, "9")] * REQUESTS
    assert site.new(key).load() == {"_auth_user_id": "9", **expected()}


CODE = """
import asyncio
from concurrent.futures import ThreadPoolExecutor
from django.contrib.sessions.models import Session
from django.db import connections
from django_multisession.backends.moving import SessionStore

def request(number):
    try:
        session = SessionStore(given["key"])
        session[f"n{number}"] = number
        session.save()
        return session.session_key, session.get("_auth_user_id")
    finally:
        connections.close_all()

with ThreadPoolExecutor(25) as pool:
    print(json.dumps(list(pool.map(request, given["numbers"]))))
"""


@pytest.mark.parametrize("new_name", ["redis"], indirect=True)
@pytest.mark.parametrize("old_name", ["db"], indirect=True)
def test_two_processes(site, settings):
    key = saved_on(site.old, _auth_user_id="9")
    assert SessionRouter.alias == "default"
    moving = {"MULTISESSION_MOVE": settings.MULTISESSION_MOVE}
    halves = [list(range(25)), list(range(25, 50))]
    processes = [child(CODE, key=key, numbers=numbers, more=moving) for numbers in halves]
    for process in processes:
        printed, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert json.loads(printed) == [[key, "9"]] * 25
    assert site.new(key).load() == {"_auth_user_id": "9", **expected()}
    assert not site.is_old(key)
