import pytest

from tests.contract import *  # noqa: F403


@pytest.fixture
def engine_name() -> str:
    return "redis"
