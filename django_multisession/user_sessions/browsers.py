"""What a `User-Agent` header is called in a list, by ua-parser, which is imported with this module alone."""

from functools import lru_cache

from django.utils.translation import gettext as _

try:
    import ua_parser
except ImportError:  # the devices extra
    ua_parser = None  # type: ignore[assignment]

LARGEST_CACHE = 1024


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
