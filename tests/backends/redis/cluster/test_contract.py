"""The whole contract on three primaries with a replica each."""

from django_multisession.testing.contract import *  # noqa: F403
from tests.backends.redis.test_engine import TestExpiry, TestStorage  # noqa: F401
