"""The purge, seen from the shop: what Celery's beat and worker have done, and something for them to do."""

from datetime import timedelta
from uuid import uuid4

from django.conf import settings
from django.db.models import Sum
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from django_multisession.models import PurgeRun, Session

SHOWN = 10
LEFT_BEHIND = 1000

IN_SQL = settings.SESSION_ENGINE == "django_multisession.backends.db"


@require_safe
def purges(request: HttpRequest) -> HttpResponse:
    runs = PurgeRun.objects.order_by("-pk")
    context = {
        "in_sql": IN_SQL,
        "left_behind": LEFT_BEHIND,
        "removed": runs.aggregate(Sum("rows"))["rows__sum"] or 0,
        "runs": runs[:SHOWN],
        "seconds": settings.PURGE_SECONDS,
        "waiting": Session.objects.filter(expires_at__lt=timezone.now()).count(),
    }
    return render(request, "shop/purges.html", context)


@require_POST
def leave_behind(request: HttpRequest) -> HttpResponse:
    """Make sessions that expired yesterday, as of visitors who never came back."""
    if not IN_SQL:
        raise Http404
    then = timezone.now() - timedelta(days=1)
    times = {"created_at": then, "updated_at": then, "expires_at": then}
    Session.objects.bulk_create(Session(session_id=uuid4().hex * 2, data=b"", **times) for _ in range(LEFT_BEHIND))
    return redirect("purges")
