"""What none of this site's keys has made is none of its sessions: another site's on the same store, on every engine."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.test import Client, override_settings

from django_multisession import codecs, foreign_checks, lifecycle, user_sessions
from django_multisession.records import identify, utcnow
from django_multisession.signals import session_ended
from django_multisession.statistics import collect
from django_multisession.user_sessions import Repaired, Revoked

from .browsers import AUTH, OURS, new_user
from .conftest import ENGINES
from .contract import saved

USER = "_auth_user_id"
ANN = "1"
MIDDLEWARE = [OURS, AUTH, "django.contrib.messages.middleware.MessageMiddleware"]
THEIRS = "keys has made: they are left alone"
KEY, OLD_KEY = "11" * 32, "22" * 32


@pytest.fixture(params=list(ENGINES))
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def api(face: Any) -> Any:
    return face.functions(user_sessions)


@pytest.fixture(params=["signed", "sealed"])
def other_site(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """A context in which the other site is at work, as it is with keys of its own."""
    if request.param == "signed":
        yield lambda: override_settings(SECRET_KEY="another site's")
        return
    with override_settings(MULTISESSION_ENCRYPTION_KEYS=[KEY]):
        yield lambda: override_settings(MULTISESSION_ENCRYPTION_KEYS=["33" * 32], SECRET_KEY="another site's")


@pytest.fixture
def sign_in(face: Any, Store: Any) -> Callable[..., str]:
    return lambda user_id=ANN, **data: saved(face, Store, **{USER: user_id, **data})


def handles(*keys: str) -> set[str]:
    return {lifecycle.handle(identify(key)) for key in keys}


class TestAnotherSite:
    def test_its_sessions_are_not_listed_nor_counted(self, api, sign_in, other_site, caplog):
        own = sign_in()
        with other_site():
            sign_in()
            sign_in("2")
        sessions = api.sessions_of(ANN)
        assert {each.id for each in sessions} == handles(own)
        assert (sessions.complete, sessions.foreign) == (None, 1)
        assert "1 records of user 1 were made with none of this site's keys" in caplog.text
        assert api.count(ANN) == 1
        assert api.count("2") == 0
        assert (collect().sessions, collect().users, collect().foreign) == (1, 1, 2)

    def test_they_are_not_ended(self, Store, face, api, sign_in, other_site):
        own = sign_in()
        with other_site():
            theirs, others = sign_in(), sign_in("2")
            [handle] = {each.id for each in api.sessions_of(ANN) if each.id in handles(theirs)}
        assert api.revoke(ANN, handle) is False
        revoked = api.revoke_all(ANN)
        assert (revoked.ended, revoked.complete, revoked.foreign) == (1, None, 1)
        sign_in()
        assert api.revoke_everyone() == 1
        assert not face(Store()).exists(own)
        with other_site():
            assert {each.id for each in api.sessions_of(ANN)} == handles(theirs)
            assert face(Store(others)).load()[USER] == "2"

    def test_of_a_user_who_has_none_of_them_all_is_complete(self, api, sign_in, other_site):
        sign_in()
        with other_site():
            sign_in("2")
        assert (api.sessions_of(ANN).complete, api.sessions_of(ANN).foreign) == (True, 0)
        assert api.revoke_all(ANN) == Revoked(1)

    def test_they_do_not_fill_up_a_users_places(self, Store, face, api, sign_in, other_site, settings):
        settings.MULTISESSION_MAX_PER_USER = 2
        with other_site():
            theirs = [sign_in(), sign_in()]
        own = [sign_in(), sign_in(), sign_in()]
        left = {each.id for each in api.sessions_of(ANN)}
        assert len(left) == 2
        assert left <= handles(*own)
        with other_site():
            assert {each.id for each in api.sessions_of(ANN)} == handles(*theirs)
        settings.MULTISESSION_ON_MAX = "refuse"
        assert sign_in("2")

    def test_nobody_is_told_of_them(self, api, sign_in, other_site):
        told = []

        def note(sender: Any, id: str, **_kwargs: object) -> None:
            told.append(id)

        session_ended.connect(note)
        try:
            own = sign_in()
            with other_site():
                sign_in()
            api.revoke_all(ANN)
            api.revoke_everyone()
        finally:
            session_ended.disconnect(note)
        assert set(told) == handles(own)

    def test_a_repair_leaves_them_out(self, api, sign_in, other_site):
        with other_site():
            sign_in()
        assert api.repair_index() == Repaired(0)

    def test_a_change_of_the_user_does_not_end_them(self, Store, face, api, sign_in, other_site):
        user = new_user("shared")
        sign_in(str(user.pk))
        with other_site():
            theirs = sign_in(str(user.pk))

        def deactivate() -> None:
            user.is_active = False
            user.save()

        face.run(deactivate)
        assert api.count(user) == 0
        with other_site():
            assert face(Store()).exists(theirs)
            face(Store(theirs)).delete()
        face.run(user.delete)


class TestOurOwn:
    @pytest.mark.parametrize(
        "today",
        [
            {"SECRET_KEY": "new", "SECRET_KEY_FALLBACKS": ["not a secret: the tests' own"]},
            {"MULTISESSION_ENCRYPTION_KEYS": [KEY]},
            {"MULTISESSION_ENCRYPTION_KEYS": [None, KEY]},
        ],
        ids=["fallback", "sealed since", "to be sealed"],
    )
    def test_what_an_older_key_has_made(self, api, sign_in, today):
        sign_in()
        with override_settings(**today):
            assert api.count(ANN) == 1
            assert api.revoke_all(ANN) == Revoked(1)

    def test_what_an_older_encryption_key_has_sealed(self, api, sign_in):
        with override_settings(MULTISESSION_ENCRYPTION_KEYS=[OLD_KEY]):
            sign_in()
        with override_settings(MULTISESSION_ENCRYPTION_KEYS=[KEY, OLD_KEY], SECRET_KEY="new"):
            assert api.revoke_all(ANN) == Revoked(1)

    def test_what_can_be_opened_but_not_read(self, api, sign_in, verbs):
        record = verbs.read(identify(sign_in()))
        payload = codecs.close(codecs.Serialized(codecs.JSON, b"junk"), record.id)
        verbs.replace(dataclasses.replace(record, payload=payload, version=record.version + 1))
        assert len(api.sessions_of(ANN)) == api.count(ANN) == 1
        assert api.revoke_all(ANN) == Revoked(1)

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_what_could_be_opened_if_a_library_were_there(self, api, sign_in, monkeypatch):
        with override_settings(MULTISESSION_ENCRYPTION_KEYS=[KEY]):
            sign_in()
            monkeypatch.setattr(codecs, "AESGCM", None)
            assert api.count(ANN) == 1
            assert api.revoke_all(ANN) == Revoked(1)

    @pytest.mark.parametrize("engine_name", ["memory"])
    @pytest.mark.parametrize("payload", [b"", b"x", b"\x80", b"\xc0", b"\x80" + b"0" * 40, b"\xc0" + b"0" * 40])
    def test_what_nobody_has_made(self, engine_name, payload):
        with override_settings(MULTISESSION_ENCRYPTION_KEYS=[KEY]):
            assert codecs.is_ours(payload, "a" * 64) is False

    @pytest.mark.parametrize("engine_name", ["memory"])
    def test_a_payload_of_another_record(self, sign_in, verbs):
        record = verbs.read(identify(sign_in()))
        assert codecs.is_ours(record.payload, record.id)
        assert not codecs.is_ours(record.payload, "a" * 64)


@pytest.mark.parametrize("engine_name", ["mongodb", "redis"])
class TestPages:
    """They offer no repair for what a repair would not find, and say what is there."""

    @pytest.fixture
    def signed_in(self, Store: Any) -> Iterator[Any]:
        user, browser = new_user("foreign"), Client()
        user.is_staff = user.is_superuser = True
        user.save()
        with override_settings(MIDDLEWARE=MIDDLEWARE, ROOT_URLCONF="tests.test_views"):
            browser.force_login(user)
            with override_settings(SECRET_KEY="another site's"):
                session = Store()
                session[USER] = str(user.pk)
                session.save()
            yield user, browser
        get_user_model().objects.filter(pk=user.pk).delete()

    def test_the_users_own(self, signed_in):
        _, browser = signed_in
        page = browser.get("/sessions/")
        assert page.status_code == 200
        assert "may be incomplete" not in page.content.decode()
        page = browser.post("/sessions/end-others/", follow=True)
        assert page.status_code == 200
        assert "There may be more" not in page.content.decode()

    def test_the_admins(self, signed_in):
        user, browser = signed_in
        page = browser.get(f"/admin/django_multisession/session/user/{user.pk}/")
        assert THEIRS in page.content.decode()
        browser.post(
            "/admin/auth/user/", {"action": "end_all_sessions", "_selected_action": user.pk, "confirmed": "yes"}
        )
        page = browser.get(f"/admin/django_multisession/session/user/{user.pk}/")
        assert THEIRS in page.content.decode()


@pytest.mark.parametrize("deploy", [True, False])
class TestCheck:
    def found(self, deploy: bool) -> list[str]:
        ask = {"include_deployment_checks": True} if deploy else {"databases": ["default", "postgres", "mysql"]}
        tags = None if deploy else [checks.Tags.database]
        return [each.id for each in checks.run_checks(tags=tags, **ask) if each.id == "django_multisession.W011"]

    def expected(self, deploy: bool, engine_name: str) -> list[str]:
        of_sql = engine_name in ("sqlite", "postgres", "mysql")
        return [] if engine_name == "memory" or (deploy and of_sql) else ["django_multisession.W011"]

    def test_a_store_of_two_sites(self, Store, face, sign_in, engine_name, deploy):
        if face.name == "async":
            return
        sign_in()
        with override_settings(SECRET_KEY="another site's"):
            for _ in range(foreign_checks.FEW + 1):
                sign_in()
        assert self.found(deploy) == self.expected(deploy, engine_name)

    def test_the_own_store(self, Store, sign_in, deploy):
        for _ in range(10):
            sign_in()
        with override_settings(SECRET_KEY="another site's"):
            sign_in()
        assert self.found(deploy) == []

    def test_what_is_from_before_a_change_of_keys(self, Store, sign_in, verbs, deploy):
        with override_settings(SECRET_KEY="an old one"):
            for _ in range(10):
                record = verbs.read(identify(sign_in()))
                long_ago = utcnow() - foreign_checks.RECENT
                verbs.replace(dataclasses.replace(record, updated_at=long_ago, version=2))
        assert self.found(deploy) == []


@pytest.mark.parametrize("engine_name", ["memory"])
def test_unusable_keys_are_still_an_error(api, sign_in):
    with override_settings(MULTISESSION_ENCRYPTION_KEYS=[KEY]):
        sign_in()
    with override_settings(MULTISESSION_ENCRYPTION_KEYS=["short"]), pytest.raises(ImproperlyConfigured):
        api.revoke_all(ANN)
