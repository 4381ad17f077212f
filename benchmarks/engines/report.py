"""The figures of run.py as tables and as a chart."""

from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.drawings import for_dark_pages

# Name: what the bare driver does in the same workload.
WORKLOADS = {
    "read": "load a session: one read by key",
    "write": "load, change one key, save: one read and one write",
    "create": "store the session of a visitor who has not logged in: one insert",
    "create signed in": "store a session with a user at once, as no log-in of Django's does: one insert",
    "sliding": "load and save unchanged, within the touch window: one read",
    "64 KB": "as write, 64 KB of JSON",
    "async": "as write, 50 sessions at once in one event loop; the figures are for one of them",
    "log-in": "load, cycle_key(), set the user, save: a read, an insert, a delete, a write",
    "request read": "a whole request through WSGIHandler and the session middleware: as read",
    "request write": "as write",
    "request log-in": "as log-in",
    "request async": "50 requests at once through ASGIHandler to an asynchronous view: as async",
}
SERVERS = {"redis": "Redis", "postgres": "PostgreSQL", "sqlite": "SQLite and files", "mongodb": "MongoDB"}
AT_ONCE = 50
OURS = "#1b7f3b", "#8fce9d", "#4caf50"  # of the chart's bars
OTHERS = "#c0504d", "#e0986b", "#7f7f7f", "#b3b3b3", "#5b7fb5", "#9db8d9", "#8a6fb0", "#c4b3d9"

# Multiples of the bare driver call that the store alone is to stay below.
TARGETS = {
    "redis": {"read": 1.15, "write": 1.25, "create": 1.3, "sliding": 1.1, "64 KB": 2.5, "async": 1.6},
    "postgres": {"read": 2.0, "write": 2.0, "create": 2.5, "sliding": 2.0, "64 KB": 3.0, "async": 5.0},
}

Grid = tuple[str, list[str], list[list[str]]]  # title, columns, rows


def bare_call(workload: str) -> str:
    """The workload whose bare driver calls this one is compared with."""
    return workload.removeprefix("request ")


def against(times: dict[tuple[str, str], list[list[int]]], name: str, bare: str, least: bool = False) -> dict[str, Any]:
    """Of each workload the microseconds of a call, and its multiple of the bare call in the same round: quartiles.

    A round's call is the median of its calls; `least`: the shortest of them, which a busy machine disturbs less.
    """
    of_round: Any = min if least else median
    found = {}
    for (contender, workload), rounds in times.items():
        if contender != name:
            continue
        own = [of_round(each) for each in rounds]
        others = [of_round(each) for each in times[bare, bare_call(workload)]]
        ratios = [mine / other for mine, other in zip(own, others, strict=True)]
        calls = AT_ONCE if workload.endswith("async") else 1
        found[workload] = {"us": _quartiles([each / calls / 1000 for each in own]), "ratio": _quartiles(ratios)}
    return found


def _quartiles(values: list[float]) -> list[float]:
    cuts = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return [round(each, 3) for each in cuts]


def show(results: dict[str, Any]) -> None:
    console = Console(width=200)
    console.print(describe(results))
    for title, columns, rows in grids(results):
        table = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD)
        for row in rows:
            table.add_row(*row)
        console.print(table)


def describe(results: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    calls = ", of each the shortest call" if results.get("least") else ""
    return f"{results['date']}, {results['machine']}; {versions}; {results['rounds']} rounds{calls}."


def markdown(results: dict[str, Any]) -> str:
    lines = [describe(results), ""]
    for title, columns, rows in grids(results):
        lines += [f"**{title}**", "", _line(columns), _line(["---"] * len(columns)), *map(_line, rows), ""]
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def grids(results: dict[str, Any]) -> Iterator[Grid]:
    for each in results["servers"]:
        name = f"{SERVERS[each['server']]}: {each['version']}"
        for kind, wanted in (("the store alone", False), ("whole requests", True)):
            workloads = [w for w in WORKLOADS if w.startswith("request") is wanted and _measured(each, w)]
            if workloads:
                title = f"{name}; {kind}, multiples of the bare driver call, median and quartiles"
                yield title, ["", *workloads], list(_ratios(each, workloads))
        if counted := [w for w in WORKLOADS if any(w in c.get("trips", {}) for c in each["contenders"])]:
            yield f"{name}; round trips: commands or statements", ["", *counted], list(_trips(each, counted))
        if any("bytes" in contender for contender in each["contenders"]):
            yield f"{name}; bytes per session", ["", "in all", "of it"], list(_bytes(each))


def _measured(server: dict[str, Any], workload: str) -> bool:
    return any(workload in each["times"] for each in server["contenders"])


def _ratios(server: dict[str, Any], workloads: list[str]) -> Iterator[list[str]]:
    for each in server["contenders"]:
        if not set(workloads) & set(each["times"]):
            continue
        bare = each["name"] == server["bare"]
        yield [_named(each), *(_microseconds(each, w) if bare else _ratio(each, w) for w in workloads)]
    limits = {w: TARGETS.get(server["server"], {}).get(w) for w in workloads}
    if any(limits.values()):
        yield ["target", *(str(limits[w] or "") for w in workloads)]


def _named(contender: dict[str, Any]) -> str:
    return ", ".join([contender["name"], *(number for number in contender["packages"].values())])


def _microseconds(contender: dict[str, Any], workload: str) -> str:
    return f"{contender['times'][workload]['us'][1]:.0f} µs" if workload in contender["times"] else ""


def _ratio(contender: dict[str, Any], workload: str) -> str:
    if workload not in contender["times"]:
        return ""
    low, middle, high = contender["times"][workload]["ratio"]
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def _trips(server: dict[str, Any], workloads: list[str]) -> Iterator[list[str]]:
    for each in server["contenders"]:
        if each.get("trips"):
            yield [each["name"], *(_sent(each["trips"].get(workload)) for workload in workloads)]


def _sent(trips: list[str] | None) -> str:
    return "" if trips is None else f"{len(trips)}: {', '.join(trips)}" if trips else "0"


def _bytes(server: dict[str, Any]) -> Iterator[list[str]]:
    for each in server["contenders"]:
        if found := each.get("bytes"):
            parts = ", ".join(f"{name} {value:,.0f}" for name, value in found.items() if name != "in all")
            yield [each["name"], f"{found['in all']:,.0f}", parts]


def draw(results: dict[str, Any], file: Path) -> None:
    """A panel for each server: the store alone, a group of bars for each workload."""
    import matplotlib as mpl

    mpl.use("svg" if file.suffix == ".svg" else "agg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "engines"
    servers = results["servers"]
    figure, panels = plt.subplots(len(servers), 1, figsize=(11, 5 * len(servers)), squeeze=False, layout="constrained")
    for panel, server in zip(panels[:, 0], servers, strict=True):
        _panel(panel, server)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
    for_dark_pages(file)


def _panel(panel: Any, server: dict[str, Any]) -> None:
    workloads = [w for w in WORKLOADS if not w.startswith("request") and _measured(server, w)]
    shown = [each for each in server["contenders"] if each["name"] != server["bare"] and workloads[0] in each["times"]]
    width = 0.85 / len(shown)
    ours, others = iter(OURS), iter(OTHERS)
    for place, each in enumerate(shown):
        low, middle, high = zip(*(each["times"][w]["ratio"] for w in workloads), strict=True)
        spread = [[m - l for l, m in zip(low, middle, strict=True)], [h - m for m, h in zip(middle, high, strict=True)]]  # noqa: E741
        at = [number + (place - (len(shown) - 1) / 2) * width for number in range(len(workloads))]
        colour = next(ours if each["name"].startswith("multisession") else others)
        panel.bar(at, middle, width, yerr=spread, label=each["name"], color=colour, error_kw={"lw": 0.8})
    panel.set_yscale("log")
    panel.axhline(1, color="black", lw=0.8)
    panel.set_xticks(range(len(workloads)), workloads)
    panel.yaxis.set_major_formatter("{x:g}x")
    panel.set_title(f"{SERVERS[server['server']]}: multiples of the bare driver call (less is better)", loc="left")
    panel.legend(fontsize="small", frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
