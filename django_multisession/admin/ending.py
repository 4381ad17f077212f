"""Ending sessions from the admin: what is done, what is refused, what the log and the user are told."""

from collections.abc import Iterable
from typing import Any

from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import user_sessions
from ..charts import grouped
from ..user_sessions import REPAIR_PAGES, Revoked, UserSession


def refusal(session: UserSession | None) -> str | None:
    if session is None:
        return _("This session has ended already.")
    return _("This is your own session: sign out instead.") if session.is_current else None


def end_one(request: HttpRequest, user: Any, session: UserSession) -> None:
    if not user_sessions.revoke(user, session.id):
        return messages.warning(request, _("This session has ended already."))
    named = {"id": session.id, "device": session.device or _("unknown device")}
    log(request, [user], _("Signed out the session %(id)s (%(device)s).") % named)
    messages.success(request, _("That session was signed out."))


def end_all(request: HttpRequest, users: Iterable[Any]) -> None:
    """All but the one of this request: an admin who ends everybody's stays to see what came of it."""
    done, counts, foreign = list[Any](), list[int](), list[int]()

    def end(user: Any) -> Revoked:
        done.append(user)  # before it is: half of them may be gone when the store fails
        revoked = user_sessions.revoke_all(user, keep=request)
        if not revoked.ended:
            done.pop()
        counts.append(revoked.ended)
        foreign.append(revoked.foreign)
        return revoked

    try:
        in_doubt = [user for user in users if may_miss(end(user))]
        found_all = not in_doubt or look_through(in_doubt)
        for user in in_doubt:
            end(user)
    finally:
        log(request, list(dict.fromkeys(done)), _("Signed out all sessions."))
    total = sum(counts)
    text = ngettext("%(sessions)s session was signed out.", "%(sessions)s sessions were signed out.", total)
    messages.success(request, text % {"sessions": grouped(total)})
    if any(foreign):
        messages.warning(
            request, _("The store has records that none of this site's keys has made: they are left alone.")
        )
    if not found_all:
        messages.warning(
            request, _("There may be more: “manage.py sessions revoke-all --user NAME --repair” finds them.")
        )


def may_miss(revoked: Revoked) -> bool:
    """Whether sessions may be found by a look through the store: not if `complete` is `None` for what others made."""
    in_doubt = revoked.complete is None and not revoked.foreign and not user_sessions.is_moving()
    return revoked.complete is False or in_doubt


def look_through(users: list[Any]) -> bool:
    """Repair the index of these users in one bounded pass over all sessions; whether it was through."""
    user = users[0] if len(users) == 1 else None
    return user_sessions.repair_index(user, pages=REPAIR_PAGES).next is None


def log(request: Any, users: list[Any], message: str) -> None:
    if users:
        LogEntry.objects.log_actions(request.user.pk, users, CHANGE, message)
