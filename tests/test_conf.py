"""Settings: read when they are used, each with a default and a line that says what it means."""

import re
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

import django_multisession
from django_multisession.conf import NAMES, Conf, Setting, conf

DEFAULTS = {
    "MULTISESSION_REDIS": None,
    "MULTISESSION_KEY_PREFIX": "session",
    "MULTISESSION_MONGODB": None,
    "MULTISESSION_MONGODB_COLLECTION": "sessions",
    "MULTISESSION_TIMEOUT": 5.0,
    "MULTISESSION_MAX_BYTES": 1024 * 1024,
    "MULTISESSION_COMPRESS_OVER": 64,
    "MULTISESSION_TRACK_CLIENT": False,
    "MULTISESSION_CLIENT_IP": None,
    "MULTISESSION_MAX_PER_USER": None,
    "MULTISESSION_ON_MAX": "evict",
    "MULTISESSION_REVOKE_ON": ("password", "deactivated", "deleted"),
    "MULTISESSION_ENCRYPTION_KEYS": (),
}


def value_of(name: str) -> Any:
    return getattr(conf, name.removeprefix("MULTISESSION_"))


def test_defaults(settings: Any) -> None:
    del settings.MULTISESSION_MONGODB  # the tests' own
    assert {name: value_of(name) for name in DEFAULTS} == DEFAULTS


def test_names_are_those_of_the_class() -> None:
    assert list(NAMES) == [f"MULTISESSION_{name}" for name, value in vars(Conf).items() if isinstance(value, Setting)]
    assert DEFAULTS.keys() <= NAMES.keys()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["a text", 0, None, ["a list"]], ids=repr)
def test_a_setting_is_read_when_it_is_used(name: str, value: object) -> None:
    before = value_of(name)
    with override_settings(**{name: value}):
        assert value_of(name) is value
    assert value_of(name) == before


@pytest.mark.parametrize("setting", NAMES.values(), ids=NAMES)
def test_every_setting_says_in_a_line_what_it_means(setting: Setting[Any]) -> None:
    assert re.fullmatch(r"[A-Z][^\n]{20,118}\.", setting.meaning)


@pytest.mark.parametrize("setting", NAMES.values(), ids=NAMES)
def test_no_default_can_be_changed_by_accident(setting: Setting[Any]) -> None:
    assert isinstance(setting.default, int | float | str | tuple | None)


def test_an_unknown_setting_is_an_error() -> None:
    with pytest.raises(AttributeError):
        conf.MAX_BITES  # type: ignore[attr-defined]  # noqa: B018


def test_every_setting_is_read_by_some_module() -> None:
    package = Path(django_multisession.__file__).parent
    source = "".join(path.read_text() for path in package.rglob("*.py"))
    unread = [name for name in NAMES if f"conf.{name.removeprefix('MULTISESSION_')}" not in source]
    assert unread == []
