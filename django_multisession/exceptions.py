"""What can go wrong, as a tree::

    MultisessionError
    ├── EngineUnavailable          the server did not do its part; nothing is known to be lost
    ├── SessionTooLarge            refused before anything was written
    ├── SessionNotSerializable     refused before anything was written (also a TypeError, as Django raises)
    ├── SessionEnded               deleted by another request (an UpdateError; in a view a 400)
    ├── SessionConflict            another request has saved meanwhile, and MULTISESSION_ON_CONFLICT is "raise"
    ├── TooManySessions            a log-in beyond MULTISESSION_MAX_PER_USER (a PermissionDenied; in a view a 403)
    ├── InvalidOption              an option of the purge that is wrong, or that the table cannot serve (a ValueError)
    └── PayloadUnreadable          tampered with, truncated, foreign; loads as an empty session

`CreateError` and `UpdateError` are Django's own, from `django.contrib.sessions.backends.base`.
"""

from importlib import import_module
from typing import Any

from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.core.exceptions import ImproperlyConfigured, PermissionDenied


class MultisessionError(Exception):
    """Base class of the package's errors."""


class EngineUnavailable(MultisessionError):
    """The session server failed or could not be reached; the driver's error is the `__cause__`.

    It is never turned into an empty session (Django would delete the cookie and log the user out) nor into
    `UpdateError` (Django would answer "session was deleted").
    """


class SessionTooLarge(MultisessionError):
    """The encoded session has `size` bytes, over the `limit` of `MULTISESSION_MAX_BYTES`. What was stored stays.

    Or it has more than 16 times as many before compression: it would take that much memory in each request.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"The session takes {self.size:,} bytes, over the limit of {self.limit:,}. Nothing was written. "
            "Keep less in the session or raise MULTISESSION_MAX_BYTES."
        )


class SessionNotSerializable(MultisessionError, TypeError):
    """`SESSION_SERIALIZER` cannot take the value under `key`, a key of the session's data. What was stored stays.

    `key` is `None` where no single value is to blame.
    """

    def __init__(self, key: object) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        culprit = "session" if self.key is None else f"session value under {self.key!r}"
        return (
            f"The {culprit} cannot be serialized ({self.__cause__}). Nothing was written. "
            "Store plain data, or set a SESSION_SERIALIZER that takes this type."
        )


class SessionEnded(MultisessionError, UpdateError, SessionInterrupted):
    """The session is gone, or is another user's by now: someone has signed out, or in, meanwhile. Nothing was saved.

    Django's middleware answers 400 to an `UpdateError` at the end of a request; `SessionInterrupted` makes it answer
    the same to one that a view raises.
    """


class SessionConflict(MultisessionError):
    """Another request has saved the session since it was loaded. Nothing was written.

    `ours` is this request's data, `stored` that of the store. Raised with `MULTISESSION_ON_CONFLICT = "raise"`, and
    by any setting when every one of many attempts to save was overtaken.
    """

    def __init__(self, ours: dict[str, Any], stored: dict[str, Any], attempts: int = 1) -> None:
        times = "" if attempts == 1 else f", at each of {attempts} attempts to save it"
        # Of the data itself nothing: error reports print what an exception was made with.
        super().__init__(f"The session was changed by another request{times}. Nothing was written.")
        self.ours = ours
        self.stored = stored
        self.attempts = attempts


class TooManySessions(MultisessionError, PermissionDenied):
    """The log-in was refused, and its session is gone: the user has `limit` others (`MULTISESSION_MAX_PER_USER`).

    `oldest` is the `UserSession.id` of the one that has been there for longest, of the user `user_id`.
    """

    def __init__(self, limit: int, user_id: str | None = None, oldest: str | None = None) -> None:
        super().__init__(limit)
        self.limit = limit
        self.user_id = user_id
        self.oldest = oldest

    def __str__(self) -> str:
        return f"Signed in {self.limit} times already: no more are allowed. Sign out elsewhere first."


class PayloadUnreadable(MultisessionError):
    """A stored payload is not what this site wrote for this session: `reason` says which check failed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class InvalidOption(MultisessionError, ValueError):
    """The purge cannot use `value` for the option `name`, or as this host's clock; `advice` says what it takes."""

    def __init__(self, name: str, value: object, advice: str) -> None:
        super().__init__(name, value, advice)
        self.name = name
        self.value = value
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.name} is {self.value!r}: {self.advice}"


def driver_missing(error: ImportError, extra: str, **needed: str) -> ImproperlyConfigured:
    """What an engine raises whose driver cannot be imported, be it missing or too old.

    `needed` are the modules of `extra` and the oldest release of each.
    """
    versions = [f"{module} {version} or newer ({_installed(module)})" for module, version in needed.items()]
    return ImproperlyConfigured(
        f"This session engine cannot be imported: {error}. It needs {' and '.join(versions)}: "
        f"pip install 'django-multisession[{extra}]'."
    )


def _installed(module: str) -> str:
    try:
        found = import_module(module)
    except ImportError:
        return "not installed"
    version = getattr(found, "__version__", None) or getattr(found, "version", "some release")
    return f"there is {version}"
