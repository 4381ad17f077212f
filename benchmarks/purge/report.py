"""The figures of run.py, as tables for the docs and as a chart."""

from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from statistics import quantiles
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.drawings import for_dark_pages

EVERY = 0.005  # seconds between two saves, if the first is done by then

Run = dict[str, Any]


def waits(seconds: list[float]) -> dict[str, float]:
    """p50, p99 and the longest, in milliseconds.

    Whoever waits for 100 ms could not make the 20 saves that were due: they count as waits of 95, 90, ... ms.
    """
    due = [wait - EVERY * missed for wait in seconds for missed in range(1 + int(wait / EVERY))]
    cuts = quantiles(due, n=100, method="inclusive")
    shown = {"p50": cuts[49], "p99": cuts[98], "max": max(seconds)}
    return {name: round(wait * 1000, 3) for name, wait in shown.items()} | {"saves": len(seconds)}


def medians(runs: list[Run]) -> list[Run]:
    """Of several runs of the same that of the median duration."""
    same = groupby(runs, key=lambda run: (run["database"], run["rows"], run["way"]))
    groups = [sorted(group, key=lambda run: run["seconds"]) for _, group in same]
    return [group[len(group) // 2] for group in groups]


def of_delete(run: Run, runs: list[Run], figure: Callable[[Run], float]) -> float | None:
    """A figure, relative to that of the bare DELETE of the same rows."""
    way = "DELETE, old snapshot" if "snapshot" in run["way"] else "DELETE"
    same = (run["database"], run["rows"], way)
    found = [figure(each) for each in runs if (each["database"], each["rows"], each["way"]) == same]
    return figure(run) / found[0] if found else None


# Tables: Markdown, for the docs

PURGE = "Database", "Expired", "Way", "Seconds", "and then", "Rows/s", "of DELETE", "Memory", "Log", "Dead"
WRITER = (
    "Database",
    "Expired",
    "Way",
    "Idle p50",
    "p99",
    "max",
    "Purging p50",
    "p99",
    "max",
    "p99 / idle",
    "max / DELETE",
)


def show(runs: list[Run]) -> None:
    print_table("The purge; memory is by how much the process grew.", PURGE, (purge_row(run, runs) for run in runs))
    print_table("What the writer waits, in ms.", WRITER, (writer_row(run, runs) for run in runs))


def print_table(title: str, columns: tuple[str, ...], rows: Iterator[list[str]]) -> None:
    table = Table(*columns, box=box.MARKDOWN)
    for row in rows:
        table.add_row(*row)
    console = Console(width=200)
    console.print(f"\n{title}", table, sep="\n")


def purge_row(run: Run, runs: list[Run]) -> list[str]:
    speed = of_delete(run, runs, lambda run: run["rows"] / run["seconds"])
    return [
        *(run["database"], f"{run['rows']:,}", run["way"]),
        f"{run['seconds']:.1f}",
        f"{run['cleanup']:.1f}" if run["cleanup"] >= 0.1 else "",
        f"{run['rows'] / run['seconds']:,.0f}",
        f"{speed:.0%}" if speed else "",
        f"{run['memory'] / 1e6:.1f} MB",
        f"{run['log'] / 1e6:,.0f} MB",
        f"{run['dead']:,}" if "dead" in run else "",
    ]


def writer_row(run: Run, runs: list[Run]) -> list[str]:
    worst = of_delete(run, runs, lambda run: run["purging"]["max"])
    return [
        *(run["database"], f"{run['rows']:,}", run["way"]),
        *(f"{run[when][name]:,.1f}" for when in ("idle", "purging") for name in ("p50", "p99", "max")),
        f"{run['purging']['p99'] / run['idle']['p99']:.1f}",
        f"{worst:.3f}" if worst else "",
    ]


# Chart


def draw(runs: list[Run], file: Path) -> None:
    """The writer's waits, at the largest number of rows."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = "purge"
    from matplotlib import pyplot as plt

    most = [run for run in runs if run["rows"] == max(run["rows"] for run in runs)]
    databases = {name: list(group) for name, group in groupby(most, key=lambda run: run["database"])}
    sizes = [1 + len(group) for group in databases.values()]
    figure, panels = plt.subplots(
        len(databases), sharex=True, squeeze=False, figsize=(8, 0.8 + 0.36 * sum(sizes)), height_ratios=sizes
    )
    for panel, (name, group) in zip(panels[:, 0], databases.items(), strict=True):
        draw_panel(panel, name, group)
    panels[-1, 0].set_xlabel("milliseconds to load and save a session: median, p99, worst")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
    for_dark_pages(file)


def draw_panel(panel: Any, name: str, group: list[Run]) -> None:
    bars = [("no purge", group[0]["idle"]), *((run["way"], run["purging"]) for run in group)]
    for position, (label, wait) in enumerate(bars):
        colour = "#888888" if not position else "#2a7f3f" if label.startswith("purge") else "#b8432f"
        panel.hlines(position, wait["p50"], wait["max"], colour, linewidth=2)
        panel.plot([wait["p50"], wait["p99"], wait["max"]], [position] * 3, "o", color=colour, markersize=5)
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter("{x:,g}")
    panel.set(yticks=range(len(bars)), yticklabels=[label for label, _ in bars])
    panel.set_title(f"{name}, {group[0]['rows']:,} expired rows", loc="left", fontsize=10)
    panel.invert_yaxis()
    panel.grid(axis="x", color="#dddddd")
    panel.spines[["top", "right"]].set_visible(False)
