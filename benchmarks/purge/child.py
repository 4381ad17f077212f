"""What the child processes of run.py do: fill a table, save sessions, purge; each with a connection of its own."""

import gc
import hashlib
import math
import random
import resource
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import django
from django.conf import settings

OURS = "django_multisession.backends.db"
DJANGOS = "django.contrib.sessions.backends.db"
ENGINES = OURS, DJANGOS

SIGNED_IN = 500  # sessions that the writer saves in turn
EVERY = 0.005  # seconds
CHUNK = 2000
CLEAN = 100  # undo logs, some that the writer has just left among them
PATIENCE = 300  # seconds
DATA = range(300, 601)  # bytes of a session
CART = {f"item {number}": {"sku": f"A{number:05}", "count": number, "price": "9.99"} for number in range(8)}

told: Any = None  # the Event with which run.py ends what runs here
keys: list[str] = []


def configure(url: str, engine: str, event: Any) -> None:
    global told
    told = event
    import dj_database_url

    if url.startswith("mysql"):
        _install_driver()
    settings.configure(
        DATABASES={"default": dj_database_url.parse(url) | _sqlite_options(url)},
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.sessions",
            "django_multisession",
        ],
        SESSION_ENGINE=engine,
        SECRET_KEY="benchmark",
        USE_TZ=True,
        SILENCED_SYSTEM_CHECKS=["models.W042"],
    )
    django.setup()


def _install_driver() -> None:
    try:
        import MySQLdb  # noqa: F401
    except ImportError:
        import pymysql

        pymysql.version_info = (2, 2, 1, "final", 0)  # Django asks for mysqlclient's
        pymysql.install_as_MySQLdb()


def _sqlite_options(url: str) -> dict[str, Any]:
    """Those of docs/db.md, but for the time-out: to measure how long a writer waits, not that it gives up."""
    if not url.startswith("sqlite"):
        return {}
    pragma = "PRAGMA journal_mode = WAL"
    return {"OPTIONS": {"init_command": pragma, "transaction_mode": "IMMEDIATE", "timeout": 3600}}


def _connection() -> Any:
    from django.db import connection

    return connection


def connect() -> None:
    _connection().ensure_connection()


def _execute(statement: str, *parameters: Any) -> Any:
    with _connection().cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else cursor.rowcount


# Tables


def _model(engine: str) -> Any:
    from django.apps import apps

    return apps.get_model("django_multisession" if engine == OURS else "sessions", "Session")


def prepare() -> str:
    """Make the tables, and say what database it is."""
    from django.core.management import call_command

    if {_model(engine)._meta.db_table for engine in ENGINES} & set(_connection().introspection.table_names()):
        raise SystemExit("There are session tables in that database, which this would empty: name an empty one.")
    call_command("migrate", verbosity=0)
    version = ".".join(str(number) for number in _connection().get_database_version())
    name = "MariaDB" if getattr(_connection(), "mysql_is_mariadb", False) else _connection().display_name
    return f"{name} {version}"


def drop() -> None:
    with _connection().schema_editor() as editor:
        for engine in ENGINES:
            editor.delete_model(_model(engine))


def fill(engine: str, rows: int) -> None:
    """The engine's table, anew: `rows` expired and as many live sessions, in an order that has nothing of expiries."""
    model, connection = _model(engine), _connection()
    with connection.schema_editor() as editor:  # which makes the indexes at the end
        editor.delete_model(model)
        editor.create_model(model)
        _insert(model, _ours(rows) if engine == OURS else _djangos(rows))
    settle = {
        "postgresql": ["VACUUM (ANALYZE) {table}", "CHECKPOINT"],
        "mysql": ["ANALYZE TABLE {table}"],
        "sqlite": ["ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)"],
    }
    for statement in settle[connection.vendor]:
        _execute(statement.format(table=model._meta.db_table))


def _insert(model: Any, rows: Iterator[tuple[Any, ...]]) -> None:
    table, fields = model._meta.db_table, model._meta.fields
    with _connection().cursor() as cursor:
        if _connection().vendor == "postgresql":
            with cursor.copy(f"COPY {table} FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        else:
            while chunk := list(islice(rows, CHUNK)):
                cursor.executemany(f"INSERT INTO {table} VALUES ({', '.join(['%s'] * len(fields))})", chunk)


def _sessions(rows: int) -> Iterator[tuple[str, bytes, datetime]]:
    """Id, data and expiry. The expired ones are from the last month, the live ones end within two weeks."""
    total, now = 2 * rows, datetime.now(UTC)
    step = next(step for step in range(int(total * 0.618), 2 * total) if math.gcd(step, total) == 1)
    noise = random.Random(1).randbytes(100_000)
    # InnoDB keeps rows in the order of their ids: loading 2,000,000 in another one takes very long.
    spread = 2**32 // total if _connection().vendor == "mysql" else 0
    for number in range(total):
        rank = number * step % total
        size = DATA[number * 7919 % len(DATA)]
        digest = hashlib.sha256(b"%d" % number).hexdigest()
        id = f"{number * spread:08x}{digest[8:]}" if spread else digest
        days = -1 - 30 * (rows - rank) / rows if rank < rows else 1 + 13 * (rank - rows) / rows
        yield id, noise[number % 90_000 :][:size], now + timedelta(days=days)


def _ours(rows: int) -> Iterator[tuple[Any, ...]]:
    from django_multisession.records import to_epoch

    binary = _connection().Database.Binary
    now = to_epoch(datetime.now(UTC))
    for number, (id, data, expiry) in enumerate(_sessions(rows)):
        user = str(number % 100_000) if number % 3 else None
        yield id, binary(data), user, now, now, to_epoch(expiry), 1


def _djangos(rows: int) -> Iterator[tuple[Any, ...]]:
    adapt = _connection().ops.adapt_datetimefield_value
    for id, data, expiry in _sessions(rows):
        yield id[:40], data.hex()[: len(data)], adapt(expiry)


def expired_rows(engine: str) -> int:
    from django_multisession.purge.counting import count
    from django_multisession.purge.tables import Criteria, Table

    return count(Table(_model(engine)), Criteria(before=datetime.now(UTC)))


# The writer


def sign_in() -> None:
    Store = import_module(settings.SESSION_ENGINE).SessionStore  # noqa: N806
    for number in range(SIGNED_IN):
        session = Store()
        session.update(CART | {"_auth_user_id": str(number)})
        session.create()
        keys.append(session.session_key)


def write() -> list[float]:
    """Load and save sessions until told to end: one each 5 ms, or as soon as the last one is done. Seconds of each."""
    Store = import_module(settings.SESSION_ENGINE).SessionStore  # noqa: N806
    waits = []
    while not told.is_set():
        began = time.perf_counter()
        session = Store(keys[len(waits) % len(keys)])
        session["seen"] = len(waits)
        session.save()
        waits.append(time.perf_counter() - began)
        time.sleep(max(0, began + EVERY - time.perf_counter()))
    return waits


def hold_snapshot() -> None:
    """As a backup does."""
    from django.db import transaction

    with transaction.atomic():
        _execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        _execute("SELECT 1")
        told.wait()


# The purges


def purgesessions(*options: str) -> dict[str, Any]:
    from django.core.management import call_command

    return _measured(lambda: call_command("purgesessions", *options, verbosity=0))


def clearsessions() -> dict[str, Any]:
    from django.core.management import call_command

    return _measured(lambda: call_command("clearsessions"))


def delete() -> dict[str, Any]:
    from django_multisession.records import to_epoch

    statement = f"DELETE FROM {_model(OURS)._meta.db_table} WHERE expires_at < %s"
    now = to_epoch(datetime.now(UTC))
    return _measured(lambda: _execute(statement, now))


def _measured(purge: Any) -> dict[str, Any]:
    """`seconds`, and `memory`: by how many bytes the process grew at most."""
    gc.collect()
    before = _peak(reset=True)
    began = time.perf_counter()
    purge()
    result = {"seconds": time.perf_counter() - began, "memory": _peak() - before}
    _connection().close()  # so that the server counts what it did
    return result


def _peak(reset: bool = False) -> int:
    """The most memory that the process had so far, in bytes."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


# What the server tells


def server_tells(engine: str) -> dict[str, int]:
    """`log`: bytes of its write-ahead log. `dead`: rows (PostgreSQL) or undo logs (MariaDB) to be cleaned up."""
    tells = {"postgresql": _postgresql, "mysql": _mysql, "sqlite": _sqlite}
    return tells[_connection().vendor](_model(engine)._meta.db_table)


def _postgresql(table: str) -> dict[str, int]:
    time.sleep(1.1)  # the others' statistics arrive once per second
    [[log]] = _execute("SELECT pg_current_wal_lsn() - '0/0'")
    [[dead]] = _execute("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = %s", table)
    return {"log": int(log), "dead": dead}


def wait_for_cleanup() -> float:
    """MariaDB removes rows after their transaction's end. Seconds until it has, while the writer adds to its list."""
    start = time.perf_counter()
    if _connection().vendor == "mysql":
        while _mysql("")["dead"] > CLEAN and time.perf_counter() - start < PATIENCE:
            time.sleep(0.1)
    return time.perf_counter() - start


def _mysql(table: str) -> dict[str, int]:
    status = dict(_execute("SHOW GLOBAL STATUS LIKE 'Innodb%%'"))
    return {"log": int(status["Innodb_os_log_written"]), "dead": int(status["Innodb_history_list_length"])}


def _sqlite(table: str) -> dict[str, int]:
    """The size of the file that has the log, which does not shrink."""
    return {"log": Path(f"{_connection().settings_dict['NAME']}-wal").stat().st_size}
