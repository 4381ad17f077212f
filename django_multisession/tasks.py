"""The Celery task over `purge()`. Celery's autodiscovery imports this module, and nothing else here does.

    purge_expired_sessions.delay(max_seconds="1h")
    {"rows": 50000, "batches": 51, "seconds": 0.275, "more": false, "reason": "done"}

The soft time limit and a warm shutdown of the worker end it after the running batch, as "stopped".
"""

import dataclasses
import mmap
import random
import signal
from typing import Any

from billiard.pool import SIG_SOFT_TIMEOUT, soft_timeout_sighandler
from celery import shared_task
from celery.signals import worker_shutting_down

from .durations import Duration, as_seconds
from .exceptions import EngineUnavailable, InvalidOption
from .purge import purge
from .schedule import TASK
from .stopping import told_to_stop
from .targets import GRACE

OWN = "self", "jitter", "allow_live"  # the other arguments are the purge's
LONGEST_JITTER = "7d"

# One byte that a worker shares with the processes that it forks: it tells them nothing of its shutdown, and waits.
_shutting_down = mmap.mmap(-1, 1)


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def shut_down(**_kwargs: object) -> None:
    _shutting_down[0] = 1


@shared_task(  # type: ignore[untyped-decorator]
    bind=True,
    name=TASK,
    acks_late=True,
    reject_on_worker_lost=True,
    autoretry_for=(EngineUnavailable,),
    retry_backoff=2,  # seconds, doubled at each retry; of that a random part: nine minutes in all at most
    retry_jitter=True,
    max_retries=8,
)
def purge_expired_sessions(
    self: Any,
    *,
    jitter: Duration = 0,
    batch_size: int | None = None,
    max_rows: int | None = None,
    max_seconds: Duration | None = None,
    pause: Duration | None = None,
    grace: Duration = GRACE,
    older_than: Duration | None = None,
    created_before: Duration | None = None,
    anonymous_only: bool = False,
    database: str | None = None,
    model: str | None = None,
    allow_live: bool = False,
) -> dict[str, Any]:
    """Remove expired sessions: `purge()`, whose options these are; a duration is text as 12h, or a number of seconds.

    With `jitter` it first puts itself off by a random part of that, so that many sites do not sweep at once.
    `older_than` and `created_before` remove live sessions too, and nobody is there to be asked: they need `allow_live`.
    Answers with the fields of `Purged`. Fails with `InvalidOption`, and with `EngineUnavailable` after eight retries.
    """
    options = {name: value for name, value in locals().items() if name not in OWN}
    _refuse_live(allow_live, older_than=older_than, created_before=created_before)
    if (longest := as_seconds("jitter", jitter, LONGEST_JITTER)) and not self.request.called_directly:
        delay = random.uniform(0, longest)  # noqa: S311  no secret
        raise self.retry(kwargs={**self.request.kwargs, "jitter": 0}, countdown=delay)
    with told_to_stop(*_soft_limit()) as told:
        return dataclasses.asdict(purge(**options, stop=lambda: told() or bool(_shutting_down[0])))


def _refuse_live(allow_live: bool, **options: Any) -> None:
    if not isinstance(allow_live, bool):  # the text "false" would be true
        raise InvalidOption("allow_live", allow_live, "write true or false.")
    for name, value in options.items():
        if value is not None and not allow_live:
            raise InvalidOption(name, value, "it removes live sessions too: write allow_live=True if they are to go.")


def _soft_limit() -> list[int]:
    """The signal of the soft time limit: its handler would raise an error in the midst of whatever the driver does."""
    if SIG_SOFT_TIMEOUT and signal.getsignal(SIG_SOFT_TIMEOUT) is soft_timeout_sighandler:
        return [SIG_SOFT_TIMEOUT]
    return []  # in no process of a pool
