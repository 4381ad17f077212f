"""Two faces, one body: how a single coroutine serves `save()` and `asave()`.

A core coroutine awaits storage verbs, and a verb awaits `settle(...)` around whatever its client returned. With a
synchronous client nothing ever suspends, so `run_sync()` finishes the coroutine in one step, without an event loop;
with an asynchronous client the same coroutine is simply awaited.
"""

from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar, cast

T = TypeVar("T")


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Finish a coroutine that never suspends and return its result.

    Raises `RuntimeError` if it does suspend: an asynchronous client was used behind a synchronous method.
    """
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return cast(T, finished.value)
    coroutine.close()
    raise RuntimeError(f"{coroutine!r} suspended: a synchronous method was given an asynchronous client.")


async def settle(result: Awaitable[T] | T) -> T:
    """Await what an asynchronous client returned; pass on what a synchronous one did.

    Never hand it an unexecuted pipeline or cursor: some of those are awaitable and would run.
    """
    if hasattr(result, "__await__"):
        return await cast(Awaitable[T], result)
    return result
