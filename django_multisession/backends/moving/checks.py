"""System checks of a move::

    E030  MULTISESSION_MOVE is no dict of two engines and a phase, or one of them cannot be imported
    E031  `to` is no engine of this package, or `from` or `to` is `moving` itself
    E032  both sides are the same place
    E033  the app of the old engine is not in INSTALLED_APPS
    E034  the old side's cache ignores exceptions: an outage would be taken for a log-out
    E035  phase `back` to signed cookies, which keep nothing on the server
    W030  MULTISESSION_MAX_PER_USER counts what can be listed, and the old side has no list

Of the server, under `check --deploy` and `check --database`::

    E036  `to` is a Redis that evicts: it can lose the marks of what was ended

Under `check --deploy`::

    W031  nothing is left on the old side: the new engine alone is enough
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from ... import engine
from ...checks import messages
from ...conf import conf
from .adapters import InCache, InTable, adapter_of
from .plan import MOVING, NoSide, Plan, plan, same_place
from .storage import BACK, MOVE

Problems = Iterator[tuple[str, str]]


def check(number: str, *tags: str, deploy: bool = False) -> Callable[..., Any]:
    """Register a generator of problems; `sides` is asked for only where the setting can be read."""

    def decorate(problems: Callable[[Plan], Problems]) -> Callable[..., list[checks.CheckMessage]]:
        def run(**_kwargs: object) -> list[checks.CheckMessage]:
            if engine.name() != MOVING:
                return []
            try:
                sides = plan()
            except ImproperlyConfigured:
                return []  # E030, E031
            return messages(number, problems(sides))

        checks.register(*tags, deploy=deploy)(run)
        return run

    return decorate


@checks.register
def unusable_setting(**_kwargs: object) -> list[checks.CheckMessage]:
    if engine.name() != MOVING:
        return []
    try:
        plan()
    except NoSide as error:
        hint = f"To which it can move: {engine.BACKENDS}redis, .mongodb and .db. Finish one move before the next."
        return messages("E031", [(str(error), hint)])
    except ImproperlyConfigured as error:
        hint = 'Set it to {"from": <engine>, "to": <engine>, "phase": "prepare"}; see docs/moving.md.'
        return messages("E030", [(str(error), hint)])
    return []


@check("E032")
def nothing_to_move(sides: Plan) -> Problems:
    if same_place(sides):
        message = "MULTISESSION_MOVE: both sides are the same place."
        yield message, "To move to the same engine elsewhere, say with 'from_settings' where the old one is."


@check("E033")
def app_not_installed(sides: Plan) -> Problems:
    if sides.is_foreign and issubclass(adapter_of(sides.from_), InTable):
        name = InTable.app_of(sides.from_)
        if name and not apps.is_installed(name):
            yield f"{name!r} is not in INSTALLED_APPS: the old sessions have no table.", f"Add {name!r} for the move."


@check("E034")
def outage_is_ignored(sides: Plan) -> Problems:
    if not (sides.is_foreign and issubclass(adapter_of(sides.from_), InCache)):
        return
    options = settings.CACHES.get(settings.SESSION_CACHE_ALIAS, {}).get("OPTIONS", {})
    if options.get("IGNORE_EXCEPTIONS", getattr(settings, "DJANGO_REDIS_IGNORE_EXCEPTIONS", False)):
        message = f"CACHES[{settings.SESSION_CACHE_ALIAS!r}] ignores exceptions: an outage looks like no session."
        yield message, "Set IGNORE_EXCEPTIONS to False in its OPTIONS while sessions move from it."


@check("E035")
def no_way_back(sides: Plan) -> Problems:
    if sides.phase == BACK and sides.is_cookies:
        message = "MULTISESSION_MOVE: there is no way back to signed cookies."
        yield message, "Stay in 'prepare' or 'move', where the old cookies are still accepted."


@check("W030")
def limit_counts_what_is_listed(sides: Plan) -> Problems:
    if conf.MAX_PER_USER is not None and sides.is_foreign:
        message = "MULTISESSION_MAX_PER_USER counts the sessions that can be listed; the old engine has no list."
        yield message, "Until all are moved a user may have more. Move the rest with: manage.py sessions move"


# The servers


def _evicting(sides: Plan) -> Problems:
    client = getattr(sides.to.storage, "client", None)
    if client is None or not hasattr(client, "info"):
        return
    try:
        policy = client.info("memory").get("maxmemory_policy", "noeviction")
    except Exception:  # W005 says so
        return
    if policy != "noeviction":
        message = f"Redis may evict the marks of ended sessions: its maxmemory-policy is {policy}."
        yield message, "Set it to noeviction during the move: what was ended could come back from the old side."


evicting = check("E036", deploy=True)(_evicting)


@checks.register(checks.Tags.database)
def evicting_before_migrate(databases: Sequence[str] | None = None, **_kwargs: object) -> list[checks.CheckMessage]:
    result: list[checks.CheckMessage] = evicting() if databases else []
    return result


@check("W031", deploy=True)
def done(sides: Plan) -> Problems:
    from .walking import left

    if sides.phase != MOVE:
        return
    try:
        found = left(sides, at_most=1)
    except Exception:  # an outage is not this check's matter
        return
    if found == 0:
        message = "Nothing is left on the old side: MULTISESSION_MOVE has done its work."
        yield message, f"Set SESSION_ENGINE = {sides.to.__module__!r} and leave the setting out."
