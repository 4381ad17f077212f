"""`manage.py check` of a new site, in a new process: nothing has imported an engine before."""

import sqlite3
from pathlib import Path

import pytest

from .sites import Site

PICKLE = "pickle.Pickler"  # Django has none any more
NOWHERE = "redis://127.0.0.1:1/0"


def engine(name: str, **settings: object) -> dict[str, object]:
    return {"SESSION_ENGINE": f"django_multisession.backends.{name}", **settings}


@pytest.mark.parametrize(
    "settings",
    [
        engine("db"),
        engine("redis", MULTISESSION_REDIS=NOWHERE),
        engine("mongodb", MULTISESSION_MONGODB="mongodb://127.0.0.1:1/mysite"),
    ],
    ids=lambda settings: str(settings["SESSION_ENGINE"]).rpartition(".")[2],
)
def test_a_right_configuration_is_silent(tmp_path: Path, settings: dict[str, object]) -> None:
    assert Site(tmp_path, **settings).check() == ""


@pytest.mark.parametrize(
    ("numbers", "settings"),
    [
        ("E003", engine("mongo")),
        ("E004", engine("db", MULTISESSION_TIMEOUT=0)),
        ("E005", engine("redis", MULTISESSION_REDIS=NOWHERE, MULTISESSION_ENCRYPTION_KEYS=["short"])),
        ("E007", engine("redis", SESSION_CACHE_ALIAS="nowhere")),
        ("E011", engine("mongodb")),
        ("E001", {"MULTISESSION_TIMEOUTS": 1}),  # with Django's engine
    ],
)
def test_a_mistake_in_the_settings_is_found(tmp_path: Path, numbers: str, settings: dict[str, object]) -> None:
    assert Site(tmp_path, **settings).check() == numbers


def test_a_server_is_asked_before_a_deployment(tmp_path: Path) -> None:
    site = Site(tmp_path, **engine("redis", MULTISESSION_REDIS=NOWHERE, SESSION_SERIALIZER=PICKLE))
    assert site.check("--deploy") == "W004 W005"
    assert site.check("--database", "default") == "W005"


def test_a_table_is_asked_with_its_database(tmp_path: Path) -> None:
    site = Site(tmp_path, **engine("db"))
    assert site.manage("migrate").returncode == 0
    with sqlite3.connect(tmp_path / "db.sqlite3") as connection:
        columns = "session_id, data, created_at, updated_at, expires_at, version"
        connection.execute(f"INSERT INTO django_multisession_session ({columns}) VALUES ('x', x'', 0, 0, 1, 1)")
    connection.close()
    assert site.check("--database", "default") == "W008"
    assert site.check() == ""


def test_without_the_app_the_sql_engine_says_so_at_its_first_use(tmp_path: Path) -> None:
    """No check can: in such a site `manage.py check` imports nothing of this package."""
    site = Site(tmp_path, **engine("db"))
    site.write("INSTALLED_APPS.remove('django_multisession')")
    code = "from django_multisession.backends.db import SessionStore; SessionStore().save()"
    assert (
        "Add 'django_multisession' to INSTALLED_APPS and run: manage.py migrate"
        in site.manage("shell", "-c", code).stderr
    )


@pytest.mark.slow
@pytest.mark.parametrize(("tracked", "numbers"), [(False, "W042"), ("anonymize", "W041")])
def test_what_the_page_will_look_like(tmp_path: Path, tracked: object, numbers: str) -> None:
    site = Site(tmp_path, **engine("db", MULTISESSION_TRACK_CLIENT=tracked))
    site.write("import sys", "sys.modules['ua_parser'] = None  # as if it were not installed")
    with (tmp_path / "mysite" / "urls.py").open("a") as urls:
        urls.write("from django.urls import include\n")
        urls.write("urlpatterns += [path('sessions/', include('django_multisession.urls'))]\n")
    assert site.check() == numbers
