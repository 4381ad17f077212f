"""The values of the purge's options: numbers and durations, from code, a command line or JSON."""

import re
from datetime import datetime, timedelta

from .exceptions import InvalidOption
from .records import in_milliseconds, utcnow

Duration = str | int | float | timedelta

LONGEST = timedelta(days=36_525).total_seconds()  # a hundred years: the calendar begins before that long ago
UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1, "": 1}


def as_seconds(name: str, value: Duration) -> float:
    """Seconds, from a number of them, a timedelta, or text such as 30d, 12h, 90m, 45s and 45."""
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif not isinstance(value, bool) and (found := re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([dhms]?)", str(value).strip())):
        seconds = float(found[1]) * UNITS[found[2]]
    else:
        raise InvalidOption(name, value, "write a duration as 30d, 12h, 90m, 45s or a number of seconds.")
    if not 0 <= seconds <= LONGEST:
        raise InvalidOption(name, value, "write a duration from 0 to 36525d.")
    return seconds


def as_age(name: str, value: Duration | datetime | None) -> datetime | None:
    """The moment that long ago, or the very moment."""
    if value is None:
        return None
    if isinstance(value, datetime):
        return in_milliseconds(value)
    return utcnow() - timedelta(seconds=as_seconds(name, value))


def positive(name: str, value: object, at_most: int | None = None) -> int:
    try:
        number = int(str(value))
    except ValueError:
        number = 0
    if number < 1 or (at_most is not None and number > at_most):
        limits = f"from 1 to {at_most:,}" if at_most else "of at least 1"
        raise InvalidOption(name, value, f"write a whole number {limits}.")
    return number
