"""The task in real workers, started by real beats, over a real broker."""

import os
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections, transaction

from django_multisession.exceptions import InvalidOption
from django_multisession.models import PurgeLease, PurgeRun, Session
from django_multisession.records import utcnow
from django_multisession.schedule import purge_schedule
from example_project.servers import PostgresServer

from .backends.test_outages import using
from .celery_processes import LONG, QUEUE, CelerySite, answer, celery_site, until
from .purging import DAY, expired, left, live
from .routers import SessionRouter

pytestmark = pytest.mark.slow

SLOWLY = {"batch_size": 10, "pause": 0.2}


@pytest.fixture
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "postgres"))


@pytest.fixture(autouse=True)
def _clean(Store: Any) -> None:
    for model in (PurgeRun, PurgeLease):
        model.objects.using(SessionRouter.alias).all().delete()


@pytest.fixture(scope="module")
def shared(django_db_setup: None) -> Iterator[CelerySite]:
    """A site on PostgreSQL with one worker, for tests that leave no task behind."""
    SessionRouter.alias = "postgres"
    with celery_site() as site:
        site.worker("--concurrency", "1")
        yield site


def started(count: int) -> bool:
    return len(left()) < count


def revive(ids: list[str]) -> None:
    """As a request does that uses sessions which have just expired."""
    Session.objects.using(SessionRouter.alias).filter(pk__in=ids).update(expires_at=utcnow() + DAY)


# Beat


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
def test_rows_expire_and_beat_has_them_purged(Store):
    kept = live(3)
    schedule = {"purge": purge_schedule(1, queue=QUEUE, jitter=1, grace=0, batch_size=100)}
    with celery_site(CELERY_BEAT_SCHEDULE=schedule) as site:
        site.worker("--concurrency", "1")
        site.beat()
        gone = expired(250, ago=timedelta(seconds=-1), step=timedelta(milliseconds=4))
        until(lambda: left() == set(kept))
        until(lambda: sum(result["rows"] for result in site.results()) == len(gone))
        assert {result["reason"] for result in site.results()} == {"done"}
        assert {result["more"] for result in site.results()} == {False}
    runs = PurgeRun.objects.all()
    assert sum(run.rows for run in runs) == len(gone)


def test_of_two_beats_one_purges(Store):
    kept = live(3)
    gone = expired(300)
    schedule = {"purge": purge_schedule(0.5, queue=QUEUE, jitter=0, **SLOWLY)}
    with celery_site(CELERY_BEAT_SCHEDULE=schedule) as site:
        site.worker("--concurrency", "2")
        for _ in range(2):
            site.beat()
        until(lambda: left() == set(kept))
        until(lambda: sum(result["rows"] for result in site.results()) == len(gone))
        refused = [result for result in site.results() if result["reason"] == "running"]
    assert refused
    assert {(result["rows"], result["batches"], result["more"]) for result in refused} == {(0, 0, True)}


def test_beat_and_worker_survive_an_outage_of_the_broker(Store):
    schedule = {"purge": purge_schedule(1, queue=QUEUE, jitter=0)}
    with celery_site(CELERY_BEAT_SCHEDULE=schedule) as site:
        worker, beat = site.worker("--concurrency", "1"), site.beat()
        until(site.results)
        site.broker.stop()
        until(lambda: b"Trying again" in worker.log.read_bytes())
        expired(25)
        site.broker.start()
        until(lambda: not left())
        assert worker.running
        assert beat.running


# Death


def test_a_task_whose_process_is_killed_is_redelivered(Store, shared):
    kept, gone = live(3), expired(300)
    result = shared.send(**SLOWLY)
    until(lambda: started(303))
    revive(gone[-2:])
    os.kill(result.info["pid"], signal.SIGKILL)
    returned = answer(result)
    assert (returned["reason"], returned["more"]) == ("done", False)
    assert left() == {*kept, *gone[-2:]}
    assert 0 < returned["rows"] < 298  # the rest went before


def test_a_task_whose_worker_is_killed_is_redelivered_to_another(Store):
    kept, gone = live(3), expired(300)
    # A worker looks for such tasks when it starts, and then seldom: by then this one is older than that.
    with celery_site(CELERY_BROKER_TRANSPORT_OPTIONS={"visibility_timeout": 1}) as site:
        worker = site.worker("--concurrency", "1")
        result = site.send(**SLOWLY)
        until(lambda: started(303))
        revive(gone[-2:])
        worker.kill()
        site.worker("--concurrency", "1")
        assert 0 < answer(result)["rows"] < 298  # the rest went before
        assert left() == {*kept, *gone[-2:]}


# Limits


def test_a_warm_shutdown_ends_it_after_the_running_batch(Store):
    expired(100)
    with celery_site() as site:
        worker = site.worker("--concurrency", "1")
        result = site.send(batch_size=10, pause=600)
        until(lambda: started(100))
        worker.process.send_signal(signal.SIGTERM)
        worker.process.wait(LONG)
        returned = answer(result, 1)
    assert returned.pop("seconds") < 600
    assert returned == {"rows": 10, "batches": 1, "more": True, "reason": "stopped"}
    assert len(left()) == 90


def test_the_soft_time_limit_ends_it_after_the_running_batch(Store, shared):
    """Even where it strikes in a statement that waits for a lock."""
    expired(100)
    table = Session._meta.db_table
    connection = connections[SessionRouter.alias]
    with transaction.atomic(using=SessionRouter.alias), connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {table} IN SHARE MODE")
        result = shared.send(soft_time_limit=1, batch_size=10)
        until(lambda: b"Soft time limit (1s) exceeded" in shared.log())
        time.sleep(0.2)
    returned = answer(result)
    assert returned.pop("seconds") > 0.5
    assert returned == {"rows": 10, "batches": 1, "more": True, "reason": "stopped"}
    assert len(left()) == 90


# Errors


def test_a_wrong_option_fails_and_is_not_retried(Store, shared):
    result = shared.send(batch_size=0)
    with pytest.raises(InvalidOption, match="batch_size is 0: write a whole number from 1 to 10,000"):
        answer(result)
    with pytest.raises(TypeError, match="'batchsize'"):
        answer(shared.send(batchsize=5))
    assert b" retry: " not in shared.log()


def retried(result: Any) -> Any:
    """The error for which it waits to be tried again; in one look with the state, as the next try may begin soon."""
    seen = result.backend.get_task_meta(result.id)
    return seen["status"] == "RETRY" and seen["result"]


def test_an_outage_of_the_database_is_retried(Store):
    with PostgresServer() as server, using("postgres", server.url):
        call_command("migrate", database=SessionRouter.alias, verbosity=0)
        expired(25)
        with celery_site() as site:
            site.worker("--concurrency", "1")
            connections[SessionRouter.alias].close()
            server.stop()
            result = site.send()
            assert "EngineUnavailable" in repr(until(lambda: retried(result)))
            server.start()
            assert answer(result)["rows"] == 25
