"""How a purge or a count gets on: a bar on a terminal, where rich is installed, else a line every few seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..durations import positive
from ..purge import Progress
from ..purge.targets import Target

EVERY = 5.0  # seconds

Report = Callable[[Progress], object]


@contextmanager
def reporting(stream: Any, found: Target, max_rows: Any, shown: bool) -> Iterator[Report]:
    """A function to be called after each batch. `stream` is the command's stderr: stdout may be for JSON."""
    if not shown:
        yield lambda progress: None
    elif stream.isatty() and (bar := _bar(stream)):
        # Counted only for who looks on: on a huge table that takes a while.
        # A purge by more than the expiry may leave any of the rows that it looks at.
        most = None if max_rows is None or not found.criteria.expiry_only else positive("max_rows", max_rows)
        total = found.count(most and min(most, sys.maxsize))
        with bar:
            task = bar.add_task("Purging", total=total, rate="")
            yield lambda progress: bar.update(task, completed=progress.examined, rate=_rate(progress))
    else:
        yield _lines(stream)


@contextmanager
def counting(stream: Any, shown: bool) -> Iterator[Callable[[int, float], object]]:
    """The same for a pass over a store, of which nobody knows how much it holds: it takes sessions and seconds."""
    if not shown:
        yield lambda sessions, seconds: None
    elif stream.isatty() and (bar := _bar(stream, transient=True)):
        with bar:
            task = bar.add_task("Counting", total=None, rate="")
            yield lambda sessions, seconds: bar.update(task, completed=sessions, rate=_speed(sessions, seconds))
    else:
        say = _sometimes(stream)
        yield lambda sessions, seconds: say(lambda: f"{sessions:,} sessions, {_speed(sessions, seconds)}")


def _bar(stream: Any, **options: Any) -> Any:
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        return None
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
    )
    # The command's wrapper of the stream ends each write with a newline.
    return progress.Progress(*columns, console=Console(file=stream._out), **options)


def _lines(stream: Any) -> Report:
    say = _sometimes(stream)
    return lambda done: say(lambda: f"{done.rows:,} removed, {done.examined:,} examined, {_rate(done)}")


def _sometimes(stream: Any) -> Callable[[Callable[[], str]], None]:
    last = time.perf_counter()

    def say(line: Callable[[], str]) -> None:
        nonlocal last
        if (now := time.perf_counter()) - last >= EVERY:
            last = now
            stream.write(line(), str)

    return say


def _rate(progress: Progress) -> str:
    return _speed(progress.examined, progress.seconds, "rows")


def _speed(number: int, seconds: float, what: str = "sessions") -> str:
    return f"{number / max(seconds, 1e-9):,.0f} {what}/s"
