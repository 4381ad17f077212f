"""What the changes of a user do to the user's sessions."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django.test import override_settings

from django_multisession import middleware, user_sessions
from django_multisession.exceptions import EngineUnavailable
from django_multisession.records import identify
from django_multisession.signals import session_ended
from django_multisession.testing.stored import saved
from django_multisession.user_sessions import hooks
from django_multisession.user_sessions.lifecycle import handle

from ..browsers import AUTH, DJANGOS, OURS, Browser, new_user

ALL = ("password", "deactivated", "deleted")


@pytest.fixture(params=["memory", "redis", "mongodb", "sqlite", "postgres"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _middleware() -> Iterator[None]:
    with override_settings(MIDDLEWARE=[OURS, AUTH]):
        yield


@pytest.fixture
def users(Store: Any) -> Iterator[list[Any]]:
    users = [new_user("ann"), new_user("bob")]
    yield users
    for user in User.objects.filter(username__in=["ann", "bob"]):
        user.delete()


@pytest.fixture
def ann(users: list[Any]) -> Any:
    return users[0]


@pytest.fixture
def browsers(Store: Any, face: Any, users: list[Any]) -> Callable[..., list[Browser]]:
    """Some browsers in which a user is signed in."""

    def signed_in(number: int, name: str = "ann") -> list[Browser]:
        browsers = [Browser(face) for _ in range(number)]
        for browser in browsers:
            browser.get(f"/{'a' if face.name == 'async' else ''}sign_in_as/{name}/")
        return browsers

    return signed_in


@pytest.fixture
def reasons() -> Iterator[list[str]]:
    reasons: list[str] = []

    def note(reason: str, **_kwargs: Any) -> None:
        reasons.append(reason)

    session_ended.connect(note)
    yield reasons
    session_ended.disconnect(note)


def is_signed_in(browser: Browser) -> bool:
    return bool(browser.get("/look/").json()["user"])


class TestPassword:
    def test_the_own_session_stays_and_the_others_end(self, browsers, users, face, reasons):
        own, *others = browsers(3)
        [bob] = browsers(1, "bob")
        own.get("/change_password/" if face.name == "sync" else "/achange_password/")
        assert [session.id for session in user_sessions.sessions_of(users[0])] == [handle_of(own)]
        assert is_signed_in(own)
        assert not any(map(is_signed_in, others))
        assert is_signed_in(bob)
        assert reasons == ["password"] * 2

    def test_so_it_does_in_a_transaction(self, browsers, ann):
        own, _ = browsers(2)
        own.get("/change_password_in_a_transaction/")
        assert [session.id for session in user_sessions.sessions_of(ann)] == [handle_of(own)]
        assert is_signed_in(own)

    def test_a_change_by_somebody_else_ends_all(self, browsers, ann):
        browsers(2)
        [bob] = browsers(1, "bob")
        bob.get("/change_others_password/ann/")
        assert user_sessions.count(ann) == 0
        assert is_signed_in(bob)

    def test_a_change_outside_of_a_request_ends_all(self, browsers, ann):
        browsers(2)
        ann.set_password("new")
        ann.save()
        assert user_sessions.count(ann) == 0

    @pytest.mark.parametrize("engine_name", ["memory"])
    @pytest.mark.parametrize("change", ["unusable", "by hand", "one field"])
    def test_however_it_is_changed(self, browsers, ann, change):
        browsers(2)
        if change == "unusable":
            ann.set_unusable_password()
        else:
            ann.password = make_password("new")
        ann.save(update_fields=["password"] if change == "one field" else None)
        assert user_sessions.count(ann) == 0

    @pytest.mark.parametrize("engine_name", ["memory"])
    @pytest.mark.parametrize("fields", [None, ["password"], ["last_name"]], ids=str)
    def test_another_change_ends_none(self, browsers, ann, fields):
        browsers(2)
        ann.last_name = "Smith"
        ann.save(update_fields=fields)
        assert user_sessions.count(ann) == 2

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_a_change_of_other_fields_asks_nothing(self, browsers, ann, monkeypatch, Store):
        with monkeypatch.context() as patch:
            patch.delattr(type(Store.storage), "of_user")
            ann.save(update_fields=["last_name"])

    def test_a_session_signed_with_an_older_secret_stays(self, browsers, ann):
        browsers(2)
        with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
            ann.save()
            assert user_sessions.count(ann) == 2

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_without_the_packages_middleware_it_is_left_to_django(self, browsers, ann, face):
        with override_settings(MIDDLEWARE=[DJANGOS, AUTH]):
            own, other = browsers(2)
            own.get("/change_password/" if face.name == "sync" else "/achange_password/")
            assert user_sessions.count(ann) == 2
            assert is_signed_in(own)
            assert not is_signed_in(other)  # and flushed by Django
            assert user_sessions.count(ann) == 1

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_the_request_is_forgotten(self, browsers, ann):
        browsers(1)[0].get("/look/")
        assert middleware.current.get() is None

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_the_request_is_forgotten_after_an_error_too(self, browsers, ann):
        [browser] = browsers(1)
        with pytest.raises(RuntimeError, match="a bug"):
            browser.get("/unhandled/")
        assert middleware.current.get() is None


def handle_of(browser: Browser) -> str:
    return handle(identify(browser.key))


class TestDeactivation:
    def test_all_end(self, browsers, users, reasons):
        browsers(2)
        browsers(1, "bob")
        users[0].is_active = False
        users[0].save()
        assert [user_sessions.count(user) for user in users] == [0, 1]
        assert reasons == ["deactivated"] * 2

    def test_a_session_does_not_come_back_with_the_user(self, browsers, ann):
        [browser] = browsers(1)
        ann.is_active = False
        ann.save(update_fields=["is_active"])
        ann.is_active = True
        ann.save()
        assert not is_signed_in(browser)

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_a_bulk_update_is_not_seen(self, browsers, ann):
        browsers(1)
        User.objects.filter(pk=ann.pk).update(is_active=False)
        assert user_sessions.count(ann) == 1

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_a_rollback_ends_none(self, browsers, ann):
        browsers(1)
        with transaction.atomic():
            ann.is_active = False
            ann.save()
            assert user_sessions.count(ann) == 1
            transaction.set_rollback(True)
        assert user_sessions.count(ann) == 1

    def test_an_outage_is_told(self, browsers, ann, Store, monkeypatch):
        browsers(1)

        async def unreachable(self: Any, user_id: str) -> Any:
            raise EngineUnavailable("gone fishing")

        with monkeypatch.context() as patch:
            patch.setattr(type(Store.storage), "of_user", unreachable)
            ann.is_active = False
            with pytest.raises(EngineUnavailable):
                ann.save()
        ann.save()  # once more, as who was told will do
        assert user_sessions.count(ann) == 0


class TestDeletion:
    def test_all_end(self, browsers, users, reasons):
        browsers(2)
        browsers(1, "bob")
        key = users[0].pk
        users[0].delete()
        assert user_sessions.count(key) == 0
        assert user_sessions.count(users[1]) == 1
        assert reasons == ["deleted"] * 2

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_of_many(self, browsers, users):
        browsers(1)
        browsers(1, "bob")
        keys = [user.pk for user in users]
        User.objects.filter(pk__in=keys).delete()
        assert [user_sessions.count(key) for key in keys] == [0, 0]


@pytest.mark.parametrize("engine_name", ["memory"])
class TestSwitches:
    @pytest.mark.parametrize("left_out", ALL)
    def test_each_can_be_left_out(self, browsers, users, left_out):
        browsers(2)
        ann, key = users[0], users[0].pk
        with override_settings(MULTISESSION_REVOKE_ON=[each for each in ALL if each != left_out]):
            if left_out == "password":
                ann.set_password("new")
            ann.is_active = left_out != "deactivated"
            ann.save()
            if left_out == "deleted":
                ann.delete()
            assert user_sessions.count(key) == 2

    def test_without_deactivation_the_password_of_who_is_inactive_counts(self, browsers, users):
        """They may be signed in: by AllowAllUsersModelBackend."""
        browsers(2)
        ann = users[0]
        with override_settings(MULTISESSION_REVOKE_ON=["password"]):
            ann.is_active = False
            ann.save()
            assert user_sessions.count(ann) == 2
            ann.set_password("new")
            ann.save()
            assert user_sessions.count(ann) == 0

    def test_sessions_of_another_packages_engine_are_left_alone(self, Store, users):
        """As on a site that only purges."""
        with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.cache"):
            users[0].is_active = False
            users[0].save()

    def test_fixtures_end_none(self, Store, users):
        saved(lambda store: store, Store, _auth_user_id=str(users[0].pk))
        users[0].save_base(raw=True)
        assert user_sessions.count(users[0]) == 1

    def test_every_class_of_the_user_model_is_watched_and_no_other(self, Store):
        for signal in (post_save, post_delete):
            watched = {sender for (uid, sender), *_ in signal.receivers if uid == hooks.UID}
            assert watched == {id(get_user_model())}

    def test_a_user_without_activity_or_password(self, Store):
        class Robot:
            pk = 1
            _meta = User._meta

        hooks.saved(Robot(), using="default", created=False, raw=False, update_fields=None)
