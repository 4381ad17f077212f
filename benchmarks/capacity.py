#!/usr/bin/env python
"""What sessions take: bytes, requests per core, how each verb's time grows; and what that comes to for many of them.

    benchmarks/capacity.py                       # 1,000 to 1,000,000 sessions: half an hour
    benchmarks/capacity.py --quick               # a look: some minutes
    benchmarks/capacity.py --only growth --engine Redis --most 100000            # smaller stores and users alone
    benchmarks/capacity.py --only load --json benchmarks/results/capacity.json   # that part anew
    benchmarks/capacity.py --from-json benchmarks/results/capacity.json --markdown tables.md

The servers are throw-away ones. Each part runs in a process of its own, engine by engine. Load needs wrk. What a run
finds of an engine takes the place of what the file had of it; a run that is stopped leaves what it has found by then.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.costs import tables
from example_project.servers import MongoDBServer, PostgresServer, RedisServer

KINDS: dict[str, Any] = {
    "Redis": RedisServer,
    "PostgreSQL": lambda: PostgresServer("-c", "shared_buffers=512MB", "-c", "max_wal_size=4GB"),
    "MongoDB": MongoDBServer,
}
# SecantusDB reads the whole collection for each page of a scan: the square of the sessions for all of them.
MOST = {"MongoDB": {"store": 10_000, "user": 1000}}
PARTS = {"sizes": list(KINDS), "load": list(KINDS), "growth": list(KINDS)}
USUAL = {
    "bytes": [200, 600, 2048, 16384],
    "sized": 2000,
    "seconds": 4,
    "store": [1000, 10_000, 100_000, 1_000_000],
    "user": [1, 10, 100, 1000, 10_000],
}
QUICK = {"bytes": [200, 600], "sized": 200, "seconds": 1, "store": [100, 1000], "user": [1, 10]}
TINY = {"bytes": [200], "sized": 20, "seconds": 1, "store": [20, 40], "user": [1, 2]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_const", dest="bounds", const=QUICK, default=USUAL)
    parser.add_argument("--tiny", action="store_const", dest="bounds", const=TINY, help="whether it runs at all")
    parser.add_argument("--only", choices=PARTS, action="append", help="parts; may be given more than once")
    parser.add_argument("--engine", choices=KINDS, action="append")
    parser.add_argument("--most", type=int, metavar="SESSIONS", help="measure growth up to so many")
    parser.add_argument("--json", type=Path, help="add the figures to this file")
    parser.add_argument("--from-json", type=Path, help="measure nothing")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(*options.child, json.loads(os.environ["CAPACITY_BOUNDS"]))
    found = json.loads(options.from_json.read_text()) if options.from_json else measure(options)
    (options.markdown.write_text if options.markdown else print)(tables.markdown(found))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    kept = options.json
    found: dict[str, Any] = json.loads(kept.read_text()) if kept and kept.exists() else {}
    for part in options.only or PARTS:
        for name in PARTS[part]:
            if name in (options.engine or KINDS):
                for measured in in_child(part, name, bounded(name, options)):
                    found.setdefault(part, {})[name] = measured
                    if kept:
                        kept.write_text(json.dumps(found, indent=1) + "\n")
    return found


def bounded(name: str, options: argparse.Namespace) -> dict[str, Any]:
    most = MOST.get(name, {})
    sizes = {
        of: [size for size in options.bounds[of] if size <= min(options.most or size, most.get(of, size))]
        for of in ("store", "user")
    }
    return options.bounds | sizes


def in_child(part: str, name: str, bounds: dict[str, Any]) -> Iterator[Any]:
    """What is known by then, again and again. On servers of its own: SQL has the users, whatever has the sessions."""
    with ExitStack() as stack:
        running = {kind: stack.enter_context(KINDS[kind]()) for kind in {"PostgreSQL", name}}
        environment = {f"CAPACITY_{kind.upper().removesuffix('QL')}": each.url for kind, each in running.items()}
        environment |= {"CAPACITY_ENGINE": name, "CAPACITY_BOUNDS": json.dumps(bounds)}
        environment |= {"CAPACITY_PID": str(running[name].pid)}
        command = [sys.executable, __file__, "--child", part, name]
        with subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            yield from map(json.loads, process.stdout)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)


def child(part: str, name: str, bounds: dict[str, Any]) -> None:
    from django.core.management import call_command

    from benchmarks.costs import site  # noqa: F401  sets Django up

    call_command("migrate", verbosity=0)
    for found in globals()[part](bounds):
        print(json.dumps(found), flush=True)


def sizes(bounds: dict[str, Any]) -> Iterator[Any]:
    from benchmarks.costs.sizes import measured

    yield measured(bounds["bytes"], bounds["sized"])


def growth(bounds: dict[str, Any]) -> Iterator[Any]:
    from benchmarks.costs.growth import grown

    yield from grown(bounds["store"], bounds["user"])


def load(bounds: dict[str, Any]) -> Iterator[Any]:
    from benchmarks.costs.filling import fill
    from benchmarks.costs.load import SESSIONS, measured

    yield measured(fill(iter(range(SESSIONS)), 600), bounds["seconds"], int(os.environ["CAPACITY_PID"]))


if __name__ == "__main__":
    main()
