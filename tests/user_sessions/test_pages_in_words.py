"""What "Your sessions" shows and asks: its order, its words, and the question before all others are signed out."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_login_failed
from django.test import override_settings
from django.urls import include, path
from django.utils import timezone, translation
from django.utils.formats import date_format

from django_multisession.testing.stored import saved
from django_multisession.user_sessions import people, sessions_of, views, wording

from ..urls import urlpatterns as pages
from .test_views import BUTTON, FIREFOX, _site, browser, post, signed_in, token, user_of  # noqa: F401  fixtures

urlpatterns = [
    *pages,
    path("sessions/", include("django_multisession.urls")),
    path("password/", lambda request: None, name="password_change"),
]


@pytest.fixture(autouse=True)
def _urls(_site: None) -> Any:  # noqa: F811
    with override_settings(ROOT_URLCONF=__name__):
        yield


@pytest.fixture
def ann(user_of: Any) -> Any:  # noqa: F811
    return user_of("ann")


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_the_own_session_comes_first_though_others_are_newer(Store, ann, clock):
    one = browser(ann)
    clock.shift(timedelta(seconds=5))
    browser(ann, **{"user-agent": "curl/8.0"})
    page = one.get("/sessions/").text
    assert page.index('aria-current="true"') < page.index(BUTTON)
    assert page.index("Firefox") < page.index("curl")


def test_sign_out_is_the_one_verb(Store, ann):
    one, _ = browser(ann), browser(ann)
    page = one.get("/sessions/").text
    assert re.findall(r"<button[^>]*>([^<]+)", page) == ["Sign out", "Sign out", "Sign out all other sessions"]
    assert not re.search(r"\b(log|logged) (in|out|off)\b", text_of(page), re.IGNORECASE)


@pytest.mark.parametrize(
    ("passed", "said"),
    [
        ({"seconds": 0}, "just now"),
        ({"seconds": -90}, "just now"),  # a clock that is behind
        ({"seconds": 59}, "just now"),
        ({"seconds": 60}, "1 minute ago"),
        ({"minutes": 59, "seconds": 59}, "59 minutes ago"),
        ({"hours": 1}, "1 hour ago"),
        ({"hours": 23}, "23 hours ago"),
        ({"days": 1}, "1 day ago"),
        ({"days": 29}, "29 days ago"),
    ],
)
@pytest.mark.parametrize("aware", [True, False])
def test_relative_times(passed, said, aware):
    with override_settings(USE_TZ=aware):
        moment = timezone.now() - timedelta(**passed)
        assert timezone.is_aware(moment) is aware
        assert wording.ago(moment) == said


def test_what_is_long_ago_is_a_date():
    moment = timezone.now() - timedelta(days=40)
    assert str(moment.year) in wording.ago(moment)
    with translation.override("de"):
        assert wording.ago(timezone.now() - timedelta(minutes=3, seconds=1)) == "vor 3 Minuten"


def test_last_seen_is_relative_with_the_time_at_hand(Store, ann, clock):
    one, _ = browser(ann), browser(ann, **{"user-agent": "curl/8.0"})
    clock.shift(timedelta(minutes=3))
    page = one.get("/sessions/").text
    found = re.search(r'<time datetime="([^"]+)" title="([^"]+)">3 minutes ago</time>', page)
    assert found
    assert found[1].startswith(str(timezone.now().year))
    assert "now</time>" in page


def test_what_is_not_known_has_a_name(Store, ann):
    saved(lambda store: store, Store, _auth_user_id=str(ann.pk))
    saved(lambda store: store, Store, _auth_user_id=str(ann.pk), _client={"user_agent": " \u200b\u200d "})
    assert text_of(browser(ann).get("/sessions/").text).count("Browser not recorded") == 2


def test_a_name_of_ours_goes_in_the_direction_of_the_page_and_a_header_in_its_own(Store, ann):
    one, _ = browser(ann), browser(ann, **{"user-agent": "strange"})
    with override_settings(LANGUAGE_CODE="ar"), translation.override("ar"):
        page = one.get("/sessions/").text
    assert re.findall(r'title="strange"([^>]*)>strange<', page) == [' dir="auto"']
    [(direction, name)] = re.findall(r'title="Mozilla[^"]*"([^>]*)>([^<]+)<', page)
    assert (direction, name) == ("", "Firefox على Linux")


def test_a_list_without_a_session_says_so(Store, ann, rf):
    """Of who has signed in by a token, say."""
    request = rf.get("/sessions/")
    request.user = ann
    shown = text_of(views.user_sessions(request).text)
    assert "No sessions." in shown
    assert "no other sessions" not in shown
    assert "was last changed" not in shown  # what "last seen" means, where nothing was


def test_a_long_agent_is_whole_in_the_title(Store, ann):
    agent = "Unheard-of/1.0 " + "x" * 200
    page = browser(ann, **{"user-agent": agent}).get("/sessions/").text
    assert f'title="{agent}"' in page


def test_addresses_stand_from_left_to_right(Store, ann):
    assert '<bdi dir="ltr">127.0.0.1</bdi>' in browser(ann).get("/sessions/").text


def test_the_page_of_the_password_is_linked_where_there_is_one(Store, ann):
    one = browser(ann)
    assert 'href="/password/"' in one.get("/sessions/").text
    with override_settings(ROOT_URLCONF="tests.user_sessions.test_views"):
        assert "Change your password" not in one.get("/sessions/").text


@pytest.mark.parametrize("every", [True, False])
def test_last_seen_says_what_it_means_where_reads_do_not_count(Store, ann, every):
    with override_settings(SESSION_SAVE_EVERY_REQUEST=every):
        page = browser(ann).get("/sessions/").text
    assert ("only read may not count" in page) is not every


def test_messages_take_no_focus(Store, ann):
    page = post(browser(ann), "/sessions/end/abc/").text
    assert "There is no such session" in page
    assert "autofocus" not in page
    assert "tabindex" not in page


class TestQuestion:
    def test_it_asks_and_ends_nothing(self, Store, ann):
        one, other = browser(ann), browser(ann)
        page = one.get("/sessions/end-others/").text
        assert "1 other session will be signed out. This one stays." in text_of(page)
        assert 'type="password"' not in page
        assert signed_in(other)
        assert "1 session was signed out." in post(one, "/sessions/end-others/").text
        assert not signed_in(other)

    @pytest.fixture
    def asking(self) -> Any:
        with override_settings(MULTISESSION_CONFIRM_PASSWORD=True):
            yield

    def send(self, one: Any, **form: str) -> Any:
        return one.post("/sessions/end-others/", {"csrfmiddlewaretoken": token(one), **form}, follow=True)

    def test_the_password(self, Store, ann, asking):
        one, other = browser(ann), browser(ann)
        assert 'type="password"' in one.get("/sessions/end-others/").text
        assert "1 session was signed out." in self.send(one, password="secret").text
        assert not signed_in(other)

    @pytest.mark.parametrize("form", [{}, {"password": ""}, {"password": "wrong"}])
    def test_a_wrong_one_ends_nothing_and_is_told_to_whoever_counts_failures(self, Store, ann, asking, form):
        failed: list[Any] = []

        def note(credentials: Any, **_named: Any) -> None:
            failed.append(credentials["username"])

        user_login_failed.connect(note)
        try:
            one, other = browser(ann), browser(ann)
            answer = self.send(one, **form)
        finally:
            user_login_failed.disconnect(note)
        assert answer.status_code == 403
        assert "That is not your password." in answer.text
        assert failed == ["ann"]
        assert signed_in(other)

    def test_of_who_has_none_it_is_not_asked(self, Store, ann, asking):
        one, other = browser(ann), browser(ann)
        get_user_model().objects.filter(pk=ann.pk).update(password="!")  # signed in elsewhere; no signal
        user = get_user_model().objects.get(pk=ann.pk)
        assert not user.has_usable_password()
        one.force_login(user)
        other.force_login(user)
        assert 'type="password"' not in one.get("/sessions/end-others/").text
        self.send(one)
        assert len(sessions_of(ann)) == 1


@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize("moment", [datetime.max, datetime.min], ids=["max", "min"])
def test_any_moment_of_a_store_can_be_shown(moment, use_tz, settings):
    """As what somebody else has written there may say of when a user was active last."""
    settings.USE_TZ = use_tz
    user = get_user_model().objects.create_user("far")
    try:
        for zone in ("Pacific/Kiritimati", "Pacific/Niue"):
            with timezone.override(zone):
                [(found, shown)] = people.active([(str(user.pk), moment.replace(tzinfo=UTC))])
                assert found == user
                assert date_format(timezone.localtime(shown) if use_tz else shown)
    finally:
        user.delete()
