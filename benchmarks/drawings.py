"""Charts of matplotlib that are readable on a dark page too: `python -m benchmarks.drawings docs/images/engines.svg`.

Its SVG has a colour in the `style` of each shape, and none where it is black, so a stylesheet within has the last word.
"""

import sys
from pathlib import Path

DARK = """<style>@media (prefers-color-scheme: dark) {
svg { fill: #e0e0e0 }
[style*="fill: #ffffff"] { fill: #131416 !important }
[style*="fill: #000000"] { fill: #e0e0e0 !important }
[style*="stroke: #000000"] { stroke: #e0e0e0 !important }
[style*="stroke: #dddddd"] { stroke: #3a3d42 !important }
}</style>
"""


def for_dark_pages(file: Path) -> None:
    """Add the colours, unless they are there."""
    text = file.read_text()
    if file.suffix == ".svg" and DARK not in text:
        file.write_text(text.replace(" <metadata>", f" {DARK} <metadata>", 1))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        for_dark_pages(Path(name))
