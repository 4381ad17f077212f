"""How a SQL database is asked: which of its errors are conflicts, which outages, which the caller's; and its clock.

Outside of a transaction of the caller's::

    a conflict         repeated for `MULTISESSION_TIMEOUT` seconds: another transaction was faster
    a lock in vain     repeated once: somebody has held a lock for longer than the server lets others wait
    no primary         repeated once, on a new connection: the server takes no writes any more, so another one does
    any other error    `EngineUnavailable`, as are those in the end

Within one, conflicts and locks are the caller's, whose transaction is to be repeated as a whole, and so is what follows
from an error that the caller made before: the database's own error is raised. Any other is `EngineUnavailable`.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.db import Error, connections
from django.db.transaction import TransactionManagementError

from .conf import conf
from .exceptions import EngineUnavailable
from .records import epoch_now, from_epoch
from .twins import settle

Call = Callable[..., Any]

# PostgreSQL: serialization failure, deadlock. MySQL: deadlock; MariaDB: changed since the snapshot.
OVERTAKEN = {"40001", "40P01", 1213, 1020}
# MySQL: the time for a lock is over. PostgreSQL: the same, where the site has set lock_timeout.
IN_VAIN = {1205, "55P03"}
# A server that was demoted, and hung up on nobody. MySQL: --read-only, innodb_read_only.
DEMOTED = {"25006", 1290, 1836}
CALLERS = OVERTAKEN | IN_VAIN | {"25P02"}  # in a transaction; the last: it has failed before

# When the statement began, rather than its transaction, in milliseconds since 1970.
CLOCKS = {
    "postgresql": "(extract(epoch FROM statement_timestamp()) * 1000)::bigint",
    "mysql": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000",
    "oracle": "ROUND((CAST(SYS_EXTRACT_UTC(SYSTIMESTAMP) AS DATE) - DATE '1970-01-01') * 86400000)",
}


def clock(alias: str) -> datetime:
    """Now in UTC by the clock of the database; SQLite has none but the host's. Raises `django.db.Error`."""
    connection = connections[alias]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {clock_sql(alias)}{connection.features.bare_select_suffix}")
        return from_epoch(int(cursor.fetchone()[0]))


def clock_sql(alias: str) -> str:
    return CLOCKS.get(connections[alias].vendor) or str(epoch_now())


async def asking(call: Call, alias: str, function: Call, *arguments: Any) -> Any:
    """What a function answers that asks the database; `call` runs it, directly or in Django's database thread.

    The function may be called again, so it must be one statement or one transaction.
    """
    return await settle(call(guarded, alias, function, *arguments))


def guarded(alias: str, function: Call, *arguments: Any) -> Any:
    until, waited = time.monotonic() + conf.TIMEOUT, False
    while True:
        try:
            with _any_text(connections[alias]):
                return function(*arguments)
        except Error as error:
            found = codes(error)
            if in_transaction(alias):
                if isinstance(error, TransactionManagementError) or found & CALLERS:
                    raise
                raise EngineUnavailable(f"Database: {error}") from error
            _close_what_failed(connections[alias], found)
            once = bool(found & (IN_VAIN | DEMOTED))
            again = not waited if once else found & OVERTAKEN and time.monotonic() < until
            if not again:
                raise EngineUnavailable(f"Database: {error}") from error
            waited = waited or once


def _close_what_failed(connection: Any, found: set[Any]) -> None:
    """Outside of a request nothing else would notice that the server hung up and open a new connection. One that a
    conflict came by is in order, and closing it would cost the caller what belongs to it: locks, say."""
    if found & DEMOTED:  # all that a pool has kept are as stale
        connection.close()
        if getattr(connection, "pool", None):
            connection.close_pool()
    elif not found & (OVERTAKEN | IN_VAIN):
        connection.close_if_unusable_or_obsolete()


# By the id of sqlite3's connection: how many are at it, and what it made of text before. Threads may share one, as in
# Django's LiveServerTestCase on a database in memory: who came last must not take for its own what another has set.
_lenient: dict[int, tuple[int, Any]] = {}
_counting = threading.Lock()


@contextmanager
def _any_text(connection: Any) -> Iterator[None]:
    """SQLite keeps as text what is no UTF-8, for which its driver would refuse the whole answer."""
    if connection.vendor != "sqlite":
        yield
        return
    connection.ensure_connection()
    opened = connection.connection
    with _counting:
        users, before = _lenient.get(id(opened), (0, opened.text_factory))
        _lenient[id(opened)] = users + 1, before
        opened.text_factory = _leniently
    try:
        yield
    finally:
        with _counting:
            users, before = _lenient.pop(id(opened))
            if users > 1:
                _lenient[id(opened)] = users - 1, before
            else:
                opened.text_factory = before


def _leniently(text: bytes) -> str:
    return text.decode(errors="surrogateescape")


def in_transaction(alias: str) -> bool:
    connection = connections[alias]
    return connection.in_atomic_block or (connection.connection is not None and not connection.autocommit)


def call_first_after_commit(alias: str, function: Callable[[], object]) -> None:
    """Before the hooks of the site: one that fails keeps Django from calling those behind it, and one that starts a
    task, or another request, is to find everything told.

    In a `TestCase` last, since Django's `captureOnCommitCallbacks()` takes what is new to be at the end.
    """
    connection: Any = connections[alias]
    hook = set(connection.savepoint_ids), function, True
    connection.run_on_commit.insert(len(connection.run_on_commit) if is_test_case(alias) else 0, hook)


def is_test_case(alias: str) -> bool:
    """Whether a `TestCase` has its transaction around everything, which is never committed."""
    return any(block._from_testcase for block in connections[alias].atomic_blocks)  # type: ignore[attr-defined]


def codes(error: Error) -> set[Any]:
    """The SQLSTATE of psycopg's or psycopg2's error, the number of MySQL's."""
    cause = error.__cause__
    return {getattr(cause, "sqlstate", None), getattr(cause, "pgcode", None), *error.args[:1]} - {None}
