"""What a purge makes of a lease that it may have lost."""

import time
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine
from django.db import connections

from django_multisession.databases import guarded
from django_multisession.purge import lease, purge
from django_multisession.records import utcnow

from ..purging import expired, left
from ..routers import SessionRouter
from .test_purge import InAnotherProcess, elsewhere


@pytest.fixture
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "sqlite"))


def other_connection(progress: Any) -> None:
    connections[SessionRouter.alias].close()


@pytest.mark.parametrize("engine_name", ["mysql", "postgres"], indirect=True)
def test_a_lock_is_got_anew_on_another_connection(Store):
    expired(6)
    reasons = []

    def meanwhile(progress: Any) -> None:
        with InAnotherProcess():
            reasons.append(elsewhere(purge).reason)
        other_connection(progress)

    # The first time it is held, later too: the next batch got it on the new connection.
    assert purge(batch_size=2, progress=meanwhile).reason == "done"
    assert set(reasons) == {"running"}
    assert left() == set()


@pytest.mark.parametrize("engine_name", ["mysql", "postgres"], indirect=True)
def test_who_lost_the_lock_to_another_stops(Store):
    expired(6)
    taken, end = Event(), Event()

    def other() -> None:
        held = lease.Lease(SessionRouter.alias, "django_multisession_session")
        lock = lease._lock(held)
        assert lock.acquire()
        taken.set()
        end.wait(60)
        lock.release()
        connections.close_all()

    thread = Thread(target=other)

    def lose(progress: Any) -> None:
        other_connection(progress)
        if not thread.is_alive():
            while_waiting = time.monotonic() + 60
            thread.start()
            assert taken.wait(while_waiting - time.monotonic())

    try:
        assert purge(batch_size=2, progress=lose).reason == "running"
    finally:
        end.set()
        thread.join()
    assert len(left()) == 4


def test_a_row_is_renewed_though_the_clock_stands_still(Store, monkeypatch):
    """As in tests that freeze it, or where it was set back."""
    with time_machine.travel(utcnow(), tick=False):
        held = lease.Lease(SessionRouter.alias, "django_multisession_session")
        assert held.acquire()
        assert not held.lock._is_due()
        later = time.monotonic() + lease.RENEWED.total_seconds()
        monkeypatch.setattr(lease, "time", SimpleNamespace(monotonic=lambda: later))
        assert held.lock._is_due()
        assert held.renew()
        assert not held.lock._is_due()
        held.release()


def test_threads_that_share_a_connection_leave_its_text_as_it_was(Store):
    """Whoever comes first goes first here: in any other order nothing could go wrong."""
    connection = connections["default"]
    connection.ensure_connection()
    before = connection.connection.text_factory
    inside, leave = Event(), Event()
    seen: list[str] = []

    def first() -> None:
        guarded("default", lambda: (inside.set(), leave.wait(60)))

    def second() -> None:
        assert inside.wait(60)
        leave.set()
        thread.join(60)
        with connection.cursor() as cursor:
            cursor.execute("SELECT CAST(X'61FF' AS TEXT)")
            seen.append(cursor.fetchone()[0])

    connection.inc_thread_sharing()
    try:
        thread = Thread(target=lambda: (connections.__setitem__("default", connection), first()))
        thread.start()
        assert inside.wait(60)
        guarded("default", second)
    finally:
        connection.dec_thread_sharing()
    assert seen == ["a\udcff"]
    assert connection.connection.text_factory is before
