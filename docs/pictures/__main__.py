"""Renders the pages, then takes them: Django refuses to work within the event loop that Playwright has in its thread."""

import argparse
import sys
from pathlib import Path

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
    return take(pages, options.widths, options.folder)


def rendered(languages: list[str], only: str) -> dict[str, dict[str, str]]:
    """By language and name."""
    users = scenes.fill()
    found = {each: scenes.of_users(users, each) | scenes.of_empty_admin(users, each) for each in languages}
    scenes.fill_the_rest()
    for each in languages:
        found[each] |= scenes.of_admin(users, each)
    return {each: {name: page for name, page in pages.items() if only in name} for each, pages in found.items()}


def take(pages: dict[str, dict[str, str]], widths: list[int], folder: Path | None) -> int:
    """How many are wider than their window, which is printed for each."""
    shots, wide = [], 0
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    with shoot.chromium() as browser:
        for shot, page in every(browser, pages, widths, shoot.SCHEMES if folder else shoot.SCHEMES[:1]):
            if over := shoot.overflow(page):
                wide += 1
                print(f"{shot.file}: {over} px too wide")  # noqa: T201
            if folder:
                shoot.photograph(page, folder / shot.file)
                shots.append(shot)
        for name in dict.fromkeys(shot.page for shot in shots):
            shoot.sheet(browser, [shot for shot in shots if shot.page == name], folder, folder / f"{name}.png")
    return wide


def every(browser, pages, widths, schemes):
    for language, by_name in pages.items():
        for width in widths:
            for scheme in schemes:
                with shoot.window(browser, by_name, width, scheme) as page:
                    for name in by_name:
                        page.goto(f"{shoot.SITE}/{name}")
                        yield shoot.Shot(name, language, width, scheme), page


if __name__ == "__main__":
    sys.exit(bool(main()))
