"""The codec: the same values as Django's serializer, in payloads that open for one record of one site only."""

import base64
import enum
import importlib.util
import pickle
import random
import sys
import uuid
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from importlib import import_module
from itertools import product
from pickle import UnpicklingError
from types import ModuleType
from typing import Any, ClassVar
from unittest import mock

import orjson
import pytest
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.serializers import JSONSerializer
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from django_multisession import payload
from django_multisession.exceptions import PayloadUnreadable, SessionNotSerializable, SessionTooLarge
from django_multisession.payload import codecs, compression
from django_multisession.payload.codecs import CUSTOM, FAST_JSON, JSON, SEALED, Serialized, decode, encode, serialize
from django_multisession.payload.compression import MASK, WORDS, ZLIB, ZSTD

pytestmark = pytest.mark.slow  # properties and fuzzing

ID, OTHER_ID = "a" * 64, "b" * 64
KEY, OTHER_KEY = "11" * 32, "22" * 32
COMPRESSIONS = {"plain": 0, "zlib": ZLIB, "zstd": ZSTD}
SMALL = {"_auth_user_id": "7", "cart": [1, 2.5, True], "name": "Zoë"}
LARGE = SMALL | {f"line {i}": "all work and no play makes Jack a dull boy" for i in range(100)}


@contextmanager
def codec(compression: str = "plain", sealed: bool = False, fast: bool = True, **settings: Any) -> Iterator[None]:
    settings.setdefault("MULTISESSION_COMPRESS_OVER", None if compression == "plain" else 0)
    settings.setdefault("MULTISESSION_ENCRYPTION_KEYS", [KEY] if sealed else [])
    with override_settings(**settings), without(zstd=compression == "zlib", orjson=not fast):
        yield


@contextmanager
def without(**missing: bool) -> Iterator[None]:
    with ExitStack() as patches:
        for name in [name for name, is_missing in missing.items() if is_missing]:
            patches.enter_context(mock.patch.object(compression if name == "zstd" else codecs, name, None))
        yield


# Serializing


class Text(str): ...


class Whole(int): ...


class Real(float): ...


class Level(enum.IntEnum):
    LOW = 1


class Color(enum.StrEnum):
    RED = "red"


class Plain(enum.Enum):
    ONE = 1


@dataclass
class Point:
    x: int = 0


Pair = namedtuple("Pair", "left right")

texts = st.text(st.characters(exclude_categories=()), max_size=8)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(),
    texts,
    texts.map(Text),
    st.integers().map(Whole),
    st.floats().map(Real),
    st.sampled_from([Level.LOW, Color.RED, "null", -0.0, 5e-324, 1.7976931348623157e308, 2**63, 2**64, -(2**63) - 1]),
)
keys = st.one_of(texts, texts.map(Text), st.integers(), st.floats(), st.booleans(), st.none(), st.just(Level.LOW))
refused = st.sampled_from([datetime.now(UTC), uuid.UUID(int=1), Decimal(1), {1}, b"", Point(), Plain.ONE, object(), 1j])


well_formed = st.text(max_size=8)
plain = st.one_of(st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), well_formed)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(well_formed, inner, max_size=4),
            st.dictionaries(keys, inner, max_size=3),
            st.dictionaries(texts, inner, max_size=3).map(OrderedDict),
            st.builds(Pair, inner, inner),
        ),
        max_leaves=12,
    )


sessions = st.one_of(
    st.dictionaries(well_formed, plain | st.lists(plain) | st.dictionaries(well_formed, plain), max_size=5),
    st.dictionaries(keys, nested(scalars), max_size=4),
)


def exactly(data: object) -> str:
    """A text that differs where types, signs of zero or NaNs do: for what JSON gives, that of `repr()`."""
    return repr(data)


@pytest.mark.parametrize("fast", [True, False], ids=["orjson", "json"])
@given(data=sessions)
@example(data={})
@example(data={"deep": [[[[{"a": [(), {}, [], ""]}]]]]})
@example(data={"a": 1, "b": 1.0, "c": True, "d": 0.0, "e": -0.0, "f": float("nan"), "g": [float("inf"), float("-inf")]})
@example(data={1: "int", "1": "text", None: "none", 1.5: "float"})
@example(data={True: "bool", "true": "text", False: None, "nested": {0: {"0": 1}}})
@example(data={"lone surrogate": "\ud800", "\udfff": "key", "nul": "\0", "line": "\u2028", "astral": "\U0001f36a"})
@hypothesis_settings(max_examples=400)
def test_values_come_back_as_from_djangos_serializer(fast: bool, data: dict[Any, Any]) -> None:
    expected = exactly(JSONSerializer().loads(JSONSerializer().dumps(data)))
    with without(orjson=not fast):
        payload = encode(data, ID, JSONSerializer)
        assert exactly(decode(payload, ID, JSONSerializer)) == expected
    with without(orjson=fast):
        assert exactly(decode(payload, ID, JSONSerializer)) == expected


@given(data=st.dictionaries(texts, nested(scalars | refused), max_size=3))
@hypothesis_settings(max_examples=400)
def test_what_djangos_serializer_refuses_is_refused_with_and_without_orjson(data: dict[str, Any]) -> None:
    try:
        expected = exactly(JSONSerializer().loads(JSONSerializer().dumps(data)))
    except (TypeError, ValueError):
        expected = None
    for fast in (True, False):
        with without(orjson=not fast):
            if expected is None:
                with pytest.raises(SessionNotSerializable):
                    encode(data, ID, JSONSerializer)
            else:
                assert exactly(decode(encode(data, ID, JSONSerializer), ID, JSONSerializer)) == expected


def circular() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [{"in": (value,)}]], ids=["bare", "nested"])
@pytest.mark.parametrize("fast", [True, False], ids=["orjson", "json"])
@pytest.mark.parametrize(
    "value",
    [
        datetime.now(UTC),
        date.today(),
        timedelta(1),
        uuid.uuid4(),
        Decimal("1.5"),
        {1, 2},
        frozenset(),
        b"bytes",
        bytearray(b"bytes"),
        memoryview(b"bytes"),
        Point(),
        Plain.ONE,
        1j,
        ...,
        circular(),
        {(1, 2): 3},
        {b"key": 1},
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_is_not_json_is_named_by_its_session_key(
    value: object, fast: bool, wrap: Callable[[object], object]
) -> None:
    with without(orjson=not fast), pytest.raises(SessionNotSerializable) as caught:
        encode({"good": 1, "the bad one": wrap(value), "also good": 2}, ID, JSONSerializer)
    assert caught.value.key == "the bad one"
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value.__cause__, (TypeError, ValueError))
    assert "'the bad one' cannot be serialized" in str(caught.value)
    assert "SESSION_SERIALIZER" in str(caught.value)


@pytest.mark.parametrize("depth", [100, 500, 900])
def test_deep_nesting_comes_back(depth: int) -> None:
    deep: Any = "bottom"
    for _ in range(depth):
        deep = [deep]
    assert decode(encode({"deep": deep}, ID, JSONSerializer), ID, JSONSerializer) == {"deep": deep}


def test_bottomless_nesting_is_refused_like_any_other_value() -> None:
    deep: Any = "bottom"
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(SessionNotSerializable) as caught:
        encode({"fine": 1, "deep": deep}, ID, JSONSerializer)
    assert caught.value.key == "deep"


@pytest.mark.parametrize("data", [SMALL, {"a": [1, -0.0, "é", {"b": (True, False)}]}, {}], ids=repr)
def test_orjson_does_the_work_for_plain_data(data: dict[str, Any]) -> None:
    serialized = serialize(data, JSONSerializer)
    assert serialized.kind == FAST_JSON
    assert serialized.body == orjson.dumps(data)


@pytest.mark.parametrize(
    "value",
    [None, float("nan"), float("inf"), 2**64, "\ud800", Text("a"), Whole(1), Real(1), Level.LOW, {1: 2}, OrderedDict()],
    ids=repr,
)
def test_the_json_module_does_the_work_where_orjson_would_not_agree(value: object) -> None:
    assert serialize({"a": value}, JSONSerializer) == Serialized(JSON, JSONSerializer().dumps({"a": value}))


def test_the_json_module_does_the_work_without_orjson() -> None:
    with without(orjson=True):
        assert serialize(SMALL, JSONSerializer).kind == JSON


@pytest.mark.parametrize("data", [[], "text", 1, None])
def test_a_payload_of_something_other_than_a_dict_is_unreadable(data: Any) -> None:
    with pytest.raises(PayloadUnreadable, match="not a dict"):
        decode(encode(data, ID, JSONSerializer), ID, JSONSerializer)


# Serializers


class PickleSerializer:
    def dumps(self, data: Any) -> bytes:
        return pickle.dumps(data)

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)


class LowercaseSerializer(JSONSerializer):
    """A subclass of Django's is a serializer of its own: what it overrides must be called."""

    def dumps(self, data: Any) -> bytes:
        return super().dumps(data).lower()


class Trap:
    sprung = False

    def __reduce__(self) -> Any:
        return setattr, (Trap, "sprung", True)


def test_another_serializer_is_honoured() -> None:
    data = {"when": datetime(2020, 1, 1), "id": uuid.UUID(int=7), "set": {1, 2}}
    assert serialize(data, PickleSerializer) == Serialized(CUSTOM, pickle.dumps(data))
    assert decode(encode(data, ID, PickleSerializer), ID, PickleSerializer) == data


def test_a_subclass_of_djangos_serializer_is_not_bypassed() -> None:
    assert decode(encode({"a": "LOUD"}, ID, LowercaseSerializer), ID, LowercaseSerializer) == {"a": "loud"}


def test_what_another_serializer_cannot_take_is_named_too() -> None:
    with pytest.raises(SessionNotSerializable) as caught:
        encode({"fine": 1, "bad": lambda: None}, ID, PickleSerializer)
    assert caught.value.key == "bad"


class FullSerializer:
    def dumps(self, data: Any) -> bytes:
        if len(data) > 1:
            raise ValueError("one value at most")
        return b""


def test_where_no_single_value_is_to_blame_no_key_is_named() -> None:
    with pytest.raises(SessionNotSerializable, match="one value at most") as caught:
        encode({"fine": 1, "alone": 2}, ID, FullSerializer)
    assert caught.value.key is None


class Interrupted:
    """A serializer that is interrupted while it reads, by what says nothing of the bytes."""

    errors: ClassVar[list[Exception]] = []

    def dumps(self, data: Any) -> bytes:
        return b"data"

    def loads(self, data: bytes) -> Any:
        raise self.errors[-1]


class TimeLimit(Exception):
    """As a worker's soft time limit."""


@pytest.mark.parametrize("error", [RecursionError(), MemoryError(), TimeLimit(), TimeoutError(), OSError()])
def test_what_says_nothing_of_the_bytes_is_not_an_unreadable_payload(error: Exception, monkeypatch: Any) -> None:
    monkeypatch.setattr(Interrupted, "errors", [error])
    with pytest.raises(type(error)):
        decode(encode({}, ID, Interrupted), ID, Interrupted)
    monkeypatch.setitem(codecs._LOADERS, codecs.FAST_JSON, lambda body, serializer: Interrupted().loads(body))
    with pytest.raises(type(error)):
        decode(encode(SMALL, ID, JSONSerializer), ID, JSONSerializer)


@pytest.mark.parametrize(
    "error", [ValueError(), KeyError(), UnpicklingError(), EOFError(), AttributeError(), ModuleNotFoundError()]
)
def test_what_a_serializer_says_of_bytes_that_it_cannot_read(error: Exception, monkeypatch: Any) -> None:
    monkeypatch.setattr(Interrupted, "errors", [error])
    with pytest.raises(PayloadUnreadable):
        decode(encode({}, ID, Interrupted), ID, Interrupted)


@pytest.mark.parametrize("fast", [True, False], ids=["orjson", "json"])
def test_json_stays_readable_when_the_serializer_changes(fast: bool) -> None:
    with without(orjson=not fast):
        payload = encode(SMALL, ID, JSONSerializer)
    assert decode(payload, ID, PickleSerializer) == SMALL


def test_a_payload_of_a_serializer_that_is_no_longer_set_is_never_handed_to_it() -> None:
    payload = encode({"trap": Trap()}, ID, PickleSerializer)
    with pytest.raises(PayloadUnreadable, match="serializer"):
        decode(payload, ID, JSONSerializer)
    assert not Trap.sprung


# Compression


@pytest.mark.parametrize(
    ("over", "bytes_of_body", "expected"),
    [
        (None, 10_000, 0),
        (1024, 1024, 0),
        (1024, 1025, WORDS),
        (0, 100, WORDS),
        (0, 4096, WORDS),
        (0, 4097, ZSTD),
        (10_000, 10_000, 0),
        (9_999, 10_000, ZSTD),
    ],
)
def test_a_body_over_the_threshold_is_compressed(over: int | None, bytes_of_body: int, expected: int) -> None:
    data = {"a": "x" * (bytes_of_body - len('{"a":""}'))}
    with override_settings(MULTISESSION_COMPRESS_OVER=over):
        payload = encode(data, ID, JSONSerializer)
    assert payload[0] & MASK == expected
    assert (len(payload) < bytes_of_body) is bool(expected)
    assert decode(payload, ID, JSONSerializer) == data


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_what_would_not_get_smaller_stays_plain(compression: str) -> None:
    data = {"~": "^"}
    with codec(compression):
        assert encode(data, ID, JSONSerializer)[0] & MASK == 0


def test_a_small_session_of_djangos_words_takes_less_than_half() -> None:
    data = {"_auth_user_id": "7", "_auth_user_backend": "django.contrib.auth.backends.ModelBackend"}
    assert len(encode(data, ID, JSONSerializer)) < codecs.MAC_SIZE + 20


def test_what_is_in_advance_never_changes() -> None:
    """Else nobody could read the sessions that are stored."""
    assert sha256(compression.IN_ADVANCE).hexdigest().startswith("fb08aabea6e7a43f")


def test_zlib_stands_in_for_a_missing_zstd_and_stays_readable() -> None:
    with codec("zlib"):
        payload = encode(LARGE, ID, JSONSerializer)
    assert payload[0] & MASK == ZLIB
    assert decode(payload, ID, JSONSerializer) == LARGE


def test_a_zstd_payload_without_zstd_is_an_error_not_an_empty_session() -> None:
    with codec("zstd"):
        payload = encode(LARGE, ID, JSONSerializer)
    with without(zstd=True), pytest.raises(ImproperlyConfigured, match=r"django-multisession\[speed\]"):
        decode(payload, ID, JSONSerializer)


def test_junk_that_claims_to_be_zstd_is_unreadable_with_and_without_zstd() -> None:
    for missing in (True, False):
        with without(zstd=missing), pytest.raises(PayloadUnreadable):
            decode(bytes([codecs.MARK | ZSTD]) + b"junk" * 20, ID, JSONSerializer)


# Size


def test_the_limit_is_for_the_encoded_session() -> None:
    with codec():
        size = len(encode(LARGE, ID, JSONSerializer))
    with codec(MULTISESSION_MAX_BYTES=size):
        encode(LARGE, ID, JSONSerializer)
    with codec(MULTISESSION_MAX_BYTES=size - 1), pytest.raises(SessionTooLarge) as caught:
        encode(LARGE, ID, JSONSerializer)
    assert (caught.value.size, caught.value.limit) == (size, size - 1)
    assert f"{size:,} bytes" in str(caught.value)
    assert "MULTISESSION_MAX_BYTES" in str(caught.value)
    with codec("zstd", MULTISESSION_MAX_BYTES=size - 1):
        encode(LARGE, ID, JSONSerializer)


def test_a_session_over_a_mebibyte_is_too_large_by_default() -> None:
    noise = base64.b85encode(random.Random(0).randbytes(1024 * 1024)).decode()
    with pytest.raises(SessionTooLarge) as caught:
        encode({"noise": noise}, ID, JSONSerializer)
    assert caught.value.limit == 1024 * 1024 < caught.value.size


# Junk and forgery

SETTINGS = [
    pytest.param(compression, sealed, data, id=f"{compression}-{'sealed' if sealed else 'signed'}-{size}")
    for compression, sealed, (size, data) in product(COMPRESSIONS, [False, True], [("small", SMALL), ("large", LARGE)])
]


def unreadable(payload: bytes, record_id: str = ID) -> bool:
    """Anything but `PayloadUnreadable` fails the test, and so does data."""
    try:
        decode(payload, record_id, JSONSerializer)
    except PayloadUnreadable:
        return True
    return False


def small_changes(payload: bytes) -> Iterator[bytes]:
    """Every truncation at either end, every byte deleted or doubled, every bit flipped, and one byte more."""
    yield payload + b"\0"
    yield b"\0" + payload
    for i, byte in enumerate(payload):
        before, after = payload[:i], payload[i + 1 :]
        yield from (before, after, before + after, before + bytes([byte, byte]) + after)
        yield from (before + bytes([byte ^ 1 << bit]) + after for bit in range(8))


@pytest.mark.parametrize(("compression", "sealed", "data"), SETTINGS)
def test_no_small_change_opens(compression: str, sealed: bool, data: dict[str, Any]) -> None:
    with codec(compression, sealed):
        payload = encode(data, ID, JSONSerializer)
        assert bool(payload[0] & SEALED) is sealed
        assert data is SMALL or payload[0] & MASK == COMPRESSIONS[compression]
        assert decode(payload, ID, JSONSerializer) == data
        tried = [changed for changed in small_changes(payload) if not unreadable(changed)]
    assert tried == []


@st.composite
def mutations(draw: st.DrawFn, payloads: list[bytes]) -> bytes:
    mutated = bytearray(draw(st.sampled_from(payloads)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(mutated)))
        match draw(st.sampled_from(["truncate", "behead", "insert", "overwrite", "splice", "swap"])):
            case "truncate":
                del mutated[at:]
            case "behead":
                del mutated[:at]
            case "insert":
                mutated[at:at] = draw(st.binary(max_size=9))
            case "overwrite":
                new = draw(st.binary(max_size=9))
                mutated[at : at + len(new)] = new
            case "splice":
                other = draw(st.sampled_from(payloads))
                mutated[at:] = other[draw(st.integers(0, len(other))) :]
            case "swap":
                mutated[:] = mutated[at:] + mutated[:at]
    return bytes(mutated)


@pytest.mark.parametrize(("compression", "sealed", "data"), SETTINGS)
@hypothesis_settings(max_examples=300, suppress_health_check=[HealthCheck.large_base_example])
@given(choose=st.data())
def test_no_mutation_opens(compression: str, sealed: bool, data: dict[str, Any], choose: st.DataObject) -> None:
    with codec(compression, sealed):
        payloads = [encode(data | {"n": n}, ID, JSONSerializer) for n in range(2)]
        mutated = choose.draw(mutations(payloads))
        assert mutated in payloads or unreadable(mutated)


headers = st.integers(0, 255).map(lambda header: bytes([header]))
ascii_junk = st.text(st.characters(max_codepoint=127)).map(str.encode)


@pytest.mark.parametrize("sealed", [False, True], ids=["signed", "sealed"])
@given(junk=st.one_of(st.binary(max_size=200), st.builds(bytes.__add__, headers, st.binary(max_size=99)), ascii_junk))
@example(junk=b"")
@example(junk=b"{}")
@example(junk=b"gASVAAAA:1abc:sig")
@example(junk=b".eJwBAAD:::")
@hypothesis_settings(max_examples=1000)
def test_junk_is_unreadable(sealed: bool, junk: bytes) -> None:
    with codec(sealed=sealed):
        assert unreadable(junk)


@pytest.mark.parametrize("sealed", [False, True], ids=["signed", "sealed"])
def test_a_payload_moved_to_another_record_does_not_open(sealed: bool) -> None:
    with codec(sealed=sealed):
        payload = encode(SMALL, ID, JSONSerializer)
        assert unreadable(payload, OTHER_ID)
        assert unreadable(payload, ID[:-1])
        assert unreadable(payload, "")


def test_the_border_between_record_id_and_body_cannot_be_moved() -> None:
    payload = encode(SMALL, ID, JSONSerializer)
    head, body = payload[: 1 + codecs.MAC_SIZE], payload[1 + codecs.MAC_SIZE :]
    for moved, record_id in [(head + ID[-1:].encode() + body, ID[:-1]), (head + body[1:], ID + chr(body[0]))]:
        with pytest.raises(PayloadUnreadable, match="bad signature"):
            codecs.open_(moved, record_id)


def test_every_sealed_payload_is_another_and_shows_nothing() -> None:
    with codec(sealed=True):
        sealed = {encode(SMALL, ID, JSONSerializer) for _ in range(1000)}
    assert len({payload[1 : 1 + codecs.NONCE_SIZE] for payload in sealed}) == 1000
    assert not any(b"cart" in payload for payload in sealed)


def test_a_signed_payload_cannot_pass_for_a_sealed_one_or_the_reverse() -> None:
    with codec(sealed=True):
        for payload in (encode(SMALL, ID, JSONSerializer), codecs._sign(codecs.MARK | JSON, b"{}", ID)):
            assert unreadable(bytes([payload[0] ^ SEALED]) + payload[1:])


# Keys


def test_a_payload_signed_by_another_site_does_not_open() -> None:
    with override_settings(SECRET_KEY="another site's"):
        payload = encode(SMALL, ID, JSONSerializer)
    assert unreadable(payload)


def test_a_payload_sealed_by_another_site_does_not_open() -> None:
    with codec(sealed=True, MULTISESSION_ENCRYPTION_KEYS=[OTHER_KEY]):
        payload = encode(SMALL, ID, JSONSerializer)
    with codec(sealed=True):
        assert unreadable(payload)


def test_the_secret_key_can_be_rotated() -> None:
    with override_settings(SECRET_KEY="old"):
        payload = encode(SMALL, ID, JSONSerializer)
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["other", "old"]):
        assert decode(payload, ID, JSONSerializer) == SMALL
        renewed = encode(SMALL, ID, JSONSerializer)
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[]):
        assert unreadable(payload)
        assert decode(renewed, ID, JSONSerializer) == SMALL


def test_a_secret_key_may_be_bytes() -> None:
    with override_settings(SECRET_KEY=b"\xff secret"):
        assert decode(encode(SMALL, ID, JSONSerializer), ID, JSONSerializer) == SMALL


def test_the_encryption_key_can_be_rotated() -> None:
    with codec(MULTISESSION_ENCRYPTION_KEYS=[KEY]):
        payload = encode(SMALL, ID, JSONSerializer)
    with codec(MULTISESSION_ENCRYPTION_KEYS=[OTHER_KEY, KEY]):
        assert decode(payload, ID, JSONSerializer) == SMALL
        renewed = encode(SMALL, ID, JSONSerializer)
    with codec(MULTISESSION_ENCRYPTION_KEYS=[OTHER_KEY]):
        assert unreadable(payload)
        assert decode(renewed, ID, JSONSerializer) == SMALL


def test_encryption_can_be_turned_on_and_off_while_sessions_live() -> None:
    with codec():
        signed = encode(SMALL, ID, JSONSerializer)
    with codec(MULTISESSION_ENCRYPTION_KEYS=[KEY]):
        assert decode(signed, ID, JSONSerializer) == SMALL
        sealed = encode(SMALL, ID, JSONSerializer)
    with codec(MULTISESSION_ENCRYPTION_KEYS=[None, KEY]):
        assert decode(sealed, ID, JSONSerializer) == SMALL
        assert not encode(SMALL, ID, JSONSerializer)[0] & SEALED
    with codec(MULTISESSION_ENCRYPTION_KEYS=[]):
        assert unreadable(sealed)


OLD_AND_NEW: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({}, {}, True),
    ({}, {"MULTISESSION_COMPRESS_OVER": 0}, True),
    ({"SECRET_KEY": "old"}, {"SECRET_KEY": "new", "SECRET_KEY_FALLBACKS": ["old"]}, False),
    ({}, {"MULTISESSION_ENCRYPTION_KEYS": [KEY]}, False),
    ({}, {"MULTISESSION_ENCRYPTION_KEYS": [None, KEY]}, True),
    ({"MULTISESSION_ENCRYPTION_KEYS": [KEY]}, {"MULTISESSION_ENCRYPTION_KEYS": [KEY, OTHER_KEY]}, True),
    ({"MULTISESSION_ENCRYPTION_KEYS": [KEY]}, {"MULTISESSION_ENCRYPTION_KEYS": [OTHER_KEY, KEY]}, False),
    ({"MULTISESSION_ENCRYPTION_KEYS": [KEY]}, {"MULTISESSION_ENCRYPTION_KEYS": [None, KEY]}, False),
]


@pytest.mark.parametrize(("old", "new", "current"), OLD_AND_NEW)
def test_what_a_save_would_close_with_another_key_is_not_current(
    old: dict[str, Any], new: dict[str, Any], current: bool
) -> None:
    with override_settings(**old):
        payload = encode(SMALL, ID, JSONSerializer)
    with override_settings(**new):
        assert codecs.open_(payload, ID)[1] is current


RAW = bytes(range(224, 256))  # in base64 with both + and / in it
FORMS = {
    "raw": RAW,
    "hex": RAW.hex(),
    "upper-case hex": RAW.hex().upper(),
    "hex bytes": RAW.hex().encode(),
    "base64": base64.b64encode(RAW).decode(),
    "base64 bytes": base64.b64encode(RAW),
    "url-safe base64": base64.urlsafe_b64encode(RAW).decode(),
    "unpadded base64": base64.b64encode(RAW).decode().rstrip("="),
    "unpadded url-safe base64": base64.urlsafe_b64encode(RAW).decode().rstrip("="),
    "with a line end": base64.b64encode(RAW).decode() + "\n",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_key_may_be_written_in_any_usual_form(form: str | bytes) -> None:
    with override_settings(MULTISESSION_ENCRYPTION_KEYS=(form,)):
        assert codecs.encryption_keys() == (RAW,)


def test_keys_that_look_like_text_are_taken_raw_as_bytes_only() -> None:
    letters = "0123456789abcdef" * 2
    with override_settings(MULTISESSION_ENCRYPTION_KEYS=[letters.encode()]):
        assert codecs.encryption_keys() == (letters.encode(),)
    with override_settings(MULTISESSION_ENCRYPTION_KEYS=[letters]), pytest.raises(ImproperlyConfigured):
        codecs.encryption_keys()


@pytest.mark.parametrize(
    "key", ["", b"", "secret", "11" * 31, "11" * 33, RAW[:-1], RAW + b"x", "zz" * 32, "ключ", "=" * 44, 7], ids=repr
)
@pytest.mark.parametrize("use", [lambda: encode(SMALL, ID, JSONSerializer), codecs.encryption_keys])
def test_a_key_of_another_size_is_refused_with_help(key: Any, use: Callable[[], object]) -> None:
    with override_settings(MULTISESSION_ENCRYPTION_KEYS=[KEY, key]), pytest.raises(ImproperlyConfigured) as caught:
        use()
    assert "MULTISESSION_ENCRYPTION_KEYS is not 32 bytes" in str(caught.value)
    assert "secrets.token_hex(32)" in str(caught.value)


def test_a_refused_key_is_not_shown() -> None:
    nearly = KEY[:-1]
    with override_settings(MULTISESSION_ENCRYPTION_KEYS=[nearly]), pytest.raises(ImproperlyConfigured) as caught:
        codecs.encryption_keys()
    assert nearly not in str(caught.value)


@pytest.mark.parametrize("keys", [KEY, "", RAW, None, {KEY}], ids=["text", "empty text", "bytes", "None", "set"])
def test_a_key_that_is_not_in_a_list_does_not_turn_encryption_off(keys: Any) -> None:
    with override_settings(MULTISESSION_ENCRYPTION_KEYS=keys), pytest.raises(ImproperlyConfigured, match="not a list"):
        encode(SMALL, ID, JSONSerializer)


# Change of settings

OURS = "not a secret: the tests' own"
WRITTEN = list(product(COMPRESSIONS, [False, True], [True, False]))
KEY_LISTS = {"newest": [KEY], "older": [OTHER_KEY, KEY], "off": [None, KEY]}


@pytest.mark.parametrize(("compression", "sealed", "fast"), WRITTEN)
@pytest.mark.parametrize("encryption_keys", KEY_LISTS.values(), ids=KEY_LISTS)
@pytest.mark.parametrize("serializer", [JSONSerializer, PickleSerializer])
def test_any_setting_can_change_while_sessions_live(
    compression: str, sealed: bool, fast: bool, encryption_keys: list[str], serializer: type
) -> None:
    with codec(compression, sealed, fast):
        payload = encode(LARGE, ID, JSONSerializer)
    changed: dict[str, Any] = {
        "MULTISESSION_ENCRYPTION_KEYS": encryption_keys,
        "SECRET_KEY": "new",
        "SECRET_KEY_FALLBACKS": [OURS],
    }
    readers = product(COMPRESSIONS if compression != "zstd" else ["plain", "zstd"], [True, False])
    for new_compression, new_fast in readers:
        with codec(new_compression, fast=new_fast, **changed):
            assert decode(payload, ID, serializer) == LARGE
            assert decode(encode(LARGE, ID, serializer), ID, serializer) == LARGE


# Django's own payloads

ENGINES = ["db", "cache", "cached_db", "file", "signed_cookies"]


def of_django(engine: str, data: dict[str, Any]) -> bytes:
    store: SessionBase = import_module(f"django.contrib.sessions.backends.{engine}").SessionStore()
    return store.encode(data).encode()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("data", [SMALL, LARGE, {}], ids=["small", "large", "empty"])
def test_what_djangos_engines_wrote_opens_in_no_record(engine: str, data: dict[str, Any]) -> None:
    """It names no record, so whoever can write to the store could put a victim's text into that of an own session."""
    payload = of_django(engine, data)
    assert unreadable(payload)
    with override_settings(MULTISESSION_ENCRYPTION_KEYS=[KEY]):
        assert unreadable(payload)


# Optional libraries


def without_extras() -> ModuleType:
    """The codec as it is imported where only Django is installed."""
    extras = ["orjson", "compression", "backports", "cryptography.exceptions", "cryptography"]
    spec = importlib.util.spec_from_file_location("django_multisession.payload.codecs_without_extras", codecs.__file__)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, dict.fromkeys(extras)), mock.patch.dict(vars(payload)):
        del sys.modules["django_multisession.payload.compression"], payload.compression  # to be imported again
        spec.loader.exec_module(module)
    return module


def test_the_codec_needs_django_alone() -> None:
    bare = without_extras()
    payload = bare.encode(LARGE, ID, JSONSerializer)
    assert payload[0] == codecs.MARK | ZLIB | JSON
    assert bare.decode(payload, ID, JSONSerializer) == decode(payload, ID, JSONSerializer) == LARGE
    with codec("zlib"):
        assert bare.decode(encode(LARGE, ID, JSONSerializer), ID, JSONSerializer) == LARGE


def test_encryption_without_its_library_is_an_error_not_an_empty_session() -> None:
    bare = without_extras()
    with codec(sealed=True):
        sealed = encode(SMALL, ID, JSONSerializer)
        with pytest.raises(ImproperlyConfigured, match=r"django-multisession\[encryption\]"):
            bare.encode(SMALL, ID, JSONSerializer)
        with pytest.raises(ImproperlyConfigured, match=r"django-multisession\[encryption\]"):
            bare.decode(sealed, ID, JSONSerializer)


def test_what_compresses_well_is_limited_too() -> None:
    with override_settings(MULTISESSION_MAX_BYTES=1000):
        assert decode(encode({"a": "x" * 15_000}, ID, JSONSerializer), ID, JSONSerializer)
        with pytest.raises(SessionTooLarge) as caught:
            encode({"a": "x" * 16_000}, ID, JSONSerializer)
    assert (caught.value.size, caught.value.limit) == (16_008, 16_000)
