"""The lease on a table: of two purges one works, the other is told.

    PostgreSQL       SELECT pg_try_advisory_lock(hashtextextended(current_schema() || '.' || <table>, 0))
    MySQL, MariaDB   SELECT GET_LOCK('multisession:' || <SHA-1 of database and table>, 0)
    elsewhere        a row of `PurgeLease`: UPDATE ... WHERE name = %s AND expires_at < <now>, else INSERT

A server frees its lock when the holder's connection ends, however that comes about. A row counts for a minute after it
was renewed, so that much later than a `kill -9` the next purge can start.
"""

import os
from contextlib import suppress
from datetime import timedelta
from hashlib import sha1
from secrets import token_hex
from typing import Any

from django.apps import apps
from django.db import Error, IntegrityError, connections, router, transaction

from .records import utcnow

SECONDS = 60.0
RENEWED = timedelta(seconds=15)  # not with each batch: that would be as many transactions again

_KEY = "hashtextextended(coalesce(current_schema(), '') || '.' || %s, 0)"

# An advisory lock lets its own connection in again, and the tasks of an event loop share one: so the process looks too.
_held: dict[tuple[object, ...], object] = {}


class Lease:
    """On `table` in the database `alias`; `pause` is how long its holder sleeps between two renewals, in seconds."""

    def __init__(self, alias: str, table: str, pause: float = 0) -> None:
        self.alias = alias
        self.table = table
        self.duration = timedelta(seconds=SECONDS + pause)
        self.holder = token_hex(16)

    def acquire(self) -> bool:
        """`False` if another purge has it."""
        # The process id: a child forked in the middle of a purge does not hold what its parent does.
        self.key = os.getpid(), self.alias, str(connections[self.alias].settings_dict["NAME"]), self.table
        if _held.setdefault(self.key, self) is not self:
            return False
        acquired = False
        try:
            self.lock = _lock(self)
            acquired = bool(self.lock.acquire())
        finally:
            if not acquired:
                del _held[self.key]
        return acquired

    def renew(self) -> bool:
        """`False` if it was lost: its holder had stopped for so long that another purge took over."""
        return bool(self.lock.renew())

    def release(self) -> None:
        _held.pop(self.key, None)
        with suppress(Error):  # the connection is gone, and the lock with it; or the row expires
            self.lock.release()


def _lock(lease: Lease) -> Any:
    connection = connections[lease.alias]
    if connection.vendor == "mysql":
        return MySQLLock(lease)
    # Sites behind a pooler that hands out a connection per transaction set this: a session's lock would leak there.
    if connection.vendor == "postgresql" and not connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"):
        return PostgresLock(lease)
    return Row(lease)


class Lock:
    """A lock of the server's, of this connection."""

    def __init__(self, lease: Lease) -> None:
        self.connection: Any = connections[lease.alias]
        self.table = lease.table

    def renew(self) -> bool:
        return True

    def _ask(self, statement: str, *parameters: object) -> Any:
        with self.connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchone()[0]


class PostgresLock(Lock):
    def acquire(self) -> bool:
        # Within the caller's transaction, until its end: the rows are not gone before, and a failed one cannot unlock.
        self.scope = "xact_" if self.connection.in_atomic_block else ""
        return bool(self._ask(f"SELECT pg_try_advisory_{self.scope}lock({_KEY})", self.table))

    def release(self) -> None:
        if not self.scope:
            self._ask(f"SELECT pg_advisory_unlock({_KEY})", self.table)


class MySQLLock(Lock):
    """Its names are the server's, not the database's, and at most 64 characters long."""

    def acquire(self) -> bool:
        return bool(self._ask("SELECT GET_LOCK(%s, 0)", self._name()))

    def release(self) -> None:
        self._ask("SELECT RELEASE_LOCK(%s)", self._name())

    def _name(self) -> str:
        return _name(str(self.connection.settings_dict["NAME"]), self.table)


class Row:
    """In the database that the routers name for `PurgeLease`, whichever one is purged."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.model: Any = apps.get_model("django_multisession", "PurgeLease")
        self.alias = router.db_for_write(self.model)
        self.name = _name(lease.alias, lease.table)

    def acquire(self) -> bool:
        if self._rows().filter(expires_at__lt=utcnow()).update(**self._values()):
            return True
        try:
            with transaction.atomic(using=self.alias):
                self.model._base_manager.using(self.alias).create(name=self.name, **self._values())
        except IntegrityError:
            return False
        return True

    def renew(self) -> bool:
        if utcnow() < self.renewed + RENEWED:
            return True
        return bool(self._rows().filter(holder=self.lease.holder).update(**self._values()))

    def release(self) -> None:
        self._rows().filter(holder=self.lease.holder)._raw_delete(self.alias)

    def _rows(self) -> Any:
        return self.model._base_manager.using(self.alias).filter(name=self.name)

    def _values(self) -> dict[str, object]:
        self.renewed = utcnow()
        return {"holder": self.lease.holder, "expires_at": self.renewed + self.lease.duration}


def _name(database: str, table: str) -> str:
    return "multisession:" + sha1(f"{database}.{table}".encode(), usedforsecurity=False).hexdigest()
