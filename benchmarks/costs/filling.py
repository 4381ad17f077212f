"""Sessions by the thousand: made by the engine as requests would, stored many at a time."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from itertools import islice
from typing import Any

from benchmarks.engines import data
from django_multisession import engine
from django_multisession.twins import run_sync

BATCH = 500
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
    while data.size(found) < min(size, 1000) - 60:
        found.setdefault("cart", []).append(data._item(dice))
    if (room := size - data.size(found) - len(',"text":""')) > 0:
        found["text"] = "".join(dice.choices(LETTERS, k=room))
    return found


def records(users: Iterator[Any], size: int, expired: bool = False) -> Iterator[tuple[str, Any]]:
    """Keys and records, one for each user that comes."""
    store = engine.store()
    for number, user in enumerate(users):
        session = store()
        session.update(sized(number, user, size))
        run_sync(session._create(gathering := Gathering()))
        [record] = gathering.records
        if expired:
            record = _older(record, timedelta(days=30))
        yield session.session_key, record


def _older(record: Any, age: timedelta) -> Any:
    times = ("created_at", "updated_at", "expires_at")
    return replace(record, **{name: getattr(record, name) - age for name in times})


def fill(users: Iterator[Any], size: int, expired: bool = False) -> list[str]:
    """Store them, and answer their keys."""
    keys, found = [], records(users, size, expired)
    with asyncio.Runner() as runner:
        while batch := list(islice(found, BATCH)):
            keys += [key for key, _ in batch]
            runner.run(_store([record for _, record in batch]))
    return keys


async def _store(batch: list[Any]) -> None:
    if engine.kind() == "db":
        return await _rows(batch)
    storage = engine.store().astorage
    for start in range(0, len(batch), 50):
        await asyncio.gather(*map(storage.insert, batch[start : start + 50]))


async def _rows(batch: list[Any]) -> None:
    from django_multisession.models import Session

    rows = []
    for record in batch:
        values = asdict(record)
        rows.append(Session(session_id=values.pop("id"), data=values.pop("payload"), **values))
    await Session.objects.abulk_create(rows)
