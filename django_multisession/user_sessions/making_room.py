"""What a refused log-in offers: to sign out the oldest session, by the token of `responses.refused()`.

Nobody is signed in here, and nobody is by this: whoever has signed in rightly, and was refused, has been given a token
that names one session. So it needs no CSRF token besides: who has it may use it, and it works once.
"""

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.core.signing import BadSignature
from django.http import HttpRequest, HttpResponse
from django.shortcuts import resolve_url
from django.template import loader
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from ..responses import REFUSED, error, given, named_by, wants_json
from . import revoke


@csrf_exempt
@login_not_required
@never_cache
@require_POST
def sign_out_oldest(request: HttpRequest) -> HttpResponse:
    try:
        user_id, id = named_by(given(request, "token"))
    except BadSignature:
        return _answer(request, 400, "bad_token", _("This offer has expired. Please sign in again."))
    if not revoke(user_id, id):
        return _answer(request, 404, "not_found", _("That session has ended already. Please sign in again."))
    return _answer(request, 204, "", _("The oldest session was signed out. Please sign in again."))


def _answer(request: HttpRequest, status: int, name: str, text: str) -> HttpResponse:
    if wants_json(request):
        return HttpResponse(status=status) if status == 204 else error(status, name, text)
    context = {"why": text, "login_url": resolve_url(settings.LOGIN_URL)}
    return HttpResponse(loader.get_template(REFUSED).render(context), status=200 if status == 204 else status)
