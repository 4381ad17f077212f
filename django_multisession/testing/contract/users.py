"""Promise: the sessions of a user are found under the user."""

import pytest

from ...records import identify
from ..stored import USER_ID, saved


class TestUserLink:
    """Promise 10: the user link is never lost."""

    @pytest.mark.parametrize(("value", "user_id"), [("42", "42"), (42, "42"), ("6f1d-uuid", "6f1d-uuid")])
    def test_it_is_read_from_the_data_at_save_time(self, Store, face, verbs, value, user_id):
        key = saved(face, Store, **{USER_ID: value})
        assert [record.id for record in verbs.of_user(user_id)] == [identify(key)]

    def test_it_appears_with_a_later_save_and_goes_with_the_data(self, Store, face, verbs):
        session = face(Store(saved(face, Store)))
        session[USER_ID] = "42"
        session.save()
        assert len(verbs.of_user("42")) == 1
        session.cycle_key()
        assert [record.id for record in verbs.of_user("42")] == [identify(session.session_key)]
        del session[USER_ID]
        session.save()
        assert verbs.of_user("42") == []

    def test_the_age_of_a_session_restarts_with_its_user(self, Store, face, verbs, clock):
        session = face(Store(saved(face, Store)))
        clock.shift(60)
        session[USER_ID] = "42"
        session.save()
        record = verbs.read(identify(session.session_key))
        assert record.created_at == record.updated_at
