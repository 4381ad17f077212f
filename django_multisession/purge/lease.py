"""The lease on a table: of two purges one works, the other is told.

    PostgreSQL       SELECT pg_try_advisory_lock(hashtextextended(current_schema() || '.' || <table>, 0))
    MySQL, MariaDB   SELECT GET_LOCK('multisession:' || <SHA-1 of database and table>, 0); not on Galera, where such a
                     lock is of one node
    elsewhere        a row of `PurgeLease`: UPDATE ... WHERE name = %s AND expires_at < <its now>, else INSERT

A server frees its lock when the holder's connection ends, however that comes about. So whoever has another connection
by the next batch has to get it again. A row counts for a minute after it was renewed, so that much later than a
`kill -9` the next purge can start.

A pool within the process, as Django's of psycopg, keeps connections open that were closed, and their locks with them:
there it is a row, too.

Behind a pooler that hands out a connection per transaction PostgreSQL's lock would stay on a connection that is
another's by then, and nobody need have told that there is one. It is seen by the number of the server's process: libpq
was given one when it connected, which a pooler has made up. There it is a row, written under the lock of a transaction,
which looks for purges that are not behind the pooler; a purge within the caller's transaction takes that lock alone.
"""

import os
import time
from contextlib import suppress
from datetime import timedelta
from hashlib import sha1
from secrets import token_hex
from typing import Any

from django.apps import apps
from django.db import Error, IntegrityError, connections, router, transaction
from django.db.models.expressions import RawSQL

from ..databases import clock_sql, guarded, in_transaction
from ..exceptions import EngineUnavailable
from ..records import MILLISECOND, utcnow

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
        database = str(connections[self.alias].settings_dict["NAME"]), _schema(self.alias)
        self.key = os.getpid(), self.alias, *database, self.table
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
        with suppress(Error, EngineUnavailable):  # the connection is gone, and the lock with it; or the row expires
            guarded(self.alias, self.lock.release)


def _lock(lease: Lease) -> Any:
    vendor = connections[lease.alias].vendor
    if vendor == "postgresql":
        return PostgresLock(lease) if _is_direct(lease.alias) else PostgresRow(lease)
    return MySQLLock(lease) if vendor == "mysql" and not _is_galera(lease.alias) else Row(lease)


def _is_galera(alias: str) -> bool:
    with connections[alias].cursor() as cursor:
        cursor.execute("SHOW VARIABLES LIKE 'wsrep_on'")
        return "ON" in (cursor.fetchone() or ())


def _is_direct(alias: str) -> bool:
    """Whether no pooler is in between that may hand out another connection for the next statement."""
    connection = connections[alias]
    settings = connection.settings_dict
    if settings.get("DISABLE_SERVER_SIDE_CURSORS") or settings["OPTIONS"].get("pool"):  # the site says so
        return False
    of_server = _asked(alias, "SELECT pg_backend_pid()")
    return bool(connection.connection.info.backend_pid == of_server)


def _schema(alias: str) -> str:
    """Of a site with a schema for each tenant: theirs are different tables."""
    return str(_asked(alias, "SELECT current_schema()")) if connections[alias].vendor == "postgresql" else ""


def _asked(alias: str, statement: str, *parameters: str) -> Any:
    with connections[alias].cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchone()[0]


class ServerLock:
    """It goes with the connection, of which the next one has to get it anew."""

    def __init__(self, lease: Lease) -> None:
        self.alias, self.table = lease.alias, lease.table

    def acquire(self) -> bool:
        acquired = self.lock()
        self.connection = connections[self.alias].connection
        return acquired

    def renew(self) -> bool:
        return connections[self.alias].connection is self.connection or self.acquire()

    def lock(self) -> bool:
        raise NotImplementedError


class PostgresLock(ServerLock):
    def __init__(self, lease: Lease) -> None:
        super().__init__(lease)
        # Within the caller's transaction, until its end: the rows are not gone before, and a failed one cannot unlock.
        self.scope = "xact_" if in_transaction(lease.alias) else ""

    def lock(self) -> bool:
        return bool(_asked(self.alias, f"SELECT pg_try_advisory_{self.scope}lock({_KEY})", self.table))

    def release(self) -> None:
        if not self.scope:
            _asked(self.alias, f"SELECT pg_advisory_unlock({_KEY})", self.table)


class MySQLLock(ServerLock):
    """Its names are the server's, not the database's, and at most 64 characters long."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(lease)
        self.name = _name(str(connections[lease.alias].settings_dict["NAME"]), lease.table)

    def lock(self) -> bool:
        return bool(_asked(self.alias, "SELECT GET_LOCK(%s, 0)", self.name))

    def release(self) -> None:
        _asked(self.alias, "SELECT RELEASE_LOCK(%s)", self.name)


class Row:
    """In the database that the routers name for `PurgeLease`, whichever one is purged; by that one's clock."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.model: Any = apps.get_model("django_multisession", "PurgeLease")
        self.alias = router.db_for_write(self.model)
        self.name = _name(lease.alias, lease.table)

    def acquire(self) -> bool:
        if self._rows().filter(expires_at__lt=self._now()).update(**self._values()):
            return True
        try:
            with transaction.atomic(using=self.alias):
                self.model._base_manager.using(self.alias).create(name=self.name, **self._values())
        except IntegrityError:
            return False
        return True

    def renew(self) -> bool:
        if not self._is_due():
            return True
        return bool(self._rows().filter(holder=self.lease.holder).update(**self._values()))

    def _is_due(self) -> bool:
        """By either clock: one may be set back or stand still, the other does not go on while the host is suspended."""
        by_clock, monotonic = self.renewed
        return abs(utcnow() - by_clock) >= RENEWED or time.monotonic() - monotonic >= RENEWED.total_seconds()

    def release(self) -> None:
        self._rows().filter(holder=self.lease.holder)._raw_delete(self.alias)

    def _rows(self) -> Any:
        return self.model._base_manager.using(self.alias).filter(name=self.name)

    def _values(self) -> dict[str, object]:
        self.renewed = utcnow(), time.monotonic()
        return {"holder": self.lease.holder, "expires_at": self._now(self.lease.duration)}

    def _now(self, more: timedelta = timedelta(0)) -> Any:
        return RawSQL(f"{clock_sql(self.alias)} + {more // MILLISECOND}", [])  # noqa: S611  no input


class PostgresRow(Row):
    def __init__(self, lease: Lease) -> None:
        super().__init__(lease)
        if self.alias == lease.alias:  # whatever another site calls the database
            self.name = _name(_schema(lease.alias), lease.table)

    def acquire(self) -> bool:
        self.in_transaction = in_transaction(self.lease.alias)
        if self.in_transaction:
            return self._locked() and not self._rows().filter(expires_at__gte=self._now()).exists()
        with transaction.atomic(using=self.lease.alias):
            return self._locked() and super().acquire()

    def _locked(self) -> bool:
        """Until the end of the transaction: the rows are not gone before."""
        return bool(_asked(self.lease.alias, f"SELECT pg_try_advisory_xact_lock({_KEY})", self.lease.table))

    def renew(self) -> bool:
        return self.in_transaction or super().renew()

    def release(self) -> None:
        if not self.in_transaction:
            super().release()


def _name(database: str, table: str) -> str:
    return "multisession:" + sha1(f"{database}.{table}".encode(), usedforsecurity=False).hexdigest()
