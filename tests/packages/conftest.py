"""Other people's packages over each engine."""

from collections.abc import Iterator
from typing import Any

import pytest

from ..browsers import new_user
from ..conftest import ENGINES


@pytest.fixture(params=list(ENGINES))
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ann(Store: Any) -> Iterator[Any]:
    user = new_user("ann")
    yield user
    user.delete()
