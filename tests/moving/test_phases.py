"""What a session finds in each phase, on either interface, whatever the old engine is."""

from datetime import timedelta

import pytest

from django_multisession.exceptions import SessionEnded
from django_multisession.records import utcnow

from .conftest import OLD, record_of, saved_on


@pytest.fixture(params=list(OLD))
def old_name(request):
    return request.param


@pytest.fixture(params=["memory", "redis"])
def new_name(request):
    return request.param


def test_a_session_is_taken_over_under_its_key(site, face):
    key = saved_on(site.old, cart=[1], _auth_user_id="9")
    session = face(site.at("move")(key))
    assert session.load() == {"cart": [1], "_auth_user_id": "9"}
    assert session.session_key == key
    assert (site.is_old(key), site.is_new(key)) == (False, True)
    assert face(site.new(key)).load() == {"cart": [1], "_auth_user_id": "9"}
    assert record_of(site, key).user_id == "9"


def test_it_keeps_its_expiry(site, face):
    session = site.old()
    session["a"] = 1
    session.set_expiry(1000)
    session.save()
    face(site.at("move")(session.session_key)).load()
    left = record_of(site, session.session_key).expires_at - utcnow()
    assert timedelta(seconds=990) < left <= timedelta(seconds=1001)
    assert site.new(session.session_key)["_session_expiry"] == 1000


def test_an_unknown_key_is_never_adopted(site, face):
    for phase in ("prepare", "move", "back"):
        for key in ("k" * 32, "K" * 32, "../../etc/passwd", "a\0bcdefgh", "a b c d e f g", "\ud800" * 9, "ä" * 300):
            session = face(site.at(phase)(key))
            assert session.load() == {}
            assert session.session_key is None
            assert not site.is_new(key)
            assert face(site.at(phase)()).exists(key) is False


@pytest.mark.parametrize("phase", ["prepare", "back"])
def test_new_sessions_are_made_on_the_old_side(site, face, phase):
    key = saved_on(site.at(phase), face, a=1)
    assert (site.is_old(key), site.is_new(key)) == (True, False)
    assert site.old(key).load() == {"a": 1}
    assert face(site.at("prepare")(key)).load() == {"a": 1}


def test_new_sessions_are_made_on_the_new_side_in_move(site, face):
    key = saved_on(site.at("move"), face, a=1)
    assert (site.is_old(key), site.is_new(key)) == (False, True)


@pytest.mark.parametrize("phase", ["prepare", "back"])
def test_what_is_on_the_old_side_is_used_there(site, face, phase):
    key = saved_on(site.old, a=1)
    session = face(site.at(phase)(key))
    session["b"] = 2
    session.save()
    session["c"] = 3
    session.save()
    assert (site.is_old(key), site.is_new(key)) == (True, False)
    assert site.old(key).load() == {"a": 1, "b": 2, "c": 3}


def test_what_was_taken_over_is_used_there_in_prepare(site, face):
    key = saved_on(site.at("move"), a=1)
    session = face(site.at("prepare")(key))
    session["b"] = 2
    session.save()
    assert (site.is_old(key), site.is_new(key)) == (False, True)
    assert site.new(key).load() == {"a": 1, "b": 2}


def test_back_hands_it_to_the_old_side(site, face):
    key = saved_on(site.at("move"), a=1, _auth_user_id="9")
    session = face(site.at("back")(key))
    session["b"] = 2
    session.save()
    assert (site.is_old(key), site.is_new(key)) == (True, False)
    assert site.old(key).load() == {"a": 1, "_auth_user_id": "9", "b": 2}


def test_it_goes_there_and_back_as_often_as_wanted(site, face):
    key = saved_on(site.old, n=0)
    for number in range(1, 7):
        session = face(site.at(["move", "back", "move", "prepare"][number % 4])(key))
        assert session["n"] == number - 1
        session["n"] = number
        session.save()
    assert face(site.at("move")(key))["n"] == 6


@pytest.mark.parametrize("phase", ["prepare", "move", "back"])
def test_a_log_out_ends_it_on_both_sides(site, face, phase):
    keys = [saved_on(site.old, a=1), saved_on(site.at("move"), a=1)]
    for key in keys:
        session = face(site.at(phase)(key))
        session.load()
        session.flush()
        assert (site.is_old(key), site.is_new(key)) == (False, False)
        for other in ("prepare", "move", "back"):
            assert face(site.at(other)()).exists(key) is False


@pytest.mark.parametrize("phase", ["prepare", "move", "back"])
def test_a_copy_left_by_a_crash_comes_not_back(site, face, phase):
    key = saved_on(site.old, a=1)
    face(site.at("move")(key)).load()
    again = site.old(key)
    again._session_cache = {"a": 1}
    again.save(must_create=True)
    session = face(site.at(phase)(key))
    session.load()
    session.flush()
    session = site.old(key)
    session._session_cache = {"a": 1}
    if not site.is_old(key):
        session.save(must_create=True)
    for other in ("prepare", "move", "back"):
        assert face(site.at(other)()).exists(key) is False


@pytest.mark.parametrize("phase", ["prepare", "move", "back"])
def test_a_save_after_a_log_out_elsewhere_is_refused(site, face, phase):
    key = saved_on(site.old, a=1)
    session, other = face(site.at(phase)(key)), face(site.at("move")(key))
    session["b"] = 2
    other.load()
    other.flush()
    with pytest.raises(SessionEnded):
        session.save()
    assert face(site.at("move")()).exists(key) is False


def test_a_save_into_the_old_side_is_merged_where_it_was_taken_over_meanwhile(site, face):
    key = saved_on(site.old, a=1)
    session, mover = face(site.at("prepare")(key)), face(site.at("move")(key))
    session["b"] = 2
    mover["c"] = 3
    mover.save()
    session.save()
    assert site.new(key).load() == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize("phase", ["prepare", "move", "back"])
def test_a_cycled_key_is_dead_and_the_session_goes_on(site, face, phase):
    key = saved_on(site.old, a=1, _auth_user_id="9")
    session = face(site.at(phase)(key))
    session.load()
    session.cycle_key()
    session.save()
    assert session.session_key != key
    assert face(site.at("move")()).exists(key) is False
    assert not site.is_old(key)
    assert face(site.at("move")(session.session_key)).load() == {"a": 1, "_auth_user_id": "9"}


def test_a_request_beside_a_cycled_key_goes_on_under_the_new_one(site, face):
    for phase in ("prepare", "move", "back"):
        key = saved_on(site.old, a=1, _auth_user_id="9")
        first, second = face(site.at(phase)(key)), face(site.at(phase)(key))
        first.load()
        second["b"] = 2
        first.cycle_key()
        second.save()
        assert second.session_key == first.session_key
        assert face(site.at(phase)(first.session_key))["b"] == 2


def test_touching_moves_the_expiry_on_either_side(site, face, settings):
    settings.MULTISESSION_TOUCH_AFTER = 0
    for phase in ("prepare", "move"):
        key = saved_on(site.old, a=1)
        session = face(site.at(phase)(key))
        session.load()
        session.set_expiry(10_000)
        session.save()
        session.save()
        assert face(site.at(phase)(key)).load()["_session_expiry"] == 10_000
        assert site.is_old(key) is (phase == "prepare")
