"""What each phase asks of both sides: the SQL of Django's `db` engine, and the verbs of `to`, a round trip each."""

import dataclasses

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_multisession.twins import run_sync

from .conftest import saved_on


class Counting:
    """A storage that notes its verbs."""

    def __init__(self, storage):
        self._storage, self.verbs = storage, []

    def __getattr__(self, name):
        function = getattr(self._storage, name)

        async def call(*arguments):
            self.verbs.append(name)
            return await function(*arguments)

        return call


class Trips:
    """What a core coroutine of a session asks of `to` and of the old side."""

    def __init__(self, session):
        self.session = session

    def __call__(self, name, *arguments):
        storage = self.session.storage
        counting = Counting(storage.to)
        with CaptureQueriesContext(connections["default"]) as queries:
            run_sync(getattr(self.session, name)(dataclasses.replace(storage, to=counting), *arguments))
        return counting.verbs, statements(queries)


def statements(queries):
    return [query["sql"].split()[0] for query in queries if query["sql"].split()[0] not in ("BEGIN", "COMMIT")]


@pytest.fixture(params=["memory"])
def new_name(request):
    return request.param


def alone(store, key, change):
    """The statements of Django's engine by itself."""
    session = store(key)
    with CaptureQueriesContext(connections["default"]) as loading:
        session.load()
    change(session)
    with CaptureQueriesContext(connections["default"]) as saving:
        session.save()
    return statements(loading), statements(saving)


def test_used_on_the_old_side(site):
    key = saved_on(site.old, a=1)
    loading, saving = alone(site.old, key, lambda session: session.update({"b": 1}))
    session = site.at("prepare")(key)
    assert Trips(session)("_data") == (["read"], loading)  # one more, where the first side misses
    session["c"] = 1
    assert Trips(session)("_save") == (["read"], saving)  # one more: was it taken over meanwhile?


def test_made_on_the_old_side(site):
    session = site.at("prepare")()
    session["a"] = 1
    assert Trips(session)("_save") == ([], ["INSERT"])


@pytest.mark.parametrize("phase", ["prepare", "move"])
def test_used_on_the_new_side(site, phase):
    key = saved_on(site.at("move"), a=1)
    session = site.at(phase)(key)
    assert Trips(session)("_data") == (["read"], [])
    session["b"] = 1
    assert Trips(session)("_save") == (["replace"], [])


def test_touched_on_the_new_side(site, settings):
    settings.MULTISESSION_TOUCH_AFTER = 0
    key = saved_on(site.at("move"), a=1)
    session = site.at("move")(key)
    session._session_cache = session.load()
    session.set_expiry(None)
    assert Trips(session)("_save") == (["read", "touch"], [])  # one more: a mark would be touched as well


def test_made_on_the_new_side(site):
    session = site.at("move")()
    session["a"] = 1
    assert Trips(session)("_save") == (["insert"], [])


@pytest.mark.parametrize("phase", ["prepare", "move", "back"])
def test_an_unknown_key(site, phase):
    assert Trips(site.at(phase)("k" * 32))("_data") == (["read", "read"], ["SELECT"])  # one more look


def test_a_take_over(site):
    anonymous, of_a_user = saved_on(site.old, a=1), saved_on(site.old, _auth_user_id="9")
    verbs, sql = Trips(site.at("move")(anonymous))("_data")
    assert verbs == ["read", "insert", "read"]
    assert sql == ["SELECT", "SELECT", "DELETE"]
    verbs, sql = Trips(site.at("move")(of_a_user))("_data")
    assert verbs == ["read", "read", "read", "insert", "read", "read", "read"]  # marks of the user and of all, twice
    assert sql == ["SELECT", "SELECT", "DELETE"]


def test_a_log_out(site):
    key = saved_on(site.at("move"), a=1)
    session = site.at("move")(key)
    session.load()
    verbs, sql = Trips(session)("_delete")
    assert verbs == ["read", "replace"]
    assert sql == ["DELETE"]
