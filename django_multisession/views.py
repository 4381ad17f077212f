""" "Your sessions": where a user is signed in, to end one of these sessions, or all others.

A user sees and ends nothing but the own sessions: every call of `user_sessions` is given `request.user`. The templates
`django_multisession/base.html` and `django_multisession/user_sessions.html` can be overridden.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST, require_safe

from .user_sessions import repair_index, revoke, revoke_all, sessions_of

PAGE = "django_multisession:user_sessions"


@require_safe
@never_cache
@login_required
@csrf_protect  # for the token in the forms
def user_sessions(request: HttpRequest) -> HttpResponse:
    sessions = sessions_of(request.user, request)
    if not sessions.complete:  # the index was lost: it is made again at once, since nobody else may come to see this
        repair_index(request.user)
        sessions = sessions_of(request.user, request)
    context = {"sessions": sessions, "others": sum(not each.is_current for each in sessions)}
    return render(request, "django_multisession/user_sessions.html", context)


def _for_signed_in(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """As `login_required` for what takes a POST only: the log-in leads to the page, and not to a 405."""

    @wraps(view)
    def guarded(request: HttpRequest, **arguments: Any) -> HttpResponse:
        if not request.user.is_authenticated:
            return redirect_to_login(reverse(PAGE))
        return view(request, **arguments)

    return guarded


@require_POST
@csrf_protect
@_for_signed_in
def end(request: HttpRequest, id: str) -> HttpResponse:
    """End one session of the user. Of the own one: as signing out does."""
    own = next((each for each in sessions_of(request.user, request) if each.is_current), None)
    if own is not None and own.id == id:
        return _sign_out(request)
    if revoke(request.user, id):
        _tell(request, messages.SUCCESS, _("The session was ended."))
    else:  # not an error: without JavaScript nothing keeps a button from being pressed twice
        _tell(request, messages.WARNING, _("There is no such session, or it has ended already."))
    return redirect(PAGE)


@require_POST
@csrf_protect
@_for_signed_in
def end_others(request: HttpRequest) -> HttpResponse:
    revoked = revoke_all(request.user, keep=request)
    ended = revoked.ended
    if not revoked.complete:
        repair_index(request.user)
        ended += revoke_all(request.user, keep=request).ended
    text = ngettext("%(count)d session was ended.", "%(count)d sessions were ended.", ended) % {"count": ended}
    _tell(request, messages.SUCCESS, text)
    return redirect(PAGE)


def _sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return redirect(settings.LOGOUT_REDIRECT_URL or settings.LOGIN_URL)


def _tell(request: Any, level: int, text: str) -> None:
    if apps.is_installed("django.contrib.messages"):
        messages.add_message(request, level, text, fail_silently=True)
