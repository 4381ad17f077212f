"""The contract of an engine's sessions, held in `move`, between engines of ours and from Django's own.

But for one promise: a key that was ended is not used again, since its mark has to keep what the old side may have of
it.
The contract of a storage is not asked of: it has no marks.
"""

from typing import Any

import pytest
from django.contrib.sessions.backends.base import CreateError

from django_multisession.backends import moving
from django_multisession.testing.contract import (  # noqa: F401
    TestASaveAsks,
    TestBadInput,
    TestDeletedStaysDeleted,
    TestDropIn,
    TestExpiry,
    TestRaces,
    TestUserLink,
)


@pytest.fixture(params=["ours", "db"])
def old_name(request):
    return request.param


@pytest.fixture(params=["memory", "redis", "sqlite"])
def new_name(request):
    return request.param


@pytest.fixture
def Store(site: Any) -> Any:
    return moving.SessionStore


class TestASaveThatAsks(TestASaveAsks):
    def test_created_deleted_saved(self, Store, face):
        session = face(Store("k" * 32))
        session.save(must_create=True)
        session.delete()
        with pytest.raises(CreateError):
            session.save(must_create=True)


del TestASaveAsks
