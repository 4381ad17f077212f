"""Each check fires, by its number, and is silent beside a right configuration."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.middleware import SessionMiddleware as DjangosMiddleware
from django.core.checks import run_checks
from django.core.management import call_command
from django.test import override_settings
from django.test.utils import captured_stderr
from redis import Redis

from django_multisession import checks
from django_multisession import engine as session_engine
from django_multisession.backends.db import checks as db_checks
from django_multisession.backends.memory import checks as memory_checks
from django_multisession.backends.mongodb import checks as mongodb_checks
from django_multisession.backends.redis import checks as redis_checks
from django_multisession.checks import foreign as foreign_checks
from django_multisession.checks import installation, merging
from django_multisession.conf import NAMES
from django_multisession.middleware import SessionMiddleware
from example_project.servers import RedisServer

from . import memory

ROOT = Path(__file__).parents[1]
OF_ENGINES = db_checks, memory_checks, mongodb_checks, redis_checks
DJANGO_REDIS = "django_redis.cache.RedisCache"
LOCAL = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
KEY = "00" * 32


def redis(alias: str = "sessions", **options: Any) -> dict[str, Any]:
    cache = {"BACKEND": DJANGO_REDIS, "LOCATION": "redis://nowhere/1", **options}
    return {"SESSION_ENGINE": "django_multisession.backends.redis", "CACHES": {"default": LOCAL, alias: cache}}


def engine(name: str) -> dict[str, Any]:
    """Settings that are right."""
    return redis() if name == "redis" else {"SESSION_ENGINE": f"django_multisession.backends.{name}"}


def mongodb(uri: object) -> dict[str, Any]:
    return {**engine("mongodb"), "MULTISESSION_MONGODB": uri}


def found(deploy: bool = False, databases: list[str] | None = None, **settings: Any) -> str:
    """The numbers of our messages under these settings."""
    with override_settings(**settings):
        messages = run_checks(include_deployment_checks=deploy, databases=databases)
    ours = [str(each.id) for each in messages if str(each.id).startswith("django_multisession.")]
    return " ".join(each.removeprefix("django_multisession.") for each in ours)


def hints(**settings: Any) -> str:
    with override_settings(**settings):
        return " ".join(str(message.hint) for message in run_checks())


def texts(**settings: Any) -> str:
    with override_settings(**settings):
        return " ".join(message.msg for message in run_checks())


@pytest.mark.parametrize("name", ["redis", "mongodb", "db"])
def test_a_right_configuration_is_silent(name: str) -> None:
    assert found(**engine(name)) == ""


@pytest.mark.parametrize("debug", [True, False])
def test_memory_is_for_tests_whatever_debug_is(debug: bool) -> None:
    assert found(DEBUG=debug, **engine("memory")) == ""
    assert found(deploy=True, DEBUG=debug, **engine("memory")) == "W020"


@pytest.mark.parametrize("name", ["mongodb", "db"])
def test_and_so_it_is_when_deployed(name: str) -> None:
    assert found(deploy=True, databases=["default"], **engine(name)) == ""


def test_the_list_of_numbers_is_complete() -> None:
    listed = re.findall(r"^    ([EW]\d{3})  ", checks.__doc__ or "", re.MULTILINE)
    code = "".join(
        Path(module.__file__).read_text()
        for module in (
            checks,
            db_checks,
            foreign_checks,
            installation,
            memory_checks,
            merging,
            mongodb_checks,
            redis_checks,
        )
    )
    used = set(re.findall(r'"([EW]\d{3})"', code))
    documented = re.findall(r"^\| `([EW]\d{3})`", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(documented) == sorted(used)


@pytest.mark.parametrize("settings", [redis(), mongodb("x"), {"SESSION_ENGINE": "tests.memory"}])
def test_problems_come_with_a_hint(settings: dict[str, Any]) -> None:
    assert "Set it to" in hints(**settings, MULTISESSION_TIMEOUT=0)


# Which engine


@pytest.mark.parametrize("name", ["redis", "mongodb", "db", "memory", "base"])
def test_engine_by_name(name: str) -> None:
    with override_settings(SESSION_ENGINE=f"django_multisession.backends.{name}"):
        assert session_engine.kind() == name


def test_engine_that_builds_on_ours() -> None:
    with override_settings(SESSION_ENGINE="tests.memory"):
        assert session_engine.kind() == "base"


@pytest.mark.parametrize("name", ["django.contrib.sessions.backends.db", "no.such.engine"])
def test_engine_of_others(name: str) -> None:
    assert "E004" not in found(SESSION_ENGINE=name, MULTISESSION_TIMEOUT=0)


# Settings and installation


def test_unknown_setting() -> None:
    assert found(MULTISESSION_REDIS_URL="redis://") == "E001"


def test_unknown_setting_with_another_engine() -> None:
    assert "E001" in found(SESSION_ENGINE="django.contrib.sessions.backends.db", MULTISESSION_X=1)


def test_unknown_setting_did_you_mean() -> None:
    assert "Did you mean MULTISESSION_MONGODB_COLLECTION?" in hints(MULTISESSION_MONGO_COLLECTION="x")


def test_unknown_setting_like_no_other() -> None:
    assert ", ".join(NAMES) in hints(MULTISESSION_QQQ="x")


def test_every_known_setting() -> None:
    assert "E001" not in found(**{name: setting.default for name, setting in NAMES.items()})


def test_engine_misspelled() -> None:
    assert found(SESSION_ENGINE="django_multisession.backends.mongo") == "E003"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("django_multisesion.backends.redis", "No module named 'django_multisesion'"),
        ("django_multisession.records", "has no attribute 'SessionStore'"),
        (None, "None"),
    ],
)
def test_what_is_no_engine(name: Any, why: str) -> None:
    """Not only a module of this package: its name may be what is misspelled."""
    assert found(SESSION_ENGINE=name) == "E003"
    assert why in texts(SESSION_ENGINE=name)


def test_a_serializer_that_cannot_be_imported() -> None:
    wrong = engine("db") | {"SESSION_SERIALIZER": "nosuch.Serializer"}
    assert found(**wrong) == "E019"
    assert "No module named 'nosuch'" in texts(**wrong)


def test_a_middleware_that_cannot_be_imported_is_left_to_django() -> None:
    tracked = {"MULTISESSION_TRACK_CLIENT": True, "MULTISESSION_ON_CLIENT_CHANGE": "signal"}
    ours = "django_multisession.middleware.SessionMiddleware"
    assert found(MIDDLEWARE=["no.such.Middleware", ours], **tracked, **engine("db")) == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("KEY_PREFIX", value) for value in ("", " ", "a b", "a\n", b"session", None)],
        *[("MONGODB_COLLECTION", value) for value in ("", "a..b", ".a", "$a", "a\0", None)],
        *[("TIMEOUT", value) for value in (0, -1, "5", None, True, float("inf"), float("nan"), "2d", 10**12)],
        *[("TOUCH_AFTER", value) for value in (-1, "5", True, timedelta.max, 10**12)],
        *[("ABSOLUTE_AGE", value) for value in (0, -1, "", timedelta.max, 10**12, float("nan"))],
        *[("MAX_BYTES", value) for value in (0, -1, 1.5, "1", None, True)],
        *[("COMPRESS_OVER", value) for value in (-1, 1.5, "1", True)],
        *[("TRACK_CLIENT", value) for value in ("", "yes", 1, 0, None)],
        *[("CLIENT_IP", value) for value in ("", "no.such.function", "django.conf.settings.DEBUG", 5)],
        *[("ON_CLIENT_CHANGE", value) for value in ("", "log", None, True)],
        *[("CLIENT_NETWORK", value) for value in ("", 1, None)],
        *[("CONFIRM_PASSWORD", value) for value in ("", 1, None)],
        *[("MAX_PER_USER", value) for value in (0, -1, 1.5, "3", True, "no.such.function")],
        *[("ON_MAX", value) for value in ("", "deny", None)],
        *[("REVOKE_ON", value) for value in ("password", ["pasword"], None, [1])],
    ],
)
def test_invalid_setting(name: str, value: Any) -> None:
    assert found(**{f"MULTISESSION_{name}": value}) == "E004"


@pytest.mark.parametrize("value", [0, "900", False, timedelta.max, 10**12, float("nan"), [900]], ids=repr)
@pytest.mark.parametrize("name", ["redis", "db", "mongodb"])
def test_a_duration_of_no_use_is_a_finding_not_a_traceback(name: str, value: Any) -> None:
    """Deployed, too, where other checks open the engine's client."""
    uri = {"MULTISESSION_MONGODB": "mongodb://nowhere/x", "MULTISESSION_REDIS": "redis://elsewhere/1"}
    wrong = {"MULTISESSION_IDLE_AGE": value, "MULTISESSION_TIMEOUT": value}
    secure = {"SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_HTTPONLY": True}
    numbers = found(deploy=True, **engine(name), **uri, **wrong, **secure, SESSION_SAVE_EVERY_REQUEST=True).split()
    assert numbers.count("E004") == 2
    assert set(numbers) <= {"E004", "W005"}


def test_a_wrong_duration_comes_with_the_forms() -> None:
    hint = hints(MULTISESSION_IDLE_AGE="900", SESSION_SAVE_EVERY_REQUEST=True)
    assert "a duration from 1ms to 36525d: text as 30d, 12h, 15m, 45s, 50ms, or seconds, or None" in hint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("KEY_PREFIX", value) for value in ("a", "{a}", "*?[", "mysite:session", "сессия")],
        *[("MONGODB_COLLECTION", value) for value in ("a", "a.b", "a-b c")],
        *[("TIMEOUT", value) for value in (1, 0.2, "500ms", timedelta(seconds=2))],
        *[("TOUCH_AFTER", value) for value in (None, 0, "0", "5m", timedelta(0), 300)],
        *[("ABSOLUTE_AGE", value) for value in (None, "12h", timedelta(hours=12), 43200, "36525d")],
        ("MAX_BYTES", 1),
        *[("COMPRESS_OVER", value) for value in (0, None)],
        *[("TRACK_CLIENT", value) for value in (True, False, "anonymize")],
        *[("CLIENT_IP", value) for value in (None, f"{__name__}.found", lambda request: None)],
        *[("MAX_PER_USER", value) for value in (None, 1, f"{__name__}.found", lambda user_id: 5)],
        *[("ON_MAX", value) for value in ("evict", "refuse")],
        *[("REVOKE_ON", value) for value in ([], (), {"deleted"}, ["deactivated", "deleted"])],
    ],
)
def test_valid_setting(name: str, value: Any) -> None:
    assert found(**{f"MULTISESSION_{name}": value}) == ""


@pytest.mark.parametrize("keys", [KEY, KEY.encode(), {KEY}, None, 5, [""], ["00"], [KEY, "x"], [5], [[KEY]]])
def test_unusable_encryption_keys(keys: object) -> None:
    assert found(MULTISESSION_ENCRYPTION_KEYS=keys) == "E005"


@pytest.mark.parametrize("keys", [(), [KEY], (KEY, b"k" * 32), [None, KEY]])
def test_usable_encryption_keys(keys: object) -> None:
    assert found(MULTISESSION_ENCRYPTION_KEYS=keys) == ""


@pytest.mark.parametrize(("keys", "numbers"), [([KEY], "E006"), ([], "")])
def test_cryptography_missing(keys: list[str], numbers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    assert found(MULTISESSION_ENCRYPTION_KEYS=keys) == numbers


def test_pickle_serializer() -> None:
    assert found(deploy=True, SESSION_SERIALIZER="pickle.Pickler", **engine("db")) == "W004"


def test_pickle_serializer_is_for_deployment() -> None:
    assert found(SESSION_SERIALIZER="pickle.Pickler") == ""


# What surrounds the sessions

OURS = "django_multisession.middleware.SessionMiddleware"
DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"
AUTH = "django.contrib.auth.middleware.AuthenticationMiddleware"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"


class SubclassOfDjangos(DjangosMiddleware):
    pass


@pytest.mark.parametrize(
    ("middleware", "numbers"),
    [
        ([OURS, AUTH], ""),
        ([DJANGOS, CSRF, AUTH], ""),
        ([AUTH], ""),
        ([DJANGOS, OURS, AUTH], "E040"),
        ([f"{__name__}.SubclassOfDjangos", DJANGOS], "E040"),
        ([AUTH, OURS], "E041"),
        ([CSRF, OURS, AUTH], ""),
        (["no.such.middleware", OURS, AUTH], ""),
    ],
)
def test_session_middlewares(middleware: list[str], numbers: str) -> None:
    assert found(MIDDLEWARE=middleware) == numbers


def test_csrf_tokens_in_sessions_need_them_first() -> None:
    assert found(MIDDLEWARE=[CSRF, OURS, AUTH], CSRF_USE_SESSIONS=True) == "E041"


def test_settings_beside_an_engine_of_djangos() -> None:
    with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.db", MULTISESSION_MAX_PER_USER=3):
        [message] = [each for each in run_checks() if each.id == "django_multisession.W040"]
    assert "MULTISESSION_MAX_PER_USER" in message.msg
    assert "MULTISESSION_TIMEOUT" not in message.msg


def test_clients_without_ua_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(MULTISESSION_TRACK_CLIENT=True) == ""
    monkeypatch.setattr(installation, "find_spec", lambda name: None)
    assert found(MULTISESSION_TRACK_CLIENT=True) == "W041"
    assert found() == ""


def test_the_page_without_clients() -> None:
    urls = {"ROOT_URLCONF": "tests.user_sessions.test_views"}
    assert found(**urls) == "W042"
    assert found(**urls, MULTISESSION_TRACK_CLIENT=False) == "W042"
    assert found(**urls, MULTISESSION_TRACK_CLIENT=True) == ""


@pytest.mark.parametrize(
    ("tracked", "middleware", "numbers"),
    [(True, OURS, ""), (False, OURS, "W043"), (True, DJANGOS, "W043"), (False, DJANGOS, "W043 W043")],
)
def test_clients_are_compared(tracked: bool, middleware: str, numbers: str) -> None:
    settings = {"MULTISESSION_TRACK_CLIENT": tracked, "MIDDLEWARE": [middleware, AUTH]}
    assert found(MULTISESSION_ON_CLIENT_CHANGE="end", **settings) == numbers


@pytest.mark.parametrize("name", ["CLIENT_IP", "MAX_PER_USER"])
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("tests.no_such_module.function", "cannot be imported: No module named 'tests.no_such_module'"),
        ("tests.memory.no_such_function", 'does not define a "no_such_function"'),
        ("tests.memory.__name__", "which is no function"),
    ],
)
def test_a_path_that_cannot_be_imported_shows_its_error(name: str, path: str, said: str) -> None:
    with override_settings(**{f"MULTISESSION_{name}": path}):
        [message] = [each for each in run_checks() if each.id == "django_multisession.E004"]
    assert said in message.msg


@pytest.mark.parametrize(("name", "number"), [("redis", "E009"), ("mongodb", "E012")])
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("tests.no_such_module.client", ", which cannot be imported: No module named 'tests.no_such_module'."),
        ("broken_client.make", ", which cannot be imported: no such host"),
        ("tests.memory.__name__", ", which is no function."),
        ("foo://user:secret@host.example/1", "the dotted path of a callable."),
    ],
)
def test_a_client_that_cannot_be_imported_shows_its_error(name, number, path, said, tmp_path, monkeypatch) -> None:
    (tmp_path / "broken_client.py").write_text("raise RuntimeError('no such host')")
    monkeypatch.syspath_prepend(tmp_path)
    site = redis() if name == "redis" else engine(name)
    with override_settings(**site, **{f"MULTISESSION_{name.upper()}": path}):
        messages = [each for each in run_checks() if str(each.id).startswith("django_multisession.E")]
    [message] = messages
    assert message.id == f"django_multisession.{number}"
    assert said in message.msg
    assert "secret" not in message.msg


def test_one_message_for_sessions_in_a_local_cache() -> None:
    assert found(SESSION_ENGINE="django_multisession.backends.redis", CACHES={"default": LOCAL}, **IN_DEFAULT) == "E008"


# Redis

IN_DEFAULT = {"SESSION_CACHE_ALIAS": "default"}


def test_cache_alias_missing() -> None:
    assert found(**redis(), SESSION_CACHE_ALIAS="nowhere") == "E007"


def test_cache_alias_not_needed() -> None:
    assert found(**redis(), SESSION_CACHE_ALIAS="nowhere", MULTISESSION_REDIS="redis://") == ""


def test_cache_is_not_django_redis() -> None:
    assert found(**redis(BACKEND="django.core.cache.backends.redis.RedisCache")) == "E008"


def test_cache_of_shards() -> None:
    assert found(**redis(OPTIONS={"CLIENT_CLASS": "django_redis.client.ShardClient"})) == "E008"


def test_cache_behind_sentinels() -> None:
    options = {"CLIENT_CLASS": "django_redis.client.SentinelClient", "SENTINELS": [("a", 1)]}
    assert found(**redis(OPTIONS=options)) == ""


@pytest.mark.parametrize("value", ["http://localhost", "localhost:6379", "no.such.function", "os.sep", Redis()])
def test_redis_setting_unusable(value: object) -> None:
    assert found(**redis(), MULTISESSION_REDIS=value) == "E009"


@pytest.mark.parametrize("value", ["redis://localhost", "rediss://a:b@c/2", "unix:///redis.sock?db=1", "redis.Redis"])
def test_redis_setting_usable(value: str) -> None:
    assert found(**redis(), MULTISESSION_REDIS=value) == ""


SENTINELS = "redis+sentinel://a,b:26379/main"


@pytest.mark.parametrize("url", ["redis://localhost/abc", "rediss://a:b@[::1]:1/0/1?db=2", f"{SENTINELS}/one"])
def test_a_database_that_is_no_number(url: str) -> None:
    assert found(**redis(), MULTISESSION_REDIS=url) == "E022"
    assert found(**engine("cached_db"), MULTISESSION_REDIS=url) == "E022"


def test_a_password_with_a_slash_is_in_no_message() -> None:
    """redis-py takes what is behind the slash for the number of a database."""
    assert "et@localhost" not in texts(**redis(), MULTISESSION_REDIS="redis://:secr/et@localhost/1")


@pytest.mark.parametrize("location", ["redis://localhost/abc", ["redis://a/1", "redis://b/abc"]])
def test_a_database_of_the_alias_that_is_no_number(location: object) -> None:
    assert found(**redis(LOCATION=location)) == "E022"


@pytest.mark.parametrize(
    "url", ["redis://a/1/", "redis://a/1#b", "redis://a:1?db=1", "unix:///a/b?db=1", f"{SENTINELS}/1", SENTINELS]
)
def test_databases_that_are_numbers(url: str) -> None:
    assert found(**redis(), MULTISESSION_REDIS=url) == ""


def test_responses_decoded() -> None:
    assert found(**redis(OPTIONS={"CONNECTION_POOL_KWARGS": {"decode_responses": True}})) == "E010"


def test_responses_decoded_by_url() -> None:
    assert found(**redis(), MULTISESSION_REDIS="redis://localhost?decode_responses=1") == "E010"


def test_sessions_in_default_cache() -> None:
    assert found(**redis("default"), SESSION_CACHE_ALIAS="default") == "W002"


def test_default_cache_not_used() -> None:
    assert found(**redis("default"), SESSION_CACHE_ALIAS="default", MULTISESSION_REDIS="redis://elsewhere") == ""


@pytest.mark.parametrize(
    "other",
    [
        {"LOCATION": "redis://nowhere/1"},
        {"LOCATION": ["redis://user:password@nowhere:6379/1", "redis://replica/1"]},
        {"LOCATION": "redis://nowhere?db=1,redis://replica"},
        {"LOCATION": "redis://nowhere", "OPTIONS": {"CONNECTION_POOL_KWARGS": {"db": 1}}},
        {"LOCATION": "redis://nowhere", "OPTIONS": {"db": 1}, "BACKEND": "django.core.cache.backends.redis.RedisCache"},
    ],
)
def test_database_shared_with_cache(other: dict[str, Any]) -> None:
    settings = redis()
    settings["CACHES"]["pages"] = {"BACKEND": DJANGO_REDIS, **other}
    assert found(**settings) == "W003"


def test_database_of_setting_shared_with_cache() -> None:
    assert found(**redis(), MULTISESSION_REDIS="redis://nowhere/1") == "W003"


@pytest.mark.parametrize(
    "other",
    [
        {"LOCATION": "redis://nowhere/2"},
        {"LOCATION": "redis://nowhere:6380/1"},
        {"LOCATION": "redis://nowhere/1", "OPTIONS": {"SENTINELS": [("a", 1)]}},
        LOCAL,
        {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": Path("/var/cache")},
    ],
)
def test_database_not_shared(other: dict[str, Any]) -> None:
    settings = redis()
    settings["CACHES"]["default"] = {"BACKEND": DJANGO_REDIS, **other}
    assert found(**settings) == ""


# MongoDB


@pytest.mark.parametrize("value", [None, ""])
def test_mongodb_setting_missing(value: object) -> None:
    assert found(**mongodb(value)) == "E011"


@pytest.mark.parametrize(
    "value",
    [
        "http://localhost/mysite",
        "mongodb://",
        "mongodb://user:p@ss@localhost/mysite",
        "mongodb://localhost:99999/mysite",
        "mongodb://localhost/my site",
        "localhost",
        "no.such.function",
        5,
    ],
)
def test_mongodb_setting_unusable(value: object) -> None:
    assert found(**mongodb(value)) == "E012"


@pytest.mark.parametrize(
    "value",
    [
        "mongodb://localhost/mysite",
        "mongodb://user:p%40ss@a:1,b:2/mysite?replicaSet=rs&tls=true",
        "mongodb://user:p#s[@localhost/mysite",
        "mongodb+srv://cluster.example.com/mysite",
        "pymongo.MongoClient",
    ],
)
def test_mongodb_setting_usable(value: str) -> None:
    assert found(**mongodb(value)) == ""


@pytest.mark.parametrize(
    "value", ["mongodb://localhost", "mongodb://localhost/?replicaSet=rs", "mongodb+srv://cluster.example.com/"]
)
def test_mongodb_uri_without_database(value: str) -> None:
    assert found(**mongodb(value)) == "E013"


@pytest.mark.parametrize(("name", "numbers"), [("mongodb", "E014"), ("redis", "")])
def test_max_bytes_over_document(name: str, numbers: str) -> None:
    assert found(**engine(name), MULTISESSION_MAX_BYTES=16 * 1024 * 1024) == numbers


def test_max_bytes_of_a_document() -> None:
    assert found(**engine("mongodb"), MULTISESSION_MAX_BYTES=mongodb_checks.MONGODB_DOCUMENT) == ""


# The Redis server


def of_server(*options: str, **how: Any) -> str:
    with RedisServer(*options) as server:
        return found(**redis(), MULTISESSION_REDIS=server.url, **how)


@pytest.mark.parametrize("how", [{"databases": ["default"]}, {"deploy": True}])
@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_evicting_server(policy: str, how: dict[str, Any]) -> None:
    assert of_server("--maxmemory-policy", policy, **how) == "W006"


@pytest.mark.parametrize("how", [{"databases": ["default"]}, {"deploy": True}])
def test_server_that_does_not_evict(how: dict[str, Any]) -> None:
    assert of_server("--maxmemory-policy", "noeviction", **how) == ""


def test_server_is_not_asked_otherwise() -> None:
    assert of_server("--maxmemory-policy", "allkeys-lru") == ""


def test_server_of_another_engine_is_not_asked() -> None:
    assert found(deploy=True, databases=["default"], **engine("db"), MULTISESSION_REDIS="redis://127.0.0.1:1") == ""


def test_server_may_keep_its_information() -> None:
    assert of_server("--user", *["default", "on", "nopass", "~*", "+@all", "-info"], deploy=True) == "W005"


@pytest.mark.parametrize("how", [{"databases": ["default"]}, {"deploy": True}])
def test_server_is_down(how: dict[str, Any]) -> None:
    assert found(**redis(), MULTISESSION_REDIS="redis://127.0.0.1:1", **how) == "W005"


def test_server_is_down_and_migrate_runs() -> None:
    with override_settings(**redis(), MULTISESSION_REDIS="redis://127.0.0.1:1"), captured_stderr() as stderr:
        call_command("migrate", verbosity=0, skip_checks=False)
    assert "django_multisession.W005" in stderr.getvalue()


@pytest.mark.parametrize(
    ("version", "numbers"), [("6.0.16", ["E015"]), ("6.2.0", []), ("8.2", []), ("255.255.255", [])]
)
def test_old_server(version: str, numbers: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Redis, "info", lambda self: {"redis_version": version})
    assert found(**redis(), deploy=True).split() == numbers


def test_reference_engine_is_checked_too() -> None:
    assert found(SESSION_ENGINE=memory.__name__, MULTISESSION_MAX_BYTES=0) == "E004"


OURS = "django_multisession.middleware.SessionMiddleware"


@pytest.mark.parametrize("name", ["redis", "mongodb", "db"])
def test_nobody_knows_whose_request_changes_a_password(name: str) -> None:
    assert found(**engine(name), MULTISESSION_REVOKE_ON=["password"]) == "W009"


@pytest.mark.parametrize(
    "settings",
    [
        {},  # what is the default is not the site's wish
        {"MULTISESSION_REVOKE_ON": ["deleted"]},
        {"MULTISESSION_REVOKE_ON": ["password"], "MIDDLEWARE": [OURS]},
        {"MULTISESSION_REVOKE_ON": ["password"], "MIDDLEWARE": [f"{__name__}.function", f"{__name__}.Middleware"]},
    ],
)
def test_somebody_knows_or_nobody_asks(settings: dict[str, Any]) -> None:
    assert found(**engine("db"), **settings) == ""


class Middleware(SessionMiddleware):
    """A site's own."""


def function(get_response: Any) -> Any:
    """Middleware need not be a class."""


@pytest.mark.parametrize("off", ["SESSION_COOKIE_SECURE", "SESSION_COOKIE_HTTPONLY"])
def test_a_cookie_that_is_not_protected(off: str) -> None:
    on = {"SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_HTTPONLY": True, "MIDDLEWARE": [OURS]}
    assert found(deploy=True, **engine("db"), **on) == ""
    assert found(deploy=True, **engine("db"), **on | {off: False}) == "W010"
    assert found(**engine("db"), **on | {off: False}) == ""


@pytest.mark.parametrize("djangos", ["INSTALLED_APPS", "MIDDLEWARE"])
def test_where_django_looks_it_need_not_be_said_twice(djangos: str) -> None:
    settings = {
        "INSTALLED_APPS": ["django.contrib.sessions", *APPS, "django_multisession"],
        "MIDDLEWARE": ["django.contrib.sessions.middleware.SessionMiddleware"],
    }
    given = {"MIDDLEWARE": [OURS], djangos: settings[djangos]}
    assert found(deploy=True, **engine("db"), **given) == ""
