"""Sites on which `request.session` is not what the engine has made, for test_foreign_sessions.py."""

from collections.abc import Callable
from typing import Any, ClassVar

from asgiref.sync import iscoroutinefunction
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends import cache
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.utils.decorators import sync_and_async_middleware

from django_multisession.decorators import no_touch

from . import urls


class Bare:
    """As little of a session as Django's middleware asks for."""

    accessed = modified = True
    session_key: str | None = None
    saved: ClassVar[list[str]] = []

    def is_empty(self) -> bool:
        return False

    def get_expire_at_browser_close(self) -> bool:
        return True

    def get(self, key: str, default: Any = None) -> Any:
        return default

    def save(self) -> None:
        self.session_key = "bare" * 8
        self.saved.append(self.session_key)


SESSIONS: dict[str, Callable[[], Any]] = {
    "dict": dict,
    "None": lambda: None,
    "Django's": cache.SessionStore,
    "bare": Bare,
    "empty": object,
}


class Site:
    session: ClassVar[Callable[[], Any]] = dict
    user: ClassVar[str | None] = None  # by a token, say


def _both_ways(change: Callable[[HttpRequest], None], at: str) -> Any:
    @sync_and_async_middleware
    def middleware(get_response: Any) -> Any:
        if iscoroutinefunction(get_response):

            async def amiddle(request: HttpRequest) -> Any:
                if at == "request":
                    change(request)
                response = await get_response(request)
                if at == "response":
                    change(request)
                return response

            return amiddle

        def middle(request: HttpRequest) -> Any:
            if at == "request":
                change(request)
            response = get_response(request)
            if at == "response":
                change(request)
            return response

        return middle

    return middleware


def _replace(request: Any) -> None:
    request.session = Site.session()


def _take_away(request: Any) -> None:
    del request.session


def _sign_in(request: Any) -> None:
    user = AnonymousUser() if Site.user is None else get_user_model()(pk=1, username=Site.user, is_superuser=True)
    user.is_staff = user.is_active = Site.user is not None

    async def auser() -> Any:
        return user

    request.user, request.auser = user, auser


replacing = _both_ways(_replace, "request")
replacing_late = _both_ways(_replace, "response")
taking_away = _both_ways(_take_away, "response")
by_token = _both_ways(_sign_in, "request")


@no_touch
def polled(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


@no_touch
async def apolled(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


def look_in(request: HttpRequest) -> HttpResponse:
    from django_multisession.user_sessions import not_an_authentication

    with not_an_authentication(request):
        return HttpResponse()


def broken(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=502)


async def abroken(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=502)


def modified(request: HttpRequest) -> HttpResponse:
    request.session.modified = True
    return HttpResponse()


async def amodified(request: HttpRequest) -> HttpResponse:
    request.session.modified = True  # not loaded yet
    return HttpResponse()


PAGES = (polled, apolled, look_in, broken, abroken, modified, amodified)
urlpatterns = [*urls.urlpatterns, path("sessions/", include("django_multisession.urls"))]
urlpatterns += [path(f"{page.__name__}/", page) for page in PAGES]
