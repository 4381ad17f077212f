"""What is in a session: whatever the old engine took is used there, and goes on the new side if that takes it."""

from datetime import UTC, datetime, timedelta

import pytest

from django_multisession.backends.moving import bulk, walking
from django_multisession.backends.moving.plan import plan
from django_multisession.exceptions import SessionConflict, SessionNotSerializable
from django_multisession.records import utcnow

from .conftest import OLD, record_of, saved_on

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["memory", "redis"])
def new_name(request):
    return request.param


@pytest.mark.parametrize("old_name", ["cache", "django-redis"], indirect=True)
class TestPickles:
    """Of Django's `cache` engine, which `SESSION_SERIALIZER` does not mean."""

    def test_they_are_used_where_they_are(self, site, face, caplog):
        key = saved_on(site.old, moment=MOMENT, pair=(1, 2))
        for phase in ("prepare", "move", "move"):
            session = face(site.at(phase)(key))
            assert session["moment"] == MOMENT
            assert session["pair"] == (1, 2)
            session[phase] = {MOMENT}
            session.save()
        assert site.old(key)["move"] == {MOMENT}
        assert not site.is_new(key)
        assert caplog.text.count("stays on the old side") == 1
        assert key not in caplog.text

    def test_new_ones_are_made_in_prepare(self, site, face):
        key = saved_on(site.at("prepare"), face, moment=MOMENT)
        assert site.old(key)["moment"] == MOMENT

    def test_the_new_side_refuses_them(self, site, face):
        with pytest.raises(SessionNotSerializable, match="moment"):
            saved_on(site.at("move"), face, moment=MOMENT)

    def test_they_move_once_they_can(self, site, face):
        key = saved_on(site.old, moment=MOMENT)
        session = face(site.at("move")(key))
        session["moment"] = "2026"
        session.save()
        assert face(site.at("move")(key)).load() == {"moment": "2026"}
        assert site.is_new(key)

    def test_they_are_logged_out_where_they_are(self, site, face):
        key = saved_on(site.old, moment=MOMENT)
        session = face(site.at("move")(key))
        session.load()
        session.flush()
        assert not site.is_old(key)
        assert face(site.at("move")()).exists(key) is False

    def test_a_cycled_key_stays_there_too(self, site, face):
        key = saved_on(site.old, moment=MOMENT, _auth_user_id="9")
        session = face(site.at("move")(key))
        session.load()
        session.cycle_key()
        session.save()
        assert session.session_key != key
        assert face(site.at("move")(session.session_key))["moment"] == MOMENT
        assert face(site.at("move")()).exists(key) is False


@pytest.mark.parametrize("old_name", ["django-redis"], indirect=True)
def test_they_are_counted(site):
    saved_on(site.old, moment=MOMENT)
    saved_on(site.old, a=1)
    assert (bulk.count().live, bulk.count().unserializable) == (1, 1)
    moved = bulk.move()
    assert (moved.moved, moved.unserializable) == (1, 1)
    assert walking.left(plan()) == 1


@pytest.mark.parametrize("old_name", [name for name in OLD if name != "ours"], indirect=True)
class TestTimes:
    def test_the_log_in_is_that_of_before_where_it_is_known(self, site, face):
        at = utcnow().replace(microsecond=0) - timedelta(days=3)
        key = saved_on(site.old, _auth_user_id="9", _login_at=int(at.timestamp()))
        face(site.at("move")(key)).load()
        assert record_of(site, key).created_at == at

    def test_else_it_is_now(self, site, face):
        key = saved_on(site.old, _auth_user_id="9")
        face(site.at("move")(key)).load()
        assert utcnow() - record_of(site, key).created_at < timedelta(seconds=10)

    def test_the_last_activity_is_the_last_save(self, site, face, old_name):
        session = site.old()
        session["a"] = 1
        session.set_expiry(1000)
        session.save()
        face(site.at("move")(session.session_key)).load()
        record = record_of(site, session.session_key)
        assert timedelta(0) <= record.expires_at - record.updated_at - timedelta(seconds=999) <= timedelta(seconds=2)


# Django's `file` engine cannot load a session with such an expiry.
@pytest.mark.parametrize("old_name", [name for name in OLD if name not in ("ours", "file")], indirect=True)
def test_a_moment_stays_one(site, face):
    session = site.old()
    session["a"] = 1
    session.set_expiry(until := utcnow() + timedelta(hours=5))
    session.save()
    face(site.at("move")(session.session_key)).load()
    assert abs(record_of(site, session.session_key).expires_at - until) < timedelta(seconds=2)


# Redis expires them by itself, and its clock cannot be set.
@pytest.mark.parametrize("old_name", ["db", "cached_db", "cache", "file"], indirect=True)
def test_what_has_expired_is_gone(site, face, clock, settings):
    key = saved_on(site.old, a=1)
    clock.shift(settings.SESSION_COOKIE_AGE + 60)
    for phase in ("prepare", "move", "back"):
        assert face(site.at(phase)(key)).load() == {}


@pytest.mark.parametrize("old_name", ["db", "ours"], indirect=True)
class TestConflicts:
    def test_raise_is_for_what_others_have_changed(self, site, face, settings):
        settings.MULTISESSION_ON_CONFLICT = "raise"
        key = saved_on(site.old, a=1)
        session, mover = face(site.at("prepare")(key)), face(site.at("move")(key))
        session["b"] = 2
        mover.load()
        session.save()  # it was only moved
        assert site.new(key).load() == {"a": 1, "b": 2}
        session["c"], mover["d"] = 3, 4
        session.save()
        with pytest.raises(SessionConflict):
            mover.save()

    def test_overwrite_overwrites(self, site, face, settings):
        settings.MULTISESSION_ON_CONFLICT = "overwrite"
        key = saved_on(site.old, a=1)
        session, mover = face(site.at("prepare")(key)), face(site.at("move")(key))
        session["b"] = 2
        mover["c"] = 3
        mover.save()
        session.save()
        assert site.new(key).load() == {"a": 1, "b": 2}


@pytest.mark.parametrize("old_name", ["db"], indirect=True)
@pytest.mark.parametrize("new_name", ["sqlite", "postgres", "memory"], indirect=True)
def test_a_mark_that_has_expired_is_in_nobodys_way(site, face, clock, settings):
    """Its row may lie there until the next purge, and a session that was handed back lives on by being used."""
    key = saved_on(site.at("move"), a=1)
    face(site.at("back")(key)).load()
    for _ in range(3):
        clock.shift(settings.SESSION_COOKIE_AGE / 2)
        session = face(site.at("back")(key))
        session["n"] = session.get("n", 0) + 1
        session.save()
    assert record_of(site, key) is None
    assert face(site.at("move")(key)).load() == {"a": 1, "n": 3}
    assert site.is_new(key)


@pytest.mark.parametrize("old_name", ["db"], indirect=True)
def test_a_secret_that_is_gone_destroys_nothing(site, face, settings):
    """On a server with a wrong SECRET_KEY a session is not readable: that is no empty session to be taken over."""
    key = saved_on(site.old, a=1)
    right = settings.SECRET_KEY
    settings.SECRET_KEY = "wrong"
    assert face(site.at("move")(key)).load() == {}
    settings.SECRET_KEY = right
    assert face(site.at("move")(key)).load() == {"a": 1}


@pytest.mark.parametrize("old_name", ["db"], indirect=True)
def test_a_limit_is_told_what_is_in_the_session(site, face, settings):
    told = []

    def limit(user_id, data):
        told.append((user_id, data.get("plan")))

    settings.MULTISESSION_MAX_PER_USER = limit
    for phase in ("prepare", "move"):
        saved_on(site.at(phase), face, _auth_user_id="9", plan="gold")
    assert told == [("9", "gold")] * 2
