import re
from pathlib import Path

import pytest
from django.core import checks

from django_multisession.backends.moving import checks as ours

from .conftest import saved_on


def found(deploy=False, databases=None):
    messages = checks.run_checks(include_deployment_checks=deploy, databases=databases)
    ids = {message.id.removeprefix("django_multisession.") for message in messages if "multisession" in message.id}
    return ids & {*(f"E03{number}" for number in range(7)), "W030", "W031"}


def test_a_move_in_order_has_none(site):
    assert found() == set()


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "now"}, {"from": "no.such.engine"}, {"to": "no.such.engine"}, {"more": 1},
        {"from": "django.contrib.auth"},
    ],
)  # fmt: skip
def test_an_unusable_setting(site, settings, change):
    settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, **change}
    assert found() == {"E030"}


@pytest.mark.parametrize("value", [None, "redis", {}, {"from": "x", "to": "y"}])
def test_no_setting(site, settings, value):
    settings.MULTISESSION_MOVE = value
    assert found() == {"E030"}


@pytest.mark.parametrize(
    "change", [{"to": "django.contrib.sessions.backends.db"}, {"to": ours.MOVING}, {"from": ours.MOVING}]
)
def test_engines_that_cannot_be_sides(site, settings, change):
    settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, **change}
    assert found() == {"E031"}


def test_the_same_place_on_both_sides(site, settings):
    settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, "from": settings.MULTISESSION_MOVE["to"]}
    assert found() == {"E032"}


def test_the_app_of_the_old_engine_is_missing(site, settings):
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "django.contrib.sessions"]
    assert found() == {"E033"}


def test_a_cache_that_ignores_exceptions(site, settings):
    cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": settings.REDIS_URL}
    settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, "from": "django.contrib.sessions.backends.cache"}
    settings.SESSION_CACHE_ALIAS = "old"
    for options, ids in ({"IGNORE_EXCEPTIONS": True}, {"E034"}), ({}, set()):
        settings.CACHES = {**settings.CACHES, "old": {**cache, "OPTIONS": options}}
        assert found() == ids
    settings.DJANGO_REDIS_IGNORE_EXCEPTIONS = True
    assert found() == {"E034"}


def test_no_way_back_to_cookies(site, settings):
    cookies = {**settings.MULTISESSION_MOVE, "from": "django.contrib.sessions.backends.signed_cookies"}
    for phase, ids in ("back", {"E035"}), ("prepare", set()), ("move", set()):
        settings.MULTISESSION_MOVE = {**cookies, "phase": phase}
        assert found() == ids


def test_a_limit_counts_what_is_listed(site, settings):
    settings.MULTISESSION_MAX_PER_USER = 3
    assert found() == {"W030"}
    settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, "from": "tests.moving.second"}
    assert found() == set()


@pytest.mark.parametrize("new_name", ["redis"], indirect=True)
def test_a_redis_that_evicts(site):
    client = site.new.storage.client
    client.config_set("maxmemory-policy", "volatile-lru")
    try:
        assert found(deploy=True) == {"E036", "W031"}
        assert found(databases=["default"]) == {"E036"}
        assert found() == set()
    finally:
        client.config_set("maxmemory-policy", "noeviction")
    assert found(deploy=True) == {"W031"}


def test_a_move_that_has_done_its_work(site, settings):
    assert found(deploy=True) == {"W031"}
    saved_on(site.old, a=1)
    assert found(deploy=True) == set()
    settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, "phase": "prepare"}
    assert found(deploy=True) == set()


def test_all_are_documented():
    page = (Path(__file__).parents[2] / "docs" / "moving.md").read_text()
    documented = re.findall(r"^\| `([EW]\d{3})`", page, re.MULTILINE)
    assert documented == sorted(re.findall(r"[EW]\d{3}", str(ours.__doc__)))
