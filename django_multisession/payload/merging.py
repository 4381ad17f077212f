"""The three-way merge of session data, per top-level key.

`loaded` is what both sides began with, `ours` what this request made of it, `stored` what another request made of it. A
key that only the other side has changed, added or removed is taken from there; every other is ours. The keys of
`django.contrib.auth` count as one: the user of one log-in never meets the hash of another.
"""

from collections.abc import Iterator
from typing import Any

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY

from . import codecs

AUTH_KEYS = (SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY)

Data = dict[str, Any]


def adopt(loaded: Data, ours: Data, stored: Data, serializer: type) -> None:
    """Bring the other side's changes into `ours`, in place: views may hold on to the values that stay."""
    for keys in _units(loaded, stored):
        if _changed(loaded, stored, keys, serializer) and not _changed(loaded, ours, keys, serializer):
            for key in keys:
                ours.pop(key, None)
            ours.update((key, stored[key]) for key in keys if key in stored)


def _units(loaded: Data, stored: Data) -> Iterator[tuple[str, ...]]:
    yield AUTH_KEYS
    for key in (loaded.keys() | stored.keys()) - set(AUTH_KEYS):
        yield (key,)


def _changed(before: Data, after: Data, keys: tuple[str, ...], serializer: type) -> bool:
    """By bytes, as they would be stored: True is not 1 then, and a tuple is the list that it is loaded as."""
    return _bytes(before, keys, serializer) != _bytes(after, keys, serializer)


def _bytes(data: Data, keys: tuple[str, ...], serializer: type) -> codecs.Serialized:
    return codecs.serialize({key: data[key] for key in keys if key in data}, serializer)
