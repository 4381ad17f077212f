"""Whether this process runs a site's tests, and a warning where they would work on the site's own sessions."""

import re
import sys
import warnings
from collections.abc import Iterable

# The modules of Django's that run checks and what follows `migrate`.
BEFORE_TESTS = "django.core.checks.registry", "django.core.management.sql"
OF_TESTS = re.compile(r"(?<![a-z])tests?(?![a-z])", re.IGNORECASE)


class SitesOwnStore(RuntimeWarning):
    """Tests are about to use a session store whose name does not say that it is for tests."""


def is_running() -> bool:
    """Whether Django's test environment is set up, as `manage.py test` and pytest-django do.

    Django has no public name for that. It is looked up, since importing `django.test` takes a deployed site too long.
    """
    state = getattr(sys.modules.get("django.test.utils"), "_TestState", None)
    return hasattr(state, "saved_data")


def is_looked_at() -> bool:
    """Whether Django looks at the store while it prepares a run of tests: that is no use of it by a test."""
    frame = sys._getframe() if is_running() else None
    while frame and frame.f_globals.get("__name__") not in BEFORE_TESTS:
        frame = frame.f_back
    return frame is not None


def warn_of_own(names: Iterable[str]) -> None:
    """`names`: of the store, as the settings give them. One that has the word "test" in it is for tests."""
    if is_running() and not any(map(OF_TESTS.search, names := list(names))):
        warnings.warn(
            f"These tests use the session store of the site itself ({', '.join(map(repr, names))}): they sign its "
            "users out, and leave sessions behind. Use isolated_sessions() or IsolatedSessionsMixin of "
            "django_multisession.testing, or let the tests' settings give the store a name with the word 'test' in it.",
            SitesOwnStore,
            stacklevel=2,
        )
