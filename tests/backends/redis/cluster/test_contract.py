"""The whole contract on three primaries with a replica each."""

import pytest

from django_multisession.testing.contract import *  # noqa: F403
from tests.backends.redis.test_engine import TestExpiry, TestStorage  # noqa: F401

pytestmark = pytest.mark.slow
