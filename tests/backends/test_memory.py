import pytest

from django_multisession.testing.contract import *  # noqa: F403


@pytest.fixture
def engine_name() -> str:
    return "memory"
