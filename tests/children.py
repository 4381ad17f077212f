"""Processes of their own that use the engine and the servers of the test."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connections

from .routers import SessionRouter

SHARED = ("SECRET_KEY", "SESSION_ENGINE", "SESSION_CACHE_ALIAS", "CACHES", "MULTISESSION_MONGODB", "USE_TZ")
PRELUDE = """
import json, sys
from django.conf import settings
given = json.load(sys.stdin)
try:
    import MySQLdb
except ImportError:
    import pymysql
    pymysql.version_info = (2, 2, 1, "final", 0)
    pymysql.install_as_MySQLdb()
settings.configure(**given["settings"])
import django
django.setup()
"""


def child(code: str, **given: Any) -> subprocess.Popen[str]:
    """A process that runs the code, with Django set up and `given` in hand."""
    database = {**connections[SessionRouter.alias].settings_dict, "TEST": {}}
    if "sqlite" in database["ENGINE"]:
        database["OPTIONS"] = {**database["OPTIONS"], "timeout": 120}
    options = {name: getattr(settings, name) for name in SHARED} | {
        "DATABASES": {"default": database},
        "INSTALLED_APPS": settings.INSTALLED_APPS,
        "MULTISESSION_TIMEOUT": 60,
        **given.pop("more", {}),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    process.stdin.write(json.dumps({"settings": options, **given}, default=str))
    process.stdin.close()
    process.stdin = None
    return process
