"""How a purge gets on: a bar on a terminal, where rich is installed, else a line every few seconds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..purge import Progress
from ..targets import Target

EVERY = 5.0  # seconds

Report = Callable[[Progress], object]


@contextmanager
def reporting(stream: Any, found: Target, max_rows: Any, shown: bool) -> Iterator[Report]:
    """A function to be called after each batch. `stream` is the command's stderr: stdout may be for JSON."""
    if not shown:
        yield lambda progress: None
    elif stream.isatty() and (bar := _bar(stream)):
        # Counted only for who looks on: on a huge table that takes a while.
        total = found.count(int(max_rows) if max_rows is not None and str(max_rows).isdigit() else None)
        with bar:
            task = bar.add_task("Purging", total=total, rate="")
            yield lambda progress: bar.update(task, completed=progress.examined, rate=_rate(progress))
    else:
        yield _lines(stream)


def _bar(stream: Any) -> Any:
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
    return progress.Progress(
        *columns, console=Console(file=stream._out)
    )  # the command's wrapper ends each write with a newline


def _lines(stream: Any) -> Report:
    last = time.perf_counter()

    def report(progress: Progress) -> None:
        nonlocal last
        if (now := time.perf_counter()) - last >= EVERY:
            last = now
            stream.write(f"{progress.rows:,} removed, {progress.examined:,} examined, {_rate(progress)}", str)

    return report


def _rate(progress: Progress) -> str:
    return f"{progress.examined / progress.seconds:,.0f} rows/s"
