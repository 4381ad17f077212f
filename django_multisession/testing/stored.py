"""Sessions and records for tests, and what the store holds of them."""

import dataclasses
from datetime import timedelta
from typing import Any

from ..records import Record, utcnow

KEY = "0123456789abcdef0123456789abcdef"
HOUR = timedelta(hours=1)
USER_ID = "_auth_user_id"


def saved(face: Any, Store: Any, **data: Any) -> str:
    """The key of a new session in the store."""
    session = face(Store())
    session.update(data)
    session.save()
    return str(session.session_key)


def stored(face: Any, Store: Any, key: str) -> dict[str, Any]:
    """What a new request with that cookie finds."""
    return dict(face(Store(key)).items())


def a_record(id: str = "a" * 64, **changes: Any) -> Record:
    now = utcnow()
    record = Record(
        id=id,
        payload=b"\x00payload\xff",
        user_id=None,
        created_at=now,
        updated_at=now,
        expires_at=now + HOUR,
        version=1,
    )
    return dataclasses.replace(record, **changes)


def untouched(touched: Record, before: Record, **changes: Any) -> Record:
    """The record with what a touch moves put back to what it was."""
    return dataclasses.replace(touched, **{"expires_at": before.expires_at, "updated_at": before.updated_at, **changes})


def close_connections() -> None:
    from django.db import connections

    connections.close_all()
