"""Who ends the sessions of a user while some are still to be moved."""

import time

import pytest
from django.contrib.auth import get_user_model
from django.test import RequestFactory

from django_multisession import user_sessions

from .conftest import record_of, saved_on


@pytest.fixture(params=["db", "cache", "ours"])
def old_name(request):
    return request.param


@pytest.fixture(params=["memory", "redis", "sqlite"])
def new_name(request):
    return request.param


@pytest.fixture
def functions(face):
    return face.functions(user_sessions)


def is_there(site, face, key):
    return face(site.at("move")()).exists(key)


def past(seconds=100):
    return int(time.time()) - seconds


def test_what_was_revoked_is_not_taken_over_later(site, face, functions):
    keys = [saved_on(site.old, _auth_user_id="9", _login_at=past()), saved_on(site.old, _auth_user_id="9")]
    others = [saved_on(site.old, _auth_user_id="10"), saved_on(site.old, cart=1)]
    functions.revoke_all("9")
    assert [is_there(site, face, key) for key in keys] == [False, False]
    assert [site.is_old(key) for key in keys] == [False, False]
    assert [is_there(site, face, key) for key in others] == [True, True]


def test_who_signs_in_afterwards_stays(site, face, functions):
    functions.revoke_all("9")
    key = saved_on(site.at("prepare"), face, _auth_user_id="9", _login_at=past(-2))
    assert is_there(site, face, key)


def test_everyone_but_who_is_not_signed_in(site, face, functions):
    key, anonymous = saved_on(site.old, _auth_user_id="9", _login_at=past()), saved_on(site.old, cart=1)
    functions.revoke_everyone()
    assert (is_there(site, face, key), is_there(site, face, anonymous)) == (False, True)


def test_the_session_of_the_request_is_kept(site, face, functions):
    kept = saved_on(site.old, _auth_user_id="9", _login_at=past())
    other = saved_on(site.old, _auth_user_id="9", _login_at=past())
    request = RequestFactory().get("/")
    request.session = site.at("prepare")(kept)
    functions.revoke_all("9", keep=request)
    assert (is_there(site, face, kept), is_there(site, face, other)) == (True, False)


def test_revoked_by_id_it_stays_gone_though_a_copy_was_left(site, face, functions):
    key = saved_on(site.old, a=1, _auth_user_id="9")
    face(site.at("move")(key)).load()
    again = site.old(key)
    again._session_cache = {"a": 1, "_auth_user_id": "9"}
    again.save(must_create=True)  # as if the process had been killed before it was removed there
    [listed] = functions.sessions_of("9")
    assert functions.revoke("9", listed.id) is True
    for phase in ("prepare", "move", "back"):
        assert face(site.at(phase)()).exists(key) is False
    assert functions.sessions_of("9") == []


def test_lists_have_both_sides_where_they_can(site, face, functions, old_name, new_name):
    moved = saved_on(site.old, _auth_user_id="9")
    saved_on(site.old, _auth_user_id="9")
    face(site.at("move")(moved)).load()
    sessions = functions.sessions_of("9")
    assert len(sessions) == (2 if old_name == "ours" else 1)
    assert sessions.complete is (True if old_name == "ours" and new_name != "redis" else None)
    assert functions.revoke_all("9").ended == len(sessions)
    assert functions.count("9") == 0


def test_marks_are_in_no_list(site, face, functions):
    from django_multisession import statistics

    key = saved_on(site.old, a=1, _auth_user_id="9")
    session = face(site.at("move")(key))
    session.load()
    session.flush()
    functions.revoke_all("9")
    functions.revoke_everyone()
    assert functions.count("9") == 0
    assert statistics.collect().sessions == 0
    assert record_of(site, key).is_mark
    assert site.is_new(key) is False


def test_a_password_ends_what_was_not_signed_in_with_it(site, face, settings, functions):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django_multisession.middleware.SessionMiddleware"]
    get_user_model().objects.filter(username="ann").delete()
    user = get_user_model().objects.create_user("ann", password="one")
    keys = []
    for password in ("one", "two"):
        if password == "two":
            user.set_password(password)
        login = {"_auth_user_id": str(user.pk), "_auth_user_backend": "django.contrib.auth.backends.ModelBackend"}
        keys.append(saved_on(site.old, **login, _auth_user_hash=user.get_session_auth_hash(), _login_at=past()))
    user.save()
    assert [is_there(site, face, key) for key in keys] == [False, True]
    user.is_active = False
    user.save()
    later = saved_on(site.old, _auth_user_id=str(user.pk), _auth_user_hash="x", _login_at=past())
    assert [is_there(site, face, key) for key in [*keys, later]] == [False, False, False]
    user.delete()


def test_a_take_over_is_no_log_in(site, face, settings):
    from django_multisession.signals import session_ended, session_started

    told = []
    session_started.connect(lambda **named: told.append(named), weak=False, dispatch_uid="told")
    session_ended.connect(lambda **named: told.append(named), weak=False, dispatch_uid="told")
    try:
        keys = [saved_on(site.old, _auth_user_id="9") for _ in range(3)]
        settings.MULTISESSION_MAX_PER_USER = 1
        told.clear()
        assert [face(site.at("move")(key)).load() for key in keys] == [{"_auth_user_id": "9"}] * 3
        assert all(site.is_new(key) for key in keys)
        assert told == []
    finally:
        session_started.disconnect(dispatch_uid="told")
        session_ended.disconnect(dispatch_uid="told")
