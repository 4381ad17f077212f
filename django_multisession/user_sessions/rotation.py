"""`cycle_key()` and the requests that run beside it: where a session goes on whose key has been cycled.

A rotation in which the user and the password stay the same (`SECRET_KEY` was rotated, or the site cycles the key by
itself) is no log-out for the requests that had loaded the session before. For them it leaves a mark, for `MARK_AGE`::

    insert   the copy, its data with `_copy_of`: <the old id>, which its next save leaves out
    insert   the mark, a record under SHA-256("rotated" <the old id>), whose payload is of the kind codecs.ROTATED:
             <the copy's id, 32 bytes> <the new key, xor SHAKE-256("rotated" <the old key> <the copy's id>)>
    replace  the old record by an empty one of that kind: what others have saved meanwhile is merged into the copy
    remove   the old record. If it was gone, then or before, the session has been ended: the copy and the mark go too

So who looks for the old key finds nothing, the new key is only for who has the old one, and of two requests that rotate
at once the one whose mark is refused goes on under the other's key. Who ends a session and does not find it looks for
its mark, and ends what goes on under it: that takes the id alone. A session that is there twice meanwhile counts once.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from hashlib import sha256, shake_256
from typing import Any, cast

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model, load_backend
from django.core.exceptions import ValidationError
from django.utils.crypto import constant_time_compare

from ..exceptions import PayloadUnreadable
from ..payload import codecs
from ..records import Record, identify, utcnow
from ..twins import Face, settle

COPY_OF = "_copy_of"
LOGIN_KEYS = SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY
MARK_AGE = timedelta(seconds=30)  # requests that had loaded the session are over by then
ID_SIZE = 32  # bytes


def log_in_of(data: dict[str, Any]) -> dict[str, Any]:
    """What `django.contrib.auth` keeps of a log-in in the session."""
    return {key: data[key] for key in LOGIN_KEYS if key in data}


def without_log_in(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key not in LOGIN_KEYS}


async def is_same(face: Face, ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether a request with our log-in may go on in the session with theirs."""
    return ours.get(SESSION_KEY) == theirs.get(SESSION_KEY) and (ours == theirs or await is_accepted(face, ours))


async def is_accepted(face: Face, log_in: dict[str, Any]) -> bool:
    """Whether the log-in was made with the user's password of today, as Django asks it. Asks the users' database.

    One that says nothing of a password, or is nobody's any more, has none to differ from.
    """
    if HASH_SESSION_KEY not in log_in or BACKEND_SESSION_KEY not in log_in:
        return True
    return bool(await settle(face.call(_is_accepted, log_in)))


def _is_accepted(log_in: dict[str, Any]) -> bool:
    if log_in[BACKEND_SESSION_KEY] not in settings.AUTHENTICATION_BACKENDS:
        return True  # Django takes it for nobody's
    try:
        pk = cast(Any, get_user_model())._meta.pk.to_python(log_in[SESSION_KEY])
    except ValidationError:
        return True
    user = load_backend(log_in[BACKEND_SESSION_KEY]).get_user(pk)
    if user is None or not hasattr(user, "get_session_auth_hash"):
        return True
    hashes = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    return any(constant_time_compare(log_in[HASH_SESSION_KEY], each) for each in hashes)


# Marks


def mark_id(record_id: str) -> str:
    return sha256(b"rotated" + record_id.encode()).hexdigest()


def mark_under(id: str, body: bytes, expires_at: datetime, version: int = 1) -> Record:
    """A mark of any kind: a record that is no session."""
    now, payload = utcnow(), codecs.close(codecs.Serialized(codecs.ROTATED, body), id)
    return Record(id, payload, None, now, now, expires_at, version)


def mark(old_id: str, old_key: str, new_key: str) -> Record:
    """The mark that leads from an old key to the new one."""
    new_id = identify(new_key)
    body = bytes.fromhex(new_id) + _xor(new_key.encode(), old_key, new_id)
    return mark_under(mark_id(old_id), body, utcnow() + MARK_AGE)


async def retire(storage: Any, old: Record) -> Record | None:
    """Take the old record away; what it was at last, others having saved it meanwhile. `None`: it has been ended."""
    while True:
        held = await storage.replace(gone := _retired(old))
        if held == gone:
            return old if await storage.remove([old.id]) else None
        if held is None or held.is_mark or held.user_id != old.user_id:
            return None
        old = held


def _retired(old: Record) -> Record:
    now, payload = utcnow(), codecs.close(codecs.Serialized(codecs.ROTATED, b""), old.id)
    return Record(old.id, payload, None, old.created_at, now, now + MARK_AGE, old.version + 1)


async def follow(storage: Any, key: str) -> tuple[str | None, Record | None]:
    """The key under which the session of this one goes on, and its record; twice `None` where it does not."""
    while found := await successor(storage, identify(key), key):
        key = found
        if record := await newest(storage, getattr(storage, "identify", identify)(key)):
            return key, record
    return None, None


async def successor(storage: Any, old_id: str, old_key: str) -> str | None:
    """The key that the mark of the old one has for who knows it."""
    if (found := await _mark(storage, old_id)) is None:
        return None
    new_id, hidden = found
    key = _xor(hidden, old_key, new_id).decode(errors="replace")
    return key if identify(key) == new_id else None


async def _mark(storage: Any, old_id: str) -> tuple[str, bytes] | None:
    """What the mark says: the new id, and the new key for who has the old one."""
    record = await newest(storage, mark_id(old_id))
    if record is None:
        return None
    try:
        serialized, _ = codecs.open_(record.payload, record.id)
    except PayloadUnreadable:
        return None
    if len(serialized.body) <= ID_SIZE:  # another's mark
        return None
    return serialized.body[:ID_SIZE].hex(), serialized.body[ID_SIZE:]


def _xor(text: bytes, old_key: str, new_id: str) -> bytes:
    pad = shake_256(b"rotated" + old_key.encode("utf-8", "surrogatepass") + new_id.encode()).digest(len(text))
    return bytes(one ^ other for one, other in zip(text, pad, strict=True))


async def newest(storage: Any, id: str) -> Record | None:
    """As `read()`, and within a transaction what others have committed since it began."""
    record: Record | None = await getattr(storage, "read_newest", storage.read)(id)
    return record


# For who ends and who lists sessions


async def remove(storage: Any, id: str) -> str | None:
    """Remove a session, also where it goes on under another key. The id that it had; `None` if it was gone."""
    while not await storage.remove([id]):
        if (found := await _mark(storage, id)) is None:
            return None
        id, _ = found
    return id


async def remove_all(storage: Any, ids: list[str]) -> int:
    """The same for many, at once; counts them."""
    removed = int(await storage.remove(ids))
    if removed < len(ids):
        removed += sum([await _remove_successor(storage, id) for id in ids])
    return removed


async def _remove_successor(storage: Any, id: str) -> bool:
    found = await _mark(storage, id)
    return found is not None and await remove(storage, found[0]) is not None


def each_once(records: Iterable[Record]) -> list[Record]:
    """Without the copies whose original is still there."""
    records = list(records)
    ids, begun = {record.id for record in records}, Counter(record.created_at for record in records)
    # A copy began when its original did: others need not be opened.
    return [r for r in records if begun[r.created_at] == 1 or codecs.data_of(r).get(COPY_OF) not in ids]
