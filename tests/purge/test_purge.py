"""The purge of SQL tables, on every database."""

import asyncio
import json
import logging
import random
import signal
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError, connections, transaction
from django.db.backends.utils import CursorWrapper

from django_multisession import databases, durations
from django_multisession.databases import CLOCKS
from django_multisession.exceptions import EngineUnavailable, InvalidOption
from django_multisession.models import PurgeLease, PurgeRun, Session
from django_multisession.purge import Purged, apurge, lease, purge, tables
from django_multisession.records import utcnow
from django_multisession.signals import sessions_purged
from django_multisession.testing.stored import a_record

from .. import memory
from ..purging import DAY, HOUR, add, child, expired, left, live, statements
from ..routers import SessionRouter


@pytest.fixture(params=["sqlite", "postgres", "mysql"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _clean(Store: Any) -> None:
    for model in (PurgeRun, PurgeLease):
        model.objects.using(SessionRouter.alias).all().delete()


@pytest.fixture
def run(face):
    """`purge()` on either face."""
    return purge if face.name == "sync" else lambda **options: face.runner.run(apurge(**options))


def only(*engines: str) -> Any:
    return pytest.mark.parametrize("engine_name", engines, indirect=True)


def outcome(purged: Purged) -> tuple[int, int, bool, str]:
    return purged.rows, purged.batches, purged.more, purged.reason


def elsewhere(function: Any, *arguments: Any) -> Any:
    """Call it in a thread, so on another connection."""

    def call() -> Any:
        try:
            return function(*arguments)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(call).result(30)


def move(id: str, expires_at: datetime) -> int:
    return Session.objects.using(SessionRouter.alias).filter(pk=id).update(expires_at=expires_at)


# What goes


def test_the_expired_go_and_the_live_stay(run):
    expired(25)
    kept = live(3)
    assert outcome(run(batch_size=10)) == (25, 3, False, "done")
    assert left() == set(kept)
    assert outcome(run(batch_size=10)) == (0, 1, False, "done")


def test_what_has_just_expired_is_given_grace(run):
    [_, recent] = [*expired(1, ago=2 * HOUR), *expired(1, ago=HOUR / 2)]
    assert run().rows == 1
    assert left() == {recent}
    assert run(grace=0).rows == 1


def test_idle_sessions_go_live_or_not(run):
    kept = live(2) + live(1, updated_at=utcnow() - 5 * DAY)
    live(2, updated_at=utcnow() - 40 * DAY)
    expired(2)
    assert outcome(run(older_than="30d", batch_size=3)) == (4, 3, False, "done")
    assert left() == set(kept)


@pytest.mark.parametrize("limit", ["90d", timedelta(days=90), 90 * 86400, "moment"])
def test_old_sessions_go_however_busy(run, limit):
    kept = live(2, created_at=utcnow() - 80 * DAY)
    live(2, created_at=utcnow() - 100 * DAY)
    assert run(created_before=utcnow() - 90 * DAY if limit == "moment" else limit).rows == 2
    assert left() == set(kept)


@pytest.mark.parametrize(("moment", "rows"), [(datetime.min, 0), (datetime.max, 3)])
def test_a_moment_at_either_end_of_the_calendar(run, moment, rows):
    live(3)
    assert run(created_before=moment).rows == rows
    assert run(older_than="36525d", grace="36525d").rows == 0


def test_anonymous_sessions_only(run):
    kept = expired(3, user_id="7") + live(2)
    expired(5)
    assert outcome(run(anonymous_only=True, batch_size=2)) == (5, 5, False, "done")
    assert left() == set(kept)


def test_idle_anonymous_sessions_only(run):
    kept = live(3, user_id="7", updated_at=utcnow() - 40 * DAY)
    live(3, updated_at=utcnow() - 40 * DAY)
    assert run(anonymous_only=True, older_than="30d", batch_size=2).rows == 3
    assert left() == set(kept)


@pytest.mark.parametrize("criteria", [{}, {"anonymous_only": True}, {"older_than": "30d"}])
def test_more_rows_with_one_expiry_than_a_batch_takes(run, criteria):
    expired(25, step=timedelta(0), updated_at=utcnow() - 40 * DAY)
    kept = live(5)
    assert run(batch_size=4, **criteria).rows == 25
    assert left() == set(kept)


def test_a_database_by_name(run):
    expired(2)
    alias, SessionRouter.alias = SessionRouter.alias, "default"
    assert run(database=alias).rows == 2


# Bounds


@pytest.mark.parametrize("criteria", [{}, {"anonymous_only": True}])
def test_max_rows_is_exact(run, criteria):
    expired(25)
    assert outcome(run(batch_size=10, max_rows=15, **criteria)) == (15, 2, True, "max_rows")
    assert len(left()) == 10
    assert run(max_rows=10, **criteria).rows == 10


def test_max_rows_does_not_shorten_the_window_of_a_search_among_the_live(run):
    """Else the last one would be looked for row by row, each in a batch of its own."""
    kept = live(50) + expired(50, user_id="7", updated_at=utcnow() - 40 * DAY)
    expired(1)
    assert outcome(run(anonymous_only=True, batch_size=60, max_rows=2)) == (1, 1, False, "done")
    idle = live(9, updated_at=utcnow() - 40 * DAY)
    seen: list[int] = []
    purged = run(older_than="30d", anonymous_only=True, max_rows=7, progress=lambda done: seen.append(done.examined))
    assert outcome(purged) == (7, 1, True, "max_rows")
    assert left() >= {*kept}
    assert len(left() & {*idle}) == 2
    assert 57 < seen[0] < 109  # up to the last one that went
    assert run(older_than="30d", anonymous_only=True, batch_size=4, max_rows=3).rows == 2


def test_max_rows_says_whether_more_are_waiting(run):
    expired(10)
    assert outcome(run(batch_size=5, max_rows=10)) == (10, 2, False, "max_rows")


def test_the_oldest_go_first(run):
    ids = expired(10)
    run(max_rows=4)
    assert left() == set(ids[4:])


@pytest.mark.parametrize("criteria", [{}, {"pause": 0}, {"older_than": "30d"}])
def test_a_bound_that_is_too_short_for_anything_ends_it_after_a_batch(run, criteria):
    expired(25)
    assert outcome(run(batch_size=10, max_seconds=0, **criteria)) == (10, 1, True, "max_seconds")


def test_max_seconds_ends_it_after_a_batch(run):
    expired(25)
    assert outcome(run(batch_size=10, max_seconds=0.3, pause=0.25)) == (20, 2, True, "max_seconds") or len(left()) == 15
    assert run(batch_size=10).reason == "done"


def test_pauses_between_batches(run):
    expired(25)
    assert run(batch_size=10, pause=0.1).seconds >= 0.2


def test_the_pace_where_nothing_is_said(run):
    """SQLite's one write lock, and what MariaDB's disk can take, are others' for half of the time."""
    expired(1100)
    seen = []
    purged = run(progress=lambda progress: seen.append((progress.batches, progress.took)))
    vendor = connections[SessionRouter.alias].vendor
    assert outcome(purged) == (1100, 5 if vendor == "sqlite" else 2, False, "done")
    if vendor != "postgresql":
        assert purged.seconds >= 2 * sum(took for _, took in seen[:-1]) + seen[-1][1] > 0


def test_stop_is_asked_before_each_batch_and_while_pausing(run):
    expired(25)
    seen = []
    began = time.perf_counter()
    purged = run(batch_size=10, pause=60, stop=lambda: bool(seen), progress=seen.append)
    assert outcome(purged) == (10, 1, True, "stopped")
    assert time.perf_counter() - began < 10
    assert (seen[0].rows, seen[0].examined) == (10, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0: write a whole number from 1 to 10,000."),
        ({"batch_size": 10_001}, "batch_size is 10001"),
        ({"max_rows": "many"}, "max_rows is 'many': write a whole number of at least 1."),
        ({"grace": "1 week"}, "grace is '1 week': write a duration as 30d, 12h, 90m, 45s or 50ms."),
        ({"grace": "30"}, "grace is '30': write a duration as 30d, 12h, 90m, 45s or 50ms."),
        ({"older_than": "30"}, "older_than is '30'"),
        ({"created_before": "0.5"}, "created_before is '0.5'"),
        ({"max_seconds": ""}, "max_seconds is ''"),
        ({"grace": None}, "or a number of seconds."),
        ({"grace": 10**400}, "write a duration from 0 to 36525d."),
        ({"max_seconds": float("nan")}, "max_seconds is nan: write a duration from 0 to 36525d."),
        ({"older_than": timedelta.max}, "write a duration from 0 to 36525d."),
        ({"pause": -1}, "pause is -1"),
        ({"pause": True}, "pause is True"),
        ({"older_than": "30days"}, "older_than is '30days'"),
        ({"older_than": "999999999d"}, "older_than is '999999999d': write a duration from 0 to 36525d."),
        ({"grace": "999999999d"}, "write a duration from 0 to 36525d."),
        ({"grace": timedelta(hours=-1)}, "write a duration from 0 to 36525d."),  # would remove live ones
        ({"pause": "999999999d"}, "write a duration from 0 to 1h."),
        ({"pause": "61m"}, "pause is '61m': write a duration from 0 to 1h."),
        ({"model": ""}, "model is '': write an installed model"),
        ({"anonymous_only": "false"}, "anonymous_only is 'false': write true or false."),
        ({"database": "nowhere"}, "database is 'nowhere': there are default"),
        ({"model": "nowhere.Model"}, "model is 'nowhere.Model': write an installed model as app.Model."),
        ({"model": "Model"}, "model is 'Model': write"),
        ({"model": "auth.User"}, "it has no expire_date"),
    ],
)
def test_wrong_options_are_named_with_the_form_they_take(run, options, message):
    with pytest.raises(InvalidOption) as raised:
        run(**options)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 2592000), ("12h", 43200), ("90m", 5400), ("45s", 45), ("50ms", 0.05), ("0", 0)]
)
def test_durations(text, seconds):
    """Text has a unit, but 0; numbers in code are seconds."""
    assert durations.as_seconds("pause", text) == durations.as_seconds("pause", f" {text} ") == seconds
    assert (
        durations.as_seconds("pause", seconds) == durations.as_seconds("pause", timedelta(seconds=seconds)) == seconds
    )
    assert durations.written(seconds) == text


@pytest.mark.parametrize(
    "text", ["", "7", "0.0", "00", "7 s", "7S", "-7s", "1e3s", "7w", "s", "\u0667s", "7s\n7s", "1.s"]
)
def test_what_is_no_duration(text):
    with pytest.raises(InvalidOption, match="write a duration as 30d, 12h, 90m, 45s or 50ms"):
        durations.as_seconds("pause", text)


def test_a_pause_ends_when_told_to_stop(run):
    expired(25)
    began = time.perf_counter()
    purged = run(batch_size=10, pause=60, stop=lambda: time.perf_counter() > began + 1)
    assert outcome(purged) == (10, 1, True, "stopped")


# How


def test_a_batch_is_one_or_two_statements(Store):
    expired(30)
    purge(batch_size=10)  # compile, connect
    expired(30)
    with statements() as sent:
        purge(batch_size=10)
    deletes = [sql for sql in sent if "DELETE FROM" in sql and "multisession_session" in sql]
    selects = [sql for sql in sent if sql.startswith("SELECT") and "multisession_session" in sql and "lock" not in sql]
    begins = [sql for sql in sent if sql.startswith(("BEGIN", "START"))]
    if connections[SessionRouter.alias].vendor == "postgresql":
        assert (len(deletes), len(selects), len(begins)) == (4, 1, 1)  # the last finds none; then: more? and PurgeRun
    else:
        assert (len(deletes), len(selects)) == (3, 5)


def test_batches_resume_where_the_last_one_ended(Store):
    """As parameters: each batch starts at the last expiry of the one before."""
    expiries = [utcnow() - DAY + timedelta(seconds=number) for number in range(30)]
    add((expiry, {}) for expiry in expiries)
    with statements() as sent:
        purge(batch_size=10)
    searches = [sql for sql in sent if "ORDER BY" in sql and "multisession_session" in sql]
    assert len(searches) == 4
    assert ">=" not in searches[0]
    for number, search in enumerate(searches[1:], 1):
        assert str(int(expiries[number * 10 - 1].timestamp() * 1000))[:-1] in search


@pytest.mark.parametrize("criteria", [{}, {"older_than": "30d"}])
def test_a_batch_uses_the_expiry_index(Store, criteria):
    expired(3000)
    live(3000)
    connection = connections[SessionRouter.alias]
    with connection.cursor() as cursor:
        table = "django_multisession_session"
        cursor.execute(
            {"sqlite": "ANALYZE", "postgresql": f"ANALYZE {table}"}.get(connection.vendor, f"ANALYZE TABLE {table}")
        )
        with statements() as sent:
            purge(batch_size=100, max_rows=200 if not criteria else None, max_seconds=None, **criteria)
        search = [sql for sql in sent if "ORDER BY" in sql and table in sql][1]
        explain = "EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN "
        cursor.execute(explain + search)
        plan = str(cursor.fetchall())
    assert "multisession_expiry" in plan
    assert "Seq Scan" not in plan
    if connection.vendor == "postgresql" and not criteria:
        assert "Tid Scan" in plan


@only("postgres")
def test_the_rows_that_a_batch_examines_do_not_grow_with_the_dead(Store):
    """While a snapshot keeps the dead rows, a loop from the start would read all of them again in each batch."""
    expired(2000)
    holder = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic(using=SessionRouter.alias), connections[SessionRouter.alias].cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT 1")
            holder[0].set()
            holder[1].wait(30)

    thread = threading.Thread(target=elsewhere, args=(hold,))
    thread.start()
    holder[0].wait(30)
    try:
        with statements() as sent:
            purge(batch_size=100, max_rows=1900)
        last = [sql for sql in sent if "doomed" in sql][-1]
        with connections[SessionRouter.alias].cursor() as cursor:
            cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + last)
            [plan] = cursor.fetchone()[0]
        walked = json.dumps(plan)
        assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] < 1000, walked
    finally:
        holder[1].set()
        thread.join()


def test_a_storage_verb_shares_the_statements(Store, face, verbs):
    expired(5)
    assert verbs.purge(utcnow(), 3) == 3
    assert len(left()) == 2


@only("sqlite")
def test_memory_is_constant(Store):
    def peak(rows: int) -> int:
        expired(rows)
        tracemalloc.start()
        try:
            assert purge(pause=0).rows == rows
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2000)
    # A row has over 100 bytes. (Python 3.13.0 keeps some 60 for each getattr() of a name that was just put together.)
    assert peak(20_000) - peak(4000) < 16_000 * 10


# Beside requests


@only("postgres", "mysql")
@pytest.mark.parametrize("criteria", [{}, {"anonymous_only": True}])
def test_locked_rows_are_skipped_and_taken_by_the_next_run(Store, criteria):
    ids = expired(25)
    locked = {ids[0], ids[7], ids[24]}
    with transaction.atomic(using=SessionRouter.alias):
        rows = Session.objects.using(SessionRouter.alias).filter(pk__in=locked)
        assert len(rows.select_for_update()) == 3
        purged = elsewhere(lambda: purge(batch_size=4, **criteria))
    assert (purged.rows, purged.reason) == (22, "done")
    assert purged.more or criteria
    assert left() == locked
    assert outcome(purge()) == (3, 1, False, "done")


@only("postgres", "mysql")
def test_nobody_waits_for_a_lock_whatever_the_statistics_say(Store):
    """MariaDB believes tables to be small that were emptied or not analyzed, and reads all of their rows then."""
    for _ in range(4):
        ids = expired(12)
        with transaction.atomic(using=SessionRouter.alias):
            list(Session.objects.using(SessionRouter.alias).filter(pk=ids[5]).select_for_update())
            purged = elsewhere(lambda: purge(batch_size=4))
        assert (purged.rows, purged.seconds < 5) == (11, True)
        purge()


@only("postgres", "mysql")
def test_a_batch_of_locked_rows_is_no_end_and_no_endless_loop(Store):
    ids = expired(10, step=timedelta(0))
    with transaction.atomic(using=SessionRouter.alias):
        list(Session.objects.using(SessionRouter.alias).filter(pk__in=ids[:5]).select_for_update())
        assert elsewhere(lambda: purge(batch_size=2)).rows == 5


@pytest.mark.parametrize(
    ("engine_name", "criteria"),
    # Without criteria the other two select and lock in one statement.
    [("sqlite", {}), *((each, {"older_than": "30d"}) for each in ("sqlite", "postgres", "mysql"))],
)
def test_a_session_refreshed_between_selection_and_deletion_lives(Store, engine_name, criteria, monkeypatch):
    ids = expired(5, updated_at=utcnow() - 40 * DAY)
    positions = tables.Table.positions

    def and_then_touch(table: Any, rows: Any) -> Any:
        if found := positions(table, rows):
            elsewhere(move, ids[2], utcnow() + DAY)
        return found

    monkeypatch.setattr(tables.Table, "positions", and_then_touch)
    assert purge(**criteria, max_rows=5).rows == 4
    assert left() == {ids[2]}


@pytest.fixture
def repeatable_read(Store: Any) -> Iterator[None]:
    """As a site sets it that wants it for its own transactions."""
    connection = connections[SessionRouter.alias]
    options, level = connection.settings_dict["OPTIONS"], "repeatable read"
    mysql = {"isolation_level": level, "init_command": "SET SESSION innodb_snapshot_isolation = ON"}
    postgres = {"isolation_level": 3, "options": "-c default_transaction_isolation=repeatable\\ read"}
    given = mysql if connection.vendor == "mysql" else postgres
    connection.close()
    options.update(given)
    connection.__dict__.pop("isolation_level", None)
    yield
    connection.close()
    for name in given:
        del options[name]
    connection.__dict__.pop("isolation_level", None)


@only("postgres", "mysql")
def test_under_repeatable_read_a_batch_that_a_request_overtakes_is_done_again(
    Store, repeatable_read, monkeypatch, settings
):
    settings.MULTISESSION_TIMEOUT = 60  # a conflict is repeated for so long, and a busy machine takes its time
    ids = expired(5, updated_at=utcnow() - 40 * DAY)
    positions, calls = tables.Table.positions, []

    def and_then_touch(table: Any, rows: Any) -> Any:
        calls.append(found := positions(table, rows))
        if len(calls) == 2:
            elsewhere(move, ids[2], utcnow() + DAY)
        return found

    monkeypatch.setattr(tables.Table, "positions", and_then_touch)
    assert purge(older_than="30d", max_rows=4).rows == 4
    assert [len(found) for found in calls] == [1, 5, 4]  # where the index ends; the batch, twice
    assert left() == {ids[2]}


def test_sessions_that_are_touched_all_the_time_do_not_keep_it_going(Store):
    """Each touch moves a session to the end of the index, which a walk over the live would never reach."""
    [id] = live(1, updated_at=utcnow() - 40 * DAY)
    expired(5)

    def touch(progress: Any) -> None:
        assert progress.batches < 10
        elsewhere(move, id, utcnow() + 2 * DAY)

    assert outcome(purge(older_than="30d", batch_size=1, progress=touch, pause=0)) == (5, 6, False, "done")
    assert left() == {id}


@only("postgres")
def test_a_session_that_is_being_refreshed_lives(Store):
    [id] = expired(1)
    with transaction.atomic(using=SessionRouter.alias):
        move(id, utcnow() + DAY)
        assert elsewhere(purge).rows == 0
    assert purge().rows == 0
    assert left() == {id}


@pytest.mark.slow
def test_no_interleaving_with_requests_removes_a_live_session(Store, face):
    """Requests create, touch, save and log in as a purge goes on; all that they leave live is there at the end."""
    expired(400, ago=2 * HOUR)
    ended = threading.Event()
    alive: list[str] = []

    def requests(number: int) -> None:
        mine: list[str] = []
        while not ended.is_set() or len(mine) < 5:
            session = Store()
            session["number"] = number
            session.set_expiry(5 if len(mine) % 3 else 3600)
            session.create()
            session = Store(session.session_key)
            session.set_expiry(3600)  # was about to expire: lives
            session["_auth_user_id"] = "1"
            session.save()
            session = Store(session.session_key)
            if len(mine) % 2:
                session.cycle_key()
            session.save()
            mine.append(session.session_key)
        alive.extend(mine)

    threads = [threading.Thread(target=elsewhere, args=(requests, number)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        rows = sum(purge(batch_size=20, grace=0, pause=0.01).rows for _ in range(5))
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert rows >= 400
    assert alive
    assert all(Store().exists(key) for key in alive)


@only("sqlite")
@pytest.mark.slow
@pytest.mark.parametrize("criteria", [{}, {"anonymous_only": True}, {"older_than": "1h"}])
def test_whatever_requests_do_within_a_batch_no_live_session_goes(Store, criteria, monkeypatch, clock):
    """Between a batch's two statements sessions are created, saved, touched, logged in and out, at random."""
    chance = random.Random(1)
    expiries: dict[str, datetime] = {}
    changed: dict[str, datetime] = {}

    def request() -> None:
        action = chance.choice(["create", "save", "touch", "log in", "log out"])
        session = Store(chance.choice([*expiries]) if expiries and action != "create" else None)
        if action == "create" or (session.load() == {} and session.session_key is None):
            session = Store()
        if action == "log out":
            expiries.pop(session.session_key, None)
            return session.flush()
        if action != "touch":
            session["_auth_user_id" if action == "log in" else "n"] = str(chance.random())
            session.set_expiry(chance.choice([30, 600, 7200]))
        session.save()
        expiries[session.session_key] = utcnow() + timedelta(seconds=session.get_expiry_age() - 1)
        if action != "touch" or session.session_key not in changed:
            changed[session.session_key] = utcnow()

    positions = tables.Table.positions

    def with_requests(table: Any, rows: Any) -> Any:
        found = positions(table, rows)
        elsewhere(lambda: [request() for _ in range(chance.randrange(4))])
        return found

    monkeypatch.setattr(tables.Table, "positions", with_requests)
    purged = 0
    for _ in range(20):
        for _ in range(5):
            request()
        clock.shift(chance.choice([5, 60, 1800]))
        purged += purge(batch_size=3, grace=0, pause=0, max_seconds=20, **criteria).rows
        for key, expiry in expiries.items():
            idle = "older_than" in criteria and changed[key] < utcnow() - timedelta(minutes=59)
            if expiry > utcnow() and not idle:
                assert Store().exists(key)
    assert purged > 20


# Clocks


@only("postgres", "mysql")
@pytest.mark.parametrize("seconds", [-40, 40])
def test_the_purge_goes_by_the_servers_clock(run, clock, seconds):
    """Of a host whose clock is a little wrong, what is live to all others stays, and what is over goes."""
    now = utcnow()
    near = timedelta(seconds=20)
    [kept, _] = add([(now + near, {}), (now - near, {})])
    old = now - 40 * DAY
    [idle, young] = add([(now + DAY, {"updated_at": old + near}), (now + DAY, {"created_at": old + near})])
    add([(now + DAY, {"updated_at": old - near}), (now + DAY, {"created_at": old - near})])
    clock.shift(seconds)
    assert run(grace=0).rows == 1
    assert run(older_than="40d").rows == 1
    assert run(created_before="40d").rows == 1
    assert left() == {kept, idle, young}
    assert run(created_before=old + 2 * near).rows == 1  # a moment is nobody's clock's


@only("postgres", "mysql")
@pytest.mark.parametrize("seconds", [-10_800, -65, 65, 10_800])
@pytest.mark.parametrize("options", [{"grace": 0}, {"grace": 0, "older_than": "30d"}, {"grace": "30s"}])
def test_a_host_whose_clock_is_wrong_removes_nothing(run, clock, seconds, options):
    ids = expired(2) + add([(utcnow() + HOUR, {"updated_at": utcnow() - 40 * DAY})])
    clock.shift(seconds)
    with pytest.raises(InvalidOption) as raised:
        run(**options)
    ours = f"{utcnow():%Y-%m-%d %H:}"
    assert f"the clock of this host is '{ours}" in str(raised.value)
    server = utcnow() - timedelta(seconds=seconds)
    assert f"the server's is {server:%Y-%m-%d %H:}" in str(raised.value)
    assert left() == set(ids)
    clock.shift(-seconds)
    assert run().rows == 2  # nobody has the lease
    assert PurgeRun.objects.using(SessionRouter.alias).count() == 1


@only("postgres", "mysql")
def test_clocks_may_differ_by_the_grace(run, clock):
    ids = expired(1, ago=3 * HOUR)
    kept = add([(utcnow() - HOUR, {}), (utcnow() + HOUR, {})])
    clock.shift(110 * 60)
    with pytest.raises(InvalidOption, match="they may differ by the grace, or by a minute; here by 1:00:00"):
        run()
    assert left() == {*ids, *kept}
    assert run(grace="2h").rows == 1
    assert left() == {*kept}


def test_the_time_that_an_answer_takes_is_no_difference(Store, clock, monkeypatch):
    """Of a database that has to wake up, say."""

    def slowly(alias: str) -> datetime:
        clock.shift(300)
        try:
            return utcnow()
        finally:
            clock.shift(300)

    monkeypatch.setattr("django_multisession.purge.targets.clock", slowly)
    expired(1)
    assert purge(grace=0).rows == 1


def test_the_server_is_asked_once(Store):
    expired(25)
    with statements() as sent:
        purge(batch_size=10)
    by_itself = connections[SessionRouter.alias].vendor == "sqlite"  # is a part of the process, and so is its clock
    asked = [sql for sql in sent if sql.startswith("SELECT") and any(clock in sql for clock in CLOCKS.values())]
    assert len(asked) == (0 if by_itself else 1)


@only("mongodb")
def test_mongodbs_clock_too(Store, run, clock):
    kept, _ = (Store.storage.collection.insert_one(_document(hours)).inserted_id for hours in (1, -1))
    clock.shift(3 * 3600)
    with pytest.raises(InvalidOption, match="the clock of this host is"):
        run(grace=0)
    clock.shift(-3 * 3600 + 30)
    assert run(grace=0).reason == "server"
    assert [each["_id"] for each in Store.storage.collection.find()] == [kept]


def _document(hours: float) -> dict[str, Any]:
    return {"_id": uuid4().hex * 2, "expires_at": utcnow() + timedelta(hours=hours)}


class Told(memory.MemoryStorage):
    """As a third engine may: its storage tells the server's time."""

    apart: timedelta | None = timedelta(0)

    async def clock(self) -> datetime | None:
        return None if self.apart is None else utcnow() - self.apart


@only("memory")
@pytest.mark.parametrize(
    ("apart", "rows"), [(None, 2), (timedelta(0), 2), (timedelta(seconds=50), 1), (timedelta(seconds=70), None)]
)
def test_another_engine_may_tell_its_clock(Store, run, monkeypatch, apart, rows):
    told = Told()
    told.apart, told.records = (
        apart,
        {str(ago): a_record(id=str(ago), expires_at=utcnow() - ago) for ago in (HOUR, HOUR / 90)},
    )
    for face in ("storage", "astorage"):
        monkeypatch.setattr(Store, face, told)
    with nullcontext() if rows else pytest.raises(InvalidOption, match="the clock of this host"):
        assert run(grace=0).rows == rows
    assert len(told.records) == 2 - (rows or 0)


@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_the_servers_clock_is_in_utc_whatever_the_site_sets(Store, settings, use_tz, zone):
    settings.USE_TZ, settings.TIME_ZONE = use_tz, zone
    connections[SessionRouter.alias].close()
    before, now, after = utcnow(), databases.clock(SessionRouter.alias), utcnow()
    assert before - HOUR / 60 <= now <= after + HOUR / 60


# Overlap


def test_another_purge_is_told_so(run, face):
    expired(25)
    answers = []

    def also(progress: Any) -> None:
        answers.append(elsewhere(purge))

    assert outcome(run(batch_size=10, progress=also)) == (25, 3, False, "done")
    assert {outcome(answer) for answer in answers} == {(0, 0, True, "running")}
    assert run().reason == "done"


def test_two_purges_of_one_event_loop_share_a_connection_and_no_lease(Store, runner):
    expired(50)

    async def both() -> list[Purged]:
        return await asyncio.gather(*(apurge(batch_size=10, pause=0.05) for _ in range(3)))

    assert sorted(each.reason for each in runner.run(both())) == ["done", "running", "running"]


def test_ten_purges_at_once_remove_each_row_once(Store):
    expired(500)
    kept = live(5)
    start = threading.Barrier(10)

    def one(number: int) -> Purged:
        try:
            start.wait()
            return purge(batch_size=20, pause=0.01)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(10) as executor:
        answers = list(executor.map(one, range(10)))
    assert sum(answer.rows for answer in answers) == 500
    assert sorted(answer.reason for answer in answers) == ["done"] + ["running"] * 9
    assert left() == set(kept)


def test_purges_in_processes_remove_each_row_once(Store):
    expired(600)
    code = "print(purge(batch_size=20, pause=0.1))"
    answers = [process.communicate(timeout=60) for process in [child(code) for _ in range(3)]]
    rows = [int(out.split("rows=")[1].split(",")[0]) for out, _ in answers]
    assert sum(rows) == 600, answers
    assert left() == set()


def test_the_lease_ends_with_an_error(Store, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "django_multisession.purge")
    expired(5)

    def fail(*arguments: Any) -> Any:
        raise OperationalError("the server has gone away")

    with monkeypatch.context() as patch:
        patch.setattr("django_multisession.purge.targets.batch", fail)
        with pytest.raises(EngineUnavailable, match="gone away"):
            purge()
    assert [record.getMessage().split("(")[-1] for record in caplog.records] == ["error)."]
    assert purge().rows == 5
    reasons = PurgeRun.objects.using(SessionRouter.alias).order_by("pk").values_list("reason", flat=True)
    assert list(reasons) == ["error", "done"]


@only("sqlite")
def test_who_has_lost_the_lease_stops(Store, clock):
    expired(25)

    def stall(progress: Any) -> None:
        clock.shift(lease.SECONDS + 1)  # as if it had been suspended
        with InAnotherProcess():
            assert elsewhere(lambda: purge(max_rows=5, batch_size=5)).reason == "max_rows"
            PurgeLease.objects.create(name=name(), holder="another", expires_at=utcnow() + HOUR)

    assert outcome(purge(batch_size=10, progress=stall)) == (10, 1, True, "running")
    PurgeLease.objects.all().delete()


def name() -> str:
    return lease._name("default", Session._meta.db_table)


class InAnotherProcess:
    """What the process holds is not known there."""

    def __enter__(self) -> None:
        self.held, lease._held = lease._held, {}

    def __exit__(self, *error: object) -> None:
        lease._held = self.held


@only("sqlite")
def test_a_lease_is_renewed_now_and_then_not_with_each_batch(Store, clock):
    expired(20)
    with statements() as sent:
        purge(batch_size=5, pause=0)
    assert sum("SET" in sql and "purgelease" in sql for sql in sent) == 1  # who has left it behind?
    expired(20)
    with statements() as sent:
        purge(batch_size=5, pause=0, progress=lambda progress: clock.shift(lease.RENEWED.total_seconds()))
    assert sum("SET" in sql and "purgelease" in sql for sql in sent) == 1 + 4


@pytest.fixture(params=["direct", "pooler"])
def between(request: pytest.FixtureRequest, Store: Any) -> Iterator[str]:
    """What is between the site and PostgreSQL, as the settings say. What they do not say: see test_pgbouncer.py."""
    given = connections.settings["postgres"]
    given["DISABLE_SERVER_SIDE_CURSORS"] = request.param == "pooler"
    connections["postgres"].settings_dict.update(given)
    yield request.param
    connections["postgres"].settings_dict["DISABLE_SERVER_SIDE_CURSORS"] = given["DISABLE_SERVER_SIDE_CURSORS"] = False


@only("postgres")
def test_behind_a_pooler_the_lease_is_a_row(Store, between):
    expired(5)
    seen = []
    purge(progress=lambda progress: seen.extend(PurgeLease.objects.using("postgres").all()))
    assert len(seen) == (between == "pooler")
    assert not PurgeLease.objects.using("postgres").exists()


@only("postgres")
def test_nobody_waits_for_a_purge_within_a_transaction(Store, between):
    """Nor does that one for others: of the two the second is told, whichever it is."""
    expired(5)
    answers = []
    with transaction.atomic(using="postgres"):
        assert purge(batch_size=2).rows == 5
        with InAnotherProcess():
            assert elsewhere(purge).reason == "running"
        transaction.set_rollback(True, using="postgres")

    def within() -> Purged:
        with InAnotherProcess(), transaction.atomic(using="postgres"):
            return purge()

    assert purge(batch_size=2, progress=lambda progress: answers.append(elsewhere(within).reason)).rows == 5
    assert set(answers) == {"running"}


@only("postgres")
def test_a_lease_goes_by_the_clock_of_the_database(Store, between, clock):
    """A host whose clock is hours fast takes none over that is in force."""
    expired(5)
    answers = []

    def fast(progress: Any) -> None:
        clock.shift(3 * 3600)
        with InAnotherProcess():
            answers.append(elsewhere(lambda: purge(grace="4h")).reason)
        clock.shift(-3 * 3600)

    purge(batch_size=10, progress=fast)
    assert answers == ["running"]


def test_inside_a_transaction_all_of_it_is_rolled_back_with_it(Store):
    ids = expired(5)
    with transaction.atomic(using=SessionRouter.alias):
        assert purge(batch_size=2).rows == 5
        transaction.set_rollback(True, using=SessionRouter.alias)
    assert left() == set(ids)
    assert purge().rows == 5


# Killed


SLOWLY = """
import time
def progress(done):
    print(done.rows, flush=True)
    time.sleep(0.2)
purge(batch_size=10, progress=progress)
"""


def test_after_a_kill_nothing_live_is_lost_and_the_next_run_goes_on(Store):
    expired(200)
    kept = live(5)
    process = child(SLOWLY)
    assert process.stdout.readline() == "10\n"
    assert purge().reason == "running"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if SessionRouter.alias == "default":
        assert purge().reason == "running"
        PurgeLease.objects.using(SessionRouter.alias).update(expires_at=utcnow() - HOUR)  # a minute later
    for _ in range(50):  # until the server has noticed
        if (purged := purge()).reason != "running":
            break
        time.sleep(0.1)
    assert 0 < purged.rows < 200
    assert left() == set(kept)


# Seen from outside


def test_a_run_is_kept_logged_and_signalled(run, caplog):
    received = []

    def receive(sender: type, purged: Purged, table: str, **kwargs: object) -> None:
        received.append((purged, table))

    expired(3)
    began = utcnow()
    sessions_purged.connect(receive)
    try:
        with caplog.at_level(logging.INFO, "django_multisession.purge"):
            purged = run()
    finally:
        sessions_purged.disconnect(receive)
    assert received == [(purged, "django_multisession_session")]
    assert "Purged django_multisession_session: 3 sessions in 1 batches" in caplog.text
    [kept] = PurgeRun.objects.using(SessionRouter.alias).all()
    assert (kept.table, kept.rows, kept.batches, kept.more, kept.reason) == (
        "django_multisession_session",
        3,
        1,
        False,
        "done",
    )
    assert began <= kept.started_at <= kept.ended_at <= utcnow()
    assert kept.host
    assert str(kept).endswith(": 3 (done)")


def test_the_newest_runs_are_kept(Store, monkeypatch):
    monkeypatch.setattr(PurgeRun, "KEPT", 3)
    runs = PurgeRun.objects.using(SessionRouter.alias)
    pks = []
    for _ in range(5):
        purge()
        pks.append(runs.latest("pk").pk)
    assert [run.pk for run in runs.order_by("pk")] == pks[2:]


def test_a_run_that_cannot_be_recorded_is_done_all_the_same(Store, monkeypatch, caplog):
    expired(3)
    monkeypatch.setattr(PurgeRun._meta, "db_table", "nowhere")
    assert purge().rows == 3
    assert "could not be recorded" in caplog.text


def test_clear_expired_gives_no_grace(Store, face):
    expired(3, ago=timedelta(seconds=1), step=timedelta(0))
    face(Store()).clear_expired()
    assert left() == set()


def test_an_outage_is_an_outage(Store, monkeypatch):
    def fail(*arguments: Any) -> Any:
        raise OperationalError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(CursorWrapper, "execute", fail)
        with pytest.raises(EngineUnavailable, match="no route to host"):
            purge()
