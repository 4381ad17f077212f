"""Settings: read when they are used, each with a default and a line that says what it means."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

import django_multisession
from django_multisession.conf import NAMES, Conf, DurationSetting, Setting, conf

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


DURATIONS = [name for name, setting in NAMES.items() if isinstance(setting, DurationSetting)]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in DURATIONS])
@pytest.mark.parametrize("value", ["a text", 0, None, ["a list"]], ids=repr)
def test_a_setting_is_read_when_it_is_used(name: str, value: object) -> None:
    before = value_of(name)
    with override_settings(**{name: value}):
        assert value_of(name) is value
    assert value_of(name) == before


# Durations


def test_which_are_durations() -> None:
    assert [name.removeprefix("MULTISESSION_") for name in DURATIONS] == [
        "TIMEOUT",
        "TOUCH_AFTER",
        "IDLE_AGE",
        "ABSOLUTE_AGE",
        "CACHE_AGE",
    ]


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("value", ["15m", timedelta(minutes=15), 900, 900.0], ids=repr)
def test_a_duration_is_read_as_seconds_however_it_is_written(name: str, value: object) -> None:
    before = value_of(name)
    with override_settings(**{name: value}):
        assert value_of(name) == 900
        assert isinstance(value_of(name), float)
        assert getattr(django_settings, name) is value  # the site's own
        with override_settings(**{name: "50ms"}):
            assert value_of(name) == 0.05
        assert value_of(name) == 900
    assert value_of(name) == before


FOREVER = [10**12, 10**400, float("inf"), float("nan"), timedelta.max, "36526d", "9" * 400 + "d"]
NO_DURATION = ["a text", "900", "", ["a list"], True, -1, timedelta(seconds=-1), b"15m"]


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("value", FOREVER + NO_DURATION, ids=lambda value: repr(value)[:20])
def test_a_duration_that_is_none_is_told_where_it_is_read(name: str, value: object) -> None:
    with override_settings(**{name: value}):
        for _ in range(2):
            with pytest.raises(ImproperlyConfigured, match=f"^{name} is .*: write a duration"):
                value_of(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MULTISESSION_TIMEOUT", 0),
        ("MULTISESSION_TIMEOUT", None),
        ("MULTISESSION_TIMEOUT", "2d"),
        ("MULTISESSION_IDLE_AGE", 0),
        ("MULTISESSION_ABSOLUTE_AGE", "0"),
    ],
)
def test_each_has_bounds_of_its_own(name: str, value: object) -> None:
    with override_settings(**{name: value}), pytest.raises(ImproperlyConfigured, match=f"^{name} is"):
        value_of(name)


@pytest.mark.parametrize("name", DURATIONS)
def test_a_duration_is_reckoned_once(name: str, monkeypatch: Any) -> None:
    """Requests read it several times."""
    reckoned = []
    seconds = DurationSetting.seconds
    monkeypatch.setattr(DurationSetting, "seconds", lambda self, value: reckoned.append(1) or seconds(self, value))
    with override_settings(**{name: "15m"}):
        assert [value_of(name) for _ in range(5)] == [900] * 5
    assert len(reckoned) == 1


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
