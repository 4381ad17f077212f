"""Rules of the design, checked in the source: see docs/design.md."""

import ast
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.contrib.sessions.backends.base import SessionBase

import django_multisession
from django_multisession import backends, checks, user_sessions
from django_multisession.backends import base, db, mongodb, redis
from django_multisession.backends.db import storage as db_storage
from django_multisession.backends.memory import storage as memory_storage
from django_multisession.backends.mongodb import storage as mongodb_storage
from django_multisession.backends.redis import storage as redis_storage
from django_multisession.conf import NAMES
from django_multisession.user_sessions import ending, lifecycle, listing, passes, quota, rotation, signed_in

PACKAGE = Path(django_multisession.__file__).parent
ROOT = Path(__file__).parents[1]
SOURCES = sorted(PACKAGE.rglob("*.py"))
ADMIN = "django_multisession.admin"  # imported by Django's admin, where that is installed
MODULES = [module.name for module in pkgutil.walk_packages([str(PACKAGE)], "django_multisession.")]
OF_OTHER_APPS = re.compile(r"django_multisession\.(admin|urls|user_sessions\.views)")
OF_TESTS = re.compile(r"django_multisession\.(testing|pytest_plugin)")
MODULES = [name for name in MODULES if not OF_OTHER_APPS.match(name) and not OF_TESTS.match(name)]
ENGINES = sorted(
    {module.name for module in pkgutil.iter_modules(backends.__path__)} - {"base", "changing", "state", "storage"}
)
OF_ENGINES = {"cached_db", "moving"}  # made of engines: they have no server, so no driver and extra of their own
ENGINES = [name for name in ENGINES if name not in OF_ENGINES]
LONGEST_FILE = 360

VERBS = [name for name, value in vars(base.Storage).items() if inspect.iscoroutinefunction(value)]
STORAGES = [
    db_storage.DbStorage,
    memory_storage.MemoryStorage,
    mongodb_storage.MongoStorage,
    redis_storage.RedisStorage,
]
WITHOUT_IO = {"clear", "decode", "encode", "get_session_cookie_age", "is_empty"}


def of(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def imports(tree: ast.Module) -> Iterator[str]:
    """What is imported, as "asyncio", "redis.asyncio", ".base" or "..conf.conf"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            dots, module = "." * node.level, f"{node.module}." if node.module else ""
            yield from (f"{dots}{module}{alias.name}" for alias in node.names)


def fresh(code: str, *, blocked: str = "", apps: str = "", **settings: Any) -> str:
    """What a new Python process prints, where the modules named in `blocked` are not installed."""
    blocking = f"import sys; sys.modules.update(dict.fromkeys({blocked.split()!r}))"
    settings |= {"INSTALLED_APPS": apps.split(), "SECRET_KEY": "x"}
    configuring = f"from django.conf import settings; settings.configure(**{settings!r})"
    lines = [blocking, configuring, "import django; django.setup()", code]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Two faces


def public_methods(cls: type) -> dict[str, Any]:
    names = [name for name in dir(cls) if not name.startswith("_") and name not in ("storage", "astorage")]
    return {name: getattr(cls, name) for name in names if callable(getattr(cls, name))}


def parameters(method: Any) -> list[tuple[str, Any]]:
    return [(each.name, each.default) for each in inspect.signature(method).parameters.values()]


@pytest.mark.parametrize(
    "cls", [SessionBase, base.SessionStore, db.SessionStore, mongodb.SessionStore, redis.SessionStore]
)
def test_every_public_method_has_both_faces(cls: type) -> None:
    methods = public_methods(cls)
    asynchronous = {name for name, value in methods.items() if inspect.iscoroutinefunction(value)}
    synchronous = set(methods) - asynchronous - WITHOUT_IO
    assert asynchronous == {f"a{name}" for name in synchronous} | {"aset"}  # of __setitem__()


def test_both_faces_have_one_signature() -> None:
    methods = public_methods(base.SessionStore)
    pairs = {name: (method, methods[f"a{name}"]) for name, method in methods.items() if f"a{name}" in methods}
    assert [name for name, (method, twin) in pairs.items() if parameters(method) != parameters(twin)] == []


def test_signatures_are_those_of_django() -> None:
    theirs, ours = public_methods(SessionBase), public_methods(base.SessionStore)
    assert {name: parameters(ours[name]) for name in theirs} == {name: parameters(theirs[name]) for name in theirs}


def test_no_method_goes_through_a_thread() -> None:
    coroutines = dict(inspect.getmembers(base.SessionStore, inspect.iscoroutinefunction))
    assert [name for name, method in coroutines.items() if "sync_to_async" in inspect.getsource(method)] == []


@pytest.mark.parametrize("name", ["load", "exists", "create", "save", "delete", "cycle_key"])
def test_a_face_is_one_line_over_its_core(name: str) -> None:
    functions = {
        node.name: node for node in ast.walk(of(base)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for face, storage in ((name, "storage"), (f"a{name}", "astorage")):
        [statement] = functions[face].body
        assert re.search(rf"(self|cls)\._{name}\((self|cls)\.{storage}\b", ast.unparse(statement))


@pytest.mark.parametrize(("name", "function"), [("clear_expired", "purge.purge"), ("aclear_expired", "purge.apurge")])
def test_clear_expired_is_one_line_over_the_purge(name: str, function: str) -> None:
    assert f"{function}(store=cls, grace=0)" in inspect.getsource(getattr(base.SessionStore, name))


FUNCTIONS = {
    name: function
    for name, function in inspect.getmembers(user_sessions, inspect.isfunction)
    if function.__module__ == user_sessions.__name__ and hasattr(user_sessions, f"a{name}")
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_and_its_twin_are_one_line_over_their_core(name: str) -> None:
    assert parameters(FUNCTIONS[name]) == parameters(getattr(user_sessions, f"a{name}"))
    bodies = {node.name: node.body for node in of(user_sessions).body if hasattr(node, "body")}
    without_docstring = [ast.unparse(line) for line in bodies[name] if not isinstance(line, ast.Expr)]
    arguments = ", ".join(["SYNC", *(parameter for parameter, _ in parameters(FUNCTIONS[name]))])
    [core] = re.findall(r"^return run_sync\((\w+)\.\w+\(", without_docstring[0])
    assert without_docstring == [f"return run_sync({core}.{name}({arguments}))"]
    assert [ast.unparse(line) for line in bodies[f"a{name}"]] == [
        f"return await {core}.{name}({arguments.replace('SYNC', 'ASYNC')})"
    ]


def test_every_function_for_sites_has_a_twin() -> None:
    names = {"sessions_of", "count", "revoke", "revoke_all", "revoke_everyone", "repair_index"}
    assert set(FUNCTIONS) == names


# The core


def core() -> list[ast.AsyncFunctionDef]:
    [store] = [node for node in of(base).body if isinstance(node, ast.ClassDef) and node.name == "SessionStore"]
    methods = [node for node in store.body if isinstance(node, ast.AsyncFunctionDef)]
    faces = {"_aget_new_session_key", "_arun"}
    return [method for method in methods if method.name.startswith("_") and method.name not in faces]


@pytest.mark.parametrize("coroutine", core(), ids=lambda coroutine: coroutine.name)
def test_core_awaits_storage_verbs_and_itself(coroutine: ast.AsyncFunctionDef) -> None:
    allowed = {f"storage.{verb}" for verb in [*VERBS, "read_anew"]} | {f"self.{each.name}" for each in core()}
    allowed |= {f"rotation.{name}" for name, _ in inspect.getmembers(rotation, inspect.iscoroutinefunction)}
    allowed.add("clients.load")  # what _load() gives, for who is watched
    nodes = list(ast.walk(coroutine))
    assert not [node for node in nodes if isinstance(node, ast.AsyncFor | ast.AsyncWith)]
    awaited = [node.value for node in nodes if isinstance(node, ast.Await)]
    assert {ast.unparse(call.func) for call in awaited if isinstance(call, ast.Call)} <= allowed
    assert all(isinstance(each, ast.Call) for each in awaited)


@pytest.mark.parametrize("coroutine", core(), ids=lambda coroutine: coroutine.name)
def test_core_takes_the_storage_first(coroutine: ast.AsyncFunctionDef) -> None:
    assert coroutine.args.args[1].arg == "storage"


def test_core_knows_no_server() -> None:
    foreign = {name.split(".")[0] for name in imports(of(base)) if not name.startswith(".")} - {"django"}
    assert foreign <= sys.stdlib_module_names - {"asyncio", "threading"}


OUTSIDE = [
    pytest.param(node, id=f"{module.__name__.rpartition('.')[2]}.{node.name}")
    for module in (signed_in, ending, passes, lifecycle, listing, quota)
    for node in of(module).body
    if isinstance(node, ast.AsyncFunctionDef)
]


@pytest.mark.parametrize("coroutine", OUTSIDE)
def test_core_outside_of_the_store_awaits_verbs_what_a_face_gives_and_itself(coroutine: ast.AsyncFunctionDef) -> None:
    names = {param.values[0].name for param in OUTSIDE}
    verbs = {f"storage.{verb}" for verb in [*VERBS, "clock", "index", "index_is_whole", "may_miss", "end_user"]}
    others = {"after_commit", "settle", "rotation.remove", "rotation.remove_all"}
    awaited = [node.value for node in ast.walk(coroutine) if isinstance(node, ast.Await)]
    called = {ast.unparse(call.func) for call in awaited if isinstance(call, ast.Call)}
    modules = re.compile(r"(signed_in|ending|passes|lifecycle|listing|quota)\.")
    assert {modules.sub("", name) for name in called} <= verbs | others | names
    assert all(isinstance(each, ast.Call) for each in awaited)


# Storages


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("storage", STORAGES)
def test_storage_has_every_verb(storage: type, verb: str) -> None:
    method = getattr(storage, verb)
    assert inspect.iscoroutinefunction(method)
    assert inspect.signature(method) == inspect.signature(getattr(base.Storage, verb))


def test_redis_commands_that_are_never_sent() -> None:
    trees = [ast.parse(source.read_text()) for source in (PACKAGE / "backends" / "redis").glob("s*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    docstrings = {ast.get_docstring(tree, clean=False) for tree in trees}
    methods = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert not methods & {"keys", "rename", "renamenx", "config_set", "flushdb", "flushall", "pubsub", "psubscribe"}
    # KEYS[1] is a script's argument.
    forbidden = re.compile(r"\b(KEYS(?!\[)|RENAME|CONFIG|FLUSH\w+|notify-keyspace\S*|__key\w+__)", re.IGNORECASE)
    strings = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert [found for string in strings if string not in docstrings for found in forbidden.findall(string)] == []


# Optional drivers


@pytest.mark.parametrize(
    ("name", "drivers"),
    [("redis", "redis"), ("redis", "django_redis"), ("mongodb", "pymongo"), ("mongodb", "bson")],
)
def test_engine_names_the_extra_of_a_missing_driver(name: str, drivers: str) -> None:
    code = f"""
from importlib import import_module
for engine in {[each for each in ENGINES if each != name]!r}:
    import_module("django_multisession.backends." + engine)
try:
    import_module("django_multisession.backends.{name}")
except django.core.exceptions.ImproperlyConfigured as error:
    print(error)
"""
    message = fresh(code, blocked=drivers)
    assert f"pip install 'django-multisession[{name}]'" in message
    assert drivers in message
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for requirement in extras[name]:
        driver, _, version = requirement.partition(">=")
        found = f"{driver.replace('-', '_')} {version} or newer" in message
        assert found is (driver != "hiredis")  # without which redis-py works too


def test_missing_driver_is_reported_by_check() -> None:
    code = """
settings.SESSION_ENGINE = "django_multisession.backends.redis"
print([message.id for message in django.core.checks.run_checks()])
"""
    printed = fresh(code, blocked="redis", apps="django_multisession")
    assert "django_multisession.E003" in printed


EXTRAS = """
    redis django_redis hiredis pymongo bson billiard celery orjson backports.zstd compression cryptography rich
    ua_parser
"""


def test_package_imports_without_extras() -> None:
    """Neither drivers nor anything else that only an extra installs is needed, but by the engine that it is for."""
    of_extras = re.compile(r"django_multisession\.(backends\.(mongodb|redis|cached_db)|tasks)")
    code = f"""
from importlib import import_module
for module in {[name for name in MODULES if not of_extras.match(name)]!r}:
    import_module(module)
"""
    fresh(code, blocked=EXTRAS, apps="django_multisession")


def test_admin_imports_without_extras() -> None:
    apps = "django.contrib.contenttypes django.contrib.auth django.contrib.admin django_multisession"
    assert fresh(f"print({ADMIN!r} in sys.modules)", blocked=EXTRAS, apps=apps) == "True\n"


@pytest.mark.parametrize("name", ENGINES)
def test_engine_imports_without_any_app(name: str) -> None:
    fresh(f"import django_multisession.backends.{name}")


def test_package_imports_without_contrib_sessions() -> None:
    code = f"""
import sys
from importlib import import_module
for module in {MODULES!r}:
    import_module(module)
print("django.contrib.sessions.models" in sys.modules)
"""
    assert fresh(code, apps="django_multisession") == "False\n"


# The countable list


@pytest.mark.parametrize("name", ENGINES)
def test_engine_has_its_test_module_page_and_extra(name: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert (ROOT / "tests" / "backends" / name / "test_engine.py").is_file()
    assert (ROOT / "docs" / f"{name}.md").is_file()
    assert (name in extras) is (name not in ("db", "memory"))
    assert name in checks.EVERY_ENGINE


@pytest.mark.parametrize("setting", NAMES)
def test_setting_is_documented(setting: str) -> None:
    assert f"`{setting}`" in (ROOT / "docs" / "settings.md").read_text()


def test_documented_settings_exist() -> None:
    pages = [*(ROOT / "docs").glob("*.md"), *ROOT.glob("README.md")]
    named = {name for page in pages for name in re.findall(r"\bMULTISESSION_[A-Z_]*[A-Z]\b", page.read_text())}
    assert named <= set(NAMES)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(PACKAGE)))
def test_file_is_short(source: Path) -> None:
    assert len(source.read_text().splitlines()) <= LONGEST_FILE
