"""Copies in a cluster of Redis: each lies in a slot of its own."""

import os
import signal
from contextlib import contextmanager

import pytest
import redis
from django.test import override_settings

from django_multisession import user_sessions
from django_multisession.backends.cached_db import copies, outage, signing
from django_multisession.records import identify
from django_multisession.testing.stored import saved
from django_multisession.twins import run_sync
from tests import servers

pytestmark = pytest.mark.slow


@pytest.fixture
def engine_name() -> str:
    return "cached_sqlite"


@pytest.fixture
def client(Store):
    with override_settings(MULTISESSION_REDIS=servers.cluster().url):
        found = Store.storage.told._opened().client
        found.flushall(target_nodes="primaries")
        yield found
        found.flushall(target_nodes="primaries")


def is_copied(client, key):
    return (client.get(copies._key(identify(key))) or b"")[:1] == signing.COPY


def test_read_saved_and_ended(Store, face, client):
    keys = [saved(face, Store, a=1, _auth_user_id="9") for _ in range(6)]
    for _ in range(2):
        assert [face(Store(key)).load()["a"] for key in keys] == [1] * 6
        assert all(is_copied(client, key) for key in keys)
    session = face(Store(keys[0]))
    session["a"] = 2
    session.save()
    assert not is_copied(client, keys[0])
    assert face(Store(keys[0])).load()["a"] == 2
    assert face.functions(user_sessions).revoke_all("9").ended == 6
    assert not any(is_copied(client, key) for key in keys)
    assert [face(Store(key)).load() for key in keys] == [{}] * 6
    assert not any(client.exists(copies._key(identify(key))) for key in keys)


@contextmanager
def paused(client, nodes="primaries"):
    """All its primaries, or one node: none answers until the end."""
    found = client.info("server", target_nodes=nodes)
    processes = [each["process_id"] for each in ([found] if "process_id" in found else found.values())]
    try:
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def noted(send, sent):
    return lambda *given, **how: sent.append(given) or send(*given, **how)


def test_nodes_that_do_not_answer_are_asked_once(Store, face, client, monkeypatch):
    """Also of many, which redis-py's own pipeline asks eleven times each. Those sessions are ended, and it is told."""
    sent = []
    with override_settings(MULTISESSION_TIMEOUT=0.5):
        client = Store.storage.told._opened().client
        keys = [saved(face, Store, a=1, _auth_user_id="9") for _ in range(6)]
        for key in keys:
            face(Store(key)).load()
        with paused(client):
            for kind in (redis.Connection, redis.asyncio.Connection):
                monkeypatch.setattr(kind, "send_packed_command", noted(kind.send_packed_command, sent))
            assert face.functions(user_sessions).revoke_all("9").ended == 6
            assert [face(Store(key)).load() for key in keys] == [{}] * 6
            assert 0 < len(sent) <= 3  # of the nodes; all else goes by SQL
        monkeypatch.setattr(outage, "PAUSE", 0)
        monkeypatch.setattr(Store.storage.told.outage, "_until", 0)
        face(Store(keys[0])).load()
        assert not any(is_copied(Store.storage.told._opened().client, key) for key in keys)


def test_what_was_told_is_not_told_again(Store, client):
    """One node does not answer: the others' keys are told once, and not each time that it is asked for."""
    with override_settings(MULTISESSION_TIMEOUT=0.5):
        told = Store.storage.told
        client = told._opened().client
        keys = [f"copy:{number}" for number in range(60)]
        away = client.get_node_from_key(keys[0])
        told.outage.untold(keys)
        with paused(client, away):
            assert run_sync(told.take("", "a")) is None
        with told.outage.telling([]) as owed:
            assert sorted(owed) == sorted(key for key in keys if client.get_node_from_key(key) == away)
