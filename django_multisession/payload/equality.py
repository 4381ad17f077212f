"""Whether serialized data say the same, where their bytes differ: the values as loaded back are compared, type by type.

An encrypting serializer has a nonce, a set no order of its own: such bytes differ each time, whatever the data.
"""

import pickle
from collections.abc import Hashable
from decimal import Decimal
from functools import lru_cache
from pickle import PickleError
from typing import Any

from ..exceptions import PayloadUnreadable, SessionNotSerializable
from . import codecs

PLAIN = frozenset({type(None), bool, int, str, bytes})
EXACT = frozenset(
    {float, complex, Decimal}
)  # -0.0 is 0.0, and 1.00 is 1.0, but not what they are stored as; NaN is not itself
PROTOCOL = 4  # with which objects take themselves apart: the first one that keeps the fold of a datetime
LETTERS = "qwertyuiopasdfghjklzxcvbnm"


def is_same(one: codecs.Serialized, other: codecs.Serialized | None, serializer: type) -> bool:
    """Whether both are the same data, in whatever order of their top-level keys."""
    if other is None or one == other:
        return other is not None
    if one.kind == other.kind != codecs.CUSTOM:
        return False  # of JSON the bytes are the data, and most saves have changed them
    try:
        before, after = (codecs.deserialize(each, serializer) for each in (one, other))
        freeze = Freeze(serializer)
        return _unordered(before, freeze) == _unordered(after, freeze)
    except (PayloadUnreadable, SessionNotSerializable, RecursionError):
        return False


def _unordered(data: dict[str, Any], freeze: "Freeze") -> dict[Hashable, Hashable]:
    return {freeze(key): freeze(value) for key, value in data.items()}


class Freeze:
    """`freeze(value)` is hashable, and equal for values that are the same type by type."""

    def __init__(self, serializer: type) -> None:
        self.serializer, self.ordered = serializer, keeps_order(serializer)

    def __call__(self, value: Any) -> Hashable:
        kind = type(value)
        if kind in PLAIN:
            return kind, value
        if kind in EXACT:
            return kind, repr(value)
        if kind is dict:
            items = [(self(key), self(each)) for key, each in value.items()]
            return kind, tuple(items) if self.ordered else frozenset(items)
        if kind is list or kind is tuple:
            return kind, tuple(map(self, value))
        if isinstance(value, set | frozenset):
            return kind, frozenset(map(self, value))
        has_own = getattr(kind, "__eq__", None) is not object.__eq__
        return kind, self._parts(value) if has_own else self._bytes(value)

    def _parts(self, value: Any) -> Hashable:
        """As pickle takes it apart. Its own `==` may say less: models are equal by their keys, moments in any zone."""
        try:
            parts = value.__reduce_ex__(PROTOCOL)
            if isinstance(parts, str):
                return parts
            made_by, arguments, state, items, pairs = (*parts, None, None, None)[:5]
            return made_by, self(arguments), self(state), self(list(items or ())), self(dict(pairs or ()))
        except (TypeError, AttributeError, PickleError):
            return _ByValue(value)

    def _bytes(self, value: Any) -> Hashable:
        """Of what is equal to nothing but itself. A pickle has no nonce; not everything can be one."""
        try:
            return pickle.dumps(value)
        except Exception:
            return codecs.serialize({"": value}, self.serializer)


class _ByValue:
    """What no pickle takes and compares itself, with a hash if it has none."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        try:
            return isinstance(other, _ByValue) and bool(self.value == other.value)
        except Exception:  # an array's comparison is no yes or no
            return False

    def __hash__(self) -> int:
        try:
            return hash(self.value)
        except Exception:
            return hash(type(self.value))


@lru_cache(maxsize=16)
def keeps_order(serializer: type) -> bool:
    """Whether a dict is loaded in the order in which it was stored: only then may its order mean anything."""
    try:
        loaded = codecs.as_loaded(dict.fromkeys(LETTERS, 0), serializer)
    except Exception:
        return False
    return list(loaded) == list(LETTERS)
