"""The charts of the overview in the admin: of the sessions there are, counted in one bounded pass, and of the purge."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from django.db import router
from django.template.defaultfilters import filesizeformat
from django.utils import formats
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..charts import Bar, Chart, grouped
from ..models import PurgeRun
from ..records import utcnow
from ..statistics import DAY, HOUR, MINUTE, UNKNOWN, Bin, Statistics, collect, day_of
from . import pages, purge_charts

MOST_SESSIONS = 10_000  # that are looked at for a page
MOST_SECONDS = 2.0  # for which it does so
DAYS = 15  # with a bar each: today, and as far as Django's default age of a session goes
MOST_BARS = 12  # devices and names


def overview(with_purges: bool) -> dict[str, Any]:
    """What the page shows. Raises `EngineUnavailable`."""
    found = collect(MOST_SESSIONS, MOST_SECONDS)
    charts = [active(found), log_ins(found), expiries(found), sizes(found)]
    if with_purges:
        charts += purge_charts.charts(PurgeRun.objects.using(router.db_for_write(PurgeRun)))
    return {
        "found": found,
        "first": grouped(found.sessions),
        "summary": summary(found),
        "charts": charts,
        "lists": [devices(found), names(found)],
    }


def summary(found: Statistics) -> dict[str, str]:
    return {
        pages.sessions(): grouped(found.sessions),
        _("Users signed in"): grouped(found.users),
        _("Anonymous sessions"): grouped(found.anonymous),
        _("Data"): filesizeformat(found.bytes),
        _("Largest"): filesizeformat(found.largest),
        _("Unreadable"): grouped(found.unreadable),
    }


def active(found: Statistics) -> Chart:
    recent = sum(each.sessions for each in found.idle if each.up_to and each.up_to <= HOUR)
    text = _("%(sessions)s in the last hour") % {"sessions": grouped(recent)}
    return _histogram("active", _("Active sessions"), text, _("Last activity"), found.idle[::-1], _ago)


def sizes(found: Statistics) -> Chart:
    average = filesizeformat(found.bytes // max(found.sessions, 1))
    text = _("%(size)s on average") % {"size": average}
    return _histogram("sizes", _("Sizes"), text, _("Stored size"), found.sizes, _size)


def _histogram(name: str, title: str, summary: str, heading: str, bins: Sequence[Bin], text: Any) -> Chart:
    last = max(each.up_to or 0 for each in bins)
    labels = [text(each.up_to) if each.up_to else f">\N{NO-BREAK SPACE}{text(last)}" for each in bins]
    bars = [Bar(label, each.sessions, grouped(each.sessions)) for label, each in zip(labels, bins, strict=True)]
    return Chart(name, title, summary, (heading, pages.sessions()), bars if any(b.value for b in bars) else [], labels)


def log_ins(found: Statistics) -> Chart:
    first = day_of(utcnow()) - timedelta(days=DAYS - 1)
    text = _("%(shown)s in %(days)s days, %(others)s before; of sessions that are still there")
    return _by_day("log-ins", _("Sign-ins per day"), text, found.log_ins, first)


def expiries(found: Statistics) -> Chart:
    text = _("%(shown)s in %(days)s days, %(others)s later")
    return _by_day("expiries", _("Expiries per day"), text, found.expiries, day_of(utcnow()))


def _by_day(name: str, title: str, text: str, counts: dict[date, int], first: date) -> Chart:
    days = [first + timedelta(days=number) for number in range(DAYS)]
    bars = [Bar(_date(day), counts.get(day, 0), grouped(counts.get(day, 0))) for day in days]
    shown = sum(bar.value for bar in bars)
    others = sum(counts.values()) - shown
    summary = text % {"shown": grouped(shown), "days": DAYS, "others": grouped(others)}
    ticks = [bars[0].label, bars[-1].label]
    return Chart(name, title, summary, (_("Day"), pages.sessions()), bars if shown else [], ticks)


def devices(found: Statistics) -> Chart:
    none = _("None were recorded when users signed in: see MULTISESSION_TRACK_CLIENT.")
    counts = {_("unknown") if name == UNKNOWN else name: sessions for name, sessions in found.devices.items()}
    return _ranking("devices", _("Devices"), none, _("Device"), counts)


def names(found: Statistics) -> Chart:
    return _ranking("names", _("Keys of the sessions' data"), _("None."), _("Key"), found.names)


def _ranking(name: str, title: str, none: str, heading: str, counts: dict[str, int]) -> Chart:
    shown = [Bar(label, sessions, grouped(sessions)) for label, sessions in [*counts.items()][:MOST_BARS]]
    others = len(counts) - len(shown)
    text = ngettext("and %(others)s other", "and %(others)s others", others) % {"others": grouped(others)}
    return Chart(name, title, (text if others else "") if counts else none, (heading, pages.sessions()), shown)


def _date(day: date) -> str:
    return formats.date_format(day, "SHORT_DATE_FORMAT")


def _ago(seconds: int) -> str:
    if seconds < HOUR:
        return _("%(number)s min") % {"number": seconds // MINUTE}
    if seconds < DAY:
        return _("%(number)s h") % {"number": seconds // HOUR}
    return _("%(number)s d") % {"number": seconds // DAY}


def _size(bound: int) -> str:
    """Of the bounds, which are whole: shorter than `filesizeformat` has it."""
    if bound < 1024:
        return _("%(number)s B") % {"number": bound}
    if bound < 1024**2:
        return _("%(number)s KB") % {"number": bound // 1024}
    return _("%(number)s MB") % {"number": bound // 1024**2}
