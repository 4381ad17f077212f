"""Metrics by OpenTelemetry (the `metrics` extra): what the store takes, and what becomes of sessions.

Nothing here is in the way of a request before `start()`: it puts measured functions in the place of others. Django's
start calls it where a meter provider is set by then, as by `opentelemetry-instrument`; a site that sets one later, in a
worker after a fork say, calls it then. Where nobody has imported OpenTelemetry, neither does this module.

    django_multisession.storage.duration  histogram, seconds; by `engine` and `method` (a verb of `Storage`)
    django_multisession.saves, .touches   sessions that were stored, and whose expiry alone was moved; by `engine`
    django_multisession.conflicts         saves that found that another had come first; by `engine`
    django_multisession.merges            conflicts that were merged
    django_multisession.outages           calls that ended with `EngineUnavailable`; by `engine` and `method`
    django_multisession.endings           sessions of users that were ended; by `reason`
    django_multisession.purged            rows that a purge has removed; by `table`
"""

import sys
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from importlib import import_module
from time import perf_counter
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from . import engine
from .backends.state import SessionState
from .backends.storage import Storage
from .exceptions import EngineUnavailable
from .signals import sessions_purged
from .user_sessions import lifecycle

NAME = "django_multisession"
API = "opentelemetry.metrics"
COUNTERS = "saves", "touches", "conflicts", "merges", "outages", "endings", "purged"
VERBS = [name for name in vars(Storage) if not name.startswith("_")]

# Seconds. Without them the SDK goes by its own, which are for milliseconds: all would be between 0 and 5.
BOUNDARIES = 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10
MODULES = "storage", "cluster"  # of an engine: a cluster of Redis has a storage of its own

_is_inner: ContextVar[bool] = ContextVar(
    "django_multisession.metrics.inner", default=False
)  # a verb that another calls
_replaced: list[tuple[Any, str, Any]] = []  # where, the name, what was there


def start_if_measured() -> None:
    """If somebody has set a meter provider: those that the API itself has measure nothing."""
    if (api := sys.modules.get(API)) and not type(api.get_meter_provider()).__module__.startswith(API):
        start()


def start() -> None:
    """Measure from now on, in this process. A second call changes nothing."""
    if _replaced or not engine.kind():
        return
    try:
        meter = import_module(API).get_meter(NAME)
    except ImportError as error:
        raise ImproperlyConfigured("Metrics need OpenTelemetry: pip install 'django-multisession[metrics]'") from error
    counters = {name: meter.create_counter(f"{NAME}.{name}") for name in COUNTERS}
    durations = meter.create_histogram(
        f"{NAME}.storage.duration", unit="s", explicit_bucket_boundaries_advisory=BOUNDARIES
    )
    for storage in _storage_classes():
        for verb in VERBS:
            _measure_verb(storage, verb, durations, counters)
    _count_merges(counters["merges"])
    _count_endings(counters["endings"])

    def count_purged(purged: Any, table: str | None, **_kwargs: object) -> None:
        counters["purged"].add(purged.rows, {"table": table or ""})

    sessions_purged.connect(count_purged, weak=False, dispatch_uid=NAME)


def stop() -> None:
    """Put back what was there."""
    while _replaced:
        owner, name, original = _replaced.pop()
        setattr(owner, name, original)
    sessions_purged.disconnect(dispatch_uid=NAME)


def _replace(owner: Any, name: str, function: Any) -> None:
    _replaced.append((owner, name, getattr(owner, name)))
    setattr(owner, name, function)


def _storage_classes() -> list[type]:
    """By their modules, where the engine has any: to ask a store for its storage would open a client, before a fork."""
    found = [each for name in MODULES for each in _storages_in(f"{engine.BACKENDS}{engine.kind()}.{name}")]
    return found or [type(engine.store().storage)]


def _storages_in(name: str) -> list[type]:
    try:
        module = import_module(name)
    except ImportError:
        return []
    own = [each for each in vars(module).values() if getattr(each, "__module__", "") == name]
    return [each for each in own if isinstance(each, type) and hasattr(each, "of_user")]


def _measure_verb(storage: type, verb: str, durations: Any, counters: dict[str, Any]) -> None:
    original: Callable[..., Any] = getattr(storage, verb)
    kind, labels = {"engine": engine.kind()}, {"engine": engine.kind(), "method": verb}

    @wraps(original)
    async def measured(self: Any, *arguments: Any, **named: Any) -> Any:
        if _is_inner.get():
            return await original(self, *arguments, **named)
        _is_inner.set(True)
        began = perf_counter()
        try:
            result = await original(self, *arguments, **named)
        except EngineUnavailable:
            counters["outages"].add(1, labels)
            raise
        finally:
            _is_inner.set(False)
            durations.record(perf_counter() - began, labels)
        if what := _meaning(verb, arguments, result):
            counters[what].add(1, kind)
        return result

    _replace(storage, verb, measured)


def _meaning(verb: str, arguments: tuple[Any, ...], result: Any) -> str | None:
    """What a verb's answer means for the session, as said in `Storage`. A mark is no session."""
    if verb == "touch":
        return "touches" if result else None
    if verb not in ("insert", "replace") or not result or arguments[0].is_mark:
        return None
    if verb == "replace" and result != arguments[0]:
        return None if result.is_mark else "conflicts"
    return "saves"


def _count_merges(counter: Any) -> None:
    original = SessionState._merge

    @wraps(original)
    def merge(self: Any, held: Any, by_rules: bool) -> None:
        original(self, held, by_rules)
        counter.add(1)

    _replace(SessionState, "_merge", merge)


def _count_endings(counter: Any) -> None:
    end, tell = lifecycle.end, lifecycle._tell

    @wraps(end)
    async def counted_end(face: Any, storage: Any, records: Any, reason: str) -> int:
        ended = await end(face, storage, records, reason)
        counter.add(ended, {"reason": reason})
        return ended

    @wraps(tell)
    async def counted_tell(face: Any, gone: Any, reason: str) -> None:
        if reason == lifecycle.LOGOUT:  # the only one that does not go by `end()`
            counter.add(len(gone), {"reason": reason})
        await tell(face, gone, reason)

    _replace(lifecycle, "end", counted_end)
    _replace(lifecycle, "_tell", counted_tell)
