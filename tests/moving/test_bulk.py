"""`move()`, `count()`, `clean()` and what is left, over each old side that can be walked."""

import threading

import pytest
from django.contrib.sessions.backends.base import SessionBase
from django.core.cache import caches
from django.db import connections

from django_multisession.backends import moving
from django_multisession.backends.moving import bulk, walking
from django_multisession.backends.moving.plan import plan
from django_multisession.exceptions import InvalidOption

from .conftest import OLD, record_of, saved_on

WALKED = [name for name in OLD if name != "cache"]  # local memory is each process's own


@pytest.fixture(params=WALKED)
def old_name(request):
    return request.param


@pytest.fixture(params=["memory", "redis"])
def new_name(request):
    return request.param


@pytest.fixture
def functions(face):
    return face.functions(moving)


def no_longer_live(site, key):
    session = site.old(key)
    session.set_expiry(-10)
    session.save()


def test_all_is_moved(site, functions, old_name):
    keys = [saved_on(site.old, n=number) for number in range(25)]
    saved_on(site.at("move"), a=1)
    moved = functions.move(batch_size=10)
    assert (moved.moved, moved.more, moved.reason) == (25, False, "done")
    assert moved.batches >= 3 or "edis" in old_name  # which has pages of its own
    assert [site.new(key)["n"] for key in keys] == list(range(25))
    assert not any(site.is_old(key) for key in keys)
    assert walking.left(plan()) == 0
    assert functions.move().moved == 0


def test_what_cannot_be_moved_is_counted_and_stays(site, functions, face, old_name, settings, caplog):
    keys = [saved_on(site.old, n=number) for number in range(3)]
    large = saved_on(site.old, text="x" * 5000)
    if old_name in ("db", "cached_db"):
        no_longer_live(site, keys[2])
        unreadable = saved_on(site.old, a=1)
        site.old().model.objects.filter(session_key=unreadable).update(session_data="x")
    settings.MULTISESSION_MAX_BYTES = 1000
    settings.MULTISESSION_COMPRESS_OVER = None
    in_table = int(old_name in ("db", "cached_db"))
    counted = bulk.count()
    fits = old_name == "ours"  # it is moved as it is
    assert (counted.live, counted.expired, counted.unreadable) == (3 - in_table + fits, in_table, in_table)
    assert counted.too_large == (not fits)
    moved = functions.move()
    assert (moved.moved, moved.expired, moved.unreadable) == (3 - in_table + fits, in_table, in_table)
    assert moved.too_large == (not fits)
    assert face(site.at("move")(large))["text"] == "x" * 5000
    if not fits:
        assert face(site.at("move")(large))["text"] == "x" * 5000
        session = face(site.at("move")(large))
        session["more"] = 1
        session.save()
        assert site.old(large)["more"] == 1
        assert caplog.text.count("stays on the old side") == 1
        assert walking.left(plan()) == 1 + in_table


def test_it_ends_at_a_bound_and_goes_on(site, functions):
    keys = [saved_on(site.old, n=number) for number in range(9)]
    moved = functions.move(batch_size=2, max_rows=4)
    assert moved.reason == "max_rows"
    assert moved.more
    assert moved.moved >= 4
    assert functions.move(max_seconds=0).reason == "max_seconds"
    assert functions.move(stop=lambda: True).reason == "stopped"
    rest = functions.move(batch_size=2)
    assert moved.moved + rest.moved == 9
    assert all(site.is_new(key) for key in keys)


def test_a_second_mover_leaves_at_once(site, functions):
    [saved_on(site.old, n=number) for number in range(6)]
    seconds = []
    moved = functions.move(batch_size=2, progress=lambda progress: seconds.append(moving.move()))
    assert {(second.reason, second.moved) for second in seconds} == {("running", 0)}
    assert (moved.moved, moved.reason) == (6, "done")
    assert functions.move().reason == "done"


def test_it_moves_in_phase_move_only(site, functions, settings):
    for phase in ("prepare", "back"):
        settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, "phase": phase}
        with pytest.raises(InvalidOption, match="phase 'move' only"):
            functions.move()
        with pytest.raises(InvalidOption, match="phase 'move' only"):
            bulk.clean()
        assert walking.left(plan()) == 0


@pytest.mark.parametrize("name", ["batch_size", "max_rows", "max_seconds", "pause"])
def test_wrong_options_are_refused(site, functions, name):
    with pytest.raises(InvalidOption):
        functions.move(**{name: "x"})


def test_clean_removes_copies_and_nothing_else(site, face, old_name, monkeypatch):
    monkeypatch.setattr(bulk, "SETTLED", 0)
    copied, alone = saved_on(site.old, a=1), saved_on(site.old, a=2)
    face(site.at("move")(copied)).load()
    put_again(site, copied, {"a": 1})
    assert bulk.clean() == 1
    assert (site.is_old(copied), site.is_new(copied)) == (False, True)
    assert (site.is_old(alone), site.is_new(alone)) == (True, False)
    assert bulk.clean() == 0


def put_again(site, key, data):
    session: SessionBase = site.old(key)
    session._session_cache = data
    session.save(must_create=True)


def test_the_mover_removes_copies_of_what_was_ended(site, face, functions):
    key = saved_on(site.old, a=1)
    session = face(site.at("move")(key))
    session.load()
    session.flush()
    put_again(site, key, {"a": 1})
    assert functions.move().moved == 0
    assert not site.is_old(key)
    assert not site.is_new(key)
    assert record_of(site, key).is_mark


def test_whoever_was_ended_is_not_moved(site, functions):
    from django_multisession import user_sessions

    ended = saved_on(site.old, _auth_user_id="9", _login_at=1)
    kept = saved_on(site.old, _auth_user_id="10", _login_at=1)
    user_sessions.revoke_all("9")
    functions.move()
    assert (site.is_old(ended), site.is_new(ended), site.is_new(kept)) == (False, False, True)


def test_requests_go_on_meanwhile(site, face, functions, old_name):
    """A thread clicks through all sessions while they are moved: each keeps what both have written."""
    keys = [saved_on(site.old, n=0) for _ in range(30)]
    lost = []

    def click():
        try:
            for key in keys:
                session = site.at("move")(key)
                session["clicked"] = 1
                session.save()
                lost.append(session.session_key != key)
        finally:
            connections.close_all()

    thread = threading.Thread(target=click)
    thread.start()
    moved = functions.move(batch_size=5)
    thread.join()
    assert moved.reason == "done"
    assert not any(lost)
    assert len(lost) == 30
    assert [site.new(key).load() for key in keys] == [{"n": 0, "clicked": 1}] * 30
    assert walking.left(plan()) == 0


def test_what_cannot_be_walked_says_so(site, functions, settings):
    settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, "from": "django.contrib.sessions.backends.cache"}
    settings.CACHES = {**settings.CACHES, "local": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    settings.SESSION_CACHE_ALIAS = "local"
    if "redis" in site.new.__module__:
        settings.MULTISESSION_REDIS = settings.REDIS_URL
    assert caches["local"]
    with pytest.raises(InvalidOption, match="move as people come"):
        functions.move()
    assert walking.left(plan()) is None


@pytest.mark.parametrize("old_name", ["django-redis", "Django's Redis"], indirect=True)
def test_a_prefix_of_keys_is_no_pattern(site, functions, settings):
    settings.CACHES = {**settings.CACHES, "old": {**settings.CACHES["old"], "KEY_PREFIX": r"a\b*[c]?"}}
    key = saved_on(site.old, a=1)
    assert functions.move().moved == 1
    assert site.is_new(key)
