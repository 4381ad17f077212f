#!/usr/bin/env python
"""What the session engines cost, as multiples of the bare driver call, beside their peers from PyPI: see README.md.

Each contender runs in a process of its own, and only one runs at a time: they take turns, a few calls each, for many
rounds, so that what disturbs the machine disturbs all of them.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from contextlib import ExitStack
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)  # not this folder: requests.py in it is no library

from benchmarks.engines import report, sizes
from benchmarks.engines.contenders import BARE, CONTENDERS, Contender
from benchmarks.engines.servers import CORES, Servers, install, pinned

SERVERS = list(BARE)
CALLS = {"64 KB": 8, "async": 3, "request async": 2}  # in one turn, if not USUAL
USUAL = {"mongodb": 10}  # SecantusDB takes milliseconds
LIBRARIES = ("django", "redis", "hiredis", "psycopg", "pymongo", "django-redis", "orjson", "backports-zstd")


class Child:
    """A contender's process, which does one thing at a time and answers."""

    def __init__(
        self, contender: Contender, addresses: dict[str, Any], path: list[str], counting: bool = False
    ) -> None:
        self.contender, self.addresses = contender, addresses
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*path, str(ROOT)]),
            "PYTHONHASHSEED": "0",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.engines.child"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._send({"name": contender.name, "server": contender.server, "addresses": addresses, "counting": counting})
        self.workloads: list[str] = self._answer()

    def ask(self, do: str, **arguments: Any) -> Any:
        self._send({"do": do, **arguments})
        return self._answer()

    def _send(self, order: dict[str, Any]) -> None:
        assert self.process.stdin
        print(json.dumps(order), file=self.process.stdin, flush=True)

    def _answer(self) -> Any:
        assert self.process.stdout
        if line := self.process.stdout.readline():
            return json.loads(line)
        raise SystemExit(f"{self.contender.name} on {self.contender.server} has failed.")

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


class Starter:
    """Makes the children: installs what they need, once, and finds them databases."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.installed: dict[tuple[str, ...], dict[str, str]] = {}

    def child(self, contender: Contender, counting: bool = False) -> Child:
        kinds = [contender.server, *([contender.also] if contender.also else [])]
        addresses = self.servers.addresses(*kinds)
        if counting and "postgres" in addresses:
            self.servers.log_statements(addresses["postgres"])
        return Child(contender, addresses, self._path(contender.packages), counting)

    def versions(self, contender: Contender) -> dict[str, str]:
        return self.installed.get(contender.packages, {})

    def _path(self, packages: tuple[str, ...]) -> list[str]:
        if not packages:
            return []
        directory = self.servers.directory / packages[0]
        if packages not in self.installed:
            self.installed[packages] = install(packages, directory)
            say("Installed " + ", ".join(f"{name} {number}" for name, number in self.installed[packages].items()))
        return [str(directory)]


def measure(starter: Starter, server: str, options: argparse.Namespace) -> dict[str, Any]:
    contenders = [each for each in CONTENDERS if each.server == server and _wanted(each, options)]
    say(f"{server}: {len(contenders)} contenders ...")
    with ExitStack() as stack:
        children = [stack.enter_context(starter.child(each)) for each in contenders]
        times = take_turns(children, options)
    found = []
    for contender in contenders:
        result = {"name": contender.name, "note": contender.note, "packages": starter.versions(contender)}
        result["times"] = report.against(times, contender.name, BARE[server], options.least)
        if options.trips and not contender.requests_only:
            result["trips"] = trips(starter, contender, options)
        if options.rows and not contender.requests_only:
            result["bytes"] = sizes.bytes_of(starter, contender, options.rows)
        found.append(result)
    return {"server": server, "version": starter.servers.describe(server), "bare": BARE[server], "contenders": found}


def _wanted(contender: Contender, options: argparse.Namespace) -> bool:
    names = options.contenders
    return not names or contender.name == BARE[contender.server] or any(re.search(n, contender.name) for n in names)


def chosen(workload: str, options: argparse.Namespace) -> bool:
    return not options.workloads or workload in options.workloads


Times = dict[tuple[str, str], list[list[int]]]  # of a contender's workload: a list for each round


def take_turns(children: list[Child], options: argparse.Namespace) -> Times:
    times: Times = {}
    wanted = [workload for workload in report.WORKLOADS if chosen(workload, options)]
    for number in range(options.rounds):
        say(f"  round {number + 1} of {options.rounds}", end="\r")
        for workload in dict.fromkeys([*map(report.bare_call, wanted), *wanted]):
            for child in [each for each in children if takes_part(each, workload, options)]:
                turn = child.ask(
                    "time", workload=workload, count=CALLS.get(workload, USUAL.get(child.contender.server, 30))
                )
                times.setdefault((child.contender.name, workload), []).append(turn)
        children = children[1:] + children[:1]
    say("")
    return times


def takes_part(child: Child, workload: str, options: argparse.Namespace) -> bool:
    bare = child.contender.name == BARE[child.contender.server]
    return workload in child.workloads and (bare or chosen(workload, options))


def trips(starter: Starter, contender: Contender, options: argparse.Namespace) -> dict[str, list[str]]:
    """What each workload sends; PostgreSQL's statements are those in its log."""
    found = {}
    with starter.child(contender, counting=True) as child:
        for workload in child.workloads:
            if workload.endswith("async") or workload.startswith("request") or not chosen(workload, options):
                continue  # they send what their like through the store alone do
            child.ask("warm_up", workload=workload)
            offset = starter.servers.log_size() if contender.server == "postgres" else 0
            found[workload] = child.ask("trips")
            if offset:
                found[workload] += starter.servers.logged(offset)
    return found


def say(text: str, end: str = "\n") -> None:
    print(text, file=sys.stderr, end=end, flush=True)


def machine() -> str:
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = model[0].partition(": ")[2] if model else platform.processor()
    return f"{os.cpu_count()} cores of {processor}, {platform.system()}, Python {platform.python_version()}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    number = lambda text: int(text.replace("_", "").replace(",", ""))  # noqa: E731
    listed = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--only", type=listed, default=SERVERS, help=f"servers, with commas: {', '.join(SERVERS)}")
    parser.add_argument("--workloads", type=listed, help=f"with commas: {', '.join(report.WORKLOADS)}")
    parser.add_argument(
        "--contenders", type=listed, help="patterns of their names, with commas; the bare driver always runs"
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument(
        "--rows", type=number, default=1_000_000, help="rows for the bytes per session; 0: do not measure"
    )
    parser.add_argument("--no-trips", dest="trips", action="store_false", help="do not count round trips")
    parser.add_argument("--one-core", action="store_true", help="servers and contenders on one core: see README.md")
    parser.add_argument("--least", action="store_true", help="the shortest call of each round: for a busy machine")
    parser.add_argument("--quick", action="store_true", help="5 rounds, 10,000 rows")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "benchmarks" / "results" / "engines.json", help="write the results there"
    )
    parser.add_argument("--from-json", type=Path, help="measure nothing: show the results of another run")
    parser.add_argument("--markdown", type=Path, help="write the tables there, for docs/performance.md")
    parser.add_argument("--chart", type=Path, help="draw them there (.svg or .png; needs matplotlib)")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.rows = min(options.rounds, 5), min(options.rows, 10_000)
    return options


def main() -> None:
    options = parse()
    if options.from_json:
        results = json.loads(options.from_json.read_text())
    else:
        results = run(options)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    report.show(results)
    if options.markdown:
        options.markdown.write_text(report.markdown(results))
    if options.chart:
        report.draw(results, options.chart)


def run(options: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {
        "date": str(date.today()),  # noqa: DTZ011
        "machine": machine(),
        "versions": {name: version(name) for name in LIBRARIES},
        "rounds": options.rounds,
        "least": options.least,
        "rows": options.rows,
    }
    with Servers() as servers, pinned(CORES[:1] if options.one_core else CORES[1:]):
        starter = Starter(servers)
        results["servers"] = [measure(starter, server, options) for server in options.only]
    return results


if __name__ == "__main__":
    main()
