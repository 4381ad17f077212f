"""Copies in a cluster of Redis: each lies in a slot of its own."""

import pytest
from django.test import override_settings

from django_multisession import user_sessions
from django_multisession.backends.cached_db import copies
from django_multisession.records import identify
from django_multisession.testing.stored import saved
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
    return (client.get(copies._key(identify(key))) or b"")[:1] == copies.COPY


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
