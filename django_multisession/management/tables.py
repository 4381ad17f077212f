"""Tables on a terminal: drawn by rich where it is installed, else as aligned text, which also goes into pipes."""

from collections.abc import Sequence
from typing import Any

BAR = 30  # characters


def write(stream: Any, headings: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[int] = ()) -> None:
    """`stream` is the command's stdout; the columns of `numbers` are aligned to the right.

    Whatever a cell holds, a browser may have sent it: what a terminal would obey instead of print is replaced.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if stream.isatty() and (table := _rich(headings, cells, numbers)):
        _console(stream).print(table)
        return
    for row in _aligned([headings, *cells], numbers):
        stream.write(row)


def printable(cell: object) -> str:
    text = "" if cell is None else str(cell)
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def bar(number: int, highest: int) -> str:
    """Of a histogram: one for a single session beside a million is seen too."""
    return "#" * -(-number * BAR // max(highest, 1))


def _aligned(rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_padded(row, widths, numbers)).rstrip() for row in rows]


def _padded(row: Sequence[str], widths: list[int], numbers: Sequence[int]) -> list[str]:
    return [
        cell.rjust(width) if at in numbers else cell.ljust(width)
        for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def _rich(headings: Sequence[str], cells: list[list[str]], numbers: Sequence[int]) -> Any:
    try:
        from rich import box
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return None
    table = Table(box=box.SIMPLE_HEAD)
    for at, heading in enumerate(headings):
        # Nothing is cut: the first column is what the next command needs, the others are folded.
        first = max((len(row[0]) for row in cells), default=0) if at == 0 else None
        table.add_column(heading, justify="right" if at in numbers else "left", overflow="fold", min_width=first)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))  # Text: "[red]" is no markup
    return table


def _console(stream: Any) -> Any:
    from rich.console import Console

    return Console(file=stream._out)  # the command's wrapper ends each write with a newline
