"""The fenced blocks of the pages, and what the comment above a fence says of it.

    <!-- not run: the reason -->            nothing runs it, and why
    <!-- run by tests/test_example.py -->   that test reads the page and runs it; more than one may be named

Neither Sphinx nor a code host shows these comments.
"""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..test_docs import PAGES, ROOT

FENCE = re.compile(
    r"(?:^ *<!-- (?P<marker>[^\n]+?) -->\n+)?"
    r"^ *(?P<ticks>`{3,})(?P<language>[^\n`]*)\n(?P<code>.*?)^ *(?P=ticks)$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fence, of `line` in the page: its code without the page's indentation."""

    page: Path
    line: int
    language: str
    code: str
    marker: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def reason(self) -> str:
        return self.marker.removeprefix("not run: ") if self.marker.startswith("not run:") else ""

    @property
    def tests(self) -> list[Path]:
        """Of other modules, which run it."""
        names = self.marker.removeprefix("run by ").split(" and ") if self.marker.startswith("run by ") else []
        return [ROOT / name for name in names]

    @property
    def is_run_here(self) -> bool:
        return not self.marker


def fences(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in FENCE.finditer(text):
        if found["language"].startswith("{"):
            continue  # a directive, which Sphinx carries out: `tox -e docs`
        line = text.count("\n", 0, found.start("ticks")) + 1
        yield Block(page, line, found["language"], textwrap.dedent(found["code"]), found["marker"] or "")


ALL = [block for page in PAGES for block in fences(page)]
HERE = [block for block in ALL if block.is_run_here]
