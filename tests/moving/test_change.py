"""`change()` of a session that is on the move, and rules for keys that two requests have changed."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.sessions.backends.base import UpdateError
from django.db import connections

from .conftest import saved_on

REQUESTS = 50
PHASES = "prepare", "move", "back"


def count(data):
    data["count"] = data.get("count", 0) + 1
    return data["count"]


@pytest.fixture(params=["db", "cache", "ours"])
def old_name(request):
    return request.param


def loaded(face, store, key):
    session = face(store(key))
    session.get("count")
    return session


class TestOneRequest:
    @pytest.mark.parametrize("is_loaded", [True, False])
    @pytest.mark.parametrize("phase", PHASES)
    def test_in_each_phase(self, site, face, phase, is_loaded):
        key = saved_on(site.old, count=1, _auth_user_id="9")
        session = (loaded if is_loaded else lambda face, store, key: face(store(key)))(face, site.at(phase), key)
        assert session.change(count) == 2
        assert dict(session.items()) == {"count": 2, "_auth_user_id": "9"}
        assert session.session_key == key
        assert (site.is_new(key), site.is_old(key)) == (phase == "move", phase != "move")
        side = site.new if phase == "move" else site.old
        assert side(key).load() == {"count": 2, "_auth_user_id": "9"}

    @pytest.mark.parametrize("phase", PHASES)
    def test_a_new_session(self, site, face, phase):
        session = face(site.at(phase)())
        assert session.change(count) == 1
        assert (site.new if phase == "move" else site.old)(session.session_key).load() == {"count": 1}

    def test_it_begins_with_what_the_old_side_holds_by_now(self, site, face):
        key = saved_on(site.old, count=1)
        session = loaded(face, site.at("prepare"), key)
        session["mine"] = 1
        face(site.at("prepare")(key)).change(lambda data: data.update(count=5, b=1))
        assert session.change(count) == 6
        assert site.old(key).load() == {"count": 6, "b": 1, "mine": 1}

    @pytest.mark.parametrize("on_conflict", ["merge", "overwrite", "raise"])
    def test_taken_over_since_it_was_loaded(self, site, face, settings, on_conflict):
        settings.MULTISESSION_ON_CONFLICT = on_conflict
        key = saved_on(site.old, count=1)
        session = loaded(face, site.at("prepare"), key)
        session["mine"] = 1
        assert face(site.at("move")(key)).change(count) == 2
        assert session.change(count) == 3
        assert site.new(key).load() == dict(session.items()) == {"count": 3, "mine": 1}
        assert not site.is_old(key)

    def test_taken_over_while_the_function_runs(self, site):
        key = saved_on(site.old, count=1)
        session = site.at("prepare")(key)
        given = []

        def change(data):
            if not given:
                site.at("move")(key).change(count)
            given.append(data["count"])
            return count(data)

        assert session.change(change) == 3
        assert given == [1, 2]
        assert site.new(key).load() == {"count": 3}

    def test_ended_meanwhile(self, site, face):
        key = saved_on(site.old, count=1, _auth_user_id="9")
        session = loaded(face, site.at("move"), key)
        face(site.at("move")(key)).flush()
        with pytest.raises(UpdateError):
            session.change(count)
        assert not site.is_old(key)
        assert not site.is_new(key)


@pytest.mark.parametrize("new_name", ["memory", "redis"], indirect=True)
class TestTheSameNumber:
    """Two that count to the same number in the same millisecond have counted to one more."""

    def test_by_a_rule(self, site, settings):
        settings.MULTISESSION_MERGE = {"count": "sum"}
        key = saved_on(site.old, count=0)
        sessions = [site.at("move")(key) for _ in range(3)]
        for session in sessions:
            session["count"] += 1
        for session in sessions:
            session.save()
        assert site.new(key).load() == {"count": 3}


@pytest.mark.slow
@pytest.mark.parametrize("new_name", ["redis", "sqlite"], indirect=True)
@pytest.mark.parametrize("old_name", ["db", "ours"], indirect=True)
def test_fifty_at_the_moment_of_the_move(site):
    key, barrier = saved_on(site.old, count=0), threading.Barrier(REQUESTS)

    def request(number):
        try:
            session = site.at("move")(key)
            if number % 2:
                session.get("count")
            barrier.wait(60)
            session.change(count)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(REQUESTS) as pool:
        list(pool.map(request, range(REQUESTS)))
    assert site.new(key).load() == {"count": REQUESTS}
    assert not site.is_old(key)
