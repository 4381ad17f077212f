"""Each page fits a phone, and each table of the admin a desk, with names and agents as hostile as can be.

By `docs/pictures`, which takes the same pages to be looked at.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST_WORDS, RIGHT_TO_LEFT = "de", "ar"
PAGES = 29
WIDTHS = "320", "1280"

IMAGES = ROOT / "docs" / "images"


def test_drawings_and_pictures_have_a_dark_side():
    """A chart that is drawn anew has it from `benchmarks/drawings.py`."""
    drawings = sorted(IMAGES.glob("*.svg"))
    assert drawings
    assert [each.name for each in drawings if "@media (prefers-color-scheme: dark)" not in each.read_text()] == []
    light = sorted(IMAGES.glob("*-light.png"))
    assert light
    assert [each.name for each in light if not each.with_stem(each.stem.replace("-light", "-dark")).exists()] == []


@pytest.mark.slow
@pytest.mark.skipif(not (os.environ.get("CI") or shutil.which("chromium")), reason="chromium is missing")
def test_no_page_is_wider_than_its_window():
    languages = LONGEST_WORDS, RIGHT_TO_LEFT
    command = [sys.executable, "-m", "docs.pictures", "--languages", *languages, "--widths", *WIDTHS]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.stdout == f"{PAGES * len(languages) * len(WIDTHS)} pages, 0 of them too wide\n", done.stderr
    assert done.returncode == 0
