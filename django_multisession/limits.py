"""How long a session lives beyond Django's own expiry, and how often that is written.

`MULTISESSION_IDLE_AGE` counts from the last save or touch, `MULTISESSION_ABSOLUTE_AGE` from the log-in (of an anonymous
session: from its beginning). Both end the stored expiry early, so that servers and purges see to them, and both are
asked again on each read, so that a stricter setting holds for the sessions that are there.
"""

from datetime import datetime, timedelta

from .conf import conf
from .records import Record, utcnow

NO_TIME = timedelta(0)
LONGEST_WINDOW = timedelta(seconds=60)
SHARE = 100  # the default window is this part of the time that a session has left


def is_over(record: Record) -> bool:
    """Whether a live record is no session any more: past the idle or the absolute limit, or a mark."""
    idle, absolute = conf.IDLE_AGE, conf.ABSOLUTE_AGE
    if idle is None and absolute is None:
        return record.is_mark
    return record.is_mark or latest(record.expires_at, record.created_at, record.updated_at) <= utcnow()


def latest(expires_at: datetime, created_at: datetime, active_at: datetime) -> datetime:
    """The expiry that the limits leave a session which was last active then."""
    for began, age in ((active_at, conf.IDLE_AGE), (created_at, conf.ABSOLUTE_AGE)):
        # Not the earlier of two moments: of a time in the far future, which a server may keep, the sum has no date.
        if age is not None and expires_at - began > timedelta(seconds=age):
            expires_at = began + timedelta(seconds=age)
    return expires_at


def window(left: timedelta) -> timedelta:
    """How much too early a stored expiry may be before it is moved, for a session that has so much time left.

    Half of it at most: else a session could end between two requests of someone who is there.
    """
    if left <= NO_TIME:
        return NO_TIME
    if conf.TOUCH_AFTER is None:
        return min(LONGEST_WINDOW, left / SHARE)
    return min(timedelta(seconds=conf.TOUCH_AFTER), left / 2)
