"""A serializer of the site that raises what it likes: a session that it cannot read stops no list, log-in or change."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings

from django_multisession import user_sessions
from django_multisession.payload import codecs
from django_multisession.testing.stored import a_record, saved

from ..browsers import AUTH, OURS, new_user
from ..conftest import ENGINES


@pytest.fixture(params=[*ENGINES, "cached_sqlite"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class NoToken(Exception):
    """As cryptography's InvalidToken, zlib.error or Django's own BadSignature: of no common class."""


class TimeIsUp(Exception):
    """As a time limit that fires in the midst of something, once."""


class Encrypting:
    times_up = 0

    def dumps(self, data: Any) -> bytes:
        return json.dumps(data).encode()

    def loads(self, body: bytes) -> Any:
        if self.times_up:
            type(self).times_up -= 1
            raise TimeIsUp
        if b"old key" in body:
            raise NoToken
        return json.loads(body)


@pytest.fixture(autouse=True)
def _serializer() -> Iterator[None]:
    with override_settings(SESSION_SERIALIZER=f"{__name__}.Encrypting", MIDDLEWARE=[OURS, AUTH]):
        yield


@pytest.fixture
def ann() -> Any:
    user = new_user("ann")
    yield user
    user.delete()


def test_a_session_that_cannot_be_read_is_listed_counted_and_ended(Store, face, verbs, ann):
    api, user_id = face.functions(user_sessions), str(ann.pk)
    saved(face, Store, _auth_user_id=user_id, written="with an old key")
    assert [each.ip for each in api.sessions_of(ann)] == [None]
    with override_settings(MULTISESSION_MAX_PER_USER=2):
        saved(face, Store, _auth_user_id=user_id)
    assert api.count(ann) == 2
    ann.set_password("another")
    face.run(ann.save)
    assert verbs.of_user(user_id) == []


def test_a_time_limit_passes(monkeypatch):
    record = a_record(payload=codecs.encode({"a": 1}, "a" * 64, Encrypting))
    assert codecs.data_of(record) == {"a": 1}
    monkeypatch.setattr(Encrypting, "times_up", 1)
    with pytest.raises(TimeIsUp):
        codecs.data_of(record)
    assert codecs.data_of(record) == {"a": 1}
