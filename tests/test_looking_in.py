"""A `login()` that is no log-in: django-hijack, and what a site says to be none."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.test import override_settings

from django_multisession import user_sessions
from django_multisession.exceptions import TooManySessions
from django_multisession.records import Record, identify
from django_multisession.signals import session_ended, session_started
from django_multisession.twins import run_sync

from .browsers import AUTH, BACKEND, DJANGOS, OURS, Browser, new_user
from .contract import saved, stored

MINUTE = 60
HIJACKS = "hijack.middleware.HijackUserMiddleware"


@pytest.fixture(params=["memory", "redis", "mongodb", "sqlite", "postgres"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[OURS, DJANGOS], ids=["ours", "djangos"], autouse=True)
def _site(request: pytest.FixtureRequest) -> Iterator[None]:
    apps = [*settings.INSTALLED_APPS, "hijack"]
    middleware = [request.param, AUTH, HIJACKS]
    with override_settings(
        INSTALLED_APPS=apps, MIDDLEWARE=middleware, ROOT_URLCONF="tests.looking_in", LOGIN_REDIRECT_URL="/untouched/"
    ):
        yield


@pytest.fixture
def users(Store: Any) -> Iterator[dict[str, Any]]:
    users = {name: new_user(name) for name in ("ann", "bob", "cyd")}
    for name in ("ann", "cyd"):
        users[name].is_superuser = True
        users[name].save()
    yield users
    for user in users.values():
        User.objects.filter(pk=user.pk).delete()


class Admin(Browser):
    """A browser that looks in as somebody and comes back, in one of two ways."""

    def __init__(self, face: Any, way: str, users: dict[str, Any]) -> None:
        super().__init__(face)
        self.way, self.users = way, users
        self.a = "a" if face.name == "async" else ""
        self.names = ["ann"]

    def sign_in(self, name: str = "ann") -> "Admin":
        self.get(f"/{self.a}sign_in_as/{name}/")
        return self

    def look_in(self, name: str = "bob") -> "Admin":
        self.names.append(name)
        self._go(name, "/hijack/acquire/", user_pk=self.users[name].pk)
        return self

    def come_back(self) -> "Admin":
        self.names.pop()
        self._go(self.names[-1], "/hijack/release/")
        return self

    def _go(self, name: str, url: str, **data: Any) -> None:
        if self.way == "hijack":
            response = self.client.post(url, data)
            response = response if self.face.name == "sync" else self.face.runner.run(response)
            assert response.status_code == 302
        else:
            assert self.get(f"/{self.a}look_in/{name}/").status_code == 200
        assert self.get("/look/").json()["user"] == name

    @property
    def is_recent(self) -> bool:
        return bool(self.get(f"/{self.a}recent/").status_code == 200)

    def record(self, Store: Any) -> Record:
        record = run_sync(Store.storage.read(identify(self.key)))
        assert record is not None
        return record

    def data(self, Store: Any) -> dict[str, Any]:
        return stored(self.face, Store, self.key)


@pytest.fixture(params=["hijack", "by hand"])
def admin(request: pytest.FixtureRequest, face: Any, users: dict[str, Any]) -> Admin:
    return Admin(face, request.param, users)


@pytest.fixture
def sent() -> Iterator[list[tuple[str, ...]]]:
    sent: list[tuple[str, ...]] = []

    def started(user_id: str, **_named: Any) -> None:
        sent.append(("started", user_id))

    def ended(user_id: str, reason: str, **_named: Any) -> None:
        sent.append(("ended", user_id, reason))

    session_started.connect(started)
    session_ended.connect(ended)
    yield sent
    session_started.disconnect(started)
    session_ended.disconnect(ended)


class TestRecentLogIn:
    def test_looking_in_is_none_and_coming_back_is_none(self, admin, Store, clock):
        at = admin.sign_in().data(Store)["_login_at"]
        clock.shift(10 * MINUTE)
        assert admin.is_recent
        assert not admin.look_in().is_recent
        assert admin.come_back().is_recent
        assert (admin.data(Store)["_login_at"], "_login_of" in admin.data(Store)) == (at, False)
        clock.shift(6 * MINUTE)
        assert not admin.is_recent
        assert not admin.look_in().is_recent
        assert admin.data(Store)["_login_at"] == at
        assert not admin.come_back().is_recent
        assert admin.sign_in().is_recent

    def test_saves_and_new_keys_in_between_change_nothing(self, admin, face, Store, clock):
        admin.sign_in().look_in().get("/count/")
        admin.get("/change_password/" if face.name == "sync" else "/achange_password/")
        assert not admin.is_recent
        clock.shift(10 * MINUTE)
        assert admin.come_back().is_recent

    def test_whoever_then_signs_in_there_has(self, admin, Store, clock):
        admin.sign_in().look_in()
        clock.shift(MINUTE)
        admin.sign_in("bob")
        assert admin.is_recent
        assert "_login_of" not in admin.data(Store)

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_by_way_of_another(self, admin, Store):
        admin.sign_in().look_in("cyd")
        admin.look_in("bob")
        assert not admin.is_recent
        assert not admin.come_back().is_recent
        assert admin.come_back().is_recent

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_as_oneself(self, admin, Store, clock):
        at = admin.sign_in().data(Store)["_login_at"]
        for _ in range(2):
            clock.shift(MINUTE)
            assert admin.look_in("ann").data(Store)["_login_at"] == at
        for _ in range(2):
            clock.shift(MINUTE)
            assert admin.come_back().data(Store)["_login_at"] == at

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_signing_in_again_after_a_release_counts(self, admin, Store, clock):
        """django-hijack leaves its mark in the session, an empty list by then."""
        admin.sign_in().look_in().come_back()
        clock.shift(20 * MINUTE)
        assert not admin.is_recent
        assert admin.sign_in().is_recent

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_without_any_log_in_before(self, face, users, Store):
        admin = Admin(face, "by hand", users).look_in()
        assert not admin.is_recent
        assert admin.data(Store)["_login_of"] is None
        assert admin.sign_in("bob").is_recent


class TestAbsoluteAge:
    def test_it_counts_from_the_log_in_all_the_way(self, admin, Store, clock):
        with override_settings(MULTISESSION_ABSOLUTE_AGE=3600):
            created = admin.sign_in().record(Store).created_at
            for go in (admin.look_in, admin.come_back, admin.look_in):
                clock.shift(15 * MINUTE)
                go()
                record = admin.record(Store)
                assert (record.created_at, (record.expires_at - created).total_seconds()) == (created, 3600)
            clock.shift(16 * MINUTE)
            assert admin.get("/look/").json()["user"] == ""

    def test_whoever_then_signs_in_there_begins_anew(self, admin, Store, clock):
        created = admin.sign_in().record(Store).created_at
        admin.look_in()
        clock.shift(15 * MINUTE)
        admin.sign_in("bob")
        assert (admin.record(Store).created_at - created).total_seconds() >= 15 * MINUTE
        assert created_at_of_listed(admin) == admin.record(Store).created_at


def created_at_of_listed(admin: Admin) -> datetime:
    [session] = user_sessions.sessions_of(admin.users["bob"])
    return session.created_at


@pytest.fixture
def phone(face: Any, users: dict[str, Any]) -> Browser:
    phone = Browser(face)
    phone.get(f"/{'a' if face.name == 'async' else ''}sign_in_as/bob/")
    return phone


def is_signed_in(browser: Browser) -> bool:
    return bool(browser.get("/look/").json()["user"])


@pytest.mark.parametrize("reaction", ["evict", "refuse"])
class TestLimit:
    @pytest.fixture(autouse=True)
    def _limit(self, reaction: str) -> Iterator[None]:
        with override_settings(MULTISESSION_MAX_PER_USER=1, MULTISESSION_ON_MAX=reaction):
            yield

    def test_the_users_own_phone_stays(self, admin, phone, users):
        admin.sign_in().look_in()
        assert is_signed_in(phone)
        assert user_sessions.count(users["bob"]) == 2

    def test_nor_is_the_user_refused_or_the_admin_evicted(self, admin, users, face, reaction):
        admin.sign_in().look_in()
        phone = Browser(face)
        assert phone.get(f"/{admin.a}sign_in_as/bob/").status_code == 200
        assert is_signed_in(phone)
        assert is_signed_in(admin)

    def test_coming_back_evicts_nobody(self, admin, face):
        admin.sign_in().look_in()
        other = Admin(face, "hijack", {}).sign_in()
        admin.come_back()
        assert is_signed_in(other)
        assert is_signed_in(admin)

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_whoever_then_signs_in_there_counts(self, admin, phone, reaction):
        admin.sign_in().look_in()
        signed_in = admin.get(f"/{admin.a}sign_in_as/bob/").status_code
        # Of a refusal Django's middleware makes no 403 in a test client of its own: it raises past the view.
        assert is_signed_in(phone) is (reaction == "refuse")
        assert is_signed_in(admin) is (reaction == "evict")
        assert (signed_in == 200) is (reaction == "evict")


def test_no_session_begins(admin, users, sent):
    """But that of the admin has ended, as `logout()` would have it, and then the user's."""
    ann, bob = str(users["ann"].pk), str(users["bob"].pk)
    admin.sign_in().look_in().come_back()
    assert sent == [("started", ann), ("ended", ann, "logout"), ("ended", bob, "logout")]


def test_it_is_listed_and_ended_as_any_other(admin, users):
    admin.sign_in().look_in()
    assert user_sessions.revoke_all(users["bob"]).ended == 1
    assert not is_signed_in(admin)


@pytest.mark.parametrize("engine_name", ["memory"])
class TestByHand:
    def test_a_session_instead_of_its_request(self, Store):
        with pytest.raises(TypeError, match="request"), user_sessions.not_an_authentication(Store()):
            pass

    @pytest.mark.parametrize("session", [None, {}, "foreign", "no attribute"], ids=str)
    def test_sessions_of_others_are_left_alone(self, Store, session, users):
        from django.contrib.sessions.backends.cache import SessionStore

        request = HttpRequest()
        if session != "no attribute":
            request.session = SessionStore() if session == "foreign" else session
        with user_sessions.not_an_authentication(request):
            if session == "foreign":
                login(request, users["ann"], backend=BACKEND)
        assert session != "foreign" or "_login_of" not in request.session

    def test_after_an_error_within_a_log_in_is_one(self, Store, users):
        request = HttpRequest()
        request.session = Store()
        with pytest.raises(ZeroDivisionError), user_sessions.not_an_authentication(request):
            raise ZeroDivisionError
        login(request, users["ann"], backend=BACKEND)
        assert "_login_at" in request.session

    def test_within_another(self, Store, users):
        request = HttpRequest()
        request.session = Store()
        with user_sessions.not_an_authentication(request):
            with user_sessions.not_an_authentication(request):
                pass
            login(request, users["ann"], backend=BACKEND)
        assert "_login_at" not in request.session

    def test_the_client_is_recorded(self, face, users):
        """The list of the user's sessions shows from where it is."""
        with override_settings(MULTISESSION_TRACK_CLIENT=True):
            Admin(face, "by hand", users).sign_in().look_in()
            [session] = user_sessions.sessions_of(users["bob"])
            assert session.ip == "127.0.0.1"


class Limits:
    def method(self, user_id: str, data: dict[str, Any]) -> int:
        return by_both(user_id, data)

    def __call__(self, user_id: str, data: dict[str, Any]) -> int:
        return by_both(user_id, data)


asked: list[tuple[Any, ...]] = []


def by_both(user_id: str, data: dict[str, Any]) -> int:
    asked.append((user_id, data))
    return 5


def by_one(user_id: str) -> int:
    asked.append((user_id,))
    return 5


def by_one_with_more(user_id: str, most: int = 5) -> int:
    asked.append((user_id,))
    return most


def by_any(*arguments: Any) -> int:
    asked.append(arguments)
    return 5


def by_optional_data(user_id: str, data: dict[str, Any] | None = None) -> int:
    asked.append((user_id, data))
    return 5


def partial_of_three(most: int, user_id: str, data: dict[str, Any]) -> int:
    return min(most, by_both(user_id, data))


@pytest.mark.parametrize("engine_name", ["memory", "redis"])
class TestFunctions:
    @pytest.fixture(autouse=True)
    def _asked(self) -> None:
        asked.clear()

    @pytest.mark.parametrize(
        ("limit", "takes_data"),
        [
            (by_both, True),
            (f"{__name__}.by_both", True),
            (lambda user_id, data: by_both(user_id, data), True),
            (Limits().method, True),
            (Limits(), True),
            (partial(partial_of_three, 5), True),
            (by_optional_data, True),
            (by_one, False),
            (by_one_with_more, False),
            (by_any, False),
        ],
        ids=lambda value: getattr(value, "__name__", None) or str(value)[:20],
    )
    def test_one_of_two_arguments_is_given_the_data(self, Store, face, limit, takes_data):
        with override_settings(MULTISESSION_MAX_PER_USER=limit):
            saved(face, Store, _auth_user_id="1", kind="kiosk")
        assert asked == [("1", {"_auth_user_id": "1", "kind": "kiosk"}) if takes_data else ("1",)]

    def test_a_function_of_python_itself(self, Store, face, clock):
        keys = []
        with override_settings(MULTISESSION_MAX_PER_USER={"1": 1}.get):
            for number in range(2):
                keys.append(saved(face, Store, _auth_user_id="1", a=number))
                clock.shift(1)
        assert [face(Store()).exists(key) for key in keys] == [False, True]

    def test_what_it_does_to_the_data_is_not_saved(self, Store, face):
        def greedy(user_id: str, data: dict[str, Any]) -> None:
            data.clear()

        with override_settings(MULTISESSION_MAX_PER_USER=greedy):
            key = saved(face, Store, _auth_user_id="1", a=1)
        assert stored(face, Store, key) == {"_auth_user_id": "1", "a": 1}

    def test_a_limit_by_the_data(self, Store, face):
        def kiosks(user_id: str, data: dict[str, Any]) -> int | None:
            return 1 if data.get("kind") == "kiosk" else None

        with override_settings(MULTISESSION_MAX_PER_USER=kiosks, MULTISESSION_ON_MAX="refuse"):
            for number in range(3):
                saved(face, Store, _auth_user_id="1", a=number)
            with pytest.raises(TooManySessions):
                saved(face, Store, _auth_user_id="1", kind="kiosk")
