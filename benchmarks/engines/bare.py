"""The bare driver calls that everything else is compared with: no Django, no serializing, no checks.

    redis     GET; SET PXAT; SET NX PXAT; DEL                             redis-py with hiredis
    postgres  SELECT data WHERE id AND expires_at; UPDATE; INSERT; DELETE  psycopg 3, prepared, binary, autocommit
    sqlite    the same                                                     sqlite3, autocommit
    mongodb   find_one; update_one; insert_one; delete_one by _id          pymongo

A row or document has an id, the bytes of the session as JSON, and an expiry.
"""

import asyncio
import sqlite3
import time
from itertools import count
from typing import Any

from benchmarks.engines import data

TWO_WEEKS = 14 * 24 * 3600 * 1000  # milliseconds
NOW = int(time.time() * 1000)
LATER = NOW + TWO_WEEKS

SMALL = data.as_json(data.signed_in(1))
ANONYMOUS = data.as_json(data.visitor(1))
LARGE = data.as_json(data.large(1))


class Workloads:
    """The workloads over four calls, which a driver's subclass makes: `get`, `put`, `add`, `drop`."""

    names = ("read", "write", "create", "create signed in", "sliding", "64 KB", "async", "log-in")

    def __init__(self, addresses: dict[str, Any], runner: asyncio.Runner) -> None:
        self.runner = runner
        self.fresh = (f"fresh{number:027}" for number in count())
        self.prepared = False
        self.open(addresses)

    def prepare(self) -> None:
        for number in range(data.CONCURRENT):
            self.add(key(number), SMALL)
        self.add("large", LARGE)
        self.prepared = True

    def start(self, workload: str, calls: int) -> Any:
        if not self.prepared:
            self.prepare()
        if workload == "log-in":
            for number in range(calls):
                self.drop(f"visitor{number}")
                self.add(f"visitor{number}", ANONYMOUS)
        return {
            "read": lambda number: self.get(key(1)),
            "write": lambda number: (self.get(key(1)), self.put(key(1), SMALL)),
            "create": lambda number: self.add(next(self.fresh), ANONYMOUS),
            "create signed in": lambda number: self.add(next(self.fresh), SMALL),
            "sliding": lambda number: self.get(key(1)),
            "64 KB": lambda number: (self.get("large"), self.put("large", LARGE)),
            "async": lambda number: self.runner.run(self.gather()),
            "log-in": self.log_in,
        }[workload]

    def fill(self, sessions: int) -> None:
        for _ in range(sessions):
            self.add(next(self.fresh), SMALL)

    def table(self) -> dict[str, Any]:
        return {"table": "bare", "key": "id", "expiry": "expires_at", "columns": ["id", "data", "expires_at"]}

    def log_in(self, number: int) -> None:
        """The visitor's session is read, copied under a new key, deleted, and saved with the user."""
        new, old = next(self.fresh), f"visitor{number}"
        self.get(old)
        self.add(new, ANONYMOUS)
        self.drop(old)
        self.put(new, SMALL)

    async def gather(self) -> None:
        await asyncio.gather(*(self.awrite(key(number)) for number in range(data.CONCURRENT)))


def key(number: int) -> str:
    return f"session{number:025}"


class Redis(Workloads):
    def open(self, addresses: dict[str, Any]) -> None:
        import redis
        import redis.asyncio

        self.client = redis.Redis.from_url(addresses["redis"])
        self.aclient = redis.asyncio.Redis.from_url(addresses["redis"])

    def get(self, id: str) -> Any:
        return self.client.get(id)

    def put(self, id: str, payload: bytes) -> None:
        self.client.set(id, payload, pxat=LATER)

    def add(self, id: str, payload: bytes) -> None:
        self.client.set(id, payload, nx=True, pxat=LATER)

    def drop(self, id: str) -> None:
        self.client.delete(id)

    async def awrite(self, id: str) -> None:
        await self.aclient.get(id)
        await self.aclient.set(id, SMALL, pxat=LATER)


READ = "SELECT data FROM bare WHERE id = {0} AND expires_at > {0}"
UPDATE = "UPDATE bare SET data = {0}, expires_at = {0} WHERE id = {0}"
INSERT = "INSERT INTO bare (id, data, expires_at) VALUES ({0}, {0}, {0})"
DELETE = "DELETE FROM bare WHERE id = {0}"


class Postgres(Workloads):
    read, update, insert, delete = (each.format("%s") for each in (READ, UPDATE, INSERT, DELETE))

    def open(self, addresses: dict[str, Any]) -> None:
        import psycopg

        self.connection = psycopg.connect(addresses["postgres"], autocommit=True)
        self.cursor = self.connection.cursor(binary=True)
        self.cursor.execute("CREATE TABLE bare (id varchar(40) PRIMARY KEY, data bytea, expires_at bigint NOT NULL)")
        self.cursor.execute("CREATE INDEX ON bare (expires_at)")
        self.aconnection = self.runner.run(psycopg.AsyncConnection.connect(addresses["postgres"], autocommit=True))

    def get(self, id: str) -> Any:
        return self.cursor.execute(self.read, (id, NOW), prepare=True).fetchone()

    def put(self, id: str, payload: bytes) -> None:
        self.cursor.execute(self.update, (payload, LATER, id), prepare=True)

    def add(self, id: str, payload: bytes) -> None:
        self.cursor.execute(self.insert, (id, payload, LATER), prepare=True)

    def drop(self, id: str) -> None:
        self.cursor.execute(self.delete, (id,), prepare=True)

    async def awrite(self, id: str) -> None:
        async with self.aconnection.cursor(binary=True) as cursor:
            await (await cursor.execute(self.read, (id, NOW), prepare=True)).fetchone()
            await cursor.execute(self.update, (SMALL, LATER, id), prepare=True)


class SQLite(Workloads):
    """sqlite3 has no asynchronous client: "async" is the same 50 pairs of calls, one after the other."""

    read, update, insert, delete = (each.format("?") for each in (READ, UPDATE, INSERT, DELETE))

    def open(self, addresses: dict[str, Any]) -> None:
        self.connection = sqlite3.connect(addresses["sqlite"], isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("CREATE TABLE bare (id varchar(40) PRIMARY KEY, data blob, expires_at bigint NOT NULL)")
        self.connection.execute("CREATE INDEX bare_expiry ON bare (expires_at)")

    def get(self, id: str) -> Any:
        return self.connection.execute(self.read, (id, NOW)).fetchone()

    def put(self, id: str, payload: bytes) -> None:
        self.connection.execute(self.update, (payload, LATER, id))

    def add(self, id: str, payload: bytes) -> None:
        self.connection.execute(self.insert, (id, payload, LATER))

    def drop(self, id: str) -> None:
        self.connection.execute(self.delete, (id,))

    async def awrite(self, id: str) -> None:
        self.get(id)
        self.put(id, SMALL)


class MongoDB(Workloads):
    def open(self, addresses: dict[str, Any]) -> None:
        import pymongo

        self.collection = pymongo.MongoClient(addresses["mongodb"]).get_default_database()["bare"]
        self.collection.create_index("expires_at", expireAfterSeconds=0)
        self.acollection = pymongo.AsyncMongoClient(addresses["mongodb"]).get_default_database()["bare"]
        self.later = data.BEGIN.replace(year=data.BEGIN.year + 50)

    def get(self, id: str) -> Any:
        return self.collection.find_one({"_id": id, "expires_at": {"$gt": data.BEGIN}})

    def put(self, id: str, payload: bytes) -> None:
        self.collection.update_one({"_id": id}, self._set(payload))

    def add(self, id: str, payload: bytes) -> None:
        self.collection.insert_one({"_id": id, **self._set(payload)["$set"]})

    def drop(self, id: str) -> None:
        self.collection.delete_one({"_id": id})

    async def awrite(self, id: str) -> None:
        await self.acollection.find_one({"_id": id, "expires_at": {"$gt": data.BEGIN}})
        await self.acollection.update_one({"_id": id}, self._set(SMALL))

    def _set(self, payload: bytes) -> dict[str, Any]:
        return {"$set": {"data": payload, "expires_at": self.later}}


WORKLOADS = {"redis": Redis, "postgres": Postgres, "sqlite": SQLite, "mongodb": MongoDB}
