"""What a request is answered that cannot have its session, or whose log-in was refused: a page, or JSON where asked.

Errors in JSON are `{"error": <a word for programs>, "detail": <a sentence for people>}`.

The token with which a refused log-in may sign out the oldest session names that one session. So it works once without
being kept anywhere: what it names is gone then. It is signed, good for `TOKEN_AGE`, and signs nobody in.
"""

import json
import logging
import re
import time
from collections.abc import Sequence
from threading import Lock
from typing import Any, TypeVar

from django.core import signing
from django.http import HttpResponse, JsonResponse
from django.template import TemplateDoesNotExist, loader
from django.urls import NoReverseMatch, reverse
from django.utils.cache import add_never_cache_headers, patch_vary_headers
from django.utils.log import log_response
from django.utils.translation import gettext as _

from .exceptions import TooManySessions

Response = TypeVar("Response", bound=HttpResponse)

HTML = "text/html"
JSON = "application/json"
RETRY_AFTER = 10  # seconds
UNAVAILABLE = "503.html", "django_multisession/503.html"  # the site's own first
REFUSED = "django_multisession/refused.html"
TOKEN_AGE = 300  # seconds
SALT = "django_multisession.sign_out_oldest"
QUIET = 60  # seconds in which an outage is not told again
MOST_TOLD = 50  # outages in that time, each by its error's text
VARYING = re.compile(r"\b[0-9a-f]{12,}\b|\b\d+\.\d+(?=[,\s>])")  # in pymongo's text: a client's id, times in seconds

logger = logging.getLogger("django_multisession")
_told: dict[str, float] = {}  # when, by the monotonic clock
_telling = Lock()


def wants_json(request: Any) -> bool:
    """By the header `Accept`, whatever parameters its JSON has, as a version. What leaves it open gets HTML."""
    if request.method == "DELETE":
        return True
    asked = request.accepted_types  # the preferred one first
    in_json = next((each for each in asked if f"{each.main_type}/{each.sub_type}" == JSON), request.accepted_type(JSON))
    in_html = request.accepted_type(HTML)
    if in_json is None or in_html is None:
        return in_json is not None
    return bool(asked.index(in_json) < asked.index(in_html))


def given(request: Any, name: str) -> str:
    """A field of a form, or of an object in JSON; empty where it is not there."""
    if request.content_type != JSON:
        return str(request.POST.get(name, ""))
    try:
        text = str(json.loads(request.body)[name])
        text.encode()  # half of a surrogate pair is no text
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return text


def error(status: int, name: str, detail: str, **more: Any) -> JsonResponse:
    return _finished(JsonResponse({"error": name, "detail": detail, **more}, status=status))


def not_allowed(methods: Sequence[str]) -> JsonResponse:
    response = error(405, "method_not_allowed", _("Use one of: %(methods)s.") % {"methods": ", ".join(methods)})
    response.headers["Allow"] = ", ".join(methods)
    return response


def _finished(response: Response) -> Response:
    patch_vary_headers(response, ("Accept", "Cookie"))
    add_never_cache_headers(response)
    return response


# A store that is away


def unavailable(request: Any, why: Exception | None = None) -> HttpResponse:
    """503: JSON, or the site's template 503.html, or ours."""
    if wants_json(request):
        response: HttpResponse = error(503, "unavailable", _("Please try again in a moment."))
    else:
        response = _finished(HttpResponse(_unavailable_page(), status=503))
    response.headers["Retry-After"] = str(RETRY_AFTER)
    if why is not None and _is_news(str(why)):
        log_response("Sessions unavailable: %s (%s)", why, request.path, response=response, request=request)
    response._has_been_logged = True  # type: ignore[attr-defined]  # else Django logs each of thousands of requests
    return response


def _unavailable_page() -> str:
    """An outage is told whatever else is wrong: where the site's template fails, ours takes its place."""
    for name in UNAVAILABLE:
        try:
            return str(loader.get_template(name).render())  # with no request: its context may ask for the session
        except Exception as error:
            is_there = not isinstance(error, TemplateDoesNotExist) or error.args[0] != name  # but not what it extends
            if is_there and _is_news(f"{name}: {error}"):
                logger.exception("The template %s has failed.", name)
    return "<h1>Service Unavailable</h1>"  # the app is not installed


def _is_news(outage: str) -> bool:
    """One line per outage and minute: with a line for each request the log would be the next to fail."""
    with _telling:
        now = time.monotonic()
        for told in [each for each, when in _told.items() if now - when >= QUIET]:
            del _told[told]
        if len(_told) >= MOST_TOLD or (outage := VARYING.sub("", outage)) in _told:
            return False
        _told[outage] = now
        return True


# A log-in beyond the limit


def refused(request: Any, why: TooManySessions) -> HttpResponse:
    """403, or 409 in JSON; it offers to sign out the oldest session where the package's pages are among the URLs."""
    url, token = _url_to_sign_out(), token_of(why)
    if wants_json(request):
        offer = {"sign_out_oldest": {"url": url, "token": token}} if url and token else {}
        return error(409, "too_many_sessions", _why(why.limit), limit=why.limit, **offer)
    # With no request here too: login() has put a user into it who is not signed in.
    context = {"limit": why.limit, "why": _why(why.limit), "url": url, "token": token, "minutes": TOKEN_AGE // 60}
    try:
        return _finished(HttpResponse(loader.get_template(REFUSED).render(context), status=403))
    except TemplateDoesNotExist:  # the app is not installed
        return _finished(HttpResponse(_why(why.limit), status=403, content_type="text/plain; charset=utf-8"))


def _why(limit: int) -> str:
    return _("You are signed in on as many devices as are allowed (%(limit)d).") % {"limit": limit}


def _url_to_sign_out() -> str | None:
    try:
        return reverse("django_multisession:sign_out_oldest")
    except NoReverseMatch:
        return None


def token_of(why: TooManySessions) -> str | None:
    if why.user_id is None or why.oldest is None:
        return None
    return signing.dumps([why.user_id, why.oldest], salt=SALT)


def named_by(token: str) -> tuple[str, str]:
    """The user id, and the id of the session. Raises `signing.BadSignature` for what is forged or too old."""
    user_id, id = signing.loads(token, salt=SALT, max_age=TOKEN_AGE)
    return user_id, id
