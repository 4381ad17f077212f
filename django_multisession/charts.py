"""Bar charts that the server draws: numbers in, inline SVG out, without a script.

    {% include "django_multisession/chart.html" with chart=chart only %}
    <link rel="stylesheet" href="{% static "django_multisession/charts.css" %}">

Only the bars are SVG, and stretch with the page; words and numbers are HTML around it, so that they keep their size on
a phone, and a table of the same figures is folded away below. The colours are those of the admin's light and dark
themes. There is neither a script nor a style outside of the stylesheet: a strict Content-Security-Policy holds.

No library draws them: pygal puts a <script> and a <style> into each SVG, leather and charted write fixed colours and
no <title>, and all that they would save is `Chart.columns`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from django.utils import formats, timezone

# In the SVG's own units; whole numbers, since a decimal comma would be none to SVG.
HEIGHT, WIDTH = 100, 8  # of the highest bar; of each
PITCH = 10  # from one bar to the next
PLACES = 8  # at least: one bar alone does not fill the page


@dataclass(frozen=True)
class Bar:
    """`label` and `text` (of the value) are its row of the table. `mark` is a class of its own, for the legend."""

    label: str
    value: int
    text: str
    mark: str = ""


class Column(NamedTuple):
    """Where a bar stands, and what its mark means."""

    bar: Bar
    meaning: str
    x: int
    y: int
    height: int


@dataclass(frozen=True)
class Chart:
    """Of bars from the oldest to the newest. `name` is for ids, `legend` says what each mark means."""

    name: str
    title: str
    summary: str
    headings: tuple[str, str] = ("", "")  # of the table
    bars: Sequence[Bar] = ()
    ticks: Sequence[str] = ()  # below the bars: one for each, or one at either end
    legend: Sequence[tuple[str, str]] = ()

    height = HEIGHT
    bar_width = WIDTH

    @property
    def width(self) -> int:
        return PITCH * max(len(self.bars), PLACES)

    @property
    def top(self) -> Bar:
        """The highest bar, which is the scale."""
        return max(self.bars, key=lambda bar: bar.value)

    @property
    def columns(self) -> Iterator[Column]:
        """The newest is on the right, even where there are few."""
        scale, meanings = max(self.top.value, 1), dict(self.legend)
        left = self.width - PITCH * len(self.bars) + (PITCH - WIDTH) // 2
        for number, bar in enumerate(self.bars):
            height = -(-bar.value * HEIGHT // scale)  # rounded up: a single row is seen beside a million
            yield Column(bar, meanings.get(bar.mark, ""), left + PITCH * number, HEIGHT - height, height)

    @property
    def marks(self) -> list[tuple[str, str]]:
        """What of the legend is needed."""
        used = {bar.mark for bar in self.bars}
        return [(mark, meaning) for mark, meaning in self.legend if mark in used]


def grouped(number: int) -> str:
    """1,234,567, as the language writes it."""
    return formats.number_format(number, force_grouping=True)


def local(moment: datetime, format: str = "SHORT_DATETIME_FORMAT") -> str:
    """In the current time zone, in a format of the language's."""
    return formats.date_format(timezone.localtime(moment) if timezone.is_aware(moment) else moment, format)
