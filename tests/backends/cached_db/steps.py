"""Forced interleavings inside the verbs: requests in threads of their own, of which one runs at a time, step by step.

A step is a SQL statement or a command to Redis; a request stops before each. Each thread has its own connection to the
database, and on the asynchronous interface an event loop whose database thread is its own too. What is committed is
looked at from outside, by a connection of its own.
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

from django_multisession.backends.cached_db import transactions
from django_multisession.backends.cached_db.copies import Copies
from django_multisession.backends.db import statements
from django_multisession.twins import run_sync
from tests.routers import SessionRouter

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
        self.history: list[Any] = []  # what was committed, after each statement that changes something
        self.last: dict[int, int] = {}  # of a request: the index of what its last such statement left
        self.id = ""  # of the session that all of them are about
        self.holder: int | None = None  # the request whose transaction holds that session's row
        self.workers = [Worker(number, face) for number in range(requests)]
        self.outside: Any = connections[SessionRouter.alias].copy()
        self.outside.inc_thread_sharing()  # one thread runs at a time

    def committed(self) -> Any:
        with self.outside.cursor() as cursor:
            cursor.execute(statements.read_sql(SessionRouter.alias, self.outside.vendor), (self.id, 0))
            row = cursor.fetchone()
        return statements.record_of(row) if row else None

    def note(self) -> None:
        if connections[SessionRouter.alias].in_atomic_block:
            return  # nothing of it is committed
        if self.running and (number := WHO.get()) is not None:
            self.history.append(self.committed())
            self.last[number] = len(self.history) - 1

    def has_committed(self) -> None:
        """A request's transaction, which others see from now on."""
        if self.holder == WHO.get():  # else it has changed nothing, and may see what another is about to tell
            self.holder = None
            self.note()

    def stop_before(self, statement: Any, parameters: Any) -> None:
        """Where a transaction holds the row that the statement locks: until that has ended, as the database does."""
        self.stop()
        if not self.running or self.id not in parameters or statement is statements.read_sql:
            return
        while self.holder not in (None, WHO.get()):
            self.stop()
        if connections[SessionRouter.alias].in_atomic_block:
            self.holder = WHO.get()

    def stop(self) -> None:
        number = WHO.get()
        if self.running and number is not None:
            self.paused.release()
            assert self.go[number].acquire(timeout=LONGEST)

    def run(self, cores: list[Core], order: Iterable[int]) -> None:
        """Run them to their ends; `order` says whose turn it is, and then they go on in turn."""
        self.running, self.history, self.last, self.holder = True, [self.committed()], {}, None
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
        self.outside.close()


@contextmanager
def steps(face: str, requests: int) -> Iterator[Steps]:
    """Of a face, with a stop before each statement and command."""
    found = Steps(face, requests)
    execute, fetch, take = statements.execute, statements.fetch, Copies.take
    fill, tell, telling = Copies._fill, Copies._tell, transactions.Telling.__call__

    def fetch_stepwise(alias: str, statement: Any, *parameters: Any) -> Any:
        found.stop_before(statement, parameters)
        return fetch(alias, statement, *parameters)

    def execute_stepwise(alias: str, statement: Any, *parameters: Any) -> Any:
        found.stop_before(statement, parameters)
        done = execute(alias, statement, *parameters)
        if found.id in parameters:  # else it is another's row, and says nothing of what has been done to this one
            found.note()
        return done

    async def take_stepwise(self: Copies, place: str, id: str) -> Any:
        found.stop()
        return await take(self, place, id)

    async def fill_stepwise(self: Copies, *arguments: Any) -> None:
        found.stop()
        await fill(self, *arguments)

    def note_and_tell(self: transactions.Telling) -> None:
        found.has_committed()  # before any step: it is the first hook
        telling(self)

    async def tell_stepwise(self: Copies, keys: list[str]) -> None:
        found.stop()
        await tell(self, keys)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statements, "execute", execute_stepwise)
        patch.setattr(statements, "fetch", fetch_stepwise)
        patch.setattr(Copies, "take", take_stepwise)
        patch.setattr(Copies, "_fill", fill_stepwise)
        patch.setattr(Copies, "_tell", tell_stepwise)
        patch.setattr(transactions.Telling, "__call__", note_and_tell)
        try:
            yield found
        finally:
            found.running = False
            found.close()
