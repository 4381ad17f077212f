#!/usr/bin/env python
"""What a purge costs, and what it costs those who save sessions meanwhile: see README.md.

A child process purges, another saves a live session every 5 ms, and the servers are asked what they had to do for it.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from benchmarks.purge import child, report
from example_project.servers import MariaDBServer, PostgresServer

# Name: the purge; the engine whose table it purges and that the writer uses; whether an old snapshot is held.
WAYS: dict[str, tuple[Callable[..., Any], str, bool]] = {
    "purgesessions": (child.purgesessions, child.OURS, False),
    "DELETE": (child.delete, child.OURS, False),
    "clearsessions": (child.clearsessions, child.DJANGOS, False),
    "purgesessions, old snapshot": (child.purgesessions, child.OURS, True),
    "DELETE, old snapshot": (child.delete, child.OURS, True),
}

DATABASES = ["postgresql", "mysql", "sqlite"]
SPAWN = get_context("spawn")  # a purge's memory is its own then


@contextmanager
def server(database: str, megabytes: int) -> Iterator[str]:
    """The URL of a throw-away server, with such a buffer; or of a file.

    Those of the tests may lose all in a crash, these may not: they wait for the disk when a transaction ends.
    """
    if database == "sqlite":
        with TemporaryDirectory(prefix="multisession-") as directory:
            yield f"sqlite:///{directory}/db.sqlite3"
    elif database == "postgresql":
        with PostgresServer(
            "-c", "fsync=on", "-c", f"shared_buffers={megabytes}MB", "-c", "max_wal_size=4GB"
        ) as started:
            yield started.url
    else:
        size = f"--innodb-buffer-pool-size={megabytes}M"
        with MariaDBServer("--innodb-flush-log-at-trx-commit=1", "--innodb-log-file-size=1G", size) as started:
            yield started.url


class Child:
    """A process with a connection of its own, which runs functions of `child.py`, one after the other."""

    def __init__(self, url: str, engine: str = child.OURS) -> None:
        self.told = SPAWN.Event()
        self.executor = ProcessPoolExecutor(1, SPAWN, child.configure, (url, engine, self.told))

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *error: object) -> None:
        self.told.set()
        self.executor.shutdown()

    def start(self, function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        """Start it; the answer's `result()`, after telling the function to end."""
        self.told.clear()
        future = self.executor.submit(function, *arguments)

        def end() -> Any:
            self.told.set()
            return future.result()

        return end

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.executor.submit(function, *arguments).result()


def measure(admin: Child, url: str, way: str, rows: int, idle: float, words: list[str]) -> dict[str, Any]:
    function, engine, snapshot = WAYS[way]
    with Child(url, engine) as purger, Child(url, engine) as writer, Child(url) as holder:
        admin.ask(child.fill, engine, rows)
        writer.ask(child.sign_in)
        if snapshot:
            holder.start(child.hold_snapshot)
        purger.ask(child.connect)
        end = writer.start(child.write)
        time.sleep(idle)
        before = end()
        told = admin.ask(child.server_tells, engine)
        end = writer.start(child.write)
        result = purger.ask(function, *(words if function is child.purgesessions else ()))
        result["cleanup"] = admin.ask(child.wait_for_cleanup)
        during = end()
        result |= {name: value - told[name] for name, value in admin.ask(child.server_tells, engine).items()}
    if left := admin.ask(child.expired_rows, engine):
        raise SystemExit(f"{way} has left {left:,} rows.")
    return {"way": way, "rows": rows, **result, "idle": report.waits(before), "purging": report.waits(during)}


def run(database: str, url: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    with Child(url) as admin:
        version = admin.ask(child.prepare)
        try:
            for rows in options.rows:
                for way in [way for way in options.way if database == "postgresql" or not WAYS[way][2]]:
                    for _ in range(options.repeat):
                        print(f"{version}, {rows:,} + {rows:,} rows: {way} ...", file=sys.stderr, flush=True)
                        run = measure(admin, url, way, rows, options.idle, options.purgesessions)
                        yield {"database": version, **run}
        finally:
            admin.ask(child.drop)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    number = lambda text: int(text.replace("_", "").replace(",", ""))  # noqa: E731
    parser.add_argument(
        "--rows", type=number, nargs="+", default=[100_000, 1_000_000], help="expired, and as many live"
    )
    parser.add_argument(
        "--database", nargs="+", choices=DATABASES, default=DATABASES, help="start these, or make a file"
    )
    parser.add_argument("--memory", type=number, default=2048, help="MB of the servers' buffers")
    parser.add_argument("--url", help="a database to use instead; its session tables must not be there yet")
    parser.add_argument("--way", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--idle", type=float, default=10, help="seconds to measure the writer alone, before each purge")
    parser.add_argument("--repeat", type=int, default=1, help="show the run of median duration of so many")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--chart", type=Path, help="draw the writer's waits there (.svg or .png; needs matplotlib)")
    parser.add_argument("--from-json", type=Path, help="measure nothing: show the results of another run")
    parser.add_argument("purgesessions", nargs="*", help="after --: options of the command, as in -- --batch-size=500")
    options = parser.parse_args()
    if options.from_json:
        results = json.loads(options.from_json.read_text())
    else:
        results = {"date": str(date.today()), "machine": machine(), "runs": []}  # noqa: DTZ011
        for database in [options.url.split(":")[0]] if options.url else options.database:
            with ExitStack() as stack:
                url = options.url or stack.enter_context(server(database, options.memory))
                results["runs"] += run(database, url, options)
    results["runs"] = report.medians(results["runs"])
    report.show(results["runs"])
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.chart:
        report.draw(results["runs"], options.chart)


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
