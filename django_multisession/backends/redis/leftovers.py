"""What the users' sets hold too much: members whose sessions have ended. `ask` sends many commands in one trip.

A removal names no user, and Redis expires no members of a set. So a member stays when its session is gone: until the
hour by which it would have expired, for a purge or the user's next log-in, or until there are so many that a list
removes them. Without the latter a list would take as long as all log-ins of the user in weeks.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from ...records import to_epoch
from . import answers as redis_answers
from .answers import HOUR, MEMBER_LENGTH
from .scripts import FORGET

MOST_GONE = 100  # members without a session that a list leaves where they are: no trip for a few
AT_ONCE = 1000  # members for one script, for which other clients wait

Ask = Callable[[Sequence[tuple[Any, ...]]], Awaitable[list[Any]]]


async def trim(ask: Ask, keys: Sequence[bytes], before: datetime, limit: int) -> int:
    """Remove at most `limit` members that expired before then."""
    until = f"({to_epoch(before) / HOUR}"
    found = await ask([("ZRANGE", key, "-inf", until, "BYSCORE", "LIMIT", 0, limit) for key in keys])
    removals = []
    for key, ids in zip(keys, found, strict=True):
        if ids := redis_answers.of_index(ids, key, [])[:limit]:
            removals.append(("ZREM", key, *ids))
            limit -= len(ids)
    return sum(await ask(removals))


async def forget(
    ask: Ask, user_key: str, key_of: Callable[[str], str], gone: set[bytes], members: Sequence[bytes]
) -> None:
    """Remove those that are gone. The last member stays: a set that is not there looks like an index that was lost."""
    ended = [each for each in members[:-1] if each in gone and len(each) == MEMBER_LENGTH]
    if len(ended) <= MOST_GONE:
        return
    parts = [ended[at : at + AT_ONCE] for at in range(0, len(ended), AT_ONCE)]
    keys = [[user_key, *(key_of(each.hex()) for each in part)] for part in parts]
    await ask([("EVAL", FORGET, len(of), *of, *part) for of, part in zip(keys, parts, strict=True)])
