"""What went wrong with a command, and what may be done: by what the server says, not by an error's class alone.

Redis before 7.0 wraps what a script's command is answered in words of its own, as an error of no class ("ERR Error
running script (call to f_...): @user_script: 30: -READONLY You can't write against a read only replica.").
"""

from typing import Any

import redis

from ...exceptions import EngineUnavailable

MISREAD = TypeError, ValueError, LookupError  # what redis-py raises for an answer of another shape
# What a primary says that is none any more: nothing was done, and a new connection may lead to the one that is.
DEMOTED = "READONLY ", "MASTERDOWN "


class Lost(Exception):
    """A command that must not come twice may have come: its answer is not known."""


class Impossible(EngineUnavailable):
    """What was answered is no answer to the question: it is one to another, or somebody else's data."""

    def __init__(self, message: str = "Redis has answered something else than was asked.") -> None:
        super().__init__(message)


def is_demoted(error: BaseException | None) -> bool:
    """Whether the connection leads to a replica. A Sentinel client makes a ConnectionError of it, in whose context it
    is."""
    if isinstance(error, redis.ConnectionError):
        return is_demoted(error.__context__)
    by_class = isinstance(error, redis.ReadOnlyError | redis.exceptions.MasterDownError)
    return by_class or (isinstance(error, redis.ResponseError) and any(word in str(error) for word in DEMOTED))


def is_unasked(error: Exception, command: str) -> bool:
    """Whether the error is one to another question: a script is unknown only to whoever has named one."""
    return isinstance(error, redis.exceptions.NoScriptError) and command != "EVALSHA"


def is_lost(error: Exception, connection: Any) -> bool:
    """Nobody knows what became of the command. A server that does not answer in time is an outage, unless the client is
    told to retry."""
    if isinstance(error, redis.BusyLoadingError) or is_demoted(error):
        return False
    if isinstance(error, redis.TimeoutError):
        return retries(connection) != 0
    return isinstance(error, redis.ConnectionError | Impossible)


def is_worth_another(error: Exception, connection: Any) -> bool:
    """Whether a new connection may do better."""
    others = redis.ConnectionError, *connection.retry_on_error
    return isinstance(error, others) or is_demoted(error) or is_lost(error, connection)


def retries(connection: Any) -> int:
    retry = connection.retry
    return int(retry.get_retries() if hasattr(retry, "get_retries") else retry._retries)  # redis-py before 6
