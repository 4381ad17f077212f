"""Requests by wrk at one gunicorn or uvicorn worker: how many for each second that the worker's processor was busy.

Not by the clock: on a machine that others use too a request waits for its turn, but takes no more of the processor.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

from example_project.servers import free_port

ROOT = Path(__file__).parents[2]
SESSIONS = 1000
CONNECTIONS = 16
TICKS = os.sysconf("SC_CLK_TCK")
SERVERS: dict[str, tuple[list[str], str]] = {
    "gunicorn": (["gunicorn", "-b", "127.0.0.1:{port}", "-w", "1", "-k", "gthread", "--threads", "4"], "wsgi"),
    "uvicorn": (["uvicorn", "--port", "{port}", "--no-access-log", "--log-level", "warning"], "asgi"),
}
PATHS = {"wsgi": ("nothing", "read", "write"), "asgi": ("anothing", "aread", "awrite")}
SCRIPT = """
local keys = {}
for line in io.lines("%s") do keys[#keys + 1] = line end
request = function()
  return wrk.format("GET", nil, {["Cookie"] = "sessionid=" .. keys[math.random(#keys)]})
end
"""


def measured(keys: list[str], seconds: int, server: int) -> dict[str, dict[str, dict[str, float]]]:
    """`{server: {path: figures}}`; `server` is the process of the engine's server, whose time is told too."""
    if not shutil.which("wrk"):
        raise FileNotFoundError("wrk is missing: apt-get install wrk")
    with TemporaryDirectory() as directory:
        (given := Path(directory, "keys")).write_text("\n".join(keys) + "\n")
        (script := Path(directory, "cookies.lua")).write_text(SCRIPT % given)
        return {name: _by(name, script, seconds, server) for name in SERVERS}


def _by(name: str, script: Path, seconds: int, server: int) -> dict[str, dict[str, float]]:
    command, interface = SERVERS[name]
    with _running(command, interface) as (pid, port):
        _asked(port, PATHS[interface][1], script, 1)  # connections, compiled statements
        return {
            path.removeprefix("a"): _measured(port, path, script, seconds, pid, server) for path in PATHS[interface]
        }


@contextmanager
def _running(command: list[str], interface: str) -> Iterator[tuple[int, int]]:
    port = free_port()
    arguments = [part.format(port=port) for part in command]
    application = f"benchmarks.costs.site:{interface}"
    # An asynchronous request has a thread of its own from Django, so a connection of its own: they come from a pool.
    environment = os.environ | ({"CAPACITY_POOL": "1"} if interface == "asgi" else {})
    program = [sys.executable, "-m", *arguments, application]
    process = subprocess.Popen(program, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        _wait(port)
        yield process.pid, port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _wait(port: int) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/nothing"):
                return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def _measured(port: int, path: str, script: Path, seconds: int, *processes: int) -> dict[str, float]:
    before = [busy(process) for process in processes]
    requests = _asked(port, path, script, seconds)
    worker, server = (busy(process) - since for process, since in zip(processes, before, strict=True))
    return {"requests": requests, "per core": requests / worker, "server": server / requests * 1e6}


def _asked(port: int, path: str, script: Path, seconds: int) -> int:
    """How many requests were answered, all of them with 200."""
    url = f"http://127.0.0.1:{port}/{path}"
    command = ["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{seconds}s", "-s", str(script), url]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in told or not (found := re.search(r"(\d+) requests in", told)):
        raise RuntimeError(f"{path}: {told}")
    return int(found[1])


def busy(process: int) -> float:
    """Seconds of the processor that a process and its children have used, those too that are over (Linux)."""
    try:
        fields: Any = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):  # over since; its parent's figures have it
        return 0
    return sum(map(int, fields[11:15])) / TICKS + sum(busy(int(child)) for child in children)
