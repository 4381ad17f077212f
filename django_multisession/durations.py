"""Durations and numbers, as settings and the purge's options take them: from code, a command line or JSON."""

import re
from datetime import datetime, timedelta

from .exceptions import InvalidOption
from .records import in_milliseconds

Duration = str | int | float | timedelta

LONGEST = "36525d"  # a hundred years: the calendar begins before that long ago
UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}


def as_seconds(name: str, value: Duration, longest: str = LONGEST) -> float:
    """Seconds, from a number of them, a timedelta, or text such as 30d, 12h, 90m, 45s and 50ms. Raises `InvalidOption`.

    Text needs its unit, since of 30 nobody can tell whether days were meant; only 0 is the same in all of them.
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str):
        seconds = _parsed(name, value.strip())
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value
    else:
        raise InvalidOption(name, value, "write a duration as 30d, 12h, 90m, 45s or 50ms, or a number of seconds.")
    if not 0 <= seconds <= _parsed(name, longest):  # nor NaN
        raise InvalidOption(name, value, f"write a duration from 0 to {longest}.")
    return float(seconds)


def _parsed(name: str, text: str) -> float:
    if text == "0":
        return 0
    if not (found := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(d|h|m|s|ms)", text)):
        raise InvalidOption(name, text, "write a duration as 30d, 12h, 90m, 45s or 50ms.")
    return float(found[1]) * UNITS[found[2]]


def written(seconds: float) -> str:
    """As the shortest text: 90m of 5400."""
    thousandths = round(seconds * 1000)
    for unit, length in ((unit, round(each * 1000)) for unit, each in UNITS.items()):
        if thousandths and not thousandths % length:
            return f"{thousandths // length}{unit}"
    return "0"


def as_age(name: str, value: Duration | datetime | None) -> float | datetime | None:
    """Seconds before a now that is not known yet, or the very moment."""
    if value is None:
        return None
    return in_milliseconds(value) if isinstance(value, datetime) else as_seconds(name, value)


def before(now: datetime, age: float | datetime | None) -> datetime | None:
    """The moment that an age means."""
    return now - timedelta(seconds=age) if isinstance(age, int | float) else age


def positive(name: str, value: object, at_most: int | None = None) -> int:
    try:
        number = int(str(value))
    except ValueError:
        number = 0
    if number < 1 or (at_most is not None and number > at_most):
        limits = f"from 1 to {at_most:,}" if at_most else "of at least 1"
        raise InvalidOption(name, value, f"write a whole number {limits}.")
    return number
