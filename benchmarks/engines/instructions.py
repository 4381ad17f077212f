#!/usr/bin/env python
"""What run.py's workloads cost in machine instructions, which other work on the machine does not change: see README.md.

usage: instructions.py PATTERN... (of the names of contenders on PostgreSQL)
"""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)  # not this folder: requests.py in it is no library

from benchmarks.engines import report
from benchmarks.engines import stores as engines_stores
from benchmarks.engines.contenders import CONTENDERS, Contender
from benchmarks.engines.run import Starter
from benchmarks.engines.servers import Servers
from benchmarks.instructions import MARK, totals

WORKLOADS = "read", "write", "create", "sliding", "log-in", "request read", "request write", "async", "request async"
CALLS = {"async": 4, "request async": 4}  # if not USUAL; each is AT_ONCE sessions
USUAL, WARM_UP = 50, 4


def main() -> None:
    if sys.argv[1] == "--of":
        return count(sys.argv[2], json.loads(sys.argv[3]))
    print(f"| | {' | '.join(WORKLOADS)} |\n|{'---|' * (len(WORKLOADS) + 1)}")
    with Servers() as servers:
        starter = Starter(servers)
        for each in CONTENDERS:
            if each.server == "postgres" and each.engine and any(re.search(name, each.name) for name in sys.argv[1:]):
                counts = counted(starter, each)
                print(f"| {each.name} | {' | '.join(f'{counts[name]:,.0f}' for name in WORKLOADS)} |", flush=True)


def counted(starter: Starter, contender: Contender) -> dict[str, float]:
    """Instructions of one session, by workload. Every other dump is a warm-up."""
    addresses = starter.servers.addresses("postgres", "redis")
    out = starter.servers.directory / f"callgrind-{contender.name}" / "out"
    out.parent.mkdir()
    path = os.pathsep.join([*starter._path(contender.packages), str(ROOT)])
    command = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}", f"--dump-before={MARK}"]
    arguments = [sys.executable, __file__, "--of", contender.name, json.dumps(addresses)]
    subprocess.run(
        [*command, *arguments], check=True, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path}
    )
    return {
        name: total / CALLS.get(name, USUAL) / (report.AT_ONCE if name.endswith("async") else 1)
        for name, total in zip(WORKLOADS, totals(out)[1::2], strict=False)
    }


def count(name: str, addresses: dict[str, Any]) -> None:
    [contender] = [each for each in CONTENDERS if (each.name, each.server) == (name, "postgres")]
    engines_stores.configure(contender, addresses)
    workloads = engines_stores.Workloads(contender, addresses, asyncio.Runner())
    for workload in WORKLOADS:
        repeat(workloads.start(workload, WARM_UP), WARM_UP)
        calls = CALLS.get(workload, USUAL)
        call = workloads.start(workload, calls)
        os.getpriority(os.PRIO_PROCESS, 0)
        repeat(call, calls)
        os.getpriority(os.PRIO_PROCESS, 0)


def repeat(call: Callable[[int], Any], calls: int) -> None:
    for number in range(calls):
        call(number)


if __name__ == "__main__":
    main()
