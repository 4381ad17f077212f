"""What is recorded at a log-in: when it was, and with `MULTISESSION_TRACK_CLIENT` from where.

In the session's data, so it is signed or sealed with them and goes with the session::

    _login_at  seconds since 1970
    _login_of  <user id or null>: who has signed in at _login_at, only where that is another than the session's user
    _client    {"ip": <text or null>, "user_agent": <text>}

The IP address is `REMOTE_ADDR`, or what the function of `MULTISESSION_CLIENT_IP` answers; with "anonymize" its network:
/24 of IPv4, /48 of IPv6. Whatever is no IP address is not recorded. Of the `User-Agent` header 256 printable characters
are kept.

Not every `login()` is a log-in: somebody of the staff looks in as a user. Such a one is known by
`not_an_authentication()`, or by what django-hijack puts into the session after its `login()`, which is looked at when
the session is saved. It changes neither `_login_at` nor the record's `created_at`, though `login()` flushes the session
of the one user before it makes that of the other, and nobody's limit counts the session.
"""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any, NamedTuple

from django.contrib.auth import SESSION_KEY as USER_ID_KEY
from django.contrib.sessions.backends.base import SessionBase

from ..conf import conf, function
from ..payload import codecs
from ..records import Record, to_epoch, utcnow

if TYPE_CHECKING:
    from ..backends.state import SessionState
from .. import engine

LOGIN_AT_KEY = "_login_at"
LOGIN_OF_KEY = "_login_of"
HIJACK_KEY = "hijack_history"  # of django-hijack: primary keys, one more after each take-over, one less after a release
CLIENT_KEY = "_client"
LONGEST_USER_AGENT = 256  # characters
ANONYMIZE = "anonymize"
NETWORKS = {4: 24, 6: 48}  # bits that anonymous addresses keep


class Login(NamedTuple):
    """A `login()` that is not saved yet, and what the session was before it."""

    is_one: bool
    before: dict[str, Any]  # the data
    user_id: str | None
    created_at: datetime | None


def note_login(request: Any, **_kwargs: object) -> None:
    """A receiver of Django's `user_logged_in`, which is sent before the session is saved. Does no I/O."""
    if (session := _own(request)) is None:
        return
    session._login = login = _login(session)
    session[LOGIN_AT_KEY] = int(time.time())
    for key in (LOGIN_OF_KEY, CLIENT_KEY):
        session.pop(key, None)
    if conf.TRACK_CLIENT:
        session[CLIENT_KEY] = {"ip": ip_of(request), "user_agent": agent_of(request)}
    if not login.is_one:
        _take_back(session, login)


def _own(request: Any) -> "SessionState | None":
    session: Any = getattr(request, "session", None)
    return session if engine.is_ours(type(session)) else None


def _login(session: "SessionState") -> Login:
    # From the record's bytes: django-hijack changes its list in place.
    record = session._record if session.session_key else session._flushed
    before = session._data_of(record) or {}
    user_id, created_at = (record.user_id, record.created_at) if record else (None, None)
    return Login(session._authenticates, before, user_id, created_at)


def _take_back(session: "SessionState", login: Login) -> None:
    """Put in what the session knew of log-ins before."""
    whose = login.before.get(LOGIN_OF_KEY, login.user_id)
    for key in (LOGIN_AT_KEY, LOGIN_OF_KEY):
        session.pop(key, None)
    if LOGIN_AT_KEY in login.before:
        session[LOGIN_AT_KEY] = login.before[LOGIN_AT_KEY]
    if whose != session.get(USER_ID_KEY):
        session[LOGIN_OF_KEY] = whose


@contextmanager
def not_an_authentication(request: Any) -> Iterator[None]:
    """See `user_sessions.not_an_authentication()`."""
    if isinstance(request, SessionBase):
        raise TypeError("Give the request, not its session.")
    if (session := _own(request)) is None:
        yield
        return
    before, session._authenticates = session._authenticates, False
    try:
        yield
    finally:
        session._authenticates = before


# For the store, when it saves
def settle_login(session: "SessionState") -> None:
    """Before a save: by now django-hijack has marked the session."""
    login, data = session._login, session._session_cache
    if login and login.is_one and data.get(HIJACK_KEY) not in (None, login.before.get(HIJACK_KEY)):
        session._login = login._replace(is_one=False)
        _take_back(session, login)


def user_before(session: "SessionState", stored: Record) -> str | None:
    """Whose the session was. Who signs in where somebody has looked in begins a session."""
    login = session._login
    return None if login and login.is_one and LOGIN_OF_KEY in login.before else stored.user_id


def since(session: "SessionState") -> datetime | None:
    """The `created_at` that goes on after a `login()` that is no log-in; `None`: it starts anew."""
    login = session._login
    return None if login is None or login.is_one else login.created_at or utcnow()


# For others
def is_looked_into(record: Record) -> bool:
    """Whether somebody else looks in as the user."""
    return LOGIN_OF_KEY in codecs.data_of(record)


def login_at(session: Any) -> float | None:
    """When the user has signed in, in seconds since 1970; `None`: that is not known, or it was somebody else.

    `session` may be anything that other middleware has put into the request.
    """
    if not isinstance(session, SessionBase | Mapping) or LOGIN_OF_KEY in session:
        return None
    at, record = session.get(LOGIN_AT_KEY), getattr(session, "_record", None)
    if isinstance(at, int | float):
        return at
    return to_epoch(record.created_at) / 1000 if isinstance(record, Record) else None  # before the app was installed


# From where
def ip_of(request: Any) -> str | None:
    """The address to record."""
    given = function(conf.CLIENT_IP)(request) if conf.CLIENT_IP else request.META.get("REMOTE_ADDR")
    try:
        address = ip_address(str(given).strip())
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or IPv6Address(int(address))  # without the zone, which is the server's own name
    return network_of(str(address)) if conf.TRACK_CLIENT == ANONYMIZE else str(address)


def network_of(ip: str | None) -> str | None:
    """ "192.0.2.0" of "192.0.2.77"."""
    if ip is None:
        return None
    address = ip_address(ip)
    return str(ip_network((address, NETWORKS[address.version]), strict=False).network_address)


def agent_of(request: Any) -> str:
    return _printable(request.META.get("HTTP_USER_AGENT", ""))


def agent_in(client: Mapping[str, Any]) -> str | None:
    """What was recorded, as it would be now: a session that was moved here may have anything in it."""
    agent = client.get("user_agent")
    return _printable(agent) if isinstance(agent, str) else None


def _printable(header: str) -> str:
    """No control characters, none that turn the direction of the text, none without width."""
    cut = header[:LONGEST_USER_AGENT]
    return cut if cut.isprintable() else "".join(filter(str.isprintable, cut))


def client_of(record: Record) -> dict[str, Any]:
    """What was recorded at the log-in; empty where nothing was."""
    client = codecs.data_of(record).get(CLIENT_KEY)
    return client if isinstance(client, dict) else {}


def kind_of(user_agent: str) -> str:
    """By which two browsers are told apart: the header without version numbers, so an update is no other browser."""
    return re.sub(r"\d[\d._]*", "", user_agent)
