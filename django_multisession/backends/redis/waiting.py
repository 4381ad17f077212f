"""`MULTISESSION_REDIS_WAIT`: a write counts when so many replicas have it.

Redis replicates after it has answered: a primary that dies takes along what nobody had by then, a log-out among it.
WAIT is sent behind the write over the same connection, since it asks for the writes of its own connection alone. That
the replicas were told in time makes a loss less likely, not impossible: Redis stays asynchronous.
"""

from collections.abc import Callable
from typing import Any

import redis

from ...conf import conf
from ...exceptions import EngineUnavailable
from .failures import MISREAD, Impossible, Lost

SHARE = 500  # milliseconds of each second of MULTISESSION_TIMEOUT: the socket gives up after the whole


class NotReplicated(EngineUnavailable):
    """It is done on the primary, and not known to be on as many replicas."""

    def __init__(self) -> None:
        super().__init__(f"Redis: done on the primary, but not on {conf.REDIS_WAIT} replicas within the time-out.")


async def execute(commands: Any, command: tuple[Any, ...], meaning: Callable[[Any], Any], once: bool) -> Any:
    """As `commands.execute()`. Raises `NotReplicated`."""
    try:
        return await _replicated(commands, command, meaning, once)
    except (redis.ConnectionError, Impossible, *MISREAD) as error:
        await commands.refresh()
        if once:
            raise Lost from error
    try:
        return await _replicated(commands, command, meaning, once)
    except MISREAD as error:
        raise Impossible from error


async def _replicated(commands: Any, command: tuple[Any, ...], meaning: Callable[[Any], Any], once: bool) -> Any:
    wait = "WAIT", conf.REDIS_WAIT, int(conf.TIMEOUT * SHARE)
    answer, reached = await commands.together([command, wait], once)
    if isinstance(answer, Exception):
        raise answer
    found = meaning(answer)
    if isinstance(reached, Exception) and _has_written(answer):  # WAIT was refused
        raise NotReplicated from reached
    if _has_written(answer) and reached < conf.REDIS_WAIT:
        raise NotReplicated
    return found


def _has_written(answer: Any) -> bool:
    """Whether an insert, replace, removal or listing has changed anything: else there is nothing to wait for."""
    if isinstance(answer, list):
        return bool(answer[0])
    return answer == b"OK" or (isinstance(answer, int) and answer > 0)
