"""How a SQL database is asked: which of its errors are conflicts, which outages, which the caller's; and its clock.

Outside of a transaction of the caller's::

    a conflict         repeated for `MULTISESSION_TIMEOUT` seconds: another transaction was faster
    a lock in vain     repeated once: somebody has held a lock for longer than the server lets others wait
    any other error    `EngineUnavailable`, as are those two in the end

Within one, conflicts and locks are the caller's, whose transaction is to be repeated as a whole, and so is what follows
from an error that the caller made before: the database's own error is raised. Any other is `EngineUnavailable`.
"""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.db import Error, connections
from django.db.transaction import TransactionManagementError

from .conf import conf
from .exceptions import EngineUnavailable
from .records import from_epoch, utcnow
from .twins import settle

Call = Callable[..., Any]

# PostgreSQL: serialization failure, deadlock. MySQL: deadlock; MariaDB: changed since the snapshot.
OVERTAKEN = {"40001", "40P01", 1213, 1020}
# MySQL: the time for a lock is over. PostgreSQL: the same, where the site has set lock_timeout.
IN_VAIN = {1205, "55P03"}
CALLERS = OVERTAKEN | IN_VAIN | {"25P02"}  # in a transaction; the last: it has failed before

# Milliseconds since 1970, now rather than at the beginning of the transaction.
CLOCKS = {
    "postgresql": "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint",
    "mysql": "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000",
    "oracle": "SELECT (CAST(SYS_EXTRACT_UTC(SYSTIMESTAMP) AS DATE) - DATE '1970-01-01') * 86400000 FROM DUAL",
}


def clock(alias: str) -> datetime:
    """Now in UTC by the clock of the database; SQLite has none but the host's. Raises `django.db.Error`."""
    connection = connections[alias]
    if connection.vendor not in CLOCKS:
        return utcnow()
    with connection.cursor() as cursor:
        cursor.execute(CLOCKS[connection.vendor])
        return from_epoch(int(cursor.fetchone()[0]))


async def asking(call: Call, alias: str, function: Call, *arguments: Any) -> Any:
    """What a function answers that asks the database; `call` runs it, directly or in Django's database thread.

    The function may be called again, so it must be one statement or one transaction.
    """
    return await settle(call(guarded, alias, function, *arguments))


def guarded(alias: str, function: Call, *arguments: Any) -> Any:
    until, waited = time.monotonic() + conf.TIMEOUT, False
    while True:
        try:
            return function(*arguments)
        except Error as error:
            codes = _codes(error)
            if in_transaction(alias):
                if isinstance(error, TransactionManagementError) or codes & CALLERS:
                    raise
                raise EngineUnavailable(f"Database: {error}") from error
            # Outside of a request nothing else would notice that the server hung up and open a new connection.
            connections[alias].close_if_unusable_or_obsolete()
            again = not waited if codes & IN_VAIN else codes & OVERTAKEN and time.monotonic() < until
            if not again:
                raise EngineUnavailable(f"Database: {error}") from error
            waited = waited or bool(codes & IN_VAIN)


def in_transaction(alias: str) -> bool:
    connection = connections[alias]
    return connection.in_atomic_block or not connection.autocommit


def _codes(error: Error) -> set[Any]:
    """The SQLSTATE of psycopg's or psycopg2's error, the number of MySQL's."""
    cause = error.__cause__
    return {getattr(cause, "sqlstate", None), getattr(cause, "pgcode", None), *error.args[:1]} - {None}
