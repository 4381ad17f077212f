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
    of_user  find {user_id, expires_at: {$gt: now}}
    scan     find {_id: {$gt: after}, expires_at: {$gt: now}} by _id
    purge    find the ids of some {expires_at: {$lt: before}}, then delete_many those that still are

`manage.py migrate` makes the collection's indexes, and so does a process's first insert.
"""

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import classproperty
from django.utils.module_loading import import_string

from ..conf import conf
from ..connections import Connections
from ..exceptions import EngineUnavailable
from ..records import Page, Record, utcnow
from ..twins import run_sync, settle
from . import base

try:
    import pymongo
    from bson.codec_options import CodecOptions
    from pymongo.errors import ConfigurationError, DuplicateKeyError, OperationFailure, PyMongoError
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

logger = logging.getLogger("django_multisession")


class MongoStorage:
    """Constructed with `pymongo.MongoClient` or `pymongo.AsyncMongoClient`, whose URI names a database.

    `indexed` has the names of the collections whose indexes this process has seen to.
    """

    expires_itself = True

    def __init__(self, client: Any, indexed: set[str]) -> None:
        self.client = client
        self.indexed = indexed
        self._collections: dict[str, Any] = {}

    @property
    def collection(self) -> Any:
        """The primary's: a session just written must be found. Write concern is the URI's (MongoDB: majority)."""
        name = conf.MONGODB_COLLECTION
        if name not in self._collections:
            self._collections[name] = self.client.get_default_database().get_collection(
                name,
                codec_options=CodecOptions(tz_aware=True, tzinfo=UTC),
                read_preference=pymongo.ReadPreference.PRIMARY,
            )
        return self._collections[name]

    async def read(self, id: str) -> Record | None:
        record = _record(await self._ask(self.collection.find_one, {"_id": id}))
        return record if record and record.is_live(utcnow()) else None

    async def insert(self, record: Record) -> bool:
        if conf.MONGODB_COLLECTION not in self.indexed:
            await self.ensure_indexes()
        try:
            await self._ask(self.collection.insert_one, {"_id": record.id, **_fields(record)})
        except DuplicateKeyError:
            return False
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
        return await self._find(_live(user_id=user_id))

    async def scan(self, after: str | None, limit: int) -> Page:
        records = await self._find(_live(_id={"$gt": after or ""}), sort=["_id"], limit=limit)
        return Page(records, next=records[-1].id if len(records) == limit else None)

    async def purge(self, before: datetime, limit: int) -> int:
        """Delete what the server's TTL monitor has not removed yet."""
        expired = {"expires_at": {"$lt": before}}
        found = self.collection.find(expired, {"_id": True}, limit=limit, sort=["expires_at"])
        ids = [document["_id"] for document in await self._ask(found.to_list)]
        if not ids:
            return 0
        return int((await self._ask(self.collection.delete_many, {"_id": {"$in": ids}, **expired})).deleted_count)

    async def ensure_indexes(self) -> None:
        """Make the indexes where they are missing. A server that refuses is logged: sessions work without them,
        but expired ones stay and listing a user's is slow."""
        try:
            await self._ask(self.collection.create_indexes, INDEXES)
        except EngineUnavailable as unavailable:
            if not isinstance(unavailable.__cause__, OperationFailure):
                raise
            logger.error("Could not make the indexes of MongoDB's session collection: %s", unavailable.__cause__)
        self.indexed.add(conf.MONGODB_COLLECTION)

    def close(self) -> None:
        self.client.close()

    async def aclose(self) -> None:
        await self.client.aclose()

    async def _find(self, expected: dict[str, Any], **options: Any) -> list[Record]:
        documents = await self._ask(self.collection.find(expected, **options).to_list)
        return [record for document in documents if (record := _record(document))]

    async def _ask(self, command: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await settle(command(*arguments))
        except DuplicateKeyError:
            raise
        except PyMongoError as error:
            raise EngineUnavailable(f"MongoDB: {error}") from error


def _live(**expected: Any) -> dict[str, Any]:
    """A filter that matches no expired document: the TTL monitor sweeps but once a minute."""
    return {**expected, "expires_at": {"$gt": utcnow()}}


def _fields(record: Record) -> dict[str, Any]:
    return {
        "data": record.payload,
        "user_id": record.user_id,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "expires_at": record.expires_at,
        "version": record.version,
    }


def _record(document: dict[str, Any] | None) -> Record | None:
    """The record, whatever fields other tools have added; `None` and a warning if one of ours is not what we write."""
    if document is None:
        return None
    if not all(isinstance(document.get(name), kind) for name, kind in FIELDS.items()):
        base.logger.warning("Session document corrupted (id %s).", document["_id"])
        return None
    data, *others = (document[name] for name in FIELDS)
    return Record(document["_id"], data, *others)


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
    except (PyMongoError, AttributeError, ImportError, TypeError, ValueError) as error:
        raise ImproperlyConfigured(
            "MULTISESSION_MONGODB is neither a usable MongoDB URI nor the path of a function that returns a "
            f"client: {error}"
        ) from error
    if fault:
        client.close()
        raise ImproperlyConfigured(f"The URI of MULTISESSION_MONGODB {fault}")
    return MongoStorage(client, indexed=set())


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
