"""Two faces, one body: how a single coroutine serves `save()` and `asave()`.

A core coroutine awaits storage verbs, and a verb awaits `settle(...)` around whatever its client returned. With a
synchronous client nothing ever suspends, so `run_sync()` finishes the coroutine in one step, without an event loop;
with an asynchronous client the same coroutine is simply awaited. What else differs between the two is in a `Face`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar, cast

from asgiref.sync import sync_to_async
from django.dispatch import Signal

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


class Face(NamedTuple):
    """What a core coroutine that is no method of a store needs to know, besides how it is run: `settle()` its answers.

    `storage` is the store's attribute with its storage; `call` runs a function of the site's or of Django's.
    """

    storage: str
    call: Callable[..., Any]
    sleep: Callable[[float], Any]
    send: Callable[..., Any]


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _acall(function: Callable[..., Any], *arguments: Any) -> Any:
    return sync_to_async(function)(*arguments)


def _send(signal: Signal, **named: Any) -> Any:
    return signal.send_robust(**named)


def _asend(signal: Signal, **named: Any) -> Any:
    return signal.asend_robust(**named)


SYNC = Face("storage", _call, time.sleep, _send)
ASYNC = Face("astorage", _acall, asyncio.sleep, _asend)
