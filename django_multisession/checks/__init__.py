"""Numbered system checks, one short function per mistake.

Always, without any I/O::

    E001  a MULTISESSION_* setting of an unknown name
    W040  MULTISESSION_* settings, but SESSION_ENGINE is one of Django's
    W041  clients are tracked, but ua-parser is missing: the pages show whole headers
    W042  the page of a user's sessions is used, but clients are not tracked: it can name no browser
    W043  MULTISESSION_ON_CLIENT_CHANGE without what it compares, or without the package's middleware
    E003  SESSION_ENGINE cannot be imported (misspelled, or its driver is missing), or is no engine
    E004  a setting of a wrong type or range
    W007  MULTISESSION_IDLE_AGE without SESSION_SAVE_EVERY_REQUEST: requests that only read do not count
    W009  MULTISESSION_REVOKE_ON has "password", but the package's middleware is missing
    E005  MULTISESSION_ENCRYPTION_KEYS is no list of usable keys
    E006  encryption keys, but no cryptography library
    E019  SESSION_SERIALIZER cannot be imported
    E020  MULTISESSION_MERGE is no dict, or has an unknown rule
    E021  MULTISESSION_MERGE has a rule for a key of django.contrib.auth
    E007  redis, cached_db: SESSION_CACHE_ALIAS is not in CACHES
    E008  redis, cached_db: SESSION_CACHE_ALIAS is no django-redis cache, or one of shards
    E009  redis, cached_db: MULTISESSION_REDIS is neither a Redis URL nor the path of a callable
    E010  redis, cached_db: the client decodes responses
    E022  redis, cached_db: a URL of Redis has something else than a number where that of the database belongs
    E040  both Django's session middleware and the package's
    E041  the session middleware comes after middleware that needs it
    E016  redis: a database number with a cluster, which has one database
    W002  redis: sessions live in the cache "default", which cache.clear() flushes
    W003  redis: another cache flushes the database of the sessions
    E011  mongodb: MULTISESSION_MONGODB is not set
    E012  mongodb: MULTISESSION_MONGODB is neither a MongoDB URI nor the path of a callable
    E013  mongodb: the URI names no database
    E014  mongodb: MULTISESSION_MAX_BYTES is more than a document can hold

Under `check --deploy`::

    W004  SESSION_SERIALIZER is a pickle
    W020  memory: sessions are in the memory of each process
    W010  the session cookie travels without HTTPS or is open to scripts, and Django's own checks do not look

Under `check --deploy` and `check --database` (which `migrate` runs first), of the server::

    W005  redis, cached_db: it could not be asked
    E015  redis: it is older than 6.2
    E017  redis: a cluster's URL or client where the server is in no cluster, or another where it is
    E018  redis: it has fewer replicas than MULTISESSION_REDIS_WAIT (--deploy alone)
    W006  redis: it evicts sessions when its memory is full
    W011  redis, mongodb, db (--database alone): another site, or a server with other keys, writes into the store too

Under `check --database` (and `migrate`), of the database of the sessions::

    W008  db, cached_db: rows expired more than 7 days ago, and no purge was recorded since
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .. import engine
from ..conf import NAMES, DurationSetting, conf
from ..payload import codecs

Problems = Iterator[tuple[str, str]]  # what is wrong, what to do
Check = Callable[..., list[checks.CheckMessage]]

EVERY_SITE = "", "base", "cached_db", "db", "memory", "mongodb", "redis"
EVERY_ENGINE = EVERY_SITE[1:]
DJANGOS_MIDDLEWARE = "django.contrib.sessions.middleware.SessionMiddleware"


def check(number: str, *engines: str, tags: Sequence[str] = (), deploy: bool = False) -> Callable[..., Check]:
    """Register a generator of problems as a check for sites with one of these engines."""

    def decorate(problems: Callable[[], Problems]) -> Check:
        def run(**_kwargs: object) -> list[checks.CheckMessage]:
            return messages(number, problems()) if engine.kind() in engines else []

        checks.register(*tags, deploy=deploy)(run)
        return run

    return decorate


def messages(number: str, problems: Iterable[tuple[str, str]]) -> list[checks.CheckMessage]:
    level = checks.Error if number.startswith("E") else checks.Warning
    return [level(message, hint=hint, id=f"django_multisession.{number}") for message, hint in problems]


# Settings and installation
@check("E001", *EVERY_SITE)
def unknown_setting() -> Problems:
    for name in dir(settings):
        if name.startswith("MULTISESSION_") and name not in NAMES:
            yield f"There is no setting {name}.", _suggestion(name)


def _suggestion(name: str) -> str:
    known = [each.removeprefix("MULTISESSION_") for each in NAMES]
    close = get_close_matches(name.removeprefix("MULTISESSION_"), known, n=1)
    return f"Did you mean MULTISESSION_{close[0]}?" if close else f"There are: {', '.join(NAMES)}."


@check("E003", *EVERY_SITE)
def engine_not_importable() -> Problems:
    if error := engine.import_error():
        there_are = f"There are: {engine.BACKENDS}redis, .mongodb, .db, .cached_db and .memory."
        yield f"SESSION_ENGINE {engine.name()!r} cannot be imported: {error}", there_are


def is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_duration(setting: DurationSetting) -> bool:
    with suppress(ImproperlyConfigured):
        setting.seconds(setting.written())
        return True
    return False


def _is_key_prefix(value: object) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable() and " " not in value


def _is_collection(value: object) -> bool:
    return isinstance(value, str) and all(value.split(".")) and not {"$", "\0"} & set(value)


def _is_function(value: object) -> bool:
    return value is None or callable(value) or is_callable(value)


def _is_revoke_on(value: object) -> bool:
    return isinstance(value, list | tuple | set | frozenset) and set(value) <= set(REVOKE_ON)


ON_CONFLICT = "merge", "overwrite", "raise"
ON_MAX = "evict", "refuse"
ON_CLIENT_CHANGE = "ignore", "signal", "end"
REVOKE_ON = "password", "deactivated", "deleted"
OF_FUNCTIONS = "MULTISESSION_CLIENT_IP", "MULTISESSION_MAX_PER_USER"
VALID: dict[str, tuple[Callable[[Any], bool], str]] = {
    "REDIS_WAIT": (lambda value: is_whole(value, 0), "a whole number of replicas"),
    "KEY_PREFIX": (_is_key_prefix, "a text that is not empty and has no spaces"),
    "MONGODB_COLLECTION": (_is_collection, "the name of a MongoDB collection"),
    "MAX_BYTES": (lambda value: is_whole(value, 1), "a positive whole number of bytes"),
    "ON_CONFLICT": (lambda value: value in ON_CONFLICT, f"one of {', '.join(ON_CONFLICT)}"),
    "TRACK_CLIENT": (lambda value: isinstance(value, bool) or value == "anonymize", "True, False or 'anonymize'"),
    "CLIENT_IP": (_is_function, "a function of a request, its dotted path, or None"),
    "ON_CLIENT_CHANGE": (lambda value: value in ON_CLIENT_CHANGE, f"one of {', '.join(ON_CLIENT_CHANGE)}"),
    "CLIENT_NETWORK": (lambda value: isinstance(value, bool), "True or False"),
    "MAX_PER_USER": (
        lambda value: is_whole(value, 1) or _is_function(value),
        "a positive whole number, a function of a user id, its dotted path, or None",
    ),
    "ON_MAX": (lambda value: value in ON_MAX, f"one of {', '.join(ON_MAX)}"),
    "REVOKE_ON": (_is_revoke_on, f"a list of some of {', '.join(REVOKE_ON)}"),
    "CONFIRM_PASSWORD": (lambda value: isinstance(value, bool), "True or False"),
    "COMPRESS_OVER": (lambda value: value is None or is_whole(value, 0), "a whole number of bytes, or None"),
}


@check("E004", *EVERY_ENGINE)
def invalid_setting() -> Problems:
    for name, (is_valid, kind) in VALID.items():
        if not is_valid(value := getattr(conf, name)):
            yield _invalid(NAMES[f"MULTISESSION_{name}"], value, kind)
    for setting in NAMES.values():
        if isinstance(setting, DurationSetting) and not _is_duration(setting):
            yield _invalid(setting, setting.written(), setting.form)


def _invalid(setting: Any, value: object, kind: str) -> tuple[str, str]:
    why = import_problem(value) if setting.name in OF_FUNCTIONS else ""
    return f"{setting.name} is {value!r}{why}.", f"Set it to {kind}, or leave it out for {setting.default!r}."


@check("W007", *EVERY_ENGINE)
def reading_is_idle() -> Problems:
    if getattr(settings, "MULTISESSION_IDLE_AGE", None) is not None and not settings.SESSION_SAVE_EVERY_REQUEST:
        message = "MULTISESSION_IDLE_AGE ends the sessions of people who only read: nothing is saved then."
        yield message, "Set SESSION_SAVE_EVERY_REQUEST = True: a save of unchanged data costs next to nothing here."


@check("W009", *EVERY_ENGINE)
def nobody_knows_the_request() -> Problems:
    from ..middleware import knows_requests

    is_set = settings.is_overridden("MULTISESSION_REVOKE_ON")  # type: ignore[misc]  # hasattr() knows defaults too
    if is_set and _is_revoke_on(conf.REVOKE_ON) and "password" in conf.REVOKE_ON and not knows_requests():
        message = "MULTISESSION_REVOKE_ON has 'password', which needs the package's middleware."
        yield message, "Put django_multisession.middleware.SessionMiddleware in the place of Django's."


@check("E005", *EVERY_ENGINE)
def unusable_encryption_keys() -> Problems:
    hint = 'Set it to a list of keys, each made with: python -c "import secrets; print(secrets.token_hex(32))"'
    if not isinstance(conf.ENCRYPTION_KEYS, list | tuple):
        yield "MULTISESSION_ENCRYPTION_KEYS is not a list.", hint
        return
    try:
        codecs.encryption_keys()
    except (ImproperlyConfigured, TypeError):
        yield "A key of MULTISESSION_ENCRYPTION_KEYS is not 32 bytes (raw, in hex or in base64).", hint


@check("E019", *EVERY_ENGINE)
def serializer_not_importable() -> Problems:
    if why := import_problem(path := settings.SESSION_SERIALIZER):
        yield f"SESSION_SERIALIZER is {path!r}{why}.", "Correct it, or leave it out for Django's JSON."


@check("E006", *EVERY_ENGINE)
def cryptography_missing() -> Problems:
    if conf.ENCRYPTION_KEYS and find_spec("cryptography") is None:
        yield "MULTISESSION_ENCRYPTION_KEYS needs cryptography.", "pip install 'django-multisession[encryption]'"


@check("W004", *EVERY_ENGINE, tags=[checks.Tags.security], deploy=True)
def pickle_serializer() -> Problems:
    path = settings.SESSION_SERIALIZER
    if "pickle" in path.lower() and not import_problem(path):  # else E019 says what is wrong
        message = "SESSION_SERIALIZER is a pickle: whoever learns SECRET_KEY can run code on the server."
        yield message, "Leave it out, for JSON, or write a serializer for the types that you need."


@check("W010", *EVERY_ENGINE, tags=[checks.Tags.security], deploy=True)
def unprotected_cookie() -> Problems:
    if apps.is_installed("django.contrib.sessions") or DJANGOS_MIDDLEWARE in settings.MIDDLEWARE:
        return  # Django's checks look
    for name in ("SESSION_COOKIE_SECURE", "SESSION_COOKIE_HTTPONLY"):
        if getattr(settings, name) is not True:
            yield f"{name} is not True.", f"Set {name} = True: who gets hold of the cookie has the session."


def import_problem(path: object) -> str:
    """Why a dotted path is of no use, to be put behind it; empty where it is no path, but a URL with its password."""
    if not isinstance(path, str) or "." not in path or not all(map(str.isidentifier, path.split("."))):
        return ""
    try:
        found = import_string(path)
    except Exception as error:  # whatever that module does
        return f", which cannot be imported: {error}"
    return "" if callable(found) else ", which is no function"


def is_callable(path: object) -> bool:
    with suppress(Exception):  # whatever that module does: see `import_problem()`
        return isinstance(path, str) and callable(import_string(path))
    return False


from . import foreign, installation, merging  # noqa: E402, F401  registers them
