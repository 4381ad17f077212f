"""The tables of docs/capacity.md, from the figures of capacity.py."""

from collections.abc import Callable, Iterable
from typing import Any

Times = dict[str, float]  # of clocks.py, which needs a site

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
    both = {("sizes", "growth"): _largest, ("sizes", "load"): _worked}
    tables += [table for needed, make in both.items() if set(needed) <= set(found) for table in make(found)]
    return "\n\n".join(tables) + "\n"


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
    measured = {"Milliseconds": _by_the_clock, "Milliseconds of the processor, client / server": _of_the_processor}
    grown = {"store": "by the sessions in the store", "user": "by the sessions of one user"}
    return [
        _table(f"{name}: {what}, {title}", ["", *(f"{int(size):,}" for size in by[of])], _by_verb(by[of], shown))
        for name, by in found.items()
        for what, shown in measured.items()
        for of, title in grown.items()
    ]


def _by_verb(by_size: dict[str, dict[str, Times]], shown: Callable[[Times], str]) -> Iterable[list[str]]:
    for verb in next(iter(by_size.values()), {}):  # none where a run was stopped before
        yield [verb, *(shown(figures[verb]) for figures in by_size.values())]


def _by_the_clock(took: Times) -> str:
    return _digits(took["wall"])


def _of_the_processor(took: Times) -> str:
    return f"{_digits(took['client'])} / {_digits(took['server'])}"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _largest(found: dict[str, Any]) -> list[str]:
    """What the figures for one session and for one user leave out."""
    rows = []
    for name, by in found["growth"].items():
        size, measured = max((int(size), measured) for size, measured in by["bytes"].items())
        each, users = found["sizes"][name]["600"], size // 10
        computed = size * each["session"] + users * each["user"]
        beyond = f"{(measured - computed) / (size + users):.0f}" if name == "Redis" else ""
        rows.append([name, f"{size:,}", f"{users:,}", _bytes(measured), _bytes(computed), beyond])
    heads = ["Engine", "Sessions", "Users", "Measured", "By the bytes for each", "Left out for each key"]
    return [_table("Bytes of the largest store", heads, rows)]


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
