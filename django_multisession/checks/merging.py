"""Checks of `MULTISESSION_MERGE`."""

from typing import Any

from ..conf import conf
from ..payload import rules
from ..payload.merging import AUTH_KEYS
from . import EVERY_ENGINE, Problems, check, import_problem, is_callable

RULES = ", ".join(rules.BUILT_IN)


@check("E020", *EVERY_ENGINE)
def unknown_rule() -> Problems:
    if not isinstance(chosen := conf.MERGE if conf.MERGE is not None else {}, dict):
        yield f"MULTISESSION_MERGE is {chosen!r}.", "Set it to a dict of session keys and rules, or leave it out."
        return
    for key, rule in chosen.items():
        if not isinstance(key, str):
            yield f"MULTISESSION_MERGE has the key {key!r}.", "Session keys are texts."
        if key == rules.MESSAGES and isinstance(rule, str) and rule in rules.BUILT_IN:
            message = f"MULTISESSION_MERGE has the rule {rule!r} for {key}, the messages of Django, which are a text."
            yield message, "Leave it out: messages are merged by default."
        elif not _is_rule(rule):
            hint = f"There are: {RULES}; or the dotted path of a function(base, ours, theirs)."
            why = import_problem(rule)
            yield f"MULTISESSION_MERGE has for the key {key!r} no rule that is known, but {rule!r}{why}.", hint


@check("E021", *EVERY_ENGINE)
def rule_for_a_log_in() -> Problems:
    for key in AUTH_KEYS:
        if isinstance(conf.MERGE, dict) and key in conf.MERGE:
            message = f"MULTISESSION_MERGE has a rule for {key}, a key of django.contrib.auth."
            yield message, "Leave it out: a log-in is one unit, of which no part is mixed with another's."


def _is_rule(rule: Any) -> bool:
    return callable(rule) or (isinstance(rule, str) and (rule in rules.BUILT_IN or is_callable(rule)))
