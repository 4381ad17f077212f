""" "Your sessions": where a user is signed in, to end one of these sessions, or all others.

A user sees and ends nothing but the own sessions: every call of `user_sessions` is given `request.user`. The templates
`django_multisession/base.html` and `django_multisession/user_sessions.html` can be overridden.

Where the index of the user's sessions has been lost, the page says so, and `repair` looks for those that are missing, a
part of the store with each POST. Until it is through, the session remembers under `_repair_from` where to go on ("": at
the beginning): any activity lists the own session again, and then the loss could no longer be seen. Once it is through,
the time is there: a server that has evicted keys, whosever they were, would leave it in doubt for ever.
"""

import time
from collections.abc import Callable, MutableMapping
from functools import wraps
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import redirect_to_login
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST, require_safe

from . import (
    REPAIR_PAGES,
    Revoked,
    UserSession,
    UserSessions,
    is_moving,
    repair_index,
    revoke,
    revoke_all,
    sessions_of,
)

PAGE = "django_multisession:user_sessions"
MOST_SHOWN = 50  # sessions
REPAIR_FROM = "_repair_from"
SURE_FOR = 600  # seconds after all was looked through


@require_safe
@never_cache
@login_required
@csrf_protect  # for the token in the forms
def user_sessions(request: HttpRequest) -> HttpResponse:
    sessions = sessions_of(request.user, request)
    shown = _shown(sessions)
    context = {
        "sessions": shown,
        "more": len(sessions) - len(shown),
        "others": sum(not each.is_current for each in sessions),
        "incomplete": _is_incomplete(request, sessions),
        "moving": is_moving(),
        "repairing": bool(_memory(request).get(REPAIR_FROM)),
    }
    return render(request, "django_multisession/user_sessions.html", context)


def _shown(sessions: UserSessions) -> list[UserSession]:
    """The newest, and the own one always."""
    return [each for number, each in enumerate(sessions) if number < MOST_SHOWN or each.is_current]


def _is_incomplete(request: HttpRequest, found: UserSessions | Revoked) -> bool:
    if found.complete is None and is_moving():
        return False  # no repair finds more
    complete = True if found.foreign and found.complete is None else found.complete  # nor of others'
    memory = _memory(request)
    known = memory.get(REPAIR_FROM)
    sure = isinstance(known, int) and time.time() - known < SURE_FOR
    if complete is False or (complete is None and not sure):
        memory[REPAIR_FROM] = known if isinstance(known, str) else ""
    return isinstance(memory.get(REPAIR_FROM), str)


def _memory(request: HttpRequest) -> Any:
    """The session. Where other middleware has put something else there, it is as good as empty."""
    session = getattr(request, "session", None)
    return session if isinstance(session, SessionBase | MutableMapping) else {}


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
    sessions = sessions_of(request.user, request)
    if any(each.is_current and each.id == id for each in sessions):
        return _sign_out(request)
    if revoke(request.user, id):
        _tell(request, messages.SUCCESS, _("The session was ended."))
    elif _is_incomplete(request, sessions):
        _tell(request, messages.WARNING, _("This session was not found, but the list may be incomplete."))
    else:  # not an error: without JavaScript nothing keeps a button from being pressed twice
        _tell(request, messages.WARNING, _("There is no such session, or it has ended already."))
    return redirect(PAGE)


@require_POST
@csrf_protect
@_for_signed_in
def end_others(request: HttpRequest) -> HttpResponse:
    revoked = revoke_all(request.user, keep=request)
    incomplete = _is_incomplete(request, revoked)
    text = ngettext("%(count)d session was ended.", "%(count)d sessions were ended.", revoked.ended)
    _tell(request, messages.WARNING if incomplete else messages.SUCCESS, text % {"count": revoked.ended})
    if incomplete:
        _tell(request, messages.WARNING, _("There may be more. Look for missing sessions, then end all others again."))
    return redirect(PAGE)


@require_POST
@csrf_protect
@_for_signed_in
def repair(request: HttpRequest) -> HttpResponse:
    """Look through a part of all sessions for those of the user that the list misses."""
    memory = _memory(request)
    if not isinstance(memory.get(REPAIR_FROM), str):  # nothing is known to be missing: pressed twice, say
        return redirect(PAGE)
    repaired = repair_index(request.user, memory[REPAIR_FROM] or None, REPAIR_PAGES)
    text = ngettext("%(count)d session was found.", "%(count)d sessions were found.", repaired.indexed)
    _tell(request, messages.INFO, text % {"count": repaired.indexed})
    memory[REPAIR_FROM] = int(time.time()) if repaired.next is None else repaired.next
    if repaired.next is None:
        _tell(request, messages.SUCCESS, _("The list is complete again."))
    return redirect(PAGE)


def _sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return redirect(settings.LOGOUT_REDIRECT_URL or settings.LOGIN_URL)


def _tell(request: Any, level: int, text: str) -> None:
    if apps.is_installed("django.contrib.messages"):
        messages.add_message(request, level, text, fail_silently=True)
