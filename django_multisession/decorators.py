"""For views. They work with Django's own session middleware too, and with views of either kind."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction  # knows Django's marked views on Python 3.11 too
from django.apps import apps
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.core.exceptions import ImproperlyConfigured

from . import checks, devices
from .durations import Duration, as_seconds

View = TypeVar("View", bound=Callable[..., Any])


def no_touch(view: View) -> View:
    """A request of this view does not keep the session alive: one that polls while nobody is there.

    With `SESSION_SAVE_EVERY_REQUEST` an unchanged session is then left as it is; a changed one is saved as ever.
    """

    def mark(request: Any) -> None:
        with suppress(AttributeError):  # of other middleware: a dict, or none
            request.session.may_touch = False

    @wraps(view)
    def marking(request: Any, *args: Any, **kwargs: Any) -> Any:
        mark(request)
        return view(request, *args, **kwargs)

    @wraps(view)
    async def amarking(request: Any, *args: Any, **kwargs: Any) -> Any:
        mark(request)
        return await view(request, *args, **kwargs)

    return cast(View, amarking if iscoroutinefunction(view) else marking)


def require_recent_login(
    max_age: Duration, login_url: str | None = None, redirect_field_name: str = REDIRECT_FIELD_NAME
) -> Callable[[View], View]:
    """For views such as a change of the mail address: whoever has not signed in for so long does so again first.

    `max_age` is a number of seconds, a timedelta, or text such as 15m. Others are sent to the login page, as by
    `login_required`. Signing in again as the same user counts, so the login page must let those in who are signed in.
    """
    seconds = as_seconds("max_age", max_age)

    def to_login(request: Any) -> Any:
        from django.contrib.auth.views import redirect_to_login  # needs the apps' models

        return redirect_to_login(request.get_full_path(), login_url, redirect_field_name)

    def decorate(view: View) -> View:
        @wraps(view)
        def requiring(request: Any, *args: Any, **kwargs: Any) -> Any:
            if request.user.is_authenticated and _age(getattr(request, "session", None)) <= seconds:
                return view(request, *args, **kwargs)
            return to_login(request)

        @wraps(view)
        async def arequiring(request: Any, *args: Any, **kwargs: Any) -> Any:
            # auser() has loaded the session: what follows does no I/O.
            if (await request.auser()).is_authenticated and _age(getattr(request, "session", None)) <= seconds:
                return await view(request, *args, **kwargs)
            return to_login(request)

        return cast(View, arequiring if iscoroutinefunction(view) else requiring)

    return decorate


def _age(session: Any) -> float:
    """Seconds since the log-in, at which the receiver in `devices.py` has noted the time."""
    if not apps.is_installed("django_multisession"):
        raise ImproperlyConfigured("@require_recent_login needs 'django_multisession' in INSTALLED_APPS.")
    if (login_at := devices.login_at(session)) is None and not checks.engine():  # nobody would ever have signed in
        raise ImproperlyConfigured("@require_recent_login needs a session engine of this package.")
    return float("inf") if login_at is None else time.time() - login_at
