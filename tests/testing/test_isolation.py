"""The sessions of a test are its own, on servers that have others beside them."""

import subprocess
import sys
import unittest
import warnings
from importlib.metadata import entry_points
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management.sql import emit_post_migrate_signal
from django.test import override_settings

from django_multisession import test_runs
from django_multisession.conf import conf
from django_multisession.testing import IsolatedSessionsMixin, SitesOwnStore, isolated_sessions
from django_multisession.user_sessions import revoke_all, sessions_of

OURS = [] if entry_points(group="pytest11", name="django_multisession") else ["-p", "django_multisession.pytest_plugin"]


@pytest.fixture(params=["redis", "mongodb", "memory"])
def engine_name(request) -> str:
    return str(request.param)


def signed_in(Store: Any, user_id: str = "1") -> Any:
    session = Store()
    session["_auth_user_id"] = user_id
    session.save()
    return session


def names_in(Store: Any) -> list[Any]:
    """Of all that the server holds."""
    storage = Store.storage
    if "redis" in Store.__module__:
        return sorted(storage.client.keys())
    if "mongodb" in Store.__module__:
        return sorted(storage.client.get_default_database().list_collection_names())
    return sorted(storage.records)


def test_the_sites_sessions_are_out_of_reach(Store):
    site = signed_in(Store)
    with isolated_sessions():
        assert sessions_of(1) == []
        assert not Store().exists(site.session_key)
        assert revoke_all(1).ended == 0
    assert len(sessions_of(1)) == 1


def test_nothing_is_left_behind(Store):
    signed_in(Store)
    before = names_in(Store)
    with isolated_sessions():
        signed_in(Store)
        assert len(sessions_of(1)) == 1
        assert "redis" not in Store.__module__ or len(names_in(Store)) == 4
    assert names_in(Store) == before


def test_nothing_is_left_behind_by_a_test_that_fails(Store):
    before = names_in(Store)

    @isolated_sessions()
    def fail() -> None:
        signed_in(Store)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names_in(Store) == before


@pytest.mark.parametrize("engine_name", ["redis", "mongodb"])
def test_nothing_is_left_behind_by_other_settings_within(Store):
    """They close the engine's client, and whatever is used last may be another's."""
    before = names_in(Store)
    with isolated_sessions():
        signed_in(Store)
        with override_settings(MULTISESSION_TIMEOUT=2):
            signed_in(Store)
    assert names_in(Store) == before


def test_one_within_another_leaves_the_outer_alone(Store):
    with isolated_sessions():
        outer = signed_in(Store)
        with isolated_sessions():
            assert sessions_of(1) == []
            signed_in(Store)
        assert Store().exists(outer.session_key)


def test_asynchronously_too(Store, runner):
    async def use() -> str:
        session = Store()
        await session.aset("a", 1)
        await session.asave()
        return session.session_key

    before = names_in(Store)
    with isolated_sessions():
        key = runner.run(use())
    assert names_in(Store) == before
    assert not Store().exists(key)


def test_the_mixin_covers_all_of_a_test(Store):
    seen = []

    class Test(IsolatedSessionsMixin, unittest.TestCase):
        def setUp(self) -> None:
            self.session = signed_in(Store)

        def test(self) -> None:
            seen.append(len(sessions_of(1)))

        test_again = test

    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Test)
    assert suite.run(unittest.TestResult()).wasSuccessful()
    Test("test").debug()
    assert seen == [1, 1, 1]
    assert sessions_of(1) == []


# The warning


def warned(Store: Any, **settings: Any) -> list[str]:
    with override_settings(**settings), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Store().exists("0" * 32)
    return [str(each.message) for each in caught if each.category is SitesOwnStore]


def of_its_own(Store: Any) -> bool:
    return "memory" not in Store.__module__  # is never the site's


def test_tests_on_the_sites_own_store_are_warned(Store):
    with override_settings(MULTISESSION_MAX_BYTES=4711):  # the store is asked for its names anew
        assert len(warned(Store, MULTISESSION_KEY_PREFIX="session")) == of_its_own(Store)


def test_what_django_looks_at_before_the_tests_is_no_use(Store):
    with override_settings(MULTISESSION_MAX_BYTES=4711), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run_checks(databases=["default"])
        emit_post_migrate_signal(0, False, "default")
        assert [each for each in caught if each.category is SitesOwnStore] == []
        assert len(warned(Store)) == of_its_own(Store)


def test_also_after_tests_that_were_isolated(Store):
    with isolated_sessions():
        assert warned(Store) == []
    assert len(warned(Store)) == of_its_own(Store)


def test_a_name_that_says_test_is_right(Store):
    assert warned(Store, MULTISESSION_KEY_PREFIX="mysite-test", MULTISESSION_MONGODB_COLLECTION="test_sessions") == []


@pytest.mark.parametrize("name", ["latest", "contest", "attestation"])
def test_a_word_that_has_it_within_does_not(Store, name):
    names = {"MULTISESSION_KEY_PREFIX": name, "MULTISESSION_MONGODB_COLLECTION": name}
    assert len(warned(Store, **names)) == of_its_own(Store)


def test_a_site_that_runs_is_never_warned(Store, monkeypatch):
    monkeypatch.setattr(test_runs, "is_running", lambda: False)
    assert warned(Store, MULTISESSION_KEY_PREFIX="session") == []


def test_the_client_stays_open(Store):
    client = getattr(Store.storage, "client", None)
    with isolated_sessions():
        assert getattr(Store.storage, "client", None) is client


# pytest


@pytest.mark.slow
def test_the_fixture_is_found_and_nothing_else_happens(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "from django_multisession.conf import conf\n"
        "def test_with(isolated_sessions): assert conf.KEY_PREFIX.startswith('session-test-')\n"
        "def test_without(): assert conf.KEY_PREFIX == 'session'\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", *OURS, "-p", "no:cacheprovider", "-p", "no:cov", "test_it.py"]
    (tmp_path / "conftest.py").write_text("from django.conf import settings\nsettings.configure()\n")
    done = subprocess.run(command, cwd=tmp_path, env=_environment(), capture_output=True, text=True, timeout=120)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_does_not_import_django():
    code = "import sys, django_multisession.pytest_plugin; print('django' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=_environment(), capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def _environment() -> dict[str, str]:
    import os
    from pathlib import Path

    import django_multisession

    of_this_run = "DJANGO_SETTINGS_MODULE", "PYTEST_"
    without = {name: value for name, value in os.environ.items() if not name.startswith(of_this_run)}
    return {**without, "PYTHONPATH": str(Path(django_multisession.__file__).parents[1])}


def test_names_are_those_of_this_process():
    with isolated_sessions():
        first = conf.KEY_PREFIX
    with isolated_sessions():
        assert first == conf.KEY_PREFIX
