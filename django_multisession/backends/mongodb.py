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
    remove   delete_many {_id: {$in: [...]}}
    of_user  find {user_id}: all that is still there, whatever the caller's clock says of it
    scan     find {_id: {$gt: after}} by _id, likewise
    purge    find the ids of some {expires_at: {$lt: before}}, then delete_many those that still are; never what the
             server's own clock does not call expired
    clock    hello, for its localTime

`manage.py migrate` makes the collection's indexes, and so does a process's first insert, and its first one a minute
later and so on: whoever drops the collection drops them too, and nothing that is sent otherwise would tell.

What the server sends is decoded document by document, by `_decoded()` and `_record()` alone: others may have written
what no date can say, or what is no BSON, and a driver that decodes whole batches would lose all the others with it.
"""

import logging
import re
import socket
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import classproperty
from django.utils.module_loading import import_string

from ..checks import MONGODB_DOCUMENT
from ..conf import conf
from ..connections import Connections
from ..exceptions import EngineUnavailable, SessionTooLarge
from ..records import Page, Record, in_milliseconds, utcnow
from ..twins import run_sync, settle
from . import base

try:
    import bson
    import pymongo
    from bson.codec_options import CodecOptions, DatetimeConversion
    from bson.errors import BSONError, InvalidBSON
    from bson.raw_bson import RawBSONDocument
    from pymongo.errors import (
        ConfigurationError,
        ConnectionFailure,
        DuplicateKeyError,
        OperationFailure,
        PyMongoError,
    )
except ImportError as error:
    raise ImproperlyConfigured("This session engine needs: pip install django-multisession[mongodb].") from error

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
        """The primary's: a session just written must be found. Write concern is the URI's (MongoDB: majority)."""
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
            await self.ensure_indexes()
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
        return int((await self._ask(self.collection.delete_many, {"_id": {"$in": list(ids)}})).deleted_count)

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
        if not (ids := [document["_id"] for document in decoded if document]):
            return 0
        expired = {"_id": {"$in": ids}, "expires_at": expired["expires_at"]}
        return int((await self._ask(self.collection.delete_many, expired)).deleted_count)

    async def clock(self) -> datetime | None:
        """What the time is by the server's own clock; `None` if it does not say."""
        now = (await self._ask(self.client.admin.command, "hello")).get("localTime")
        return in_milliseconds(now if now.tzinfo else now.replace(tzinfo=UTC)) if isinstance(now, datetime) else None

    async def ensure_indexes(self) -> None:
        """Make the indexes where they are missing, each by itself. What the server refuses is logged: sessions work
        without, but expired ones stay, or listing a user's is slow."""
        name, seen_for = conf.MONGODB_COLLECTION, INDEXES_SEEN_FOR
        for index in INDEXES:
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


# Clients

# Options with which a URI says itself how long to wait; without any, MongoDB's driver waits for ever.
TIMEOUTS = ("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS")


def open_sync() -> MongoStorage:
    if not conf.MONGODB:
        raise ImproperlyConfigured(
            "Set MULTISESSION_MONGODB to a URI with a database, such as 'mongodb://localhost/mysite'."
        )
    try:
        client = _of_uri(conf.MONGODB) if "://" in conf.MONGODB else import_string(conf.MONGODB)()
        fault = _fault(client)
    except (PyMongoError, AttributeError, ImportError, TypeError, ValueError, OSError) as error:
        if _is_outage(error):
            raise EngineUnavailable(f"MongoDB: {error}") from error
        raise ImproperlyConfigured(
            "MULTISESSION_MONGODB is neither a usable MongoDB URI nor the path of a function that returns a "
            f"client: {error}"
        ) from error
    if fault:
        client.close()
        raise ImproperlyConfigured(f"The URI of MULTISESSION_MONGODB {fault}")
    return MongoStorage(client, indexed={})


OUTAGES = (ConnectionFailure, OperationFailure, ConnectionError, TimeoutError, socket.gaierror)


def _is_outage(error: Exception) -> bool:
    """Whether no client could be made for what may pass, so that the next use is to try again."""
    # What a name server does not answer to a mongodb+srv:// URI, PyMongo calls a mistake in that.
    of_dns = type(error.__cause__).__module__ in ("dns.resolver", "dns.exception")
    return isinstance(error, OUTAGES) or (isinstance(error, ConfigurationError) and of_dns)


def _of_uri(uri: str) -> Any:
    said = {name.lower() for name, _ in parse_qsl(urlsplit(uri).query)}
    options: dict[str, Any] = {
        name: int(conf.TIMEOUT * 1000) for name in TIMEOUTS if not {name.lower(), "timeoutms"} & said
    }
    return pymongo.MongoClient(uri, **options)


def _fault(client: Any) -> str | None:
    try:
        client.get_default_database()
    except ConfigurationError:
        return "must name a database, as in 'mongodb://localhost/mysite'."
    return None if client.write_concern.acknowledged else "has w=0: a save must know whether it happened."


def open_async(storage: MongoStorage) -> MongoStorage:
    """Over an asynchronous client made with the arguments of the synchronous one."""
    return MongoStorage(pymongo.AsyncMongoClient(**storage.client._init_kwargs), storage.indexed)


connections = Connections(open_sync, open_async, settings={"MULTISESSION_MONGODB", "MULTISESSION_TIMEOUT"})


def make_indexes() -> None:
    """Make the collection's indexes. An outage is logged: the first insert tries again."""
    try:
        run_sync(connections.sync().ensure_indexes())
    except EngineUnavailable as unavailable:
        logger.error("The indexes of the session collection are not made yet. %s", unavailable)


class SessionStore(base.SessionStore):
    """`SESSION_ENGINE = "django_multisession.backends.mongodb"`"""

    @classproperty
    def storage(cls) -> MongoStorage:
        return connections.sync()

    @classproperty
    def astorage(cls) -> MongoStorage:
        return connections.running()
