"""Signals that end a purge after its running batch."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def told_to_stop(*numbers: int) -> Iterator[Callable[[], bool]]:
    """Whether one of the signals has come; the second one does what it did before."""
    asked = False
    before: dict[int, Any] = {}

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        restore()

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no handlers
        before.update({each: signal.signal(each, ask) for each in numbers})
    try:
        yield lambda: asked
    finally:
        restore()
