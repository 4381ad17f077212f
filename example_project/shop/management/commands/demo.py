"""`manage.py demo`: two web servers, one session store; `--check` lets a visitor with an HTTP client try it."""

import os
import signal
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.table import Table

from journey import Journey, Step
from launcher import CLUSTERS, STORES, WebServer, deploy, site
from moves import STAGES, moved, try_move
from servers import ServerError, free_port

POLL_SECONDS = 0.2
CHECK_PURGE_SECONDS = "1"


class Command(BaseCommand):
    help = "Run the example site on two web servers that share the sessions, until Ctrl-C."
    requires_system_checks: list[str] = []  # the servers that they would ask are not there yet

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--engine", choices=STORES, help="the session engine (redis; with --check: all)")
        parser.add_argument("--port", type=int, default=8000, help="first port to try for the web servers (8000)")
        parser.add_argument("--move", action="store_true", help="start on Django's own engine, and move to this one")
        parser.add_argument("--cluster", action="store_true", help="with --engine redis: a cluster of three nodes")
        parser.add_argument("--check", action="store_true", help="try it all out by itself and print a table")

    def handle(self, *, engine: str | None, port: int, check: bool, move: bool, cluster: bool, **_: Any) -> None:
        if cluster and (engine or "redis") not in CLUSTERS:
            raise CommandError(f"There is no --cluster of {engine}.")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, interrupt)
        self.console = Console()
        try:
            if check:
                self.try_out([engine or "redis"] if engine or cluster else list(STORES), cluster)
            else:
                self.serve(engine or "redis", port, move, cluster)
        except ServerError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            self.console.print("\nAll servers are stopped.")
            if check:
                raise CommandError("Interrupted.") from None

    def serve(self, engine: str, port: int, move: bool, cluster: bool) -> None:
        first = free_port(port)
        self.console.print(
            f"Starting the {engine} engine's {'cluster' if cluster else 'server'} and two web servers ..."
        )
        ports, stage = (first, free_port(first + 1)), "old" if move else "new"
        with site(engine, settings.SECRET_KEY, ports, stage, cluster) as servers:
            if move:
                self.move(engine, servers)
            self.introduce(engine, servers)
            self.watch(servers)

    def move(self, engine: str, servers: list[WebServer]) -> None:
        say = partial(self.console.print, highlight=False, soft_wrap=True)
        say(
            f"\n  [bold]{servers[0].url}[/]\n\nThe sessions are in Django's own engine, in SQL. Sign in (name "
            f"[bold]{settings.DEMO_USERNAME}[/], password [bold]{settings.DEMO_PASSWORD}[/]), fill the cart,\n"
            "and press Enter: the servers are replaced one by one, while you click."
        )
        with suppress(EOFError):
            input()
        for stage in STAGES:
            for server in deploy(servers, stage):
                say(f"{server.url} is up again: [bold]{stage}[/]")
            if stage == "move":
                say(f"manage.py sessions move --status: {moved(servers[0])}")
        say(f"\nYou are still signed in, and your session is in django_multisession.backends.{engine}.")

    def introduce(self, engine: str, servers: list[WebServer]) -> None:
        one, other = servers
        self.console.print(
            f"\n  [bold]{one.url}[/]  process {one.pid}\n  [bold]{other.url}[/]  process {other.pid}\n\n"
            f"Both keep their sessions with django_multisession.backends.{engine}.\n"
            f"Sign in on one (name [bold]{settings.DEMO_USERNAME}[/], password [bold]{settings.DEMO_PASSWORD}[/]) and "
            "go on at the other: a browser sends a\nhost's cookies to all its ports. "
            f"Kill either ([bold]kill -9 {one.pid}[/]): you stay signed in at the other.\n\n"
            f"{self.purging(one) if engine == 'db' else ''}Ctrl-C stops everything.",
            soft_wrap=True,
            highlight=False,
        )

    def purging(self, server: WebServer) -> str:
        how = "A Celery worker and beat purge expired sessions"
        return f"{how} every {settings.PURGE_SECONDS:g} seconds; see [bold]{server.url}purges/[/]\n\n"

    def watch(self, servers: list[WebServer]) -> None:
        """Say when a web server ends; when none is left, that is an error."""
        left = list(servers)
        while left:
            for server in [each for each in left if not each.running]:
                left.remove(server)
                self.console.print(f"The web server at {server.url} has ended.", highlight=False)
                for other in left:
                    self.console.print(f"Go on at {other.url}", highlight=False)
            time.sleep(POLL_SECONDS)
        raise CommandError("Both web servers have ended.")

    def try_out(self, engines: list[str], cluster: bool) -> None:
        os.environ.setdefault("DEMO_PURGE_SECONDS", CHECK_PURGE_SECONDS)
        started = time.monotonic()
        results: dict[str, list[Step]] = {}
        for engine in engines:
            with self.console.status(f"Trying {engine} ..."):
                results[engine] = try_engine(engine, cluster)
        self.console.print(table(results))
        self.console.print(f"{time.monotonic() - started:.0f} s in all", highlight=False)
        if missed := list(misses(results)):
            raise CommandError("\n".join(missed))


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """Let everything be stopped in order, undisturbed by an impatient second Ctrl-C (each stop is bounded)."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def try_engine(engine: str, cluster: bool) -> list[Step]:
    steps = []
    started = time.monotonic()
    try:
        with site(engine, settings.SECRET_KEY, ports=(0, 0), cluster=cluster) as servers:
            steps.append(Step("start", time.monotonic() - started))
            steps += Journey(servers, settings.DEMO_USERNAME, settings.DEMO_PASSWORD, engine == "db").steps()
        if not cluster and not any(step.reason for step in steps):
            steps += try_move(engine, settings.SECRET_KEY, settings.DEMO_USERNAME, settings.DEMO_PASSWORD)
    except ServerError as error:
        steps.append(Step("start", time.monotonic() - started, str(error)))
    return steps


def table(results: dict[str, list[Step]]) -> Table:
    """Steps down, engines across. A step after a miss was not tried."""
    cells = {(engine, step.title): cell(step) for engine, steps in results.items() for step in steps}
    longest = max(results.values(), key=len)
    table = Table("step", *results)
    for step in longest:
        table.add_row(step.title, *(cells.get((engine, step.title), "[dim]not tried[/]") for engine in results))
    return table


def cell(step: Step) -> str:
    mark = "[red]✗[/]" if step.reason else "[green]✓[/]"
    return f"{mark} {step.seconds:5.2f} s"


def misses(results: dict[str, list[Step]]) -> Iterator[str]:
    for engine, steps in results.items():
        yield from (f"{engine}: {step.title}: {step.reason}" for step in steps if step.reason)
