"""dict -> bytes -> dict: serialize, compress, sign or seal.

A payload is one header byte, an authenticator, and the body::

    signed   header | HMAC-SHA256, its first 16 bytes, of header, record id and body | body
    sealed   header | nonce (12 bytes) | AES-256-GCM ciphertext of the body and tag (16 bytes)

    header   1 s c c . . k k     s   1: sealed, 0: signed
                                 cc  body is 0: plain, 1: zlib, 2: zstd, 3: see compression.py
                                 kk  body is 0: SESSION_SERIALIZER's, 1: JSON by the json module, 2: JSON by orjson,
                                     3: no session, but a mark (see rotation.py)

The signing key is derived from `SECRET_KEY` (and `SECRET_KEY_FALLBACKS` to read), each record's sealing key from a key
of `MULTISESSION_ENCRYPTION_KEYS` and the record's id: both bind the payload to its record. The header says what was
done, so every codec setting can change while sessions live. Nothing else is read, Django's own signed text
(`SessionBase.encode()`) neither: it names no record, so that of one session would open in another's.
"""

import base64
import binascii
import hmac
import json
import marshal
import os
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from pickle import PickleError
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.contrib.sessions.serializers import JSONSerializer
from django.core.exceptions import ImproperlyConfigured
from django.utils.encoding import force_bytes
from django.utils.module_loading import import_string

from ..conf import conf, secret_key
from ..exceptions import PayloadUnreadable, SessionNotSerializable, SessionTooLarge
from ..records import Record
from . import compression

if TYPE_CHECKING:
    from hashlib import _Hash as HASH

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]
try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError:
    AESGCM = None  # type: ignore[assignment,misc]

MARK, SEALED = 0x80, 0x40
CUSTOM, JSON, FAST_JSON, ROTATED = 0, 1, 2, 3

MAC_SIZE, NONCE_SIZE, KEY_SIZE = 16, 12, 32  # bytes; of the MAC half, as RFC 2104 allows and IPsec's RFC 4868 does
EXPANSION = 16  # how much larger than MULTISESSION_MAX_BYTES a session may be in memory, however well it compresses
SMALLEST_BODY_OF_SEALED = 16  # the tag of an empty plaintext


class Serialized(NamedTuple):
    """Session data as bytes, before compression: what the dirty check compares."""

    kind: int  # CUSTOM, JSON, FAST_JSON; ROTATED is no session's
    body: bytes


def encode(data: dict[str, Any], record_id: str, serializer: type) -> bytes:
    """The payload of `data` for one record. Raises `SessionNotSerializable` or `SessionTooLarge`."""
    return close(serialize(data, serializer), record_id)


def decode(payload: bytes, record_id: str, serializer: type) -> dict[str, Any]:
    """The reverse of `encode()`. Raises `PayloadUnreadable` for what this site did not write for this record."""
    return deserialize(open_(payload, record_id)[0], serializer)


def data_of(record: Record) -> dict[str, Any]:
    """The session's data, or none where they cannot be read: for lists and limits, which another's data must not stop.

    The site's serializer may raise anything then, each time. What says nothing of the bytes passes, as a time limit.
    """
    given = record.payload, record.id, import_string(settings.SESSION_SERIALIZER)
    try:
        return decode(*given)
    except PayloadUnreadable:
        return {}
    except (MemoryError, RecursionError, ImproperlyConfigured):
        raise
    except Exception as error:
        try:
            decode(*given)
        except type(error):
            return {}
        raise


# dict <-> Serialized


def serialize(data: dict[str, Any], serializer: type) -> Serialized:
    """Raises `SessionNotSerializable` naming the top-level key whose value `serializer` cannot take."""
    if serializer is JSONSerializer and orjson is not None and (body := _fast_json(data)) is not None:
        return Serialized(FAST_JSON, body)
    try:
        return Serialized(JSON if serializer is JSONSerializer else CUSTOM, serializer().dumps(data))
    except Exception as error:
        raise SessionNotSerializable(_culprit(data, serializer)) from error


def deserialize(serialized: Serialized, serializer: type) -> dict[str, Any]:
    """Raises `PayloadUnreadable` where the body is no dict or the serializer that wrote it is no longer set.

    What says nothing of the bytes passes: too deep a stack, no memory, a time limit that fires in here.
    """
    try:
        data = _LOADERS[serialized.kind](serialized.body, serializer)
    except UNREADABLE as error:
        raise PayloadUnreadable("the serializer cannot read it") from error
    if not isinstance(data, dict):
        raise PayloadUnreadable("not a dict")
    return data


def as_loaded(data: dict[str, Any], serializer: type) -> dict[str, Any]:
    """A copy, as the next request would load it. Raises what `serialize()` and `deserialize()` do."""
    return deserialize(serialize(data, serializer), serializer)


def _fast_json(data: dict[str, Any]) -> bytes | None:
    """The JSON of `data` where orjson's agrees with Django's serializer, else `None`.

    orjson also takes UUIDs, enums, dataclasses and datetimes, which Django's refuses: marshal, like JSON, knows
    builtin types only, and tells faster than a walk in Python would. And orjson writes NaN as null, silently.
    """
    try:
        marshal.dumps(data, 4)  # of its formats the fastest, since it writes short texts as they are
        body = orjson.dumps(data)
    except (TypeError, ValueError):
        return None
    return None if b"null" in body else body


_LOADERS = {
    CUSTOM: lambda body, serializer: serializer().loads(body),
    JSON: lambda body, serializer: JSONSerializer().loads(body),
    FAST_JSON: lambda body, serializer: (orjson or json).loads(body),
}


# What a serializer raises for bytes that it cannot read: pickle's errors, and those of reading what is not there.
UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
    EOFError,
    ArithmeticError,
    PickleError,
    struct.error,
)


def _culprit(data: dict[str, Any], serializer: type) -> object:
    for key, value in data.items():
        try:
            serializer().dumps({key: value})
        except Exception:
            return key
    return None


# Serialized <-> payload


def close(serialized: Serialized, record_id: str) -> bytes:
    """Compress, then seal or sign. Raises `SessionTooLarge`."""
    most = conf.MAX_BYTES
    if len(serialized.body) > most * EXPANSION:
        raise SessionTooLarge(len(serialized.body), most * EXPANSION)
    how, body = _compress(serialized.body)
    header = MARK | how | serialized.kind
    key = _newest_key()
    payload = _seal(header, body, record_id, key) if key else _sign(header, body, record_id)
    if len(payload) > most:
        raise SessionTooLarge(len(payload), most)
    return payload


def open_(payload: bytes, record_id: str) -> tuple[Serialized, bool]:
    """Check that this site wrote the payload for this record, and undo `close()`. Raises `PayloadUnreadable`.

    The second is whether today's settings and keys would close it again in the same way.
    """
    if not payload:
        raise PayloadUnreadable("empty")
    header = payload[0]
    if not header & MARK:
        raise PayloadUnreadable("not of this package")
    body, current = _unseal(payload, record_id) if header & SEALED else _unsign(payload, record_id)
    return Serialized(header & 0x03, compression.decompress(header & compression.MASK, body)), current


def is_ours(payload: bytes, record_id: str) -> bool:
    """Whether one of this site's keys made the payload for this record. Nothing is decompressed or deserialized.

    A sealed one is taken for ours where the library is missing that could tell.
    """
    if not payload or not payload[0] & MARK:
        return False
    sealed = payload[0] & SEALED
    if sealed and AESGCM is None:
        return True
    try:
        _unseal(payload, record_id) if sealed else _unsign(payload, record_id)
    except PayloadUnreadable:
        return False
    return True


def _compress(body: bytes) -> tuple[int, bytes]:
    over = conf.COMPRESS_OVER
    if over is None or len(body) <= over:
        return compression.PLAIN, body
    return compression.compress(body)


def _sign(header: int, body: bytes, record_id: str) -> bytes:
    return b"%c%b%b" % (header, _mac(secret_key(), header, record_id, body), body)


def _unsign(payload: bytes, record_id: str) -> tuple[bytes, bool]:
    mac, body = payload[1 : 1 + MAC_SIZE], payload[1 + MAC_SIZE :]
    if hmac.compare_digest(mac, _mac(secret_key(), payload[0], record_id, body)):
        return body, _newest_key() is None
    for secret in settings.SECRET_KEY_FALLBACKS:
        if hmac.compare_digest(mac, _mac(secret, payload[0], record_id, body)):
            return body, False
    raise PayloadUnreadable("bad signature")


def _mac(secret: str | bytes, header: int, record_id: str, body: bytes) -> bytes:
    inner, outer = _keyed(secret)
    inner, outer = inner.copy(), outer.copy()
    inner.update(b"%c%b\0%b" % (header, record_id.encode(), body))
    outer.update(inner.digest())
    return outer.digest()[:MAC_SIZE]


@lru_cache(maxsize=16)
def _keyed(secret: str | bytes) -> "tuple[HASH, HASH]":
    """The two hashes of an HMAC (RFC 2104), begun with the key: a copy of hmac's own object is made far more slowly."""
    key = sha256(b"django_multisession.codecs.sign\0" + force_bytes(secret)).digest()
    block = key.ljust(sha256().block_size, b"\0")
    return sha256(block.translate(hmac.trans_36)), sha256(block.translate(hmac.trans_5C))


def _seal(header: int, body: bytes, record_id: str, key: bytes) -> bytes:
    nonce = os.urandom(NONCE_SIZE)
    header |= SEALED
    return b"%c%b%b" % (header, nonce, _cipher(key, record_id).encrypt(nonce, body, b"%c" % header))


def _unseal(payload: bytes, record_id: str) -> tuple[bytes, bool]:
    nonce, body = payload[1 : 1 + NONCE_SIZE], payload[1 + NONCE_SIZE :]
    if len(body) < SMALLEST_BODY_OF_SEALED:
        raise PayloadUnreadable("truncated")
    for age, key in enumerate(encryption_keys()):
        if key is None:
            continue
        cipher = _cipher(key, record_id)  # not in the try: where the library is missing, there is no InvalidTag either
        try:
            return bytes(cipher.decrypt(nonce, body, payload[:1])), age == 0
        except InvalidTag:
            continue
    raise PayloadUnreadable("sealed with no key of MULTISESSION_ENCRYPTION_KEYS")


def _cipher(key: bytes, record_id: str) -> Any:
    """A cipher of the record's own: random nonces then collide by saves of one session, not of the whole site."""
    if AESGCM is None:
        raise ImproperlyConfigured("MULTISESSION_ENCRYPTION_KEYS needs: pip install 'django-multisession[encryption]'.")
    return AESGCM(hmac.digest(key, b"django_multisession.codecs.seal\0" + record_id.encode(), "sha256"))


def _newest_key() -> bytes | None:
    keys = encryption_keys()
    return keys[0] if keys else None


def encryption_keys() -> Sequence[bytes | None]:
    """The keys of `MULTISESSION_ENCRYPTION_KEYS`, newest first. Raises `ImproperlyConfigured` for a bad one."""
    keys = conf.ENCRYPTION_KEYS
    if not isinstance(keys, list | tuple):  # a text would be taken for a list of one-letter keys, an empty one for none
        raise ImproperlyConfigured("MULTISESSION_ENCRYPTION_KEYS is not a list of keys, newest first.")
    return _parsed_keys(tuple(keys)) if keys else ()


@lru_cache(maxsize=16)
def _parsed_keys(keys: tuple[str | bytes | None, ...]) -> tuple[bytes | None, ...]:
    return tuple(None if key is None else _parsed_key(key) for key in keys)


def _parsed_key(key: str | bytes) -> bytes:
    for candidate in _readings(key):
        if len(candidate) == KEY_SIZE:
            return candidate
    raise ImproperlyConfigured(
        "A key of MULTISESSION_ENCRYPTION_KEYS is not 32 bytes (raw, in hex or in base64). Make one with: "
        'python -c "import secrets; print(secrets.token_hex(32))"'
    )


def _readings(key: str | bytes) -> Iterator[bytes]:
    if isinstance(key, bytes):
        yield key
    text = force_bytes(key).strip()
    for read in (binascii.unhexlify, _from_base64):
        try:
            yield read(text)
        except ValueError:
            continue


def _from_base64(text: bytes) -> bytes:
    return base64.b64decode(text.translate(bytes.maketrans(b"-_", b"+/")) + b"=" * (-len(text) % 4), validate=True)
