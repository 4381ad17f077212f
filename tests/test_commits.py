"""After a commit: what the package does then keeps nobody else's `on_commit()` hooks from running."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections, transaction
from django.test import override_settings

from django_multisession import lifecycle, user_sessions
from django_multisession.exceptions import EngineUnavailable
from django_multisession.signals import session_ended, session_started

from .browsers import AUTH, OURS, new_user
from .contract import saved
from .routers import SessionRouter
from .test_outages import using

NAMES = ["ann", "bob", "cyd"]
ANN = "1"
SCHEMES = {"redis": "redis", "mongodb": "mongodb", "postgres": "postgresql"}


@pytest.fixture(autouse=True)
def _middleware() -> Iterator[None]:
    with override_settings(MIDDLEWARE=[OURS, AUTH]):
        yield


@pytest.fixture
def users() -> Iterator[list[Any]]:
    yield [new_user(name) for name in NAMES]
    with override_settings(MULTISESSION_REVOKE_ON=[]):
        User.objects.filter(username__in=NAMES).delete()


@pytest.fixture
def away(users: list[Any], request: pytest.FixtureRequest) -> Iterator[None]:
    """The store of the sessions is at a port where nobody listens."""
    kind = getattr(request, "param", "redis")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with using(kind, f"{SCHEMES[kind]}://127.0.0.1:{port}/{0 if kind == 'redis' else 'x'}"):
        yield


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [record for record in caplog.records if record.name == "django_multisession"]
    assert all(record.levelname == "ERROR" for record in records)
    return [record.getMessage() for record in records]


def change(user: Any, how: str) -> None:
    if how == "deleted":
        user.delete()
        return
    if how == "password":
        user.set_password("new")
    user.is_active = how != "deactivated"
    user.save()


@pytest.mark.parametrize("away", ["redis", "mongodb", "postgres"], indirect=True)
@pytest.mark.parametrize("how", ["password", "deactivated", "deleted"])
def test_of_a_store_that_is_away_each_user_is_told_and_all_hooks_run(users, away, how, face, caplog):
    ran, keys = [], [user.pk for user in users]

    def change_all() -> None:
        with transaction.atomic():
            for user in users:
                transaction.on_commit(lambda: ran.append("before"))
                change(user, how)
                transaction.on_commit(lambda: ran.append("after"))

    face.run(change_all)
    assert ran == ["before", "after"] * 3
    lines = errors(caplog)
    assert [line.partition(": ")[0] for line in lines] == [
        f"Sessions of user {key} were not ended ({how})" for key in keys
    ]


@pytest.mark.parametrize("how", ["password", "deactivated"])
def test_without_a_transaction_a_save_raises(users, away, how, caplog):
    with pytest.raises(EngineUnavailable):
        change(users[0], how)
    assert errors(caplog) == []


@pytest.mark.parametrize("how", ["password", "deactivated"])
def test_so_does_an_asynchronous_one(users, away, how, runner):
    users[0].set_password("new")
    users[0].is_active = how != "deactivated"
    with pytest.raises(EngineUnavailable):
        runner.run(users[0].asave())


def test_a_deletion_is_a_transaction_of_its_own(users, away, caplog):
    ran = []
    for each in users:
        with transaction.atomic():
            transaction.on_commit(lambda: ran.append("hook"))
            each.delete()
    User.objects.filter(username__in=NAMES).delete()
    assert (len(errors(caplog)), ran) == (3, ["hook"] * 3)


def test_any_other_error_is_told_with_its_traceback(users, caplog, monkeypatch):
    async def broken(*_arguments: Any) -> int:
        raise ZeroDivisionError("a bug")

    ran = []
    monkeypatch.setattr(user_sessions, "end_all", broken)
    with transaction.atomic():
        change(users[0], "deactivated")
        transaction.on_commit(lambda: ran.append("hook"))
    assert errors(caplog) == [f"Sessions of user {users[0].pk} were not ended (deactivated): a bug"]
    assert caplog.records[-1].exc_info
    assert ran == ["hook"]


def test_a_rollback_to_a_savepoint_ends_nothing(users, away, caplog):
    with transaction.atomic(), transaction.atomic():
        change(users[0], "deactivated")
        transaction.set_rollback(True)
    assert errors(caplog) == []


def test_a_site_that_manages_transactions_by_hand(users, Store):
    """Django refuses `on_commit()` there; a user can be saved all the same."""
    saved(lambda store: store, Store, _auth_user_id=str(users[0].pk))
    transaction.set_autocommit(False)
    try:
        change(users[0], "deactivated")
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    assert user_sessions.count(users[0]) == 0


@pytest.mark.parametrize("engine_name", ["sqlite", "postgres"])
class TestLogIns:
    """With SQL in a transaction, what follows a log-in or log-out waits for the commit too."""

    @pytest.mark.parametrize("what", ["a log-in", "a revocation"])
    def test_what_fails_then_is_told_and_all_hooks_run(self, Store, face, what, monkeypatch, caplog):
        def listener(**_named: Any) -> None: ...

        async def unreachable(*_arguments: Any) -> None:
            raise EngineUnavailable("gone fishing")

        ran: list[str] = []

        def work() -> None:
            with transaction.atomic(using=SessionRouter.alias):
                transaction.on_commit(lambda: ran.append("before"), using=SessionRouter.alias)
                saved(lambda store: store, Store, _auth_user_id=ANN)
                transaction.on_commit(lambda: ran.append("between"), using=SessionRouter.alias)
                if what == "a revocation":
                    user_sessions.revoke_all(ANN)
                transaction.on_commit(lambda: ran.append("after"), using=SessionRouter.alias)
                monkeypatch.setattr(lifecycle, "_tell" if what == "a revocation" else "_begin", unreachable)

        session_started.connect(listener)
        session_ended.connect(listener)
        try:
            face.run(work)
        finally:
            session_started.disconnect(listener)
            session_ended.disconnect(listener)
        assert ran == ["before", "between", "after"]
        assert set(errors(caplog)) == {"What follows a log-in or log-out has failed after the commit: gone fishing"}

    def test_a_limit_that_cannot_be_asked_leaves_no_session(self, Store, caplog):
        ran = []

        def broken(user_id: str) -> int:
            raise ZeroDivisionError("a bug")

        with override_settings(MULTISESSION_MAX_PER_USER=broken), transaction.atomic(using=SessionRouter.alias):
            key = saved(lambda store: store, Store, _auth_user_id=ANN)
            transaction.on_commit(lambda: ran.append("after"), using=SessionRouter.alias)
        assert ran == ["after"]
        assert not Store().exists(key)
        assert errors(caplog) == ["What follows a log-in or log-out has failed after the commit: a bug"]


def test_the_hooks_know_the_transaction_of_the_users_database(users, away, caplog):
    """That of another database has nothing to say."""
    assert "postgres" in connections
    with transaction.atomic(using="postgres"), pytest.raises(EngineUnavailable):
        change(users[0], "deactivated")
