"""How long a call takes: by the clock, and of the processor, which others on the machine hardly change."""

import os
import time
from collections.abc import Callable

from django.db import connection

from benchmarks.costs import site  # noqa: F401  sets Django up
from django_multisession import engine

Times = dict[str, float]  # milliseconds: "wall", and of the processor: "client", "server"


def quickest(calls: int, call: Callable[[], object], before: Callable[[], object] = lambda: None) -> Times:
    """The least of each."""
    took = []
    for _ in range(calls):
        before()
        took.append(timed(call))
    return least(*took)


def least(*took: Times) -> Times:
    return {name: min(each[name] for each in took) for name in took[0]}


def timed(call: Callable[[], object]) -> Times:
    server = processor_clock(server_process())
    clocks = {
        "wall": time.perf_counter,
        "client": time.process_time,
        "server": lambda: time.clock_gettime(server),
    }
    began = {name: clock() for name, clock in clocks.items()}
    call()
    return {name: (clock() - began[name]) * 1000 for name, clock in clocks.items()}


def processor_clock(process: int) -> int:
    """Of all threads of a process, those too that are over: what clock_getcpuclockid() answers on Linux."""
    return (~process << 3) | 2


def server_process() -> int:
    """The one that answers: PostgreSQL has one for each connection."""
    if engine.kind() != "db":
        return int(os.environ["CAPACITY_PID"])
    connection.ensure_connection()
    return int(connection.connection.info.backend_pid)
