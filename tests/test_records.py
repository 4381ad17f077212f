"""Records: ids that give no key away, and times that every server keeps alike."""

import dataclasses
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_multisession.records import (
    EPOCH,
    EXACT,
    Page,
    Record,
    from_epoch,
    identify,
    in_milliseconds,
    to_epoch,
    utcnow,
)

NOON = datetime(2026, 7, 1, 12, 0, 0, 123_000, tzinfo=UTC)
NEW_YORK = timezone(timedelta(hours=-4))
offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def record(**changes: object) -> Record:
    fields = {"id": "a", "payload": b"", "user_id": None, "created_at": NOON, "updated_at": NOON, "expires_at": NOON}
    return Record(**{**fields, "version": 1, **changes})  # type: ignore[arg-type]


@contextmanager
def local_time(zone: str) -> Iterator[None]:
    before = os.environ.get("TZ")
    try:
        os.environ["TZ"] = zone
        time.tzset()
        yield
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
        time.tzset()


# Ids


@pytest.mark.parametrize("key", ["8ab3x2k1", "", "k" * 10_240, "nul\0", "new\nline", "snow ☃", "$ne", "\U0001f36a"])
def test_an_id_is_the_sha256_of_the_key(key: str) -> None:
    assert identify(key) == sha256(key.encode()).hexdigest()


def test_known_id() -> None:
    assert identify("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(one=st.text(st.characters(exclude_categories=())), other=st.text(st.characters(exclude_categories=())))
@example(one="\ud800", other="\udfff")
@example(one="\ud83c\udf6a", other="\U0001f36a")
@example(one="\u00e9", other="e\u0301")
@example(one="?", other="\ud800")
def test_every_key_has_an_id_and_no_two_share_one(one: str, other: str) -> None:
    assert len(identify(one)) == 64
    assert (identify(one) == identify(other)) is (one == other)


def test_an_id_presented_as_a_key_is_another_id() -> None:
    assert identify(identify("8ab3x2k1")) != identify("8ab3x2k1")


# Times


def test_now_is_aware_in_utc_and_whole_milliseconds() -> None:
    before = datetime.now(UTC)
    now = utcnow()
    assert now.tzinfo is UTC
    assert now.microsecond % 1000 == 0
    assert before - timedelta(milliseconds=1) < now <= datetime.now(UTC)


def test_a_moment_is_cut_not_rounded() -> None:
    assert in_milliseconds(NOON.replace(microsecond=999_999)) == NOON.replace(microsecond=999_000)
    assert in_milliseconds(NOON) == NOON


def test_an_aware_moment_is_moved_to_utc() -> None:
    moment = in_milliseconds(NOON.astimezone(NEW_YORK))
    assert moment == NOON
    assert moment.tzinfo is UTC


@pytest.mark.parametrize(
    ("zone", "hours"), [("UTC", 0), ("Asia/Tokyo", -9), ("America/New_York", 4)], ids=["UTC", "east", "west"]
)
def test_a_naive_moment_is_local_time(zone: str, hours: int) -> None:
    with local_time(zone):
        assert in_milliseconds(NOON.replace(tzinfo=None)) == NOON + timedelta(hours=hours)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize("tzinfo", [None, UTC, NEW_YORK, timezone(timedelta(hours=14))])
@pytest.mark.parametrize("moment", [datetime.max, datetime.min], ids=["max", "min"])
def test_the_ends_of_the_calendar_are_moments_too(moment: datetime, tzinfo: timezone | None, zone: str) -> None:
    with local_time(zone):
        kept = in_milliseconds(moment.replace(tzinfo=tzinfo))
    assert kept.tzinfo is UTC
    assert abs(kept - moment.replace(tzinfo=UTC)) < timedelta(days=1)
    assert from_epoch(to_epoch(kept)) == kept


@given(st.datetimes(timezones=offsets | st.just(UTC)))
@example(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))
@example(datetime(1, 1, 1, tzinfo=UTC))
@example(datetime.max.replace(tzinfo=UTC))
def test_epoch_round_trip(moment: datetime) -> None:
    kept = in_milliseconds(moment)
    assert from_epoch(to_epoch(kept)) == kept
    assert from_epoch(to_epoch(kept)).tzinfo is UTC
    assert kept.microsecond % 1000 == 0


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2100, 1, 1), timezones=offsets))
def test_a_moment_loses_less_than_a_millisecond(moment: datetime) -> None:
    assert timedelta() <= moment - in_milliseconds(moment) < timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("milliseconds", "moment"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1, datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)),
        (-1, datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)),
        (1_782_907_200_123, NOON),
        (-62_135_596_800_000, datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_epoch_of(milliseconds: int, moment: datetime) -> None:
    assert to_epoch(moment) == milliseconds
    assert from_epoch(milliseconds) == moment


@given(st.integers(0, EXACT + 10**6))
@example(EXACT - 1)
def test_the_fast_way_is_exact_as_long_as_it_is_taken(milliseconds: int) -> None:
    assert from_epoch(milliseconds) == EPOCH + timedelta(milliseconds=milliseconds)


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_epochs_sort_as_their_moments_do(one: datetime, other: datetime) -> None:
    one, other = in_milliseconds(one), in_milliseconds(other)
    assert (to_epoch(one) < to_epoch(other)) is (one < other)


# Records and pages


def test_a_record_is_live_until_the_millisecond_that_it_expires() -> None:
    assert record().is_live(NOON - timedelta(milliseconds=1))
    assert not record().is_live(NOON)
    assert not record().is_live(NOON + timedelta(milliseconds=1))


def test_a_record_cannot_be_changed_only_replaced() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        record().version = 2  # type: ignore[misc]
    assert dataclasses.replace(record(), version=2) == record(version=2) != record()


def test_a_page_is_a_list_that_knows_where_the_next_one_starts() -> None:
    page = Page([record()], next="a")
    assert page == [record()]
    assert page.next == "a"


def test_the_last_page_has_no_next() -> None:
    assert Page([record()]).next is None
    assert (list(Page()), Page().next) == ([], None)
