"""Pages for test_looking_in.py: django-hijack's own, and those of a site that looks in as somebody without it."""

from django.contrib.auth import alogin, get_user_model, login
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from django_multisession.user_sessions import not_an_authentication

from . import urls


def look_in(request: HttpRequest, name: str) -> HttpResponse:
    with not_an_authentication(request):
        login(request, get_user_model().objects.get(username=name), backend=urls.BACKEND)
    return HttpResponse()


async def alook_in(request: HttpRequest, name: str) -> HttpResponse:
    with not_an_authentication(request):
        await alogin(request, await get_user_model().objects.aget(username=name), backend=urls.BACKEND)
    return HttpResponse()


urlpatterns = [
    *urls.urlpatterns,
    path("hijack/", include("hijack.urls")),
    path("look_in/<name>/", look_in),
    path("alook_in/<name>/", alook_in),
]
