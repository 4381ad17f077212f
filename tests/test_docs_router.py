"""The router of docs/db.md: this app's tables in the database of the sessions, and nowhere else; no others there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .test_docs import DOCS, ROOT, blocks

APPS = ["admin", "auth", "contenttypes", "messages", "sessions"]
SETTINGS = """
from mysite.routers import DATABASE_ROUTERS
from pathlib import Path
HERE = Path(__file__).parent
SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = [*({apps!r}), "django_multisession"]
SESSION_ENGINE = "django_multisession.backends.db"
DATABASES = {{
    name: {{"ENGINE": "django.db.backends.sqlite3", "NAME": HERE / f"{{name}}.sqlite3"}}
    for name in ("default", "sessions", "other")
}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SILENCED_SYSTEM_CHECKS = ["admin.E403", "admin.E406", "admin.E408", "admin.E409", "admin.E410"]
"""
TABLES = """
import django, json
django.setup()
from django.db import connections
print(json.dumps({name: connections[name].introspection.table_names() for name in connections}))
"""
SAVE = """
import django
django.setup()
from importlib import import_module
from django.conf import settings
session = import_module(settings.SESSION_ENGINE).SessionStore()
session["a"] = 1
session.save()
print(type(session)(session.session_key)["a"])
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    [block] = [code for code in blocks(DOCS / "db.md", "python") if "allow_migrate" in code]
    (tmp_path / "mysite").mkdir()
    (tmp_path / "mysite" / "routers.py").write_text(block)
    apps = [f"django.contrib.{name}" for name in APPS]
    (tmp_path / "mysite" / "settings.py").write_text(SETTINGS.format(apps=apps))
    return tmp_path


def run(site: Path, *command: str) -> str:
    environment = {"PYTHONPATH": f"{site}:{ROOT}", "DJANGO_SETTINGS_MODULE": "mysite.settings"}
    done = subprocess.run([sys.executable, *command], env=environment, cwd=site, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("order", [("sessions", "default"), ("default", "sessions")], ids="-".join)
def test_each_database_has_its_own_tables(site: Path, order: tuple[str, ...]) -> None:
    for database in (*order, "other"):
        run(site, "-m", "django", "migrate", "--database", database)
    tables = {name: set(found) - {"django_migrations"} for name, found in json.loads(run(site, "-c", TABLES)).items()}
    ours = {name for found in tables.values() for name in found if name.startswith("django_multisession")}
    assert tables["sessions"] == ours >= {"django_multisession_session", "django_multisession_purgerun"}
    assert not ours & (tables["default"] | tables["other"])
    # What this router has nothing to say of is left to others, and so as without it.
    assert tables["default"] == tables["other"] >= {"auth_user", "django_content_type", "django_session"}
    assert run(site, "-c", SAVE).strip() == "1"
