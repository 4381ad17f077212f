"""A small engine of its own: sessions in a file, by the sqlite3 of the standard library.

One row per session, and one statement per method of the storage; `RETURNING 1` answers whether a row was there.

The driver has no asynchronous client. So on the asynchronous side each statement runs in a thread; of the event loop
the engine knows nothing but that.
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterable
from datetime import datetime
from threading import Lock
from typing import Any

from django.conf import settings
from django.utils.functional import classproperty

from django_multisession.backends import base
from django_multisession.connections import Connections
from django_multisession.exceptions import EngineUnavailable
from django_multisession.records import Page, Record, epoch_now, from_epoch, to_epoch
from django_multisession.twins import settle

SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS session (
    id TEXT PRIMARY KEY,
    payload BLOB NOT NULL,
    user_id TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    version INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS session_user ON session (user_id, expires_at);
CREATE INDEX IF NOT EXISTS session_expiry ON session (expires_at);
"""

READ = "SELECT * FROM session WHERE id = ? AND expires_at > ?"
INSERT = "INSERT INTO session VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING 1"
REPLACE = """
UPDATE session SET payload = ?, user_id = ?, created_at = ?, updated_at = ?, expires_at = ?, version = ?
WHERE id = ? AND version = ? AND expires_at > ? RETURNING 1
"""
TOUCH = "UPDATE session SET expires_at = ?, updated_at = ? WHERE id = ? AND expires_at > ? RETURNING 1"
REMOVE = "DELETE FROM session WHERE id IN (SELECT value FROM json_each(?)) RETURNING 1"
OF_USER = "SELECT * FROM session WHERE user_id = ?"
SCAN = "SELECT * FROM session WHERE id > ? ORDER BY id LIMIT ?"
PURGE = """
DELETE FROM session WHERE id IN (SELECT id FROM session WHERE expires_at < ? ORDER BY expires_at LIMIT ?) RETURNING 1
"""


class FileStorage:
    """`call` runs a function: directly, or in a thread, and then what it gives is awaited."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call
        self.lock = Lock()  # of one connection: threads take turns
        self.connection = sqlite3.connect(settings.SESSIONS_FILE, isolation_level=None, check_same_thread=False)
        self.connection.executescript(SCHEMA)

    async def read(self, id: str) -> Record | None:
        rows = await self._ask(READ, id, epoch_now())
        return _record(*rows[0]) if rows else None

    async def insert(self, record: Record) -> bool:
        return bool(await self._ask(INSERT, record.id, *_values(record)))

    async def replace(self, record: Record) -> Record | None:
        if await self._ask(REPLACE, *_values(record), record.id, record.version - 1, epoch_now()):
            return record
        return await self.read(record.id)  # another version, or nothing

    async def touch(self, id: str, expires_at: datetime) -> bool:
        now = epoch_now()
        return bool(await self._ask(TOUCH, to_epoch(expires_at), now, id, now))

    async def remove(self, ids: Iterable[str]) -> int:
        return len(await self._ask(REMOVE, json.dumps(list(ids))))

    async def of_user(self, user_id: str) -> list[Record]:
        return [_record(*row) for row in await self._ask(OF_USER, user_id)]

    async def scan(self, after: str | None, limit: int) -> Page:
        records = [_record(*row) for row in await self._ask(SCAN, after or "", limit)]
        return Page(records, next=records[-1].id if len(records) == limit else None)

    async def purge(self, before: datetime, limit: int) -> int:
        return len(await self._ask(PURGE, to_epoch(before), limit))

    def close(self) -> None:
        self.connection.close()

    async def aclose(self) -> None:
        self.connection.close()

    async def _ask(self, statement: str, *parameters: Any) -> list[Any]:
        try:
            return await settle(self.call(self._execute, statement, parameters))
        except sqlite3.Error as error:
            raise EngineUnavailable(f"SQLite: {error}") from error

    def _execute(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        with self.lock:
            return self.connection.execute(statement, parameters).fetchall()


def _values(record: Record) -> tuple[Any, ...]:
    """The columns but the first."""
    times = map(to_epoch, (record.created_at, record.updated_at, record.expires_at))
    return record.payload, record.user_id, *times, record.version


def _record(
    id: str, payload: bytes, user_id: str | None, created: int, updated: int, expires: int, version: int
) -> Record:
    return Record(id, payload, user_id, from_epoch(created), from_epoch(updated), from_epoch(expires), version)


connections = Connections(
    lambda: FileStorage(lambda function, *arguments: function(*arguments)),
    lambda storage: FileStorage(asyncio.to_thread),
    settings={"SESSIONS_FILE"},
)


class SessionStore(base.SessionStore):
    @classproperty
    def storage(cls) -> FileStorage:
        return connections.sync()

    @classproperty
    def astorage(cls) -> FileStorage:
        return connections.running()
