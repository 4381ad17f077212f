""" "Your sessions": where a user is signed in, to end one of these sessions, or all others.

A user sees and ends nothing but the own sessions: every call of `user_sessions` is given `request.user`. The templates
`django_multisession/base.html` and `django_multisession/user_sessions.html` can be overridden.
"""

from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
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


@require_POST
@csrf_protect
@login_required
def end(request: HttpRequest, id: str) -> HttpResponse:
    """End one session of the user; 404 for any other id. Of the own one: as signing out does."""
    own = next((each for each in sessions_of(request.user, request) if each.is_current), None)
    if own is not None and own.id == id:
        return _sign_out(request)
    if not revoke(request.user, id):
        raise Http404(_("There is no such session, or it has ended already."))
    _tell(request, _("The session was ended."))
    return redirect(PAGE)


@require_POST
@csrf_protect
@login_required
def end_others(request: HttpRequest) -> HttpResponse:
    revoked = revoke_all(request.user, keep=request)
    ended = revoked.ended
    if not revoked.complete:
        repair_index(request.user)
        ended += revoke_all(request.user, keep=request).ended
    _tell(request, ngettext("%(count)d session was ended.", "%(count)d sessions were ended.", ended) % {"count": ended})
    return redirect(PAGE)


def _sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return redirect(settings.LOGOUT_REDIRECT_URL or settings.LOGIN_URL)


def _tell(request: Any, text: str) -> None:
    if apps.is_installed("django.contrib.messages"):
        messages.success(request, text, fail_silently=True)
