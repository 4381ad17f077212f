"""Workers and beats in processes of their own, on a broker of their own, and what becomes of their tasks."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
from celery import Celery
from celery.result import AsyncResult
from django.db import connections

from django_multisession.schedule import TASK
from example_project.servers import CeleryBeat, CeleryServer, CeleryWorker, RedisServer

from .routers import SessionRouter

ROOT = Path(__file__).parents[1]
APP = "tests.celery_site"
QUEUE = "low"
LONG = 120  # seconds, on a busy machine


def until(condition: Callable[[], Any], seconds: float = LONG) -> Any:
    """What the condition answers, once that is true."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
    return answer


def answer(result: AsyncResult, seconds: float = LONG) -> Any:
    """What the task returned; raises what it did."""
    until(result.ready, seconds)
    return result.get()


class CelerySite:
    """On the database under test, and the queue "low" of a new broker."""

    def __init__(self, stack: ExitStack, **settings: Any) -> None:
        self.stack = stack
        self.broker = stack.enter_context(RedisServer())
        self.client = stack.enter_context(redis.Redis.from_url(self.broker.url))
        # Two, so that nothing subscribes to results: tests poll, and a subscription would outlive a broker that stops.
        self.sender = stack.enter_context(Celery(broker=self.broker.url, set_as_current=False))
        self.reader = stack.enter_context(Celery(backend=self.broker.url, set_as_current=False))
        stack.callback(self.reader.backend.client.close)
        urls = {"CELERY_BROKER_URL": self.broker.url, "CELERY_RESULT_BACKEND": self.broker.url}
        self.settings = {"DATABASES": {"default": database()}, **urls, **settings}

    @property
    def environment(self) -> dict[str, str]:
        path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        settings = {"DJANGO_SETTINGS_MODULE": APP, "TEST_SITE": json.dumps(self.settings, default=str)}
        return {**os.environ, **settings, "PYTHONPATH": os.pathsep.join(path)}

    def worker(self, *options: str) -> CeleryServer:
        self.last = self.stack.enter_context(CeleryWorker(APP, self.environment, "--queues", QUEUE, *options))
        return self.last

    def run(self, code: str) -> str:
        """What the code prints, in a process of the site."""
        setup = f"import django; django.setup(); from {APP} import app"
        command = [sys.executable, "-c", f"{setup}\n{code}"]
        return subprocess.run(command, env=self.environment, check=True, stdout=subprocess.PIPE, text=True).stdout

    def beat(self, *options: str) -> CeleryServer:
        return self.stack.enter_context(CeleryBeat(APP, self.environment, *options))

    def log(self) -> bytes:
        """Of the last worker."""
        return self.last.log.read_bytes()

    def send(self, soft_time_limit: float | None = None, **options: Any) -> AsyncResult:
        sent = self.sender.send_task(TASK, kwargs=options, queue=QUEUE, soft_time_limit=soft_time_limit)
        return AsyncResult(sent.id, app=self.reader)

    def results(self) -> list[dict[str, Any]]:
        """What the tasks have answered that beats sent."""
        metas = [json.loads(self.client.get(key)) for key in self.client.scan_iter("celery-task-meta-*")]
        return [meta["result"] for meta in metas if meta["status"] == "SUCCESS"]


def database() -> dict[str, Any]:
    settings = connections[SessionRouter.alias].settings_dict
    return {name: settings[name] for name in ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")}


@contextmanager
def celery_site(**settings: Any) -> Iterator[CelerySite]:
    with ExitStack() as stack:
        yield CelerySite(stack, **settings)
