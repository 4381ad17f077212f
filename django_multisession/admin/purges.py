"""The runs of the purge in the admin, to be looked at."""

from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db import router
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..charts import grouped, local
from ..models import PurgeRun
from ..purge import loop
from .purge_charts import charts

COLUMNS = "started", "duration", "rows_purged", "batches", "more_waiting", "why"
REASONS = {
    loop.DONE: gettext_lazy("nothing was left"),
    loop.SERVER: gettext_lazy("the server expires by itself"),
    loop.MAX_ROWS: gettext_lazy("enough rows"),
    loop.MAX_SECONDS: gettext_lazy("time was up"),
    loop.STOPPED: gettext_lazy("stopped"),
    loop.RUNNING: gettext_lazy("another one was running"),
    loop.ERROR: gettext_lazy("an error"),
}


class ReasonFilter(admin.SimpleListFilter):
    title = gettext_lazy("reason")
    parameter_name = "reason"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        known = model_admin.get_queryset(request).order_by("reason").values_list("reason", flat=True).distinct()
        return [(reason, REASONS.get(reason, reason)) for reason in known]

    def queryset(self, request: HttpRequest, queryset: QuerySet[PurgeRun]) -> QuerySet[PurgeRun]:
        return queryset.filter(reason=self.value()) if self.value() else queryset


class PurgeRunAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """For users with the permission to view them. Nobody adds, changes or deletes one: the purge keeps the newest."""

    list_display = *COLUMNS, "on_host", "of_table"
    list_filter = ReasonFilter, "host", "table"
    ordering = ("-pk",)
    fields = readonly_fields = *COLUMNS, "host", "table"

    class Media:
        css = {"all": ["django_multisession/charts.css", "django_multisession/admin.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: PurgeRun | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: PurgeRun | None = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[PurgeRun]:
        # Where the purge writes: a replica may lag.
        return super().get_queryset(request).using(router.db_for_write(PurgeRun))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        response = super().changelist_view(request, extra_context)
        context = getattr(response, "context_data", {})
        if "cl" in context:  # else a redirect
            context["charts"] = charts(context["cl"].queryset)  # as filtered
        return response

    @admin.display(description=gettext_lazy("started at"), ordering="started_at")
    def started(self, run: PurgeRun) -> str:
        # The admin would take an EpochField for the number that it is in the database.
        return local(run.started_at, "DATETIME_FORMAT")

    @admin.display(description=gettext_lazy("duration"))
    def duration(self, run: PurgeRun) -> str:
        took = run.ended_at - run.started_at
        if took < timedelta(minutes=1):
            return _("%(seconds)s s") % {"seconds": number_format(took.total_seconds(), 1)}
        return str(timedelta(seconds=round(took.total_seconds())))

    @admin.display(description=gettext_lazy("reason"), ordering="reason")
    def why(self, run: PurgeRun) -> str:
        return str(REASONS.get(run.reason, run.reason))

    @admin.display(description=gettext_lazy("rows"), ordering="rows")
    def rows_purged(self, run: PurgeRun) -> str:
        return grouped(run.rows)

    @admin.display(description=gettext_lazy("host"), ordering="host")
    def on_host(self, run: PurgeRun) -> str:
        return _cut(run.host)

    @admin.display(description=gettext_lazy("table"), ordering="table")
    def of_table(self, run: PurgeRun) -> str:
        return _cut(run.table)

    @admin.display(description=gettext_lazy("more are waiting"), ordering="more")
    def more_waiting(self, run: PurgeRun) -> str:
        return _("Yes") if run.more else _("No")  # in words: the icons have red for no


def _cut(name: str) -> str:
    """To one line of the list, by the stylesheet: names as Kubernetes gives them would push the last column away."""
    return format_html('<bdi dir="ltr" title="{}">{}</bdi>', name, name)
