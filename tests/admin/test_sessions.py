"""The sessions in the admin, on every engine."""

import re
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, Permission
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path, reverse
from django.utils.html import escape

from django_multisession import engine as session_engine
from django_multisession.admin import EndSessionsMixin, PurgeRunAdmin, SessionAdmin, ending, session_charts
from django_multisession.admin import pages as admin_pages
from django_multisession.admin import sessions as session_admin
from django_multisession.charts import PLACES
from django_multisession.models import PurgeRun, Session
from django_multisession.records import identify, utcnow
from django_multisession.user_sessions import passes, sessions_of

from ..backends.test_outages import using
from ..conftest import ENGINES
from ..routers import SessionRouter

LIST = "/admin/django_multisession/session/"
USERS = "/admin/auth/user/"
SECRET = "a-secret-value"
HOSTILE = """<script>alert("&")</script>'"""
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


class People(EndSessionsMixin, UserAdmin):
    """As the documentation has it."""


site = admin.AdminSite()  # a site of a project's own
site.register(get_user_model(), People)
site.register(Group)
site.register(Session, SessionAdmin)
site.register(PurgeRun, PurgeRunAdmin)
urlpatterns = [path("admin/", site.urls)]

pytestmark = pytest.mark.urls(__name__)


@pytest.fixture(params=[*ENGINES, "cached_sqlite"])
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def on(*engines: str) -> Any:
    return pytest.mark.parametrize("engine_name", engines, indirect=True)


@pytest.fixture(autouse=True)
def _messages(settings: Any) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.messages.middleware.MessageMiddleware"]


@pytest.fixture
def people(Store: Any) -> Any:
    """Makes users, and removes them."""
    made = []

    def make(name: str, *permissions: str, **fields: Any) -> Any:
        made.append(user := get_user_model().objects.create_user(name, **fields))
        user.user_permissions.add(*Permission.objects.filter(codename__in=permissions))
        return user

    yield make
    LogEntry.objects.all().delete()
    for user in made:
        user.delete()


@pytest.fixture
def ann(people: Any) -> Any:
    return people("ann")


def signed_in(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def boss(people: Any) -> Any:
    return people("boss", "view_session", "delete_session", "view_user", is_staff=True)


@pytest.fixture
def client(boss: Any) -> Client:
    return signed_in(boss)


@pytest.fixture
def looker(people: Any) -> Client:
    """May look, and no more."""
    return signed_in(people("looker", "view_session", "view_user", is_staff=True))


@pytest.fixture
def clerk(people: Any) -> Client:
    """Staff without any permission of sessions."""
    return signed_in(people("clerk", "view_user", is_staff=True))


def start(Store: Any, user: Any, **data: Any) -> Any:
    session = Store()
    session.update({"_auth_user_id": str(user.pk), **data})
    session.save()
    return session


def with_agent(Store: Any, user: Any, agent: str = FIREFOX, **data: Any) -> Any:
    return start(Store, user, _client={"ip": "203.0.113.7", "user_agent": agent}, **data)


def of(user: Any, page: str = "") -> str:
    return f"{LIST}user/{user.pk}/{page}"


def show(client: Client, url: str, status: int = 200) -> str:
    response = client.get(url)
    assert response.status_code == status
    return response.content.decode()


def message(response: Any) -> str:
    [found] = response.context["messages"]
    return str(found)


def logged(user: Any) -> list[str]:
    return [entry.get_change_message() for entry in LogEntry.objects.filter(object_id=str(user.pk)).order_by("pk")]


# The overview


def figures(name: str, page: str) -> dict[str, str]:
    [figure] = re.findall(rf'<figure[^>]* id="chart-{name}">.*?</figure>', page, re.DOTALL)
    rows = re.findall(r'<th scope="row">(.*?)</th>(?:\s*<td><svg.*?</td>)?\s*<td>(.*?)</td>', figure, re.DOTALL)
    return {label.replace("\N{NO-BREAK SPACE}", " ").replace("&gt;", ">"): text for label, text in rows}


def summary(page: str) -> dict[str, str]:
    return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))


def test_the_overview(Store, client, ann):
    for _ in range(3):
        with_agent(Store, ann, cart=[1])
    Store().save()
    shown = show(client, LIST)
    counts = summary(shown)
    assert {name: counts[name] for name in ("Sessions", "Users signed in", "Anonymous sessions", "Unreadable")} == {
        "Sessions": "5",
        "Users signed in": "2",
        "Anonymous sessions": "1",
        "Unreadable": "0",
    }
    assert figures("active", shown)["5 min"] == "5"
    assert sum(map(int, figures("sizes", shown).values())) == 5
    assert [*figures("log-ins", shown).values()][-1] == "4"
    assert [*figures("expiries", shown).values()][-1] == "5"
    assert figures("devices", shown) == {"Firefox on Linux": "3"}
    assert figures("names", shown)["cart"] == "3"
    assert "Of the first" not in shown


@on("memory")
def test_each_tick_stands_below_its_bar(Store, ann):
    start(Store, ann)
    for chart in session_charts.overview(with_purges=False)["charts"]:
        assert len(chart.bars) >= PLACES  # fewer stand on the right
        assert len(chart.ticks) in (2, len(chart.bars))


def test_an_overview_of_a_part(Store, client, ann, monkeypatch):
    monkeypatch.setattr(session_charts, "MOST_SESSIONS", 3)
    for _ in range(5):
        start(Store, ann)
    shown = show(client, LIST)
    assert "Of the first 3 sessions only" in shown
    assert summary(shown)["Sessions"] == "3"


def test_no_device_was_recorded(client):
    assert "see MULTISESSION_TRACK_CLIENT" in show(client, LIST)


def test_only_some_names_and_devices(Store, client, ann, monkeypatch):
    monkeypatch.setattr(session_charts, "MOST_BARS", 2)
    start(Store, ann, **{f"name{number}": 1 for number in range(5)})
    shown = show(client, LIST)
    assert len(figures("names", shown)) == 2
    assert re.search(r"and \d+ others", shown)


@on("redis")
def test_no_purge_where_the_server_expires_by_itself(client, boss):
    boss.user_permissions.add(Permission.objects.get(codename="view_purgerun"))
    assert "chart-purged" not in show(client, LIST)
    assert "chart-waiting" not in show(client, LIST)


@on("sqlite", "redis")
def test_users_who_were_active_last(Store, client, people, clock):
    users = [people(f"user{number}") for number in range(12)]
    for user in users:
        clock.shift(60)
        start(Store, user)
    gone = people("gone")
    start(Store, gone)
    get_user_model().objects.filter(pk=gone.pk).delete()
    shown = show(client, LIST)
    section = shown[shown.index("Recently active users") : shown.index("</section>")]
    assert re.findall(r">(user\d+|gone)<", section) == [f"user{number}" for number in range(11, 1, -1)][:10]
    assert f'href="{of(users[11])}"><bdi>' in section  # a name in Arabic leaves the time beside it as it is


@on("sqlite")
def test_a_breadcrumb_is_there_once(client, ann):
    for page, crumbs in ((LIST, "Home Sessions"), (of(ann), f"Home Sessions Sessions of {ann}")):
        shown = re.split(r'class="breadcrumbs"', show(client, page))[1].split(">", 1)[1]
        text = re.sub(r"<[^>]+>|&rsaquo;", " ", re.split("</ol>|</div>", shown)[0])
        assert " ".join(text.split()) == crumbs


@on("sqlite")
def test_one_user_is_asked_for_in_the_singular(client, ann):
    assert "This user will be signed out everywhere." in show(client, of(ann, "end/"))


@on("sqlite")
def test_search_by_e_mail_and_by_the_search_fields_of_the_users(client, people):
    ann, bob = people("ann"), people("bob")
    get_user_model().objects.filter(pk=ann.pk).update(email="first.lady@example.com")
    get_user_model().objects.filter(pk=bob.pk).update(last_name="Windsor", email="bob@example.com")
    for text, user in (("lady@", ann), ("first.lady", ann), ("windsor", bob)):
        response = client.get(LIST, {"q": text})
        assert (response.status_code, response.url) == (302, of(user)), text


@on("sqlite")
def test_who_is_found_twice_by_the_site_is_in_nobodys_way(client, people, monkeypatch):
    """A join over groups gives a user once for each."""
    monkeypatch.setattr(People, "search_fields", ["groups__name"])
    monkeypatch.setattr(admin_pages, "MOST_FOUND", 3)
    users = [people(name) for name in ("ann", "bob", "cid")]
    groups = [Group.objects.create(name=f"crew{number}") for number in range(5)]
    try:
        for user in users:
            user.groups.set(groups)
        shown = show(client, f"{LIST}?q=crew")
    finally:
        for group in groups:
            group.delete()
    assert [of(user) in shown for user in users] == [True] * 3


@on("sqlite")
def test_the_purge_for_those_who_may_see_it(client, boss):
    runs = PurgeRun.objects.using(SessionRouter.alias)
    runs.all().delete()  # those that other tests have left
    runs.create(table="t", started_at=utcnow(), ended_at=utcnow(), rows=1234, batches=2, more=False, reason="done")
    try:
        assert "chart-purged" not in show(client, LIST)
        boss.user_permissions.add(Permission.objects.get(codename="view_purgerun"))
        shown = show(client, LIST)
        assert [*figures("purged", shown).values()] == ["1,234"]
        assert 'id="chart-waiting"' in shown
    finally:
        runs.all().delete()


@on("sqlite")
def test_nothing_that_a_content_security_policy_refuses(Store, client, ann):
    with_agent(Store, ann)
    for url in (LIST, of(ann), of(ann, "end/")):
        content = show(client, url).split('id="content"')[1].split('id="footer"')[0]
        assert not re.search(r"<script|<style|\sstyle=|\son\w+=", content)


# What must not be seen


def test_no_key_no_hash_and_no_value_is_shown(Store, client, ann):
    session = with_agent(Store, ann, cart={"inner": SECRET})
    [listed] = sessions_of(ann)
    pages = [
        show(client, url)
        for url in (LIST, of(ann), of(ann, "end/"), of(ann, f"end/?session={listed.id}"), f"{LIST}?q=nobody")
    ]
    pages.append(client.post(USERS, {"action": "end_all_sessions", "_selected_action": [ann.pk]}).content.decode())
    assert "cart" in pages[0]
    for shown in pages:
        for secret in (SECRET, "inner", session.session_key, identify(session.session_key)):
            assert secret not in shown
    client.post(of(ann, "end/"))
    assert session.session_key not in repr(LogEntry.objects.values())
    assert identify(session.session_key) not in repr(LogEntry.objects.values())


@pytest.mark.parametrize("agent", [HOSTILE, "Mozilla/5.0 (X11; Linux x86_64) " + HOSTILE])
def test_hostile_user_agents_and_names_are_escaped(Store, client, people, agent):
    user, _ = people(HOSTILE), people(HOSTILE + "2")
    with_agent(Store, user, agent, **{HOSTILE: 1})
    [listed] = sessions_of(user)
    ended = client.post(of(user, "end/"), {"session": listed.id}, follow=True).content.decode()
    with_agent(Store, user, agent, **{HOSTILE: 1})
    pages = [show(client, url) for url in (LIST, of(user), of(user, "end/"), f"{LIST}?{urlencode({'q': HOSTILE})}")]
    for shown in (*pages, ended):
        assert "<script>alert" not in shown
    assert escape(HOSTILE) in pages[0]
    assert escape(agent) in pages[1]


# Permissions


@pytest.mark.parametrize("page", [LIST, f"{LIST}?q=ann", f"{LIST}user/1/", f"{LIST}user/1/end/"])
@on("sqlite", "redis")
def test_staff_without_a_permission_are_refused(clerk, ann, page):
    page = page.replace("user/1/", f"user/{ann.pk}/")
    for response in (clerk.get(page), clerk.post(page)):
        assert response.status_code == 403
    assert "/admin/django_multisession/session/" not in show(clerk, "/admin/")


@on("sqlite")
def test_who_is_nobody_has_to_sign_in(ann):
    for page in (LIST, of(ann), of(ann, "end/")):
        assert Client().get(page).status_code == 302
        assert Client().post(page).status_code == 302


def test_who_may_look_ends_nothing(Store, looker, ann):
    session = with_agent(Store, ann)
    assert "end/" not in show(looker, of(ann))
    assert looker.get(of(ann, "end/")).status_code == 403
    assert looker.post(of(ann, "end/")).status_code == 403
    assert "end_all_sessions" not in show(looker, USERS)
    end_all(looker, ann)
    assert Store().exists(session.session_key)
    assert logged(ann) == []


@on("sqlite")
def test_the_rows_of_the_table_have_no_pages(Store, client, boss):
    session = start(Store, boss)
    boss.is_superuser = True
    boss.save()
    id = identify(session.session_key)
    for page in (f"{id}/change/", f"{id}/delete/", f"{id}/history/", f"{id}/", "add/"):
        assert client.get(LIST + page).status_code == 404
    client.post(LIST, {"action": "delete_selected", "_selected_action": id, "post": "yes"})
    assert Store().exists(session.session_key)


def test_a_get_ends_nothing(Store, client, ann):
    session = start(Store, ann)
    [listed] = sessions_of(ann)
    show(client, of(ann, "end/"))
    show(client, of(ann, f"end/?session={listed.id}"))
    assert Store().exists(session.session_key)


@on("sqlite")
def test_nor_does_a_post_from_elsewhere(Store, boss, ann):
    client = Client(enforce_csrf_checks=True)
    client.force_login(boss)
    session = start(Store, ann)
    assert client.post(of(ann, "end/")).status_code == 403
    assert Store().exists(session.session_key)
    token = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', show(client, of(ann, "end/")))[-1]
    assert client.post(of(ann, "end/"), {"csrfmiddlewaretoken": token}).status_code == 302
    assert not Store().exists(session.session_key)


# Search


def found(page: str) -> list[str]:
    return re.findall(rf'<li><a href="{LIST}user/\d+/"><bdi>(\w+)</bdi></a></li>', page)


@on("sqlite")
def test_search(client, people):
    for name in ("ann", "Anna", "bob"):
        people(name)
    assert found(show(client, f"{LIST}?q=ann")) in (["Anna", "ann"], ["ann", "Anna"])
    assert "There is no such user." in show(client, f"{LIST}?q=nobody")
    assert "There is no such user." in show(client, f"{LIST}?q=9{'9' * 30}")


@on("sqlite")
@pytest.mark.parametrize("by", ["username", "pk"])
def test_who_is_found_alone_is_shown(client, ann, by):
    response = client.get(LIST, {"q": f"  {getattr(ann, by)}\0 "})
    assert (response.status_code, response.url) == (302, of(ann))


@on("sqlite")
def test_a_search_is_cut(client, people, monkeypatch):
    monkeypatch.setattr(admin_pages, "MOST_FOUND", 2)
    for number in range(4):
        people(f"ann{number}")
    shown = show(client, f"{LIST}?q=ann")
    assert found(shown) == ["ann0", "ann1"]
    assert "There are more" in shown


@on("sqlite")
def test_a_search_looks_at_no_sessions(Store, client, people, monkeypatch):
    for number in range(4):
        people(f"ann{number}")
    with monkeypatch.context() as patch:
        patch.setattr(session_engine, "store", None)
        assert "ann3" in show(client, f"{LIST}?q=ann")


# The sessions of a user


def test_the_sessions_of_a_user(Store, client, ann, people):
    with_agent(Store, ann)
    with_agent(Store, people("bob"), agent="curl/8")
    shown = show(client, of(ann))
    assert "Firefox on Linux" in shown
    assert FIREFOX in shown
    assert "203.0.113.7" in shown
    assert "curl" not in shown
    [listed] = sessions_of(ann)
    assert f'name="session" value="{listed.id}"' in shown


def test_the_own_session_is_marked_and_stays(Store, client, boss):
    other = start(Store, boss)
    shown = show(client, of(boss))
    assert shown.count("this session") == 1
    assert shown.count('name="session"') == 1
    [own] = [session.id for session in sessions_of(boss) if session.id not in shown]
    assert "sign out instead" in message(client.post(of(boss, "end/"), {"session": own}, follow=True))
    assert "1 session was signed out." in message(client.post(of(boss, "end/"), follow=True))
    assert not Store().exists(other.session_key)
    assert show(client, LIST)


def test_one_session_is_ended(Store, client, ann):
    session, other = with_agent(Store, ann), with_agent(Store, ann, "curl/8.1")
    id = next(each.id for each in sessions_of(ann) if each.user_agent == FIREFOX)
    question = show(client, of(ann, f"end/?session={id}"))
    assert "Firefox on Linux" in question
    assert f'name="session" value="{id}"' in question
    response = client.post(of(ann, "end/"), {"session": id})
    assert (response.status_code, response.url) == (302, of(ann))
    assert not Store().exists(session.session_key)
    assert Store().exists(other.session_key)
    assert logged(ann) == [f"Signed out the session {id} (Firefox on Linux)."]


def test_a_session_that_is_gone(Store, client, ann):
    for method in (client.get, client.post):
        response = method(of(ann, "end/"), {"session": "0123456789abcdef"}, follow=True)
        assert "ended already" in message(response)
    assert logged(ann) == []


def test_the_session_of_another_user_is_not_ended(Store, client, ann, people):
    bob = people("bob")
    session = start(Store, bob)
    [listed] = sessions_of(bob)
    for id in (listed.id, session.session_key, identify(session.session_key)):
        client.post(of(ann, "end/"), {"session": id})
        assert Store().exists(session.session_key)
    assert logged(ann) == logged(bob) == []


def test_all_sessions_of_a_user_are_ended(Store, client, ann, people):
    sessions = [start(Store, ann) for _ in range(3)]
    other = start(Store, people("bob"))
    assert "<bdi>ann</bdi> (3)" in show(client, of(ann, "end/"))
    assert "3 sessions were signed out." in message(client.post(of(ann, "end/"), follow=True))
    assert not any(Store().exists(session.session_key) for session in sessions)
    assert Store().exists(other.session_key)
    assert logged(ann) == ["Signed out all sessions."]


def test_there_are_none(client, ann):
    assert "No sessions" in show(client, of(ann))
    client.post(of(ann, "end/"))
    assert logged(ann) == []


@on("sqlite")
def test_who_may_end_but_not_view_is_not_sent_to_a_refusal(Store, people, ann):
    session = start(Store, ann)
    ender = signed_in(people("ender", "delete_session", is_staff=True))
    response = ender.post(of(ann, "end/"), follow=True)
    assert response.redirect_chain == [("/admin/", 302)]
    assert "1 session was signed out." in response.content.decode()
    assert not Store().exists(session.session_key)


@on("redis")
def test_an_index_that_was_lost(Store, client, boss):
    other = start(Store, boss)
    Store.storage.client.delete(f"session:user:{boss.pk}")  # as an eviction does
    assert "has been lost" in show(client, of(boss))
    assert "1 session was signed out." in message(client.post(of(boss, "end/"), follow=True))
    assert not Store().exists(other.session_key)
    assert "has been lost" not in show(client, of(boss))


@on("redis")
def test_an_index_that_may_have_been_lost(Store, client, ann):
    session = start(Store, ann)
    Store.storage.client.delete(f"session:user:{ann.pk}")  # as an eviction does
    shown = show(client, of(ann))
    assert "If Redis has lost the list" in shown
    assert "Sign out all sessions" in shown
    assert "(0)" not in show(client, of(ann, "end/"))
    told = client.post(of(ann, "end/"), follow=True)
    assert "1 session was signed out." in message(told)
    assert "There may be more" not in message(told)
    assert not Store().exists(session.session_key)
    assert logged(ann) == ["Signed out all sessions."]


@on("redis")
def test_the_action_looks_for_lost_sessions_once_for_all_users(Store, client, people):
    users = [people(name) for name in ("ann", "bob", "cyd")]
    sessions = [start(Store, user) for user in users]
    for user in users[:2]:
        Store.storage.client.delete(f"session:user:{user.pk}")
    Store.storage.client.config_resetstat()
    assert "3 sessions were signed out." in message(end_all(client, *users))
    assert not any(Store().exists(session.session_key) for session in sessions)
    assert Store.storage.client.info("commandstats")["cmdstat_scan"]["calls"] == 1
    assert [logged(user) for user in users] == [["Signed out all sessions."]] * 3


@on("redis")
def test_a_store_too_large_to_look_through_in_a_request(Store, client, ann, monkeypatch):
    monkeypatch.setattr(passes, "PAGE", 5)
    monkeypatch.setattr(ending, "REPAIR_PAGES", 1)
    for _ in range(100):
        start(Store, ann)
    Store.storage.client.delete(f"session:user:{ann.pk}")
    ended, more = client.post(of(ann, "end/"), follow=True).context["messages"]
    assert 0 < int(str(ended).split()[0]) < 100
    assert "revoke-all --user NAME --repair" in str(more)
    assert 0 < Store.storage.client.zcard(f"session:user:{ann.pk}") < 100


@on("sqlite", "redis")
def test_many_sessions_are_cut(Store, client, ann, monkeypatch):
    monkeypatch.setattr(session_admin, "MOST_SHOWN", 2)
    for _ in range(5):
        start(Store, ann)
    shown = show(client, of(ann))
    assert shown.count('name="session"') == 2
    assert "and 3 more" in shown


@on("sqlite", "redis")
def test_no_query_per_session(Store, client, ann):
    def sent() -> int:
        with CaptureQueriesContext(connections["default"]) as captured:
            show(client, of(ann))
        return len(captured)

    start(Store, ann)
    few = sent()
    for _ in range(20):
        start(Store, ann)
    assert sent() == few


@on("sqlite", "redis")
def test_sessions_of_somebody_who_was_deleted(Store, client, ann):
    class Gone:
        pk = 987654

    session = start(Store, Gone)
    assert "Sessions of 987654" in show(client, of(Gone))
    client.post(of(Gone, "end/"))
    assert not Store().exists(session.session_key)
    assert client.get(of(Gone)).status_code == 404
    assert client.get(f"{LIST}user/nobody/").status_code == 404


# The page of a user


@on("sqlite", "redis")
def test_the_page_of_a_user_leads_to_the_sessions(client, clerk, ann):
    link = f'<a href="{of(ann)}">Sessions of ann</a>'
    assert link in show(client, f"{USERS}{ann.pk}/change/")
    assert of(ann) not in show(clerk, f"{USERS}{ann.pk}/change/")
    assert client.get(of(ann)).status_code == 200


@on("sqlite")
def test_the_page_of_a_user_can_be_saved(client, boss, ann):
    boss.is_superuser = True
    boss.save()
    url = f"{USERS}{ann.pk}/change/"
    fields = {"username": "anna", "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    assert client.post(url, fields).status_code == 302
    ann.refresh_from_db()
    assert ann.username == "anna"
    assert "Sessions of" not in show(client, f"{USERS}add/")


@on("sqlite")
def test_a_class_without_fieldsets_has_it_once(client, clerk, ann, monkeypatch):
    monkeypatch.setattr(People, "fieldsets", None)
    assert show(client, f"{USERS}{ann.pk}/change/").count("Sessions of ann") == 1
    assert "Sessions of ann" not in show(clerk, f"{USERS}{ann.pk}/change/")


@on("sqlite")
def test_a_site_without_the_sessions_has_no_link(client, ann, monkeypatch):
    monkeypatch.delitem(site._registry, Session)
    assert "Sessions of" not in show(client, f"{USERS}{ann.pk}/change/")


# The action


def end_all(client: Client, *users: Any, url: str = USERS, **more: Any) -> Any:
    data = {"action": "end_all_sessions", "_selected_action": [user.pk for user in users], "confirmed": "yes", **more}
    return client.post(url, data, follow=True)


def test_the_action_asks_first(Store, client, ann, people):
    session, bob = start(Store, ann), people("bob")
    assert "end_all_sessions" in show(client, USERS)
    data = {"action": "end_all_sessions", "_selected_action": [ann.pk, bob.pk], "select_across": "0", "index": "0"}
    shown = client.post(USERS, data).content.decode()
    assert "<li><bdi>ann</bdi></li>" in shown
    assert "<li><bdi>bob</bdi></li>" in shown
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="(\w+)">', shown.split("delete-confirmation")[1])
    again = {name: value for name, value in hidden if name != "_selected_action"}
    assert again.pop("confirmed") == "yes"
    assert {int(value) for name, value in hidden if name == "_selected_action"} == {ann.pk, bob.pk}
    assert Store().exists(session.session_key)
    assert "1 session was signed out." in message(end_all(client, ann, bob, **again))
    assert not Store().exists(session.session_key)
    assert logged(ann) == ["Signed out all sessions."]
    assert logged(bob) == []  # had none


def test_the_question_has_the_stylesheet_of_the_package(Store, client, people):
    """Long names are to wrap there too, though the page is one of the users' own admin."""
    users = [people("W" * 150), people("bob")]
    data = {"action": "end_all_sessions", "_selected_action": [user.pk for user in users], "index": "0"}
    assert "django_multisession/admin.css" in client.post(USERS, data).content.decode()


@on("sqlite")
def test_the_action_on_all_pages_of_a_list(Store, client, people):
    users = [people(f"ann{number}") for number in range(5)]
    bob = people("bob")
    sessions = [start(Store, user) for user in users]
    kept = start(Store, bob)
    response = end_all(client, users[0], url=f"{USERS}?q=ann", select_across="1")
    assert "5 sessions were signed out." in message(response)
    assert not any(Store().exists(session.session_key) for session in sessions)
    assert Store().exists(kept.session_key)


@on("sqlite")
def test_the_question_does_not_name_everybody(client, people, monkeypatch):
    monkeypatch.setattr(admin_pages, "MOST_FOUND", 2)
    users = [people(f"ann{number}") for number in range(5)]
    data = {"action": "end_all_sessions", "_selected_action": [user.pk for user in users]}
    assert "and 3 more" in client.post(USERS, data).content.decode()


def test_the_own_session_survives_the_action(Store, client, boss):
    other = start(Store, boss)
    assert "1 session was signed out." in message(end_all(client, boss))
    assert not Store().exists(other.session_key)
    assert show(client, LIST)


@on("sqlite")
def test_the_action_is_on_the_list_of_users_only(client, boss):
    boss.user_permissions.add(*Permission.objects.filter(content_type__model="group"))
    assert "end_all_sessions" not in show(client, "/admin/auth/group/")


# When the store fails


class BossMiddleware:
    """Signs in without a session: that of Django's would have met the outage before the page does."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        request.user, request.session = get_user_model().objects.get(username="boss"), None
        return self.get_response(request)


NOBODY = "127.0.0.1:1"  # listens there
UNREACHABLE = {
    "redis": f"redis://{NOBODY}/0",
    "mongodb": f"mongodb://{NOBODY}/x",
    "postgres": f"postgres://x:x@{NOBODY}/x",
    "mysql": f"mysql://x:x@{NOBODY}/x",
}


@on("memory")
@pytest.mark.parametrize("kind", list(UNREACHABLE))
def test_a_store_that_is_away_is_told(Store, boss, ann, settings, kind):
    settings.MIDDLEWARE = [f"{__name__}.BossMiddleware", "django.contrib.messages.middleware.MessageMiddleware"]
    settings.MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"
    client = Client()
    with using(kind, UNREACHABLE[kind]):
        for url in (LIST, of(ann), of(ann, "end/")):
            assert "The sessions cannot be read now." in show(client, url, status=503)
        assert "did not answer, so not all was done" in message(end_all(client, ann))
    assert logged(ann) == ["Signed out all sessions."]  # nobody knows how many


@on("sqlite")
@pytest.mark.parametrize("engine", ["signed_cookies", "file"])
def test_an_engine_of_others_is_told(Store, boss, ann, settings, tmp_path, engine):
    settings.SESSION_ENGINE, settings.SESSION_FILE_PATH = f"django.contrib.sessions.backends.{engine}", str(tmp_path)
    client = signed_in(boss)
    for url in (LIST, of(ann), of(ann, "end/")):
        assert "cannot list the sessions of a user" in show(client, url, status=503)
    assert "cannot list the sessions of a user" in message(end_all(client, ann))


def test_reverse_of_the_pages(client, ann):
    name = "admin:django_multisession_session"
    assert reverse(f"{name}_changelist") == LIST
    assert reverse(f"{name}_user", args=[ann.pk]) == of(ann)
    assert reverse(f"{name}_end", args=[ann.pk]) == of(ann, "end/")
