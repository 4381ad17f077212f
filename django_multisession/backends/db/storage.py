"""Sessions in a SQL database, through Django's ORM: SQLite, PostgreSQL, MariaDB and MySQL.

One row per session in `django_multisession_session` (see `models.Session`); times are milliseconds since 1970::

    read     SELECT ... WHERE session_id = %s AND expires_at > %s
    insert   INSERT ... ON CONFLICT (session_id) DO NOTHING             (MySQL: INSERT; a duplicate id is an error)
    replace  UPDATE ... WHERE session_id = %s AND version = %s AND expires_at > %s; on a miss, read
    touch    UPDATE ... SET expires_at = %s, updated_at = %s WHERE session_id = %s AND expires_at > %s
    remove   DELETE ... WHERE session_id = %s           (of several: IN (...))
    of_user  SELECT ... WHERE user_id = %s AND expires_at > <the database's now> - <a day>
    scan     SELECT ... WHERE session_id > %s AND expires_at > <the same> ORDER BY session_id LIMIT
    purge    the first batch of a sweep: see `purge/sweep.py`

Each is a statement of its own in autocommit mode, or part of the transaction that the caller has open. The first five,
those of requests, are compiled by the ORM once per database and run many times, each by a cursor of its own: building a
queryset costs several times the query. All of them go to the database that the routers name for writes: a replica may
lag behind the log-in that was just saved.

A row that this engine cannot have written is no session, and a line in the log: see `COLUMNS`.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, cast

from ...databases import asking, clock, in_transaction
from ...records import Page, Record, epoch_now, to_epoch
from . import statements


class DbStorage:
    """`call` runs a function: directly, or for the async face in Django's database thread."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call

    async def read(self, id: str) -> Record | None:
        rows = await self._ask(statements.fetch, statements.read_sql, id, epoch_now())
        return statements.record_of(rows[0]) if rows else None

    async def read_newest(self, id: str) -> Record | None:
        """As `read()`, and within a transaction what others have committed since it began. No verb."""
        rows = await self._ask(statements.fetch_newest, id, epoch_now())
        return statements.record_of(rows[0]) if rows else None

    async def insert(self, record: Record) -> bool:
        return bool(await self._ask(statements.insert, record))

    async def replace(self, record: Record) -> Record | None:
        if await self._ask(statements.replace, record):
            return record
        rows = await self._ask(statements.fetch_newest, record.id, epoch_now())
        return statements.record_of(rows[0]) if rows else None

    async def touch(self, id: str, expires_at: datetime) -> bool:
        now = epoch_now()
        return bool(await self._ask(statements.execute, statements.touch_sql, to_epoch(expires_at), now, id, now))

    async def remove(self, ids: Iterable[str]) -> int:
        return int(await self._ask(statements.remove, list(ids)))

    async def of_user(self, user_id: str) -> list[Record]:
        """Those too that have expired less than a day ago. A fast host would miss some that are live, and what a slow
        one has stored is live there for hours after the database takes it to have expired."""
        # Compared once more: MySQL's usual collation takes "Ann" and "ann" for one user.
        return [record for record in await self._ask(statements.of_user, user_id) if record.user_id == user_id]

    async def scan(self, after: str | None, limit: int) -> Page:
        """As `of_user()`."""
        return Page(*await self._ask(statements.scan, after or "", limit))

    async def purge(self, before: datetime, limit: int) -> int:
        return int(await self._ask(statements.purge, before, limit))

    async def clock(self) -> datetime:
        """The database's now. No verb."""
        return cast(datetime, await self._ask(clock))

    async def after_commit(self, function: Callable[[], object]) -> bool:
        """Have a function called after the open transaction, unless it is rolled back; `False` where none is open."""
        return bool(await self._ask(statements.after_commit, function))

    async def in_transaction(self) -> bool:
        """Whether one of the caller's is open, as the thread knows that has the connection. No verb."""
        return bool(await self._ask(in_transaction))

    @property
    def model(self) -> Any:
        """What a purge sweeps instead of calling `purge()` in a loop: it resumes where the batch before ended."""
        return statements.session_model()

    def database(self) -> str:
        """The alias of the database. No verb."""
        return statements.database()

    async def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        alias = self.database()
        return await asking(self.call, alias, function, alias, *arguments)
