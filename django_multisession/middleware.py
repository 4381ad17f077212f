"""`SessionMiddleware`, in place of Django's: the same cookies, and five things more.

- On an asynchronous server nothing of it runs in a thread: the session is saved by `asave()`.
- After an error of the site (5xx) the browser still learns a key that was changed in the request, as a log-in does:
  the old one is dead.
- A store that cannot be reached (`EngineUnavailable`) is answered with a 503, and the cookie stays as it is.
- A log-in that is refused (`TooManySessions`) is answered with a page that says why.
- With `SESSION_SAVE_EVERY_REQUEST` a save that has not asked the store sends no cookie: its key may be dead by now.

Which cookie is sent, and when, is decided by Django's `process_response()`, which runs here as it is. What other
middleware has put into `request.session`, a dict or a session of another engine, is treated as Django does.
"""

import logging
import sys
from contextvars import ContextVar
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.sessions import middleware
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.core.signals import got_request_exception
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import import_string

from .conf import conf
from .exceptions import EngineUnavailable, TooManySessions
from .responses import refused, unavailable

current: ContextVar[Any] = ContextVar("django_multisession.request", default=None)  # the request that is worked on
FAILURE = "_session_unavailable"  # of a request; it is there while this middleware is at work


class SessionMiddleware(middleware.SessionMiddleware):
    def process_request(self, request: Any) -> None:
        super().process_request(request)
        setattr(request, FAILURE, None)
        if conf.ON_CLIENT_CHANGE != "ignore":
            request.session._watched = True

    def process_response(self, request: Any, response: Any) -> Any:
        if (why := _failure(request)) is not None:
            return unavailable(request, why)
        try:
            known = _is_certain(request, response) or request.session.exists(request.session.session_key)
            if self._wants_save(request, response, known):
                request.session.save()
                _name(request, response)
        except UpdateError as error:
            raise SessionInterrupted(str(error)) from error
        except (EngineUnavailable, TooManySessions) as error:
            return self.process_exception(request, error)
        return response

    async def aprocess_response(self, request: Any, response: Any) -> Any:
        if (why := _failure(request)) is not None:
            return unavailable(request, why)
        try:
            await _load_to_save(request)
            known = _is_certain(request, response) or await request.session.aexists(request.session.session_key)
            if self._wants_save(request, response, known):
                await _asave(request.session)
                _name(request, response)
        except UpdateError as error:
            raise SessionInterrupted(str(error)) from error
        except (EngineUnavailable, TooManySessions) as error:
            return self.process_exception(request, error)
        return response

    def __call__(self, request: HttpRequest) -> Any:
        token = current.set(request)
        try:
            return super().__call__(request)
        finally:
            current.reset(token)

    async def __acall__(self, request: HttpRequest) -> Any:
        current.set(request)  # of this task: an asynchronous __call__() has only made the coroutine
        self.process_request(request)
        return await self.aprocess_response(request, await self.get_response(request))  # type: ignore[misc]

    def process_exception(self, request: Any, exception: Exception) -> HttpResponse | None:
        """A view could not have its session, or has saved one that was refused."""
        if isinstance(exception, TooManySessions):
            return refused(request, exception)
        return unavailable(request, exception) if isinstance(exception, EngineUnavailable) else None

    def _wants_save(self, request: Any, response: Any, known: bool) -> bool:
        """Let Django set or delete the cookie, and answer whether it wants the session saved.

        `known`: whether the store knows the session's key.
        """
        if (session := getattr(request, "session", None)) is None:
            return False
        status, cookie = response.status_code, request.COOKIES.get(settings.SESSION_COOKIE_NAME)
        request.session = unsaved = _Unsaved(session)
        if known and status >= 500 and getattr(session, "session_key", None) not in (None, cookie):
            response.status_code = 200  # else Django would not tell the browser its new key
        try:
            super().process_response(request, response)
        finally:
            request.session, response.status_code = session, status
        return unsaved.asked and status < 500


def _is_certain(request: Any, response: Any) -> bool:
    """`False` after an error, where the key was changed in a transaction that may be rolled back by now: the old one,
    which the browser has, lives then."""
    return response.status_code < 500 or getattr(getattr(request, "session", None), "_committed", True)


class _Unsaved:
    """A session that notes that it should be saved, and leaves that to somebody who may wait for it."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.asked = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def save(self) -> None:
        self.asked = True


def _name(request: Any, response: Any) -> None:
    """Put the key into the cookie: a new session has none before it is saved.

    Where the save has not asked the store, the browser may have a newer key by now: it keeps the cookie that it has.
    """
    name, session = settings.SESSION_COOKIE_NAME, request.session
    if getattr(session, "_silent", False) and request.COOKIES.get(name) == session.session_key:
        del response.cookies[name]
    else:
        response.cookies[name] = session.session_key


async def _asave(session: Any) -> None:
    await (session.asave() if hasattr(session, "asave") else sync_to_async(session.save)())


async def _load_to_save(request: Any) -> None:
    """Django's code is going to ask for the expiry, which would load the session here and now, in the event loop."""
    session = getattr(request, "session", None)
    if not isinstance(session, SessionBase) or session.is_empty():
        return
    if session.modified or settings.SESSION_SAVE_EVERY_REQUEST:
        accessed = session.accessed
        await session._aget_session()  # type: ignore[attr-defined]
        session.accessed = accessed


def _failure(request: Any) -> EngineUnavailable | None:
    """What `_note()` has noted; it notes nothing more of what fails outside of this middleware."""
    failure: EngineUnavailable | None = vars(request).pop(FAILURE, None)
    return failure


def _note(request: Any = None, **kwargs: Any) -> None:
    """Middleware between this one and the view, such as LoginRequiredMiddleware, failed: Django made a 500 of it."""
    if hasattr(request, FAILURE) and isinstance(error := sys.exc_info()[1], EngineUnavailable):
        setattr(request, FAILURE, error)


def _is_news(record: logging.LogRecord) -> bool:
    """Not a traceback per request: of what was noted `unavailable()` is going to tell."""
    noted = getattr(getattr(record, "request", None), FAILURE, None)
    return noted is None or record.exc_info is None or record.exc_info[1] is not noted


got_request_exception.connect(_note, dispatch_uid="django_multisession")
logging.getLogger("django.request").addFilter(_is_news)


def knows_requests() -> bool:
    """Whether the package's middleware is there, which says whose request it is that changes a password."""
    return any(is_middleware(path, SessionMiddleware) for path in settings.MIDDLEWARE)


def is_middleware(path: str, kind: type) -> bool:
    try:
        found = import_string(path)
    except ImportError:  # as Django will say
        return False
    return isinstance(found, type) and issubclass(found, kind)
