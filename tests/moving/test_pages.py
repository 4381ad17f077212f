"""The pages of a user and of the admin during a move, and signing in and out in a browser."""

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import include, path, reverse

from tests.urls import urlpatterns as pages
from tests.user_sessions.test_views import MIDDLEWARE

from .conftest import saved_on

urlpatterns = [*pages, path("sessions/", include("django_multisession.urls"))]
pytestmark = pytest.mark.urls(__name__)

SAID = "Sessions are being moved to another store"


@pytest.fixture(params=["memory", "redis"])
def new_name(request):
    return request.param


@pytest.fixture
def user():
    get_user_model().objects.filter(username="ann").delete()
    user = get_user_model().objects.create_superuser("ann", password="secret")
    yield user
    user.delete()


@pytest.fixture
def client(site, user, settings):
    settings.MIDDLEWARE = MIDDLEWARE
    settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, "phase": "prepare"}
    client = Client()
    assert client.login(username="ann", password="secret")
    settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, "phase": "move"}
    return client


def key_of(client):
    return client.cookies["sessionid"].value


def test_the_page_says_so_and_offers_no_repair(site, client):
    page = client.get(reverse("django_multisession:user_sessions")).content.decode()
    assert SAID in page
    assert "Look for missing sessions" not in page
    assert "Sign out all other sessions" in page
    assert site.is_new(key_of(client))


def test_all_others_are_ended_where_they_are(site, client, user):
    other = saved_on(site.old, _auth_user_id=str(user.pk), _login_at=1)
    answer = client.post(reverse("django_multisession:end_others"), follow=True)
    assert answer.status_code == 200
    assert SAID in answer.content.decode()
    assert site.at("move")().exists(other) is False
    assert site.at("move")().exists(key_of(client)) is True


def test_the_admin_says_so(site, client, user):
    assert SAID in client.get(reverse("admin:django_multisession_session_changelist")).content.decode()
    page = client.get(reverse("admin:django_multisession_session_user", args=[user.pk]))
    assert SAID in page.content.decode()
    assert "If Redis has lost the list" not in page.content.decode()


def test_the_page_of_a_site_that_does_not_move_says_nothing(site, client, settings):
    settings.SESSION_ENGINE = settings.MULTISESSION_MOVE["to"]
    client = Client()
    client.login(username="ann", password="secret")
    for page in ("django_multisession:user_sessions", "admin:django_multisession_session_changelist"):
        assert SAID not in client.get(reverse(page)).content.decode()


def test_nobody_is_logged_out_by_a_whole_move(site, client, user, settings):
    """One browser, through all phases and to the new engine alone."""
    page = reverse("django_multisession:user_sessions")
    key = key_of(client)
    for phase in ("prepare", "move", "back", "prepare", "move", "prepare", "move"):
        settings.MULTISESSION_MOVE = {**settings.MULTISESSION_MOVE, "phase": phase}
        assert client.get(page).status_code == 200
        assert key_of(client) == key
    settings.SESSION_ENGINE = settings.MULTISESSION_MOVE["to"]
    assert client.get(page).status_code == 200
    client.logout()
    assert not site.is_new(key)


def test_another_user_signs_in_under_another_key(site, client, user):
    key = key_of(client)
    get_user_model().objects.filter(username="bob").delete()
    bob = get_user_model().objects.create_user("bob", password="secret")
    client.login(username="bob", password="secret")
    assert key_of(client) != key
    assert site.new(key_of(client))["_auth_user_id"] == str(bob.pk)
    bob.delete()
