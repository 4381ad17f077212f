"""Renders the pages, then takes them: Django does no work beside the event loop that Playwright has in its thread."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import shown_site  # noqa: F401  sets Django up, before the rest asks for it

from . import scenes, shoot  # isort: skip

LANGUAGES = "en", "de", "ja", "ar"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.pictures", description="Takes every page, to be looked at.")
    parser.add_argument("folder", type=Path, nargs="?", help="where the pictures go; without it nothing is taken")
    parser.add_argument("--only", default="", help="pages whose name has this in it")
    parser.add_argument("--widths", type=int, nargs="*", default=shoot.WIDTHS, help="of the window, in pixels")
    parser.add_argument("--languages", nargs="*", default=LANGUAGES)
    options = parser.parse_args()
    pages = rendered(options.languages, options.only)
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    return take(pages, options.widths, options.folder)


def rendered(languages: Sequence[str], only: str) -> dict[str, scenes.Pages]:
    """By language and name."""
    users = scenes.fill()
    found = {each: scenes.of_users(users, each) | scenes.of_empty_admin(users, each) for each in languages}
    scenes.fill_the_rest()
    for each in languages:
        found[each] |= scenes.of_admin(users, each)
    return {each: {name: page for name, page in pages.items() if only in name} for each, pages in found.items()}


def take(pages: dict[str, scenes.Pages], widths: Sequence[int], folder: Path | None) -> int:
    """How many are wider than their window, which is printed for each."""
    schemes = shoot.SCHEMES if folder else shoot.SCHEMES[:1]
    with shoot.chromium() as browser:
        shots = dict(every(browser, pages, widths, schemes, folder))
        for name in dict.fromkeys(shot.page for shot in shots) if folder else ():
            shoot.sheet(browser, [shot for shot in shots if shot.page == name], folder / f"{name}.png")
    wide = {shot: pixels for shot, pixels in shots.items() if pixels}
    for shot, pixels in wide.items():
        print(f"{shot.page} in {shot.language}: {pixels} px wider than {shot.width}")
    print(f"{len(shots)} pages, {len(wide)} of them too wide")
    return len(wide)


def every(
    browser: Any, pages: dict[str, scenes.Pages], widths: Sequence[int], schemes: Sequence[str], folder: Path | None
) -> Iterator[tuple[shoot.Shot, int]]:
    """And by how many pixels it is too wide."""
    for language, by_name in pages.items():
        with shoot.window(browser, by_name) as page:
            for name in by_name:
                for width, scheme in shoot.opened(page, name, widths, schemes):
                    shot = shoot.Shot(name, language, width, scheme)
                    if folder:
                        shoot.photograph(page, folder / shot.file)
                    yield shot, shoot.overflow(page)


if __name__ == "__main__":
    sys.exit(bool(main()))
