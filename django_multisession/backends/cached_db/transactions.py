"""What the caller's transaction means for the copies. All of it runs in the thread that has the connection.

A change that may yet be rolled back is a hook of the transaction, `Telling`. Django forgets the hooks of a savepoint or
of a transaction that is rolled back, and with its hook the change is out of `PENDING` as well: that holds them weakly.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import WeakValueDictionary

from django.db import connections, transaction

from ...databases import call_first_after_commit, in_transaction
from ...records import Record, epoch_now
from ...twins import run_sync
from ..db import statements
from .copies import Copies, Lease

EACH_ITS_SNAPSHOT = "read committed", "read uncommitted"  # statements, in PostgreSQL


class Telling:
    """Called after the commit: tells Redis of the sessions that have changed."""

    def __init__(self, key: int, ids: list[str], copies: Copies) -> None:
        self.ids, self.copies, self.key = ids, copies, key
        PENDING.update({(key, id): self for id in ids})

    def __call__(self) -> None:
        run_sync(self.copies.forget(self.ids))
        for id in self.ids:  # of this connection, which no other thread has
            PENDING.pop((self.key, id), None)


PENDING: WeakValueDictionary[tuple[int, str], Telling] = WeakValueDictionary()  # by connection and session


def has_changed(alias: str, id: str) -> bool:
    """Whether the open transaction has changed the session."""
    return (id_of(alias), id) in PENDING


def id_of(alias: str) -> int:
    return id(connections[alias])


@lru_cache
def place_everywhere(alias: str) -> str | None:
    """`place()` for all threads, or `None` where only the one that has the connection knows it."""
    return None if hasattr(connections[alias], "schema_name") else place(alias)


def place(alias: str) -> str:
    """What a copy is of: the database, and with django-tenants the schema, which its connections always have."""
    return f"{alias}.{getattr(connections[alias], 'schema_name', '')}"


def changing(
    alias: str, copies: Copies, later: bool, ids: list[str], function: Callable[..., Any], *arguments: Any
) -> Any:
    """Call the function, and tell Redis, also where it failed: an answer that was lost may have been of a change.

    `later`: only in a transaction. Outside of it nothing can have been copied.
    """
    try:
        return function(alias, *arguments)
    finally:
        if in_transaction(alias):
            _tell_after_commit(alias, copies, ids)
        elif not later:
            run_sync(copies.forget(ids))


def _tell_after_commit(alias: str, copies: Copies, ids: list[str]) -> None:
    if new := [id for id in ids if not has_changed(alias, id)]:
        call_first_after_commit(alias, Telling(id_of(alias), new, copies))
    if not _tells_of_commit(alias):
        run_sync(copies.forget(ids))


def _tells_of_commit(alias: str) -> bool:
    """Where a site has switched autocommit off Django calls hooks only when it is switched on again."""
    connection = connections[alias]
    return connection.in_atomic_block and connection.commit_on_exit


def read_and_copy(alias: str, copies: Copies, place: str, id: str, lease: Lease, later: bool = True) -> Record | None:
    """`later`: after the commit too, where the transaction keeps what it has read from being stored now."""
    rows, is_newest = _fetch(alias, id)
    record = statements.record_of(rows[0]) if rows else None
    if record is not None and not is_newest and later and _tells_of_commit(alias):
        transaction.on_commit(lambda: _copy(alias, id, copies), using=alias, robust=True)
    run_sync(copies.fill(place, lease, record) if record is not None and is_newest else copies.forget([id]))
    return record


def _fetch(alias: str, id: str) -> tuple[list[Any], bool]:
    """The row, and whether the database showed what is committed now: in a transaction it may be an older snapshot, or
    what another task has changed there since the caller has asked."""
    if not in_transaction(alias):
        return statements.fetch(alias, statements.read_sql, id, epoch_now()), True
    if connections[alias].vendor != "postgresql":
        return statements.fetch(alias, statements.read_sql, id, epoch_now()), False
    rows = statements.fetch(alias, _read_with_isolation_sql, id, epoch_now())
    is_newest = bool(rows) and rows[0][-1] in EACH_ITS_SNAPSHOT and not has_changed(alias, id)
    return [row[:-1] for row in rows], is_newest


@lru_cache
def _read_with_isolation_sql(alias: str, vendor: str) -> str:
    return statements.read_sql(alias, vendor).replace(" FROM ", ", current_setting('transaction_isolation') FROM ", 1)


def _copy(alias: str, id: str, copies: Copies) -> None:
    """After the commit: read what is newest now, and store the copy of that. Never later still: a test that calls the
    hooks within its transaction would call this one without an end."""
    where = place(alias)
    if isinstance(lease := run_sync(copies.take(where, id)), Lease):
        read_and_copy(alias, copies, where, id, lease, later=False)
