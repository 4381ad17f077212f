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
from django_multisession.purge.targets import target
from django_multisession.records import utcnow

from ..purging import DAY, HOUR, add, child, expired, left, live, statements
from ..routers import SessionRouter

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
        "0 of them are live, 3 have expired. The grace is 1h.",
    ]
    assert json.loads(command("--dry-run", "--json").out) == {
        "rows": 3,
        "live": 0,
        "expired": 3,
        "grace": 3600,
        "days": {f"{first:%Y-%m-%d}": 2, f"{second:%Y-%m-%d}": 1},
    }
    assert len(left()) == 4


def test_dry_run_of_further_criteria(command):
    live(2, updated_at=utcnow() - 40 * DAY)
    live(3)
    assert "2 sessions would be removed" in command("--dry-run", "--older-than=30d").out


def test_dry_run_shows_live_and_expired_apart(command):
    live(2, updated_at=utcnow() - 40 * DAY)
    live(3)
    expired(1)
    expired(1, ago=HOUR / 2, updated_at=utcnow() - 40 * DAY)
    options = "--dry-run", "--older-than=30d", "--grace=90m"
    out = command(*options).out.splitlines()
    assert out[-2:] == [
        "4 sessions would be removed from django_multisession_session.",
        "2 of them are live, 2 have expired. The grace is 90m.",
    ]
    result = json.loads(command(*options, "--json").out)
    del result["days"]
    assert result == {"rows": 4, "live": 2, "expired": 2, "grace": 5400}


# Live sessions


def answering(monkeypatch: Any, answer: Any) -> list[str]:
    """The questions that somebody at a terminal is asked."""
    asked: list[str] = []

    def answered(question: str) -> str:
        asked.append(question)
        if isinstance(answer, str):
            return answer
        raise answer

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", answered)
    return asked


@pytest.mark.parametrize("criteria", ["--older-than=30d", "--created-before=30d"])
@pytest.mark.parametrize("answer", ["y", "Yes "])
def test_it_asks_before_live_sessions_go(command, monkeypatch, criteria, answer):
    live(3, updated_at=utcnow() - 40 * DAY, created_at=utcnow() - 40 * DAY)
    kept = live(2)
    expired(1)
    asked = answering(monkeypatch, answer)
    assert command(criteria).out.startswith("4 sessions removed")
    assert asked == ["This would remove 3 live sessions, and sign users out. Go on? [y/N] "]
    assert left() == set(kept)


@pytest.mark.parametrize("answer", ["", "n", "yo", EOFError(), KeyboardInterrupt()], ids=repr)
@only("sqlite", "postgres")
def test_no_is_no(command, monkeypatch, answer):
    ids = live(2, updated_at=utcnow() - 40 * DAY) + expired(1)
    answering(monkeypatch, answer)
    with pytest.raises(CommandError, match=r"^Nothing was removed\.$") as raised:
        command("--older-than=30d")
    assert raised.value.returncode == 1
    assert left() == set(ids)


@only("sqlite")
def test_it_counts_so_far_only(command, monkeypatch):
    monkeypatch.setattr(purgesessions, "MOST_COUNTED", 3)
    live(5, updated_at=utcnow() - 40 * DAY)
    asked = answering(monkeypatch, "")
    with pytest.raises(CommandError):
        command("--older-than=30d")
    assert asked[0].startswith("This would remove at least 3 live sessions, ")


def test_the_live_are_counted_so_far_only(Store):
    live(5, updated_at=utcnow() - 40 * DAY)
    live(2)
    expired(2)
    found = target(older_than="30d")
    assert (found.live(3), found.live(100), found.live()) == (3, 5, 5)
    assert target(older_than="30d", anonymous_only=True).live() == 5
    assert target(anonymous_only=True).live() == target().live() == 0


@pytest.mark.parametrize("stdin", [None, io.StringIO("y\n"), "closed"], ids=["none", "a pipe", "closed"])
@only("sqlite")
def test_where_nobody_can_be_asked_nothing_is_removed(command, monkeypatch, stdin):
    ids = live(2, updated_at=utcnow() - 40 * DAY) + expired(1)
    if stdin == "closed":
        stdin = io.StringIO()
        stdin.close()
    monkeypatch.setattr("sys.stdin", stdin)
    with pytest.raises(CommandError) as raised:
        command("--older-than=30d")
    assert raised.value.returncode == 1
    assert "Nothing was removed: this would remove 2 live sessions." in str(raised.value)
    assert "--no-input" in str(raised.value)
    assert left() == set(ids)


@pytest.mark.parametrize("option", ["--no-input", "--noinput"])
def test_cron_is_not_asked(command, monkeypatch, option):
    live(2, updated_at=utcnow() - 40 * DAY)
    monkeypatch.setattr("sys.stdin", None)
    assert command("--older-than=30d", option).out.startswith("2 sessions removed")


@only("sqlite")
def test_no_question_where_none_is_live(command, monkeypatch):
    """Nor a second look at the table where the criteria can match none."""
    asked = answering(monkeypatch, "n")
    live(2)
    expired(2)
    assert command("--older-than=30d").out.startswith("2 sessions removed")
    with statements() as sent:
        command("--anonymous-only")
    assert asked == []
    assert not any("COUNT" in sql for sql in sent)


@only("sqlite", "postgres")
def test_in_a_process_without_a_terminal(Store):
    ids = live(2, updated_at=utcnow() - 40 * DAY)
    code, out, err = ended(RUN.format(options="--older-than=30d --json"))
    assert (code, out) == (1, "")
    assert "Nothing was removed: this would remove 2 live sessions" in err
    assert left() == set(ids)
    code, out, _ = ended(RUN.format(options="--older-than=30d --json --no-input"))
    assert (code, json.loads(out)["rows"]) == (0, 2)


# Clocks


@only("postgres", "mysql")
@pytest.mark.parametrize("options", [[], ["--dry-run"], ["--older-than=30d"]])
def test_a_host_whose_clock_is_wrong(command, clock, options):
    ids = live(2) + expired(1)
    clock.shift(3 * 24 * 3600)
    with pytest.raises(
        CommandError, match=r"^the clock of this host is '[-0-9: ]+': the server's is [-0-9: ]+ "
    ) as raised:
        command(*options)
    assert raised.value.returncode == 1
    assert left() == set(ids)


# Readers that leave


@only("sqlite")
def test_a_reader_who_leaves_is_no_error(Store):
    """Neither the summary nor a line of the progress is a reason to end in the midst of the work."""
    expired(50)
    lines = "from django_multisession.management import progress\nprogress.EVERY = 0\n"
    process = child(lines + RUN.format(options="--batch-size=2 --pause=10ms"))
    assert process.stderr.readline().startswith("2 removed")
    process.stderr.close()
    process.stdout.close()
    assert process.wait(30) == 0
    assert left() == set()


@only("sqlite")
def test_a_reader_who_leaves_takes_no_exit_code_along(Store):
    expired(5)
    seen = []

    def also(done: Any) -> None:
        process = child(RUN.format(options="--json"))
        process.stdout.close()
        seen.append((process.wait(30), process.stderr.read()))
        process.stderr.close()

    purge(progress=also)
    [(code, err)] = seen
    assert code == 75
    assert "Another purge is running." in err
    assert "BrokenPipe" not in err


# Options


def test_every_option_reaches_the_purge(command, monkeypatch):
    given = {}

    def take(**options: Any) -> Any:
        given.update(options)
        return module.Purged(0, 0, 0.0, False, "done")

    monkeypatch.setattr(purgesessions, "purge", take)
    words = "--batch-size=7 --max-rows=8 --max-seconds=9s --pause=1s --grace=2h --older-than=30d --created-before=90d"
    command(*words.split(), "--anonymous-only", f"--database={SessionRouter.alias}", "--no-progress")
    assert given.pop("stop")() is False
    assert given.pop("progress")
    assert given == {
        "batch_size": "7",
        "max_rows": "8",
        "max_seconds": "9s",
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
        ("--grace=soon", "--grace is 'soon': write a duration as 30d, 12h, 90m, 45s or 50ms."),
        ("--older-than=30 days", "--older-than is '30 days': write a duration"),
        ("--older-than=30", "--older-than is '30': write a duration as 30d, 12h, 90m, 45s or 50ms."),
        ("--created-before=90", "--created-before is '90': write a duration"),
        ("--pause=0.05", "--pause is '0.05': write a duration"),
        ("--grace=3600", "--grace is '3600': write a duration"),
        ("--max-seconds=600", "--max-seconds is '600': write a duration"),
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
    process = child(announce + RUN.format(options="--batch-size=10 --pause=30s"))
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


@only("postgres", "mysql")
def test_django_session_is_purged_by_the_servers_clock_too(use_tz, django_session, clock):
    fill(django_session, old=1)
    expiry = utcnow() + timedelta(seconds=20)
    expiry = expiry if use_tz else timezone.make_naive(expiry)  # what travels in time has set the process's zone to UTC
    django_session.create(session_key="live", expire_date=expiry)
    options = {"model": "sessions.Session", "database": SessionRouter.alias, "grace": 0}
    clock.shift(3 * 3600)
    with pytest.raises(InvalidOption, match="the clock of this host"):
        purge(**options)
    clock.shift(-3 * 3600 + 40)
    assert purge(**options).rows == 1
    assert django_session.get().session_key == "live"


def test_django_session_by_day(django_session, command):
    fill(django_session, old=2)
    day = django_session.first().expire_date.astimezone(UTC).date()
    out, _ = command("--dry-run", "--json", "--model=sessions.Session", f"--database={SessionRouter.alias}")
    assert json.loads(out) == {
        "rows": 2,
        "live": 0,
        "expired": 2,
        "grace": 3600,
        "days": {str(day): 2},
    }


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
    assert json.loads(command("--dry-run", "--json").out) == {
        "rows": 0,
        "live": 0,
        "expired": 0,
        "grace": 3600,
        "days": {},
    }


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
