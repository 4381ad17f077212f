"""Every fenced block of the pages is run, here or by the test that the comment above it names, or says why not."""

import ast
import configparser
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from django.template import engines
from django.test import override_settings

from ..test_docs import PAGES, ROOT, blocks
from .commands import lines, parse
from .fences import ALL, HERE, Block
from .site import Site, parts
from .worlds import OUR_SIGNALS, WORLDS

LANGUAGES = {"python", "sh", "console", "json", "html", "ini"}
INSTALLED = {"sessions-policies.md", "settings.md"}  # pages that say what a site sets that has the package
OF_PYTHON = [page for page in PAGES if any(block.page == page and block.language == "python" for block in HERE)]


def here(*languages: str) -> list[Any]:
    return [pytest.param(block, id=str(block)) for block in HERE if block.language in languages]


def test_each_block_is_run_or_says_why_not() -> None:
    assert [str(block) for block in ALL if block.is_run_here and block.language not in LANGUAGES] == []
    marked = [block for block in ALL if block.marker]
    assert [str(block) for block in marked if not block.reason and not block.tests] == []


def test_no_test_does_without_blocks() -> None:
    """The patterns find what is there: fences that no pattern knows would be run by nobody."""
    ticks = sum(len(re.findall(r"^ *```+[^\n`{]*$", page.read_text(), re.MULTILINE)) for page in PAGES)
    directives = sum(len(re.findall(r"^ *```+\{", page.read_text(), re.MULTILINE)) for page in PAGES)
    assert 2 * len(ALL) == ticks - directives


def test_the_tests_that_are_named_read_the_page() -> None:
    for block in ALL:
        for test in block.tests:
            assert block.page.name in test.read_text(), (str(block), test)


@pytest.mark.parametrize("page", OF_PYTHON, ids=lambda page: page.name)
def test_python(page: Path, Store: Any) -> None:
    """All blocks of a page, one after the other; each function that they define is called in the page's world."""
    world = WORLDS.get(page.name, lambda: iter([{}]))()
    names = next(world)
    site, written = Site({name: names.pop(name) for name in [*names] if name.startswith("mysite.")}), []
    if page.name in INSTALLED:
        exec(blocks(ROOT / "README.md", "python")[0], site.fresh)
    with called() as seen, receivers_removed():
        for block in ALL:
            if (block.page, block.language) == (page, "python"):
                written += run(block, site, names)
        names |= site.modules
        assert next(world, None) is None
    assert [each for each in functions(written) if each not in seen] == []


def run(block: Block, site: Site, names: dict[str, Any]) -> Iterator[CodeType]:
    """Of a block that another test runs, what its modules have: the settings of the page may name it."""
    for module, line, part in sorted(parts(block.code), key=lambda part: part[0] == "settings"):
        where = f"{block.page}:{block.line + line}"
        code = compile(part, where, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if block.marker:
            if block.tests and module not in ("", "settings", "urls"):
                site.run(module, code)
            continue
        if module:
            site.run(module, code)
        else:
            exec(code, names)
        yield code


def functions(codes: list[CodeType]) -> Iterator[tuple[str, str]]:
    for code in codes:
        inner = [each for each in code.co_consts if isinstance(each, CodeType)]
        yield from ((each.co_filename, each.co_qualname) for each in inner if each.co_name[0] != "<")
        yield from functions(inner)


@contextmanager
def called() -> Iterator[set[tuple[str, str]]]:
    """Which functions are, in this thread and in those that begin meanwhile."""
    seen: set[tuple[str, str]] = set()

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            seen.add((frame.f_code.co_filename, frame.f_code.co_qualname))

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(before)
        threading.setprofile(None)  # type: ignore[arg-type]


@contextmanager
def receivers_removed() -> Iterator[None]:
    """Those that the page connects to our signals."""
    before = [list(signal.receivers) for signal in OUR_SIGNALS]
    try:
        yield
    finally:
        for signal, receivers in zip(OUR_SIGNALS, before, strict=True):
            signal.receivers = receivers
            signal.sender_receivers_cache.clear()


@pytest.mark.parametrize("block", here("sh", "console"))
def test_commands(block: Block) -> None:
    for line in lines(block.code):
        parse(line)


NAMED = re.compile(
    r"`(?:python )?(?:manage\.py )?((?:(?:check|migrate|purgesessions)|sessions (?:list|move|revoke\S*|stats)) -[^`]+)`"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text(page: Path) -> None:
    for command in NAMED.findall(page.read_text()):
        parse("manage.py " + command.partition(" |")[0].replace("--database sessions", "--database default"))


@pytest.mark.parametrize("block", here("ini"))
def test_systemd_units(block: Block) -> None:
    parser = configparser.ConfigParser(strict=False)
    parser.read_string(block.code)
    for section in parser.sections():
        if command := parser.get(section, "ExecStart", fallback=""):
            parse(command)


@pytest.mark.parametrize("block", here("html"))
def test_templates(block: Block) -> None:
    frame = "{% block title %}{% endblock %}{% block head %}{% endblock %}{% block content %}{% endblock %}"
    loader = ("django.template.loaders.locmem.Loader", {"shop/base.html": frame, "of the page": block.code})
    backend = "django.template.backends.django.DjangoTemplates"
    options = {"loaders": [loader], "libraries": {"static": "django.templatetags.static"}}
    with override_settings(TEMPLATES=[{"BACKEND": backend, "OPTIONS": options}], ROOT_URLCONF="tests.docs.urls"):
        assert "/s" in engines["django"].get_template("of the page").render()
