"""How the pages name things, in the current language."""

from datetime import UTC, datetime

from django.conf import settings
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

MINUTE, HOUR, DAY = 60, 3600, 86400  # seconds
LONG_AGO = 30 * DAY  # a date says more
EARLIEST, LATEST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)  # that any time zone can say


def local(moment: datetime) -> datetime:
    """As a `DateTimeField` gives it, whatever the store says, be it "never expires" as `datetime.max`."""
    moment = min(max(moment, EARLIEST), LATEST)
    return moment if settings.USE_TZ else timezone.make_naive(moment)


def ago(moment: datetime) -> str:
    """ "3 minutes ago"; the date of what is longer ago than a month. `moment` is as a `DateTimeField` gives it."""
    seconds = (timezone.now() - moment).total_seconds()
    if seconds < MINUTE:
        return _("just now")
    if seconds < HOUR:
        minutes = int(seconds / MINUTE)
        return ngettext("%(count)d minute ago", "%(count)d minutes ago", minutes) % {"count": minutes}
    if seconds < DAY:
        hours = int(seconds / HOUR)
        return ngettext("%(count)d hour ago", "%(count)d hours ago", hours) % {"count": hours}
    if seconds < LONG_AGO:
        days = int(seconds / DAY)
        return ngettext("%(count)d day ago", "%(count)d days ago", days) % {"count": days}
    return date_format(timezone.localtime(moment) if timezone.is_aware(moment) else moment, "DATE_FORMAT")


def name_of(device: str | None, user_agent: str | None) -> str:
    """The browser; where that cannot be said, the header itself; where that is not known, that it is not."""
    return device or (user_agent or "").strip() or _("Browser not recorded")
