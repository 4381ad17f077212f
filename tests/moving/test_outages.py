"""An outage of either side is an outage, and no log-out, also where the old engine takes it for one."""

import pytest
from django.core.cache import caches
from django.db import OperationalError
from django.db.models import QuerySet

from django_multisession.backends import moving
from django_multisession.exceptions import EngineUnavailable

from .conftest import saved_on

NOBODY_THERE = "redis://127.0.0.1:1/0"


@pytest.fixture(params=["memory", "sqlite"])
def new_name(request):
    return request.param


def attempts(site, face, key):
    """What a request may do first with a session, in each phase."""
    for phase in ("prepare", "move", "back"):
        Store = site.at(phase)
        yield lambda Store=Store: face(Store(key)).load()
        yield lambda Store=Store: face(Store()).exists(key)
        yield lambda Store=Store: face(Store(key)).delete(key)


@pytest.mark.parametrize("old_name", ["django-redis", "Django's Redis"], indirect=True)
def test_of_a_cache(site, face, settings):
    key = saved_on(site.old, a=1)
    before = settings.CACHES
    settings.CACHES = {**before, "old": {**before["old"], "LOCATION": NOBODY_THERE}}
    assert site.old(key).load() == {}  # so everybody would be logged out
    for attempt in attempts(site, face, key):
        with pytest.raises(EngineUnavailable):
            attempt()
    with pytest.raises(EngineUnavailable):
        saved_on(site.at("prepare"), face, a=1)
    with pytest.raises(EngineUnavailable):
        face.functions(moving).move()
    settings.CACHES = before
    assert caches["old"]
    assert face(site.at("move")(key)).load() == {"a": 1}


@pytest.mark.parametrize("old_name", ["db"], indirect=True)
def test_of_a_database(site, face, monkeypatch):
    key = saved_on(site.old, a=1)

    def locked(*arguments, **options):
        raise OperationalError("database is locked")

    with monkeypatch.context() as patched:
        for name in ("__iter__", "exists", "delete", "iterator"):
            patched.setattr(QuerySet, name, locked)
        for attempt in attempts(site, face, key):
            with pytest.raises(EngineUnavailable, match="locked"):
                attempt()
    assert face(site.at("move")(key)).load() == {"a": 1}


@pytest.mark.parametrize("old_name", ["db"], indirect=True)
def test_a_save_into_a_locked_table_is_no_log_out(site, face, monkeypatch):
    """Django's engine makes an `UpdateError` of it: "the session was deleted"."""
    from django.contrib.sessions.models import Session

    session = face(site.at("prepare")(saved_on(site.old, a=1)))
    session["b"] = 1

    def locked(*arguments, **options):
        raise OperationalError("database is locked")

    monkeypatch.setattr(Session, "save", locked)
    with pytest.raises(EngineUnavailable, match="locked"):
        session.save()


@pytest.mark.parametrize("old_name", ["db", "ours"], indirect=True)
@pytest.mark.parametrize("new_name", ["redis"], indirect=True)
def test_of_the_new_side(site, face, settings):
    key = saved_on(site.old, a=1)
    url = settings.REDIS_URL
    settings.MULTISESSION_REDIS = NOBODY_THERE
    for attempt in attempts(site, face, key):
        with pytest.raises(EngineUnavailable):
            attempt()
    assert site.is_old(key)
    settings.MULTISESSION_REDIS = url
    assert face(site.at("move")(key)).load() == {"a": 1}
