"""What the pages for users have in common: methods, CSRF, who is signed in; in JSON where that is asked for."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.middleware.csrf import CsrfViewMiddleware
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.decorators import decorator_from_middleware
from django.utils.log import log_response
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from ..responses import error, not_allowed, wants_json

PAGE = "django_multisession:user_sessions"
SAFE = "GET", "HEAD"

View = Callable[..., Any]

logger = logging.getLogger("django.security.csrf")  # as Django's own check


class CsrfInJson(CsrfViewMiddleware):
    """Django's check; a program is told in JSON that it has failed."""

    def _reject(self, request: HttpRequest, reason: str) -> Any:
        if not wants_json(request):
            return super()._reject(request, reason)  # type: ignore[misc]  # a hook that Django REST framework uses too
        response = error(403, "csrf_failed", reason)
        log_response("Forbidden (%s): %s", reason, request.path, response=response, request=request, logger=logger)
        return response


def endpoint(*methods: str) -> Callable[[View], View]:
    """A view of these methods, for those who are signed in. Others are led to the log-in, and from there to the list.

    `csrf_exempt` and `login_not_required` are for the site's middleware alone: both are looked at here, on every site,
    and `LoginRequiredMiddleware` has no answer in JSON.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, **arguments: Any) -> HttpResponse:
            response = _refusal(request, methods) or view(request, **arguments)
            patch_vary_headers(response, ("Accept",))
            return response

        return csrf_exempt(login_not_required(never_cache(decorator_from_middleware(CsrfInJson)(guarded))))

    return decorate


def _refusal(request: HttpRequest, methods: tuple[str, ...]) -> HttpResponse | None:
    if request.method not in methods:
        return not_allowed(methods) if wants_json(request) else HttpResponseNotAllowed(methods)
    if request.user.is_authenticated:
        return None
    if wants_json(request):
        return error(401, "not_signed_in", _("Please sign in."))
    from django.contrib.auth.views import redirect_to_login  # needs the apps' models

    return redirect_to_login(reverse(PAGE))
