"""How the session of a user begins and ends: its public handle, and the signals."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from asgiref.sync import sync_to_async
from django.dispatch import Signal
from django.utils.crypto import salted_hmac

from .records import Record
from .signals import session_ended
from .twins import settle

BATCH = 1000  # records per removal: SQLite takes 32,766 parameters
HANDLE_LENGTH = 16  # of 64 hex digits

# Why a session ended
LOGOUT = "logout"
REVOKED = "revoked"
LIMIT = "limit"
PASSWORD = "password"  # noqa: S105  not one
DEACTIVATED = "deactivated"
DELETED = "deleted"


class Face(NamedTuple):
    """`storage` is the store's attribute with its storage; `call` runs a function of the site's, `send` a signal."""

    storage: str
    call: Callable[..., Any]
    send: Callable[..., Any]


def _send(signal: Signal, **named: Any) -> object:
    return signal.send_robust(**named)


def _asend(signal: Signal, **named: Any) -> object:
    return signal.asend_robust(**named)


SYNC = Face("storage", lambda function, *arguments: function(*arguments), _send)
ASYNC = Face("astorage", lambda function, *arguments: sync_to_async(function)(*arguments), _asend)


def handle(record_id: str) -> str:
    """The public name of a session: neither its key nor its record's id can be had from it."""
    return salted_hmac("django_multisession.user_sessions", record_id, algorithm="sha256").hexdigest()[:HANDLE_LENGTH]


async def end(face: Face, storage: Any, records: Sequence[Record], reason: str) -> int:
    """Remove the records of users, tell the receivers of `session_ended`, and count what was there."""
    ended = 0
    for batch in _batches(records):
        removed = await storage.remove([record.id for record in batch])
        ended += removed
        if removed == len(batch):
            for record in batch:
                await tell_ended(face, record, reason)
    return ended


async def tell_ended(face: Face, record: Record, reason: str) -> None:
    await settle(face.send(session_ended, sender=Record, user_id=record.user_id, id=handle(record.id), reason=reason))


def _batches(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    # Whoever listens is told of a session once: so each removal must say which session it removed.
    size = 1 if session_ended.has_listeners(Record) else BATCH
    for at in range(0, len(records), size):
        yield records[at : at + size]
