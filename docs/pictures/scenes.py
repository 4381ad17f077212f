"""What there is to be seen: a name for each page, and its HTML in one language."""

import random
from typing import Any

from django.contrib import admin
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client, RequestFactory, override_settings
from django.utils import translation

from django_multisession import responses
from django_multisession.exceptions import EngineUnavailable
from django_multisession.models import PurgeRun, Session
from django_multisession.user_sessions import views

from . import agents, people

PAGE = "/sessions/"
OVERVIEW = "/admin/django_multisession/session/"
RUNS = "/admin/django_multisession/purgerun/"
SIGN_IN = "/admin/login/"
PASSWORD = "open-sesame"  # noqa: S105
FEW, MANY = 10, 200
ANONYMOUS = 400
EXPIRED = 3, 40, 1, 0, 0, 7, 2, 0, 120  # rows, for each day since
PURGES = 30

Pages = dict[str, str]


def fill() -> dict[str, User]:
    """The tables, and the users by name."""
    call_command("migrate", verbosity=0)
    chance = random.Random(5)  # noqa: S311 - the same pictures each time
    sent = {"nobody": [], "few": people.many(chance, FEW - 1), "many": people.many(chance, MANY - 1)}
    sent |= {"hostile": list(agents.HOSTILE)} | {name: people.many(chance, 3) for name in people.NAMES}
    return {name: people.make(name, PASSWORD, each) for name, each in sent.items()}


def fill_the_rest() -> None:
    """What only the admin shows."""
    chance = random.Random(6)  # noqa: S311
    for agent in people.many(chance, ANONYMOUS):
        people.insert(chance, None, agent)
    people.expired(EXPIRED)
    people.purges(PURGES)


def of_users(users: dict[str, User], language: str) -> Pages:
    """The pages of users. The session that looks at them is one of those they show."""
    site = Site(users, language)
    return {
        "sessions-0": site.without_session("nobody"),
        "sessions-1": site.seen("nobody", PAGE),
        "sessions-10": site.seen("few", PAGE),
        "sessions-200": site.seen("many", PAGE),
        "sessions-200-middle": site.seen("many", PAGE + "?page=3"),
        "sessions-hostile": site.seen("hostile", PAGE),
        "sessions-of-a-long-name": site.seen(people.NAMES[-1], PAGE),
        "sessions-done": site.signed_out_another("few"),
        "sessions-not-done": site.posted("few", PAGE + "end/not-there/"),
        "others": site.seen("few", PAGE + "end-others/"),
        "others-wrong-password": site.posted("few", PAGE + "end-others/", MULTISESSION_CONFIRM_PASSWORD=True),
        "403": site.refused("few"),
        "403-expired": site.posted("few", PAGE + "sign-out-oldest/"),
        "503": site.unavailable(),
    }


def of_admin(users: dict[str, User], language: str) -> Pages:
    site = Site(users, language)
    user = {name: f"{OVERVIEW}user/{user.pk}/" for name, user in users.items()}
    return {
        "admin-overview": site.seen("ann", OVERVIEW),
        "admin-found": site.seen("ann", OVERVIEW + "?q=an"),
        "admin-found-none": site.seen("ann", OVERVIEW + "?q=nobody-at-all"),
        "admin-user-0": site.seen("ann", user["nobody"]),
        "admin-user-1": site.seen("nobody", user["nobody"]),
        "admin-user-10": site.seen("ann", user["few"]),
        "admin-user-200": site.seen("ann", user["many"]),
        "admin-user-hostile": site.seen("ann", user["hostile"]),
        "admin-user-of-a-long-name": site.seen(people.NAMES[-1], user[people.NAMES[-1]]),
        "admin-end": site.seen("ann", user["few"] + "end/"),
        "admin-end-of-a-long-name": site.seen("ann", user[people.NAMES[-1]] + "end/"),
        "admin-unavailable": site.admin_unavailable(),
        "admin-purges": site.seen("ann", RUNS),
        "admin-purge": site.seen("ann", f"{RUNS}{PurgeRun.objects.last().pk}/"),
    }


def of_empty_admin(users: dict[str, User], language: str) -> Pages:
    """Before `fill_the_rest()`."""
    site = Site(users, language)
    return {"admin-purges-0": site.seen("ann", RUNS)}


class Site:
    """As one reader of one language sees it."""

    def __init__(self, users: dict[str, User], language: str) -> None:
        self.users, self.language = users, language

    def client(self, name: str) -> Client:
        client = Client(headers={"accept-language": self.language, "user-agent": agents.LINUX})
        client.post(SIGN_IN, {"username": name, "password": PASSWORD})
        return client

    def seen(self, name: str, path: str) -> str:
        return self.asked(name, "get", path)

    def posted(self, name: str, path: str, **settings: Any) -> str:
        with override_settings(**settings):
            return self.asked(name, "post", path)

    def asked(self, name: str, method: str, path: str) -> str:
        client = self.client(name)
        page = _text(getattr(client, method)(path, follow=True))
        client.logout()  # the next one has as many sessions as it says
        return page

    def signed_out_another(self, name: str) -> str:
        client, _ = self.client(name), self.client(name)
        listed = client.get(PAGE, headers={"accept": "application/json"}).json()["sessions"]
        newest = next(each["id"] for each in listed if not each["is_current"])
        page = _text(client.post(f"{PAGE}end/{newest}/", follow=True))
        client.logout()
        return page

    def refused(self, name: str) -> str:
        client = Client(headers={"accept-language": self.language})
        with override_settings(MULTISESSION_MAX_PER_USER=FEW - 1, MULTISESSION_ON_MAX="refuse"):
            return _text(client.post(SIGN_IN, {"username": name, "password": PASSWORD}))

    def without_session(self, name: str) -> str:
        """Who has signed in by other means than a session."""
        request = self.request(name, PAGE)
        with translation.override(self.language):
            return _text(views.user_sessions(request))

    def unavailable(self) -> str:
        with translation.override(self.language):
            return _text(responses.unavailable(RequestFactory().get("/")))

    def admin_unavailable(self) -> str:
        request = self.request("ann", OVERVIEW)
        with translation.override(self.language):
            page = admin.site.get_model_admin(Session).unavailable(request, EngineUnavailable("It does not answer."))
            return _text(page.render())

    def request(self, name: str, path: str) -> Any:
        request: Any = RequestFactory().get(path)
        request.user = self.users[name]
        return request


def _text(response: Any) -> str:
    return str(response.content.decode())
