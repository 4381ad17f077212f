"""The pages that whole requests ask for."""

from itertools import count
from typing import Any

from django.http import HttpResponse
from django.urls import path

from benchmarks.engines import data

numbers = count(10**6)
signed_in_as = data.auth(1)


def nothing(request: Any) -> HttpResponse:
    return HttpResponse("ok")


def read(request: Any) -> HttpResponse:
    return HttpResponse(str(request.session["visits"]))


def write(request: Any) -> HttpResponse:
    request.session["visits"] = next(numbers)
    return HttpResponse("ok")


def log_in(request: Any) -> HttpResponse:
    request.session.cycle_key()
    for name, value in signed_in_as.items():
        request.session[name] = value
    return HttpResponse("ok")


async def awrite(request: Any) -> HttpResponse:
    if hasattr(request, "session"):
        await request.session.aset("visits", next(numbers))
    return HttpResponse("ok")


urlpatterns = [
    path("nothing", nothing),
    path("read", read),
    path("write", write),
    path("log-in", log_in),
    path("awrite", awrite),
]
