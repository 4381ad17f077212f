"""Change the session engine, and log nobody out.

    SESSION_ENGINE = "django_multisession.backends.moving"
    MULTISESSION_MOVE = {
        "from": "django.contrib.sessions.backends.db",    # any Django session engine, ours or not
        "to": "django_multisession.backends.redis",       # one of ours
        "phase": "prepare",                               # then "move"; "back" to return
    }

Every session is looked for on both sides, in `to` first. See `storage.py` for who has it, `taking.py` for how it
changes sides, and docs/moving.md for the deploys.
"""

from functools import lru_cache
from typing import Any

from . import checks as checks
from .bulk import Moved as Moved
from .bulk import amove as amove
from .bulk import move as move
from .plan import plan
from .store import Moving


@lru_cache(maxsize=16)
def _store_over(to: Any) -> Any:
    # To whoever asks which engine this is (checks, the purge), it is `to`: that has the pages, the limits, the index.
    return type("SessionStore", (Moving, to), {"__module__": to.__module__, "__doc__": __doc__})


def __getattr__(name: str) -> Any:
    if name == "SessionStore":
        return _store_over(plan().to)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
