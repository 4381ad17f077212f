"""Clocks that are wrong, or stand still, on a server of the site: Redis goes by its own."""

import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth import get_user_model
from django.test import Client
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from django_multisession import user_sessions
from django_multisession.records import epoch_now, identify, to_epoch, utcnow
from django_multisession.redis_answers import HOUR, pack
from django_multisession.twins import run_sync
from django_multisession.user_sessions import Revoked

from .contract import a_record, saved, stored

USER = {"_auth_user_id": "9"}
HOURS = timedelta(hours=1)


@pytest.fixture
def engine_name() -> str:
    return "redis"


@pytest.fixture
def client(Store: Any) -> Any:
    return Store.storage.client


def off_by(offset: timedelta) -> Any:
    return time_machine.travel(datetime.now(UTC) + offset, tick=True)


@pytest.fixture(params=[-3, 3], ids=["slow", "fast"])
def wrong(request: Any) -> Any:
    """A server of the site whose clock is three hours wrong, as by a mistake in its zone."""
    return off_by(request.param * HOURS)


def test_a_log_in_there_takes_no_session_out_of_the_index(Store, face, verbs, client, settings, wrong):
    settings.SESSION_COOKIE_AGE = 2 * 3600
    keys = {identify(saved(face, Store, **USER)) for _ in range(3)}
    with wrong:
        keys.add(identify(saved(face, Store, **USER)))
    assert {record.id for record in verbs.of_user("9")} == keys
    assert {id.hex() for id in client.zrange("session:user:9", 0, -1)} == keys


def test_it_ends_all_sessions_of_a_user_and_says_so(Store, face, settings, wrong):
    settings.SESSION_COOKIE_AGE = 2 * 3600
    keys = [saved(face, Store, **USER) for _ in range(3)]
    with wrong:
        keys.append(saved(face, Store, **USER))
        assert face.functions(user_sessions).revoke_all("9") == Revoked(4, complete=True)
        assert [face(Store()).exists(key) for key in keys] == [False] * 4
    assert [face(Store()).exists(key) for key in keys] == [False] * 4


def test_it_ends_everyones(Store, face, settings, wrong):
    settings.SESSION_COOKIE_AGE = 2 * 3600
    for _ in range(3):
        saved(face, Store, **USER)
    with wrong:
        assert face.functions(user_sessions).revoke_everyone() == 3


def test_it_repairs_an_index_for_as_long_as_its_sessions_live(Store, face, client, settings, wrong):
    settings.SESSION_COOKIE_AGE = 2 * 3600
    key = f"session:{identify(saved(face, Store, **USER))}"
    client.delete("session:user:9")
    with wrong:
        assert face.functions(user_sessions).repair_index().indexed == 1
    assert client.pexpiretime("session:user:9") >= client.pexpiretime(key)


def test_its_purge_leaves_the_index_of_the_living(Store, face, verbs, client, settings, wrong):
    settings.SESSION_COOKIE_AGE = 60
    saved(face, Store, **USER)
    client.zadd("session:user:9", {b"s" * 32: 1})
    with wrong:
        assert verbs.purge(utcnow() + 3 * HOURS, 100) == 1
    assert len(verbs.of_user("9")) == 1


def test_the_servers_clock(verbs, wrong):
    with wrong:
        told = verbs.clock()
        assert told.tzinfo is UTC
        assert abs(told - utcnow()) > 2 * HOURS
    assert abs(told - utcnow()) < HOURS


def test_each_server_compares_a_record_with_its_own_clock(Store, face, settings):
    settings.SESSION_COOKIE_AGE = 2 * 3600
    key = saved(face, Store, a=1)
    with off_by(3 * HOURS):
        assert stored(face, Store, key) == {}
    assert stored(face, Store, key) == {"a": 1}


@pytest.mark.parametrize("year", [1971, 2012, 2200])
@pytest.mark.parametrize("tick", [False, True])
class TestAClockOfAnotherYear:
    """As freezegun and time-machine make one, in the tests of most sites."""

    def test_a_session_lives_on(self, Store, face, client, year, tick):
        with time_machine.travel(datetime(year, 1, 14, tzinfo=UTC), tick=tick):
            session = face(Store(saved(face, Store, **USER)))
            session["a"] = 1
            session.save()
            session.cycle_key()
            assert stored(face, Store, session.session_key) == {"a": 1, **USER}
            assert face.functions(user_sessions).count("9") == 1
            left = client.pttl(f"session:{identify(session.session_key)}")
            assert 13 * 24 * HOUR < left <= 14 * 24 * HOUR
            assert face.functions(user_sessions).revoke_all("9") == Revoked(1, complete=True)

    def test_djangos_test_client_logs_in_and_its_requests_work(self, Store, year, tick):
        user, _ = get_user_model().objects.get_or_create(username="ann")
        with time_machine.travel(datetime(year, 1, 14, tzinfo=UTC), tick=tick):
            client = Client()
            client.force_login(user)
            for count in (1, 2, 3):
                assert client.get("/count/").json() == {"user": "ann", "count": count}
            client.logout()
            assert "_auth_user_id" not in client.session
        user.delete()


# 0.1.0 on the same store: its scripts go by the caller's clock, and its hour has none to spare.

LIST_010 = """
local function list(user, now, hour, id)
    redis.call('ZREMRANGEBYSCORE', user, '-inf', now / 3600000)
    local added = redis.call('ZADD', user, 'GT', hour, id)
    redis.call('PEXPIREAT', user, redis.call('ZREVRANGE', user, 0, 0, 'WITHSCORES')[2] * 3600000)
    return added
end
"""
REPLACE_010 = f"""{LIST_010}
local now, value, id, version = unpack(ARGV)
local mark = string.sub(value, 33, 38 + struct.unpack('>I2', value, 37))
local head = redis.call('GETRANGE', KEYS[1], 0, 31 + #mark)
if #head < 38 or struct.unpack('>i8', head, 9) <= tonumber(now) then return nil end
if string.sub(head, 1, 8) ~= version then return redis.call('GET', KEYS[1]) end
if KEYS[2] and string.sub(head, 33) ~= mark then list(KEYS[2], now, struct.unpack('>I4', mark), id) end
redis.call('SET', KEYS[1], value, 'PXAT', math.max(1, (struct.unpack('>i8', value, 9))))
return 1
"""
TOUCH_010 = f"""{LIST_010}
local now, times, pxat, hour, user, id = unpack(ARGV)
local head = redis.call('GETRANGE', KEYS[1], 0, 37)
if #head < 38 or struct.unpack('>i8', head, 9) <= tonumber(now) then return nil end
if string.sub(head, 33, 36) ~= hour then
    list(KEYS[2], now, struct.unpack('>I4', hour), id)
    redis.call('SETRANGE', KEYS[1], 32, hour)
end
redis.call('SETRANGE', KEYS[1], 8, times)
redis.call('PEXPIREAT', KEYS[1], pxat)
return 1
"""


def pack_010(record: Any) -> bytes:
    value = pack(record)
    return value[:32] + hour_010(record.expires_at) + value[36:]


def hour_010(expires_at: datetime) -> bytes:
    return struct.pack(">I", -(-to_epoch(expires_at) // HOUR))


def replace_010(client: Any, record: Any) -> None:
    keys = f"session:{record.id}", "session:user:9"
    version = struct.pack(">Q", record.version - 1)
    client.eval(REPLACE_010, 2, *keys, epoch_now(), pack_010(record), bytes.fromhex(record.id), version)


def touch_010(client: Any, id: str, expires_at: datetime) -> None:
    expires, now = to_epoch(expires_at), epoch_now()
    arguments = now, struct.pack(">qq", expires, now), expires, hour_010(expires_at), b"9", bytes.fromhex(id)
    client.eval(TOUCH_010, 2, f"session:{id}", "session:user:9", *arguments)


steps = st.lists(
    st.tuples(
        st.sampled_from(["touch", "replace", "touch 0.1.0", "replace 0.1.0"]), st.integers(-3, 3), st.integers(4, 9)
    ),
    max_size=12,
)


@given(steps=steps, minutes=st.integers(0, 59))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_the_index_holds_a_session_for_as_long_as_it_lives(Store, steps, minutes):
    """Whoever writes it: servers with other clocks, and those of 0.1.0 with right ones."""
    storage, client = Store.storage, Store.storage.client
    client.flushdb()
    record = a_record(user_id="9", expires_at=utcnow() + 5 * HOURS)
    assert run_sync(storage.insert(record))
    for what, offset, hours in steps:
        with off_by(timedelta(hours=0 if "0.1.0" in what else offset)):
            expires_at = utcnow() + hours * HOURS + timedelta(minutes=minutes)
            held = run_sync(storage.of_user("9"))[0]
            following = a_record(user_id="9", expires_at=expires_at, version=held.version + 1)
            if what == "touch":
                run_sync(storage.touch(record.id, expires_at))
            elif what == "replace":
                run_sync(storage.replace(following))
            elif what == "touch 0.1.0":
                touch_010(client, record.id, expires_at)
            else:
                replace_010(client, following)
        dies = client.pexpiretime(f"session:{record.id}")
        assert client.zscore("session:user:9", bytes.fromhex(record.id)) * HOUR >= dies
        assert client.pexpiretime("session:user:9") >= dies


def test_a_record_of_0_1_0_is_listed_under_its_hour_and_listed_anew_only_when_that_is_over(verbs, client):
    record = a_record(user_id="9", expires_at=utcnow() + 5 * HOURS)
    verbs.insert(record)
    touch_010(client, record.id, record.expires_at)
    client.delete("session:user:9")
    verbs.touch(record.id, record.expires_at)
    assert not client.exists("session:user:9")
    verbs.touch(record.id, record.expires_at + 2 * HOURS)
    assert client.exists("session:user:9")


PREFIXES = ["CORP\\shop", "a\\", "\\*", "[a-z]", "a]b", "[^a]", "a?*b", "x\\[y\\]", "säßion", "a-b^c", "{tag}:x"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_whatever_a_prefix_is_all_is_found_below_it(Store, face, verbs, client, settings, prefix):
    for other in ("CORPshop", "a", "azb", "aXb", "abc"):
        settings.MULTISESSION_KEY_PREFIX = other
        saved(face, Store, **USER)
    settings.MULTISESSION_KEY_PREFIX = prefix
    keys = {identify(saved(face, Store, **USER)) for _ in range(3)}
    client.zadd(f"{prefix}:user:9", {b"s" * 32: 1})
    assert {record.id for record in verbs.scan(None, 100)} == keys
    assert verbs.purge(utcnow(), 100) == 1
    client.delete(f"{prefix}:user:9")
    api = face.functions(user_sessions)
    assert api.repair_index().indexed == 3
    assert {record.id for record in verbs.of_user("9")} == keys
    assert api.revoke_everyone() == 3
    assert client.dbsize() == 2 * 5 + 1
