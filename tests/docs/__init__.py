"""The code on the pages, run."""

import pytest

pytest.register_assert_rewrite("tests.docs.commands", "tests.docs.site", "tests.docs.worlds")
