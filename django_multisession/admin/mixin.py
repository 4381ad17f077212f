"""`EndSessionsMixin`, for the site's own admin of its users.

A mixin, since an action of the whole site (`AdminSite.add_action()`) would be offered on the list of every model: what
hides an action is a method of the list's own admin class.
"""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import flatten_fieldsets, quote
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from ..exceptions import EngineUnavailable
from ..models import Session
from . import ending, pages
from .pages import TEMPLATES

DELETE = "django_multisession.delete_session"
LINK = "sessions_link"


class EndSessionsMixin:
    """For the site's `ModelAdmin` of its users: the action "Sign out all sessions", for who may delete sessions, and on
    a user's page a link to the sessions, for who may view them.

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

    @admin.display(description=pgettext_lazy(pages.CONTEXT, "Sessions"))
    def sessions_link(self: Any, user: Any) -> str:
        name = "admin:django_multisession_session_user"
        url = reverse(name, args=[quote(user.pk)], current_app=self.admin_site.name)
        return format_html('<a href="{}">{}</a>', url, _("Sessions of %(user)s") % {"user": pages.name_of(user)})

    def has_end_sessions_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm(DELETE))

    @admin.action(permissions=["end_sessions"], description=gettext_lazy("Sign out all sessions"))
    def end_all_sessions(self: Any, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        if not request.POST.get("confirmed"):
            return _ask_of_users(self, request, queryset)
        try:
            ending.end_all(request, queryset.iterator())
        except (EngineUnavailable, ImproperlyConfigured) as error:
            messages.error(request, _unavailable(error))
        return None


def _may_view(model_admin: Any, request: HttpRequest) -> bool:
    site = model_admin.admin_site
    return bool(site.is_registered(Session) and site.get_model_admin(Session).has_view_permission(request))


def _ask_of_users(model_admin: Any, request: HttpRequest, queryset: Any) -> TemplateResponse:
    kept = ("action", "select_across", "index", ACTION_CHECKBOX_NAME)
    users = list(queryset[: pages.MOST_FOUND + 1])
    return pages.page(
        model_admin,
        request,
        f"{TEMPLATES}/end.html",
        _("Sign out all sessions?"),
        [(request.get_full_path(), capfirst(model_admin.opts.verbose_name_plural))],
        users=users[: pages.MOST_FOUND],
        more=queryset.count() - pages.MOST_FOUND if len(users) > pages.MOST_FOUND else 0,
        hidden=[(name, value) for name in kept for value in request.POST.getlist(name)] + [("confirmed", "yes")],
        back=request.get_full_path(),
    )


def _unavailable(error: Exception) -> str:
    return _("The session store did not answer, so not all was done: %(error)s") % {"error": error}
