"""Counting the stored sessions, on every engine."""

import dataclasses
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_multisession import statistics
from django_multisession.payload import codecs
from django_multisession.records import Page, Record, identify, utcnow
from django_multisession.statistics import AGES, DAY, HOUR, IDLE, SIZES, Bin, as_json, collect
from django_multisession.twins import run_sync

from .conftest import ENGINES
from .purging import statements

SECRET = "a-secret-value"


@pytest.fixture(params=[*ENGINES, "cached_sqlite"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def on(*engines: str) -> Any:
    return pytest.mark.parametrize("engine_name", engines, indirect=True)


def save(Store: Any, user: str | None = None, **data: Any) -> Any:
    session = Store()
    session.update({**data, **({"_auth_user_id": user} if user else {})})
    session.save()
    return session


def insert(Store: Any, **values: Any) -> Record:
    now, id = utcnow(), identify(f"{len(run_sync(Store.storage.scan(None, 1000))):032}")
    default = {"payload": payload(id), "user_id": None, "created_at": now, "updated_at": now, "version": 1}
    record = Record(**{"id": id, "expires_at": now + timedelta(days=1), **default, **values})
    assert run_sync(Store.storage.insert(record))
    return record


def payload(id: str, size: int = 20) -> bytes:
    """One that this site has made, though nobody can read it."""
    with override_settings(MULTISESSION_COMPRESS_OVER=None, MULTISESSION_MAX_BYTES=2 * size):
        return codecs.close(codecs.Serialized(codecs.JSON, b"x" * (size - 1 - codecs.MAC_SIZE)), id)


def filled(bins: list[Bin]) -> dict[int | None, int]:
    return {each.up_to: each.sessions for each in bins if each.sessions}


def test_an_empty_store(Store):
    found = collect()
    assert (found.sessions, found.users, found.bytes, found.largest, found.complete) == (0, 0, 0, 0, True)
    assert [each.up_to for each in found.sizes] == [*SIZES, None]
    assert filled(found.sizes) == filled(found.ages) == filled(found.idle) == {}


def test_sessions_and_users(Store):
    for user in ("1", "1", "2", None):
        save(Store, user, cart=[1])
    found = collect()
    assert (found.sessions, found.users, found.anonymous, found.unreadable) == (4, 2, 1, 0)
    assert found.complete
    assert found.names == {"cart": 4, "_auth_user_id": 3}
    assert sum(found.log_ins.values()) == 3  # anonymous ones have not logged in
    assert sum(found.expiries.values()) == 4


@pytest.mark.parametrize("size", [17, 256, 257, 1024, 5000])
def test_sizes(Store, size):
    insert(Store, id="a" * 64, payload=payload("a" * 64, size))
    found = collect()
    assert (found.bytes, found.largest) == (size, size)
    assert filled(found.sizes) == {next(bound for bound in SIZES if size <= bound): 1}


def test_what_is_larger_than_all_bounds(Store):
    insert(Store, id="a" * 64, payload=payload("a" * 64, SIZES[-1] + 1))
    assert filled(collect().sizes) == {None: 1}


def test_ages_and_last_activity(Store):
    now = utcnow()
    insert(Store, created_at=now - timedelta(days=400), updated_at=now - timedelta(seconds=30))
    insert(Store, created_at=now - timedelta(hours=2), updated_at=now - timedelta(hours=2))
    found = collect()
    assert filled(found.ages) == {None: 1, DAY: 1}
    assert filled(found.idle) == {IDLE[0]: 1, 6 * HOUR: 1}
    assert AGES[0] == HOUR


@pytest.mark.parametrize("use_tz", [True, False])
def test_days_are_the_sites(Store, settings, use_tz):
    settings.USE_TZ, settings.TIME_ZONE = use_tz, "Asia/Tokyo"
    expiry = datetime(2100, 1, 1, 16, tzinfo=UTC)  # the 2nd in Tokyo
    insert(Store, user_id="1", created_at=datetime(2020, 1, 1, 16, tzinfo=UTC), expires_at=expiry)
    found = collect()
    assert found.log_ins == {date(2020, 1, 2): 1}
    assert found.expiries == {date(2100, 1, 2): 1}


@on("sqlite", "memory")
def test_never_expires(Store, settings):
    settings.TIME_ZONE = "Asia/Tokyo"
    insert(Store, expires_at=datetime.max.replace(microsecond=999000, tzinfo=UTC))
    assert collect().expiries == {date.max: 1}


def test_expired_sessions_do_not_count(Store):
    save(Store, "1").set_expiry(60)
    insert(Store, user_id="1", expires_at=utcnow() - timedelta(minutes=1))
    assert collect().sessions == 1


def test_nor_do_those_past_a_limit(Store, settings, clock):
    save(Store, "1")
    clock.shift(3600)
    save(Store, "1")
    settings.MULTISESSION_IDLE_AGE = 600
    assert collect().sessions == 1


def test_more_pages_than_one(Store, monkeypatch):
    monkeypatch.setattr(statistics, "PAGE", 10)
    for number in range(35):
        save(Store, str(number))
    seen = []
    found = collect(progress=lambda sessions, seconds: seen.append(sessions))
    assert (found.sessions, found.users, found.complete) == (35, 35, True)
    assert seen[-1] == 35
    assert seen == sorted(seen)


@pytest.mark.parametrize("most", [1, 10, 15, 34, 35, 36])
def test_at_most_so_many(Store, monkeypatch, most):
    monkeypatch.setattr(statistics, "PAGE", 10)
    for number in range(35):
        save(Store, str(number))
    found = collect(max_sessions=most)
    assert found.sessions == min(most, 35)
    assert found.complete or most <= 35
    assert not (found.complete and most < 35)


def test_at_most_so_long(Store, monkeypatch):
    monkeypatch.setattr(statistics, "PAGE", 1)
    for number in range(100):
        save(Store, str(number))
    found = collect(max_seconds=1e-9)
    assert 0 < found.sessions < 100
    assert not found.complete


@on("sqlite", "postgres", "mysql")
def test_one_statement_per_page(Store, monkeypatch):
    monkeypatch.setattr(statistics, "PAGE", 10)
    for number in range(25):
        save(Store, str(number))
    with statements() as sent:
        collect()
    assert len(sent) == 3


def test_what_cannot_be_read_is_counted(Store):
    insert(Store)
    insert(Store, user_id="1")
    save(Store, "1", cart=[1])
    found = collect()
    assert (found.sessions, found.unreadable, found.foreign) == (3, 2, 0)
    assert found.names["cart"] == 1


def test_what_no_key_of_this_site_has_made_is_none_of_its_sessions(Store):
    insert(Store, payload=b"")
    insert(Store, payload=b"\x82" + b"x" * 50, user_id="1")
    with override_settings(SECRET_KEY="another site's"):
        insert(Store, user_id="2")
        save(Store, "2")
    save(Store, "3")
    found = collect()
    assert (found.sessions, found.users, found.unreadable, found.foreign) == (1, 1, 0, 4)


@on("memory")
def test_a_missing_library_is_no_error(Store, settings, monkeypatch):
    settings.MULTISESSION_ENCRYPTION_KEYS = ["a" * 64]
    save(Store, "1")
    monkeypatch.setattr("django_multisession.payload.codecs.AESGCM", None)
    assert collect().unreadable == 1


def test_names_without_end(Store, monkeypatch):
    monkeypatch.setattr(statistics, "MOST_NAMES", 5)
    for number in range(10):
        save(Store, **{f"product-{number}-{'x' * 200}": 1})
    names = collect().names
    assert len(names) == 5
    assert {len(name) for name in names} == {statistics.NAME_LENGTH}


def test_no_value_and_no_key_is_in_the_result(Store):
    session = save(Store, "1", cart={"inner": SECRET})
    for text in (repr(collect()), json.dumps(as_json(collect()))):
        assert "cart" in text
        for secret in (SECRET, "inner", session.session_key, identify(session.session_key)):
            assert secret not in text


def test_as_json(Store):
    save(Store, "1")
    found = collect()
    result = json.loads(json.dumps(as_json(found)))
    assert list(result) == [each.name for each in dataclasses.fields(found) if each.name != "active"]
    assert [user_id for user_id, _ in found.active] == ["1"]
    assert result["sizes"][0] == {"up_to": 256, "sessions": 1}
    assert result["log_ins"] == {str(day): 1 for day in found.log_ins}


@on("memory")
@pytest.mark.parametrize("engine", ["db", "file", "signed_cookies"])
def test_an_engine_of_others(Store, settings, engine):
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.sessions"]
    with pytest.raises(ImproperlyConfigured, match="cannot list"):
        collect()


@on("memory")
def test_a_record_that_comes_twice_is_no_error(Store, monkeypatch):
    record = insert(Store)
    pages = {None: Page([record], next="1"), "1": Page([record])}

    async def scan(after: str | None, limit: int) -> Page:
        return pages[after]

    monkeypatch.setattr(Store.storage, "scan", scan)
    assert collect().complete
