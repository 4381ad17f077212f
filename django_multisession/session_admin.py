"""The sessions of the site in the admin, on any engine: an overview, a search by user, and ending sessions.

They hang on the admin of `models.Session`, which every site has, whichever the engine: its permissions, its line on
the index page and its URLs are what is needed, and its table is never asked. Lists of rows are not: with Redis and
MongoDB there are none, and with SQL they would show ids and delete past `session_ended`. Everything goes by
`user_sessions` and `statistics`, so a page is one or two round trips, or one bounded pass.

    view_session    the overview, the search, the sessions of a user
    delete_session  ending them, here and by `EndSessionsMixin`

That is a mixin, since an action of the whole site (`AdminSite.add_action()`) would be offered on the list of every
model: what hides an action is a method of the list's own admin class.
"""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import django
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import flatten_fieldsets, quote, unquote
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from . import people, session_charts, user_sessions
from .charts import grouped
from .exceptions import EngineUnavailable
from .models import Session
from .user_sessions import REPAIR_PAGES, Revoked, UserSession, UserSessions

MOST_FOUND = 50  # users that a search shows
MOST_SHOWN = 200  # sessions of a user
DELETE = "django_multisession.delete_session"
LINK = "sessions_link"
TEMPLATES = "admin/django_multisession/session"

View = Callable[..., HttpResponse]
Crumbs = list[tuple[str, Any]]


def _permitted(permission: str) -> Callable[[View], View]:
    def decorate(view: View) -> View:
        @wraps(view)
        def checked(self: "SessionAdmin", request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not getattr(self, f"has_{permission}_permission")(request):
                raise PermissionDenied
            try:
                return view(self, request, *args, **kwargs)
            except (EngineUnavailable, ImproperlyConfigured) as error:
                return self.unavailable(request, error)

        return checked

    return decorate


class SessionAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    class Media:
        css = {"all": ["django_multisession/charts.css", "django_multisession/admin.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Session | None = None) -> bool:
        return False

    def get_urls(self) -> list[URLPattern]:
        pages = {
            "": (self.overview, "changelist"),
            "user/<str:user_id>/": (self.of_user, "user"),
            "user/<str:user_id>/end/": (self.end, "end"),
        }
        return [
            path(route, self.admin_site.admin_view(view), name=f"django_multisession_session_{name}")
            for route, (view, name) in pages.items()
        ]

    # Pages

    @_permitted("view")
    def overview(self, request: HttpRequest) -> HttpResponse:
        if query := request.GET.get("q", "").replace("\0", "").strip():
            return self._found(request, query)
        with_purges = request.user.has_perm("django_multisession.view_purgerun")
        return self._page(request, "overview", _("Sessions"), [], **session_charts.overview(with_purges))

    @_permitted("view")
    def of_user(self, request: HttpRequest, user_id: str) -> HttpResponse:
        user, sessions = _user_and_sessions(request, user_id)
        return self._page(
            request,
            "user",
            _("Sessions of %(user)s") % {"user": _name(user)},
            self._crumbs(),
            sessions=sessions[:MOST_SHOWN],
            more=max(0, len(sessions) - MOST_SHOWN),
            complete=sessions.complete,
            foreign=sessions.foreign,
            moving=user_sessions.is_moving(),
            can_end=self.has_delete_permission(request),
            own=any(session.is_current for session in sessions),
            others=any(not session.is_current for session in sessions),
            end_url=self._url("end", user),
        )

    @_permitted("delete")
    def end(self, request: HttpRequest, user_id: str) -> HttpResponse:
        """One session, where the form or the query names it, else all. It asks first; only a POST ends anything."""
        user, sessions = _user_and_sessions(request, user_id)
        wanted = request.POST.get("session") or request.GET.get("session")
        session = _named(wanted, sessions) if wanted else None
        if wanted and (refusal := _refusal(session)):
            messages.warning(request, refusal)
            return HttpResponseRedirect(self._page_of(request, user))
        if request.method != "POST":
            return self._ask(request, user, session, sessions)
        _end_one(request, user, session) if session else _end_all(request, [user])
        return HttpResponseRedirect(self._page_of(request, user))

    def unavailable(self, request: HttpRequest, error: Exception) -> HttpResponse:
        response = self._page(request, "unavailable", _("Sessions"), [], error=error)
        response.status_code = 503
        return response

    def _found(self, request: HttpRequest, query: str) -> HttpResponse:
        users = people.search(query, MOST_FOUND + 1)
        if len(users) == 1:
            return HttpResponseRedirect(self._url("user", users[0]))
        found = [(user, self._url("user", user)) for user in users[:MOST_FOUND]]
        more = len(users) > MOST_FOUND
        return self._page(request, "found", _("Users"), self._crumbs(), found=found, more=more, query=query)

    def _ask(
        self, request: HttpRequest, user: Any, session: UserSession | None, sessions: UserSessions
    ) -> TemplateResponse:
        of_user = self._url("user", user), _("Sessions of %(user)s") % {"user": _name(user)}
        return self._page(
            request,
            "end",
            _("End this session?") if session else _("End all sessions?"),
            [*self._crumbs(), of_user],
            session=session,
            users=[user],
            count=grouped(sum(not each.is_current for each in sessions)) if sessions else "",
            hidden=[("session", session.id)] if session else [],
            back=of_user[0],
        )

    # Particulars

    def _page(self, request: HttpRequest, name: str, title: str, crumbs: Crumbs, **context: Any) -> TemplateResponse:
        return _page(self, request, f"{TEMPLATES}/{name}.html", title, crumbs, search_url=self._url(), **context)

    def _url(self, page: str = "changelist", user: Any = None) -> str:
        arguments = [] if user is None else [quote(user.pk)]
        name = f"admin:django_multisession_session_{page}"
        return reverse(name, args=arguments, current_app=self.admin_site.name)

    def _page_of(self, request: HttpRequest, user: Any) -> str:
        """Where to go after something was ended: who may not view sessions is not sent to a refusal."""
        if self.has_view_permission(request):
            return self._url("user", user)
        return reverse("admin:index", current_app=self.admin_site.name)

    def _crumbs(self) -> Crumbs:
        return [(self._url(), _("Sessions"))]


class EndSessionsMixin:
    """For the site's `ModelAdmin` of its users: the action "End all sessions", for who may delete sessions, and on a
    user's page a link to the sessions, for who may view them.

    A class that has `actions` of its own adds "end_all_sessions" to them.
    """

    actions: Any = ("end_all_sessions",)

    def get_readonly_fields(self: Any, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_readonly_fields(request, obj)  # type: ignore[misc]
        return [*fields, LINK] if obj and _may_view(self, request) else fields

    def get_fieldsets(self: Any, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)  # type: ignore[misc]
        has_it = LINK in flatten_fieldsets(fieldsets)  # a class without fieldsets or fields shows all that is read-only
        if not obj or has_it or not _may_view(self, request):
            return fieldsets
        return [*fieldsets, (None, {"fields": [LINK]})]

    @admin.display(description=gettext_lazy("Sessions"))
    def sessions_link(self: Any, user: Any) -> str:
        name = "admin:django_multisession_session_user"
        url = reverse(name, args=[quote(user.pk)], current_app=self.admin_site.name)
        return format_html('<a href="{}">{}</a>', url, _("Sessions of %(user)s") % {"user": _name(user)})

    def has_end_sessions_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm(DELETE))

    @admin.action(permissions=["end_sessions"], description=gettext_lazy("End all sessions"))
    def end_all_sessions(self: Any, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        if not request.POST.get("confirmed"):
            return _ask_of_users(self, request, queryset)
        try:
            _end_all(request, queryset.iterator())
        except (EngineUnavailable, ImproperlyConfigured) as error:
            messages.error(request, _unavailable(error))
        return None


def _may_view(model_admin: Any, request: HttpRequest) -> bool:
    site = model_admin.admin_site
    return bool(site.is_registered(Session) and site.get_model_admin(Session).has_view_permission(request))


def _ask_of_users(model_admin: Any, request: HttpRequest, queryset: Any) -> TemplateResponse:
    kept = ("action", "select_across", "index", ACTION_CHECKBOX_NAME)
    users = list(queryset[: MOST_FOUND + 1])
    return _page(
        model_admin,
        request,
        f"{TEMPLATES}/end.html",
        _("End all sessions?"),
        [(request.get_full_path(), capfirst(model_admin.opts.verbose_name_plural))],
        users=users[:MOST_FOUND],
        more=queryset.count() - MOST_FOUND if len(users) > MOST_FOUND else 0,
        hidden=[(name, value) for name in kept for value in request.POST.getlist(name)] + [("confirmed", "yes")],
        back=request.get_full_path(),
    )


def _page(
    model_admin: Any, request: Any, template: str, title: str, crumbs: Crumbs, **context: Any
) -> TemplateResponse:
    request.current_app = model_admin.admin_site.name
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "media": model_admin.media,
        "title": title,
        "crumbs": crumbs,
        "crumbs_are_a_list": django.VERSION >= (6, 1),  # as the stylesheet of the admin wants them
        **context,
    }
    return TemplateResponse(request, template, context)


def _user_and_sessions(request: HttpRequest, user_id: str) -> tuple[Any, UserSessions]:
    """Of somebody who was deleted, sessions may be left: then the user is an object that has a primary key only."""
    model = get_user_model()
    try:
        pk = people.as_pk(unquote(user_id))
    except LookupError as error:
        raise Http404 from error
    user = model._default_manager.filter(pk=pk).first()
    sessions = user_sessions.sessions_of(user or pk, request)
    if user is None and not sessions:
        raise Http404
    return user or model(pk=pk), sessions


def _name(user: Any) -> str:
    return str(user) or str(user.pk)


def _named(id: str, sessions: UserSessions) -> UserSession | None:
    return next((session for session in sessions if session.id == id), None)


def _refusal(session: UserSession | None) -> str | None:
    if session is None:
        return _("This session has ended already.")
    return _("This is your own session: log out instead.") if session.is_current else None


def _end_one(request: HttpRequest, user: Any, session: UserSession) -> None:
    if not user_sessions.revoke(user, session.id):
        return messages.warning(request, _("This session has ended already."))
    named = {"id": session.id, "device": session.device or _("unknown device")}
    _log(request, [user], _("Ended the session %(id)s (%(device)s).") % named)
    messages.success(request, _("The session was ended."))


def _end_all(request: HttpRequest, users: Iterable[Any]) -> None:
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
        in_doubt = [user for user in users if _may_miss(end(user))]
        found_all = not in_doubt or _look_through(in_doubt)
        for user in in_doubt:
            end(user)
    finally:
        _log(request, list(dict.fromkeys(done)), _("Ended all sessions."))
    total = sum(counts)
    text = ngettext("%(sessions)s session was ended.", "%(sessions)s sessions were ended.", total)
    messages.success(request, text % {"sessions": grouped(total)})
    if any(foreign):
        messages.warning(
            request, _("The store has records that none of this site's keys has made: they are left alone.")
        )
    if not found_all:
        messages.warning(
            request, _("There may be more: “manage.py sessions revoke-all --user NAME --repair” finds them.")
        )


def _may_miss(revoked: Revoked) -> bool:
    """Whether sessions may be found by a look through the store: not if `complete` is `None` for what others made."""
    in_doubt = revoked.complete is None and not revoked.foreign and not user_sessions.is_moving()
    return revoked.complete is False or in_doubt


def _look_through(users: list[Any]) -> bool:
    """Repair the index of these users in one bounded pass over all sessions; whether it was through."""
    user = users[0] if len(users) == 1 else None
    return user_sessions.repair_index(user, pages=REPAIR_PAGES).next is None


def _log(request: Any, users: list[Any], message: str) -> None:
    if users:
        LogEntry.objects.log_actions(request.user.pk, users, CHANGE, message)


def _unavailable(error: Exception) -> str:
    return _("The session store did not answer, so not all was done: %(error)s") % {"error": error}
