"""A site as `startproject` makes it, in this process: what the pages' settings and modules are put into."""

import ast
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import django
from django.conf import global_settings
from django.core.checks import Error, Warning, run_checks
from django.db.utils import ConnectionHandler
from django.test import override_settings

from django_multisession.conf import NAMES

TEMPLATES = Path(django.__file__).parent / "conf" / "project_template" / "project_name"
OF_OTHERS = {"CELERY_BEAT_SCHEDULE", "DJANGO_REDIS_CONNECTION_FACTORY"}
NOT_OVERRIDDEN = {"DATABASES"}  # of a running process: they are opened instead, as far as that goes without a server
ENGINE_OF = {
    "MULTISESSION_REDIS": "redis",
    "MULTISESSION_KEY_PREFIX": "redis",
    "MULTISESSION_MONGODB": "mongodb",
    "MULTISESSION_CACHE_AGE": "cached_db",
}


class Site:
    """`mysite`, one for each page."""

    def __init__(self, modules: dict[str, ModuleType]) -> None:
        self.fresh = self._template("settings")
        self.settings = dict(self.fresh)  # with those of all blocks until now
        self.urls = self._template("urls")
        self.modules = {"mysite": ModuleType("mysite"), "mysite.urls": module("mysite.urls", self.urls), **modules}
        self.modules["mysite"].__path__ = []  # a package

    def _template(self, name: str) -> dict[str, Any]:
        code = (TEMPLATES / f"{name}.py-tpl").read_text()
        code = re.sub(r"\{\{ secret_key \}\}", "x" * 50, code).replace("{{ project_name }}", "mysite")
        names: dict[str, Any] = {"__file__": "/srv/mysite/mysite/settings.py"}
        exec(re.sub(r"\{\{ \w+ \}\}", "", code), names)
        return names

    def run(self, name: str, code: Any) -> None:
        """The code of the module of that name, `settings`, `urls` or one that the page makes."""
        if name == "settings":
            return self.check(code)
        names = self.urls if name == "urls" else self.modules.setdefault(f"mysite.{name}", ModuleType(name)).__dict__
        with self.importable():
            exec(code, names)

    @contextmanager
    def importable(self) -> Iterator[None]:
        sys.modules.update(self.modules)
        try:
            yield
        finally:
            for name in self.modules:
                del sys.modules[name]

    def check(self, code: Any) -> None:
        """What `manage.py check` says of these settings, and what opening the databases says, is nothing."""
        values = self._pasted(code)
        values |= engine_for({name: value for name, value in values.items() if self.fresh.get(name) != value})
        with self.importable(), override_settings(**{name: values[name] for name in values.keys() - NOT_OVERRIDDEN}):
            said = [each for each in run_checks() if isinstance(each, Error | Warning)]
        assert [str(each) for each in said] == []
        for connection in ConnectionHandler(deepcopy(values["DATABASES"])).all():
            connection.get_connection_params()

    def _pasted(self, code: Any) -> dict[str, Any]:
        """Into new settings, since blocks are alternatives; where one needs those above it, on top of these."""
        alone, above = deepcopied(self.fresh), deepcopied(self.settings)
        with self.importable():
            exec(code, above)
            self.settings = above
            try:
                exec(code, alone)
            except (NameError, LookupError):
                return upper(above)
        return upper(alone)


def deepcopied(names: dict[str, Any]) -> dict[str, Any]:
    return {name: deepcopy(value) if name.isupper() else value for name, value in names.items()}


def module(name: str, names: dict[str, Any]) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(names)
    return made


def upper(names: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in names.items() if name.isupper()}


def engine_for(changed: dict[str, Any]) -> dict[str, str]:
    """The engine whose checks look at these settings, where they do not name one."""
    if "SESSION_ENGINE" in changed:
        return {}
    engines = {engine for name in changed for prefix, engine in ENGINE_OF.items() if name.startswith(prefix)}
    return {"SESSION_ENGINE": f"django_multisession.backends.{min(engines)}"} if engines else {}


def parts(code: str) -> Iterator[tuple[str, int, str]]:
    """The module, the line and the code of each part of a block: `# mysite/urls.py` begins one. "" names no module."""
    heads = [*re.finditer(r"^# (?:mysite/)?(\w+)\.py\b.*$", code, re.MULTILINE)]
    begins = [0, *(head.start() for head in heads if head.start())]
    for start, end in zip(begins, [*begins[1:], len(code)], strict=True):
        [name] = [head[1] for head in heads if head.start() == start] or [""]
        part = code[start:end]
        yield name or ("settings" if are_settings(part) else ""), code.count("\n", 0, start), part


def are_settings(code: str) -> bool:
    names = [root(target) for node in ast.parse(code).body for target in targets(node)]
    known = [name.isupper() and is_known(name) for name in names]
    assert all(known) or not any(known), names
    return any(known)


def is_known(name: str) -> bool:
    return name in NAMES or hasattr(global_settings, name) or name in OF_OTHERS


def targets(node: ast.stmt) -> list[ast.expr]:
    match node:
        case ast.Assign():
            return node.targets
        case ast.AugAssign():
            return [node.target]
    return []


def root(target: ast.expr) -> str:
    while isinstance(target, ast.Subscript):
        target = target.value
    return target.id if isinstance(target, ast.Name) else ""
