"""From the engines of django-redis-sessions, django-user-sessions and django-qsessions."""

import pytest
from django.contrib.auth import get_user_model
from redis_sessions.session import RedisServer

from django_multisession.backends import moving
from django_multisession.backends.moving import walking
from django_multisession.backends.moving.plan import plan
from django_multisession.exceptions import EngineUnavailable

from .conftest import OF_OTHERS

pytestmark = pytest.mark.filterwarnings(
    "ignore:Call to deprecated setex:DeprecationWarning"
)  # of django-redis-sessions


@pytest.fixture(params=list(OF_OTHERS))
def old_name(request):
    return request.param


@pytest.fixture(params=["memory", "redis"])
def new_name(request):
    return request.param


@pytest.fixture
def user():
    get_user_model().objects.filter(username="ann").delete()
    user = get_user_model().objects.create_user("ann")
    yield user
    user.delete()


def signed_in(site, user):
    session = site.old()
    session["_auth_user_id"] = str(user.pk)
    session.save()
    return session.session_key


def test_it_is_taken_over_with_its_user(site, face, user):
    key = signed_in(site, user)
    session = face(site.at("move")(key))
    assert session.load()["_auth_user_id"] == str(user.pk)
    assert session.session_key == key
    assert (site.is_old(key), site.is_new(key)) == (False, True)


def test_nothing_is_made_by_looking(site, face, old_name):
    for phase in ("prepare", "move", "back"):
        assert face(site.at(phase)("k" * 32)).load() == {}
        assert walking.left(plan()) == 0


def test_it_is_used_there_and_its_columns_stay(site, face, user, old_name):
    key = signed_in(site, user)
    has_columns = old_name != "redis_sessions"
    model = plan().storage(moving.bulk.SYNC).old.model if has_columns else None
    if model:
        model._base_manager.filter(session_key=key).update(ip="192.0.2.1", user_agent="Firefox")
    session = face(site.at("prepare")(key))
    session["a"] = 1
    session.save()
    assert site.old(key).load()["a"] == 1
    assert not site.is_new(key)
    if model:
        row = model._base_manager.get(session_key=key)
        assert (row.ip, row.user_agent, row.user_id) == ("192.0.2.1", "Firefox", user.pk)


def test_a_save_brings_nothing_back(site, face, user):
    """`save()` of two of these makes what is not there."""
    key = signed_in(site, user)
    session = face(site.at("prepare")(key))
    session["a"] = 1
    site.old().delete(key)
    with pytest.raises(Exception, match="deleted"):
        session.save()
    assert not site.is_old(key)


def test_a_log_out_and_a_way_back(site, face, user):
    key = signed_in(site, user)
    face(site.at("move")(key)).load()
    session = face(site.at("back")(key))
    session["a"] = 1
    session.save()
    assert (site.is_old(key), site.is_new(key)) == (True, False)
    session.flush()
    for phase in ("prepare", "move", "back"):
        assert face(site.at(phase)()).exists(key) is False
    assert not site.is_old(key)


def test_the_rest_is_moved(site, face, user):
    keys = [signed_in(site, user) for _ in range(7)]
    assert walking.left(plan()) == 7
    assert face.functions(moving).move(batch_size=3).moved == 7
    assert all(site.is_new(key) for key in keys)
    assert walking.left(plan()) == 0


@pytest.mark.parametrize("old_name", ["redis_sessions"], indirect=True)
def test_an_outage_is_an_outage(site, face, monkeypatch, user):
    """Of django-redis-sessions it would be a log-out."""
    key = signed_in(site, user)

    def get(self, *arguments):
        raise ConnectionError("Connection refused.")

    monkeypatch.setattr(type(RedisServer("x").get()), "get", get)
    assert site.old(key).load() == {}
    for phase in ("prepare", "move"):
        with pytest.raises(EngineUnavailable, match="refused"):
            face(site.at(phase)(key)).load()
