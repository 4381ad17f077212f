import dataclasses
import struct
from datetime import timedelta

import pytest

from django_multisession.backends.redis import MOST_SCANS
from django_multisession.exceptions import EngineUnavailable
from django_multisession.records import identify, to_epoch, utcnow
from django_multisession.redis_answers import unpack
from tests import contract
from tests.contract import *  # noqa: F403
from tests.contract import a_record, saved
from tests.test_round_trips import redis_trips

MINUTE = 60_000  # milliseconds


class TestStorage(contract.TestStorage):
    """What the server still holds is live, whatever the caller's clock says: so here it is the server that ends it."""

    def test_of_user_has_the_live_ones_alone(self, verbs, client):
        mine = [a_record("a" * 64, user_id="9"), a_record("b" * 64, user_id="9")]
        for record in [*mine, a_record("c" * 64, user_id="99"), a_record("d" * 64)]:
            verbs.insert(record)
        assert sorted(verbs.of_user("9"), key=lambda record: record.id) == mine
        client.pexpireat(f"session:{mine[0].id}", 1)
        assert verbs.of_user("9") == mine[1:]
        verbs.remove([mine[1].id])
        assert verbs.of_user("9") == []

    def test_purge_leaves_the_live(self, verbs, clock):
        verbs.insert(record := a_record("a" * 64, user_id="9"))
        clock.shift(3 * 3600)
        assert verbs.purge(utcnow(), 100) == 0
        assert verbs.of_user("9") == [record]


class TestExpiry(contract.TestExpiry):
    def test_clear_expired_removes_them_and_them_alone(self, Store, face, verbs):
        session = face(Store())
        session.set_expiry(-60)
        session.save()
        key = saved(face, Store, a=1)
        session.clear_expired()
        assert [record.id for record in verbs.scan(None, 10)] == [identify(key)]


@pytest.fixture
def engine_name() -> str:
    return "redis"


@pytest.fixture
def client(Store):
    return Store.storage.client


def test_the_server_expires_the_session_when_what_was_left_of_it_is_over(verbs, client):
    def late(expires_at):
        return client.pexpiretime(f"session:{record.id}") - to_epoch(expires_at)

    verbs.insert(record := a_record())
    assert 0 <= late(record.expires_at) < MINUTE  # by as long as the command took
    verbs.touch(record.id, later := record.expires_at + timedelta(days=1))
    assert 0 <= late(later) < MINUTE
    verbs.replace(record := dataclasses.replace(record, version=2))
    assert 0 <= late(record.expires_at) < MINUTE


def test_the_server_really_removes_it(verbs, client):
    verbs.insert(record := a_record(expires_at=utcnow() + timedelta(milliseconds=300)))
    assert client.exists(f"session:{record.id}")
    wait_until(lambda: not client.exists(f"session:{record.id}"))


def wait_until(happened):
    import time

    for _ in range(100):
        if happened():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within ten seconds")


def test_the_value_is_what_the_docstring_says(verbs, client):
    verbs.insert(record := a_record(user_id="42"))
    assert unpack(record.id, client.get(f"session:{record.id}")) == record


def test_a_users_set_holds_at_least_its_sessions_and_lives_as_long(verbs, client):
    now = utcnow()
    for id, hours in ("a" * 64, 1), ("b" * 64, 30), ("c" * 64, 2):
        verbs.insert(a_record(id, user_id="9", expires_at=now + timedelta(hours=hours)))
    scores = dict(client.zrange("session:user:9", 0, -1, withscores=True))
    assert {id.hex() for id in scores} == {"a" * 64, "b" * 64, "c" * 64}
    for id, score in scores.items():
        expires = to_epoch(verbs.read(id.hex()).expires_at)
        assert expires + 3_600_000 <= score * 3_600_000 < expires + 2 * 3_600_000  # an hour to spare
    assert client.pexpiretime("session:user:9") == max(scores.values()) * 3_600_000


def test_the_index_follows_a_session_whose_expiry_moves_by_less_than_an_hour_and_by_more(verbs, client):
    verbs.insert(record := a_record(user_id="9"))
    for hours in (0.1, 0.5, 3, 50):
        verbs.touch(record.id, later := record.expires_at + timedelta(hours=hours))
        assert client.zscore("session:user:9", bytes.fromhex(record.id)) * 3_600_000 >= to_epoch(later)


def test_an_index_that_is_lost_comes_back_with_the_next_hour(verbs, client):
    verbs.insert(record := a_record(user_id="9"))
    client.delete("session:user:9")
    verbs.touch(record.id, record.expires_at + timedelta(hours=2))
    assert [found.id for found in verbs.of_user("9")] == [record.id]


def test_purge_asks_for_many_sets_at_once(verbs, client, face, monkeypatch):
    for number in range(50):
        client.zadd(f"session:user:{number}", {b"%032d" % number: 1, b"%032d" % (number + 100): 1})
    assert verbs.purge(utcnow(), 0) == verbs.remove(["0"]) == 0  # connects
    with redis_trips(face, monkeypatch) as trips:
        assert verbs.purge(utcnow(), 70) == 70
        assert verbs.purge(utcnow(), 70) == 30
    assert len(trips) <= 2 * 4
    assert not client.exists("session:user:1")


def test_purge_trims_the_members_that_the_server_leaves_behind(verbs, client):
    verbs.insert(a_record("a" * 64, user_id="9", expires_at=utcnow() + timedelta(days=2)))
    stale = (to_epoch(utcnow()) - 1000) / 3_600_000
    client.zadd("session:user:9", {bytes.fromhex(letter * 64): stale for letter in "bcd"})
    assert verbs.purge(utcnow(), 2) == 2
    assert verbs.purge(utcnow(), 2) == 1
    assert client.zrange("session:user:9", 0, -1) == [b"\xaa" * 32]


def test_a_server_that_forgot_the_scripts_is_told_again(Store, face, client):
    key = saved(face, Store, a=1)
    client.script_flush()
    session = face(Store(key))
    session["b"] = 2
    session.save()
    assert face(Store(key))["b"] == 2


def test_a_prefix_with_pattern_characters_is_taken_literally(Store, face, verbs, settings):
    settings.MULTISESSION_KEY_PREFIX = "site[1]*?"
    key = saved(face, Store, _auth_user_id="9")
    settings.MULTISESSION_KEY_PREFIX = "site1xx"
    assert face(Store()).exists(key) is False
    assert verbs.scan(None, 10) == []
    settings.MULTISESSION_KEY_PREFIX = "site[1]*?"
    assert [record.id for record in verbs.scan(None, 10)] == [identify(key)]


def test_a_user_id_of_64_characters_is_no_session(verbs):
    verbs.insert(record := a_record(user_id="e" * 64))
    assert verbs.scan(None, 100) == [record]


def test_sessions_share_a_database_with_other_keys(verbs, client):
    client.mset({f"other:{number}": "x" for number in range(500)})
    verbs.insert(record := a_record())
    found, after = [], None
    for _ in range(200):
        page = verbs.scan(after, 10)
        found += page
        if (after := page.next) is None:
            break
    assert found == [record]


def test_a_page_is_bounded_among_many_other_keys(verbs, client):
    client.mset({f"other:{number}": "x" for number in range(20_000)})
    client.config_resetstat()
    page = verbs.scan(None, 10)
    assert (page, page.next is None) == ([], False)
    assert client.info("commandstats")["cmdstat_scan"]["calls"] == MOST_SCANS


def test_300_tasks_at_once_wait_for_a_connection(Store, runner):
    import asyncio

    async def load_all():
        return await asyncio.gather(*(Store("k" * 32).aload() for _ in range(300)))

    assert runner.run(load_all()) == [{}] * 300


FOREIGN = {
    "short": b"x",
    "long": b"A" * 200,
    "user id": struct.pack(">QqqqIH", 1, 4 * 10**12, 0, 0, 0, 3) + b"\xff\xfe\xfd",
}


@pytest.mark.parametrize("value", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_value_under_a_sessions_key_is_no_session(Store, face, verbs, client, caplog, value):
    key = "k" * 32
    client.set(f"session:{identify(key)}", value)
    assert face(Store(key)).load() == {}
    assert "corrupted" in caplog.text
    assert key not in caplog.text
    assert face(Store()).exists(key) is False
    verbs.insert(record := a_record())
    assert verbs.scan(None, 100) == [record]


def test_scripts_leave_a_foreign_value_alone(verbs, client):
    client.set(f"session:{a_record().id}", b"x")
    assert verbs.replace(a_record(version=2)) is None
    assert verbs.touch(a_record().id, utcnow()) is False
    assert client.get(f"session:{a_record().id}") == b"x"


def test_the_loser_of_a_conflict_leaves_the_index_alone(verbs, client, clock):
    now = utcnow()
    verbs.insert(record := a_record(user_id="9", expires_at=now + timedelta(hours=10)))
    for user_id in ("9", "10"):
        lost = dataclasses.replace(record, user_id=user_id, version=9, expires_at=now + timedelta(hours=2))
        assert verbs.replace(lost) == record
    assert not client.exists("session:user:10")
    clock.shift(5 * 3600)
    assert verbs.of_user("9") == [record]


def test_an_index_that_cannot_be_written_stops_the_save(verbs, client):
    """Else a session would be in no list, and could not be revoked."""
    client.set("session:user:9", b"somebody else's")
    with pytest.raises(EngineUnavailable):
        verbs.insert(a_record(user_id="9"))
    assert verbs.read(a_record().id) is None
    verbs.insert(record := a_record())
    with pytest.raises(EngineUnavailable):
        verbs.replace(dataclasses.replace(record, user_id="9", version=2))
    assert verbs.read(record.id) == record
