"""One coroutine body, two faces."""

import asyncio
import gc
from typing import Any

import pytest

from django_multisession.twins import run_sync, settle


async def twice(number: int) -> int:
    return 2 * await settle(number)


async def waits() -> int:
    return await asyncio.sleep(0, 1)


async def core(value: Any) -> Any:
    return [await settle(value), await twice(3)]


def test_the_result_comes_through() -> None:
    assert run_sync(core("value")) == ["value", 6]


@pytest.mark.parametrize("result", [None, (), StopIteration, {"a": 1}])
def test_any_object_is_a_result(result: object) -> None:
    assert run_sync(settle(result)) is result


@pytest.mark.parametrize("error", [KeyError("lost"), RuntimeError("ours"), KeyboardInterrupt()])
def test_the_error_comes_through_as_it_is(error: BaseException) -> None:
    async def fails() -> None:
        await twice(1)
        raise error

    with pytest.raises(type(error)) as caught:
        run_sync(fails())
    assert caught.value is error


def test_a_traceback_leads_to_the_line_that_failed() -> None:
    async def fails() -> None:
        await settle([].pop())

    with pytest.raises(IndexError) as caught:
        run_sync(fails())
    assert caught.traceback[-1].name == "fails"


def test_a_coroutine_that_suspends_is_refused() -> None:
    async def outer() -> None:
        pending: Any = waits()
        await settle(pending)

    with pytest.raises(RuntimeError, match=r"outer.* suspended: a synchronous method was given an asynchronous client"):
        run_sync(outer())


def test_a_refused_coroutine_is_closed_and_leaves_no_warning() -> None:
    left = []

    async def outer() -> None:
        try:
            await waits()
        finally:
            left.append("closed")

    kept = outer()
    with pytest.raises(RuntimeError):
        run_sync(kept)
    assert left == ["closed"]
    del kept
    gc.collect()  # a warning here fails the test


def test_it_runs_inside_a_running_event_loop_too() -> None:
    async def view() -> Any:
        return run_sync(core("in a loop"))

    assert asyncio.run(view()) == ["in a loop", 6]


def test_it_needs_no_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError("an event loop was made")

    monkeypatch.setattr(asyncio, "new_event_loop", refuse)
    assert run_sync(core(1)) == [1, 6]


class Answer:
    """Awaitable without being a coroutine, as a future is."""

    def __await__(self) -> Any:
        yield from asyncio.sleep(0).__await__()
        return "answer"


def test_settle_awaits_what_an_asynchronous_client_returned() -> None:
    async def ask() -> list[Any]:
        future = asyncio.get_running_loop().create_future()
        future.set_result("future")
        return [await settle(twice(1)), await settle(Answer()), await settle(future)]

    assert asyncio.run(ask()) == [2, "answer", "future"]


def test_settle_passes_on_what_a_synchronous_client_returned() -> None:
    values = [b"payload", None, 0, [], object(), iter(())]
    assert [run_sync(settle(value)) for value in values] == values


def test_settle_lets_the_error_of_an_asynchronous_client_through() -> None:
    async def fails() -> int:
        await waits()
        raise ConnectionError("gone")

    pending: Any = fails()
    with pytest.raises(ConnectionError, match="gone"):
        asyncio.run(settle(pending))
