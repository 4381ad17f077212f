"""The line for `CELERY_BEAT_SCHEDULE`. Made for `settings.py`: imports nothing that reads settings."""

from typing import Any

TASK = "django_multisession.tasks.purge_expired_sessions"


def purge_schedule(
    schedule: Any = None, *, queue: str | None = None, jitter: str | float = "30m", **options: Any
) -> dict[str, Any]:
    """An entry that purges at three each night, or at any `schedule` that beat takes: a crontab, seconds, a timedelta.

    The task puts itself off by a random part of `jitter`. The `options` are the task's, in JSON's types::

        CELERY_BEAT_SCHEDULE = {"purge-sessions": purge_schedule(queue="low", max_seconds="20m")}
    """
    entry = {"task": TASK, "schedule": schedule or _at_night(), "kwargs": {"jitter": jitter, **options}}
    return entry if queue is None else {**entry, "options": {"queue": queue}}


def _at_night() -> Any:
    from celery.schedules import crontab

    return crontab(minute="0", hour="3")
