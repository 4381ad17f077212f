#!/usr/bin/env python
"""Where the time of a session on Redis goes, in machine instructions, which other work on the machine does not change.

Callgrind counts what this process executes, not the kernel and not the server: see README.md. It dumps its counts
whenever a function of libc is called that nothing else here calls, so that each dump is one part.
"""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.engines import data
from benchmarks.engines import stores as engines_stores
from benchmarks.engines.contenders import CONTENDERS
from example_project.servers import RedisServer

CALLS, WARM_UP = 200, 20
MARK = "getpriority"
signed_in = data.signed_in(1)
LATER = 4102444800000  # in 2100, in milliseconds since 1970


def main() -> None:
    if len(sys.argv) > 1:
        return measured(sys.argv[1])
    with RedisServer() as server, tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "callgrind"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", f"--dump-before={MARK}"]
        arguments = [sys.executable, __file__, server.url]
        names = subprocess.run([*command, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout
        show(names.splitlines(), totals(out))


def totals(out: Path) -> list[int]:
    """Of each dump, in their order."""
    dumps = sorted(out.parent.glob(f"{out.name}.*"), key=lambda dump: int(dump.suffix[1:]))
    return [int(re.findall(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)[0]) for dump in dumps]


def show(names: list[str], totals: list[int]) -> None:
    counts = dict(zip(names, (total / CALLS for total in totals[1::2]), strict=False))  # between them: the warm-ups
    print("| | Instructions | of a GET |\n|---|---|---|")
    for name, count in counts.items():
        print(f"| {name} | {count:,.0f} | {count / counts['GET']:.2f} |")


def measured(url: str) -> None:
    for name, part in parts(url).items():
        for calls in (WARM_UP, CALLS):
            for _ in range(calls):
                part()
            os.getpriority(os.PRIO_PROCESS, 0)
        print(name, flush=True)


def parts(url: str) -> dict[str, Callable[[], Any]]:
    """What is counted: bare calls, whole workloads as in engines/, and what a read consists of."""
    import redis

    [ours] = [each for each in CONTENDERS if (each.name, each.server) == ("multisession", "redis")]
    engines_stores.configure(ours, {"redis": url})
    from django_multisession.backends.redis import SessionStore
    from django_multisession.backends.redis.answers import unpack
    from django_multisession.payload import codecs
    from django_multisession.records import identify

    client = redis.Redis.from_url(url)
    workloads = engines_stores.Workloads(ours, {}, asyncio.Runner())
    key = workloads.stored(signed_in)
    id = identify(key)
    value = client.get(f"session:{id}")
    assert isinstance(value, bytes)
    payload = unpack(id, value).payload
    serializer = SessionStore().serializer
    serialized = codecs.open_(payload, id)[0]
    client.set("bare", value, pxat=LATER)
    return {
        "GET": lambda: client.get("bare"),
        "GET and SET": lambda: (client.get("bare"), client.set("bare", value, pxat=LATER)),
        "read": lambda: SessionStore(key)["visits"],
        "write": lambda: workloads.write(key),
        "create signed in": lambda: workloads.stored(signed_in),
        "SessionStore(key)": lambda: SessionStore(key),
        "the key's hash": lambda: identify(key),
        "the value's header": lambda: unpack(id, value),
        "signature and decompression": lambda: codecs.open_(payload, id),
        "JSON to data": lambda: codecs.deserialize(serialized, serializer),
        "data to JSON": lambda: codecs.serialize(signed_in, serializer),
        "compression and signature": lambda: codecs.close(serialized, id),
        "read, measured": lambda: (measure(), SessionStore(key)["visits"]),
        "write, measured": lambda: (measure(), workloads.write(key)),
    }


def measure() -> None:
    """Metrics on, with a provider that keeps them in memory. The parts before this one are without."""
    from opentelemetry import metrics as api
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from django_multisession import metrics

    if not metrics._replaced:
        api.set_meter_provider(MeterProvider([InMemoryMetricReader()]))
        metrics.start()


if __name__ == "__main__":
    main()
