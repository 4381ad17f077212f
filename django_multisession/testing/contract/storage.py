"""Promise 2: what each method of a storage does to the records of a server."""

import dataclasses

import pytest

from ...records import Record, utcnow
from ..stored import HOUR, a_record, untouched


class TestStorage:
    """The eight verbs."""

    def test_a_record_comes_back_as_it_was(self, verbs):
        record = a_record(user_id="42", payload=bytes(range(256)), version=7)
        assert verbs.insert(record) is True
        assert verbs.read(record.id) == record

    def test_anonymous_and_empty(self, verbs):
        record = a_record(payload=b"")
        verbs.insert(record)
        assert verbs.read(record.id) == record

    @pytest.mark.parametrize("user_id", ["1", "é", "a b:c*?[]", "x" * 255, "None"])
    def test_user_ids(self, verbs, user_id):
        verbs.insert(record := a_record(user_id=user_id))
        assert verbs.of_user(user_id) == [record]

    def test_read_of_nothing(self, verbs):
        assert verbs.read("b" * 64) is None

    def test_insert_refuses_a_taken_id(self, verbs):
        verbs.insert(first := a_record())
        assert verbs.insert(a_record(payload=b"second", user_id="9")) is False
        assert verbs.read(first.id) == first
        assert verbs.of_user("9") == []

    def test_replace_stores_the_next_version(self, verbs):
        verbs.insert(first := a_record())
        second = dataclasses.replace(first, payload=b"2", user_id="9", version=2, created_at=first.created_at - HOUR)
        assert verbs.replace(second) == second
        assert verbs.read(first.id) == second

    def test_replace_tells_its_own_record_from_an_equal_one(self, verbs):
        """Of two that count to the same number in the same millisecond, one has to do it again."""
        first = a_record()
        verbs.insert(first)
        ours, theirs = (dataclasses.replace(first, payload=b"2", version=2) for _ in range(2))
        assert verbs.replace(theirs) is theirs
        held = verbs.replace(ours)
        assert held == ours
        assert held is not ours

    def test_replace_answers_a_conflict_with_what_is_stored(self, verbs):
        verbs.insert(first := a_record())
        for version in (1, 3, 9):
            assert verbs.replace(dataclasses.replace(first, payload=b"no", version=version)) == first
        assert verbs.read(first.id) == first

    def test_replace_of_nothing_creates_nothing(self, verbs):
        assert verbs.replace(a_record(version=2, user_id="9")) is None
        assert verbs.read(a_record().id) is None
        assert verbs.of_user("9") == []

    def test_replace_does_not_revive_the_expired(self, verbs, clock):
        verbs.insert(first := a_record())
        clock.shift(7200)
        late = dataclasses.replace(first, version=2, expires_at=first.expires_at + 10 * HOUR)
        assert verbs.replace(late) is None
        assert verbs.read(first.id) is None

    def test_touch_moves_the_expiry_and_no_data(self, verbs):
        verbs.insert(first := a_record(user_id="9"))
        for later in (first.expires_at + 5 * HOUR, first.expires_at - HOUR / 2):
            assert verbs.touch(first.id, later) is True
            assert verbs.read(first.id).expires_at == later
            assert untouched(verbs.read(first.id), first) == first

    def test_touch_tells_when_the_session_was_last_in_use(self, verbs, clock):
        verbs.insert(first := a_record(user_id="9"))
        clock.shift(600)
        before = utcnow()
        verbs.touch(first.id, first.expires_at)
        assert before <= verbs.read(first.id).updated_at <= utcnow()

    def test_touch_of_nothing_or_of_the_expired(self, verbs, clock):
        assert verbs.touch("b" * 64, utcnow() + HOUR) is False
        verbs.insert(first := a_record(user_id="9"))
        clock.shift(7200)
        assert verbs.touch(first.id, utcnow() + HOUR) is False
        assert verbs.read(first.id) is None

    def test_touch_into_the_past_ends_the_session(self, verbs):
        verbs.insert(first := a_record(user_id="9"))
        verbs.touch(first.id, utcnow() - HOUR)
        assert verbs.read(first.id) is None

    def test_remove_counts_what_was_there(self, verbs):
        ids = [letter * 64 for letter in "abc"]
        for id in ids:
            verbs.insert(a_record(id))
        assert verbs.remove([*ids[:2], "d" * 64]) == 2
        assert verbs.remove(ids[:2]) == 0
        assert verbs.remove([]) == 0
        assert verbs.read(ids[2])

    def test_remove_of_many(self, verbs):
        ids = [f"{number:064}" for number in range(1500)]
        verbs.insert(a_record(ids[7]))
        assert verbs.remove(ids) == 1

    def test_of_user_has_the_live_ones_alone(self, verbs, clock):
        mine = [a_record("a" * 64, user_id="9"), a_record("b" * 64, user_id="9", expires_at=utcnow() + 9 * HOUR)]
        for record in [*mine, a_record("c" * 64, user_id="99"), a_record("d" * 64)]:
            verbs.insert(record)
        assert sorted(verbs.of_user("9"), key=lambda record: record.id) == mine
        clock.shift(7200)
        # Those that have just ended may be there too: a list that ends sessions goes by no caller's clock.
        assert [record for record in verbs.of_user("9") if record.is_live(utcnow())] == mine[1:]
        verbs.remove([record.id for record in mine])
        assert verbs.of_user("9") == []

    def test_of_user_tells_case_apart(self, verbs):
        verbs.insert(a_record(user_id="Ann"))
        assert verbs.of_user("ann") == []

    def test_of_user_follows_replace_and_touch(self, verbs, clock):
        verbs.insert(record := a_record())
        record = dataclasses.replace(record, user_id="9", version=2)
        verbs.replace(record)
        assert verbs.of_user("9") == [record]
        verbs.touch(record.id, later := record.expires_at + 9 * HOUR)
        clock.shift(5 * 3600)
        [touched] = verbs.of_user("9")
        assert untouched(touched, record, expires_at=later) == dataclasses.replace(record, expires_at=later)
        verbs.replace(dataclasses.replace(record, user_id="10", version=3, expires_at=later))
        assert verbs.of_user("9") == []
        assert len(verbs.of_user("10")) == 1

    def test_scan_pages_through_all_that_the_store_holds(self, verbs, clock):
        live = {f"{number:064x}" for number in range(25)}
        for id in live:
            verbs.insert(a_record(id, user_id="9"))
        clock.shift(5400)  # by this clock all of them are over
        seen, after, pages = [], None, 0
        while pages < 100:
            page = verbs.scan(after, 10)
            seen += [record.id for record in page]
            after, pages = page.next, pages + 1
            if after is None:
                break
        assert set(seen) == live
        assert all(isinstance(record, Record) for record in page)

    def test_scan_of_an_empty_store(self, verbs):
        page = verbs.scan(None, 10)
        assert page == []
        assert page.next is None

    def test_purge_leaves_the_live(self, verbs):
        verbs.insert(a_record("a" * 64, user_id="9", expires_at=utcnow() - HOUR))
        verbs.insert(longer := a_record("b" * 64, user_id="9", expires_at=utcnow() + 9 * HOUR))
        verbs.purge(utcnow(), 100)
        assert verbs.purge(utcnow(), 100) == 0
        assert verbs.of_user("9") == [longer]
