"""`MULTISESSION_MERGE`: what becomes of one key that two requests have changed."""

import json
import logging
import pickle
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.sessions.serializers import JSONSerializer
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from django_multisession.payload import merging
from django_multisession.testing.stored import saved, stored


class PickleSerializer:
    def dumps(self, data: Any) -> bytes:
        return pickle.dumps(data)

    def loads(self, body: bytes) -> Any:
        return pickle.loads(body)


ABSENT = object()


def merged(rule: Any, base: Any, ours: Any, theirs: Any, serializer: type = JSONSerializer) -> Any:
    """What is in ours after the merge."""
    loaded, mine, other = ({} if each is ABSENT else {"key": each} for each in (base, ours, theirs))
    with override_settings(MULTISESSION_MERGE={"key": rule} if rule else {}):
        merging.adopt(loaded, mine, other, serializer)
    return mine.get("key", ABSENT)


def refused(caplog: Any) -> bool:
    return [record.name for record in caplog.records] == ["django_multisession"]


class TestAppend:
    @pytest.mark.parametrize(
        ("base", "ours", "theirs", "expected"),
        [
            ([1], [1, 2], [1, 3], [1, 3, 2]),
            (ABSENT, [1], [2], [2, 1]),
            (ABSENT, [1], [1], [1, 1]),
            ([1], [1, 1], [1, 1], [1, 1, 1]),
            ([], [{"id": 1}, [2]], [{"id": 1}], [{"id": 1}, {"id": 1}, [2]]),
            ([1, 2], [2, 3], [1, 2, 4], [2, 4, 3]),
            ([1], [], [1, 2], [2]),
            ([1], [1, True], [1, 1.0], [1, 1.0, True]),
            ([1], (1, 2), [1, 3], [1, 3, 2]),
        ],
    )
    def test_theirs_then_what_ours_added(self, base, ours, theirs, expected):
        assert repr(merged("append", base, ours, theirs)) == repr(expected)

    @given(*[st.lists(st.integers(0, 3))] * 3)
    def test_nothing_added_is_lost(self, base, ours, theirs):
        assert merged("append", base, base + ours, base + theirs) == base + theirs + ours

    def test_long_lists_of_what_has_no_hash(self):
        base = [{"item": number, "in": [number]} for number in range(3000)]
        assert merged("append", base, [*base, {"item": "ours"}], [*base, {"item": "theirs"}])[3000:] == [
            {"item": "theirs"},
            {"item": "ours"},
        ]


class TestUnion:
    @pytest.mark.parametrize(
        ("base", "ours", "theirs", "expected"),
        [
            (["a"], ["a", "b"], ["c", "a"], ["c", "a", "b"]),
            (["a", "b"], ["a", "c"], ["b", "d"], ["d", "c"]),
            (ABSENT, ["a"], ["a", "b"], ["a", "b"]),
            ([], [[1]], [{"a": 1}], [{"a": 1}, [1]]),
            ([], [1], [True], [True, 1]),
        ],
    )
    def test_lists(self, base, ours, theirs, expected):
        assert repr(merged("union", base, ours, theirs)) == repr(expected)

    @given(*[st.sets(st.integers(0, 5))] * 3)
    def test_sets_are_merged_member_by_member(self, base, ours, theirs):
        expected = {n for n in range(6) if (n in ours if (n in ours) != (n in base) else n in theirs)}
        assert merged("union", base, ours, theirs, PickleSerializer) == expected


class TestSum:
    @pytest.mark.parametrize(
        ("base", "ours", "theirs", "expected"),
        [
            (5, 6, 6, 7),
            (ABSENT, 1, 1, 2),
            (5, 2, 4, 1),
            (0, -1, 1, 0),
            (1, 1.5, 2, 2.5),
            (Decimal("1.10"), Decimal("2.10"), Decimal("1.20"), Decimal("2.20")),
        ],
    )
    def test_theirs_plus_what_ours_added(self, base, ours, theirs, expected):
        total = merged("sum", base, ours, theirs, PickleSerializer)
        assert total == expected
        assert type(total) is type(expected)


class TestDeep:
    def test_key_by_key(self):
        base = {"same": 0, "steps": {"name": "", "size": 1, "gone": 1, "both": 0}, "list": [1]}
        ours = {"same": 0, "steps": {"name": "Ann", "size": 1, "both": 1, "new": {"a": 1}}, "list": [1]}
        theirs = {"same": 0, "steps": {"name": "", "size": 2, "gone": 1, "both": 2, "new": {"b": 1}}, "list": [1, 2]}
        assert merged("deep", base, ours, theirs) == {
            "same": 0,
            "steps": {"name": "Ann", "size": 2, "both": 1, "new": {"a": 1, "b": 1}},
            "list": [1, 2],
        }

    def test_what_they_took_out_is_out(self):
        assert merged("deep", {"a": {"x": 1}, "b": 1}, {"a": {"x": 1}, "b": 2}, {"b": 1, "c": 1}) == {"b": 2, "c": 1}

    def test_a_dict_against_something_else_is_ours(self):
        assert merged("deep", {"a": 1}, {"a": {"x": 1}}, {"a": 2, "b": 1}) == {"a": {"x": 1}, "b": 1}


def one_and_all(base: Any, ours: Any, theirs: Any) -> Any:
    return [base, ours, theirs]


def spoils(base: Any, ours: Any, theirs: Any) -> Any:
    for each in (base, ours, theirs):
        each.append("spoilt")
    raise ZeroDivisionError


class TestOwnRules:
    def test_a_dotted_path(self):
        assert merged(f"{__name__}.one_and_all", 1, 2, 3) == [1, 2, 3]
        assert merged(f"{__name__}.one_and_all", ABSENT, 2, 3) == [None, 2, 3]
        assert merged(one_and_all, 1, ABSENT, 3) == [1, None, 3]
        assert merged(one_and_all, 1, 2, ABSENT) == [1, 2, None]

    def test_none_takes_the_key_out(self):
        assert merged(lambda base, ours, theirs: None, 1, 2, 3) is ABSENT

    @pytest.mark.parametrize("rule", [spoils, "no.such.rule", lambda *sides: {1, 2}, lambda: 1])
    def test_one_that_fails_changes_nothing(self, rule, caplog):
        assert merged(rule, [1], [2], [3]) == [2]
        assert refused(caplog)


@pytest.mark.parametrize(
    ("rule", "base", "ours", "theirs"),
    [
        ("append", "a", "ab", "ac"),
        ("append", {"a": 1}, {"a": 2}, {"a": 3}),
        ("append", [1], [2], 3),
        ("union", "a", "ab", "ac"),
        ("union", ["a"], None, {"a": 1}),
        ("sum", "1", "2", "3"),
        ("sum", ABSENT, [1], [2]),
        ("sum", False, True, 2),
        ("sum", 1.5, float("-inf"), float("inf")),
        ("deep", {"a": 1}, {"a": 2}, [3]),
        (None, None, "not JSON", "[]"),
    ],
)
def test_what_a_rule_is_not_for_is_left_to_ours(rule, base, ours, theirs, caplog):
    key = "key" if rule else "_messages"
    loaded, mine, other = ({} if each is ABSENT else {key: each} for each in (base, ours, theirs))
    with override_settings(MULTISESSION_MERGE={"key": rule} if rule else {}):
        merging.adopt(loaded, mine, other, JSONSerializer)
    assert repr(mine[key]) == repr(ours)
    assert refused(caplog) or ours is None


@pytest.mark.parametrize("rule", ["append", "union", "sum", "deep"])
def test_a_deleted_side_is_left_to_ours(rule, caplog):
    assert merged(rule, [1], ABSENT, [1, 2]) is ABSENT
    assert merged(rule, [1], [1, 2], ABSENT) == [1, 2]
    assert caplog.records == []


@pytest.mark.parametrize("on_conflict", ["merge", "overwrite"])
def test_a_rule_is_only_asked_where_both_have_changed_the_key_and_only_in_a_merge(Store, face, on_conflict):
    asked = []
    rule = lambda *sides: asked.append(sides) or "merged"  # noqa: E731
    key = saved(face, Store, a=1, b=1, c=1)
    ours, theirs = face(Store(key)), face(Store(key))
    ours["a"], ours["b"] = 2, 2
    theirs["a"], theirs["c"] = 3, 3
    theirs.save()
    with override_settings(MULTISESSION_MERGE=dict.fromkeys("abc", rule), MULTISESSION_ON_CONFLICT=on_conflict):
        ours.save()
    if on_conflict == "merge":
        assert asked == [(1, 2, 3)]
        assert stored(face, Store, key) == {"a": "merged", "b": 2, "c": 3}
    else:
        assert asked == []
        assert stored(face, Store, key) == {"a": 2, "b": 2, "c": 1}


def test_without_a_rule_ours_wins():
    assert merged(None, 1, 2, 3) == 2


def test_a_setting_that_is_no_dict_is_none(caplog):
    ours = {"a": 2}
    with override_settings(MULTISESSION_MERGE=["append"]):
        merging.adopt({"a": 1}, ours, {"a": 3}, JSONSerializer)
    assert ours == {"a": 2}


# Django's messages


def messages(*texts: str) -> Any:
    return json.dumps([["__json_message", 0, 20, text] for text in texts]) if texts else ABSENT


def shown(text: Any) -> Any:
    return [message[3] for message in json.loads(text)] if text is not ABSENT else []


def merged_messages(base: Any, ours: Any, theirs: Any) -> list[str]:
    sides = [{} if each is ABSENT else {"_messages": each} for each in (base, ours, theirs)]
    merging.adopt(*sides, JSONSerializer)
    return shown(sides[1].get("_messages", ABSENT))


TEXTS = st.lists(st.sampled_from("abc"), max_size=3)


@given(base=TEXTS, added=st.tuples(TEXTS, TEXTS), has_shown=st.tuples(st.booleans(), st.booleans()))
def test_no_message_is_lost_and_none_that_was_shown_comes_back(base, added, has_shown):
    """The texts of each request are its own, so that it is known which message is which."""
    base, mine, other = [f"0{text}" for text in base], [f"1{text}" for text in added[0]], [f"2{t}" for t in added[1]]
    ours, theirs = (([] if gone else base) + new for gone, new in zip(has_shown, (mine, other), strict=True))
    found = merged_messages(messages(*base), messages(*ours), messages(*theirs))
    assert Counter(found) == Counter(([] if any(has_shown) else base) + mine + other)


def test_the_same_text_twice_is_two_messages():
    assert merged_messages(ABSENT, messages("Saved."), messages("Saved.")) == ["Saved.", "Saved."]


def test_a_site_may_name_another_rule():
    with override_settings(MULTISESSION_MERGE={"_messages": one_and_all}):
        ours = {"_messages": "b"}
        merging.adopt({"_messages": "a"}, ours, {"_messages": "c"}, JSONSerializer)
    assert ours["_messages"] == ["a", "b", "c"]


def test_a_failing_rule_is_logged_with_its_traceback_and_without_the_data(caplog):
    with caplog.at_level(logging.WARNING):
        merged(spoils, ["secret"], ["mine"], ["other"])
    [record] = caplog.records
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError
    assert "secret" not in record.getMessage()
