"""Forced interleavings inside the verbs: requests in threads of their own, of which one runs at a time, step by step.

A step is a SQL statement or a command to Redis; a request stops before each. Each thread has its own connection to the
database, and on the asynchronous interface an event loop whose database thread is its own too.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Semaphore
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connections

from django_multisession.backends.cached_db.copies import Copies
from django_multisession.backends.db import statements
from django_multisession.twins import run_sync

WHO: contextvars.ContextVar[int | None] = contextvars.ContextVar("WHO", default=None)
LONGEST = 30  # seconds that a step may take

Core = Callable[[], Coroutine[Any, Any, object]]


class Worker:
    """A thread in which one request after the other is run, on one face."""

    def __init__(self, number: int, face: str) -> None:
        self.number, self.face = number, face
        self.thread = ThreadPoolExecutor(1)
        self.thread.submit(self._start).result()

    def _start(self) -> None:
        WHO.set(self.number)
        if self.face == "async":
            self.runner, self.context = asyncio.Runner(), contextvars.copy_context()
            self.database = ThreadSensitiveContext()
            self.runner.run(self.database.__aenter__(), context=self.context)

    def submit(self, core: Core) -> "Future[object]":
        return self.thread.submit(self._run, core)

    def _run(self, core: Core) -> object:
        return run_sync(core()) if self.face == "sync" else self.runner.run(core(), context=self.context)

    def close(self) -> None:
        self.thread.submit(self._close).result()
        self.thread.shutdown()

    def _close(self) -> None:
        connections.close_all()
        if self.face == "async":
            self.runner.run(sync_to_async(connections.close_all)(), context=self.context)
            self.runner.run(self.database.__aexit__(None, None, None), context=self.context)
            self.runner.close()


class Steps:
    def __init__(self, face: str, requests: int) -> None:
        self.go = [Semaphore(0) for _ in range(requests)]
        self.paused = Semaphore(0)
        self.running = False
        self.history: list[Any] = []  # what the database had after each statement that changes something
        self.last: dict[int, int] = {}  # of a request: the index of what its last such statement left
        self.state: Callable[[], Any] = lambda: None
        self.state_of: Callable[[str], Any] = lambda id: None
        self.workers = [Worker(number, face) for number in range(requests)]

    def note(self) -> None:
        if self.running and (number := WHO.get()) is not None:
            self.history.append(self.state())
            self.last[number] = len(self.history) - 1

    def stop(self) -> None:
        number = WHO.get()
        if self.running and number is not None:
            self.paused.release()
            assert self.go[number].acquire(timeout=LONGEST)

    def run(self, cores: list[Core], order: Iterable[int]) -> None:
        """Run them to their ends; `order` says whose turn it is, and then they go on in turn."""
        self.running, self.history, self.last = True, [self.state()], {}
        futures = []
        for number, core in enumerate(cores):  # each up to its first step
            futures.append(self.workers[number].submit(core))
            futures[-1].add_done_callback(lambda _: self.paused.release())
            assert self.paused.acquire(timeout=LONGEST)
        turns = iter([*order, *list(range(len(cores))) * 100])
        while not all(future.done() for future in futures):
            if not futures[number := next(turns)].done():
                self.go[number].release()
                assert self.paused.acquire(timeout=LONGEST)
        self.running = False
        for future in futures:
            future.result()

    def close(self) -> None:
        for worker in self.workers:
            worker.close()


@contextmanager
def steps(face: str, requests: int) -> Iterator[Steps]:
    """Of a face, with a stop before each statement and command."""
    found = Steps(face, requests)
    execute, fetch, take, guarded = statements.execute, statements.fetch, Copies.take, Copies._guarded

    def fetch_stepwise(*arguments: Any) -> Any:
        found.stop()
        return fetch(*arguments)

    def execute_stepwise(*arguments: Any) -> Any:
        found.stop()
        done = execute(*arguments)
        found.note()
        return done

    def state(id: str) -> Any:
        rows = fetch(statements.database(), statements.read_sql, id, 0)
        return statements.record_of(rows[0]) if rows else None

    async def take_stepwise(self: Copies, place: str, id: str) -> Any:
        found.stop()
        return await take(self, place, id)

    async def guarded_stepwise(self: Copies, name: str, asking: Any) -> Any:
        found.stop()
        return await guarded(self, name, asking)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statements, "execute", execute_stepwise)
        patch.setattr(statements, "fetch", fetch_stepwise)
        found.state_of = state
        patch.setattr(Copies, "take", take_stepwise)
        patch.setattr(Copies, "_guarded", guarded_stepwise)
        try:
            yield found
        finally:
            found.running = False
            found.close()
