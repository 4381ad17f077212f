"""Sessions in MongoDB, through pymongo.

One document per session in the collection `MULTISESSION_MONGODB_COLLECTION`::

    {_id: <id>, data: <payload, BSON binary>, user_id: <string or null>, created_at: <date>, updated_at: <date>,
     expires_at: <date>, version: <int>}

    index    {expires_at: 1}, expireAfterSeconds: 0: the server removes what has expired, once a minute
    index    {user_id: 1, expires_at: 1}

    read     find_one {_id}, which the server need not plan; whether it has expired is asked here
    insert   insert_one
    replace  update_one {_id, version: <one less>, expires_at: {$gt: now}}; on a miss, read
    touch    update_one {_id, expires_at: {$gt: now}} {$set: {expires_at}}
    remove   delete, an entry {_id} with limit 1 for each id: what says {$in: [...]} the driver does not repeat when the
             primary moves, and a log-out would fail
    of_user  find {user_id}: all that is still there, whatever the caller's clock says of it
    scan     find {_id: {$gt: after}} by _id, likewise
    purge    find the ids of some {expires_at: {$lt: before}}, then delete likewise those that still are; never what the
             server's own clock does not call expired
    clock    hello, for its localTime

On shards the key is `{_id: "hashed"}`: all that a request sends names one whole `_id`, so one shard is asked. All are
by `of_user`, `scan` and `purge`.

`manage.py migrate` makes the collection's indexes. A process's first insert looks whether they are there, and its first
one a minute later and so on: whoever drops the collection drops them too, and nothing that is sent otherwise would
tell. It makes them in a small collection only; a build that takes its time is nothing for a log-in to wait for.

What the server sends is decoded document by document, by `_decoded()` and `_record()` alone: others may have written
what no date can say, or what is no BSON, and a driver that decodes whole batches would lose all the others with it.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import bson
import pymongo
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError, InvalidBSON
from bson.raw_bson import RawBSONDocument
from pymongo.errors import DuplicateKeyError, OperationFailure, PyMongoError

from ...conf import conf
from ...exceptions import EngineUnavailable, SessionTooLarge
from ...records import Page, Record, in_milliseconds, utcnow
from ...twins import settle
from .. import base
from .checks import MONGODB_DOCUMENT

INDEXES = [
    pymongo.IndexModel("expires_at", expireAfterSeconds=0),
    pymongo.IndexModel([("user_id", pymongo.ASCENDING), ("expires_at", pymongo.ASCENDING)]),
]
# In the order of Record, after the id.
FIELDS = {
    "data": bytes,
    "user_id": str | None,
    "created_at": datetime,
    "updated_at": datetime,
    "expires_at": datetime,
    "version": int,
}

ID = re.compile("[0-9a-f]{64}")
LAST_VERSION = 2**63 - 1  # BSON's largest whole number: what has it could not be saved any more
INDEXES_SEEN_FOR, REFUSAL_SEEN_FOR = 60, 3600  # seconds until a process looks at its collection's indexes again
SMALL = 1000  # documents, an index of which is made in milliseconds
BUILD_SECONDS = 24 * 60 * 60  # that `migrate` waits for an index of a large collection
NO_OPTIONS = {"v", "name", "ns", "background"}  # of an index: what says nothing of what it does

RECORDS = CodecOptions[Any](tz_aware=True, tzinfo=UTC)
# As it was sent, to be decoded one by one.
UNDECODED = CodecOptions(document_class=RawBSONDocument)
# A date that no datetime can say becomes a DatetimeMS, so at least the id can be told.
TOLERANT = RECORDS.with_options(datetime_conversion=DatetimeConversion.DATETIME_AUTO)

logger = logging.getLogger("django_multisession")


class MongoStorage:
    """Constructed with `pymongo.MongoClient` or `pymongo.AsyncMongoClient`, whose URI names a database.

    `indexed` says of each collection until when this process takes its indexes for made, by `time.monotonic()`.
    """

    expires_itself = True

    def __init__(self, client: Any, indexed: dict[str, float]) -> None:
        self.client = client
        self.indexed = indexed
        self._collections: dict[str, tuple[Any, Any]] = {}

    @property
    def collection(self) -> Any:
        """The primary's: a session just written must be found, whatever the URI prefers."""
        return self._collection()[0]

    @property
    def documents(self) -> Any:
        """The same, for what `_decoded()` decodes."""
        return self._collection()[1]

    def _collection(self) -> tuple[Any, Any]:
        name = conf.MONGODB_COLLECTION
        if name not in self._collections:
            found = self.client.get_default_database().get_collection(
                name, codec_options=RECORDS, read_preference=pymongo.ReadPreference.PRIMARY
            )
            self._collections[name] = found, found.with_options(codec_options=UNDECODED)
        return self._collections[name]

    async def read(self, id: str) -> Record | None:
        found = await self._ask(self.documents.find_one, {"_id": id})
        record = None if found is None else _record(_decoded(found))
        return record if record and record.is_live(utcnow()) else None

    async def insert(self, record: Record) -> bool:
        if time.monotonic() >= self.indexed.get(conf.MONGODB_COLLECTION, 0):
            await self.look_at_indexes()
        try:
            await self._ask(self.collection.insert_one, {"_id": record.id, **_fields(record)})
        except EngineUnavailable as refused:
            if _is_taken(refused.__cause__):
                return False
            raise
        return True

    async def replace(self, record: Record) -> Record | None:
        expected = _live(_id=record.id, version=record.version - 1)
        result = await self._ask(self.collection.update_one, expected, {"$set": _fields(record)})
        return record if result.matched_count else await self.read(record.id)

    async def touch(self, id: str, expires_at: datetime) -> bool:
        moved = {"expires_at": expires_at, "updated_at": utcnow()}
        result = await self._ask(self.collection.update_one, _live(_id=id), {"$set": moved})
        return bool(result.matched_count)

    async def remove(self, ids: Iterable[str]) -> int:
        return await self._delete([{"_id": id} for id in ids])

    async def _delete(self, each: list[dict[str, Any]]) -> int:
        if not each:
            return 0
        result = await self._ask(self.collection.bulk_write, list(map(pymongo.DeleteOne, each)), False)  # in any order
        return int(result.deleted_count)

    async def of_user(self, user_id: str) -> list[Record]:
        return [record for _, record in await self._find({"user_id": user_id}) if record]

    async def scan(self, after: str | None, limit: int) -> Page:
        found = await self._find({"_id": {"$gt": after or ""}}, sort=["_id"], limit=limit)
        records = [record for _, record in found if record]
        if len(found) < limit:
            return Page(records)
        known = [id for id, _ in found if isinstance(id, str)]
        # A page of documents that do not even tell their ids: a longer one has others.
        return Page(records, next=known[-1]) if known else await self.scan(after, 2 * limit)

    async def purge(self, before: datetime, limit: int) -> int:
        """Delete what the server's TTL monitor has not removed yet."""
        expired = {"expires_at": {"$lt": min(before, await self.clock() or before)}, "_id": {"$gt": ""}}
        found = self.documents.find(expired, {"_id": True}, limit=limit, sort=["expires_at"])
        decoded = map(_decoded, await self._ask(found.to_list))
        return await self._delete([{**expired, "_id": document["_id"]} for document in decoded if document])

    async def clock(self) -> datetime | None:
        """What the time is by the server's own clock; `None` if it does not say."""
        now = (await self._ask(self.client.admin.command, "hello")).get("localTime")
        return in_milliseconds(now if now.tzinfo else now.replace(tzinfo=UTC)) if isinstance(now, datetime) else None

    async def look_at_indexes(self) -> None:
        """Make those that are missing, if that is done at once, else say so in the log."""
        name = conf.MONGODB_COLLECTION
        try:
            missing = await self._missing_indexes()
            if missing and await self._ask(self.collection.estimated_document_count) > SMALL:
                logger.error("Indexes of MongoDB's collection %s are missing: run manage.py migrate.", name)
                self.indexed[name] = time.monotonic() + REFUSAL_SEEN_FOR
                return
        except EngineUnavailable as unavailable:
            if not isinstance(unavailable.__cause__, OperationFailure):
                raise
            missing = INDEXES  # it may not look; whether it may make them will be seen
        await self._make(missing)

    async def _missing_indexes(self) -> list[pymongo.IndexModel]:
        """An index that is being built is there: servers list it, and who asks for it once more waits for its end."""
        found = (await self._ask(self.collection.index_information)).values()
        there = [_meaning({**index, "key": dict(index["key"])}) for index in found]
        return [index for index in INDEXES if _meaning(index.document) not in there]

    async def ensure_indexes(self) -> None:
        """Make the indexes where they are missing, however long that takes."""
        with pymongo.timeout(BUILD_SECONDS):  # in place of the client's time-outs
            await self._make(INDEXES)

    async def _make(self, indexes: list[pymongo.IndexModel]) -> None:
        """Each by itself. What the server refuses is logged: sessions work without, but expired ones stay, or listing a
        user's is slow."""
        name, seen_for = conf.MONGODB_COLLECTION, INDEXES_SEEN_FOR
        for index in indexes:
            try:
                await self._ask(self.collection.create_indexes, [index])
            except EngineUnavailable as unavailable:
                if not isinstance(refusal := unavailable.__cause__, OperationFailure):
                    raise
                keys = dict(index.document["key"])
                logger.error("Could not make the index %s of MongoDB's collection %s: %s", keys, name, refusal)
                seen_for = REFUSAL_SEEN_FOR
        self.indexed[name] = time.monotonic() + seen_for

    def close(self) -> None:
        self.client.close()

    async def aclose(self) -> None:
        await self.client.aclose()

    async def _find(self, expected: dict[str, Any], **options: Any) -> list[tuple[Any, Record | None]]:
        """Ids and records; `None` for the id of what cannot be decoded, and for what is no record of ours."""
        found = await self._ask(self.documents.find(expected, **options).to_list)
        return [(document.get("_id"), _record(document)) for document in map(_decoded, found)]

    async def _ask(self, command: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await settle(command(*arguments))
        # The others are no PyMongoError: of what BSON cannot hold, and of answers that are none.
        except (PyMongoError, BSONError, OverflowError, UnicodeError) as error:
            raise EngineUnavailable(f"MongoDB: {error}") from error


def _is_taken(error: BaseException | None) -> bool:
    """Whether an insert was refused for its id, and not by a unique index that somebody else has made."""
    if not isinstance(error, DuplicateKeyError):
        return False
    details = error.details or {}
    return bool(details["keyPattern"] == {"_id": 1}) if "keyPattern" in details else " _id_ " in str(error)


def _meaning(index: Mapping[str, Any]) -> dict[str, Any]:
    """What an index has and does."""
    return {name: value for name, value in index.items() if name not in NO_OPTIONS}


def _live(**expected: Any) -> dict[str, Any]:
    """A filter that matches no expired document: the TTL monitor sweeps but once a minute."""
    return {**expected, "expires_at": {"$gt": utcnow()}}


def _fields(record: Record) -> dict[str, Any]:
    if (size := len(record.payload)) > MONGODB_DOCUMENT:  # MULTISESSION_MAX_BYTES may allow what MongoDB does not
        raise SessionTooLarge(size, MONGODB_DOCUMENT)
    return {
        "data": record.payload,
        "user_id": record.user_id,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "expires_at": record.expires_at,
        "version": record.version,
    }


def _decoded(document: RawBSONDocument) -> dict[str, Any]:
    """Empty if it is no BSON."""
    try:
        return bson.decode(document.raw, TOLERANT)
    except InvalidBSON as error:
        # So it calls whatever happens within; these say nothing of the bytes (of a MemoryError there is no text).
        if not (text := str(error)):
            raise MemoryError from error
        if text.startswith("maximum recursion depth exceeded"):
            raise RecursionError(text) from error
        return {}


def _record(document: dict[str, Any]) -> Record | None:
    """The record, whatever fields other tools have added; `None` and a warning if it is not what we write."""
    if not _is_ours(document):
        base.logger.warning("Session document corrupted (id %.100r).", document.get("_id", "unknown"))
        return None
    data, *others = (document[name] for name in FIELDS)
    return Record(document["_id"], data, *others)


def _is_ours(document: dict[str, Any]) -> bool:
    id, version = document.get("_id"), document.get("version")
    if not isinstance(id, str) or not ID.fullmatch(id) or isinstance(version, bool) or version == LAST_VERSION:
        return False
    return all(name in document and isinstance(document[name], kind) for name, kind in FIELDS.items())
