"""bytes <-> fewer bytes, in one of three ways, of which the payload's header tells which.

Small sessions, which most are, hardly compress by themselves: they are deflated with the words in advance that Django
itself writes into sessions. A window of 4 KB needs little memory, and so takes a tenth of zlib's usual time. Large ones
are compressed by zstd, where it is there, else by zlib.
"""

import threading
import zlib
from typing import Any

from django.core.exceptions import ImproperlyConfigured

try:
    from compression import zstd  # Python 3.14
except ImportError:
    try:
        from backports import zstd
    except ImportError:
        zstd = None

PLAIN, ZLIB, ZSTD, WORDS = 0x00, 0x10, 0x20, 0x30
MASK = 0x30

# Part of the format: a stored session is unreadable without exactly these. The likeliest come last.
IN_ADVANCE = (
    b'"_password_reset_token":"_messages":"[[\\"__json_message\\",0,20,\\"django_timezone":"UTC","_csrftoken":"'
    b'_session_expiry":1209600,"_auth_user_hash":"0123456789abcdef","_auth_user_backend":"'
    b'django.contrib.auth.backends.ModelBackend","_auth_user_id":"1'
)
WINDOW = 12  # of two to the power of this many bytes
LEVEL = 1  # of zstd: a tenth faster than its usual 3, for 3 % more bytes
SMALL = 1 << WINDOW  # bytes, at most
_deflate = zlib.compressobj(6, zlib.DEFLATED, -WINDOW, 4, zlib.Z_DEFAULT_STRATEGY, IN_ADVANCE)
_kept = threading.local()


def compress(body: bytes) -> tuple[int, bytes]:
    """How it was done, and the result; PLAIN if that is not smaller."""
    how, smaller = _compressed(body)
    return (how, smaller) if len(smaller) < len(body) else (PLAIN, body)


def _compressed(body: bytes) -> tuple[int, bytes]:
    if len(body) <= SMALL:
        deflate = _deflate.copy()
        return WORDS, deflate.compress(body) + deflate.flush()
    if zstd is None:
        return ZLIB, zlib.compress(body)
    return ZSTD, _compressor().compress(body, zstd.ZstdCompressor.FLUSH_FRAME)


def _compressor() -> Any:
    """The thread's own: making one takes longer than what it does."""
    if not hasattr(_kept, "compressor"):
        _kept.compressor = zstd.ZstdCompressor(level=LEVEL)
    return _kept.compressor


def decompress(how: int, body: bytes) -> bytes:
    """Only ever called on authenticated bytes. A missing library is an error: an empty session would lose data."""
    if how == PLAIN:
        return body
    if how == WORDS:
        return zlib.decompressobj(-WINDOW, IN_ADVANCE).decompress(body)
    if how == ZLIB:
        return zlib.decompress(body)
    if zstd is None:
        raise ImproperlyConfigured("Stored sessions are zstd-compressed: pip install 'django-multisession[speed]'.")
    return bytes(zstd.decompress(body))
