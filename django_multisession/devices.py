"""What is recorded at a log-in: when it was, and with `MULTISESSION_TRACK_CLIENT` from where.

In the session's data, so it is signed or sealed with them and goes with the session::

    _login_at  seconds since 1970
    _client    {"ip": <text or null>, "user_agent": <text>}

The IP address is `REMOTE_ADDR`, or what the function of `MULTISESSION_CLIENT_IP` answers; with "anonymize" its network:
/24 of IPv4, /48 of IPv6. Whatever is no IP address is not recorded. Of the `User-Agent` header 256 printable characters
are kept.
"""

import time
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from django.utils.translation import gettext as _

from .conf import conf, function

try:
    import ua_parser
except ImportError:  # the devices extra
    ua_parser = None  # type: ignore[assignment]

LOGIN_AT_KEY = "_login_at"
CLIENT_KEY = "_client"
LONGEST_USER_AGENT = 256  # characters
LARGEST_CACHE = 1024
ANONYMIZE = "anonymize"
NETWORKS = {4: 24, 6: 48}  # bits that anonymous addresses keep


def note_login(request: Any, **_kwargs: object) -> None:
    """A receiver of Django's `user_logged_in`, which is sent before the session is saved. Does no I/O."""
    from .backends.base import SessionStore

    if not isinstance(session := getattr(request, "session", None), SessionStore):
        return
    session[LOGIN_AT_KEY] = int(time.time())
    session.pop(CLIENT_KEY, None)
    if conf.TRACK_CLIENT:
        session[CLIENT_KEY] = {"ip": ip_of(request), "user_agent": _printable(request.META.get("HTTP_USER_AGENT", ""))}


def ip_of(request: Any) -> str | None:
    """The address to record."""
    given = function(conf.CLIENT_IP)(request) if conf.CLIENT_IP else request.META.get("REMOTE_ADDR")
    try:
        address = ip_address(str(given).strip())
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or IPv6Address(int(address))  # without the zone, which is the server's own name
    if conf.TRACK_CLIENT != ANONYMIZE:
        return str(address)
    return str(ip_network((address, NETWORKS[address.version]), strict=False).network_address)


def _printable(header: str) -> str:
    return "".join(character for character in header[:LONGEST_USER_AGENT] if character.isprintable())


def name_of(user_agent: str | None) -> str | None:
    """ "Firefox on Linux", or `None`: unknown, or ua-parser is not there."""
    if not user_agent or ua_parser is None:
        return None
    browser, system = _parsed(user_agent)
    if browser and system:
        return _("%(browser)s on %(system)s") % {"browser": browser, "system": system}
    return browser or system


@lru_cache(LARGEST_CACHE)
def _parsed(user_agent: str) -> tuple[str | None, str | None]:
    found = ua_parser.parse(user_agent)
    browser, system = found.user_agent, found.os
    return browser.family if browser else None, system.family if system else None
