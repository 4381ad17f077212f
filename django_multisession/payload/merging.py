"""The three-way merge of session data, per top-level key.

`loaded` is what both sides began with, `ours` what this request made of it, `stored` what another request made of it. A
key that only the other side has changed, added or removed is taken from there; every other is ours, but where a rule of
`MULTISESSION_MERGE` says what becomes of a key that both have changed. The keys of `django.contrib.auth` count as one:
the user of one log-in never meets the hash of another.
"""

import logging
from collections.abc import Iterator
from typing import Any

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY

from ..conf import conf
from . import codecs, equality, rules

AUTH_KEYS = (SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY)

Data = dict[str, Any]

logger = logging.getLogger("django_multisession")


def adopt(loaded: Data, ours: Data, stored: Data, serializer: type, by_rules: bool | None = None) -> None:
    """Bring the other side's changes into `ours`, in place: views may hold on to the values that stay.

    `by_rules`: of what both have changed; `None`: as `MULTISESSION_ON_CONFLICT` says.
    """
    by_rules = conf.ON_CONFLICT == "merge" if by_rules is None else by_rules
    for keys in _units(loaded, stored):
        if not _changed(loaded, stored, keys, serializer):
            continue
        if not _changed(loaded, ours, keys, serializer):
            _put(ours, {key: stored[key] for key in keys if key in stored}, keys)
        elif by_rules and keys is not AUTH_KEYS and (rule := rule_of(keys[0])) is not None:
            _merge(rule, keys[0], (loaded, ours, stored), serializer)


def rule_of(key: str) -> Any:
    """What the site has set for the key: a rule's name, a function, its dotted path; `None`: ours wins."""
    chosen = conf.MERGE.get(key) if isinstance(conf.MERGE, dict) else None
    return chosen if chosen is not None else rules.messages if key == rules.MESSAGES else None


def _merge(rule: Any, key: str, sides: tuple[Data, Data, Data], serializer: type) -> None:
    """Put into ours what the rule makes of the key. One that fails leaves it as it is, and the log says so."""
    try:
        copies = [codecs.as_loaded({key: side[key]} if key in side else {}, serializer) for side in sides]
        base, ours, theirs = (copy.get(key) for copy in copies)
        if rule in rules.BUILT_IN and (ours is None or theirs is None):
            return  # one side has deleted it
        value = rules.find(rule)(base, ours, theirs, equality.Freeze(serializer))
        merged = {} if value is None else codecs.as_loaded({key: value}, serializer)
    except Exception:
        logger.warning("MULTISESSION_MERGE: the rule for %r failed, so ours wins.", key, exc_info=True)
    else:
        _put(sides[1], merged, (key,))


def _put(ours: Data, values: Data, keys: tuple[str, ...]) -> None:
    for key in keys:
        ours.pop(key, None)
    ours.update(values)


def _units(loaded: Data, stored: Data) -> Iterator[tuple[str, ...]]:
    yield AUTH_KEYS
    for key in (loaded.keys() | stored.keys()) - set(AUTH_KEYS):
        yield (key,)


def _changed(before: Data, after: Data, keys: tuple[str, ...], serializer: type) -> bool:
    """As they would be stored: True is not 1 then, and a tuple is the list that it is loaded as."""
    return not equality.is_same(_bytes(before, keys, serializer), _bytes(after, keys, serializer), serializer)


def _bytes(data: Data, keys: tuple[str, ...], serializer: type) -> codecs.Serialized:
    return codecs.serialize({key: data[key] for key in keys if key in data}, serializer)
