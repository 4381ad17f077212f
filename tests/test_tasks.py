"""The Celery task, in this process: what it takes and answers, when it is repeated. In workers: test_celery.py."""

import inspect
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from billiard.pool import SIG_SOFT_TIMEOUT, soft_timeout_sighandler
from celery import current_app, signals
from celery.schedules import crontab, maybe_schedule

from django_multisession import purge as module
from django_multisession.exceptions import EngineUnavailable, InvalidOption
from django_multisession.purge import purge
from django_multisession.records import utcnow
from django_multisession.schedule import purge_schedule
from django_multisession.targets import target
from django_multisession.tasks import purge_expired_sessions

from .celery_processes import ROOT
from .purging import DAY, expired, left, live
from .test_docs import DOCS, blocks
from .test_outages import using


@pytest.fixture
def engine_name() -> str:
    return "sqlite"


def run(**options: Any) -> dict[str, Any]:
    """What a worker would store, having been sent the options as JSON."""
    result = purge_expired_sessions.apply(kwargs=json.loads(json.dumps(options)))
    return dict(result.get())


@contextmanager
def retries() -> Any:
    """The delays, in seconds, after which the task is repeated."""
    seen: list[float] = []

    def see(reason: Any, **kwargs: Any) -> None:
        seen.append(reason.when)

    signals.task_retry.connect(see)
    try:
        yield seen
    finally:
        signals.task_retry.disconnect(see)


# What it takes and answers


def test_the_name_is_the_one_that_schedules_have():
    assert purge_expired_sessions.name == "django_multisession.tasks.purge_expired_sessions"
    assert purge_expired_sessions.name in current_app.tasks


def test_the_answer_is_json(Store):
    expired(25)
    answer = run(batch_size=10)
    assert json.loads(json.dumps(answer)) == answer
    assert answer.pop("seconds") >= 0
    assert answer == {"rows": 25, "batches": 3, "more": False, "reason": "done"}


def test_the_options_are_those_of_the_purge():
    taken = inspect.signature(purge_expired_sessions.run).parameters
    assert set(taken) - {"jitter", "allow_live"} == set(module.Options.__annotations__) - {"store", "stop", "progress"}
    defaults = {**inspect.signature(module._purge).parameters, **inspect.signature(target).parameters}
    own = {"jitter": 0, "allow_live": False}
    assert {name: taken[name].default for name in taken} == {
        name: own[name] if name in own else defaults[name].default for name in taken
    }


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        ({}, (12, 1, False, "done")),
        ({"batch_size": 5}, (12, 3, False, "done")),
        ({"batch_size": 5, "max_rows": 7}, (7, 2, True, "max_rows")),
        ({"batch_size": 5, "max_seconds": "1m", "pause": "90s"}, (5, 1, True, "max_seconds")),
        ({"grace": "36h"}, (10, 1, False, "done")),
        ({"older_than": "30d", "allow_live": True}, (13, 1, False, "done")),
        ({"created_before": "90d", "allow_live": True}, (14, 1, False, "done")),
        ({"anonymous_only": True}, (11, 1, False, "done")),
        ({"database": "default", "model": "django_multisession.Session"}, (12, 1, False, "done")),
    ],
)
def test_the_options_reach_the_purge(Store, options, outcome):
    expired(10, ago=2 * DAY)
    expired(1)
    expired(1, user_id="1")
    live(1, updated_at=utcnow() - 31 * DAY)
    live(2, created_at=utcnow() - 91 * DAY)
    answer = run(**options)
    assert tuple(answer[name] for name in ("rows", "batches", "more", "reason")) == outcome


def test_where_the_server_expires(Store, settings):
    settings.SESSION_ENGINE = "django_multisession.backends.redis"
    assert run()["reason"] == "server"


def test_another_purge_is_running(Store):
    expired(5)
    seen = []
    with retries() as delays:
        purge(progress=lambda done: seen.append(run()))
    [answer] = seen
    assert (answer["rows"], answer["reason"]) == (0, "running")
    assert delays == []


# When it is repeated, and when not


def test_an_outage_is_retried_after_growing_delays_and_then_raised():
    with using("postgres", "postgresql://nobody@127.0.0.1:1/nothing"), retries() as delays:
        result = purge_expired_sessions.apply()
        assert isinstance(result.result, EngineUnavailable)
    assert len(delays) == 8
    for number, delay in enumerate(delays):
        assert 0 <= delay <= 2 * 2**number
    assert len(set(delays)) > 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"grace": "soon"}, "grace is 'soon'"),
        ({"jitter": "soon"}, "jitter is 'soon'"),
        ({"jitter": ""}, "jitter is ''"),
        ({"jitter": "8d"}, "jitter is '8d': write a duration from 0 to 7d."),
        ({"grace": "3600"}, "grace is '3600': write a duration as 30d, 12h, 90m, 45s or 50ms."),
        ({"jitter": "30m", "older_than": "30d"}, "older_than is '30d': it removes live sessions too"),
        ({"created_before": 90}, "created_before is 90: it removes live sessions too"),
        ({"older_than": 0}, "older_than is 0: it removes live sessions too"),
        ({"older_than": "30d", "allow_live": "false"}, "allow_live is 'false': write true or false."),
        ({"allow_live": 1}, "allow_live is 1: write true or false."),
    ],
)
def test_a_wrong_option_fails(Store, options, message):
    with retries() as delays, pytest.raises(InvalidOption, match=message):
        run(**options)
    assert delays == []


def test_what_a_worker_that_is_killed_leaves_is_delivered_again():
    assert purge_expired_sessions.acks_late
    assert purge_expired_sessions.reject_on_worker_lost


# Jitter


def test_jitter_puts_it_off_once_by_a_random_part(Store):
    expired(5)
    with retries() as delays:
        for _ in range(20):
            run(jitter="30m")
    assert left() == set()
    assert len(delays) == 20
    assert all(0 <= delay <= 1800 for delay in delays)
    assert max(delays) > 600
    assert len(set(delays)) > 10


def test_a_call_is_not_put_off(Store):
    expired(5)
    assert purge_expired_sessions(jitter="30m")["rows"] == 5


# Stopping


@pytest.fixture
def pool() -> Any:
    """As in a process of a worker's pool, where the signal of the soft time limit raises an error."""
    before = signal.signal(SIG_SOFT_TIMEOUT, soft_timeout_sighandler)
    yield
    assert signal.getsignal(SIG_SOFT_TIMEOUT) is soft_timeout_sighandler
    signal.signal(SIG_SOFT_TIMEOUT, before)


def test_the_soft_time_limit_ends_it_after_a_batch(Store, pool):
    expired(25)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), SIG_SOFT_TIMEOUT))
    timer.start()
    answer = run(batch_size=10, pause=60)
    assert (answer["rows"], answer["more"], answer["reason"]) == (10, True, "stopped")
    assert answer["seconds"] < 30
    timer.join()


def test_elsewhere_the_signal_keeps_its_meaning(Store):
    seen = []
    before = signal.signal(SIG_SOFT_TIMEOUT, lambda number, frame: seen.append(number))
    try:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), SIG_SOFT_TIMEOUT))
        timer.start()
        expired(5)
        assert run(batch_size=2, pause=0.2)["reason"] == "done"
        timer.join()
    finally:
        signal.signal(SIG_SOFT_TIMEOUT, before)
    assert seen == [SIG_SOFT_TIMEOUT]


def test_a_worker_that_shuts_down_ends_it(Store):
    expired(25)
    try:
        signals.worker_shutting_down.send(sender="worker", sig="SIGTERM", how="Warm", exitcode=0)
        assert run()["reason"] == "stopped"
    finally:
        sys.modules[purge_expired_sessions.__module__]._shutting_down[0] = 0
    assert run()["rows"] == 25


# The line for beat


def test_the_schedule():
    assert purge_schedule() == {
        "task": purge_expired_sessions.name,
        "schedule": crontab(minute="0", hour="3"),
        "kwargs": {"jitter": "30m"},
    }
    entry = purge_schedule(60, queue="low", jitter=0, max_seconds="1h")
    assert entry["options"] == {"queue": "low"}
    assert entry["kwargs"] == {"jitter": 0, "max_seconds": "1h"}
    assert maybe_schedule(entry["schedule"]).run_every == timedelta(minutes=1)


def test_the_line_of_the_docs():
    [code] = [each for each in blocks(DOCS / "purging.md", "python") if "CELERY_BEAT_SCHEDULE" in each]
    names: dict[str, Any] = {}
    exec(code, names)
    [entry] = names["CELERY_BEAT_SCHEDULE"].values()
    assert entry["options"] == {"queue": "low"}
    assert set(entry["kwargs"]) <= set(inspect.signature(purge_expired_sessions.run).parameters)


def test_the_schedule_can_be_made_in_a_settings_module():
    code = """
from django_multisession.schedule import purge_schedule
purge_schedule(queue="low")
from django.apps import apps
from django.conf import settings
print(settings.configured, apps.apps_ready)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
