"""Pages for the tests that go through Django's request and response."""

from typing import Any

from django.contrib import admin
from django.contrib.auth import (
    alogin,
    alogout,
    aupdate_session_auth_hash,
    authenticate,
    get_user_model,
    login,
    logout,
    update_session_auth_hash,
)
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from django_multisession.decorators import require_recent_login

from .routers import SessionRouter

BACKEND = "django.contrib.auth.backends.ModelBackend"


def sign_in(request: HttpRequest) -> HttpResponse:
    login(request, authenticate(username="ann", password="secret"))
    return HttpResponse()


async def asign_in(request: HttpRequest) -> HttpResponse:
    from asgiref.sync import sync_to_async

    await alogin(request, await sync_to_async(authenticate)(username="ann", password="secret"))
    await request.session.aset("async", True)
    await request.session.asave()
    return HttpResponse()


def change_password(request: HttpRequest) -> HttpResponse:
    request.user.set_password("secret")
    request.user.save()
    update_session_auth_hash(request, request.user)
    return HttpResponse()


def sign_in_as(request: HttpRequest, name: str) -> HttpResponse:
    login(request, get_user_model().objects.get(username=name), backend=BACKEND)
    return HttpResponse()


async def asign_in_as(request: HttpRequest, name: str) -> HttpResponse:
    await alogin(request, await get_user_model().objects.aget(username=name), backend=BACKEND)
    return HttpResponse()


@require_recent_login("15m")
def recent(request: HttpRequest) -> HttpResponse:
    return HttpResponse("sensitive")


@require_recent_login("15m")
async def arecent(request: HttpRequest) -> HttpResponse:
    return HttpResponse("sensitive")


@transaction.atomic
def change_password_in_a_transaction(request: HttpRequest) -> HttpResponse:
    return change_password(request)


async def achange_password(request: HttpRequest) -> HttpResponse:
    user = await request.auser()
    user.set_password("secret")
    await user.asave()
    request.user = user  # else Django 5.2's code looks it up here, synchronously
    await aupdate_session_auth_hash(request, user)
    return HttpResponse()


def change_others_password(request: HttpRequest, name: str) -> HttpResponse:
    user = get_user_model().objects.get(username=name)
    user.set_password("new")
    user.save()
    return HttpResponse()


def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse()


async def asign_out(request: HttpRequest) -> HttpResponse:
    await alogout(request)
    return HttpResponse()


def count(request: HttpRequest) -> HttpResponse:
    request.session["count"] = request.session.get("count", 0) + 1
    return _state(request)


def look(request: HttpRequest) -> HttpResponse:
    return _state(request)


def _state(request: Any) -> HttpResponse:
    return JsonResponse({"user": request.user.get_username(), "count": request.session.get("count")})


def fail_in_the_view(request: HttpRequest) -> HttpResponse:
    """Rolled back by ATOMIC_REQUESTS, yet answered with less than 500: the session is saved after it."""
    request.session["count"] = 99
    if "save" in request.GET:
        request.session.save()
    transaction.set_rollback(True, using=SessionRouter.alias)
    return HttpResponse()


def fail_after(request: HttpRequest, what: str) -> HttpResponse:
    """A 5xx after the session was worked on."""
    {
        "signing_in": lambda: login(request, authenticate(username="ann", password="secret")),
        "password": lambda: change_password(request),
        "signing_out": lambda: logout(request),
        "counting": lambda: count(request),
    }[what]()
    return HttpResponse(status=502)


def fail_in_a_transaction(request: HttpRequest, what: str) -> HttpResponse:
    """The same, all that was done in the database being undone."""
    with transaction.atomic(using=SessionRouter.alias):
        response = fail_after(request, what)
        transaction.set_rollback(True, using=SessionRouter.alias)
    return response


def count_in_a_transaction(request: HttpRequest) -> HttpResponse:
    request.session.get("count")
    with transaction.atomic(using=SessionRouter.alias):
        return count(request)


async def acount(request: HttpRequest) -> HttpResponse:
    count = await request.session.aget("count", 0) + 1
    await request.session.aset("count", count)
    return JsonResponse({"count": count})


async def acount_of_user(request: HttpRequest) -> HttpResponse:
    user = await request.auser()
    await acount(request)
    return JsonResponse({"user": user.get_username()})


async def alook(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"count": await request.session.aget("count")})


async def auntouched(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


def unhandled(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("a bug")


def untouched(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


PAGES = (
    sign_in,
    asign_in,
    change_password,
    sign_out,
    asign_out,
    count,
    look,
    count_in_a_transaction,
    fail_in_the_view,
    untouched,
    acount,
    acount_of_user,
    alook,
    auntouched,
    unhandled,
    recent,
    arecent,
    achange_password,
    change_password_in_a_transaction,
)
urlpatterns = [path(f"{page.__name__}/", page) for page in PAGES]
urlpatterns += [
    path("admin/", admin.site.urls),
    path("fail_after/<what>/", fail_after),
    path("fail_in_a_transaction/<what>/", fail_in_a_transaction),
    path("sign_in_as/<name>/", sign_in_as),
    path("asign_in_as/<name>/", asign_in_as),
    path("change_others_password/<name>/", change_others_password),
]
