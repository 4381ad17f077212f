"""What a copy is worth: signed for its session and its place, for no longer than its age, within the session's own."""

import asyncio
import ctypes
import hmac
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.test import override_settings

from django_multisession import purge, user_sessions
from django_multisession.backends import redis
from django_multisession.backends.cached_db import copies, outage, signing
from django_multisession.backends.cached_db.outage import Outage
from django_multisession.backends.db import SessionStore, statements
from django_multisession.backends.redis.pool import Commands
from django_multisession.exceptions import SessionEnded
from django_multisession.payload import codecs
from django_multisession.records import epoch_now, identify
from django_multisession.testing import isolated_sessions
from django_multisession.testing.faces import SyncFace
from django_multisession.testing.stored import saved
from django_multisession.twins import run_sync
from example_project.servers import RedisServer


@pytest.fixture
def engine_name() -> str:
    return "cached_sqlite"


@pytest.fixture
def client(Store: Any) -> Any:
    return redis.SessionStore.storage.client


def cached(face: Any, Store: Any, **data: Any) -> tuple[str, str]:
    """A session's key, and that of its copy."""
    key = saved(face, Store, **data)
    face(Store(key)).load()
    return key, copies._key(identify(key))


def test_another_sessions_copy_is_refused(Store, face, client, caplog):
    key, copy = cached(face, Store, a=1)
    _, others_copy = cached(face, Store, a="other")
    client.set(copy, client.get(others_copy))
    assert face(Store(key)).load() == {"a": 1}
    assert "Session copy refused" in caplog.text
    assert face(Store(key)).load() == {"a": 1}
    assert client.get(copy)[:1] == b"c"  # a right one, by now


@pytest.mark.parametrize("at", [0, 1, 16, 17, 24, 25, 33, -1])
def test_a_changed_byte(Store, face, client, at):
    key, copy = cached(face, Store, a=1)
    value = bytearray(client.get(copy))
    value[at] ^= 1
    client.set(copy, bytes(value))
    assert face(Store(key)).load() == {"a": 1}


@pytest.mark.parametrize("value", [b"", b"c", b"l", b"l" + b"x" * 15, b"x" * 100, b"c" + b"x" * 16, b"\xff" * 40])
def test_what_is_no_copy(Store, face, client, value):
    key, copy = cached(face, Store, a=1)
    client.set(copy, value)
    assert [face(Store(key)).load() for _ in range(2)] == [{"a": 1}] * 2
    face(Store(key)).delete()
    assert face(Store(key)).load() == {}


def test_another_type_under_the_key(Store, face, client):
    key, copy = cached(face, Store, a=1)
    client.delete(copy)
    client.lpush(copy, "x")
    assert face(Store(key)).load() == {"a": 1}
    face(Store(key)).delete()
    assert face(Store(key)).load() == {}


def test_a_copy_is_replayed_for_no_longer_than_its_age(Store, face, client, clock, settings):
    key, copy = cached(face, Store, a=1)
    value = client.get(copy)
    face(Store(key)).delete()
    client.set(copy, value)
    assert face(Store(key)).load() == {"a": 1}  # whoever writes to Redis can do that
    clock.shift(61)
    client.set(copy, value)
    assert face(Store(key)).load() == {}
    settings.MULTISESSION_CACHE_AGE = "5m"
    client.set(copy, value)
    assert face(Store(key)).load() == {"a": 1}


def test_a_copy_of_another_place_or_key_is_refused(Store, face, client, settings):
    key, copy = cached(face, Store, a=1)
    value = client.get(copy)
    face(Store(key)).delete()
    record = signing.unseal(signing.begun("default.", identify(key)), identify(key), value, 60_000)
    assert record.id == identify(key)
    client.set(copy, signing.seal("tenant.", record, epoch_now()))
    assert face(Store(key)).load() == {}
    client.set(copy, value)
    settings.SECRET_KEY = "another"
    settings.SECRET_KEY_FALLBACKS = ["not a secret: the tests' own"]
    assert face(Store(key)).load() == {}


def test_a_copy_signed_with_what_is_a_fallback_is_refused_without_a_word(Store, face, client, settings, caplog):
    """Each session may have one while a new key is deployed."""
    key, copy = cached(face, Store, a=1)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another", ["older", settings.SECRET_KEY]
    assert [face(Store(key)).load() for _ in range(3)] == [{"a": 1}] * 3
    assert not caplog.records
    assert client.get(copy)[:1] == b"c"  # one of today's key


def test_the_copys_key_is_not_the_payloads(Store, settings):
    secret = settings.SECRET_KEY
    payloads = codecs._keyed(secret)[0].copy()
    ours = sha256(signing._signing_key(secret).ljust(64, b"\0").translate(hmac.trans_36))
    assert payloads.digest() != ours.digest()


def test_neither_hits_nor_touches_lengthen_a_copy(Store, face, client, settings):
    key, copy = cached(face, Store, a=1)
    client.pexpire(copy, 5000)
    for _ in range(3):
        face(Store(key)).load()
    assert client.pttl(copy) <= 5000
    settings.MULTISESSION_TOUCH_AFTER = 0
    session = face(Store(key))
    session.load()
    session.save()
    assert not client.exists(copy)


def test_a_copys_life_counts_from_its_lease(Store, client, settings):
    settings.MULTISESSION_CACHE_AGE = 10
    key = saved(SyncFace(), Store, a=1)
    [row] = statements.fetch("default", statements.read_sql, identify(key), 0)
    lease = copies.Lease(b"l" + b"x" * 16, epoch_now() - 9000, time.monotonic() - 9)
    name = copies._key(identify(key))
    client.set(name, lease.value)
    told = Store.storage.told
    run_sync(told.fill("default.", lease, statements.record_of(row)))
    assert 0 < client.pttl(name) <= 1000
    client.set(name, lease.value)
    late = lease._replace(since=time.monotonic() - 10)
    run_sync(told.fill("default.", late, statements.record_of(row)))
    assert client.get(name) == lease.value


def test_tokens_live_for_the_timeout(Store, client, settings):
    lease = run_sync(Store.storage.told.take("default.", "a" * 64))
    name = copies._key("a" * 64)
    assert client.get(name) == lease.value
    assert 0 < client.pttl(name) <= 5000
    assert run_sync(Store.storage.told.take("default.", "a" * 64)) is None
    assert client.get(name) == lease.value


@pytest.mark.parametrize("fork", [os.fork, ctypes.PyDLL(None).fork], ids=["Python's", "one that Python is not told of"])
def test_tokens_are_nobody_elses(fork):
    """Neither another thread's nor another process's: who has the same may store a copy that another should not."""
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda _: copies._new_lease(), range(20 * copies.DRAWN)))
    r, w = os.pipe()
    if not (child := fork()):
        try:
            os.write(w, b"".join(copies._new_lease() for _ in range(copies.DRAWN)))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    of_the_child = os.read(r, 1 << 16)
    for end in (r, w):
        os.close(end)
    size = copies.LEASE_SIZE
    drawn += [of_the_child[at : at + size] for at in range(0, len(of_the_child), size)]
    drawn += [copies._new_lease() for _ in range(copies.DRAWN)]
    assert len(drawn) == 22 * copies.DRAWN == len(set(drawn))
    assert {len(each) for each in drawn} == {size}


def test_limits_and_expiry_hold_for_copies(Store, face, clock, settings):
    settings.MULTISESSION_CACHE_AGE = "1h"
    key, _ = cached(face, Store, a=1)
    settings.MULTISESSION_IDLE_AGE = 60
    assert face(Store(key)).load() == {"a": 1}
    clock.shift(61)
    assert face(Store(key)).load() == {}
    settings.MULTISESSION_IDLE_AGE = None
    assert face(Store(key)).load() == {"a": 1}
    settings.MULTISESSION_ABSOLUTE_AGE = 60
    assert face(Store(key)).load() == {}
    settings.MULTISESSION_ABSOLUTE_AGE = None
    ending = face(Store())
    ending.set_expiry(100)
    ending.save()
    assert face(Store()).exists(ending.session_key)
    clock.shift(101)
    assert not face(Store()).exists(ending.session_key)


def test_records_of_the_redis_engine_are_never_met(Store, face, client):
    key = saved(SyncFace(), redis.SessionStore, a="of Redis")
    assert face(Store(key)).load() == {}
    cached(face, Store, a=1, _auth_user_id="9")
    assert [record.id for record in run_sync(redis.SessionStore.storage.scan(None, 10))] == [identify(key)]
    assert not client.keys("*:user:*")


@pytest.mark.parametrize("fails", [False, True])
def test_those_of_a_test_that_was_isolated_are_gone_after_it(Store, face, client, settings, fails):
    settings.MULTISESSION_KEY_PREFIX = "sites*"  # which as a pattern would be all that begin so
    _, of_the_site = cached(face, Store, a=1)
    client.set("sites-and-others", 1)
    with suppress(ZeroDivisionError), isolated_sessions():
        assert face(Store(cached(face, Store, a=1)[0])).load() == {"a": 1}
        assert len(client.keys("sites[*]-test-*:copy:*")) == 1
        _ = 1 / (not fails)
    assert sorted(client.keys()) == sorted([of_the_site.encode(), b"sites-and-others"])


def test_a_test_that_has_stopped_redis_is_no_error(Store, face):
    with RedisServer() as server, override_settings(MULTISESSION_REDIS=server.url), isolated_sessions():
        key, _ = cached(face, Store, a=1)
        server.stop()
        assert face(Store(key)).load() == {"a": 1}


def test_what_ends_sessions_ends_their_copies(Store, face):
    keys = [cached(face, Store, _auth_user_id="9")[0] for _ in range(3)]
    assert len(face.functions(user_sessions).sessions_of("9")) == 3
    assert face.functions(user_sessions).revoke_all("9").ended == 3
    assert [face(Store()).exists(key) for key in keys] == [False] * 3


def test_a_task_that_is_cancelled_has_told_redis(Store, client):
    """As ASGI does where a browser hangs up: the statement goes on in its thread, and so does the word of it."""
    key, copy = cached(SyncFace(), Store, a=1)
    inside, go = threading.Event(), threading.Event()
    execute = statements.execute

    def slowly(*arguments: Any) -> Any:
        inside.set()
        assert go.wait(30)
        return execute(*arguments)

    async def cancel_a_log_out() -> None:
        task = asyncio.create_task(Store(key).adelete())
        while not inside.is_set():  # noqa: ASYNC110  of a thread
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 30)
        go.set()
        await sync_to_async(connections.close_all)()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statements, "execute", slowly)
        asyncio.run(cancel_a_log_out())
    assert not client.exists(copy)
    assert Store(key).load() == {}


def test_a_child_of_a_fork_has_its_own_connections(Store, client):
    key, _ = cached(SyncFace(), Store, a=1)
    if not (pid := os.fork()):
        os._exit(0 if Store(key).load() == {"a": 1} else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert Store(key).load() == {"a": 1}


def test_servers_of_the_db_engine_are_seen_within_the_age(Store, face, clock):
    key, _ = cached(face, Store, a=1)
    session = face(SessionStore(key))
    session["b"] = 2
    session.save()
    assert face(Store(key)).load() == {"a": 1}
    late = face(Store(key))
    late["c"] = 3
    late.save()
    assert face(Store(key)).load() == {"a": 1, "b": 2, "c": 3}
    face(SessionStore(key)).delete()
    clock.shift(61)
    assert face(Store(key)).load() == {}


def test_a_purge_of_live_sessions_is_seen_within_the_age(Store, face, clock):
    key, _ = cached(face, Store, a=1)
    clock.shift(30)
    assert face.functions(purge).purge(older_than=10).rows == 1
    session = face(Store(key))
    assert session.load() == {"a": 1}
    session["b"] = 2
    with pytest.raises(SessionEnded):
        session.save()
    clock.shift(31)
    assert face(Store(key)).load() == {}


def test_a_wrong_clock_hurts_nobody_else(Store, face, clock):
    key, _ = cached(face, Store, a=1)
    clock.shift(-30)
    assert face(Store(key)).load() == {"a": 1}
    clock.shift(-40)
    assert face(Store(key)).load() == {"a": 1}


def test_what_redis_was_not_told_of_is_known_for_as_long_as_a_copy_may_be_old(monkeypatch):
    found, now = Outage(), time.monotonic()
    monkeypatch.setattr(outage, "monotonic", lambda: now)
    found.untold(["old", "older"])
    now += 59
    found.untold(["new"])
    now += 2
    with suppress(ZeroDivisionError), found.telling(["newest"]) as keys:
        raise ZeroDivisionError
    assert list(keys) == ["new", "newest"]
    with found.telling([]) as keys:
        assert list(keys) == ["new", "newest"]
        found.answered("SET")
        assert (found.is_known, found.has_untold) == (True, True)  # until they are told
    assert not found.has_untold
    found.untold(str(number) for number in range(outage.MOST + 1))
    with found.telling([]) as keys:
        assert len(keys) == outage.MOST


def test_one_that_changes_all_the_time_pushes_no_other_out(monkeypatch):
    monkeypatch.setattr(outage, "MOST", 2)
    found = Outage()
    for key in ["ended", *["busy"] * 5]:
        found.untold([key])
    with found.telling([]) as keys:
        assert list(keys) == ["ended", "busy"]


def test_outages_that_follow_one_another_are_logged_as_one(monkeypatch, caplog):
    """Threads that find no connection free have one each time; one that lasts is always told."""
    found, now, error = Outage(), time.monotonic(), ConnectionError("Too many connections")
    monkeypatch.setattr(outage, "monotonic", lambda: now)
    with caplog.at_level("INFO", "django_multisession"):
        for _ in range(3):
            found.failed("SET", error)
            found.answered("SET")
        found.failed("SET", error)
        assert len(caplog.records) == 2
        now += outage.QUIET
        for _ in range(3):
            found.failed("SET", error)
    assert [each.levelname for each in caplog.records] == ["WARNING", "INFO", "WARNING"]


def test_what_is_told_at_once_holds_back_no_reads():
    """While all is well: one thread or another is telling of its change all the time."""
    found = Outage()
    with found.telling(["a"]):
        with found.telling(["b"]):
            pass
        found.answered(outage.TELLING)
        assert not found.is_known


def test_who_is_stopped_while_redis_is_told(Store, face, client, monkeypatch):
    """By a time limit, for instance: the change is made by then, so whoever comes next says it."""
    key, copy = cached(face, Store, a=1)
    execute, stops = Commands.execute, iter([KeyboardInterrupt])

    async def stopped(self: Any, command: Any, *arguments: Any, **how: Any) -> Any:
        if command[0] == "DEL" and (error := next(stops, None)):
            raise error
        return await execute(self, command, *arguments, **how)

    monkeypatch.setattr(Commands, "execute", stopped)
    with pytest.raises(KeyboardInterrupt):
        face(Store(key)).delete()
    assert client.exists(copy)
    assert face(Store(key)).load() == {}
    assert not client.exists(copy)
