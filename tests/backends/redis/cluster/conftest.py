from contextlib import suppress

import pytest
from django.test import override_settings

from django_multisession.backends.redis import SessionStore
from django_multisession.twins import run_sync
from tests import servers


@pytest.fixture
def cluster():
    """The nodes, as the suite's other servers."""
    return servers.cluster()


@pytest.fixture
def engine_name():
    return "redis"


@pytest.fixture
def Store(cluster):
    with override_settings(SESSION_ENGINE="django_multisession.backends.redis", MULTISESSION_REDIS=cluster.url):
        empty(SessionStore)
        yield SessionStore
        with suppress(Exception):  # of a cluster that the test has broken
            SessionStore.storage.client.flushall(target_nodes="primaries")


def empty(store):
    store.storage.client.flushall(target_nodes="primaries")
    store.storage._is_marked = False
    run_sync(store.storage._mark_if_empty())


@pytest.fixture
def client(Store):
    return Store.storage.client
