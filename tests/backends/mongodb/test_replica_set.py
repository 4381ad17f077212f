"""A replica set, as far as SecantusDB is one: a set of one primary, whose commands fail when told to (`failCommand`).

Not tried here: elections among several servers, and `mongos`. What a router of shards needs is tested by what is sent.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from pymongo.monitoring import CommandListener, register

from django_multisession.backends.mongodb import make_indexes
from django_multisession.backends.mongodb import storage as mongodb_storage
from django_multisession.exceptions import EngineUnavailable
from django_multisession.records import identify, utcnow
from django_multisession.testing.faces import SyncFace
from django_multisession.testing.stored import a_record, saved
from example_project.servers import MongoDBServer

from ..test_outages import using

pytestmark = pytest.mark.slow


class ReplicaSet(MongoDBServer):
    def command(self) -> list[str]:
        return [each for each in super().command() if each != "--standalone"]


@pytest.fixture(scope="module")
def server() -> Iterator[ReplicaSet]:
    with ReplicaSet("--enable-test-commands") as server:
        yield server


class Sent(CommandListener):
    """The commands that a client has sent."""

    def __init__(self) -> None:
        self.commands: list[Any] = []

    def started(self, event: Any) -> None:
        if event.command_name in ("find", "insert", "update", "delete", "createIndexes"):
            self.commands.append(event.command)

    def succeeded(self, event: Any) -> None: ...
    def failed(self, event: Any) -> None: ...

    def names(self) -> list[str]:
        return [next(iter(command)) for command in self.commands]

    def filters(self) -> list[Any]:
        """What the commands look for; of an insert, the document."""
        found: list[Any] = []
        for command in self.commands:
            parts = [part["q"] for part in (*command.get("updates", ()), *command.get("deletes", ()))]
            found += [command["filter"]] if "filter" in command else [*parts, *command.get("documents", ())]
        return found


SENT = Sent()
register(SENT)  # for all clients that are made from now on, those of event loops too


@pytest.fixture
def options() -> str:
    # After an error the driver looks for a primary every half second at most, so who waits for less (`using()`) finds
    # none. A mongod would tell it of a change at once; SecantusDB, of which nothing has changed, has to be polled.
    patient = "serverSelectionTimeoutMS=20000&serverMonitoringMode=poll&heartbeatFrequencyMS=500"
    return f"replicaSet=secantus&readPreference=secondaryPreferred&{patient}"


@pytest.fixture
def Store(server: ReplicaSet, options: str) -> Iterator[Any]:
    with using("mongodb", f"{server.url}?{options}") as store:
        store.storage.collection.drop()
        yield store
        store.storage.client.admin.command("configureFailPoint", "failCommand", mode="off")


@pytest.fixture
def sent() -> Sent:
    SENT.commands.clear()
    return SENT


def fail(Store: Any, *names: str, times: int = 1, **how: Any) -> None:
    """Have the next commands of these names fail."""
    data = {"failCommands": names, **how}
    Store.storage.client.admin.command("configureFailPoint", "failCommand", mode={"times": times}, data=data)


def whole_life(face: Any, Store: Any) -> None:
    """What requests do: a log-in with its rotation, saves, a conflict, a touch (always due: `using()`), the end."""
    key = saved(face, Store, a=1)
    one, other = face(Store(key)), face(Store(key))
    for number, session in enumerate((one, other)):  # the second meets the first's version
        session.load()
        session[f"b{number}"] = number
    for session in (one, other):
        session.save()
    assert face(Store()).exists(key)
    last = face(Store(key))
    assert last.load() == {"a": 1, "b0": 0, "b1": 1}
    last.save()
    last.cycle_key()
    last.flush()


def test_each_request_is_answered_by_one_shard(face, Store, sent):
    """A router asks one shard where the filter has the whole shard key, `{_id: "hashed"}`, and its value."""
    saved(face, Store)  # the indexes are made
    sent.commands.clear()
    whole_life(face, Store)
    assert set(sent.names()) == {"insert", "find", "update", "delete"}
    filters = sent.filters()
    assert len(filters) > 8
    assert {type(each["_id"]) for each in filters} == {str}
    assert {len(each["_id"]) for each in filters} == {64}


def test_several_are_removed_by_one_command(verbs, sent):
    ids = [letter * 64 for letter in "abc"]
    for id in ids:
        verbs.insert(a_record(id))
    sent.commands.clear()
    assert verbs.remove([*ids, "f" * 64]) == 3
    assert sent.names() == ["delete"]
    assert [each["_id"] for each in sent.filters()] == [*ids, "f" * 64]
    assert verbs.remove([]) == 0


def test_reads_go_to_the_primary_and_writes_to_a_majority(face, Store, sent):
    whole_life(face, Store)
    assert {"$readPreference" in command for command in sent.commands} == {False}  # none is: the primary
    writes = [command for command in sent.commands if "find" not in command]
    assert {command["writeConcern"]["w"] for command in writes} == {"majority"}
    assert {command["writeConcern"]["wtimeout"] for command in writes} == {300}  # MULTISESSION_TIMEOUT


@pytest.mark.parametrize("options", ["replicaSet=secantus&w=1&wTimeoutMS=70"])
def test_a_uri_that_says_more_is_obeyed(face, Store, sent):
    saved(face, Store)
    assert sent.commands[-1]["writeConcern"] == {"w": 1, "wtimeout": 70}


MOVED = {
    "not the primary any more": {"errorCode": 10107},
    "shutting down": {"errorCode": 91},
    "gone": {"closeConnection": True},
}


@pytest.mark.parametrize("how", MOVED)
def test_a_primary_that_moves_is_no_outage(face, Store, sent, how):
    """Each command fails once, and is repeated under the same number: what was carried out is not again."""
    saved(face, Store)
    sent.commands.clear()
    fails = MOVED[how]
    fail(Store, "insert", **fails)
    key = saved(face, Store, a=1)
    session = face(Store(key))
    fail(Store, "find", **fails)
    session["a"] = 2
    fail(Store, "update", **fails)
    session.save()
    fail(Store, "delete", **fails)
    session.flush()
    assert not face(Store()).exists(key)
    assert sent.names() == ["insert", "insert", "find", "find", "update", "update", "delete", "delete", "find"]
    numbers = [(command["lsid"]["id"], command["txnNumber"]) for command in sent.commands if "txnNumber" in command]
    assert len(numbers) == 6
    assert numbers[0::2] == numbers[1::2]


def test_all_sessions_of_a_user_are_ended_though_the_primary_moves(verbs, Store):
    for letter in "abc":
        verbs.insert(a_record(letter * 64, user_id="7"))
    fail(Store, "delete", errorCode=10107)
    assert verbs.remove([letter * 64 for letter in "abc"]) == 3
    assert verbs.of_user("7") == []


def test_a_purge_goes_on_though_the_primary_moves(verbs, Store):
    verbs.insert(a_record("a" * 64, expires_at=utcnow().replace(year=2020)))
    fail(Store, "delete", errorCode=10107)
    assert verbs.purge(utcnow(), 10) == 1


def test_what_no_majority_has_is_said(face, Store):
    key = saved(face, Store, a=1)
    late = {"code": 64, "errmsg": "waiting for replication timed out"}
    session = face(Store(key))
    session.load()
    session["a"] = 2
    fail(Store, "update", writeConcernError=late)
    with pytest.raises(EngineUnavailable, match="replication timed out"):
        session.save()
    assert face(Store(key)).load() == {"a": 2}  # it is on the primary, no more is known
    fail(Store, "delete", writeConcernError=late)
    with pytest.raises(EngineUnavailable, match="replication timed out"):
        session.flush()


@pytest.fixture
def large(Store: Any) -> Any:
    """A collection without our indexes, in which making them takes longer than a request may wait."""
    storage = Store.storage
    storage.collection.insert_many([{"_id": f"{number:064x}"} for number in range(mongodb_storage.SMALL + 1)])
    storage.indexed.clear()
    fail(Store, "createIndexes", times=2, blockConnection=True, blockTimeMS=700)
    return storage.collection


def test_no_log_in_waits_for_an_index_of_a_large_collection(face, Store, large, sent, caplog):
    keys = [saved(face, Store) for _ in range(3)]
    assert sent.names() == ["insert"] * 3
    assert all(large.find_one({"_id": identify(key)}) for key in keys)
    [error] = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert "run manage.py migrate" in error


def test_migrate_waits_until_it_is_made(Store, large, caplog):
    assert len(large.index_information()) == 1
    make_indexes()
    assert caplog.text == ""
    assert len(large.index_information()) == 3


def test_indexes_that_are_there_are_not_asked_for_again(Store, sent):
    saved(SyncFace(), Store)
    assert sent.names() == ["createIndexes", "createIndexes", "insert"]
    Store.storage.indexed.clear()
    saved(SyncFace(), Store)
    assert sent.names() == ["createIndexes", "createIndexes", "insert", "insert"]
