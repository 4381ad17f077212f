"""From an engine of this package to the same engine elsewhere."""

import pytest
import redis
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from django_multisession.backends import moving
from django_multisession.backends.moving.plan import plan
from django_multisession.exceptions import InvalidOption
from django_multisession.models import Session
from django_multisession.records import identify
from tests.routers import SessionRouter

from .conftest import saved_on


@pytest.fixture
def new_name():
    return "redis"


@pytest.fixture
def elsewhere(site, settings):
    """The site's Redis, another database of it."""
    other = f"{settings.REDIS_URL.rpartition('/')[0]}/7"
    engine = "django_multisession.backends.redis"
    settings.MULTISESSION_REDIS = settings.REDIS_URL
    settings.MULTISESSION_MOVE = {
        "from": engine,
        "to": engine,
        "phase": "move",
        "from_settings": {"MULTISESSION_REDIS": other},
    }
    client = redis.Redis.from_url(other)
    client.flushdb()
    yield client
    client.flushdb()
    client.close()


def test_from_one_redis_to_another(site, elsewhere, face, settings):
    key = saved_on(site.new, a=1, _auth_user_id="9")
    record = f"session:{identify(key)}"
    value = site.new.storage.client.getdel(record)
    elsewhere.set(record, value, px=100_000)
    assert site.is_new(key) is False
    session = face(site.at("move")(key))
    assert session.load() == {"a": 1, "_auth_user_id": "9"}
    assert site.is_new(key)
    assert not elsewhere.exists(record)
    assert site.new.storage.client.get(record)[:32] == value[:32]  # version and times are those of before
    back = face(site.at("back")(key))
    back["b"] = 2
    back.save()
    assert elsewhere.exists(record)
    assert site.is_new(key) is False
    assert face(site.at("prepare")(key)).load() == {"a": 1, "_auth_user_id": "9", "b": 2}
    assert settings.MULTISESSION_REDIS == settings.REDIS_URL


def test_the_rest_is_moved(site, elsewhere, face):
    keys = [saved_on(site.at("prepare"), face, n=number) for number in range(5)]
    assert not any(site.is_new(key) for key in keys)
    assert face.functions(moving).move().moved == 5
    assert [site.new(key)["n"] for key in keys] == list(range(5))


def test_the_same_place_is_found_out(site, elsewhere, settings):
    settings.MULTISESSION_MOVE = {
        **settings.MULTISESSION_MOVE, "from_settings": {"MULTISESSION_REDIS": settings.REDIS_URL},
    }  # fmt: skip
    assert "django_multisession.E032" in {message.id for message in checks.run_checks()}


def test_other_settings_are_refused(site, elsewhere, settings):
    settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, "from_settings": {"MULTISESSION_KEY_PREFIX": "x"}}
    with pytest.raises(ImproperlyConfigured, match="from_settings"):
        plan().storage(moving.bulk.SYNC)
    assert "django_multisession.E030" in {message.id for message in checks.run_checks()}


def test_from_one_database_to_another(site, face, settings):
    engine = "django_multisession.backends.db"
    settings.MULTISESSION_MOVE = {
        "from": engine,
        "to": engine,
        "phase": "move",
        "from_settings": {"database": "default"},
    }
    SessionRouter.alias = "default"
    from django_multisession.backends.db import SessionStore

    key = saved_on(SessionStore, a=1, _auth_user_id="9")
    SessionRouter.alias = "postgres"
    try:
        assert face(moving.SessionStore(key)).load() == {"a": 1, "_auth_user_id": "9"}
        counts = [
            Session.objects.using(alias).filter(session_id=identify(key)).count() for alias in ("default", "postgres")
        ]
        assert counts == [0, 1]
    finally:
        Session.objects.using("postgres").all()._raw_delete("postgres")
        SessionRouter.alias = "default"


def test_one_place_under_two_names(site, elsewhere, face, settings):
    """Which no check can tell: else `--clean` would take every session for a copy of itself."""
    again = settings.REDIS_URL + "?client_name=again"
    settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, "from_settings": {"MULTISESSION_REDIS": again}}
    key = saved_on(site.new, a=1)
    for function in face.functions(moving).move, moving.bulk.clean:
        with pytest.raises(InvalidOption, match="the place that 'to' is in"):
            function()
    assert site.is_new(key)


def test_the_site_itself_needs_no_redis(site, elsewhere, face, settings):
    """Where `to` is another engine, `from_settings` are all that is said of Redis."""
    url = settings.MULTISESSION_MOVE["from_settings"]["MULTISESSION_REDIS"]
    settings.MULTISESSION_REDIS = url
    key = saved_on(site.new, a=1)
    settings.MULTISESSION_REDIS = None
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, "to": "tests.moving.second"}
    assert face(site.at("move")(key)).load() == {"a": 1}
    assert not elsewhere.exists(f"session:{identify(key)}")


def test_of_other_engines_it_says_nothing(site, elsewhere, settings):
    settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, "from": "django.contrib.sessions.backends.db"}
    assert "django_multisession.E030" in {message.id for message in checks.run_checks()}
