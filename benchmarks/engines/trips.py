"""What a call sends to its server, counted below the driver's public functions where that can be done.

PostgreSQL's statements are read from its log, by the parent: see `servers.statements()`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

trips: list[str] = []


def watch(server: str) -> None:
    """Before any client is made."""
    if server == "mongodb":
        import pymongo.monitoring

        pymongo.monitoring.register(type("Listener", (pymongo.monitoring.CommandListener,), _MONGO)())  # type: ignore[arg-type]
    if server in ("redis", "postgres"):
        import redis

        redis.connection.AbstractConnection.send_packed_command = _counted(
            redis.connection.AbstractConnection.send_packed_command
        )
    if server == "sqlite":
        import sqlite3

        sqlite3.connect = sqlite3.dbapi2.connect = _traced(sqlite3.connect)


_MONGO = {
    "started": lambda self, event: trips.append(event.command_name),
    "succeeded": lambda self, event: None,
    "failed": lambda self, event: None,
}


def _counted(send: Any) -> Any:
    """Each call is one write to the socket, whose answers are read before the next."""

    def send_packed_command(self: Any, command: Any, *arguments: Any, **options: Any) -> Any:
        packed = command if isinstance(command, bytes) else b"".join(command)
        trips.append(" ".join(_commands(packed)))
        return send(self, command, *arguments, **options)

    return send_packed_command


def _traced(connect: Any) -> Any:
    def traced(*arguments: Any, **options: Any) -> Any:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(lambda sql: trips.append(sql.split(None, 1)[0].upper()))
        return connection

    return traced


def _commands(packed: bytes) -> Iterator[str]:
    """The names of the commands in a request of Redis's protocol: `*<items>`, then `$<length>` and bytes for each."""
    while packed:
        items, _, packed = packed.partition(b"\r\n")
        words = []
        for _ in range(int(items[1:])):
            length, _, packed = packed.partition(b"\r\n")
            words.append(packed[: int(length[1:])])
            packed = packed[int(length[1:]) + 2 :]
        yield words[0].decode()


@contextmanager
def counted() -> Iterator[list[str]]:
    trips.clear()
    found: list[str] = []
    yield found
    found += trips
