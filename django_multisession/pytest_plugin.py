"""The plugin that pytest finds by itself: one fixture, which does nothing where no test asks for it.

It stands outside of `testing/`, so that pytest does not import Django where it starts for something else.
"""

from collections.abc import Iterator

import pytest


@pytest.fixture
def isolated_sessions() -> Iterator[None]:
    """The sessions of this test are its own: see `django_multisession.testing.isolated_sessions()`."""
    from .testing import isolated_sessions

    with isolated_sessions():
        yield
