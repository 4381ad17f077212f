"""Promise: what was deleted stays deleted, whatever other requests do with the session meanwhile."""

import pytest
from django.contrib.sessions.backends.base import UpdateError
from django.test import override_settings

from ..stored import USER_ID, saved


class TestDeletedStaysDeleted:
    """Promise 2."""

    @pytest.mark.parametrize("change", ["write", "nothing"])
    def test_a_save_after_a_log_out_elsewhere_is_refused(self, Store, face, verbs, change):
        key = saved(face, Store, a=1, **{USER_ID: "9"})
        session = face(Store(key))
        assert session["a"] == 1
        if change == "write":
            session["b"] = 2
        face(Store(key)).flush()
        with pytest.raises(UpdateError), override_settings(MULTISESSION_TOUCH_AFTER=0):
            session.save()
        assert face(Store()).exists(key) is False
        assert verbs.scan(None, 10) == []
        assert verbs.of_user("9") == []

    def test_a_save_after_the_key_was_cycled_elsewhere_is_refused(self, Store, face):
        key = saved(face, Store, a=1)
        session = face(Store(key))
        session["b"] = 2
        face(Store(key)).cycle_key()
        with pytest.raises(UpdateError):
            session.save()
        assert face(Store()).exists(key) is False
