"""`manage.py purgesessions`, and the tables and engines that it purges besides our own."""

import io
import json
import signal
import sys
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.test.utils import isolate_apps
from django.utils import timezone

from django_multisession import purge as module
from django_multisession.exceptions import InvalidOption
from django_multisession.management import progress
from django_multisession.management.commands import purgesessions
from django_multisession.purge import purge
from django_multisession.records import utcnow

from .purging import DAY, HOUR, add, child, expired, left, live
from .routers import SessionRouter

ENGINES = ["sqlite", "postgres", "mysql"]


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def only(*engines: str) -> Any:
    return pytest.mark.parametrize("engine_name", engines, indirect=True)


@pytest.fixture
def command(Store, capsys):
    """What the command prints, to stdout and to stderr."""

    def run(*options: str, **more: Any) -> Any:
        call_command("purgesessions", *options, **more)
        return capsys.readouterr()

    return run


# What it prints


def test_a_summary(command):
    expired(25)
    out, err = command("--batch-size", "10")
    assert out.startswith("25 sessions removed in 0.")
    assert out.endswith(" s, 3 batches (done).\n")
    assert err == ""


def test_it_says_whether_more_are_waiting(command):
    expired(25)
    out, _ = command("--max-rows=5", "--batch-size=2")
    assert out.endswith("3 batches (max_rows; more are waiting).\n")
    assert len(left()) == 20


@only("sqlite")
def test_silence(command):
    expired(5)
    assert command("--verbosity", "0") == ("", "")
    assert command("--verbosity", "0", "--dry-run") == ("", "")
    assert left() == set()


@pytest.mark.parametrize("options", [[], ["--verbosity=0"], ["--no-progress"]])
@only("sqlite")
def test_json_alone_on_stdout(command, options, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0)
    expired(5)
    out, _ = command("--json", *options)
    result = json.loads(out)
    assert result.pop("seconds") >= 0
    assert result == {"rows": 5, "batches": 1, "more": False, "reason": "done"}


def test_dry_run_counts_by_day_and_removes_nothing(command):
    first, second = (utcnow() - days * DAY for days in (3, 2))
    add([(first, {}), (first, {}), (second, {}), (utcnow() + DAY, {})])
    out, _ = command("--dry-run")
    assert out.splitlines() == [
        f"{first:%Y-%m-%d}              2",
        f"{second:%Y-%m-%d}              1",
        "3 sessions would be removed from django_multisession_session.",
    ]
    assert json.loads(command("--dry-run", "--json").out) == {
        "rows": 3,
        "days": {f"{first:%Y-%m-%d}": 2, f"{second:%Y-%m-%d}": 1},
    }
    assert len(left()) == 4


def test_dry_run_of_further_criteria(command):
    live(2, updated_at=utcnow() - 40 * DAY)
    live(3)
    assert "2 sessions would be removed" in command("--dry-run", "--older-than=30d").out


# Options


def test_every_option_reaches_the_purge(command, monkeypatch):
    given = {}

    def take(**options: Any) -> Any:
        given.update(options)
        return module.Purged(0, 0, 0.0, False, "done")

    monkeypatch.setattr(purgesessions, "purge", take)
    words = "--batch-size=7 --max-rows=8 --max-seconds=9 --pause=1s --grace=2h --older-than=30d --created-before=90d"
    command(*words.split(), "--anonymous-only", f"--database={SessionRouter.alias}", "--no-progress")
    assert given.pop("stop")() is False
    assert given.pop("progress")
    assert given == {
        "batch_size": "7",
        "max_rows": "8",
        "max_seconds": "9",
        "pause": "1s",
        "grace": "2h",
        "older_than": "30d",
        "created_before": "90d",
        "anonymous_only": True,
        "database": SessionRouter.alias,
    }


def test_options_from_code(command):
    expired(5)
    assert command(grace=timedelta(hours=1), max_rows=3).out.startswith("3 sessions")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--grace=soon", "--grace is 'soon': write a duration as 30d, 12h, 90m, 45s or a number of seconds."),
        ("--older-than=30 days", "--older-than is '30 days': write a duration"),
        ("--created-before=2026-01-01", "--created-before is '2026-01-01': write a duration"),
        ("--batch-size=many", "--batch-size is 'many': write a whole number from 1 to 10,000."),
        ("--max-rows=0", "--max-rows is '0': write a whole number of at least 1."),
        ("--database=other", "--database is 'other': there are default"),
        ("--model=Session", "--model is 'Session': write an installed model as app.Model."),
    ],
)
@only("sqlite")
def test_wrong_values(command, option, message):
    with pytest.raises(CommandError) as raised:
        command(option)
    assert message in str(raised.value)
    assert raised.value.returncode == 1


# Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@only("sqlite")
def test_a_bar_on_a_terminal(Store, monkeypatch):
    expired(25)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    call_command("purgesessions", "--batch-size=10", stdout=io.StringIO(), stderr=terminal)
    assert "25/25" in terminal.getvalue()
    assert "rows/s" in terminal.getvalue()


@only("sqlite")
def test_the_bar_ends_at_max_rows(Store, monkeypatch):
    expired(25)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    call_command("purgesessions", "--max-rows=15", stdout=io.StringIO(), stderr=terminal)
    assert "15/15" in terminal.getvalue()


@only("sqlite")
def test_the_bar_of_a_search_ends_where_the_table_does(Store, monkeypatch):
    live(20)
    expired(5)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    call_command("purgesessions", "--older-than=30d", "--max-rows=7", stdout=io.StringIO(), stderr=terminal)
    assert "25/25" in terminal.getvalue()


@pytest.mark.parametrize(("number", "message"), [("²", "--max-rows is '²': write"), ("9" * 30, "")])
def test_the_bar_takes_any_number(Store, number, message):
    expired(3)
    context = pytest.raises(CommandError, match=message) if message else nullcontext()
    with context:
        call_command("purgesessions", f"--max-rows={number}", stdout=io.StringIO(), stderr=Terminal())
    assert len(left()) == (3 if message else 0)


@only("sqlite")
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_lines_elsewhere_and_without_rich(Store, monkeypatch, stream):
    monkeypatch.setattr(progress, "EVERY", 0)
    monkeypatch.setitem(sys.modules, "rich", None)
    expired(25)
    lines = stream()
    call_command("purgesessions", "--batch-size=10", stdout=io.StringIO(), stderr=lines)
    assert [line.split(",")[0] for line in lines.getvalue().splitlines()] == ["10 removed", "20 removed", "25 removed"]


# Exit codes


RUN = "execute_from_command_line(['manage.py', 'purgesessions', *{options!r}.split()])"


def ended(code: str) -> tuple[int, str, str]:
    process = child(code)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@only("sqlite", "postgres")
def test_exit_codes(Store):
    expired(25)
    code, out, _ = ended(RUN.format(options="--max-rows=5 --json"))
    assert (code, json.loads(out)["reason"]) == (0, "max_rows")
    code, out, err = ended(RUN.format(options="--grace=soon"))
    assert (code, out) == (1, "")
    assert "--grace is 'soon'" in err
    seen = []
    purge(progress=lambda done: seen.append(ended(RUN.format(options="--json"))))
    [(code, out, err)] = seen
    assert (code, json.loads(out)["reason"]) == (75, "running")
    assert "Another purge is running." in err


def test_another_purge_is_running(command):
    expired(5)
    seen = []

    def also(done: Any) -> None:
        with pytest.raises(CommandError, match=r"Another purge is running\.") as raised:
            command()
        seen.append(raised.value.returncode)

    purge(progress=also)
    assert seen == [75]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@only("sqlite", "postgres")
def test_a_signal_ends_it_after_the_running_batch(Store, number):
    expired(200)
    announce = """
from django_multisession.management.commands import purgesessions
from django_multisession.management import progress
progress.EVERY = 0
"""
    process = child(announce + RUN.format(options="--batch-size=10 --pause=30"))
    assert process.stderr.readline().startswith("10 removed")
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("10 sessions removed")
    assert out.endswith("1 batches (stopped; more are waiting).\n")
    assert len(left()) == 190
    assert purge().reason == "done"


@only("sqlite")
def test_handlers_are_restored(command):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    command()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


# Tables that are not ours


@pytest.fixture
def django_session(Store, settings):
    """Django's own table, in the database under test."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.sessions"]
    from django.contrib.sessions.models import Session

    connection = connections[SessionRouter.alias]
    with connection.schema_editor() as editor:
        editor.create_model(Session)
    yield Session.objects.using(SessionRouter.alias)
    with connection.schema_editor() as editor:
        editor.delete_model(Session)


@pytest.fixture(params=[True, False])
def use_tz(request: pytest.FixtureRequest, settings: Any) -> bool:
    settings.USE_TZ = request.param
    settings.TIME_ZONE = "Asia/Tokyo"
    return bool(request.param)


def fill(sessions: Any, **counts: int) -> None:
    hours = {"old": -48, "recent": -0.5, "live": 2}
    for name, count in counts.items():
        expiry = timezone.now() + timedelta(hours=hours[name])
        rows = [(f"{name}{number}", expiry + timedelta(seconds=number)) for number in range(count)]
        sessions.bulk_create([sessions.model(session_key=key, expire_date=expiry) for key, expiry in rows])


def test_django_session(use_tz, django_session, command):
    fill(django_session, old=25, recent=2, live=3)
    options = "--model=sessions.Session", f"--database={SessionRouter.alias}", "--batch-size=10"
    assert "25 sessions would be removed from django_session." in command("--dry-run", *options).out
    assert command(*options).out.startswith("25 sessions removed")
    assert django_session.count() == 5
    assert purge(model=django_session.model, database=SessionRouter.alias, grace=0).rows == 2


def test_django_session_by_day(django_session, command):
    fill(django_session, old=2)
    day = django_session.first().expire_date.astimezone(UTC).date()
    out, _ = command("--dry-run", "--json", "--model=sessions.Session", f"--database={SessionRouter.alias}")
    assert json.loads(out) == {"rows": 2, "days": {str(day): 2}}


def test_naive_expiries_are_those_of_the_site_not_of_the_current_user(django_session, settings):
    settings.USE_TZ = False
    settings.TIME_ZONE = "UTC"
    fill(django_session, old=1, live=1)
    with timezone.override("Asia/Tokyo"):
        assert purge(model="sessions.Session", database=SessionRouter.alias).rows == 1


@only("sqlite")
@isolate_apps("tests")
def test_an_expire_date_in_a_parents_table(django_session):
    """Its rows would go, and those with the expire_date stay for ever."""

    class Child(django_session.model):  # type: ignore[name-defined]
        class Meta:
            app_label = "tests"

    with pytest.raises(InvalidOption, match="its expire_date is in another table, django_session"):
        purge(model=Child)


@pytest.mark.parametrize("option", [{"older_than": 0}, {"created_before": 0}])
@only("sqlite")
def test_zero_is_an_answer_too(django_session, option):
    with pytest.raises(InvalidOption, match="only the table of django_multisession"):
        purge(model="sessions.Session", **option)


@pytest.mark.parametrize("engine", ["db", "cached_db"])
@only("sqlite")
def test_djangos_engines(django_session, settings, engine):
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    fill(django_session, old=3, live=1)
    assert purge().rows == 3


@pytest.mark.parametrize("option", [{"older_than": "1d"}, {"created_before": "1d"}, {"anonymous_only": True}])
@only("sqlite")
def test_what_django_session_cannot_be_asked(django_session, option):
    with pytest.raises(InvalidOption, match="only the table of django_multisession"):
        purge(model="sessions.Session", **option)


# Engines without a table


@only("redis")
def test_redis_expires_by_itself(Store, face, command):
    session = face(Store())
    session["_auth_user_id"] = "1"
    session.save()
    Store.storage.client.zadd("session:user:1", {"a" * 64: 1, "b" * 64: 2})
    out, _ = command()
    assert out.startswith("The server expires sessions by itself. 2 leftovers removed")
    assert json.loads(command("--json").out)["reason"] == "server"
    assert face(Store()).exists(session.session_key)


@only("mongodb")
def test_mongodb_expires_by_itself(Store, command):
    now = datetime.now(UTC)
    Store.storage.collection.insert_one({"_id": "x", "expires_at": now - 3 * HOUR})
    assert "server" in command().out
    assert json.loads(command("--json").out)["reason"] == "server"


@only("memory")
def test_another_engine_is_purged_by_its_storage(Store, face):
    session = face(Store())
    session.set_expiry(-7200)
    session.save()
    assert module.purge().reason == "done"
    assert not Store.storage.records


@only("redis", "memory")
@pytest.mark.parametrize("option", [{"older_than": "1d"}, {"anonymous_only": True}, {"database": "default"}])
def test_what_only_a_table_can_be_asked(Store, option):
    with pytest.raises(InvalidOption, match="only the table"):
        purge(**option)


@only("redis", "mongodb")
def test_dry_run_has_nothing_to_count_where_the_server_expires(command):
    assert command("--dry-run").out == "The server expires sessions by itself.\n"
    assert json.loads(command("--dry-run", "--json").out) == {"rows": 0, "days": {}}


@only("memory")
def test_dry_run_needs_a_table(command):
    with pytest.raises(CommandError, match="in none"):
        command("--dry-run")


@pytest.mark.parametrize("engine", ["cache", "file", "signed_cookies"])
@only("memory")
def test_engines_that_cannot_be_purged(command, settings, engine):
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    with pytest.raises(CommandError, match=rf"SESSION_ENGINE is '.*{engine}': its sessions cannot be purged; those of"):
        command()
