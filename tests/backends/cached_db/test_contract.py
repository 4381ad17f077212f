"""The whole contract of an engine, in SQLite and PostgreSQL, over copies in Redis."""

import pytest

from django_multisession.testing.contract import *  # noqa: F403


@pytest.fixture(params=["cached_sqlite", "cached_postgres"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)
