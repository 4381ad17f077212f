"""A row is a session, or nothing and a line in the log; what does not fit into one is an error, and not stored."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections, transaction
from django.test import override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_multisession import statistics, user_sessions
from django_multisession.backends.db import LAST, SessionStore, _record
from django_multisession.exceptions import EngineUnavailable, SessionNotSerializable
from django_multisession.models import Session
from django_multisession.purge import purge
from django_multisession.records import Record, epoch_now, identify, to_epoch
from django_multisession.targets import target
from django_multisession.twins import run_sync
from tests.contract import a_record, saved
from tests.faces import SyncFace
from tests.purging import expired, left
from tests.routers import SessionRouter

TABLE = Session._meta.db_table
COLUMNS = ("session_id", "data", "user_id", "created_at", "updated_at", "expires_at", "version")
HUGE, TINY = 2**63 - 1, -(2**63)
DAY = 24 * 60 * 60 * 1000


ENGINES = ["sqlite", "postgres", "mysql"]


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def execute(statement: str, *parameters: Any) -> None:
    with connections[SessionRouter.alias].cursor() as cursor:
        cursor.execute(statement, parameters)


def change(key: str, column: str, value: Any) -> None:
    """Write into the row what the engine never would; `value` may be SQL."""
    if isinstance(value, SQL):
        execute(f"UPDATE {TABLE} SET {column} = {value} WHERE session_id = %s", identify(key))
    else:
        execute(f"UPDATE {TABLE} SET {column} = %s WHERE session_id = %s", value, identify(key))


class SQL(str):
    pass


# On any database; times that are live by the database, but no moments.
ODD = {
    "expiry beyond the calendar": ("expires_at", LAST + 1),
    "largest expiry": ("expires_at", HUGE),
    "creation beyond the calendar": ("created_at", HUGE),
    "creation before everything": ("created_at", TINY),
    "negative update": ("updated_at", -1),
    "largest version": ("version", HUGE),
    "version zero": ("version", 0),
    "negative version": ("version", TINY),
}
# SQLite takes any type in any column.
ODDER = {
    "no moment": ("expires_at", "tomorrow"),
    "blob as expiry": ("expires_at", b"\x00"),
    "real expiry": ("expires_at", 1e300),
    "real creation": ("created_at", 1.5),
    "text as version": ("version", "one"),
    "real version": ("version", 1e300),
    "text as data": ("data", "text"),
    "number as data": ("data", 10**12),
    "blob as user": ("user_id", b"1"),
    "user that is no UTF-8": ("user_id", SQL("CAST(X'31ff' AS TEXT)")),
}


CASES = [(engine, name) for engine in ENGINES for name in ODD] + [("sqlite", name) for name in ODDER]
each_odd_row = pytest.mark.parametrize(("engine_name", "odd"), CASES, indirect=True)


@pytest.fixture
def odd(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return {**ODD, **ODDER}[request.param]


@pytest.fixture
def keys(Store: Any, odd: tuple[str, Any]) -> list[str]:
    """Three sessions of user 1, the first of which is none of ours."""
    keys = [saved(SyncFace(), Store, _auth_user_id="1", a=1) for _ in range(3)]
    change(keys[0], *odd)
    return keys


@each_odd_row
def test_it_is_no_session_and_others_are_served(Store: Any, face: Any, keys: list[str], caplog: Any) -> None:
    caplog.set_level(logging.WARNING, "django.security.SuspiciousSession")
    assert face(Store(keys[0])).get("a") is None
    assert [face(Store(key)).get("a") for key in keys[1:]] == [1, 1]
    assert all("unreadable" in record.getMessage() for record in caplog.records)
    assert len(caplog.records) <= 1  # none where the database has expired it


@each_odd_row
def test_lists_have_the_others(Store: Any, face: Any, keys: list[str]) -> None:
    api = face.functions(user_sessions)
    assert api.count("1") == 2
    assert {record.id for record in face.verbs(Store).scan(None, 10)} == {identify(key) for key in keys[1:]}
    assert api.revoke_all("1").ended == 2
    assert [face(Store()).exists(key) for key in keys] == [False] * 3


@each_odd_row
def test_everyone_is_revoked(Store: Any, face: Any, keys: list[str]) -> None:
    assert face.functions(user_sessions).revoke_everyone() == 2


@each_odd_row
def test_statistics_count_the_others(Store: Any, keys: list[str]) -> None:
    assert run_sync(Store.storage.scan(None, 10)) != []
    assert statistics.collect().sessions == 2


@each_odd_row
def test_a_purge_goes_on(Store: Any, keys: list[str]) -> None:
    gone = expired(5)
    assert target().count() >= 5
    assert sum(target().days().values()) >= 5
    assert sum(target().ages(3, 100)) >= 5
    purge(batch_size=2, older_than="1d", grace=0)
    purge(batch_size=2)
    assert not left() & set(gone)
    assert {identify(key) for key in keys[1:]} <= left()


def test_a_version_that_has_no_next_one_is_no_session(Store: Any, face: Any) -> None:
    session = face(Store(key := saved(face, Store, a=1)))
    assert session["a"] == 1
    change(key, "version", HUGE)
    session["a"] = 2
    with pytest.raises(Exception, match="deleted"):
        session.save()


# Ids


IDS = ["x", "not hex" * 9, "A" * 64, "0" * 63, "ü" * 64]


@pytest.mark.parametrize("id", IDS)
def test_an_id_of_another_form(Store: Any, face: Any, id: str, caplog: Any) -> None:
    key = saved(SyncFace(), Store, _auth_user_id="1")
    execute(f"UPDATE {TABLE} SET session_id = %s WHERE session_id = %s", id[:64], identify(key))
    kept = saved(SyncFace(), Store, _auth_user_id="1")
    verbs = face.verbs(Store)
    assert [record.id for record in verbs.of_user("1")] == [identify(kept)]
    assert [record.id for record in verbs.scan(None, 10)] == [identify(kept)]
    assert sum("session_id" in record.getMessage() for record in caplog.records) == 2


@pytest.mark.parametrize("engine_name", ["sqlite"])
@pytest.mark.parametrize("id", ["X'ff'", "CAST(X'61ff' AS TEXT)", "CAST(X'ff' AS TEXT)", "CAST(X'00' AS TEXT)"])
def test_ids_that_are_no_text_end_no_scan_and_are_purged(Store: Any, face: Any, id: str) -> None:
    keys = {identify(saved(SyncFace(), Store, _auth_user_id="1")) for _ in range(5)}
    for number in range(4):
        key, unlike = saved(SyncFace(), Store, _auth_user_id="1"), id.replace("'", f"'{number:02}", 1)
        execute(f"UPDATE {TABLE} SET session_id = {unlike} WHERE session_id = %s", identify(key))
    assert {record.id for record in pages(face.verbs(Store))} == keys
    execute(f"UPDATE {TABLE} SET expires_at = %s WHERE session_id NOT IN ({', '.join(['%s'] * 5)})", 5, *keys)
    assert purge(batch_size=3).rows == 4
    assert left() == keys


def pages(verbs: Any) -> Iterator[Record]:
    after: str | None = None
    for _ in range(20):
        page = verbs.scan(after, 2)
        yield from page
        if (after := page.next) is None:
            return
    raise AssertionError("The scan goes round.")


# Anything

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.decimals(),
    st.datetimes(),
    st.just([]),
)
row = st.tuples(
    st.one_of(st.text("0123456789abcdef", min_size=64, max_size=64), anything),
    st.one_of(st.binary(), anything),
    st.one_of(st.none(), st.text(), anything),
    *[st.one_of(st.integers(-1, LAST + 1), anything)] * 3,
    st.one_of(st.integers(-1, 3), st.just(HUGE), anything),
)


@given(row)
@settings(suppress_health_check=list(HealthCheck))
def test_a_row_is_a_record_or_nothing(row: tuple[Any, ...]) -> None:
    record = _record(row)
    if record is not None:
        assert (record.id, record.payload, record.user_id, record.version) == (row[0], row[1], row[2], row[6])
        assert [to_epoch(each) for each in (record.created_at, record.updated_at, record.expires_at)] == [*row[3:6]]
        assert record.version + 1 <= HUGE
        assert datetime(1970, 1, 1, tzinfo=UTC) <= record.created_at
        (record.user_id or "").encode()


# What does not fit


USERS = {"surrogate": "zoë-\ud800", "NUL": "zoë-\x00"}


@pytest.mark.parametrize(
    ("engine_name", "user"),
    [*((engine, "surrogate") for engine in ENGINES), ("postgres", "NUL")],
    indirect=["engine_name"],
)
def test_a_user_that_cannot_be_stored(Store: Any, face: Any, user: str) -> None:
    session = face(Store())
    session["_auth_user_id"] = USERS[user]
    with pytest.raises(SessionNotSerializable, match="_auth_user_id"):
        session.save()
    assert Session.objects.using(SessionRouter.alias).count() == 0
    assert face.verbs(Store).of_user(USERS[user]) == []


@pytest.fixture
def narrow(Store: Any) -> Iterator[None]:
    execute(f"ALTER TABLE {TABLE} MODIFY user_id varchar(255) CHARACTER SET utf8mb3 NULL")
    yield
    execute(f"ALTER TABLE {TABLE} MODIFY user_id varchar(255) CHARACTER SET utf8mb4 NULL")


@pytest.mark.parametrize("engine_name", ["mysql"])
def test_a_column_too_narrow_for_the_user_is_an_error_at_the_log_in(Store: Any, face: Any, narrow: None) -> None:
    session = face(Store())
    session["_auth_user_id"] = "zoë-😀"
    with pytest.raises(SessionNotSerializable, match="_auth_user_id"):
        session.save()
    assert Session.objects.using(SessionRouter.alias).count() == 0
    session = face(Store())
    session.save()
    session["_auth_user_id"] = "zoë-😀"
    with pytest.raises(SessionNotSerializable, match="_auth_user_id"):
        session.save()
    assert list(Session.objects.using(SessionRouter.alias).values_list("user_id", flat=True)) == [None]


@pytest.fixture
def one_for_each_user(Store: Any) -> Iterator[None]:
    execute(f"CREATE UNIQUE INDEX one_each ON {TABLE} (user_id)")
    yield
    execute(f"DROP INDEX one_each ON {TABLE}" if SessionRouter.alias == "mysql" else "DROP INDEX one_each")


def test_a_foreign_index_is_an_error_at_once(Store: Any, face: Any, one_for_each_user: None, monkeypatch: Any) -> None:
    saved(face, Store, _auth_user_id="1")
    tried, original = [], SessionStore._get_new_session_key
    monkeypatch.setattr(SessionStore, "_get_new_session_key", lambda self: tried.append(1) or original(self))
    session = face(Store())
    session["_auth_user_id"] = "1"
    with pytest.raises(EngineUnavailable, match=r"(?i)one_each|unique"):
        session.save()
    assert len(tried) == 1


def test_a_taken_key_is_told_from_it(Store: Any, face: Any, one_for_each_user: None) -> None:
    verbs = face.verbs(Store)
    record = a_record(user_id="1")
    assert [verbs.insert(record), verbs.insert(record)] == [True, False]
    with transaction.atomic(using=SessionRouter.alias):
        assert run_sync(Store.storage.insert(record)) is False
        assert run_sync(Store.storage.read(record.id)) == record


def test_an_expired_session_that_is_not_purged_has_its_key(Store: Any, face: Any) -> None:
    record = a_record(expires_at=datetime.now(UTC).replace(microsecond=0) - timedelta(days=1))
    verbs = face.verbs(Store)
    assert [verbs.insert(record), verbs.insert(record)] == [True, False]


# Clocks


@pytest.mark.parametrize("engine_name", ["postgres", "mysql"])
def test_a_fast_host_finds_live_sessions(Store: Any, face: Any, clock: Any) -> None:
    """Three hours, as by a mistake about time zones; the sessions are two hours long."""
    keys = []
    for _ in range(3):
        session = face(Store())
        session["_auth_user_id"] = "1"
        session.set_expiry(7200)
        session.save()
        keys.append(session.session_key)
    clock.shift(3 * 3600)
    assert {record.id for record in face.verbs(Store).of_user("1")} == {identify(key) for key in keys}
    assert face.functions(user_sessions).revoke_all("1").ended == 3


def test_what_has_just_expired_is_not_shown(Store: Any, face: Any) -> None:
    """Though a list that ends sessions may still have it."""
    api = face.functions(user_sessions)
    keys = [saved(face, Store, _auth_user_id="1") for _ in range(2)]
    change(keys[0], "expires_at", epoch_now() - 1000)
    assert len(face.verbs(Store).of_user("1")) == 2
    assert api.count("1") == len(api.sessions_of("1")) == statistics.collect().sessions == 1


def test_a_creation_at_the_end_of_the_calendar(Store: Any, face: Any) -> None:
    key = saved(face, Store, a=1)
    change(key, "created_at", LAST)
    with override_settings(MULTISESSION_ABSOLUTE_AGE=3600, MULTISESSION_IDLE_AGE=3600):
        assert face(Store(key))["a"] == 1


def test_leftovers_are_not_listed_for_ever(Store: Any, face: Any) -> None:
    key = saved(face, Store, _auth_user_id="1")
    change(key, "expires_at", epoch_now() - DAY)
    assert face.verbs(Store).of_user("1") == []
