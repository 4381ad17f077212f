""" "Your sessions": where a user is signed in, to sign out one of these sessions, or all others; as pages and as JSON.

A user sees and ends nothing but the own sessions: every call of `user_sessions` is given `request.user`. The templates
can be overridden: `base.html`, `user_sessions.html`, `end_others.html`, `refused.html` in `django_multisession/`.

With `Accept: application/json` (and with `DELETE`, whatever is accepted)::

    GET  user_sessions  {"sessions": [{id, created_at, last_seen, expires_at, ip, user_agent, device, is_current}],
                         "complete": as of `sessions_of()`, "more": how many there are behind this page}
    DELETE  end         204, 404
    DELETE  end_others  204; where the list may be incomplete 200 and {"ended", "complete"}: not all may be gone

Where the index of the user's sessions has been lost, the page says so, and `repair` looks for those that are missing, a
part of the store with each POST. Until it is through, the session remembers under `_repair_from` where to go on ("": at
the beginning): any activity lists the own session again, and then the loss could no longer be seen. Once it is through,
the time is there: a server that has evicted keys, whosever they were, would leave it in doubt for ever.
"""

import time
from collections.abc import MutableMapping
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import authenticate, logout, update_session_auth_hash
from django.contrib.sessions.backends.base import SessionBase
from django.core.paginator import Page, Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..conf import conf
from ..responses import error, given, not_allowed, wants_json
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
from .endpoints import PAGE, SAFE, endpoint

PER_PAGE = 50  # sessions
ENDING = "POST", "DELETE"
REPAIR_FROM = "_repair_from"
SURE_FOR = 600  # seconds after all was looked through
FIELDS = "id", "created_at", "last_seen", "expires_at", "ip", "user_agent", "device", "is_current"


@endpoint(*SAFE)
def user_sessions(request: HttpRequest) -> HttpResponse:
    sessions = sessions_of(request.user, request)
    page = _page(request, sessions)
    if wants_json(request):
        more = len(sessions) - page.end_index()
        shown = [{name: getattr(each, name) for name in FIELDS} for each in page]
        return JsonResponse({"sessions": shown, "complete": sessions.complete, "more": more})
    context = {
        "sessions": list(page),
        "page": page,
        "others": sum(not each.is_current for each in sessions),
        "incomplete": _is_incomplete(request, sessions),
        "moving": is_moving(),
        "repairing": bool(_memory(request).get(REPAIR_FROM)),
        "reads_count": settings.SESSION_SAVE_EVERY_REQUEST,
        "password_url": _password_url(),
    }
    return render(request, "django_multisession/user_sessions.html", context)


def _page(request: HttpRequest, sessions: UserSessions) -> Page[UserSession]:
    """The own one is the first of all."""
    own_first = sorted(sessions, key=lambda each: not each.is_current)
    return Paginator(own_first, PER_PAGE).get_page(request.GET.get("page"))


def _password_url() -> str | None:
    """Of the page where the password is changed, by the name that it has in `django.contrib.auth.urls`."""
    try:
        return reverse("password_change")
    except NoReverseMatch:
        return None


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


@endpoint(*ENDING)
def end(request: HttpRequest, id: str) -> HttpResponse:
    """Sign out one session of the user. The own one: as signing out does."""
    sessions = sessions_of(request.user, request)
    if any(each.is_current and each.id == id for each in sessions):
        return _sign_out(request)
    if revoke(request.user, id):
        return _done(request, _("That session was signed out."))
    if _is_incomplete(request, sessions):
        return _missing(request, _("This session was not found, but the list may be incomplete."))
    # not an error: without JavaScript nothing keeps a button from being pressed twice
    return _missing(request, _("There is no such session, or it has ended already."))


def _done(request: HttpRequest, text: str) -> HttpResponse:
    if wants_json(request):
        return HttpResponse(status=204)
    _tell(request, messages.SUCCESS, text)
    return redirect(PAGE)


def _missing(request: HttpRequest, text: str) -> HttpResponse:
    if wants_json(request):
        return error(404, "not_found", text)
    _tell(request, messages.WARNING, text)
    return redirect(PAGE)


@endpoint(*SAFE, *ENDING)
def end_others(request: HttpRequest) -> HttpResponse:
    """A GET asks; with `MULTISESSION_CONFIRM_PASSWORD` for the password again."""
    if request.method in SAFE:
        return _ask(request)
    if _wants_password(request) and not _is_password(request):
        return _ask(request, wrong=True)
    revoked = revoke_all(request.user, keep=request)
    incomplete = _is_incomplete(request, revoked)
    text = ngettext("%(count)d session was signed out.", "%(count)d sessions were signed out.", revoked.ended)
    if incomplete and wants_json(request):
        return JsonResponse({"ended": revoked.ended, "complete": revoked.complete})
    if not incomplete:
        return _done(request, text % {"count": revoked.ended})
    _tell(request, messages.WARNING, text % {"count": revoked.ended})
    _tell(request, messages.WARNING, _("There may be more. Look for missing sessions, then sign out all others again."))
    return redirect(PAGE)


def _ask(request: HttpRequest, wrong: bool = False) -> HttpResponse:
    if wants_json(request):
        return error(403, "password_needed", _("Please enter your password.")) if wrong else not_allowed(ENDING)
    others = sum(not each.is_current for each in sessions_of(request.user, request))
    context = {"others": others, "asks_password": _wants_password(request), "wrong": wrong}
    return render(request, "django_multisession/end_others.html", context, status=403 if wrong else 200)


def _wants_password(request: Any) -> bool:
    """Who signs in elsewhere, by single sign-on say, has none that could be asked for."""
    return conf.CONFIRM_PASSWORD and request.user.has_usable_password()


def _is_password(request: Any) -> bool:
    """By the site's own backends, so that whatever slows down guessing at the log-in does so here."""
    name = {request.user.USERNAME_FIELD: request.user.get_username()}
    user = authenticate(request, password=given(request, "password"), **name)
    if user is None or user.pk != request.user.pk:
        return False
    if user.password != request.user.password:  # a newer PASSWORD_HASHERS has hashed it anew, as at a log-in
        update_session_auth_hash(request, user)
    return True


@endpoint("POST")
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
    if wants_json(request):
        return HttpResponse(status=204)
    return redirect(settings.LOGOUT_REDIRECT_URL or settings.LOGIN_URL)


def _tell(request: Any, level: int, text: str) -> None:
    if apps.is_installed("django.contrib.messages"):
        messages.add_message(request, level, text, fail_silently=True)
