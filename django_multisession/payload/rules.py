"""The rules of `MULTISESSION_MERGE`: what becomes of one key that both sides have changed.

Each is given what both began with (`None`: the key was not there), ours and theirs, all as loaded, and their own to
change; `freeze` makes values of any kind comparable (see `equality.py`). Values that it is not for are a `TypeError`.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from numbers import Number
from typing import Any

from ..conf import function
from .equality import Freeze

Rule = Callable[[Any, Any, Any, Freeze], Any]


def append(base: Any, ours: Any, theirs: Any, freeze: Freeze) -> Any:
    """Theirs, then what ours added after base; what ours has taken out is taken out of theirs."""
    before = _check(list | tuple, base if base is not None else [], ours, theirs)[0]
    return type(theirs)(_appended(before, ours, theirs, freeze))


def union(base: Any, ours: Any, theirs: Any, freeze: Freeze) -> Any:
    """Each member once, in theirs' order, then ours' additions; without what either has taken out."""
    before = _check(list | tuple | set | frozenset, base if base is not None else [], ours, theirs)[0]
    began, mine, others = ({freeze(each): each for each in members} for members in (before, ours, theirs))
    kept = [each for key, each in others.items() if key in mine or key not in began]
    return type(theirs)(kept + [each for key, each in mine.items() if key not in began and key not in others])


def add(base: Any, ours: Any, theirs: Any, freeze: Freeze) -> Any:
    """Theirs plus what ours added."""
    before = _check(Number, base if base is not None else 0, ours, theirs, but=bool)[0]
    total = theirs + (ours - before)
    if total != total:
        raise TypeError("not a number")
    return total


def deep(base: Any, ours: Any, theirs: Any, freeze: Freeze) -> Any:
    """Key by key: what one side alone has changed is that side's, what both have is ours, or a dict to go on in."""
    _check(dict, ours, theirs)
    before, merged = base if isinstance(base, dict) else {}, dict(ours)
    for key in {**before, **theirs}:
        began, mine, other = (_at(each, key) for each in (before, ours, theirs))
        if freeze(began) == freeze(other):
            continue
        if freeze(began) == freeze(mine):
            merged.pop(key, None)
            if other:
                merged[key] = other[0]
        elif all(isinstance(each, dict) for each in (*mine, *other)) and mine and other:
            merged[key] = deep(began[0] if began else None, mine[0], other[0], freeze)
    return merged


def messages(base: Any, ours: Any, theirs: Any, freeze: Freeze) -> str | None:
    """Of django.contrib.messages, a JSON text: theirs without what ours has shown, then what ours added."""
    merged = _appended(_parsed(base), _parsed(ours), _parsed(theirs), freeze)
    return json.dumps(merged) if merged else None


BUILT_IN: dict[str, Rule] = {"append": append, "union": union, "sum": add, "deep": deep}
MESSAGES = "_messages"  # django.contrib.messages.storage.session.SessionStorage.session_key


def find(rule: Any) -> Rule:
    """What a name, or the site's function or its dotted path, stands for."""
    if rule is messages or rule in BUILT_IN:
        return BUILT_IN.get(rule, messages)
    of_the_site = function(rule)
    return lambda base, ours, theirs, freeze: of_the_site(base, ours, theirs)


def _appended(base: Iterable[Any], ours: Iterable[Any], theirs: Iterable[Any], freeze: Freeze) -> list[Any]:
    taken_out, added = _without(base, ours, freeze), _without(ours, base, freeze)
    return _without(theirs, taken_out, freeze) + added


def _without(items: Iterable[Any], others: Iterable[Any], freeze: Freeze) -> list[Any]:
    """What is left of the items, in their order, where each of the others takes one away."""
    taken, left = Counter(map(freeze, others)), []
    for item in items:
        if taken[key := freeze(item)]:
            taken[key] -= 1
        else:
            left.append(item)
    return left


def _at(data: dict[Any, Any], key: Any) -> list[Any]:
    """The value, or nothing."""
    return [data[key]] if key in data else []


def _parsed(text: Any) -> list[Any]:
    parsed = json.loads(text) if text is not None else []
    return list(_check(list, parsed)[0])


def _check(kind: Any, *values: Any, but: Any = ()) -> tuple[Any, ...]:
    for value in values:
        if not isinstance(value, kind) or isinstance(value, but):
            raise TypeError(f"a value of type {type(value).__name__}")
    return values
