"""The pages of the site: all that is done with sessions, on both faces, and what the process holds.

Written for 0.1.0 as well, whose processes serve the same site.
"""

import asyncio
import gc
import os
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from django.contrib.auth import aget_user, alogin, alogout, get_user_model, login, logout
from django.http import HttpRequest, JsonResponse
from django.urls import path

import django_multisession
from django_multisession import user_sessions

BACKEND = "django.contrib.auth.backends.ModelBackend"
PAUSE = 0.1  # seconds between the load of a session and its save: others come in between

# Classes by a name in their MRO: no isinstance(), which would ask lazy objects for their class.
COUNTED = {
    "database connections": {"BaseDatabaseWrapper"},
    "cursors": {"CursorWrapper", "CursorDebugWrapper"},
    "sessions": {"SessionBase"},
    "event loops": {"AbstractEventLoop"},
    "redis connections": {"AbstractConnection"},
    "mongo clients": {"MongoClient", "AsyncMongoClient"},
}


def sign_in(request: HttpRequest, name: str) -> JsonResponse:
    login(request, get_user_model().objects.get(username=name), backend=BACKEND)
    return _state(request)


async def asign_in(request: HttpRequest, name: str) -> JsonResponse:
    await alogin(request, await get_user_model().objects.aget(username=name), backend=BACKEND)
    return await _astate(request)


def sign_out(request: HttpRequest) -> JsonResponse:
    logout(request)
    return _state(request)


async def asign_out(request: HttpRequest) -> JsonResponse:
    await alogout(request)
    return await _astate(request)


def look(request: HttpRequest) -> JsonResponse:
    return _state(request)


async def alook(request: HttpRequest) -> JsonResponse:
    return await _astate(request)


def put(request: HttpRequest, key: str) -> JsonResponse:
    request.session[key] = True
    return _state(request)


async def aput(request: HttpRequest, key: str) -> JsonResponse:
    await request.session.aset(key, True)
    return await _astate(request)


def slow_put(request: HttpRequest, key: str) -> JsonResponse:
    request.session.get(key)
    time.sleep(PAUSE)
    return put(request, key)


async def aslow_put(request: HttpRequest, key: str) -> JsonResponse:
    await request.session.aget(key)
    await asyncio.sleep(PAUSE)
    return await aput(request, key)


def cycle(request: HttpRequest) -> JsonResponse:
    request.session.cycle_key()
    return _state(request)


async def acycle(request: HttpRequest) -> JsonResponse:
    await request.session.acycle_key()
    return await _astate(request)


def expire_in(request: HttpRequest, seconds: int) -> JsonResponse:
    request.session.set_expiry(seconds)
    return _state(request)


def listed(request: HttpRequest) -> JsonResponse:
    sessions = user_sessions.sessions_of(request.user, request)
    return JsonResponse({"complete": sessions.complete, "sessions": [[each.id, each.is_current] for each in sessions]})


def revoke(request: HttpRequest, id: str) -> JsonResponse:
    return JsonResponse({"ended": user_sessions.revoke(request.user, id)})


def revoke_all(request: HttpRequest) -> JsonResponse:
    revoked = user_sessions.revoke_all(request.user, keep=request)
    return JsonResponse({"ended": revoked.ended, "complete": revoked.complete})


def version(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"package": django_multisession.__file__})


def held(request: HttpRequest) -> JsonResponse:
    """What the process holds now: garbage is collected first."""
    gc.collect()
    kinds = Counter(map(type, gc.get_objects()))
    counts = {name: sum(_of(classes, kinds)) for name, classes in COUNTED.items()}
    return JsonResponse({"pid": os.getpid(), "counts": {**counts, "objects": kinds.total()}})


def _of(classes: set[str], kinds: Counter[type]) -> Iterable[int]:
    return (number for kind, number in kinds.items() if any(base.__name__ in classes for base in kind.__mro__))


def _state(request: Any) -> JsonResponse:
    return JsonResponse({"user": request.user.get_username(), "keys": _keys(dict(request.session.items()))})


async def _astate(request: Any) -> JsonResponse:
    user = await aget_user(request)
    return JsonResponse({"user": user.get_username(), "keys": _keys(dict(await request.session.aitems()))})


def _keys(data: dict[str, Any]) -> list[str]:
    return sorted(key for key in data if not key.startswith("_"))


PLAIN = (sign_out, asign_out, look, alook, cycle, acycle, listed, revoke_all, version, held)
urlpatterns = [path(f"{page.__name__}/", page) for page in PLAIN]
urlpatterns += [path(f"{page.__name__}/<name>/", page) for page in (sign_in, asign_in)]
urlpatterns += [path(f"{page.__name__}/<key>/", page) for page in (put, aput, slow_put, aslow_put)]
urlpatterns += [path("expire_in/<int:seconds>/", expire_in), path("revoke/<id>/", revoke)]
