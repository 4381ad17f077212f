"""The charts of the purge: the rows that each run removed, and the expired ones that wait for the next.

How many waited is not kept with the runs. One that is done leaves none, so what it removed is what had waited; one that
left some is marked. To count those would be a second walk over a backlog of which this page shows what matters: how
much of it there is now, and since when.
"""

from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..charts import PLACES, Bar, Chart, grouped, local
from ..exceptions import InvalidOption
from ..models import PurgeRun
from ..purge import ERROR
from ..purge.targets import target

DAYS = 7  # with a bar each; one more has all that expired before
MOST = 10_000  # rows that a bar counts: so much of the expiry index is read for it, however large the table is


def charts(runs: Any) -> list[Chart]:
    """What a page shows above a queryset of `PurgeRun`. Raises `EngineUnavailable`."""
    return [chart for chart in (purged_per_run(runs), waiting()) if chart]


def purged_per_run(runs: Any) -> Chart:
    newest = list(runs.order_by("-pk")[: PurgeRun.KEPT])[::-1]
    rows = sum(run.rows for run in newest)
    summary = ngettext("%(rows)s in one run", "%(rows)s in %(runs)s runs", len(newest))
    return Chart(
        name="purged",
        title=_("Rows purged per run"),
        summary=summary % {"rows": grouped(rows), "runs": len(newest)} if newest else _("No purge was recorded yet."),
        headings=(_("Started"), _("Rows")),
        bars=[Bar(local(run.started_at), run.rows, grouped(run.rows), _mark(run)) for run in newest],
        ticks=[local(run.started_at, "SHORT_DATE_FORMAT") for run in _ends(newest)],
        legend=[("open", _("left more waiting")), ("failed", _("ended with an error"))],
    )


def _ends(runs: list[PurgeRun]) -> list[PurgeRun]:
    return [runs[0], runs[-1]] if len(runs) >= PLACES else runs[-1:]  # few bars stand on the right


def _mark(run: PurgeRun) -> str:
    if run.reason == ERROR:
        return "failed"
    return "open" if run.more else ""


def waiting() -> Chart | None:
    """What `purgesessions` would remove now, by age; `None` if it has no table to look at."""
    try:
        found = target()
    except InvalidOption:
        return None
    if found.table:
        return _by_age(found.ages(DAYS, MOST + 1), found.table.name)
    never = _("None: the server of this engine expires sessions by itself.")
    return Chart("waiting", _("Expired rows waiting"), never) if found.by_server else None


def _by_age(ages: list[int], table: str) -> Chart:
    days = [f"{day}\N{EN DASH}{day + 1}" for day in range(DAYS)] + [f"> {DAYS}"]
    return Chart(
        name="waiting",
        title=_("Expired rows waiting"),
        summary=_("%(rows)s in %(table)s") % {"rows": _up_to_most(*ages), "table": table},
        headings=(_("Days since expiry"), _("Rows")),
        bars=[_age(*each) for each in zip(days, ages, strict=True)][::-1] if any(ages) else [],
        ticks=days[::-1],
        legend=[("open", _("counted no further"))],
    )


def _age(days: str, rows: int) -> Bar:
    return Bar(days, min(rows, MOST), _up_to_most(rows), "open" if rows > MOST else "")


def _up_to_most(*counted: int) -> str:
    rows = grouped(sum(min(rows, MOST) for rows in counted))
    return _("more than %(rows)s") % {"rows": rows} if max(counted) > MOST else rows
