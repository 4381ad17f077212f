"""Promise 5: a stolen dump opens no session. Everything that a store holds is read back and tried."""

import dataclasses
import logging
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connections
from django.test import Client, override_settings

from django_multisession.records import identify

from ..routers import SessionRouter

COOKIE = settings.SESSION_COOKIE_NAME


@pytest.fixture(params=["redis", "mongodb", "sqlite", "postgres", "mysql"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def dump_redis(Store: Any) -> bytes:
    client, parts = Store.storage.client, []
    for key in client.scan_iter():
        parts += [key, client.dump(key)]
        parts += client.zrange(key, 0, -1) if client.type(key) == b"zset" else [client.get(key)]
    return b"\n".join(parts)


def dump_mongodb(Store: Any) -> bytes:
    collection = Store.storage.collection
    return repr([*collection.find(), collection.index_information()]).encode()


def dump_sql(Store: Any) -> bytes:
    with connections[SessionRouter.alias].cursor() as cursor:
        cursor.execute("SELECT * FROM django_multisession_session")
        rows = cursor.fetchall()
    return b"\n".join(bytes(v) if isinstance(v, bytes | memoryview) else str(v).encode() for row in rows for v in row)


@pytest.fixture
def dump(Store, engine_name) -> Any:
    dumps = {"redis": dump_redis, "mongodb": dump_mongodb}
    return lambda: dumps.get(engine_name, dump_sql)(Store)


@pytest.fixture
def signed_in(Store) -> Any:
    user, _ = get_user_model().objects.get_or_create(username="ann")
    client = Client()
    client.force_login(user)
    client.get("/count/")
    yield client
    user.delete()


def words(dump: bytes) -> set[str]:
    """Whatever in the dump could be a cookie: each run of letters and digits, and its pieces of a key's length."""
    runs = "".join(chr(b) if chr(b).isalnum() else " " for b in dump).split()
    pieces = {run[start : start + 32] for run in runs for start in range(max(1, len(run) - 31))}
    return {*runs, *pieces}


def test_the_dump_holds_the_hash_and_not_the_key(signed_in, dump):
    key, held = signed_in.cookies[COOKIE].value, dump()
    assert identify(key).encode() in held
    assert key.encode() not in held


def test_nothing_in_the_dump_opens_a_session(signed_in, dump):
    found = words(dump())
    assert len(found) > 3
    thief = Client()
    for word in found:
        thief.cookies[COOKIE] = word
        assert thief.get("/look/").json() == {"user": "", "count": None}
    thief.cookies[COOKIE] = signed_in.cookies[COOKIE].value
    assert thief.get("/look/").json() == {"user": "ann", "count": 1}


def test_a_hash_as_the_key_misses(Store, face, signed_in):
    hashed = identify(signed_in.cookies[COOKIE].value)
    assert face(Store()).exists(hashed) is False
    assert face(Store(hashed)).load() == {}
    face(Store()).delete(hashed)
    assert signed_in.get("/look/").json()["user"] == "ann"


def test_no_log_line_and_no_error_shows_the_key(Store, face, signed_in, caplog, verbs):
    key = signed_in.cookies[COOKIE].value
    record = verbs.read(identify(key))
    verbs.replace(dataclasses.replace(record, payload=b"junk", version=record.version + 1))
    with caplog.at_level(logging.DEBUG):
        session = face(Store(key))
        session["a"] = object()
        with pytest.raises(Exception) as caught:  # noqa: PT011
            session.save()
    assert caplog.records
    assert key not in caplog.text + repr(caught.value) + str(caught.value)


def test_nothing_in_the_dump_is_readable_once_sealed(Store, dump):
    with override_settings(MULTISESSION_ENCRYPTION_KEYS=["11" * 32]):
        session = Store()
        session["secret"] = "pineapple"
        session.save()
        assert b"pineapple" not in dump()
        assert Store(session.session_key)["secret"] == "pineapple"
