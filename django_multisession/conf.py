"""Every `MULTISESSION_*` setting: name, default, one line of meaning.

Read at access time (`conf.MAX_BYTES` reads `settings.MULTISESSION_MAX_BYTES`), so `override_settings` works.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .durations import LONGEST, Duration, as_seconds
from .exceptions import InvalidOption

T = TypeVar("T")


def secret_key() -> str | bytes:
    """`SECRET_KEY`, from where Django keeps what was asked for: each session's signature needs it."""
    known: dict[str, Any] = object.__getattribute__(settings, "__dict__")
    return known.get("SECRET_KEY") or settings.SECRET_KEY


class Setting(Generic[T]):
    """A descriptor: the setting's value, or its default where the site sets nothing."""

    def __init__(self, default: T, meaning: str) -> None:
        self.default = default
        self.meaning = meaning

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = f"MULTISESSION_{name}"

    def __get__(self, instance: object, owner: type) -> T:
        known: dict[str, Any] = object.__getattribute__(settings, "__dict__")  # a LazyObject's own looks twice
        if self.name not in known:
            # Where Django keeps the settings that were asked for, and forgets them when they are changed. Of one that
            # a site has not set, it would look through all settings again each time, several times per request.
            known[self.name] = getattr(settings, self.name, self.default)
        value: T = known[self.name]
        return value


class DurationSetting(Setting[Any]):
    """A duration as a site likes to write it, which whoever reads it gets as seconds, within bounds.

    A wrong one raises `ImproperlyConfigured` where it is read; the check `E004` reads what is `written`.
    """

    def __init__(self, default: float | None, meaning: str, least: float, most: str = LONGEST) -> None:
        super().__init__(default, meaning)
        self.least, self.most = least, most
        self.last: tuple[object, float | None] = self, None  # what was written, and what that means

    def __get__(self, instance: object, owner: type) -> Any:
        asked: dict[str, Any] = object.__getattribute__(settings, "__dict__")
        written, seconds = self.last
        if asked.get(self.name, asked) is not written:  # it is read several times per request, and changed hardly ever
            written = self.written()
            self.last = written, (seconds := self.seconds(written))
        return seconds

    def written(self) -> Any:
        return super().__get__(None, Conf)

    def seconds(self, written: Duration | None) -> float | None:
        if written is None and self.default is None:
            return None  # no limit
        try:
            seconds = as_seconds(self.name, written, self.most)  # type: ignore[arg-type]  # whatever it is
            if seconds < self.least:
                raise InvalidOption(self.name, written, f"write {self.form}.")
        except InvalidOption as error:
            raise ImproperlyConfigured(str(error)) from error
        return seconds

    @property
    def form(self) -> str:
        least, none = f"{self.least * 1000:g}ms" if self.least else "0", ", or None" if self.default is None else ""
        return f"a duration from {least} to {self.most}: text as 30d, 12h, 15m, 45s, 50ms, or seconds{none}"


class Conf:
    REDIS = Setting[str | None](None, "Redis URL or dotted path to a callable returning a client; default: the alias.")
    REDIS_WAIT = Setting(0, "Replicas that a create, save or delete waits for, up to MULTISESSION_TIMEOUT; 0: none.")
    KEY_PREFIX = Setting("session", "Namespace of every Redis key.")
    MONGODB = Setting[str | None](
        None, "MongoDB URI with a database, or dotted path to a callable returning a client that names one."
    )
    MONGODB_COLLECTION = Setting("sessions", "Name of the MongoDB collection.")
    # Sockets wait for no more than 24 days: what they are told is a 32-bit number of milliseconds.
    TIMEOUT = DurationSetting(
        5.0,
        "Time to wait for Redis or MongoDB where the URL or URI does not say; to repeat a conflict of SQL's.",
        least=0.001,
        most="1d",
    )
    MAX_BYTES = Setting(1024 * 1024, "Largest encoded session, in bytes; a larger one raises SessionTooLarge.")
    COMPRESS_OVER = Setting[int | None](64, "Compress serialized sessions of more than this many bytes; None: never.")
    ON_CONFLICT = Setting("merge", "What a save does when another came first: merge, overwrite or raise.")
    MERGE = Setting[dict[str, Any] | None](
        None,
        "How a key that two requests have changed is merged: append, union, sum, deep, or a function's path.",
    )
    TOUCH_AFTER = DurationSetting(
        None,
        "Time that a stored expiry may lag behind; None: 1 % of the session's age, at most 60 seconds.",
        least=0,
    )
    IDLE_AGE = DurationSetting(
        None, "Time after its last save or touch at which a session ends; None: never.", least=0.001
    )
    ABSOLUTE_AGE = DurationSetting(None, "Time after the log-in at which a session ends; None: never.", least=0.001)
    TRACK_CLIENT = Setting[bool | str](
        False, "Record IP address and browser at the log-in: True, False, or anonymize for the network's address only."
    )
    CLIENT_IP = Setting[str | Callable[[Any], str | None] | None](
        None, "Function (or its dotted path) that gives a request's IP address; None: its REMOTE_ADDR."
    )
    ON_CLIENT_CHANGE = Setting(
        "ignore", "When another browser uses a session than has signed in: ignore, signal or end."
    )
    CLIENT_NETWORK = Setting(False, "Whether another network (/24 of IPv4, /48 of IPv6) is such a change too.")
    MAX_PER_USER = Setting[int | str | Callable[[str], int | None] | None](
        None, "Sessions that a user may have, or a function (or its dotted path) of the user id; None: any number."
    )
    ON_MAX = Setting("evict", "What a log-in beyond that number does: evict the oldest session, or refuse.")
    REVOKE_ON = Setting[Sequence[str]](
        ("password", "deactivated", "deleted"),
        "Changes of a user that end sessions: these, or some of them.",
    )
    CONFIRM_PASSWORD = Setting(False, "Ask for the password before a user signs out all other sessions on the page.")
    ENCRYPTION_KEYS = Setting[Sequence[str | bytes | None]](
        (), "Keys of 32 bytes for AES-256-GCM, newest first; None in first place: open sealed sessions, sign new ones."
    )
    CACHE_AGE = DurationSetting(
        60, "Time that cached_db goes on with a copy in Redis after a change that Redis was not told of.", 0.001, "1d"
    )
    MOVE = Setting[dict[str, Any] | None](None, "The two sides and the phase of a change of engines: see moving.md.")


def function(value: Any) -> Any:
    """What a setting that takes a function or its dotted path means."""
    return import_string(value) if isinstance(value, str) else value


conf = Conf()
NAMES = {setting.name: setting for setting in vars(Conf).values() if isinstance(setting, Setting)}
