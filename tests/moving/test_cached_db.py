"""`cached_db` as a side of a move: its table is that of `db`, and its copies go with what is moved."""

import pytest
from django.core import checks
from django.test import override_settings

from django_multisession.backends import moving
from django_multisession.backends.cached_db import SessionStore as CachedStore
from django_multisession.backends.db import SessionStore as DbStore
from tests.conftest import empty

from .conftest import saved_on

CACHED, DB = "django_multisession.backends.cached_db", "django_multisession.backends.db"


@pytest.fixture
def new_name():
    return "redis"


@pytest.fixture
def cached(site, settings):
    settings.MULTISESSION_REDIS = settings.REDIS_URL
    settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, "from": CACHED}
    yield site
    empty(CachedStore)


def test_db_then_cached_db_then_redis(cached, face):
    """From `db` there is nothing to move; then the table's sessions go to Redis, and no copy brings one back."""
    key = saved_on(DbStore, a=1, _auth_user_id="9")
    assert face(CachedStore(key)).load() == {"a": 1, "_auth_user_id": "9"}
    session = face(cached.at("move")(key))
    session["b"] = 2
    session.save()
    assert face(cached.new(key)).load() == {"a": 1, "_auth_user_id": "9", "b": 2}
    assert face(CachedStore(key)).load() == face(DbStore(key)).load() == {}
    rest = saved_on(CachedStore, c=3)
    assert face(CachedStore(rest)).load() == {"c": 3}
    assert face.functions(moving).move().moved == 1
    assert face(cached.new(rest)).load() == {"c": 3}
    assert face(CachedStore(rest)).load() == {}


@pytest.mark.parametrize(("from_", "to"), [(DB, CACHED), (CACHED, DB), (CACHED, CACHED)])
def test_one_table_is_one_place(cached, settings, from_, to):
    settings.MULTISESSION_MOVE = {"from": from_, "to": to, "phase": "move"}
    assert "django_multisession.E032" in {message.id for message in checks.run_checks()}
    settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, "from_settings": {"database": "postgres"}}
    assert "django_multisession.E032" not in {message.id for message in checks.run_checks()}


def test_the_check_opens_no_client(cached, settings):
    """What is wrong with it is another check's matter."""
    settings.MULTISESSION_MOVE = {"from": DB, "to": "django_multisession.backends.redis", "phase": "move"}
    with override_settings(MULTISESSION_REDIS="tests.nowhere"):
        assert "django_multisession.E032" not in {message.id for message in checks.run_checks()}
