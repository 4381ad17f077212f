"""A process of run.py: one contender, which it times and counts as it is told, a line of JSON each way.

{"do": "time", "workload": "read", "count": 50}  ->  nanoseconds of each of 50 calls
{"do": "warm_up", "workload": "read"}            ->  null, and then
{"do": "trips"}                                  ->  what one call sends, each in a round trip of its own
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.engines import contenders as engines_contenders
from benchmarks.engines import trips as engines_trips

WARM_UP = 3  # calls before those that count: the processor's caches hold another process's work

Call = Callable[[int], Any]


class Child:
    def __init__(self, name: str, server: str, addresses: dict[str, Any], counting: bool) -> None:
        [self.contender] = [
            each for each in engines_contenders.CONTENDERS if (each.name, each.server) == (name, server)
        ]
        self.addresses = addresses
        self.runner = asyncio.Runner()
        if counting:
            engines_trips.watch(self.contender.server)
        if self.contender.engine is None and not self.contender.requests_only:
            from benchmarks.engines import bare as engines_bare

            self.workloads = engines_bare.WORKLOADS[self.contender.server](addresses, self.runner)
        else:
            from benchmarks.engines import stores as engines_stores

            engines_stores.configure(self.contender, addresses)
            self.workloads = engines_stores.Workloads(self.contender, addresses, self.runner)
        gc.collect()
        gc.freeze()

    def names(self) -> list[str]:
        return list(self.workloads.names)

    def time(self, workload: str, count: int) -> list[int]:
        call = self.workloads.start(workload, count + WARM_UP)
        return [_nanoseconds(call, number) for number in range(count + WARM_UP)][WARM_UP:]

    def warm_up(self, workload: str) -> None:
        """Connect, and make known to the server what it is to know, before a call is counted."""
        self.call = self.workloads.start(workload, WARM_UP)
        for number in range(WARM_UP - 1):
            self.call(number)

    def trips(self) -> list[str]:
        with engines_trips.counted() as trips:
            self.call(WARM_UP - 1)
        return trips

    def fill(self, sessions: int) -> None:
        """Store so many sessions of different users."""
        self.workloads.fill(sessions)

    def table(self) -> dict[str, Any]:
        """The names of the contender's table and columns."""
        return dict(self.workloads.table())


def _nanoseconds(call: Call, number: int) -> int:
    start = time.perf_counter_ns()
    call(number)
    return time.perf_counter_ns() - start


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    child = Child(**json.loads(sys.stdin.readline()))
    print(json.dumps(child.names()), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(getattr(child, order.pop("do"))(**order)), file=answers, flush=True)


if __name__ == "__main__":
    main()
