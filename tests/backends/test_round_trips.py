"""What each operation costs, counted: Redis round trips and commands, MongoDB commands, SQL statements.

Counting starts after a first use: connecting, making MongoDB's indexes and loading Redis's scripts happen once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pymongo.monitoring
import pytest
import redis
import redis.asyncio
from django.contrib.sessions.serializers import JSONSerializer
from django.db import connections
from django.test import override_settings

from django_multisession import user_sessions
from django_multisession.backends import mongodb
from django_multisession.backends.mongodb import storage as mongodb_storage
from django_multisession.backends.redis import answers
from django_multisession.exceptions import SessionEnded
from django_multisession.models import Session
from django_multisession.payload import codecs
from django_multisession.records import Record, identify
from django_multisession.testing.stored import KEY, saved
from django_multisession.twins import run_sync
from django_multisession.user_sessions.lifecycle import BATCH, handle

from ..routers import SessionRouter

Trips = list[str]


class MongoListener(pymongo.monitoring.CommandListener):
    """Registered for every client before any is made; hands the commands' names to who counts at the moment."""

    trips: Trips | None = None

    def started(self, event: pymongo.monitoring.CommandStartedEvent) -> None:
        if self.trips is not None:
            self.trips.append(event.command_name)

    def succeeded(self, event: Any) -> None: ...

    def failed(self, event: Any) -> None: ...


mongo_listener = MongoListener()
pymongo.monitoring.register(mongo_listener)


@pytest.fixture(params=["redis", "mongodb", "sqlite", "postgres", "mysql"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def trips_of(Store, face, engine_name, monkeypatch) -> Iterator[Callable[[Callable[[], object]], Trips]]:
    if engine_name == "mongodb":
        mongodb.connections.close()  # one from before the listener does not tell it anything
    warm_up(face, Store)
    counting = {"redis": redis_trips, "mongodb": mongodb_commands}.get(engine_name, sql_statements)

    def count(operation: Callable[[], object]) -> Trips:
        with counting(face, monkeypatch) as trips:
            operation()
        return list(trips)

    return count


def warm_up(face: Any, Store: Any) -> None:
    session = face(Store(saved(face, Store, _auth_user_id="1")))
    session["a"] = 1
    session.save()
    with override_settings(MULTISESSION_TOUCH_AFTER=0):
        session.save()
    session.flush()


@contextmanager
def redis_trips(face: Any, monkeypatch: Any) -> Iterator[Trips]:
    """Each call of send_packed_command() is one write to the socket, whose answers are read before the next."""
    trips: Trips = []
    with monkeypatch.context() as patch:
        for connection in (redis.connection.AbstractConnection, redis.asyncio.connection.AbstractConnection):
            patch.setattr(connection, "send_packed_command", _counted(connection.send_packed_command, trips))
        yield trips


def _counted(send: Any, trips: Trips) -> Any:
    def send_packed_command(self: Any, command: Any, *arguments: Any, **options: Any) -> Any:
        packed = command if isinstance(command, bytes) else b"".join(command)
        trips.append(" ".join(_commands(packed)))
        return send(self, command, *arguments, **options)

    return send_packed_command


def _commands(packed: bytes) -> Iterator[str]:
    """The names of the commands in a request of Redis's protocol: `*<items>`, then `$<length>` and bytes for each."""
    while packed:
        items, _, packed = packed.partition(b"\r\n")
        words = []
        for _ in range(int(items[1:])):
            length, _, packed = packed.partition(b"\r\n")
            words.append(packed[: int(length[1:])])
            packed = packed[int(length[1:]) + 2 :]
        yield words[0].decode()


@contextmanager
def mongodb_commands(face: Any, monkeypatch: Any) -> Iterator[Trips]:
    mongo_listener.trips = []
    try:
        yield mongo_listener.trips
    finally:
        mongo_listener.trips = None


@contextmanager
def sql_statements(face: Any, monkeypatch: Any) -> Iterator[Trips]:
    """Django logs BEGIN, COMMIT and SAVEPOINT too. The face's connection may be another thread's."""
    connection = face.run(lambda: connections[SessionRouter.alias])
    trips: Trips = []
    with monkeypatch.context() as patch:
        patch.setattr(connection, "force_debug_cursor", True)
        connection.queries_log.clear()
        yield trips
        trips += [query["sql"].split()[0] for query in connection.queries_log]
        connection.queries_log.clear()


EXPECTED = {
    "load": {"redis": ["GET"], "mongodb": ["find"], "sql": ["SELECT"]},
    "exists": {"redis": ["GET"], "mongodb": ["find"], "sql": ["SELECT"]},
    "save": {"redis": ["EVALSHA"], "mongodb": ["update"], "sql": ["UPDATE"]},
    "unchanged save": {"redis": ["GET"], "mongodb": ["find"], "sql": ["SELECT"]},
    "save of every request": {"redis": [], "mongodb": [], "sql": []},
    "save after delete": {"redis": ["DEL"], "mongodb": ["delete"], "sql": ["DELETE"]},
    "touch": {"redis": ["EVALSHA"], "mongodb": ["update"], "sql": ["UPDATE"]},
    "create": {"redis": ["SET"], "mongodb": ["insert"], "sql": ["INSERT"]},
    "create signed in": {"redis": ["EVALSHA"], "mongodb": ["insert"], "sql": ["INSERT"]},
    "delete": {"redis": ["DEL"], "mongodb": ["delete"], "sql": ["DELETE"]},
    "cycle_key": {
        "redis": ["GET", "SET", "DEL"],
        "mongodb": ["find", "insert", "delete"],
        "sql": ["SELECT", "INSERT", "DELETE"],
    },
    "cycle_key signed in": {
        "redis": ["GET", "EVALSHA", "SET", "EVALSHA", "DEL"],
        "mongodb": ["find", "insert", "insert", "update", "delete"],
        "sql": ["SELECT", "INSERT", "INSERT", "UPDATE", "DELETE"],
    },
    "flush": {"redis": ["DEL"], "mongodb": ["delete"], "sql": ["DELETE"]},
}


def loaded(face: Any, Store: Any, **data: Any) -> Any:
    session = face(Store(saved(face, Store, **data)))
    session.get("")
    return session


@pytest.mark.parametrize("operation", EXPECTED)
def test_round_trips(Store, face, engine_name, trips_of, operation, clock):
    session = loaded(face, Store, a=1)
    signed_in = face(Store())
    signed_in["_auth_user_id"] = "1"
    changed = loaded(face, Store, a=1, _auth_user_id="1")
    changed["b"] = 2
    operations = {
        "load": session.load,
        "exists": lambda: session.exists(KEY),
        "save": changed.save,
        "unchanged save": session.save,
        "save of every request": lambda: of_every_request(session),
        "save after delete": lambda: (session.delete(), refused(session)),
        "touch": lambda: (clock.shift(61), session.save()),
        "create": face(Store()).create,
        "create signed in": signed_in.save,
        "delete": session.delete,
        "cycle_key": session.cycle_key,
        "cycle_key signed in": loaded(face, Store, _auth_user_id="1").cycle_key,
        "flush": session.flush,
    }
    expected = EXPECTED[operation].get(engine_name, EXPECTED[operation]["sql"])
    assert trips_of(operations[operation]) == expected


def of_every_request(session: Any) -> None:
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        session.save()


def refused(session: Any) -> None:
    with pytest.raises(SessionEnded):
        session.save()


def test_a_request_that_reads_and_writes_is_two_trips(Store, face, trips_of):
    key = saved(face, Store, visits=1, _auth_user_id="1")

    def request() -> None:
        session = face(Store(key))
        session["visits"] = 2
        session.save()

    assert len(trips_of(request)) == 2


def test_a_request_that_never_looks_at_the_session_costs_nothing(Store, face, trips_of):
    key = saved(face, Store)
    assert trips_of(lambda: face(Store(key)).is_empty()) == []


LISTING = {"redis": ["ZRANGE", "GET ZRANGE"], "mongodb": ["find"], "sql": ["SELECT"]}


def listing(engine_name: str, number: int) -> list[str]:
    """What a list costs: all records come in one pipeline, and MongoDB sends more than the first hundred separately."""
    more = ["getMore"] if engine_name == "mongodb" and number > 101 else []
    return LISTING.get(engine_name, LISTING["sql"]) + more


def shortened(trips: Trips) -> Trips:
    """Of a pipeline of one command that is repeated, the command."""
    return [" ".join(dict.fromkeys(trip.split())) for trip in trips]


@pytest.mark.parametrize("number", [1, 20])
def test_listing_a_user_is_two_trips_at_most_whatever_the_number(Store, face, engine_name, trips_of, number):
    """With the request's own session marked, and no scan of anything."""
    api, keys = face.functions(user_sessions), [saved(face, Store, _auth_user_id="1") for _ in range(number)]
    request = SimpleNamespace(session=loaded_as(face, Store, keys[0]))
    expected = listing(engine_name, number)
    assert shortened(trips_of(lambda: api.sessions_of("1", request))) == expected
    assert shortened(trips_of(lambda: api.count("1"))) == expected
    assert len(expected) <= 2


def loaded_as(face: Any, Store: Any, key: str) -> Any:
    session = Store(key)
    face(session).get("")
    return session


def test_listing_nobody(face, engine_name, trips_of):
    api = face.functions(user_sessions)
    trips = trips_of(lambda: api.sessions_of("3"))
    assert trips == listing(engine_name, 0)[:1]


def test_a_lost_index_costs_no_trip_of_the_list(Store, face, engine_name, trips_of):
    api, keys = face.functions(user_sessions), [saved(face, Store, _auth_user_id="1") for _ in range(3)]
    request = SimpleNamespace(session=loaded_as(face, Store, keys[0]))
    if engine_name == "redis":
        Store.storage.client.zrem("session:user:1", bytes.fromhex(identify(keys[0])))
    assert len(trips_of(lambda: api.sessions_of("1", request))) <= 2


@pytest.mark.slow
def test_a_user_with_ten_thousand_sessions(Store, face, engine_name, trips_of, settings):
    settings.MULTISESSION_TIMEOUT = 60  # on a busy machine a list of so many takes its time
    api, many = face.functions(user_sessions), 10_000
    saved(face, Store, _auth_user_id="1")
    [template] = face.verbs(Store).of_user("1")
    insert_at_once(Store, engine_name, [copied(template, f"{number:064}") for number in range(many - 1)])
    trips = trips_of(lambda: api.sessions_of("1"))
    assert shortened(trips) == listing(engine_name, many)
    assert api.count("1") == many
    trips = trips_of(lambda: api.revoke_all("1"))
    # Redis' index is asked for, and rid of what has ended.
    assert len(trips) <= 2 + many / BATCH + 2 + 2 * (engine_name == "redis")
    assert api.count("1") == 0


def copied(record: Record, id: str) -> Record:
    return replace(record, id=id, payload=codecs.encode(codecs.data_of(record), id, JSONSerializer))


def insert_at_once(Store: Any, engine_name: str, records: list[Record]) -> None:
    if engine_name == "redis":
        pipeline = Store.storage.client.pipeline(transaction=False)
        for record in records:
            pipeline.set(Store.storage._key(record.id), answers.pack(record), pxat=record.expires_at)
        pipeline.execute()
        run_sync(Store.storage.index(records))
    elif engine_name == "mongodb":
        documents = [{"_id": record.id, **mongodb_storage._fields(record)} for record in records]
        Store.storage.collection.insert_many(documents)
    else:
        rows = [Session(session_id=record.id, data=record.payload, **fields(record)) for record in records]
        Session.objects.using(SessionRouter.alias).bulk_create(rows, batch_size=500)


def fields(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in ("user_id", "created_at", "updated_at", "expires_at", "version")}


REMOVAL = {"redis": "DEL", "mongodb": "delete"}


def test_revoking_is_a_list_and_a_removal(Store, face, engine_name, trips_of):
    api = face.functions(user_sessions)
    key = saved(face, Store, _auth_user_id="1")
    expected = [*listing(engine_name, 1), REMOVAL.get(engine_name, "DELETE")]
    assert shortened(trips_of(lambda: api.revoke("1", handle(identify(key))))) == expected


def test_revoking_all_looks_once_more(Store, face, engine_name, trips_of):
    api = face.functions(user_sessions)
    for _ in range(20):
        saved(face, Store, _auth_user_id="1")
    expected = [*listing(engine_name, 20), REMOVAL.get(engine_name, "DELETE"), *listing(engine_name, 20)]
    expected += ["INFO ZRANGE"] if engine_name == "redis" else []  # is the index all there?
    assert shortened(trips_of(lambda: api.revoke_all("1"))) == expected


def test_a_limited_log_in_is_a_list_more(Store, face, engine_name, trips_of):
    session = face(Store())
    session["_auth_user_id"] = "1"
    with override_settings(MULTISESSION_MAX_PER_USER=3):
        trips = trips_of(session.save)
    assert shortened(trips[1:]) == listing(engine_name, 1)
    session["a"] = 1
    with override_settings(MULTISESSION_MAX_PER_USER=3):
        assert len(trips_of(session.save)) == 1


@pytest.mark.parametrize("engine_name", ["redis"])
def test_redis_writes_the_index_in_the_same_trip(Store, face, trips_of, settings):
    session = loaded(face, Store, a=1)
    session["_auth_user_id"] = "1"
    assert trips_of(session.save) == ["EVALSHA"]
    settings.SESSION_COOKIE_AGE += 2 * 3600 + 1
    session["b"] = 1
    assert trips_of(session.save) == ["EVALSHA"]
    settings.SESSION_COOKIE_AGE += 2 * 3600 + 1
    assert trips_of(session.save) == ["EVALSHA", "EVALSHA"]  # a touch asks whose the session is, where its hour is over
    assert len(face.verbs(Store).of_user("1")) == 1
