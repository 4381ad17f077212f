"""Every promise of an engine, written once and run for each engine on both faces.

An engine's test module names its engine and takes the tests over::

    from django_multisession.testing.contract import *

    @pytest.fixture
    def engine_name() -> str:
        return "mysite.sessions"

The fixtures are in `django_multisession.testing.fixtures`, which a conftest.py names in `pytest_plugins`.
"""

from .bad_input import TestBadInput
from .deleted import TestDeletedStaysDeleted
from .dropin import TestDropIn
from .expiry import TestExpiry
from .races import TestRaces
from .saving import TestASaveAsks
from .storage import TestStorage
from .users import TestUserLink

__all__ = [
    "TestASaveAsks",
    "TestBadInput",
    "TestDeletedStaysDeleted",
    "TestDropIn",
    "TestExpiry",
    "TestRaces",
    "TestStorage",
    "TestUserLink",
]
