"""`manage.py sessions`, on every engine."""

import io
import json
import subprocess
import sys
from datetime import datetime
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.core.management.base import OutputWrapper

from django_multisession import statistics
from django_multisession.management import progress, tables
from django_multisession.management.commands.sessions import Command, age, size
from django_multisession.records import identify
from django_multisession.user_sessions import sessions_of

from ..admin.test_sessions import FIREFOX, SECRET, UNREACHABLE, start, with_agent
from ..backends.test_outages import using
from ..celery_processes import ROOT
from ..conftest import ENGINES
from .test_purgesessions import RUN, Terminal, ended

HOSTILE = "[red]\x1b]0;owned\x07\x1b[2J\u202egnp.exe"


@pytest.fixture(params=[*ENGINES, "cached_sqlite"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def on(*engines: str) -> Any:
    return pytest.mark.parametrize("engine_name", engines, indirect=True)


@pytest.fixture
def people(Store: Any) -> Any:
    made = []

    def make(name: str, **fields: Any) -> Any:
        made.append(user := get_user_model().objects.create_user(name, **fields))
        return user

    yield make
    for user in made:
        user.delete()


@pytest.fixture
def ann(people: Any) -> Any:
    return people("ann")


@pytest.fixture
def command(Store: Any, capsys: Any) -> Any:
    """What the command prints, to stdout and to stderr."""

    def run(*words: str, **more: Any) -> Any:
        call_command("sessions", *words, **more)
        return capsys.readouterr()

    return run


def refused(command: Any, *words: str) -> str:
    with pytest.raises(CommandError) as raised:
        command(*words)
    assert raised.value.returncode == 1
    return str(raised.value)


def answering(monkeypatch: Any, answer: str) -> list[str]:
    """The questions."""
    asked = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or answer)
    return asked


# list


@pytest.mark.parametrize("by", ["username", "pk"])
def test_list(Store, command, ann, people, by):
    with_agent(Store, ann)
    with_agent(Store, ann, agent="curl/8.1")
    start(Store, people("bob"))
    out, err = command("list", "--user", str(getattr(ann, by)))
    headings, *rows, last = out.splitlines()
    assert headings.split("  ")[0] == "ID"
    assert [row.split()[0] for row in rows] == [session.id for session in sessions_of(ann)]
    assert "Firefox on Linux" in out
    assert "203.0.113.7" in out
    assert (last, err) == ("2 sessions of ann.", "")


def test_list_as_json(Store, command, ann):
    with_agent(Store, ann)
    [listed], err = json.loads(command("list", "--user=ann", "--json").out), ""
    [session] = sessions_of(ann)
    assert datetime.fromisoformat(listed.pop("expires_at")) == session.expires_at
    assert datetime.fromisoformat(listed.pop("created_at")) == session.created_at
    assert datetime.fromisoformat(listed.pop("last_seen")) == session.last_seen
    assert listed == {
        "id": session.id,
        "ip": "203.0.113.7",
        "user_agent": FIREFOX,
        "device": "Firefox on Linux",
    }
    assert err == ""


@on("sqlite", "redis")
def test_nothing_to_list(command, ann):
    assert command("list", "--user=ann").out == "0 sessions of ann.\n"
    assert command("list", "--user=ann", "--json").out == "[]\n"


@on("sqlite")
def test_a_table_on_a_terminal(Store, ann, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with_agent(Store, ann)
    start(Store, ann, _client={"ip": None, "user_agent": HOSTILE})
    terminal = Terminal()
    call_command("sessions", "list", "--user=ann", stdout=terminal)
    assert "─" in terminal.getvalue()
    assert "Firefox on Linux" in terminal.getvalue()


@on("sqlite")
def test_a_narrow_terminal_cuts_nothing(Store, ann, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    with_agent(Store, ann)
    [listed] = sessions_of(ann)
    terminal = Terminal()
    call_command("sessions", "list", "--user=ann", stdout=terminal)
    assert listed.id in terminal.getvalue()
    assert "Firefox" in terminal.getvalue()
    assert "…" not in terminal.getvalue()


@on("sqlite")
def test_a_terminal_without_rich(Store, ann, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    with_agent(Store, ann)
    terminal = Terminal()
    call_command("sessions", "list", "--user=ann", stdout=terminal)
    assert "─" not in terminal.getvalue()
    assert "Firefox on Linux" in terminal.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_what_a_terminal_would_obey_is_not_printed(monkeypatch, stream):
    monkeypatch.setenv("TERM", "xterm")
    printed = stream()
    tables.write(OutputWrapper(printed), ["A", "B"], [[HOSTILE, 1]])
    assert "[red]" in printed.getvalue()
    assert [code for code in ("\x1b]", "\x1b[2J", "\x07", "\u202e") if code in printed.getvalue()] == []


@on("sqlite")
def test_nor_is_it_in_a_name(command, people):
    people(HOSTILE)
    out, _ = command("list", "--user", HOSTILE)
    assert "\x1b" not in out
    assert "[red]" in out


@pytest.mark.parametrize("limit", [1, 2, 3, 10**30])
@on("sqlite", "redis")
def test_a_part_of_the_list_says_how_many_more_there_are(Store, command, ann, limit):
    for _ in range(3):
        start(Store, ann)
    newest = [session.id for session in sessions_of(ann)][:limit]
    more = 3 - len(newest)
    *rows, last = command("list", "--user=ann", f"--limit={limit}").out.splitlines()
    assert [row.split()[0] for row in rows[1:]] == newest
    also = f": {len(newest)} are shown, {more} more are not" if more else ""
    assert last == f"3 sessions of ann{also}."
    result = json.loads(command("list", "--user=ann", f"--limit={limit}", "--json").out)
    assert ([session["id"] for session in result["sessions"]], result["more"]) == (newest, more)


@pytest.mark.parametrize("limit", ["0", "-1", "many", "1.5", ""])
@on("sqlite")
def test_what_is_no_limit(command, ann, limit):
    assert refused(command, "list", "--user=ann", f"--limit={limit}").startswith(f"--limit is {limit!r}: write a whole")


# Django's own options


WORDS = {"list": "", "revoke": "ID", "revoke-all": "--no-input", "stats": ""}


@pytest.mark.parametrize("verb", WORDS)
def test_djangos_options_may_follow_the_verb_too(verb):
    parser = Command().create_parser("manage.py", "sessions")
    words = [verb, *WORDS[verb].split(), *([] if verb == "stats" else ["--user=ann"])]
    own = ["-v", "0", "--settings=a.b", "--pythonpath=/x", "--traceback", "--no-color", "--skip-checks"]
    usual = vars(parser.parse_args(words))
    after = vars(parser.parse_args([*words, *own]))
    assert after == vars(parser.parse_args([*own, *words]))
    changed = {name for name in after if after[name] != usual[name]}
    assert changed == {"verbosity", "settings", "pythonpath", "traceback", "no_color", "skip_checks"}
    assert parser.parse_args([*words, "--force-color"]).force_color
    assert parser.parse_args(["-v0", *words, "-v3"]).verbosity == 3


@on("sqlite")
def test_silence_after_the_verb(Store, ann):
    start(Store, ann)
    code, out, err = ended("execute_from_command_line(['manage.py', 'sessions', 'stats', '-v', '0', '--traceback'])")
    assert (code, err) == (0, "")
    assert out.startswith("1 session: ")


# Readers that leave


@pytest.mark.parametrize("words", [[], ["--json"], ["--limit=300"]])
def test_a_reader_who_leaves_is_no_error(words, tmp_path):
    """As `head` does. More is printed than a pipe holds, and less than that, which is written at the end."""
    for sessions in (1, 300):
        code = LISTED.format(sessions=sessions, words=words)
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=-1, stderr=-1, stdin=-1, text=True)
        process.stdout.close()  # has gone before anything is printed
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")


LISTED = """
import sys
sys.stdin.read()
from datetime import timedelta
from tests.composite import site
from django_multisession import user_sessions
from django_multisession.records import utcnow
now = utcnow()
one = user_sessions.UserSession("x" * 300, now, now, now, None, None, False)
user_sessions.sessions_of = lambda user: user_sessions.UserSessions([one] * {sessions})
site.user("ann")
site.manage("sessions", "list", "--user=ann", *{words!r})
"""


# Who is meant


COMPOSITE = """
import json
from tests.composite import site
from django.contrib.sessions.backends.base import SessionBase
from django_multisession.user_sessions import people
from django_multisession import user_sessions
ann, bob = site.user("ann"), site.user("bob")
for user in (ann, ann, bob):
    site.signed_in(user)
assert people.find("ann") == people.find('["red", 1]') == ann
assert user_sessions.count(ann) == user_sessions.count('["red", "1"]') == 2
assert user_sessions.count("ann") == user_sessions.count("[1]") == user_sessions.count("5") == 0
try:
    user_sessions.user_id_of(type(ann)(name="new"))
except ValueError as error:
    assert "has no primary key" in str(error)
for text in "nobody", "7", "null", "[1]", '["red", 3]', '["red", "x"]', '["red", []]', '{{"a": 1}}', "[", "":
    assert user_sessions.count(text or "-") == 0
    try:
        assert not people.find(text)
    except LookupError as error:
        assert str(error) == f"There is no user {{text!r}}."
    assert not people.search(text or "-", 5)
for words in {words}:
    site.manage("sessions", *words)
"""


def with_composite_keys(*words: list[str]) -> tuple[int, str, str]:
    code = COMPOSITE.format(words=words)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_a_user_with_a_composite_primary_key():
    code, out, err = with_composite_keys(
        ["list", "--user=ann"], ["list", '--user=["red", 2]'], ["revoke-all", "--user=ann", "--no-input"]
    )
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if " of " in line] == [
        "2 sessions of ann.",
        "1 session of bob.",
        "2 sessions of ann were signed out.",
    ]


def test_no_user_with_a_composite_primary_key():
    code, _, err = with_composite_keys(["list", "--user=nobody"])
    assert (code, err) == (1, "CommandError: There is no user 'nobody'.\n")


@on("sqlite")
def test_nobody(command):
    for text in ("nobody", "987654", "9" * 40, ""):
        assert f"There is no user {text!r}." in refused(command, "list", "--user", text)
    assert "surrogates" in refused(command, "list", "--user", "\udcff")  # of bytes that are no text


@on("sqlite")
def test_a_name_that_is_the_primary_key_of_another(command, ann, people):
    people(str(ann.pk))
    for words in (["list"], ["revoke", "x"], ["revoke-all", "--no-input"]):
        assert "primary key of another" in refused(command, *words, f"--user={ann.pk}")


# revoke


def test_revoke(Store, command, ann):
    session, other = with_agent(Store, ann), with_agent(Store, ann, "curl/8.1")
    id = next(each.id for each in sessions_of(ann) if each.user_agent == FIREFOX)
    assert command("revoke", id, "--user=ann").out == "1 session of ann was signed out.\n"
    assert not Store().exists(session.session_key)
    assert Store().exists(other.session_key)
    assert refused(command, "revoke", id, "--user=ann") == f"ann has no session {id!r}."


def test_the_session_of_another_user_is_not_revoked(Store, command, ann, people):
    bob = people("bob")
    session = start(Store, bob)
    [listed] = sessions_of(bob)
    for id in (listed.id, session.session_key, identify(session.session_key)):
        assert "has no session" in refused(command, "revoke", id, "--user=ann")
    assert Store().exists(session.session_key)


@on("sqlite")
def test_revoke_as_json(Store, command, ann):
    start(Store, ann)
    [listed] = sessions_of(ann)
    assert json.loads(command("revoke", listed.id, "--user=ann", "--json").out) == {"ended": 1}


# An index that was lost


@on("redis")
@pytest.mark.parametrize("verb", ["list", "revoke", "revoke-all"])
def test_repair(Store, command, ann, verb):
    session = start(Store, ann)
    [listed] = sessions_of(ann)
    Store.storage.client.delete(f"session:user:{ann.pk}")  # as an eviction does
    words = {"list": [], "revoke": [listed.id], "revoke-all": ["--no-input"]}[verb]
    out = command(verb, *words, "--user=ann", "--repair").out
    assert out.endswith("1 session of ann.\n" if verb == "list" else "1 session of ann was signed out.\n")
    assert Store().exists(session.session_key) is (verb == "list")


# revoke-all


def test_revoke_all_of_a_user(Store, command, ann, people):
    sessions, other = [start(Store, ann) for _ in range(3)], start(Store, people("bob"))
    assert command("revoke-all", "--user=ann", "--no-input").out == "3 sessions of ann were signed out.\n"
    assert not any(Store().exists(session.session_key) for session in sessions)
    assert Store().exists(other.session_key)
    result = json.loads(command("revoke-all", "--user=ann", "--no-input", "--json").out)
    assert result == {"ended": 0, "complete": True}


@on("redis")
@pytest.mark.parametrize("verb", [["list"], ["revoke-all", "--no-input"]], ids=lambda verb: verb[0])
def test_what_may_be_missing_is_told(Store, command, ann, verb):
    start(Store, ann)
    Store.storage.client.delete(f"session:user:{ann.pk}")  # as an eviction does
    told = command(*verb, "--user=ann")
    assert told.out.startswith("0 sessions of ann")
    assert "--repair looks through all sessions" in told.err
    assert "--repair" not in command(*verb, "--user=ann", "--repair").err


@on("redis")
def test_what_may_be_missing_is_told_in_json(Store, command, ann):
    start(Store, ann)
    Store.storage.client.delete(f"session:user:{ann.pk}")
    listed = command("list", "--user=ann", "--json")
    assert json.loads(listed.out) == []
    assert "--repair" in listed.err
    of_all = "revoke-all", "--no-input", "--user=ann", "--json"
    assert json.loads(command(*of_all).out) == {"ended": 0, "complete": None}
    assert json.loads(command(*of_all, "--repair").out) == {"ended": 1, "complete": True}


def test_revoke_all_of_everyone(Store, command, ann, people):
    sessions = [start(Store, ann), start(Store, people("bob"))]
    anonymous = Store()
    anonymous.save()
    assert command("revoke-all", "--everyone", "--no-input").out == "2 sessions of all users were signed out.\n"
    assert not any(Store().exists(session.session_key) for session in sessions)
    assert Store().exists(anonymous.session_key)


@on("sqlite")
@pytest.mark.parametrize("answer", ["y", "Yes "])
def test_it_asks(Store, command, ann, monkeypatch, answer):
    start(Store, ann)
    asked = answering(monkeypatch, answer)
    assert "1 session of ann was signed out." in command("revoke-all", "--user=ann").out
    assert asked == ["Sign out all sessions of ann? [y/N] "]


@on("sqlite")
def test_the_question_is_not_in_the_result(Store, command, ann, monkeypatch):
    start(Store, ann)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    out, err = command("revoke-all", "--user=ann", "--json")
    assert json.loads(out) == {"ended": 1, "complete": True}
    assert err == "Sign out all sessions of ann? [y/N] "


@on("sqlite")
@pytest.mark.parametrize("answer", ["", "n", "yo"])
@pytest.mark.parametrize("whose", ["--user=ann", "--everyone"])
def test_no_is_no(Store, command, ann, monkeypatch, answer, whose):
    session = start(Store, ann)
    answering(monkeypatch, answer)
    assert refused(command, "revoke-all", whose) == "Nothing was signed out."
    assert Store().exists(session.session_key)


@on("sqlite")
def test_whose_must_be_said(command):
    for words in (
        ["revoke-all", "--no-input"],
        ["revoke-all", "--user=ann", "--everyone"],
        ["list"],
        ["revoke", "x"],
        [],
    ):
        with pytest.raises(CommandError):
            command(*words)


@on("sqlite")
def test_silence(Store, command, ann):
    start(Store, ann)
    assert command("revoke-all", "--user=ann", "--no-input", verbosity=0) == ("", "")


# stats


def test_stats(Store, command, ann):
    for _ in range(2):
        with_agent(Store, ann, cart=[1])
    Store().save()
    out, err = command("stats")
    first, second, *_ = out.splitlines()
    assert first == "3 sessions: 2 of users (1), 1 anonymous."
    assert second.endswith("at most.")
    table = {tuple(line.split()[:-2]): line.split()[-2:] for line in out.splitlines() if line.endswith("#")}
    assert table["up", "to", "1", "h"] == ["3", "#" * tables.BAR]
    assert table["Firefox", "on", "Linux"] == ["2", "#" * tables.BAR]
    assert table["cart",][0] == "2"
    assert err == ""


def test_stats_as_json(Store, command, ann):
    with_agent(Store, ann, cart=[1])
    result = json.loads(command("stats", "--json").out)
    assert (result["sessions"], result["users"], result["complete"]) == (1, 1, True)
    assert result["devices"] == {"Firefox on Linux": 1}


@on("sqlite", "redis")
def test_stats_of_nothing(command):
    assert command("stats").out.splitlines()[0] == "0 sessions: 0 of users (0), 0 anonymous."


@on("sqlite")
def test_what_cannot_be_read_is_said(Store, command, settings, ann):
    start(Store, ann)
    settings.SECRET_KEY = "another"
    assert "1 more in the store, made with none of this site's keys." in command("stats").out


@on("sqlite")
def test_a_bar_on_a_terminal(Store, ann, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(statistics, "PAGE", 2)
    for _ in range(5):
        start(Store, ann)
    terminal = Terminal()
    call_command("sessions", "stats", stdout=io.StringIO(), stderr=terminal)
    assert "5/?" in terminal.getvalue()
    assert "sessions/s" in terminal.getvalue()


@on("sqlite")
@pytest.mark.parametrize(("words", "verbosity"), [(["--no-progress"], 1), ([], 0)])
def test_no_bar(Store, ann, words, verbosity):
    start(Store, ann)
    terminal = Terminal()
    call_command("sessions", "stats", *words, verbosity=verbosity, stdout=io.StringIO(), stderr=terminal)
    assert terminal.getvalue() == ""


@on("sqlite")
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_lines_elsewhere_and_without_rich(Store, ann, monkeypatch, stream):
    monkeypatch.setattr(progress, "EVERY", 0)
    monkeypatch.setattr(statistics, "PAGE", 2)
    monkeypatch.setitem(sys.modules, "rich", None)
    for _ in range(5):
        start(Store, ann)
    lines = stream()
    call_command("sessions", "stats", stdout=io.StringIO(), stderr=lines)
    seen = [line.split(",")[0] for line in lines.getvalue().splitlines()]
    assert seen == ["2 sessions", "4 sessions", "5 sessions"]


def test_bounds_in_words():
    assert [size(bound) for bound in statistics.SIZES] == ["256 B", "1 KB", "4 KB", "16 KB", "64 KB", "256 KB", "1 MB"]
    assert [age(bound) for bound in statistics.AGES] == ["1 h", "1 d", "7 d", "30 d", "90 d", "365 d"]
    assert age(statistics.IDLE[0]) == "5 min"


# What must not be printed


def test_no_key_no_hash_and_no_value_is_printed(Store, command, ann):
    session = with_agent(Store, ann, cart={"inner": SECRET})
    secrets = SECRET, "inner", session.session_key, identify(session.session_key)
    for words in (
        "list --user=ann",
        "list --user=ann --json",
        "stats",
        "stats --json",
        "revoke-all --user=ann --no-input",
    ):
        out, err = command(*words.split())
        assert [secret for secret in secrets if secret in out + err] == []


# When it fails


@on("memory")
@pytest.mark.parametrize("kind", list(UNREACHABLE))
def test_a_store_that_is_away(command, ann, kind):
    with using(kind, UNREACHABLE[kind]):
        for words in ("list --user=ann", "revoke x --user=ann", "revoke-all --everyone --no-input", "stats --json"):
            assert refused(command, *words.split())


@on("memory")
def test_an_engine_of_others(command, ann, settings):
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    assert "cannot list" in refused(command, "stats")
    assert "cannot list" in refused(command, "list", "--user=ann")


@pytest.mark.slow  # two processes
@on("sqlite")
def test_exit_codes(Store):
    run = RUN.replace("purgesessions", "sessions")
    code, out, _ = ended(run.format(options="stats --json"))
    assert (code, json.loads(out)["sessions"]) == (0, 0)
    code, out, err = ended(
        "settings.SESSION_ENGINE = 'django.contrib.sessions.backends.file'\n" + run.format(options="stats")
    )
    assert (code, out) == (1, "")
    assert "cannot list" in err
