"""Checks of `MULTISESSION_MERGE`."""

from typing import Any

import pytest

from .test_checks import found, hints, texts


def higher(base: Any, ours: Any, theirs: Any) -> Any:
    return max(ours, theirs)


@pytest.mark.parametrize(
    "rule", ["append", "union", "sum", "deep", f"{__name__}.higher", higher], ids=lambda rule: str(rule)[:20]
)
def test_rules(rule: Any) -> None:
    assert found(MULTISESSION_MERGE={"cart": rule}) == ""


@pytest.mark.parametrize(
    "wrong",
    [
        ["cart"],
        "append",
        {"cart": "apend"},
        {"cart": "no.such.rule"},
        {"cart": None},
        {1: "append"},
        {"_messages": "append"},  # a text, for which no built-in rule is
    ],
    ids=str,
)
def test_what_is_no_rule(wrong: Any) -> None:
    assert found(MULTISESSION_MERGE=wrong) == "E020"


def test_the_rules_that_there_are_are_named() -> None:
    assert "append, union, sum, deep" in hints(MULTISESSION_MERGE={"cart": "apend"})


def test_why_a_rule_cannot_be_imported_is_told() -> None:
    assert "No module named 'nosuch'" in texts(MULTISESSION_MERGE={"cart": "nosuch.rule"})


@pytest.mark.parametrize("key", ["_auth_user_id", "_auth_user_backend", "_auth_user_hash"])
def test_a_log_in_has_no_rule(key: str) -> None:
    assert found(MULTISESSION_MERGE={key: "append"}) == "E021"
