"""The task under django-celery-beat, which keeps its schedule in the database. Collected where that is installed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from django_multisession.schedule import purge_schedule

from .backends.test_outages import using
from .celery_processes import QUEUE, CelerySite, celery_site, until
from .purging import expired, left, live

pytestmark = pytest.mark.slow

SETTINGS = {
    "INSTALLED_APPS": ["django_celery_beat", "django_multisession"],
    "CELERY_BEAT_SCHEDULE": {"from settings": purge_schedule(1, queue=QUEUE, jitter=0, max_rows=10)},
}
SCHEDULER = "--scheduler", "django_celery_beat.schedulers:DatabaseScheduler", "--max-interval", "1"

MIGRATE = "from django.core.management import call_command; call_command('migrate', verbosity=0)"
NIGHTLY = """
from django_celery_beat.schedulers import ModelEntry
from django_multisession.schedule import purge_schedule
task = ModelEntry.from_entry("nightly", app, **purge_schedule(queue="low", max_seconds="1h")).model
print(task.crontab.hour, task.crontab.minute, task.queue, task.kwargs)
"""
BY_HAND = """
from django_celery_beat.models import IntervalSchedule, PeriodicTask
PeriodicTask.objects.update(enabled=False)
PeriodicTask.objects.create(
    name="by hand",
    task="django_multisession.tasks.purge_expired_sessions",
    interval=IntervalSchedule.objects.get(every=1, period="seconds"),
    queue="low",
    kwargs='{"batch_size": 100, "grace": "1m"}',
)
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[CelerySite]:
    options = {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"}
    with using("sqlite", f"sqlite:///{tmp_path}/db.sqlite3", OPTIONS=options), celery_site(**SETTINGS) as site:
        site.run(MIGRATE)
        yield site


def test_a_schedule_from_settings_and_one_made_by_hand(site: CelerySite) -> None:
    kept, _ = live(3), expired(15)
    site.worker("--concurrency", "1")
    site.beat(*SCHEDULER)
    until(lambda: left() == set(kept))
    until(lambda: sum(result["rows"] for result in site.results()) == 15)
    assert max(result["rows"] for result in site.results()) == 10
    site.run(BY_HAND)
    expired(35)
    until(lambda: left() == set(kept))
    until(lambda: 35 in [result["rows"] for result in site.results()])


def test_the_nightly_schedule_is_stored_whole(site: CelerySite) -> None:
    assert site.run(NIGHTLY) == '3 0 low {"jitter": "30m", "max_seconds": "1h"}\n'
