"""A replica that becomes the primary behind the address that the site knows, where the demoted one still answers."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.test import override_settings

from django_multisession import user_sessions
from django_multisession.testing.stored import saved
from example_project.servers import RedisServer
from tests.proxies import Proxy

from ..redis import test_demoted

pytestmark = pytest.mark.slow

WRITERS, SAVES = 8, 40


@pytest.fixture
def engine_name() -> str:
    return "cached_sqlite"


class Pair:
    """A primary, its replica, and an address that leads to the primary."""

    def __init__(self, old: Any, new: Any, address: Proxy) -> None:
        self.old, self.new, self.address = old, new, address
        test_demoted.wait_until_in_step(new)

    def fail_over(self) -> None:
        """As one is arranged, where nothing is lost: open connections stay where they are."""
        self.address.target = self.address.target[0], self.new.port
        with redis.Redis(port=self.new.port) as heir, redis.Redis(port=self.old.port) as primary:
            primary.execute_command("FAILOVER", "TO", "127.0.0.1", self.new.port)
            until = time.monotonic() + 60
            while heir.info("replication")["role"] != "master" or primary.info("replication")["role"] != "slave":
                assert time.monotonic() < until


@pytest.fixture(params=["plain", "traced"])
def pair(request: Any, Store: Any) -> Iterator[Pair]:
    at_once = "--repl-diskless-sync-delay", "0"
    with (
        RedisServer(*at_once) as old,
        RedisServer(*at_once, "--replicaof", "127.0.0.1", str(old.port)) as new,
        Proxy(old.port) as address,
    ):
        test_demoted.Clients.url = f"redis://127.0.0.1:{address.port}/0"
        traced = f"{test_demoted.__name__}.traced"
        with override_settings(MULTISESSION_REDIS=traced if request.param == "traced" else test_demoted.Clients.url):
            yield Pair(old, new, address)


def copies_at(server: Any) -> int:
    with redis.Redis(port=server.port) as client:
        return len(client.keys("*:copy:*"))


def copied(face: Any, Store: Any, pair: Pair, count: int) -> list[str]:
    """Sessions of one user, of which the replica has copies too."""
    keys = [saved(face, Store, a=1, _auth_user_id="9") for _ in range(count)]
    for key in keys:
        face(Store(key)).load()
    with redis.Redis(port=pair.old.port) as client:
        client.execute_command("WAIT", 1, 10_000)
    assert copies_at(pair.new) == count
    return keys


def test_what_changes_afterwards_is_seen_at_once(Store, face, pair, caplog):
    read, changed, ended = copied(face, Store, pair, 3)
    pair.fail_over()
    session = face(Store(changed))
    session["a"] = 2
    session.save()
    face(Store(ended)).delete()
    assert [face(Store(key)).load().get("a") for key in (read, changed, ended)] == [1, 2, None]
    assert copies_at(pair.new) == 2
    assert not caplog.records


def test_all_that_are_ended_at_once_are_gone(Store, face, pair, caplog):
    keys = copied(face, Store, pair, 6)
    pair.fail_over()
    assert face.functions(user_sessions).revoke_all("9").ended == 6
    assert copies_at(pair.new) == 0
    assert [face(Store(key)).load() for key in keys] == [{}] * 6
    assert not caplog.records


def test_a_change_that_the_replica_had_not_heard_of_is_seen_in_time(Store, face, pair, clock):
    """The primary dies with it. Nothing is lost: the database has it."""
    changed, ended = copied(face, Store, pair, 2)
    with redis.Redis(port=pair.new.port) as replica:
        replica.replicaof("NO", "ONE")
    session = face(Store(changed))
    session["a"] = 2
    session.save()
    face(Store(ended)).delete()
    assert [face(Store(key)).load().get("a") for key in (changed, ended)] == [2, None]
    pair.address.target = pair.address.target[0], pair.new.port
    pair.old.kill()
    until = time.monotonic() + 30
    while [face(Store(key)).load().get("a") for key in (changed, ended)] != [1, 1]:  # as the new primary knows them
        assert time.monotonic() < until
    clock.shift(61)
    assert [face(Store(key)).load().get("a") for key in (changed, ended)] == [2, None]


def test_under_load_no_save_is_lost(Store, pair):
    """Each of several writers alone changes its session, and reads what it has saved, while the primary changes."""
    wrong: list[Any] = []
    keys = [saved(lambda store: store, Store, n=0) for _ in range(WRITERS)]
    halfway = threading.Barrier(WRITERS + 1)

    def write(key: str) -> None:
        try:
            for number in range(SAVES):
                if number == SAVES // 4:
                    halfway.wait(60)
                session = Store(key)
                if session["n"] != number:
                    wrong.append((key, number, session["n"]))
                session["n"] = number + 1
                session.save()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=write, args=[key]) for key in keys]
    for thread in threads:
        thread.start()
    halfway.wait(60)
    pair.fail_over()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert [Store(key)["n"] for key in keys] == [SAVES] * WRITERS
    until = time.monotonic() + 30
    while not copies_at(pair.new):  # it is in use
        assert time.monotonic() < until
        Store(keys[0]).load()
