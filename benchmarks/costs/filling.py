"""Sessions by the thousand: made by the engine as requests would, stored many at a time."""

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from typing import Any

from django.db import connection

from benchmarks.engines import data
from django_multisession import engine
from django_multisession.backends.db.statements import FIELDS
from django_multisession.backends.mongodb.storage import _fields
from django_multisession.records import to_epoch
from django_multisession.twins import run_sync

BATCH = 500
DAYS, AGES = timedelta(days=13), 2**20  # of two weeks that a session lives; how many began one after the other in them
COPY = f"COPY django_multisession_session ({', '.join(FIELDS)}) FROM STDIN"
LETTERS = data.LETTERS + "+/"


class Gathering:
    """A storage that keeps what it is to insert, for somebody else to store."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    async def insert(self, record: Any) -> bool:
        self.records.append(record)
        return True


def sized(number: int, user: object, size: int) -> dict[str, Any]:
    """Of a signed-in user, so many bytes as JSON; a cart, and beyond 1 KB text that hardly compresses."""
    found = data.auth(0) | {"_auth_user_id": str(user), "visits": number}
    dice = random.Random(number)
    room = size - data.size(found) - len(',"cart":[]')
    while room > max(60, size - 940):
        found.setdefault("cart", []).append(item := data._item(dice))
        room -= data.size(item) + 1
    if (text := size - data.size(found) - len(',"text":""')) > 0:
        found["text"] = "".join(dice.choices(LETTERS, k=text))
    return found


def records(users: Iterator[Any], size: int, expired: bool = False) -> Iterator[tuple[str, Any]]:
    """Keys and records, one for each user that comes."""
    store = engine.store()
    for number, user in enumerate(users):
        session = store()
        session.update(sized(number, user, size))
        run_sync(session._create(gathering := Gathering()))
        age = DAYS * (AGES - number % AGES) / AGES + (timedelta(days=30) if expired else timedelta())
        yield session.session_key, _older(gathering.records[0], age)


def _older(record: Any, age: timedelta) -> Any:
    """Of those that begin in one millisecond each is opened by a list, which looks for copies: real ones seldom do."""
    times = ("created_at", "updated_at", "expires_at")
    return replace(record, **{name: getattr(record, name) - age for name in times})


def fill(users: Iterator[Any], size: int, expired: bool = False) -> list[str]:
    """Store them, and answer their keys."""
    keys, found = [], records(users, size, expired)
    store = {"db": _copy, "redis": _insert, "mongodb": _insert_many}[engine.kind()]
    while batch := list(islice(found, BATCH)):
        keys += [key for key, _ in batch]
        store([record for _, record in batch])
    return keys


def _insert(batch: list[Any]) -> None:
    storage = engine.store().storage
    for record in batch:
        run_sync(storage.insert(record))


def _insert_many(batch: list[Any]) -> None:
    storage = engine.store().storage
    run_sync(storage.look_at_indexes())
    storage.collection.insert_many([{"_id": record.id, **_fields(record)} for record in batch])


def _copy(batch: list[Any]) -> None:
    """PostgreSQL's COPY: a million rows by INSERT take longer than all that is measured with them."""
    with connection.cursor() as cursor, cursor.copy(COPY) as rows:
        for record in batch:
            times = map(to_epoch, (record.created_at, record.updated_at, record.expires_at))
            rows.write_row((record.id, record.payload, record.user_id, *times, record.version))
