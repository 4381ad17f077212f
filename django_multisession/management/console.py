"""What a command says to people and to pipes: questions, and output that somebody may stop to read."""

import os
import sys
from contextlib import redirect_stdout, suppress
from typing import Any


def patient(command: Any) -> None:
    """Make the output of a command such that a reader who leaves, as `head` does, is no error.

    The command does what it was asked to do, and its exit code says how that ended.
    """
    for stream in (command.stdout, command.stderr):
        stream._out = Patient(stream._out)


class Patient:
    def __init__(self, out: Any) -> None:
        self.out = out

    def __getattr__(self, name: str) -> Any:
        return getattr(self.out, name)

    def write(self, text: str) -> int:
        try:
            self.out.write(text)
            self.out.flush()  # here, not at the end of the process, where Python makes it exit code 120
        except BrokenPipeError:
            _read_by_nobody(self.out)
        return len(text)

    def flush(self) -> None:
        try:
            self.out.flush()
        except BrokenPipeError:
            _read_by_nobody(self.out)


def _read_by_nobody(out: Any) -> None:
    """What is still in the buffer would be written, and fail, at the end of the process."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, out.fileno())
    finally:
        os.close(nowhere)


def somebody_is_there() -> bool:
    with suppress(ValueError):  # it was closed
        return sys.stdin is not None and sys.stdin.isatty()
    return False


def confirmed(question: str) -> bool:
    """Whether somebody has answered yes."""
    try:
        with redirect_stdout(sys.stderr):  # stdout is for the result
            answer = input(question)
    except (EOFError, KeyboardInterrupt):
        answer = ""
    return answer.strip().lower() in ("y", "yes")
