"""Rows to purge, and purges in processes of their own."""

import json
import subprocess
import sys
from collections.abc import Iterable
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.conf import settings as site
from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_multisession.models import Session
from django_multisession.records import utcnow

from .routers import SessionRouter

HOUR, DAY = timedelta(hours=1), timedelta(days=1)

CHILD = """
import json, sys
from django.conf import settings
databases, secret_key, code = json.load(sys.stdin)
try:
    import MySQLdb
except ImportError:
    import pymysql
    pymysql.version_info = (2, 2, 1, "final", 0)
    pymysql.install_as_MySQLdb()
settings.configure(
    DATABASES=databases, USE_TZ=True, SECRET_KEY=secret_key, SESSION_ENGINE="django_multisession.backends.db",
    INSTALLED_APPS=["django_multisession"], DATABASE_ROUTERS=["tests.routers.SessionRouter"],
)
import django
django.setup()
from django.core.management import call_command, execute_from_command_line
from django_multisession import sweep
from django_multisession.purge import purge
from tests.routers import SessionRouter
exec(code)
"""


def expired(count: int, ago: timedelta = DAY, step: timedelta = timedelta(seconds=1), **values: Any) -> list[str]:
    """Make rows that expired so long ago, one `step` after the other."""
    first = utcnow() - ago
    return add((first + step * number, values) for number in range(count))


def live(count: int, **values: Any) -> list[str]:
    return add((utcnow() + DAY, values) for _ in range(count))


def add(rows: Iterable[tuple[datetime, dict[str, Any]]]) -> list[str]:
    now = utcnow()
    default = {"data": b"x" * 100, "created_at": now, "updated_at": now}
    sessions = [
        Session(**{**default, **values, "session_id": uuid4().hex * 2, "expires_at": expiry}) for expiry, values in rows
    ]
    Session.objects.using(SessionRouter.alias).bulk_create(sessions, batch_size=1000)
    return [session.session_id for session in sessions]


def left() -> set[str]:
    return set(Session.objects.using(SessionRouter.alias).values_list("session_id", flat=True))


@contextmanager
def statements(alias: str | None = None) -> Any:
    """The SQL that is sent in the block, filled in when it ends."""
    sent: list[str] = []
    with CaptureQueriesContext(connections[alias or SessionRouter.alias]) as captured:
        yield sent
    sent += [query["sql"] for query in captured.captured_queries]


def child(code: str) -> subprocess.Popen[str]:
    """A process on the same database, which runs the code."""
    settings = connections[SessionRouter.alias].settings_dict
    names = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")
    database = {name: settings[name] for name in names}
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    process.stdin.write(json.dumps([{"default": database}, site.SECRET_KEY, code], default=str))
    process.stdin.close()
    process.stdin = None
    return process
