import time
from datetime import timedelta

import pymongo
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command

from django_multisession.backends import mongodb
from django_multisession.records import utcnow
from django_multisession.testing.contract import *  # noqa: F403
from django_multisession.testing.faces import SyncFace
from django_multisession.testing.stored import a_record, saved


@pytest.fixture
def engine_name() -> str:
    return "mongodb"


@pytest.fixture
def collection(Store):
    return Store.storage.collection


def indexes(collection):
    return {tuple(index["key"]): index for index in collection.index_information().values()}


def test_the_document_is_what_the_docstring_says(verbs, collection):
    verbs.insert(record := a_record(user_id="42"))
    document = collection.find_one()
    assert document == {
        "_id": record.id,
        "data": record.payload,
        "user_id": "42",
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "expires_at": record.expires_at,
        "version": 1,
    }


def test_a_first_insert_makes_the_indexes(Store, face, collection, settings):
    settings.MULTISESSION_MONGODB_COLLECTION = "first_use"
    saved(face, Store)
    made = Store.storage.collection
    try:
        assert indexes(made)[(("expires_at", 1),)]["expireAfterSeconds"] == 0
        assert (("user_id", 1), ("expires_at", 1)) in indexes(made)
    finally:
        made.drop()
        Store.storage.indexed.pop("first_use", None)


def test_migrate_makes_the_indexes(Store, collection):
    collection.drop()
    call_command("migrate", verbosity=0)
    assert indexes(collection)[(("expires_at", 1),)]["expireAfterSeconds"] == 0
    assert (("user_id", 1), ("expires_at", 1)) in indexes(collection)


def test_indexes_that_are_refused_do_not_stop_the_sessions(Store, face, settings, caplog):
    settings.MULTISESSION_MONGODB_COLLECTION = "other_indexes"
    refused = Store.storage.collection
    refused.create_index("other", name="expires_at_1")  # the name that ours would have
    try:
        assert face(Store()).exists(saved(face, Store))
        assert "Could not make the index" in caplog.text
    finally:
        refused.drop()
        Store.storage.indexed.pop("other_indexes", None)


@pytest.mark.slow
def test_the_server_really_removes_what_has_expired(Store, collection):
    """Its TTL monitor sweeps once a minute."""
    verbs = SyncFace().verbs(Store)
    verbs.ensure_indexes()
    verbs.insert(a_record("a" * 64, expires_at=utcnow() - timedelta(seconds=1)))
    verbs.insert(a_record("b" * 64))
    assert collection.count_documents({}) == 2
    deadline = time.monotonic() + 150
    while collection.count_documents({}) == 2 and time.monotonic() < deadline:
        time.sleep(1)
    assert [document["_id"] for document in collection.find()] == ["b" * 64]


def test_purge_removes_what_the_monitor_has_not(verbs, collection):
    for letter in "abc":
        verbs.insert(a_record(letter * 64, expires_at=utcnow() - timedelta(minutes=1)))
    verbs.insert(live := a_record("d" * 64))
    assert verbs.purge(utcnow(), 2) == 2
    assert verbs.purge(utcnow(), 2) == 1
    assert [document["_id"] for document in collection.find()] == [live.id]


def test_fields_of_other_tools_do_no_harm(verbs, collection):
    verbs.insert(record := a_record())
    collection.update_one({}, {"$set": {"schema_version": 3}})
    assert verbs.read(record.id) == record


@pytest.mark.parametrize(
    "harm",
    [
        {"$unset": {"data": 1}},
        {"$set": {"data": "text"}},
        {"$set": {"version": "1"}},
        {"$unset": {"created_at": 1}},
        {"$unset": {"user_id": 1}},
    ],
)
def test_a_foreign_document_is_no_session(Store, face, verbs, collection, caplog, harm):
    key = saved(face, Store, a=1)
    collection.update_one({}, harm)
    assert face(Store(key)).load() == {}
    assert "corrupted" in caplog.text
    assert key not in caplog.text
    assert face(Store()).exists(key) is False
    assert verbs.scan(None, 10) == []


def test_unacknowledged_writes_are_refused(Store, settings):
    settings.MULTISESSION_MONGODB += "?w=0"
    with pytest.raises(ImproperlyConfigured, match="w=0"):
        Store().create()


@pytest.mark.parametrize("uri", ["mongodb://[::1/db", "no.such.function", "os.sep", "mongodb://localhost"])
def test_what_is_no_client_is_refused_with_help(Store, settings, uri):
    settings.MULTISESSION_MONGODB = uri
    with pytest.raises(ImproperlyConfigured, match="MULTISESSION_MONGODB"):
        Store().create()


def test_a_password_as_pymongo_takes_it():
    """Which is no part of any other URL."""
    for password in ("p#w", "[", "]["):
        client = mongodb._of_uri(f"mongodb://u:{password}@127.0.0.1:1/mysite?w=1&connect=false")
        assert client.write_concern.document["w"] == 1
        client.close()


def test_a_callable_gives_the_client_of_both_faces(Store, face, settings):
    own_client.uri = settings.MULTISESSION_MONGODB
    settings.MULTISESSION_MONGODB = f"{__name__}.own_client"
    assert face(Store()).exists(saved(face, Store))


def own_client():
    return pymongo.MongoClient(own_client.uri, appname="own")
