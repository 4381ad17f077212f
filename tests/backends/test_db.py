import pytest

from tests.contract import *  # noqa: F403


@pytest.fixture(params=["sqlite", "postgres", "mysql"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)
