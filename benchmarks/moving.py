#!/usr/bin/env python
"""What a move costs: sessions per second from `django_session` on PostgreSQL to Redis, and a request in each phase.

    benchmarks/moving.py [--rows 200000] [--calls 300]

The servers are throw-away ones. A writer makes and changes sessions of its own in a process beside the move; its
latencies are those of a save, before the move and during it.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import random
import resource
import statistics
import sys
import time
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from example_project.servers import PostgresServer, RedisServer

OLD, NEW = "django.contrib.sessions.backends.db", "django_multisession.backends.redis"
MOVING = "django_multisession.backends.moving"
BATCH = 5000  # rows per INSERT


def configure(postgres: str, redis: str) -> None:
    import dj_database_url
    import django
    from django.conf import settings

    settings.configure(
        SECRET_KEY="of a benchmark",
        USE_TZ=True,
        INSTALLED_APPS=[
            *(f"django.contrib.{name}" for name in ("auth", "contenttypes", "sessions")),
            "django_multisession",
        ],
        DATABASES={"default": dj_database_url.parse(postgres, conn_max_age=600)},
        SESSION_ENGINE=MOVING,
        MULTISESSION_REDIS=redis,
        MULTISESSION_MOVE={"from": OLD, "to": NEW, "phase": "move"},
    )
    django.setup()


def fill(rows: int) -> None:
    """Rows of one signed-in session each, of 578 bytes as JSON, in a random physical order of keys."""
    from django.contrib.sessions.backends.db import SessionStore
    from django.contrib.sessions.models import Session
    from django.utils import timezone

    from benchmarks.engines.data import signed_in
    from django_multisession.records import new_session_key

    store, now = SessionStore(), timezone.now()
    texts = [store.encode(signed_in(user)) for user in range(1000)]
    for first in range(0, rows, BATCH):
        expiries = [now + timedelta(days=random.random() * 13 + 1) for _ in range(min(BATCH, rows - first))]
        Session.objects.bulk_create(Session(new_session_key(), random.choice(texts), expiry) for expiry in expiries)


def write(postgres: str, redis: str, over, pipe) -> None:
    """A writer beside the move: milliseconds of each save, with the moment."""
    configure(postgres, redis)
    from django_multisession.backends.moving import SessionStore

    session, took = SessionStore(), []
    session.create()
    while not over.is_set():
        session["n"] = len(took)
        began = time.perf_counter()
        session.save()
        took.append((time.time(), (time.perf_counter() - began) * 1000))
        time.sleep(0.005)
    pipe.send(took)


def move_all(postgres: str, redis: str, pipe) -> None:
    """The move in a process of its own, so that its memory is known: after the first batch, and at the end."""
    configure(postgres, redis)
    from django_multisession.backends import moving

    sizes: list[int] = []
    moved = moving.move(progress=lambda progress: sizes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
    pipe.send({**dataclasses.asdict(moved), "memory_kb": {"first batch": sizes[0], "end": sizes[-1]}})


def move(rows: int, postgres: str, redis: str) -> dict[str, object]:
    context = multiprocessing.get_context("spawn")
    over, (receiver, sender) = context.Event(), context.Pipe(duplex=False)
    writer = context.Process(target=write, args=(postgres, redis, over, sender))
    writer.start()
    time.sleep(5)
    began, (moved_receiver, moved_sender) = time.time(), context.Pipe(duplex=False)
    mover = context.Process(target=move_all, args=(postgres, redis, moved_sender))
    mover.start()
    moved = moved_receiver.recv()
    over.set()
    took = receiver.recv()
    for process in (writer, mover):
        process.join()
    return {
        "rows": rows,
        "moved": moved["moved"],
        "seconds": moved["seconds"],
        "per_second": round(moved["moved"] / moved["seconds"]),
        "memory_kb": moved["memory_kb"],
        "writer_ms": {
            name: quantiles([each for at, each in took if (at >= began) is during])
            for name, during in (("before", False), ("during", True))
        },
    }


def quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    names = {"median": 0.5, "p99": 0.99, "worst": 1.0}
    return {name: round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 2) for name, share in names.items()}


def prices(calls: int) -> dict[str, float]:
    """Milliseconds of a load, a change and a save, by turns."""
    from django_multisession.backends import moving
    from django_multisession.backends.moving.plan import plan

    def at(phase: str):
        planned = staticmethod(lambda: dataclasses.replace(plan(), phase=phase))
        return type("SessionStore", (moving.SessionStore,), {"_plan": planned})

    old, new = plan().from_, plan().to
    stores = {"old alone": (old, old), "new alone": (new, new), "prepare": (old, at("prepare"))}
    stores |= {"prepare, on the new side": (new, at("prepare")), "move": (new, at("move"))}
    stores |= {
        "move, a take-over": (old, at("move")),
        "back": (old, at("back")),
        "back, handed back": (new, at("back")),
    }
    once = {"move, a take-over", "back, handed back"}
    keys = {name: made(maker) for name, (maker, _) in stores.items()}
    took: dict[str, list[float]] = {name: [] for name in stores}
    for number in range(calls):
        for name, (maker, store) in stores.items():
            key = made(maker) if name in once else keys[name]
            began = time.perf_counter()
            session = store(key)
            session["n"] = number
            session.save()
            took[name].append((time.perf_counter() - began) * 1000)
    return {name: round(statistics.median(values), 3) for name, values in took.items()}


def made(store) -> str:
    from benchmarks.engines.data import signed_in

    session = store()
    session.update(signed_in(1))
    session.save()
    return str(session.session_key)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--calls", type=int, default=300)
    options = parser.parse_args()
    with PostgresServer() as postgres, RedisServer() as redis:
        configure(postgres.url, redis.url)
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        result: dict[str, object] = {"prices_ms": (found := prices(options.calls))}
        result["multiples"] = {
            name: round(each / found["old alone" if name in ("prepare", "back") else "new alone"], 2)
            for name, each in found.items()
        }
        fill(options.rows)
        result["move"] = move(options.rows, postgres.url, redis.url)
    print(json.dumps(result, indent=2))
    os._exit(0)


if __name__ == "__main__":
    main()
