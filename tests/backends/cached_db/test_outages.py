"""Redis away, paused, cut off, restarted or full: sessions go on by SQL, and one line is logged."""

import logging
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Timer
from time import monotonic
from typing import Any

import pytest
import redis
from django.test import override_settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from django_multisession import user_sessions
from django_multisession.backends.cached_db import SessionStore as CachedStore
from django_multisession.backends.cached_db import outage
from django_multisession.testing.stored import close_connections, saved
from example_project.servers import RedisServer
from tests.proxies import Proxy

pytestmark = pytest.mark.slow

TIMEOUT = 0.5


@pytest.fixture(params=["cached_sqlite"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server() -> Iterator[Any]:
    with RedisServer("--save", "", "--appendonly", "no") as server:
        yield server


@contextmanager
def at(url: str, **more: Any) -> Iterator[None]:
    with override_settings(MULTISESSION_REDIS=url, MULTISESSION_TIMEOUT=TIMEOUT, **more):
        yield


def lines(caplog: Any) -> list[str]:
    return [each.message.split(",")[0].split(":")[0] for each in caplog.records if each.name == "django_multisession"]


def everything(face: Any, Store: Any, key: str) -> None:
    """All that a request does."""
    session = face(Store(key))
    assert session.load()["a"] == 1
    session["b"] = session.get("b", 0) + 1
    session.save()
    assert face(Store(key)).load()["b"] == session["b"]
    session.cycle_key()
    assert face(Store(key)).load() == {}
    assert face(Store(session.session_key)).load()["a"] == 1
    session.flush()
    assert face(Store(session.session_key)).load() == {}


def test_a_server_that_is_gone(Store, face, server, caplog):
    """It refuses at once; when it is back it is used again, without a restart."""
    caplog.set_level(logging.INFO, "django_multisession")
    with at(server.url):
        keys = [saved(face, Store, a=1) for _ in range(4)]
        face(Store(keys[0])).load()
        server.stop()
        for key in keys[1:]:
            everything(face, Store, key)
        assert lines(caplog) == ["Redis is away"]
        server.start()
        is_cached(face, Store, keys[0])
        assert lines(caplog) == ["Redis is away", "Redis answers again"]


def is_cached(face: Any, Store: Any, key: str) -> None:
    """Wait until the pause is over, and the session is copied."""
    until = monotonic() + 30
    while not CachedStore.storage.told._opened().client.keys("*:copy:*"):
        assert monotonic() < until
        face(Store(key)).load()


def test_a_server_that_does_not_answer_is_waited_for_once(Store, face, server, caplog, monkeypatch):
    monkeypatch.setattr(outage, "PAUSE", 600)
    waits = []
    with at(server.url):
        keys = [saved(face, Store, a=1) for _ in range(3)]
        face(Store(keys[0])).load()
        os.kill(server.pid, signal.SIGSTOP)
        failed = outage.Outage.failed
        monkeypatch.setattr(outage.Outage, "failed", lambda *given: waits.append(given[1]) or failed(*given))
        try:
            for key in keys:
                everything(face, Store, key)
        finally:
            os.kill(server.pid, signal.SIGCONT)
    assert len(waits) == 1  # all the others went by SQL
    assert lines(caplog) == ["Redis is away"]


PORTS: list[int] = []  # of the server that `without_time_outs()` leads to


def without_time_outs() -> Any:
    """As redis-py makes one before its release 8."""
    never = Retry(NoBackoff(), 0)
    return redis.Redis(port=PORTS[-1], socket_timeout=None, socket_connect_timeout=None, retry=never)


def test_a_client_without_time_outs_waits_for_ours(Store, face, server, monkeypatch):
    PORTS.append(server.port)
    errors = []
    failed = outage.Outage.failed
    monkeypatch.setattr(outage.Outage, "failed", lambda *given: errors.append(given[2]) or failed(*given))
    with at(f"{__name__}.without_time_outs"):
        key = saved(face, Store, a=1)
        face(Store(key)).load()
        os.kill(server.pid, signal.SIGSTOP)
        going_on = Timer(20, os.kill, [server.pid, signal.SIGCONT])  # else a failing test would never end
        going_on.start()
        try:
            assert face(Store(key)).load() == {"a": 1}
        finally:
            going_on.cancel()
            os.kill(server.pid, signal.SIGCONT)
    assert [type(error) for error in errors] == [redis.TimeoutError]


def test_one_request_alone_finds_out_whether_it_is_back(Store, server, monkeypatch):
    found = outage.Outage()
    monkeypatch.setattr(outage, "PAUSE", 0)
    found.failed("SET", ConnectionError())
    assert [found.may_ask() for _ in range(3)] == [True, False, False]
    found.unknown()  # it was cancelled
    assert [found.may_ask() for _ in range(3)] == [True, False, False]
    found.answered("SET")
    assert [found.may_ask() for _ in range(3)] == [True, True, True]


@pytest.mark.parametrize("lost", ["lose_answer", "lose_request"])
@pytest.mark.parametrize("command", [b"SET", b"EVALSHA", b"DEL"])
def test_cut_off_at_any_command(Store, face, server, lost, command):
    """By a proxy, once: it comes again on a new connection, and nothing is lost or seen too long."""
    with Proxy(server.port) as proxy, at(f"redis://127.0.0.1:{proxy.port}/0"):
        for _ in range(3):
            warm = saved(face, Store, a=1)
            face(Store(warm)).load()
            setattr(proxy, lost, Once(proxy, command))
            everything(face, Store, saved(face, Store, a=1))
            everything(face, Store, warm)
        assert proxy.lost == 3


@pytest.mark.parametrize("lost", ["lose_answer", "lose_request"])
def test_cut_off_while_many_are_ended(Store, face, server, lost):
    with Proxy(server.port) as proxy, at(f"redis://127.0.0.1:{proxy.port}/0"):
        keys = [saved(face, Store, a=1, _auth_user_id="9") for _ in range(6)]
        for key in keys:
            face(Store(key)).load()
        setattr(proxy, lost, Once(proxy, b"DEL"))
        assert face.functions(user_sessions).revoke_all("9").ended == 6
        assert proxy.lost == 1
        assert [face(Store(key)).load() for key in keys] == [{}] * 6


class Once:
    def __init__(self, proxy: Any, command: bytes) -> None:
        self.proxy, self.command, self.is_done = proxy, command, False

    def __call__(self, request: bytes) -> bool:
        cut = not self.is_done and b"\r\n" + self.command + b"\r\n" in request
        self.is_done |= cut
        return cut


def test_a_change_that_redis_was_not_told_of_is_seen_in_time(Store, face, server, clock, monkeypatch):
    """Cut off for good: the log-out is done, and a copy that another server still reads is refused when it is too old,
    whatever time to live Redis believes that it has."""
    key = saved(face, Store, a=1)
    with at(server.url):
        face(Store(key)).load()
        with Proxy(server.port) as proxy:
            proxy.lose_request = lambda request: True
            with at(f"redis://127.0.0.1:{proxy.port}/0"):
                face(Store(key)).delete()
                assert face(Store(key)).load() == {}
        assert face(Store(key)).load() == {"a": 1}  # the server that can reach Redis
        client = CachedStore.storage.told._opened().client
        [copy] = client.keys("*:copy:*")
        assert 0 < client.pttl(copy) <= 60_000
        client.persist(copy)
        clock.shift(59)
        assert face(Store(key)).load() == {"a": 1}  # neither this nor any other hit lengthens it
        clock.shift(2)
        assert face(Store(key)).load() == {}


def copies_in(server: Any) -> int:
    with redis.Redis(port=server.port) as client:
        return len(client.keys("*:copy:*"))


def test_what_changed_meanwhile_is_told_when_redis_answers_again(Store, face, server, monkeypatch):
    """Before anything is read from there: other servers may have read copies all the time."""
    monkeypatch.setattr(outage, "PAUSE", 600)
    with Proxy(server.port) as proxy, at(f"redis://127.0.0.1:{proxy.port}/0", MULTISESSION_CACHE_AGE="1h"):
        ended, saved_since, other = (saved(face, Store, a=1) for _ in range(3))
        for key in (ended, saved_since, other):
            face(Store(key)).load()
        proxy.lose_request = lambda request: True
        face(Store(ended)).delete()
        session = face(Store(saved_since))
        session["a"] = 2
        session.save()
        assert copies_in(server) == 3
        proxy.lose_request = lambda request: False
        monkeypatch.setattr(outage, "monotonic", lambda: monotonic() + 602)  # the pause is over
        assert face(Store(other)).load() == {"a": 1}
        assert copies_in(server) == 1


def test_a_server_that_refuses_to_be_told_is_not_read(Store, face, server, caplog, monkeypatch):
    """Its copies may be of before. Once it listens, it hears of all of them."""
    monkeypatch.setattr(outage, "PAUSE", 0)
    with at(server.url), redis.Redis(port=server.port) as admin:
        ended, other = saved(face, Store, a=1), saved(face, Store, a=1)
        for key in (ended, other):
            face(Store(key)).load()
        admin.execute_command("ACL", "SETUSER", "default", "-del")
        face(Store(ended)).delete()
        everything(face, Store, saved(face, Store, a=1))
        assert [face(Store(key)).load() for key in (ended, other)] == [{}, {"a": 1}]
        assert copies_in(server) == 2
        admin.execute_command("ACL", "SETUSER", "default", "+del")
        assert face(Store(other)).load() == {"a": 1}
        assert copies_in(server) == 1
        assert lines(caplog) == ["Redis refuses DEL"]


def test_threads_that_find_no_connection_free(Store, server, monkeypatch):
    """Each alone changes its session. Some go by SQL, and what they could not say another says before it reads."""
    wrong: list[Any] = []

    def write(key: str) -> None:
        for number in range(20):
            session = Store(key)
            session["a"] = number
            session.save()
            wrong.extend({(key, number)} - {(key, Store(key)["a"])})
        Store(key).flush()
        wrong.extend(Store(key).load().items())
        close_connections()

    monkeypatch.setattr(outage, "PAUSE", 0.01)
    with at(f"{server.url}?max_connections=3"):
        keys = [saved(lambda store: store, Store, a=1) for _ in range(20)]
        with ThreadPoolExecutor(len(keys)) as pool:
            list(pool.map(write, keys))
    assert wrong == []


def test_a_restart_with_old_data(Store, face, server, clock):
    """It comes back with what it had last written to disk: the copy of before a log-out, no older than it may be."""
    key, saved_since = saved(face, Store, a=1), saved(face, Store, a=1)
    with at(server.url):
        face(Store(key)).load()
        face(Store(saved_since)).load()
        CachedStore.storage.told._opened().client.save()
        face(Store(key)).delete()
        session = face(Store(saved_since))
        session["a"] = 2
        session.save()
        assert [face(Store(each)).load() for each in (key, saved_since)] == [{}, {"a": 2}]
        server.kill()
        server.start()
        assert len(CachedStore.storage.told._opened().client.keys("*:copy:*")) == 2
        assert [face(Store(each)).load() for each in (key, saved_since)] == [{"a": 1}] * 2
        clock.shift(61)
        assert [face(Store(each)).load() for each in (key, saved_since)] == [{}, {"a": 2}]
        everything(face, Store, saved(face, Store, a=1))


def test_a_restart_without_data_while_a_session_is_read(Store, face, server):
    """The lease is gone, and so is the right to store the copy."""
    key = saved(face, Store, a=1)
    with at(server.url):
        face(Store(key)).load()
        server.kill()
        server.start()
        assert face(Store(key)).load() == {"a": 1}
        is_cached(face, Store, key)
        everything(face, Store, key)


def test_a_server_that_is_full_refuses_copies_and_is_told_of_changes(Store, face, server, caplog):
    with at(server.url):
        key, other = saved(face, Store, a=1), saved(face, Store, a=1)
        face(Store(key)).load()
        CachedStore.storage.told._opened().client.config_set("maxmemory", 1)
        caplog.clear()
        everything(face, Store, other)
        everything(face, Store, key)
        assert lines(caplog) == ["Redis refuses SET"]
        client = CachedStore.storage.told._opened().client
        assert client.keys("*:copy:*") == []


@pytest.mark.parametrize("policy", ["allkeys-random", "allkeys-lru"])
def test_eviction_all_the_time(Store, face, server, policy):
    with at(server.url):
        client = CachedStore.storage.told._opened().client
        client.config_set("maxmemory-policy", policy)
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 60_000)
        keys = [saved(face, Store, a=1, filling=os.urandom(5000).hex()) for _ in range(30)]
        for key in keys * 2:
            assert face(Store(key)).load()["a"] == 1
        assert client.info("stats")["evicted_keys"] > 0
        for key in keys[:5]:
            everything(face, Store, key)
