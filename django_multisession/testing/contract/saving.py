"""Promise: a save writes what it was asked for, and asks the store for it."""

import pytest
from django.contrib.sessions.backends.base import UpdateError
from django.test import override_settings

from ..stored import KEY, saved, stored


class TestASaveAsks:
    """A save that was asked for asks the store, unless this object itself knows better."""

    @pytest.mark.parametrize("end", ["delete", "flush elsewhere", "delete elsewhere", "expired"])
    @pytest.mark.parametrize("change", ["equal bytes", "nothing", "no touch"])
    def test_what_was_ended_is_told(self, Store, face, clock, end, change):
        key = saved(face, Store, a=1)
        session = face(Store(key))
        assert session["a"] == 1
        if change != "nothing":
            session["a"] = 1
        session.may_touch = change != "no touch"
        if end == "delete":
            session.delete()
        elif end == "expired":
            clock.shift(14 * 24 * 3600 + 1)
        else:
            getattr(face(Store(key)), end.split()[0])()
        with pytest.raises(UpdateError):
            session.save()
        assert face(Store()).exists(key) is False

    def test_created_deleted_saved(self, Store, face):
        session = face(Store(KEY))
        session.save(must_create=True)
        session.delete()
        with pytest.raises(UpdateError):
            session.save()
        session.save(must_create=True)
        session.save()
        assert face(Store()).exists(KEY) is True

    def test_a_flushed_session_is_saved_under_a_new_key(self, Store, face):
        key = saved(face, Store, a=1)
        session = face(Store(key))
        session.flush()
        session["b"] = 2
        session.save()
        assert session.session_key != key
        assert stored(face, Store, session.session_key) == {"b": 2}

    @pytest.mark.parametrize("modified", [True, False])
    def test_saves_of_every_request_are_silent_where_nothing_was_modified(self, Store, face, modified):
        key = saved(face, Store, a=1)
        session = face(Store(key))
        assert session["a"] == 1
        session.modified = modified
        face(Store(key)).delete()
        with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
            if not modified:
                return session.save()
            with pytest.raises(UpdateError):
                session.save()
