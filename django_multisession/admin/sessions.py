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

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from .. import engine, user_sessions
from ..charts import grouped
from ..exceptions import EngineUnavailable
from ..models import Session
from ..user_sessions import UserSession, UserSessions, people
from . import ending, pages, session_charts
from .pages import CONTEXT, TEMPLATES, Crumbs

MOST_SHOWN = 200  # sessions of a user

View = Callable[..., HttpResponse]


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
        with_purges = engine.kind() in engine.IN_SQL and request.user.has_perm("django_multisession.view_purgerun")
        context = session_charts.overview(with_purges)
        active = [(user, self._url("user", user), seen) for user, seen in people.active(context["found"].active)]
        context |= {"active": active, "moving": user_sessions.is_moving()}
        return self._page(request, "overview", pages.sessions(), [], **context)

    @_permitted("view")
    def of_user(self, request: HttpRequest, user_id: str) -> HttpResponse:
        user, sessions = _user_and_sessions(request, user_id)
        return self._page(
            request,
            "user",
            _("Sessions of %(user)s") % {"user": pages.name_of(user)},
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
        if wanted and (refusal := ending.refusal(session)):
            messages.warning(request, refusal)
            return HttpResponseRedirect(self._page_of(request, user))
        if request.method != "POST":
            return self._ask(request, user, session, sessions)
        ending.end_one(request, user, session) if session else ending.end_all(request, [user])
        return HttpResponseRedirect(self._page_of(request, user))

    def unavailable(self, request: HttpRequest, error: Exception) -> HttpResponse:
        response = self._page(request, "unavailable", pages.sessions(), [], error=error)
        response.status_code = 503
        return response

    def _found(self, request: HttpRequest, query: str) -> HttpResponse:
        users = people.search(query, pages.MOST_FOUND + 1, self._found_by_the_site(request, query))
        if len(users) == 1:
            return HttpResponseRedirect(self._url("user", users[0]))
        found = [(user, self._url("user", user)) for user in users[: pages.MOST_FOUND]]
        more = len(users) > pages.MOST_FOUND
        return self._page(
            request, "found", pgettext(CONTEXT, "Users"), self._crumbs(), found=found, more=more, query=query
        )

    def _found_by_the_site(self, request: HttpRequest, query: str) -> Any:
        """By the `search_fields` of the site's admin of its users; `None` where that has none."""
        if not self.admin_site.is_registered(get_user_model()):
            return None
        users = self.admin_site.get_model_admin(get_user_model())
        if not users.get_search_fields(request):
            return None
        found, may_repeat = users.get_search_results(request, users.get_queryset(request), query)
        return found.distinct() if may_repeat else found

    def _ask(
        self, request: HttpRequest, user: Any, session: UserSession | None, sessions: UserSessions
    ) -> TemplateResponse:
        of_user = self._url("user", user), _("Sessions of %(user)s") % {"user": pages.name_of(user)}
        return self._page(
            request,
            "end",
            _("Sign out this session?") if session else _("Sign out all sessions?"),
            [*self._crumbs(), of_user],
            session=session,
            users=[user],
            count=grouped(sum(not each.is_current for each in sessions)) if sessions else "",
            hidden=[("session", session.id)] if session else [],
            back=of_user[0],
        )

    # Particulars

    def _page(self, request: HttpRequest, name: str, title: str, crumbs: Crumbs, **context: Any) -> TemplateResponse:
        return pages.page(self, request, f"{TEMPLATES}/{name}.html", title, crumbs, search_url=self._url(), **context)

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
        return [(self._url(), pages.sessions())]


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


def _named(id: str, sessions: UserSessions) -> UserSession | None:
    return next((session for session in sessions if session.id == id), None)
