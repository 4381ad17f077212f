"""The sessions of the site and of its users. Exit codes: 0 done, 1 error, 75 another move is running."""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from ... import user_sessions
from ...durations import positive
from ...exceptions import EngineUnavailable, InvalidOption
from ...statistics import DAY, HOUR, MINUTE, Bin, Statistics, as_json, collect
from ...user_sessions import people
from .. import moving, tables
from ..console import confirmed, patient
from ..progress import counting

FOREIGN = "The store has records of this user that none of this site's keys has made: they are left alone."
IN_DOUBT = "There may be more, if Redis has lost its index of them: --repair looks through all sessions."
HEADINGS = "ID", "Device", "IP", "Signed in", "Last seen", "Expires"
MOST_NAMES = 20  # that are printed; --json has more


class Command(BaseCommand):
    help = "Lists the sessions of users, signs them out, and counts those of the site."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|revoke|revoke-all|stats|move")
        common = _common_options()
        of_user = verbs.add_parser("list", parents=common, help="The sessions of a user, newest activity first.")
        _add_user(of_user, required=True)
        of_user.add_argument(
            "--limit", metavar="N", help='At most so many, and how many more there are; as JSON {"sessions", "more"}.'
        )
        revoke = verbs.add_parser("revoke", parents=common, help="Sign out one session of a user.")
        revoke.add_argument("id", metavar="ID", help="As `list` shows it.")
        _add_user(revoke, required=True)
        of_all = "Sign out all sessions of a user, or of all users."
        revoke_all = verbs.add_parser("revoke-all", parents=common, help=of_all)
        whose = revoke_all.add_mutually_exclusive_group(required=True)
        _add_user(whose)
        whose.add_argument("--everyone", action="store_true", help="All users: each has to sign in again.")
        revoke_all.add_argument("--no-input", "--noinput", action="store_true", help="Do not ask.")
        stats = verbs.add_parser(
            "stats", parents=common, help="Count sessions and users, sizes and ages, in one pass over all."
        )
        stats.add_argument("--no-progress", action="store_true", help="No progress.")
        move = verbs.add_parser("move", parents=common, help="Move the rest of the sessions to the new engine.")
        moving.add_arguments(move)
        for each in (of_user, revoke, revoke_all):
            each.add_argument("--repair", action="store_true", help="Before: find what Redis has lost of its index.")
        for each in (of_user, revoke, revoke_all, stats, move):
            each.add_argument("--json", action="store_true", help="Print the result as JSON, and only that.")

    def handle(self, *args: Any, **options: Any) -> None:
        patient(self)
        verb = getattr(self, "_" + options["verb"].replace("-", "_"))
        try:
            verb(options)
        except InvalidOption as error:
            name = f"--{error.name.replace('_', '-')}" if error.name in options else error.name
            raise CommandError(f"{name} is {error.value!r}: {error.advice}") from error
        except (EngineUnavailable, ImproperlyConfigured, LookupError, UnicodeEncodeError) as error:
            raise CommandError(str(error)) from error

    def _list(self, options: dict[str, Any]) -> None:
        limit = None if options["limit"] is None else positive("limit", options["limit"])
        user = _user(options)
        sessions = user_sessions.sessions_of(user)
        if sessions.complete is None and (sessions.foreign or moving.is_under_way() or not options["repair"]):
            self.stderr.write(_doubt(sessions))
        shown = sessions[:limit]
        more = len(sessions) - len(shown)
        if options["json"]:
            listed = [_session(each) for each in shown]
            return self._write_json(listed if limit is None else {"sessions": listed, "more": more})
        if shown:
            tables.write(self.stdout, HEADINGS, [_row(each) for each in shown])
        also = f": {len(shown):,} are shown, {more:,} more are not" if more else ""
        self.stdout.write(f"{_counted(len(sessions))} of {_name(user)}{also}.")

    def _revoke(self, options: dict[str, Any]) -> None:
        user = _user(options)
        if not user_sessions.revoke(user, options["id"]):
            raise CommandError(f"{_name(user)} has no session {options['id']!r}.")
        self._say(options, {"ended": 1}, _name(user))

    def _revoke_all(self, options: dict[str, Any]) -> None:
        user = None if options["everyone"] else _user(options)
        whose = _name(user) if user else "all users"
        if not options["no_input"] and not confirmed(f"Sign out all sessions of {whose}? [y/N] "):
            raise CommandError("Nothing was signed out.")
        if not user:
            return self._say(options, {"ended": user_sessions.revoke_everyone()}, whose)
        revoked = user_sessions.revoke_all(user)
        complete = True if options["repair"] and not (revoked.foreign or moving.is_under_way()) else revoked.complete
        self._say(options, {"ended": revoked.ended, "complete": complete}, whose)
        if not complete:
            self.stderr.write(_doubt(revoked))

    def _stats(self, options: dict[str, Any]) -> None:
        shown = options["verbosity"] > 0 and not options["no_progress"]
        with counting(self.stderr, shown) as report:
            found = collect(progress=report)
        if options["json"]:
            return self._write_json(as_json(found))
        for line in summary(found):
            self.stdout.write(line)
        for heading, rows in histograms(found).items():
            self.stdout.write("")
            tables.write(self.stdout, (heading, "Sessions", ""), rows, numbers=[1])

    def _move(self, options: dict[str, Any]) -> None:
        moving.run(self, options)

    def _say(self, options: dict[str, Any], result: dict[str, Any], whose: str) -> None:
        if options["json"]:
            self._write_json(result)
        elif options["verbosity"] > 0:
            were = "was" if result["ended"] == 1 else "were"
            self.stdout.write(f"{_counted(result['ended'])} of {whose} {were} signed out.")

    def _write_json(self, result: object) -> None:
        self.stdout.write(json.dumps(result))


def _doubt(found: Any) -> str:
    if moving.is_under_way():
        return moving.UNDER_WAY
    return FOREIGN if found.foreign else IN_DOUBT


def _common_options() -> list[CommandParser]:
    """Django's own, for after the verb too: without defaults, which would undo what stands before it."""
    common = BaseCommand().create_parser("manage.py", "sessions", add_help=False)
    for action in common._actions:
        action.default = argparse.SUPPRESS
    return [common]


def _add_user(parser: Any, **options: Any) -> None:
    parser.add_argument("--user", metavar="USER", help="Name by which the user signs in, or primary key.", **options)


def _user(options: dict[str, Any]) -> Any:
    user = people.find(options["user"])
    if options["repair"]:
        user_sessions.repair_index(user)
    return user


def _name(user: Any) -> str:
    return tables.printable(user.get_username())


def _counted(sessions: int) -> str:
    return f"{sessions:,} session" if sessions == 1 else f"{sessions:,} sessions"


def _session(session: user_sessions.UserSession) -> dict[str, Any]:
    fields = {**dataclasses.asdict(session), "device": session.device}
    del fields["is_current"]  # there is no request
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in fields.items()}


def _row(session: user_sessions.UserSession) -> tuple[str | None, ...]:
    moments = session.created_at, session.last_seen, session.expires_at
    return session.id, session.device, session.ip, *map(_moment, moments)


def _moment(moment: datetime) -> str:
    return f"{timezone.localtime(moment) if timezone.is_aware(moment) else moment:%Y-%m-%d %H:%M}"


def summary(found: Statistics) -> list[str]:
    signed_in = found.sessions - found.anonymous
    average = found.bytes // max(found.sessions, 1)
    lines = [
        f"{_counted(found.sessions)}: {signed_in:,} of users ({found.users:,}), {found.anonymous:,} anonymous.",
        f"{found.bytes:,} bytes of data: {average:,} on average, {found.largest:,} at most.",
    ]
    if found.unreadable:
        lines.append(f"{found.unreadable:,} cannot be read.")
    if found.foreign:
        lines.append(f"{found.foreign:,} more in the store, made with none of this site's keys.")
    return lines


Rows = Sequence[tuple[str, str, str]]


def histograms(found: Statistics) -> dict[str, Rows]:
    if not found.sessions:
        return {}
    shown = {
        "Size": _rows(found.sizes, size),
        "Age": _rows(found.ages, age),
        "Last activity": _rows(found.idle, age),
        "Device": _named(found.devices),
        "Key": _named(found.names),
    }
    return {heading: rows for heading, rows in shown.items() if rows}


def _rows(bins: Sequence[Bin], text: Any) -> Rows:
    highest = max(each.sessions for each in bins)
    labels = [f"up to {text(each.up_to)}" if each.up_to else f"over {text(bins[-2].up_to)}" for each in bins]
    return [(label, f"{n:,}", tables.bar(n, highest)) for label, (_, n) in zip(labels, bins, strict=True)]


def _named(counts: dict[str, int]) -> Rows:
    return [(name, f"{n:,}", tables.bar(n, max(counts.values()))) for name, n in [*counts.items()][:MOST_NAMES]]


def size(number: int) -> str:
    return f"{number} B" if number < 1024 else f"{number // 1024} KB" if number < 1024**2 else f"{number // 1024**2} MB"


def age(seconds: int) -> str:
    unit, name = next((unit, name) for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")) if seconds >= unit)
    return f"{seconds // unit} {name}"
