"""`manage.py sessions move`: its options, and what it says."""

import dataclasses
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError

from .. import engine
from ..purge.stopping import told_to_stop
from .progress import counting

EX_TEMPFAIL = 75  # of sysexits.h: try again later
BOUNDS = "batch_size", "max_rows", "max_seconds", "pause"
ENGINE = f"{engine.BACKENDS}moving"

UNDER_WAY = "Sessions move from another engine: some may be where they cannot be listed (manage.py sessions move)."
NOTHING_LEFT = "Nothing is left on the old side: name the new engine alone, once all servers are in phase 'move'."


def add_arguments(parser: Any) -> None:
    # Checked by move(), for a message with the form and for exit code 1: argparse exits with 2.
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="Count what the old side has; move nothing.")
    what.add_argument("--status", action="store_true", help="Say how many live sessions the old side has.")
    what.add_argument("--clean", action="store_true", help="Remove what a crash has left on both sides from the old.")
    parser.add_argument("--batch-size", metavar="N", help="Sessions per batch (default: 1000).")
    parser.add_argument("--max-rows", metavar="N", help="End after the batch in which so many were moved.")
    parser.add_argument("--max-seconds", metavar="DURATION", help="End after the batch in which the time is up.")
    parser.add_argument("--pause", metavar="DURATION", help="Sleep between batches (default: 0).")
    parser.add_argument("--no-progress", action="store_true", help="No progress.")


def is_under_way() -> bool:
    return engine.name() == ENGINE


def run(command: Any, options: dict[str, Any]) -> None:
    if not is_under_way():
        raise CommandError(f"SESSION_ENGINE is {engine.name()!r}: sessions move with {ENGINE!r}.")
    for name, function in (("status", _status), ("dry_run", _count), ("clean", _clean)):
        if options[name]:
            return function(command, options)
    return _move(command, options)


def _status(command: Any, options: dict[str, Any]) -> None:
    from ..backends.moving.plan import plan
    from ..backends.moving.walking import left

    found = left(plan())
    if found is None:
        text = "The old side cannot be walked: its sessions move as people come, and the rest expires there."
    else:
        text = NOTHING_LEFT if found == 0 else f"{found:,} live sessions are left on the old side."
    _say(command, options, {"left": found}, text)


def _count(command: Any, options: dict[str, Any]) -> None:
    from ..backends.moving import bulk

    with told_to_stop(signal.SIGTERM, signal.SIGINT) as stop:
        counted = dataclasses.asdict(bulk.count(stop))
    _say(command, options, counted, f"The old side has {_listed(counted)}.")


def _clean(command: Any, options: dict[str, Any]) -> None:
    from ..backends.moving import bulk

    with told_to_stop(signal.SIGTERM, signal.SIGINT) as stop:
        removed = bulk.clean(stop)
    if removed is None:
        raise CommandError("Another move is running.", returncode=EX_TEMPFAIL)
    _say(command, options, {"removed": removed}, f"{removed:,} copies removed from the old side.")


def _move(command: Any, options: dict[str, Any]) -> None:
    from ..backends.moving import bulk

    bounds = {name: options[name] for name in BOUNDS if options[name] is not None}
    with told_to_stop(signal.SIGTERM, signal.SIGINT) as stop, _reporting(command, options) as report:
        moved = bulk.move(**bounds, stop=stop, progress=report)
    result = dataclasses.asdict(moved)
    if options["json"]:
        command.stdout.write(json.dumps(result))
    if moved.reason == bulk.RUNNING:
        raise CommandError("Another move is running.", returncode=EX_TEMPFAIL)
    if options["verbosity"] > 0 and not options["json"]:
        names = ("moved", "expired", "unreadable", "too_large", "unserializable")
        counts = _listed({name: result[name] for name in names})
        more = "; there may be more" if moved.more else ""
        command.stdout.write(f"{counts} in {moved.seconds:,.1f} s, {moved.batches:,} batches ({moved.reason}{more}).")


@contextmanager
def _reporting(command: Any, options: dict[str, Any]) -> Iterator[Callable[[Any], object]]:
    shown = options["verbosity"] > 0 and not options["no_progress"]
    with counting(command.stderr, shown) as report:
        yield lambda progress: report(progress.examined, progress.seconds)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in counts.items())


def _say(command: Any, options: dict[str, Any], result: dict[str, Any], text: str) -> None:
    if options["json"]:
        command.stdout.write(json.dumps(result))
    elif options["verbosity"] > 0:
        command.stdout.write(text)
