"""Forced interleavings: coroutines of two requests, resumed in a given order, one storage verb at a time."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import Any

THOROUGHLY = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"


def so_many(number: int, engine_name: str) -> int:
    """A fifth of them on the servers that take longer, unless all are asked for by `HYPOTHESIS_PROFILE=thorough`."""
    return number if THOROUGHLY or engine_name in ("memory", "redis") else number // 5


class Checkpoint:
    """Awaiting it hands control back to the driver."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Stepwise:
    """A storage that stops before each verb."""

    def __init__(self, storage: Any, stop: Callable[[], Any]) -> None:
        self._storage, self._stop = storage, stop

    def __getattr__(self, verb: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        function = getattr(self._storage, verb)

        async def call(*arguments: Any) -> Any:
            await self._stop()
            return await function(*arguments)

        return call


Request = Callable[[Any], Coroutine[Any, Any, object]]


def interleave_sync(storage: Any, requests: list[Request], order: Iterable[int]) -> None:
    """Run the requests to their ends over a synchronous client; `order` says whose turn it is."""

    async def stop() -> None:
        await Checkpoint()

    running = [request(Stepwise(storage, stop)) for request in requests]
    ended = [False for _ in running]
    for turn in [*order, *range(len(running)), *range(len(running))] * 20:
        if ended[turn]:
            continue
        try:
            running[turn].send(None)
        except StopIteration:
            ended[turn] = True
    assert all(ended)


async def interleave_async(storage: Any, requests: list[Request], order: Iterable[int]) -> None:
    """The same over an asynchronous client: whoever's turn it is goes on until its next verb, real I/O included."""
    turns = [_Turn() for _ in requests]
    tasks = [asyncio.ensure_future(turn.run(request, storage)) for turn, request in zip(turns, requests, strict=True)]
    for number in [*order, *range(len(turns)), *range(len(turns))] * 20:
        if not tasks[number].done():
            await turns[number].step()
    await asyncio.gather(*tasks)


class _Turn:
    def __init__(self) -> None:
        self.go, self.paused = asyncio.Event(), asyncio.Event()

    async def run(self, request: Request, storage: Any) -> None:
        try:
            await request(Stepwise(storage, self.stop))
        finally:
            self.paused.set()

    async def stop(self) -> None:
        self.paused.set()
        await self.go.wait()
        self.go.clear()

    async def step(self) -> None:
        self.paused.clear()
        self.go.set()
        await self.paused.wait()
