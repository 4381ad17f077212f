"""The command lines of the pages: the parser of each program takes them, and what they name is there."""

import argparse
import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.core.management import get_commands, load_command_class
from packaging.requirements import Requirement
from redis import Redis

from ..servers import url_of
from ..test_docs import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CRON = re.compile(r"^(?:[\d*/,-]+ +){5}\S+ +")  # minute to weekday, and the user
OF_THE_SHELL = {"cd", "mkdir", "source"}
TOOLS = {"ruff", "tox"}  # installed by the page's own command


def lines(code: str) -> Iterator[str]:
    """The commands, one by one; of a console those behind its prompt."""
    code = code.replace("\\\n", " ")
    if re.search(r"^\$ ", code, re.MULTILINE):
        code = "\n".join(re.findall(r"^\$ (.*)$", code, re.MULTILINE))
    for line in code.splitlines():
        line = CRON.sub("", line)
        yield from filter(None, (part.strip() for part in line.split(" && ")))


def parse(line: str) -> None:
    program, *arguments = shlex.split(line, comments=True)
    name = program.rpartition("/")[2]
    if program.startswith("benchmarks/"):
        script(ROOT / program, arguments)
    elif name not in OF_THE_SHELL:
        PROGRAMS[name](arguments)


def python(arguments: list[str]) -> None:
    first, *others = arguments
    if first == "-c":
        compile(others[0], "-c", "exec")
    elif first == "-m":
        PROGRAMS.get(others[0], lambda _: installed(others[0]))(others[1:])
    else:
        assert first.endswith("manage.py"), first
        manage(others)


def installed(module: str) -> None:
    assert find_spec(module), module


def manage(arguments: list[str]) -> None:
    """Of Django, of this package or of the example project."""
    name, *others = arguments
    if name == "demo":
        return script(ROOT / "example_project" / "shop" / "management" / "commands" / "demo.py", others)
    app = get_commands()[name]
    command = load_command_class(app, name) if isinstance(app, str) else app
    parser = command.create_parser("manage.py", name)
    for each in parsers(parser):
        each.allow_abbrev = False  # a misspelled option is one that a longer name begins with, now and then
    parser.parse_args(others)


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def pip(arguments: list[str]) -> None:
    verb, *others = arguments
    assert verb == "install"
    for option, value in zip([None, *others], others, strict=False):
        if option == "-r":
            assert (ROOT / value).is_file(), value
        elif not value.startswith("-") and value not in TOOLS:
            requirement = Requirement(re.sub(r"^\.", PROJECT["name"], value))
            assert requirement.name == PROJECT["name"]
            assert requirement.extras <= set(PROJECT["optional-dependencies"]), value


def script(path: Path, arguments: list[str]) -> None:
    """One that cannot be imported here: it is there, and its source has the options."""
    text = path.read_text()
    assert [option for option in arguments if option.startswith("--") and f'"{option}"' not in text] == []


def celery(arguments: list[str]) -> None:
    from celery.bin.celery import celery as group

    assert arguments[:2] == ["-A", "mysite"]
    verb, *others = arguments[2:]
    group.commands[verb].make_context(verb, others, obj=argparse.Namespace(app=None), resilient_parsing=True)


def gunicorn(arguments: list[str]) -> None:
    from gunicorn.config import Config

    Config().parser().parse_args(arguments)


def uvicorn(arguments: list[str]) -> None:
    from uvicorn.main import main

    main.make_context("uvicorn", arguments)


def redis_cli(arguments: list[str]) -> None:
    """Carried out, on the run's own server: users that it makes go again."""
    assert arguments[:2] == ["ACL", "SETUSER"]
    url = url_of("redis")
    assert url
    with Redis.from_url(url) as client:
        assert client.execute_command(*arguments) in (b"OK", True)
        client.acl_deluser(arguments[2])


PROGRAMS: dict[str, Any] = {
    "python": python,
    "python3": python,
    "manage.py": manage,
    "django-admin": manage,
    "pip": pip,
    "celery": celery,
    "gunicorn": gunicorn,
    "uvicorn": uvicorn,
    "redis-cli": redis_cli,
    "sphinx-build": lambda arguments: None,  # tox -e docs
}
