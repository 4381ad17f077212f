"""From signed cookies, where the cookie is the session."""

import pytest
from django.contrib.sessions.backends.signed_cookies import SessionStore as Cookies

from django_multisession import user_sessions
from django_multisession.backends.moving import walking
from django_multisession.backends.moving.cookies import server_key
from django_multisession.backends.moving.plan import plan
from django_multisession.exceptions import SessionEnded

from .conftest import saved_on


@pytest.fixture(autouse=True)
def _from_cookies(site, settings):
    settings.MULTISESSION_MOVE = {
        **settings.MULTISESSION_MOVE,
        "from": "django.contrib.sessions.backends.signed_cookies",
    }


@pytest.fixture(params=["memory", "redis"])
def new_name(request):
    return request.param


def shown(key):
    """What servers of the old engine have, but for what makes each cookie differ."""
    data = Cookies(key).load()
    data.pop("_cookie", None)
    return data


def cookie(**data):
    session = Cookies()
    session._session_cache = data
    session.save()
    return session.session_key


def test_it_is_taken_over_under_a_key_of_the_server(site, face):
    old = cookie(a=1, _auth_user_id="9")
    session = face(site.at("move")(old))
    assert session.load() == {"a": 1, "_auth_user_id": "9"}
    assert session.session_key == server_key(old)
    assert session.modified  # so the browser is given it
    assert site.new(session.session_key).load() == {"a": 1, "_auth_user_id": "9"}
    assert face(site.at("move")(session.session_key)).load() == {"a": 1, "_auth_user_id": "9"}


def test_requests_with_one_cookie_get_one_session(site, face):
    old = cookie(a=1, _auth_user_id="9")
    sessions = [face(site.at("move")(old)) for _ in range(5)]
    for number, session in enumerate(sessions):
        session[f"n{number}"] = number
    for session in sessions:
        session.save()
    assert {session.session_key for session in sessions} == {server_key(old)}
    assert site.new(server_key(old)).load() == {
        "a": 1,
        "_auth_user_id": "9",
        **{f"n{number}": number for number in range(5)},
    }


@pytest.mark.parametrize("phase", ["prepare", "move"])
def test_a_log_out_ends_what_its_cookie_says(site, face, phase):
    old = cookie(a=1, _auth_user_id="9")
    session = face(site.at(phase)(old))
    session.load()
    session.flush()
    for other in ("prepare", "move"):
        again = face(site.at(other)(old))
        assert again.load() == {}
        assert again.session_key is None
    assert shown(old) == {"a": 1, "_auth_user_id": "9"}  # servers of the old engine know no better


def test_in_prepare_the_cookie_is_the_session(site, face):
    old = cookie(a=1, _auth_user_id="9")
    session = face(site.at("prepare")(old))
    session["b"] = 2
    session.save()
    assert shown(session.session_key) == {"a": 1, "_auth_user_id": "9", "b": 2}
    session["c"] = 3
    session.save()
    assert shown(session.session_key) == {"a": 1, "_auth_user_id": "9", "b": 2, "c": 3}
    assert face(site.at("prepare")(session.session_key)).load() == {"a": 1, "_auth_user_id": "9", "b": 2, "c": 3}


def test_new_ones_are_cookies_in_prepare(site, face):
    key = saved_on(site.at("prepare"), face, a=1)
    assert shown(key) == {"a": 1}
    session = face(site.at("prepare")(key))
    session["b"] = 1
    session.cycle_key()
    session.save()
    assert face(site.at("move")(session.session_key)).load() == {"a": 1, "b": 1}
    user = saved_on(site.at("prepare"), face, _auth_user_id="9")
    session = face(site.at("prepare")(user))
    session.load()
    session.cycle_key()
    session.save()
    assert session.session_key != user
    assert shown(session.session_key)["_auth_user_id"] == "9"
    assert face(site.at("move")(session.session_key)).load() == {"_auth_user_id": "9"}
    assert face(site.at("move")(user)).load() == {}


@pytest.mark.parametrize("change", [lambda key: key[:-1], lambda key: f"x{key}", lambda key: "a:b:c", lambda key: "::"])
def test_what_was_not_signed_here_is_nothing(site, face, change):
    for phase in ("prepare", "move"):
        session = face(site.at(phase)(change(cookie(a=1, _auth_user_id="9"))))
        assert session.load() == {}
        assert session.session_key is None


def test_an_old_cookie_has_expired(site, face, settings, clock):
    old = cookie(a=1, _auth_user_id="9")
    clock.shift(settings.SESSION_COOKIE_AGE + 2)
    assert face(site.at("move")(old)).load() == {}


def test_it_outlasts_a_rotation_of_the_secret(site, face, settings):
    old = cookie(a=1, _auth_user_id="9")
    first = server_key(old)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", [settings.SECRET_KEY]
    session = face(site.at("move")(old))
    assert session.load() == {"a": 1, "_auth_user_id": "9"}
    assert session.session_key == first


def test_whoever_was_ended_is_not_taken_over(site, face):
    user_sessions.revoke_all("9")
    assert face(site.at("move")(cookie(_auth_user_id="9", _login_at=1))).load() == {}
    assert face(site.at("move")(cookie(_auth_user_id="8", _login_at=1))).load() != {}


def test_a_save_after_a_log_out_is_refused(site, face):
    old = cookie(a=1, _auth_user_id="9")
    session, other = face(site.at("prepare")(old)), face(site.at("move")(old))
    session["b"] = 1
    other.load()
    other.flush()
    with pytest.raises(SessionEnded):
        session.save()


def test_it_cannot_be_walked(site):
    assert walking.left(plan()) is None


def test_visitors_with_the_same_cookie_do_not_meet(site, face):
    old = cookie(testcookie="worked")
    visitors = [face(site.at("move")(old)) for _ in range(2)]
    for number, visitor in enumerate(visitors):
        assert visitor.load() == {"testcookie": "worked"}
        visitor["cart"] = number
        visitor.save()
    one, two = (visitor.session_key for visitor in visitors)
    assert one != two
    assert [site.new(key)["cart"] for key in (one, two)] == [0, 1]
    third = face(site.at("move")(old))
    third["_auth_user_id"] = "9"
    third.cycle_key()
    third.save()
    assert site.new(third.session_key)["_auth_user_id"] == "9"
    assert face(site.at("move")(old)).load() == {"testcookie": "worked"}


def test_a_cart_is_moved_by_a_visit(site, face):
    session = face(site.at("move")(cookie(cart=[1])))
    session.load()
    assert session.modified
    session.save()
    assert site.new(session.session_key).load() == {"cart": [1]}
