"""What else is in the collection, and what a server may send or refuse: no session and one log line, and all others
are served."""

import dataclasses
import inspect
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import bson
import pymongo
import pytest
from bson.codec_options import CodecOptions
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument
from django.core.management import call_command
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from django_multisession import codecs, lifecycle, listing, user_sessions
from django_multisession.backends import mongodb
from django_multisession.exceptions import EngineUnavailable, SessionTooLarge
from django_multisession.records import Record, identify, utcnow
from django_multisession.statistics import collect
from django_multisession.twins import run_sync
from django_multisession.user_sessions import Revoked

from .contract import a_record, saved, stored

USER = "_auth_user_id"
ANN = "1"
MONTH = timedelta(days=30)
MAGIC = datetime(2100, 1, 1, 1, 1, 1, 111_000, tzinfo=UTC)  # what becomes another date on the way


@pytest.fixture
def engine_name() -> str:
    return "mongodb"


@pytest.fixture
def api(face: Any) -> Any:
    return face.functions(user_sessions)


@pytest.fixture
def collection(Store: Any) -> Any:
    return Store.storage.collection


@pytest.fixture
def sign_in(face: Any, Store: Any) -> Callable[..., str]:
    return lambda user_id=ANN, **data: saved(face, Store, **{USER: user_id, **data})


def handles(*keys: str) -> set[str]:
    return {lifecycle.handle(identify(key)) for key in keys}


def scanned(verbs: Any, limit: int) -> set[str]:
    """The ids of all pages."""
    page = verbs.scan(None, limit)
    ids = [record.id for record in page]
    while page.next is not None:
        page = verbs.scan(page.next, limit)
        ids += [record.id for record in page]
        assert len(ids) < 1000
    assert len(ids) == len(set(ids))
    return set(ids)


class Rewriting:
    """A server in between, which writes other bytes into what the server sends: what no driver would store."""

    def __init__(self, url: str) -> None:
        self.target = pymongo.uri_parser.parse_uri(url)["nodelist"][0]
        self.replacements: dict[bytes, bytes] = {}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"mongodb://127.0.0.1:{self.listener.getsockname()[1]}/multisession"
        Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(self.target)
                for source, sink, change in ((client, server, bytes), (server, client, self.rewritten)):
                    Thread(target=self.forward, args=(source, sink, change), daemon=True).start()

    def forward(self, source: socket.socket, sink: socket.socket, change: Callable[[bytes], bytes]) -> None:
        with suppress(OSError, struct.error), closing(source), closing(sink), source.makefile("rb") as stream:
            while head := stream.read(4):
                sink.sendall(change(head + stream.read(struct.unpack("<i", head)[0] - 4)))

    def rewritten(self, message: bytes) -> bytes:
        for old, new in self.replacements.items():
            assert len(old) == len(new)
            message = message.replace(old, new)
        return message


@pytest.fixture
def rewriting(Store: Any, settings: Any) -> Iterator[Rewriting]:
    between = Rewriting(settings.MULTISESSION_MONGODB)
    with closing(between.listener), override_settings(MULTISESSION_MONGODB=between.url):
        yield between


def date(moment: datetime) -> bytes:
    return bson.encode({"": moment})[6:-1]


ON_THE_WAY = {
    "a date beyond the year 9999": ({"expires_at": MAGIC}, {date(MAGIC): struct.pack("<q", 2**60)}),
    "a date before the year 1": ({"updated_at": MAGIC}, {date(MAGIC): struct.pack("<q", -(2**60))}),
    "no UTF-8": ({"odd": "BROKEN"}, {b"BROKEN": b"\xff" * 6}),
    "no such type": ({"odd": "text"}, {b"\x02odd\0": b"\x66odd\0"}),
    "a length beyond the end": ({"odd": "text"}, {b"\x02odd\0\x05\0\0\0": b"\x02odd\0\x05\0\0\x7f"}),
    "a user who is no UTF-8": ({"user_id": "BROKEN"}, {b"BROKEN": b"\xff" * 6}),
}


@pytest.mark.parametrize("what", ON_THE_WAY)
class TestUndecodable:
    @pytest.fixture(autouse=True)
    def _harmed(self, what: str, rewriting: Any, collection: Any, sign_in: Any) -> None:
        self.others = [sign_in() for _ in range(5)]
        self.key = sign_in()
        fields, rewriting.replacements = ON_THE_WAY[what]
        assert collection.update_one({"_id": identify(self.key)}, {"$set": fields}).modified_count == 1

    def test_it_is_no_session(self, Store, face, caplog):
        assert stored(face, Store, self.key) == {}
        [warning] = [each for each in caplog.records if "corrupted" in each.getMessage()]
        assert self.key not in warning.getMessage()
        assert face(Store()).exists(self.key) is False

    def test_the_others_are_listed_and_ended(self, api, verbs):
        assert {each.id for each in api.sessions_of(ANN)} == handles(*self.others)
        assert api.count(ANN) == 5
        assert api.revoke_all(ANN).ended == 5
        assert verbs.of_user(ANN) == []

    @pytest.mark.parametrize("limit", [1, 2, 5, 6, 7])
    def test_no_page_ends_with_it(self, verbs, limit):
        assert scanned(verbs, limit) == set(map(identify, self.others))

    def test_everyones_are_ended_and_counted(self, api, monkeypatch):
        monkeypatch.setattr(user_sessions, "PAGE", 2)
        assert collect().sessions == 5
        assert api.revoke_everyone() == 5

    def test_a_purge_goes_on(self, verbs, what):
        verbs.insert(a_record(expires_at=utcnow() - timedelta(minutes=1)))
        assert verbs.purge(utcnow(), 10) == 1


HARMS = {
    "an ObjectId": {"_id": bson.ObjectId()},
    "a number as id": {"_id": 7},
    "NaN as id": {"_id": float("nan")},
    "a document as id": {"_id": {"a": 1}},
    "bytes as id": {"_id": b"a" * 64},
    "a date as id": {"_id": MAGIC},
    "a short id": {"_id": "mine"},
    "an id that is no hex": {"_id": "z" * 64},
    "an id of capitals": {"_id": "A" * 64},
    "an id with a NUL": {"_id": "a" * 63 + "\0"},
    "no text but a document as user": {"user_id": {"a": 1}},
    "a number as user": {"user_id": 1},
    "NaN as expiry": {"expires_at": float("nan")},
    "a text as expiry": {"expires_at": "tomorrow"},
    "dates as expiry": {"expires_at": [MAGIC, MAGIC]},
    "no creation": {"created_at": None},
    "NaN as version": {"version": float("nan")},
    "a truth as version": {"version": True},
    "a fraction as version": {"version": 1.0},
    "the last version": {"version": 2**63 - 1},
    "a text as data": {"data": "text"},
}


@pytest.mark.parametrize("harm", HARMS)
class TestForeign:
    @pytest.fixture(autouse=True)
    def _harmed(self, harm: str, collection: Any, sign_in: Any) -> None:
        self.others = [sign_in() for _ in range(3)]
        self.key = sign_in()
        document = collection.find_one_and_delete({"_id": identify(self.key)})
        collection.insert_one({**document, **HARMS[harm]})

    def test_it_is_no_session_and_the_others_are_served(self, Store, face, api, verbs, collection, monkeypatch):
        monkeypatch.setattr(user_sessions, "PAGE", 2)
        assert stored(face, Store, self.key) == {}
        assert {each.id for each in api.sessions_of(ANN)} == handles(*self.others)
        for limit in (1, 2, 3, 4):
            assert scanned(verbs, limit) == set(map(identify, self.others))
        assert collect().sessions == api.count(ANN) == 3
        assert verbs.purge(utcnow() - MONTH, 10) == 0
        assert api.revoke_all(ANN) == Revoked(3)
        assert api.revoke_everyone() == 0
        assert collection.count_documents({}) == 1


def test_more_foreign_documents_than_a_page(verbs, collection, sign_in):
    keys = [sign_in() for _ in range(3)]
    collection.insert_many([{"_id": f"{number:064x}"} for number in range(50)])
    collection.insert_many([{"_id": f"{letter}{number}"} for number in range(50) for letter in "0fz"])
    assert scanned(verbs, 10) == set(map(identify, keys))


def test_more_undecodable_documents_than_a_page(rewriting, verbs, collection, sign_in):
    keys = [sign_in() for _ in range(3)]
    collection.insert_many([{"_id": f"{number:064x}", "odd": "BROKEN"} for number in range(25)])
    rewriting.replacements = {b"BROKEN": b"\xff" * 6}
    assert scanned(verbs, 10) == set(map(identify, keys))


# Anything, as documents

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=70)
    | st.binary(max_size=70)
    | st.datetimes(timezones=st.just(UTC))
    | st.integers(-(2**63), 2**63 - 1).map(bson.datetime_ms.DatetimeMS)
    | st.builds(bson.ObjectId)
    | st.just(bson.Regex("x"))
    | st.builds(bson.Binary, st.binary(max_size=20), st.integers(0, 9))
    | st.sampled_from([bson.MinKey(), bson.MaxKey(), bson.Timestamp(1, 1), bson.Code("x"), bson.Decimal128("NaN")]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "$ref", "$id", "$db"]), inner, max_size=3)
    ),
    max_leaves=5,
)
ids = st.text("0123456789abcdef", min_size=64, max_size=64)
moments = st.datetimes(timezones=st.just(UTC))
good = {
    "_id": ids,
    "data": st.binary(max_size=40),
    "user_id": st.none() | st.text(max_size=10),
    "created_at": moments,
    "updated_at": moments,
    "expires_at": moments,
    "version": st.integers(1, 2**63 - 1),
}
documents = st.fixed_dictionaries({}, optional={name: usual | values for name, usual in good.items()}) | (
    st.fixed_dictionaries(good)
)


@given(document=documents, at=st.integers(4, 400), byte=st.none() | st.integers(0, 255))
def test_whatever_a_server_sends_is_a_record_or_nothing(document, at, byte):
    sent = bytearray(bson.encode(document))
    if byte is not None and at < len(sent) - 1:
        sent[at] = byte
    record = mongodb._record(mongodb._decoded(RawBSONDocument(bytes(sent))))
    if record is not None:
        serves(record)


def test_a_stack_that_is_too_deep_says_nothing_of_a_document():
    document = RawBSONDocument(bson.encode(mongodb._fields(a_record())))

    def decoded(depth: int) -> dict[str, Any]:
        return decoded(depth - 1) if depth else mongodb._decoded(document)

    room, found = sys.getrecursionlimit() - len(inspect.stack()), []
    for depth in range(room - 30, room):
        try:
            found.append(bool(decoded(depth)))
        except RecursionError as error:
            found.append(type(error.__cause__))
    assert True in found
    assert InvalidBSON in found  # else nothing was tried
    assert False not in found


def serves(record: Record) -> None:
    """All that the package does with a record can be done with it."""
    assert isinstance(record.payload, bytes)
    assert isinstance(record.user_id, str | None)
    assert {each.tzinfo for each in (record.created_at, record.updated_at, record.expires_at)} == {UTC}
    bson.encode(mongodb._fields(dataclasses.replace(record, version=record.version + 1)))
    assert not codecs.is_ours(record.payload, record.id)
    assert run_sync(listing.live(None, [record])) in ([], [record])
    for use_tz in (True, False):
        with override_settings(USE_TZ=use_tz, TIME_ZONE="Asia/Tokyo"):
            shown = user_sessions._described(record, None)
            for moment in (shown.created_at, shown.last_seen, shown.expires_at):
                assert moment.astimezone(UTC).year >= 1


# What a server refuses


@pytest.fixture
def unique(collection: Any) -> Iterator[None]:
    """Somebody else's unique index."""
    collection.create_index("user_id", unique=True, name="of_somebody_else")
    yield
    collection.drop_index("of_somebody_else")


@pytest.mark.usefixtures("unique")
class TestUniqueIndexOfSomebodyElse:
    def test_it_is_not_taken_for_a_key_that_is_taken(self, Store, face, sign_in, monkeypatch):
        sign_in()
        inserts = []
        original = type(Store.storage).insert

        async def insert(self: Any, record: Record) -> bool:
            inserts.append(record.id)
            return await original(self, record)

        monkeypatch.setattr(type(Store.storage), "insert", insert)
        with pytest.raises(EngineUnavailable, match="of_somebody_else"):
            sign_in()
        assert len(inserts) == 1

    def test_nor_does_a_save_pass_on_the_drivers_error(self, Store, face, sign_in):
        sign_in()
        session = face(Store(sign_in("2")))
        session[USER] = ANN
        with pytest.raises(EngineUnavailable, match="of_somebody_else"):
            session.save()

    def test_a_key_that_is_taken_is_still_one(self, verbs):
        verbs.insert(record := a_record(user_id="7"))
        assert verbs.insert(dataclasses.replace(record, user_id="8")) is False


@pytest.mark.parametrize("size", [16 * 2**20 - 100, 17 * 2**20, 60 * 2**20], ids=["16 MiB", "17 MiB", "60 MiB"])
def test_more_than_a_document_can_hold_is_too_large(Store, face, size):
    key = saved(face, Store, a=1)
    with override_settings(MULTISESSION_MAX_BYTES=2**30, MULTISESSION_COMPRESS_OVER=None):
        session = face(Store(key))
        session["noise"] = "x" * size
        with pytest.raises(SessionTooLarge):
            session.save()
        with pytest.raises(SessionTooLarge):
            saved(face, Store, noise="x" * size)
    assert stored(face, Store, key) == {"a": 1}


def test_what_bson_cannot_hold_is_none_of_the_drivers_errors(verbs):
    for record in (a_record(user_id="\ud800"), a_record(version=2**63)):
        with pytest.raises(EngineUnavailable):
            verbs.insert(record)
        with pytest.raises(EngineUnavailable):
            verbs.replace(record)


def test_a_user_with_a_nul_has_sessions_too(verbs):
    verbs.insert(record := a_record(user_id="a\0b"))
    assert verbs.of_user("a\0b") == [record]


# Indexes


EXPIRY, OF_USER = (("expires_at", 1),), (("user_id", 1), ("expires_at", 1))


def indexes(collection: Any) -> dict[Any, Any]:
    return {tuple(index["key"]): index for index in collection.index_information().values()}


class TestIndexes:
    @pytest.fixture(autouse=True)
    def _collection(self, Store: Any, settings: Any) -> Iterator[None]:
        settings.MULTISESSION_MONGODB_COLLECTION = "of_indexes"
        yield
        Store.storage.collection.drop()
        Store.storage.indexed.pop("of_indexes", None)

    @pytest.mark.parametrize("options", [{}, {"expireAfterSeconds": 3600}], ids=repr)
    def test_a_refusal_of_one_takes_no_other_along(self, Store, face, collection, caplog, options):
        collection.create_index("expires_at", **options)
        assert face(Store()).exists(saved(face, Store))
        assert OF_USER in indexes(collection)
        [error] = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
        assert "{'expires_at': 1}" in error

    def test_nor_does_it_at_a_migration(self, collection, caplog):
        collection.create_index("expires_at")
        for _ in range(2):
            caplog.clear()
            call_command("migrate", verbosity=0)
            assert OF_USER in indexes(collection)
            assert "{'expires_at': 1}" in caplog.text

    def test_all_refusals_are_told(self, collection, caplog):
        collection.create_index("expires_at")
        collection.create_index("other", name="user_id_1_expires_at_1")
        call_command("migrate", verbosity=0)
        errors = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
        assert len(errors) == 2
        assert "{'user_id': 1, 'expires_at': 1}" in errors[1]

    def test_those_of_a_collection_that_was_dropped_are_made_again(self, Store, face, collection):
        saved(face, Store)
        collection.drop()
        saved(face, Store)
        assert set(indexes(collection)) == {(("_id", 1),)}  # it may be a minute until it is looked at again
        Store.storage.indexed["of_indexes"] -= mongodb.INDEXES_SEEN_FOR  # as it is then
        saved(face, Store)
        assert set(indexes(collection)) == {(("_id", 1),), EXPIRY, OF_USER}

    def test_nobody_looks_at_them_in_between(self, Store, face, monkeypatch):
        saved(face, Store)
        asked = []
        monkeypatch.setattr(type(Store.storage), "ensure_indexes", lambda self: asked.append(self))
        saved(face, Store)
        assert asked == []


def test_the_documents_are_as_they_were(verbs, collection):
    """So that servers of the version before work beside: the fields and their types."""
    verbs.insert(record := a_record(user_id="42"))
    raw = collection.with_options(codec_options=CodecOptions(document_class=RawBSONDocument)).find_one()
    assert [(name, kind) for name, kind in bson.decode(raw.raw).items() if name == "version"] == [("version", 1)]
    assert set(raw) == {"_id", *mongodb.FIELDS}
    assert verbs.read(record.id) == record
