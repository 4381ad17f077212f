"""The old side in a table: one of the site's own, one that requests read in a transaction, one full of expired rows."""

from datetime import timedelta

import pytest
from django.core import checks
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_multisession.backends import moving
from django_multisession.backends.moving.plan import plan
from django_multisession.backends.moving.walking import left

from .conftest import saved_on
from .own_table import OwnSession, SessionStore


class ToPostgres:
    def db_for_write(self, model, **hints):
        return "postgres" if model._meta.label == "sessions.Session" else None

    db_for_read = db_for_write


@pytest.fixture
def own_table(site, settings):
    settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, "from": SessionStore.__module__}
    with connection.schema_editor() as editor:
        editor.create_model(OwnSession)
    yield
    with connection.schema_editor() as editor:
        editor.delete_model(OwnSession)


def test_a_table_of_the_sites_own(site, own_table, face):
    used, *keys = [saved_on(SessionStore, _auth_user_id="9", n=number) for number in range(4)]
    assert face(site.at("move")(used)).load() == {"_auth_user_id": "9", "n": 0}
    assert face.functions(moving).move().moved == 3
    assert OwnSession.objects.count() == 0
    assert [site.new(key)["n"] for key in keys] == [1, 2, 3]
    face(site.at("back")(used)).load()
    assert list(OwnSession.objects.values_list("session_key", "account_id")) == [(used, 9)]


def test_a_table_of_the_sites_own_needs_no_app_of_djangos(own_table, settings):
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "django.contrib.sessions"]
    assert "django_multisession.E033" not in {message.id for message in checks.run_checks()}


@pytest.fixture
def on_postgres(site, settings):
    settings.DATABASE_ROUTERS = [f"{__name__}.ToPostgres", *settings.DATABASE_ROUTERS]
    model = site.old.get_model_class()
    with connections["postgres"].schema_editor() as editor:
        editor.create_model(model)
    yield
    with connections["postgres"].schema_editor() as editor:
        editor.delete_model(model)


def is_locked(key):
    """As another connection has it, which does not wait."""
    other = connections["postgres"].copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT 1 FROM django_session WHERE session_key = %s FOR UPDATE SKIP LOCKED", [key])
            return cursor.fetchone() is None
    finally:
        other.close()


@pytest.mark.parametrize("phase", ["prepare", "back"])
def test_who_reads_in_a_transaction_keeps_nobody_waiting(site, on_postgres, phase):
    key = saved_on(site.old, a=1)
    with transaction.atomic(using="postgres"):
        assert site.at(phase)(key).load() == {"a": 1}
        assert not is_locked(key)
    with transaction.atomic(using="postgres"):
        site.at("move")(key).load()
        assert is_locked(key)  # which is on its way out


def test_what_is_left_is_counted_in_one_statement(site):
    for number in range(3):
        saved_on(site.old, n=number)
    expired = saved_on(site.old, a=1)
    sessions = site.old.get_model_class().objects
    sessions.filter(session_key=expired).update(expire_date=timezone.now() - timedelta(days=1))
    with CaptureQueriesContext(connection) as queries:
        assert left(plan()) == 3
        assert left(plan(), at_most=1) == 1
    assert len(queries) == 2
