"""Remove expired sessions, in batches. Exit codes: 0 done or ended at a bound, 1 error, 75 another purge is running."""

import dataclasses
import json
import signal
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...durations import written
from ...exceptions import EngineUnavailable, InvalidOption
from ...purge import RUNNING, SERVER, Purged, purge
from ...purge.stopping import told_to_stop
from ...purge.targets import Target, target
from ..console import confirmed, patient, somebody_is_there
from ..progress import reporting

EX_TEMPFAIL = 75  # of sysexits.h: try again later

BOUNDS = "batch_size", "max_rows", "max_seconds", "pause"
WHICH = "grace", "older_than", "created_before", "anonymous_only", "database", "model"
ITSELF = "The server expires sessions by itself."
DURATION = "a duration, as 30d, 12h, 90m, 45s or 50ms"
MOST_COUNTED = 100_000  # live sessions, before it is asked whether they are to go


class Command(BaseCommand):
    help = f"Removes expired sessions, in short batches. DURATION is {DURATION}."

    def add_arguments(self, parser: CommandParser) -> None:
        # Checked by purge(), for a message with the form and for exit code 1: argparse exits with 2.
        parser.add_argument(
            "--dry-run", action="store_true", help="Count what would go by day of expiry; remove nothing."
        )
        parser.add_argument("--batch-size", metavar="N", help="Rows per batch (default: 1000; on SQLite 250).")
        parser.add_argument("--max-rows", metavar="N", help="End after so many rows.")
        parser.add_argument("--max-seconds", metavar="DURATION", help="End after the batch in which the time is up.")
        parser.add_argument(
            "--pause",
            metavar="DURATION",
            help="Sleep between batches (default: 0; SQLite, MySQL: as long as a batch took).",
        )
        parser.add_argument("--grace", metavar="DURATION", help="Leave what expired less long ago (default: 1h).")
        parser.add_argument("--older-than", metavar="DURATION", help="Also sessions that were not changed for so long.")
        parser.add_argument("--created-before", metavar="DURATION", help="Also sessions that are older than that.")
        parser.add_argument("--anonymous-only", action="store_true", help="Only sessions that have no user.")
        parser.add_argument("--database", metavar="ALIAS", help="Default: the one that the routers name.")
        parser.add_argument("--model", metavar="APP.MODEL", help="Another table with an expire_date: sessions.Session.")
        parser.add_argument("--no-input", "--noinput", action="store_true", help="Do not ask before live sessions go.")
        parser.add_argument("--no-progress", action="store_true", help="No progress, and no count for it at the start.")
        parser.add_argument("--json", action="store_true", help="Print the result as one JSON object, and only that.")

    def handle(self, *args: Any, **options: Any) -> None:
        patient(self)
        which = {name: options[name] for name in WHICH if options[name] is not None}
        try:
            if options["dry_run"]:
                return self._count(target(**which), options["json"], options["verbosity"])
            if not options["no_input"]:
                self._ask(target(**which))
            self._purge(which, options)
        except InvalidOption as error:
            is_own = error.name in (*BOUNDS, *WHICH)
            name = "--" + error.name.replace("_", "-") if is_own else error.name
            raise CommandError(f"{name} is {error.value!r}: {error.advice}") from error
        except EngineUnavailable as error:
            raise CommandError(str(error)) from error

    def _ask(self, found: Target) -> None:
        if not (live := found.live(MOST_COUNTED + 1)):
            return
        counted = f"at least {MOST_COUNTED:,}" if live > MOST_COUNTED else f"{live:,}"
        effect = f"this would remove {counted} live session{'' if live == 1 else 's'}"
        if not somebody_is_there():
            raise CommandError(f"Nothing was removed: {effect}. If that is meant, say --no-input.")
        if not confirmed(f"{effect.capitalize()}, and sign users out. Go on? [y/N] "):
            raise CommandError("Nothing was removed.")

    def _purge(self, which: dict[str, Any], options: dict[str, Any]) -> None:
        bounds = {name: options[name] for name in BOUNDS if options[name] is not None}
        shown = options["verbosity"] > 0 and not options["no_progress"]
        reporter = reporting(self.stderr, target(**which), options["max_rows"], shown)
        with told_to_stop(signal.SIGTERM, signal.SIGINT) as stop, reporter as report:
            purged = purge(**which, **bounds, stop=stop, progress=report)
        if options["json"]:
            self.stdout.write(json.dumps(dataclasses.asdict(purged)))
        if purged.reason == RUNNING:
            raise CommandError("Another purge is running.", returncode=EX_TEMPFAIL)
        if options["verbosity"] > 0 and not options["json"]:
            self.stdout.write(summary(purged))

    def _count(self, found: Target, as_json: bool, verbosity: int) -> None:
        if found.table is None and not found.by_server:
            raise CommandError("--dry-run counts the rows of a table, and these sessions are in none.")
        days = found.days()
        rows, grace = sum(days.values()), found.asked.grace
        live = min(found.live(), rows)
        counted = {"rows": rows, "live": live, "expired": rows - live, "grace": grace}
        result = {**counted, "days": {str(day): number for day, number in days.items()}}
        if as_json:
            self.stdout.write(json.dumps(result))
        elif verbosity > 0 and found.table:
            for day, number in days.items():
                self.stdout.write(f"{day}  {number:>13,}")
            self.stdout.write(f"{rows:,} sessions would be removed from {found.table.name}.")
            self.stdout.write(
                f"{live:,} of them are live, {rows - live:,} have expired. The grace is {written(grace)}."
            )
        elif verbosity > 0:
            self.stdout.write(ITSELF)


def summary(purged: Purged) -> str:
    took = f"in {purged.seconds:,.1f} s"
    if purged.reason == SERVER:
        return f"{ITSELF} {purged.rows:,} leftovers removed {took}."
    more = "; more are waiting" if purged.more else ""
    return f"{purged.rows:,} sessions removed {took}, {purged.batches:,} batches ({purged.reason}{more})."
