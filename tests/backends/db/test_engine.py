import dataclasses
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.core import serializers
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connections, transaction

from django_multisession.backends.db import statements as db_statements
from django_multisession.backends.db.statements import read_sql as _read_sql
from django_multisession.exceptions import EngineUnavailable, SessionConflict
from django_multisession.models import Session
from django_multisession.records import utcnow
from django_multisession.testing.contract import *  # noqa: F403
from django_multisession.testing.faces import SyncFace
from django_multisession.testing.stored import a_record, saved
from django_multisession.twins import run_sync
from tests.routers import SessionRouter


@pytest.fixture(params=["sqlite", "postgres", "mysql"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rows(Store):
    return Session.objects.using(SessionRouter.alias)


def test_a_row_is_a_record(verbs, rows):
    verbs.insert(record := a_record(user_id="42"))
    row = rows.get()
    assert (row.session_id, bytes(row.data), row.user_id, row.version) == (record.id, record.payload, "42", 1)
    assert (row.created_at, row.updated_at, row.expires_at) == (record.created_at,) * 2 + (record.expires_at,)
    assert str(row) == record.id


def test_rows_are_queried_by_moments(verbs, rows, settings):
    verbs.insert(a_record())
    assert rows.filter(expires_at__gt=utcnow(), created_at__lte=utcnow()).count() == 1
    settings.USE_TZ = False
    naive = rows.get().expires_at
    assert naive.tzinfo is None
    assert rows.filter(expires_at=naive).exists()
    row = rows.get()
    row.expires_at = naive + timedelta(hours=1)
    row.save()
    assert rows.get().expires_at == naive + timedelta(hours=1)


def test_hot_statements_are_compiled_once_per_database_and_reused(Store, face):
    saved(face, Store)
    before = _read_sql.cache_info().misses
    for _ in range(5):
        face(Store(saved(face, Store))).load()
    assert _read_sql.cache_info().misses <= before + 1


def test_purge_takes_no_more_than_its_limit_and_the_oldest_first(verbs, rows):
    for hours, letter in enumerate("cab", 1):
        verbs.insert(a_record(letter * 64, expires_at=utcnow() - timedelta(hours=hours)))
    assert verbs.purge(utcnow(), 2) == 2
    assert [row.session_id for row in rows.all()] == ["c" * 64]


def test_clearsessions_of_django_purges(Store, face, rows, settings):
    session = face(Store())
    session.set_expiry(-10)
    session.save()
    key = saved(face, Store)
    assert rows.count() == 2
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.sessions"]
    call_command("clearsessions")
    assert rows.count() == 1
    assert face(Store()).exists(key)


def test_a_collision_inside_a_transaction_does_not_break_it(verbs, Store, rows):
    record = a_record()
    with transaction.atomic(using=SessionRouter.alias):
        assert run_sync(Store.storage.insert(record)) is True
        assert run_sync(Store.storage.insert(record)) is False
        assert run_sync(Store.storage.read(record.id)) == record
    assert rows.count() == 1


def test_what_a_transaction_rolls_back_is_not_saved(Store, rows):
    """As with Django's own engine: a save inside the view's transaction is part of it."""
    with transaction.atomic(using=SessionRouter.alias):
        Store().create()
        transaction.set_rollback(True, using=SessionRouter.alias)
    assert rows.count() == 0


@pytest.mark.parametrize("engine_name", ["mysql"])
def test_a_conflict_under_an_old_snapshot_is_resolved(Store, engine_name):
    """MySQL's REPEATABLE READ: an UPDATE sees the newest version, a plain SELECT the one of the snapshot."""
    key = saved(SyncFace(), Store, a=1)
    connection = connections[SessionRouter.alias]
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    with transaction.atomic(using=SessionRouter.alias):
        session = Store(key)
        session["mine"] = 1
        with ThreadPoolExecutor(1) as elsewhere:
            elsewhere.submit(save_elsewhere, Store, key).result()
        session.save()
    assert Store(key)["mine"] == 1


def save_elsewhere(Store, key):
    session = Store(key)
    session["theirs"] = 1
    session.save()
    connections.close_all()


def test_a_save_that_never_comes_through_gives_up(Store, face, verbs, monkeypatch):
    session = face(Store(saved(face, Store)))
    session["a"] = 1

    async def conflict(self, record):
        return dataclasses.replace(record, created_at=record.created_at - timedelta(days=1))

    monkeypatch.setattr("django_multisession.backends.db.storage.DbStorage.replace", conflict)
    with pytest.raises(SessionConflict, match="1000 attempts"):
        session.save()


def test_the_session_table_is_where_the_router_says(Store, face):
    saved(face, Store)
    others = [alias for alias in connections if alias != SessionRouter.alias]
    assert all(Session.objects.using(alias).count() == 0 for alias in others)


def test_rows_go_through_dumpdata_and_loaddata(verbs, rows):
    verbs.insert(record := a_record(user_id="9"))
    [loaded] = serializers.deserialize("json", serializers.serialize("json", rows.all()))
    verbs.remove([record.id])
    loaded.save(using=SessionRouter.alias)
    assert verbs.read(record.id) == record


def test_a_save_that_a_savepoint_takes_back_is_made_again(Store):
    key = saved(SyncFace(), Store, a=1)
    session = Store(key)
    with transaction.atomic(using=SessionRouter.alias):
        session["a"] = 2
        session.save()
        transaction.set_rollback(True, using=SessionRouter.alias)
    assert Store(key)["a"] == 1
    session.save()
    assert Store(key)["a"] == 2


def test_an_error_leaves_a_connection_without_autocommit_open(Store):
    alias = SessionRouter.alias
    transaction.set_autocommit(False, using=alias)
    try:
        saved(SyncFace(), Store)
        with pytest.raises(EngineUnavailable):
            run_sync(Store.storage._ask(lambda alias: connections[alias].cursor().execute("nonsense")))
        assert connections[alias].connection is not None
        assert transaction.get_autocommit(using=alias) is False
    finally:
        transaction.rollback(using=alias)
        transaction.set_autocommit(True, using=alias)
    assert Session.objects.using(alias).count() == 0


def test_the_app_must_be_installed(Store, settings):
    db_statements.session_model.cache_clear()
    settings.INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
    with pytest.raises(ImproperlyConfigured, match="INSTALLED_APPS"):
        Store().create()
