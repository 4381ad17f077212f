"""What is none of ours in Redis is no session and a line in the log, and all others are served."""

import struct
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.serializers import JSONSerializer
from hypothesis import example, given
from hypothesis import strategies as st

from django_multisession import statistics, user_sessions
from django_multisession.backends.redis.answers import HEADER, NO_MORE_VERSIONS, held, live, pack, record, unpack
from django_multisession.backends.redis.failures import Impossible
from django_multisession.exceptions import EngineUnavailable
from django_multisession.payload import codecs
from django_multisession.records import Record, epoch_now, identify, to_epoch, utcnow
from django_multisession.testing import stored as testing_stored
from django_multisession.testing.stored import saved, stored

KEY = "k" * 32
ID = identify(KEY)
LATER = 4 * 10**12
BEYOND_9999 = 253_402_300_800_000


def a_record(id: str = "a" * 64, **changes: Any) -> Record:
    """One that this site has made: others are neither listed nor ended."""
    return testing_stored.a_record(id, payload=codecs.encode({}, id, JSONSerializer), **changes)


@pytest.fixture
def engine_name() -> str:
    return "redis"


@pytest.fixture
def client(Store: Any) -> Any:
    return Store.storage.client


def value(version: int = 1, expires: int = LATER, updated: int = 1, created: int = 1, length: int = 1) -> bytes:
    return HEADER.pack(version, expires, updated, created, 0, length) + b"9payload"


VALUES = {
    "short": b"x",
    "empty": b"",
    "text": b"A" * 200,
    "length": value(length=60_000),
    "user id": HEADER.pack(1, LATER, 1, 1, 0, 3) + b"\xff\xfe\xfd",
    "version": value(version=NO_MORE_VERSIONS),
    "far expiry": value(expires=BEYOND_9999),
    "largest expiry": value(expires=2**63 - 1),
    "far update": value(updated=BEYOND_9999),
    "far creation": value(created=BEYOND_9999),
    "negative expiry": value(expires=-1),
    "negative update": value(updated=-(2**63)),
    "negative creation": value(created=-BEYOND_9999),
}
PUTS = {name: lambda client, key, each=each: client.set(key, each) for name, each in VALUES.items()} | {
    "hash": lambda client, key: client.hset(key, "a", "1"),
    "list": lambda client, key: client.rpush(key, "1"),
    "set": lambda client, key: client.zadd(key, {"a": 1}),
}


@pytest.mark.parametrize("put", PUTS.values(), ids=PUTS)
def test_a_sessions_key(Store, face, verbs, client, caplog, put):
    others = [a_record("a" * 64, user_id="9"), a_record("b" * 64, user_id="9")]
    for other in others:
        verbs.insert(other)
    put(client, f"session:{ID}")
    client.zadd("session:user:9", {bytes.fromhex(ID): 10**6})

    def lines(call: Any) -> Any:
        caplog.clear()
        answer = call()
        assert [each.levelname for each in caplog.records] == ["WARNING"]
        assert ID in caplog.text or "No session" in caplog.text
        assert KEY not in caplog.text
        return answer

    def by_id(records: Any) -> list[Record]:
        return sorted(records, key=lambda each: each.id)

    assert lines(lambda: face(Store(KEY)).load()) == {}
    assert lines(lambda: face(Store()).exists(KEY)) is False
    assert by_id(lines(lambda: verbs.of_user("9"))) == others
    assert by_id(lines(lambda: verbs.scan(None, 100))) == others
    assert lines(lambda: statistics.collect()).sessions == 2
    verbs.touch(others[0].id, others[0].expires_at + timedelta(days=1))
    assert verbs.purge(utcnow(), 100) == 0
    api = face.functions(user_sessions)
    assert api.repair_index().next is None
    assert api.revoke_everyone() == 2


@pytest.mark.parametrize("name", PUTS)
def test_no_save_writes_over_it(verbs, client, name):
    PUTS[name](client, f"session:{ID}")
    before = client.dump(f"session:{ID}")
    assert verbs.insert(a_record(ID)) is False
    assert verbs.replace(a_record(ID, version=8)) is None
    assert verbs.touch(ID, utcnow() + timedelta(days=20)) is False
    assert client.dump(f"session:{ID}") == before


@pytest.mark.parametrize("version", [NO_MORE_VERSIONS, NO_MORE_VERSIONS + 1])
def test_versions_come_to_an_end(verbs, client, version):
    verbs.insert(record := a_record())
    client.set(f"session:{record.id}", value(version=NO_MORE_VERSIONS, length=0))
    assert verbs.replace(a_record(version=version)) is None


NAMES = {"not utf-8": b"\xff" * 64, "not hex": b"g" * 64, "upper case": b"A" * 64, "spaces": b" " * 64}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_key_that_is_no_id(face, verbs, client, caplog, name):
    verbs.insert(record := a_record(user_id="9"))
    client.set(b"session:" + name, pack(record))
    assert verbs.scan(None, 100) == [record]
    assert len(caplog.records) == 1
    assert statistics.collect().sessions == 1
    assert face.functions(user_sessions).repair_index().indexed == 0
    assert face.functions(user_sessions).revoke_everyone() == 1


@pytest.mark.parametrize("member", [b"", b"x", b"y" * 31, b"z" * 33, b"\xff\xfe" * 50])
def test_a_member_of_a_users_set(face, verbs, client, caplog, member):
    verbs.insert(record := a_record(user_id="9"))
    client.zadd("session:user:9", {member: 10**6})
    assert verbs.of_user("9") == [record]
    assert len(caplog.records) == 1
    assert face.functions(user_sessions).revoke_all("9").ended == 1


@pytest.mark.parametrize("score", [float("inf"), float("-inf"), 1e300, 3e12, 7e7, -1e300])
def test_its_score_keeps_nobody_from_logging_in(Store, face, client, score):
    client.zadd("session:user:9", {b"x" * 32: score})
    session = face(Store(saved(face, Store, _auth_user_id="9")))
    session.set_expiry(60 * 60 * 24 * 365)
    session.save()
    assert face.functions(user_sessions).revoke_all("9").ended == 1


@pytest.mark.parametrize("put", [PUTS["hash"], PUTS["list"], PUTS["text"]], ids=["hash", "list", "text"])
class TestAUsersKey:
    def test_of_a_list_is_none(self, face, verbs, client, caplog, put):
        put(client, "session:user:9")
        assert verbs.of_user("9") == []
        assert len(caplog.records) == 1
        assert face.functions(user_sessions).revoke_all("9").complete is None

    def test_it_stops_no_purge_and_no_repair(self, face, verbs, client, caplog, put):
        verbs.insert(mine := a_record("a" * 64, user_id="9"))
        verbs.insert(a_record("b" * 64, user_id="10"))
        client.delete("session:user:9", "session:user:10")
        put(client, "session:user:9")
        client.zadd("session:user:11", {b"s" * 32: 1})
        assert verbs.purge(utcnow(), 100) == 1
        assert face.functions(user_sessions).repair_index().indexed == 1
        assert len(caplog.records) == 2
        assert verbs.read(mine.id) == mine
        assert face.functions(user_sessions).revoke_everyone() == 2

    def test_its_users_log_ins_are_refused_and_no_one_elses(self, Store, face, client, put):
        """Else the session would be in no list, and could not be revoked."""
        put(client, "session:user:9")
        with pytest.raises(EngineUnavailable, match="no sorted set"):
            saved(face, Store, _auth_user_id="9")
        assert stored(face, Store, saved(face, Store, _auth_user_id="10")) == {"_auth_user_id": "10"}


def test_a_user_whose_id_is_no_text_is_touched_by_nobody(verbs, client, caplog):
    client.set(f"session:{ID}", HEADER.pack(1, LATER, 1, 1, 0, 1) + b"\xff")
    assert verbs.touch(ID, utcnow() + timedelta(days=1)) is False
    assert len(caplog.records) == 1


times = st.integers(-(2**63), 2**63 - 1) | st.integers(0, BEYOND_9999)
headers = st.builds(
    HEADER.pack, st.integers(0, 2**64 - 1), times, times, times, st.integers(0, 2**32 - 1), st.integers(0, 40)
)
anything = (
    st.binary(max_size=100)
    | st.builds(bytes.__add__, headers, st.binary(max_size=60))
    | st.none()
    | st.integers()
    | st.text(max_size=50)
    | st.booleans()
    | st.lists(st.binary(max_size=3), max_size=3)
    | st.dictionaries(st.binary(max_size=3), st.integers(), max_size=2)
)


@given(anything)
@example(struct.pack(">QqqqIH", 1, 2**63 - 1, 0, 0, 0, 0))
def test_anything_is_a_record_or_nothing(answer):
    for read in (live, record):
        try:
            found: Any = read(ID, answer)
        except Impossible:
            assert read is live
            continue
        assert found is None or isinstance(found, Record | Impossible)
        if isinstance(found, Record):
            assert pack(found)[:32] == answer[:32]  # the hour is the server's
            assert pack(found)[36:] == answer[36:]
            assert to_epoch(found.expires_at) > (epoch_now() if read is live else 0)


@given(anything)
def test_anything_may_be_the_answer_of_a_script(answer):
    try:
        found = held(a_record(ID), answer)
    except Impossible:
        return
    assert found is None or found.id == ID


def test_what_was_packed_is_unpacked():
    assert unpack(ID, pack(a_record(ID, user_id="9", version=NO_MORE_VERSIONS - 1))).version == NO_MORE_VERSIONS - 1
