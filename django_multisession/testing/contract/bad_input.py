"""Promise: whatever a browser or another program has written does no harm."""

import dataclasses
import json
import logging
from datetime import UTC, datetime

import pytest
from django.test import override_settings

from ...exceptions import SessionNotSerializable, SessionTooLarge
from ...records import identify
from ..stored import USER_ID, saved, stored

KEYS = {
    "empty": "",
    "short": "abc",
    "10 KB": "k" * 10240,
    "NUL": "abcdefgh\0ijkl",
    "non-ASCII": "schlüssel-鍵-🔑",
    "surrogate": "abcdefgh\udc80",
    "newline": "abcdefgh\r\nSET x y",
    "operator": '{"$ne": null}',
    "pattern": "session:*?[a-z]",
    "quote": "abcdefgh' OR '1'='1",
    "spaces": "        ",
}


class TestBadInput:
    """Promise 8: bad input is harmless."""

    @pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
    def test_odd_keys_miss(self, Store, face, key):
        saved(face, Store, a=1)
        assert face(Store(key)).load() == {}
        assert face(Store()).exists(key) is False
        face(Store()).delete(key)
        session = face(Store(key))
        session["b"] = 1
        session.save()
        assert session.session_key != key

    @pytest.mark.parametrize("harm", ["truncated", "flipped", "empty", "foreign", "other record's"])
    def test_an_unreadable_payload_is_an_empty_session_and_one_warning(self, Store, face, verbs, caplog, harm):
        key, other = saved(face, Store, a=1), saved(face, Store, a=2)
        record = verbs.read(identify(key))
        payload = {
            "truncated": record.payload[:-1],
            "flipped": record.payload[:-1] + bytes([record.payload[-1] ^ 1]),
            "empty": b"",
            "foreign": b"\x80\x04}\x94.",
            "other record's": verbs.read(identify(other)).payload,
        }[harm]
        verbs.replace(dataclasses.replace(record, payload=payload, version=record.version + 1))
        with caplog.at_level(logging.WARNING, logger="django.security.SuspiciousSession"):
            assert stored(face, Store, key) == {}
        [warning] = caplog.records
        assert warning.name == "django.security.SuspiciousSession"
        assert key not in warning.getMessage()

    def test_another_sites_payload_is_unreadable(self, Store, face):
        with override_settings(SECRET_KEY="another site's"):
            key = saved(face, Store, a=1)
        assert stored(face, Store, key) == {}

    def test_a_user_id_that_is_too_long_is_refused(self, Store, face, verbs):
        session = face(Store())
        session[USER_ID] = "u" * 256
        with pytest.raises(SessionNotSerializable, match="255 characters"):
            session.save()
        assert verbs.scan(None, 10) == []

    @pytest.mark.parametrize("user_id", ["nul\0", "half \ud800"])
    def test_a_user_id_that_no_store_takes_is_refused(self, Store, face, verbs, user_id):
        session = face(Store())
        session[USER_ID] = user_id
        with pytest.raises(SessionNotSerializable, match="surrogate"):
            session.save()
        assert verbs.scan(None, 10) == []

    def test_an_unreadable_session_can_be_used_again(self, Store, face):
        with override_settings(SECRET_KEY="another site's"):
            key = saved(face, Store, a=1)
        session = face(Store(key))
        session["b"] = 2
        session.save()
        assert stored(face, Store, session.session_key) == {"b": 2}

    def test_too_large_a_session_writes_nothing(self, Store, face):
        key = saved(face, Store, a=1)
        session = face(Store(key))
        session["noise"] = json.dumps([hash((n, "noise")) for n in range(500)])
        with override_settings(MULTISESSION_MAX_BYTES=1000), pytest.raises(SessionTooLarge) as caught:
            session.save()
        assert caught.value.limit == 1000
        assert caught.value.size > 1000
        assert stored(face, Store, key) == {"a": 1}
        with override_settings(MULTISESSION_MAX_BYTES=10), pytest.raises(SessionTooLarge):
            face(Store()).create()

    def test_a_value_that_does_not_serialize_is_named_and_writes_nothing(self, Store, face):
        key = saved(face, Store, a=1)
        session = face(Store(key))
        session["fine"] = 2
        session["when"] = datetime.now(UTC)
        with pytest.raises(SessionNotSerializable) as caught:
            session.save()
        assert caught.value.key == "when"
        assert "'when'" in str(caught.value)
        assert stored(face, Store, key) == {"a": 1}

    def test_a_failed_create_leaves_no_key_behind(self, Store, face, verbs):
        session = face(Store())
        session["when"] = datetime.now(UTC)
        with pytest.raises(SessionNotSerializable):
            session.save()
        assert session.session_key is None
        assert verbs.scan(None, 10) == []
