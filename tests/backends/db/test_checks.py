"""The check that asks the database whether the sessions are purged."""

from typing import Any

import pytest
from django.db import connections, transaction

from django_multisession.models import PurgeRun, Session
from django_multisession.purge import purge
from django_multisession.records import utcnow

from ...purging import DAY, HOUR, expired, live, statements
from ...routers import SessionRouter
from ...test_checks import APPS, found
from ...test_house_rules import fresh

WEEK = 7 * DAY
TABLE = "django_multisession_session"


@pytest.fixture(params=["sqlite", "postgres", "mysql"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def only(*engines: str) -> Any:
    return pytest.mark.parametrize("engine_name", engines, indirect=True)


@pytest.fixture(autouse=True)
def _no_runs(Store: Any) -> Any:
    runs = PurgeRun.objects.using(SessionRouter.alias)
    runs.all().delete()
    yield
    runs.all().delete()


def check(**settings: Any) -> str:
    return found(databases=[SessionRouter.alias], **settings)


def purged(reason: str = "done", ago: Any = HOUR, table: str = TABLE) -> None:
    moment = utcnow() - ago
    values = {"rows": 0, "batches": 1, "more": False, "host": "web-1"}
    runs = PurgeRun.objects.using(SessionRouter.alias)
    runs.create(table=table, reason=reason, started_at=moment - DAY, ended_at=moment, **values)


def test_what_nobody_purges_is_found(Store):
    expired(3, ago=WEEK + HOUR)
    assert check() == "W008"
    purge(max_rows=1)
    assert check() == ""


def test_a_new_site_is_left_in_peace(Store):
    assert check() == ""
    live(3)
    assert check() == ""
    expired(3, ago=WEEK - HOUR)
    assert check() == ""


@only("sqlite")
@pytest.mark.parametrize(
    ("run", "numbers"),
    [
        *[({"reason": reason}, "") for reason in ("done", "max_rows", "max_seconds", "stopped")],
        *[({"reason": reason}, "W008") for reason in ("error", "running")],
        ({"ago": WEEK - HOUR}, ""),
        ({"ago": WEEK + HOUR}, "W008"),
        ({"table": "django_session"}, "W008"),
    ],
)
def test_which_runs_count(Store, run, numbers):
    expired(1, ago=30 * DAY)
    purged(**run)
    assert check() == numbers


def test_only_a_check_of_the_databases_asks_and_only_those(Store):
    expired(1, ago=30 * DAY)
    others = [alias for alias in connections if alias != SessionRouter.alias]
    with statements() as sent:
        assert (found(), found(databases=[]), found(databases=others)) == ("", "", "")
    assert [sql for sql in sent if TABLE in sql] == []


@only("sqlite")
def test_nor_is_it_when_deployed(Store):
    expired(1, ago=30 * DAY)
    assert "W008" not in found(deploy=True)


@only("sqlite")
@pytest.mark.parametrize("engine", ["django_multisession.backends.redis", "django.contrib.sessions.backends.cache"])
def test_other_engines_are_not_asked(Store, engine):
    expired(1, ago=30 * DAY)
    assert "W008" not in check(SESSION_ENGINE=engine)


@only("sqlite")
def test_the_app_is_not_installed(Store):
    assert check(INSTALLED_APPS=APPS) == ""


@pytest.mark.parametrize("model", [Session, PurgeRun])
def test_a_table_that_is_not_there_spoils_no_transaction(Store, model, monkeypatch):
    expired(1, ago=30 * DAY)
    with transaction.atomic(using=SessionRouter.alias):
        with monkeypatch.context() as patch:
            patch.setattr(model._meta, "db_table", "nowhere")
            assert check() == ""
        assert check() == "W008"


ON_A_NEW_DATABASE = """
from django.core.management import call_command
from django.db import OperationalError
from django_multisession.models import Session
call_command("check", databases=["default"])
try:
    call_command("migrate", verbosity=0)
    Session.objects.create(session_id="x", data=b"", created_at=0, updated_at=0, expires_at=0)
except OperationalError as error:
    print(error)
else:
    print([message.id for message in django.core.checks.run_checks(databases=["default"])])
"""


@only("sqlite")
@pytest.mark.parametrize(
    ("name", "then"), [("db.sqlite3", "django_multisession.W008"), ("nowhere/db.sqlite3", "unable to open")]
)
def test_a_database_that_is_not_migrated_or_not_there(tmp_path, name, then):
    printed = fresh(
        ON_A_NEW_DATABASE,
        apps="django_multisession",
        SESSION_ENGINE="django_multisession.backends.db",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / name)}},
    )
    assert "no issues" in printed
    assert then in printed
