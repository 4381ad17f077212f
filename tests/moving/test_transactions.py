"""Where `to` is in SQL and a request has a transaction open: the old copy goes after the commit, a rollback loses
nothing."""

from itertools import product

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction

from tests.routers import SessionRouter

from .conftest import saved_on

DATA = {"a": 1, "_auth_user_id": "9", "_login_at": 1_000_000_000}


@pytest.fixture(params=["db", "cache", "file", "ours"])
def old_name(request):
    return request.param


@pytest.fixture(params=["sqlite", "postgres", "mysql"])
def new_name(request):
    return request.param


class RolledBackError(Exception):
    pass


def within(site, deed, roll_back):
    """Run a deed of a request in a transaction of the database of `to`."""
    try:
        with transaction.atomic(using=SessionRouter.alias):
            deed()
            if roll_back:
                raise RolledBackError
    except RolledBackError:
        pass


def owners(site, key):
    return [site.is_old(key), site.is_new(key)]


def take_over(site, key):
    assert site.at("move")(key).load() == DATA


def save(site, key):
    session = site.at("move")(key)
    session["b"] = 2
    session.save()


def log_out(site, key):
    session = site.at("move")(key)
    session.load()
    session.flush()


def log_out_unloaded(site, key):
    site.at("move")(key).delete(key)


def cycle(site, key):
    session = site.at("move")(key)
    session.load()
    session.cycle_key()
    session.save()


def asynchronously(site, key):
    """As an asynchronous signal receiver, say, in a view that has a transaction open."""
    assert async_to_sync(site.at("move")(key).aload)() == DATA


DEEDS = {each.__name__: each for each in (take_over, save, log_out, log_out_unloaded, cycle, asynchronously)}


@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS)
def test_a_rollback_loses_nothing(site, deed):
    key = saved_on(site.old, **DATA)
    within(site, lambda: deed(site, key), roll_back=True)
    assert owners(site, key) == [True, False]
    assert site.at("prepare")(key).load() == DATA
    assert site.at("move")(key).load() == DATA
    assert owners(site, key) == [False, True]


@pytest.mark.parametrize("deed", [take_over, save, asynchronously], ids=lambda deed: deed.__name__)
def test_the_old_copy_goes_after_the_commit(site, deed, old_name):
    key = saved_on(site.old, **DATA)
    seen = []

    def do():
        deed(site, key)
        seen.append(site.is_old(key))

    within(site, do, roll_back=False)
    assert seen == [True]
    assert owners(site, key) == [False, True]
    data = site.new(key).load()
    assert {**data, **DATA} == data


@pytest.mark.parametrize("deed", [log_out, log_out_unloaded, cycle], ids=lambda deed: deed.__name__)
def test_what_ended_is_gone_after_the_commit(site, deed):
    key = saved_on(site.old, **DATA)
    within(site, lambda: deed(site, key), roll_back=False)
    assert owners(site, key) == [False, False]
    assert not any(site.at(phase)().exists(key) for phase in ("prepare", "move", "back"))


@pytest.mark.parametrize(
    ("old_name", "new_name"),  # of two tables on one connection both are in the transaction: that is the next test
    [("db", "postgres"), ("db", "mysql"), *product(["cache", "file"], ["sqlite", "postgres", "mysql"])],
)
def test_what_was_saved_on_the_old_side_until_the_commit_is_merged(site, old_name, new_name):
    """By a server in `prepare`, which cannot see yet what the transaction has put into `to`."""
    key = saved_on(site.old, **DATA)

    def do():
        take_over(site, key)
        other = site.old(key)
        other["b"] = 2
        other.save()

    within(site, do, roll_back=False)
    assert site.new(key).load() == {**DATA, "b": 2}
    assert owners(site, key) == [False, True]


def test_a_savepoint_is_taken_back(site):
    key = saved_on(site.old, **DATA)
    with transaction.atomic(using=SessionRouter.alias):
        within(site, lambda: take_over(site, key), roll_back=True)
        assert site.is_old(key)
        take_over(site, key)
    assert owners(site, key) == [False, True]
