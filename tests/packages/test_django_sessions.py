"""What Django's own tests of sessions ask of every engine, where those cannot be had: they are not in its wheel."""

from typing import Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory


def through_the_middleware(view: Any) -> Any:
    middleware = SessionMiddleware(view)
    call = async_to_sync(middleware) if iscoroutinefunction(view) else middleware
    return call(RequestFactory().get("/"))


def deleting(Store: Any) -> Any:
    def view(request: HttpRequest) -> HttpResponse:
        request.session = Store()
        request.session.save(must_create=True)
        request.session.delete()
        return HttpResponse()

    return view


def adeleting(Store: Any) -> Any:
    async def view(request: HttpRequest) -> HttpResponse:
        request.session = Store()
        await request.session.asave(must_create=True)
        await request.session.adelete()
        return HttpResponse()

    return view


def deleting_elsewhere(Store: Any) -> Any:
    def view(request: HttpRequest) -> HttpResponse:
        request.session = Store()
        request.session.save(must_create=True)
        Store(request.session.session_key).delete()
        return HttpResponse()

    return view


@pytest.mark.parametrize("view", [deleting, adeleting, deleting_elsewhere])
def test_session_update_error_redirect(Store, view):
    """Created, saved, and deleted before the response: no cookie is given out for it."""
    with pytest.raises(SessionInterrupted, match="deleted before the request completed"):
        through_the_middleware(view(Store))


def test_a_new_session_that_was_saved_by_the_view_gets_its_cookie(Store):
    def view(request: HttpRequest) -> HttpResponse:
        request.session = Store()
        request.session.save(must_create=True)
        return HttpResponse()

    response = through_the_middleware(view)
    assert Store().exists(response.cookies["sessionid"].value) is True
