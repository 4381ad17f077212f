"""Checks of what surrounds the sessions: middleware, pages, another engine; the list is in `checks/__init__.py`."""

from importlib.util import find_spec

from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.core import checks
from django.urls import reverse

from .. import engine
from ..conf import NAMES, conf
from ..middleware import is_middleware, knows_requests
from . import EVERY_ENGINE, EVERY_SITE, Problems, check, messages

DJANGOS_ENGINES = "django.contrib.sessions.backends."
OF_THE_PURGE = {"MULTISESSION_TIMEOUT"}  # which works on Django's own table too
NEEDS_SESSIONS = (
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.auth.middleware.RemoteUserMiddleware",
    "django.contrib.auth.middleware.PersistentRemoteUserMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
)
CSRF = "django.middleware.csrf.CsrfViewMiddleware"


@check("E040", *EVERY_SITE)
def two_session_middlewares() -> Problems:
    if len(found := _session_middlewares()) > 1:
        message = (
            f"MIDDLEWARE has {len(found)} session middlewares: {', '.join(found)}. Each saves a session of its own."
        )
        yield message, "Leave one: django_multisession.middleware.SessionMiddleware takes the place of Django's."


@check("E041", *EVERY_SITE)
def session_middleware_too_late() -> Problems:
    needing = [*NEEDS_SESSIONS, CSRF] if settings.CSRF_USE_SESSIONS else NEEDS_SESSIONS
    if not (found := _session_middlewares()):
        return
    before = settings.MIDDLEWARE[: list(settings.MIDDLEWARE).index(found[0])]
    if early := [path for path in before if path in needing]:
        yield (
            f"{early[0]} comes before {found[0]} in MIDDLEWARE, and needs it.",
            "Move the session middleware before it.",
        )


def _session_middlewares() -> list[str]:
    return [path for path in settings.MIDDLEWARE if is_middleware(path, SessionMiddleware)]


@checks.register
def settings_of_no_engine(**_kwargs: object) -> list[checks.CheckMessage]:
    return messages("W040", _set_in_vain()) if str(engine.name()).startswith(DJANGOS_ENGINES) else []


def _set_in_vain() -> Problems:
    if found := [name for name in NAMES if hasattr(settings, name) and name not in OF_THE_PURGE]:
        message = f"SESSION_ENGINE is Django's {engine.name()!r}, so {', '.join(found)} is without effect."
        yield message, f"Set SESSION_ENGINE to an engine of this package: {engine.BACKENDS}redis, .mongodb or .db."


@check("W041", *EVERY_ENGINE)
def devices_without_names() -> Problems:
    if conf.TRACK_CLIENT and find_spec("ua_parser") is None:
        message = (
            "Without ua-parser the pages show whole User-Agent headers, as 'Mozilla/5.0 (X11; Linux ...', and no names."
        )
        yield message, "pip install 'django-multisession[devices]'"


@check("W042", *EVERY_ENGINE)
def page_without_devices() -> Problems:
    if not conf.TRACK_CLIENT and _has_the_page():
        message = "The page of a user's sessions shows 'Browser not recorded' and no IP address for each of them."
        otherwise = "If nothing is to be recorded, add 'django_multisession.W042' to SILENCED_SYSTEM_CHECKS."
        yield message, f"Set MULTISESSION_TRACK_CLIENT to True or 'anonymize'. {otherwise}"


def _has_the_page() -> bool:
    try:
        return bool(reverse("django_multisession:user_sessions"))
    except Exception:  # there is none; or whatever is wrong with the site's URLs, Django's own checks say it
        return False


@check("W043", *EVERY_ENGINE)
def nobody_compares_clients() -> Problems:
    if conf.ON_CLIENT_CHANGE not in ("signal", "end"):
        return
    if not conf.TRACK_CLIENT:
        message = "MULTISESSION_ON_CLIENT_CHANGE compares with what MULTISESSION_TRACK_CLIENT records, which is off."
        yield message, "Set MULTISESSION_TRACK_CLIENT to True or 'anonymize'."
    if not knows_requests():
        message = "MULTISESSION_ON_CLIENT_CHANGE needs the package's middleware, which knows the request."
        yield message, "Put django_multisession.middleware.SessionMiddleware in the place of Django's."
