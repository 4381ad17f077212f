"""The tables of docs/capacity.md, from the figures of capacity.py."""

from collections.abc import Iterable
from typing import Any

DAY = 86400
A_DAY, WRITTEN, PEAK = 20, 0.2, 3  # assumed: requests of a live session, how many of them save; times the average
MEMORY = 24 * 10**9  # assumed: bytes of sessions on a server with 32 GB, half of what is left for copies as it forks
KEY = 50  # bytes of Redis' tables of keys and of expiries, for each key: MEMORY USAGE leaves them out
COMMANDS = 50_000  # assumed: commands per second of one Redis server
WIRE = 150  # bytes of a command and an answer beside the payload, assumed
USERS = 0.5  # for each live session
SCALES = {"1 M": 10**6, "100 M": 10**8, "1 G": 10**9}


def markdown(found: dict[str, Any]) -> str:
    parts = {"sizes": _sizes, "load": _load, "growth": _growth}
    tables = [table for part, make in parts.items() if part in found for table in make(found[part])]
    return "\n\n".join(tables + (_worked(found) if {"sizes", "load"} <= set(found) else [])) + "\n"


def _table(title: str, heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *map(list, rows)]
    return f"**{title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _sizes(found: dict[str, Any]) -> list[str]:
    rows = [
        [name, f"{int(size):,}", *(f"{figures[each]:,.0f}" for each in ("payload", "session", "user"))]
        for name, by_size in found.items()
        for size, figures in by_size.items()
    ]
    return [_table("Bytes", ["Engine", "As JSON", "Payload", "For a session", "For a user"], rows)]


def _load(found: dict[str, Any]) -> list[str]:
    rows = [
        [name, server, *(f"{paths[path]['per core']:,.0f}" for path in ("nothing", "read", "write")),
         *(f"{paths[path]['server']:,.0f}" for path in ("read", "write"))]
        for name, by_server in found.items()
        for server, paths in by_server.items()
    ]  # fmt: skip
    heads = ["Engine", "Server", "no session", "read", "read and saved", "µs of the engine's server: read", "saved"]
    return [_table("Requests per second of one core of the web server", heads, rows)]


def _growth(found: dict[str, Any]) -> list[str]:
    titles = {
        "store": "Milliseconds, by the sessions in the store",
        "user": "Milliseconds, by the sessions of one user",
    }
    return [
        _table(f"{name}: {title}", ["", *(f"{int(size):,}" for size in sizes[by])], _by_verb(sizes[by]))
        for name, sizes in found.items()
        for by, title in titles.items()
    ]


def _by_verb(by_size: dict[str, dict[str, float]]) -> Iterable[list[str]]:
    for verb in next(iter(by_size.values())):
        yield [verb, *(_milliseconds(figures[verb]) for figures in by_size.values())]


def _milliseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _worked(found: dict[str, Any]) -> list[str]:
    redis, payload = found["sizes"]["Redis"], found["sizes"]["Redis"]["600"]["payload"]
    bytes_each = redis["600"]["session"] + USERS * redis["600"]["user"] + (1 + USERS) * KEY
    sql = found["sizes"]["PostgreSQL"]["600"]
    table = sql["session"] + USERS * sql["user"]
    reads, writes = (found["load"]["Redis"]["gunicorn"][path]["per core"] for path in ("read", "write"))
    rows = []
    for name, sessions in SCALES.items():
        requests = sessions * A_DAY / DAY * PEAK
        commands = requests * (1 + WRITTEN)
        rows.append([
            name,
            _bytes(sessions * bytes_each),
            f"{max(1, -(-sessions * bytes_each // MEMORY), -(-commands // COMMANDS)):,.0f}",
            _bytes(sessions * table),
            f"{requests:,.0f}",
            f"{commands:,.0f}",
            f"{commands * (payload + WIRE) * 8 / 1e6:,.0f}",
            f"{requests * ((1 - WRITTEN) / reads + WRITTEN / writes):,.1f}",
        ])  # fmt: skip
    heads = ["Live sessions", "Redis, memory", "Redis, primaries", "PostgreSQL, table and indexes"]
    heads += ["Requests/s at the peak", "Redis commands/s", "Network, Mbit/s", "Cores of web servers, for these views"]
    return [_table("Computed", heads, rows)]


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
