"""How many sessions a user may have: `MULTISESSION_MAX_PER_USER`, and what a log-in beyond it does.

It is asked after the session was stored and listed under its user, so of any log-ins that come together the last to
look sees all the others: no two can slip through. Who then goes is the same for all who look: the oldest log-in
(`created_at`, then the id).

    evict    remove all but the newest; the newest of all is in no one's way, so it is never removed
    refuse   go on if there are fewer others than the limit; else the own session goes. If it is among the oldest, the
             others may be log-ins that are about to refuse themselves: look again, for a while
"""

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from ..conf import conf, function
from ..exceptions import TooManySessions
from ..payload import codecs
from ..records import Record
from ..twins import Face, settle
from . import devices, listing

LOOKS, PAUSE = 25, 0.02  # times, seconds: half a second for others to give way
POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


async def surplus(face: Face, storage: Any, record: Record, user_id: str) -> list[Record]:
    """What a log-in evicts. Raises `TooManySessions` if it is refused, having removed its record."""
    if (limit := await _limit(face, record, user_id)) is None:
        return []
    if conf.ON_MAX == "refuse":
        await _admit(face, storage, record, user_id, limit)
        return []
    live = await _live(storage, user_id)
    return live[: max(0, len(live) - limit)]


async def _limit(face: Face, record: Record, user_id: str) -> int | None:
    limit = conf.MAX_PER_USER
    if limit is None or isinstance(limit, int):
        return limit
    ask = function(limit)
    arguments = (user_id, codecs.data_of(record)) if _takes_data(ask) else (user_id,)
    found: int | None = await settle(face.call(ask, *arguments))
    if found is not None and not isinstance(found, int):
        raise ImproperlyConfigured(f"MULTISESSION_MAX_PER_USER answered {found!r}: no number of sessions, nor None.")
    return found


def _takes_data(ask: Callable[..., Any]) -> bool:
    """Whether a second argument is wanted, not just possible: `lambda user_id, most=3` has ever been given one."""
    try:
        parameters = [each for each in signature(ask).parameters.values() if each.kind in POSITIONAL]
    except ValueError:  # some of C's
        return False
    return len(parameters) > 1 and (parameters[1].default is Parameter.empty or parameters[1].name == "data")


async def _admit(face: Face, storage: Any, record: Record, user_id: str, limit: int) -> None:
    ids: list[str] = []
    for _ in range(LOOKS):
        ids = [each.id for each in await _live(storage, user_id)]
        if len([id for id in ids if id != record.id]) < limit:
            return
        if record.id not in ids[:limit]:
            break
        await settle(face.sleep(PAUSE))
    await storage.remove([record.id])
    oldest = next((id for id in ids if id != record.id), None)
    raise TooManySessions(limit, user_id, listing.handle(oldest) if oldest else None)


async def _live(storage: Any, user_id: str) -> list[Record]:
    """The user's sessions, the oldest log-in first, but those in which somebody else looks in."""
    live = await listing.live(storage, await listing.of_user(storage, user_id))
    counted = [record for record in live if not devices.is_looked_into(record)]
    return sorted(counted, key=lambda record: (record.created_at, record.id))
