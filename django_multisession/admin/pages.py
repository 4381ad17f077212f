"""What the pages of the sessions in the admin have in common."""

from typing import Any

import django
from django import forms
from django.template.response import TemplateResponse
from django.utils.translation import pgettext

MOST_FOUND = 50  # users that a search shows
CONTEXT = "django_multisession"  # of titles of one word, which other apps of a site translate as well
STYLES = forms.Media(css={"all": ["django_multisession/admin.css"]})
TEMPLATES = "admin/django_multisession/session"
Crumbs = list[tuple[str, Any]]


def page(model_admin: Any, request: Any, template: str, title: str, crumbs: Crumbs, **context: Any) -> TemplateResponse:
    request.current_app = model_admin.admin_site.name
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "media": model_admin.media + STYLES,  # the admin of the site's users has none of ours
        "title": title,
        "crumbs": crumbs,
        "crumb_of_app": model_admin.opts.app_label != CONTEXT,  # which is called as its page is
        "crumbs_are_a_list": django.VERSION >= (6, 1),  # as the stylesheet of the admin wants them
        **context,
    }
    return TemplateResponse(request, template, context)


def sessions() -> str:
    return pgettext(CONTEXT, "Sessions")


def name_of(user: Any) -> str:
    return str(user) or str(user.pk)
