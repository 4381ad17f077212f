"""Sessions in a SQL database, as `backends.db` keeps them, and copies in Redis, from which they are read.

SQL is the authority; the copies may vanish at any time. Who misses leaves a *lease* in Redis, reads SQL, and stores its
copy only in the place of that lease. Who changes the row takes away what lies there, copy or lease, once the change is
committed. So no copy is ever stored of what has been changed since it was read, without clocks or tombstones::

    read     Redis: take. A copy: that is all. A lease: SQL: SELECT, then Redis: fill; if there is no row: forget
    insert   SQL: INSERT; of what was not there nothing can be copied
    replace  SQL: UPDATE; Redis: forget       (a conflict: also SQL: SELECT)
    touch    SQL: UPDATE; Redis: forget
    remove   SQL: DELETE; Redis: forget

`of_user`, `scan` and `purge` are SQL's. A change and the word of it are one function in one thread: a task that is
cancelled, as ASGI does where a browser hangs up, cannot come between them. So are the SELECT and the fill, since a
command over the asynchronous client takes longer.

In a transaction of the caller's a change is told after the commit, and until then whoever has made it reads SQL. A copy
is stored there only of what a statement with a snapshot of its own has seen (PostgreSQL in READ COMMITTED, which the
statement itself tells); anywhere else the session is read once more after the commit, and stored then.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, cast

from ...records import Record, epoch_now, to_epoch
from ..db import statements
from ..db.storage import DbStorage
from . import transactions
from .copies import Lease
from .signing import REFUSED


class CachedStorage(DbStorage):
    """A subclass says where the copies are: `copies` over the face's client, `told` over the process's own."""

    copies: Any
    told: Any

    async def read(self, id: str) -> Record | None:
        if transactions.PENDING and await self._ask(transactions.has_changed, id):
            return await super().read(id)
        copies = self.copies
        if (place := transactions.place_everywhere(self.database())) is None:
            place = await self._ask(transactions.place)
        found = await copies.take(place, id)
        if isinstance(found, Record):
            return found
        if isinstance(found, Lease):
            return cast(Record | None, await self._ask(transactions.read_and_copy, self.told, place, id, found))
        if found is REFUSED:
            await copies.forget([id])
        return await super().read(id)

    async def insert(self, record: Record) -> bool:
        return bool(await self._change([record.id], statements.insert, record, later=True))

    async def replace(self, record: Record) -> Record | None:
        if await self._change([record.id], statements.replace, record):
            return record
        return await self.read_newest(record.id)

    async def touch(self, id: str, expires_at: datetime) -> bool:
        now = epoch_now()
        values = to_epoch(expires_at), now, id, now
        return bool(await self._change([id], statements.execute, statements.touch_sql, *values))

    async def remove(self, ids: Iterable[str]) -> int:
        removed = list(ids)
        return int(await self._change(removed, statements.remove, removed)) if removed else 0

    async def _change(self, ids: list[str], function: Any, *arguments: Any, later: bool = False) -> Any:
        return await self._ask(transactions.changing, self.told, later, ids, function, *arguments)
