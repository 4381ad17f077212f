"""`manage.py demo --check`: one visitor's way through the example site, across two web servers, one of which dies."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256

import httpx

from launcher import WebServer

TIMEOUT_SECONDS = 10
PURGE_SECONDS = 20
POLL_SECONDS = 0.1
MOST_SESSIONS = 5  # of a user: the site's MULTISESSION_MAX_PER_USER
OTHER_PASSWORD = "close-sesame"


class MismatchError(Exception):
    """A page was not as it should be."""


def expect(what: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise MismatchError(f"{what}: {actual!r} instead of {expected!r}")


@dataclass(frozen=True)
class Page:
    """An answer, and the texts of its elements by their ids."""

    response: httpx.Response

    def text(self, id: str) -> str | None:
        found = re.search(rf'\bid="{id}"[^>]*>([^<]*)<', self.response.text)
        return found[1] if found else None

    @property
    def ends(self) -> list[tuple[str, str]]:
        """Where the buttons of the listed sessions lead, and what they say."""
        forms = re.findall(r'action="/(sessions/end/[^"]+)">(.*?)</form>', self.response.text, re.DOTALL)
        return [(path, re.findall(r">([^<>]+)</button>", form)[0]) for path, form in forms]

    @property
    def title(self) -> str:
        found = re.search(r"<title>(.*?)</title>", self.response.text, re.DOTALL)
        return " ".join(found[1].split()) if found else "no title"

    @property
    def csrf_token(self) -> str:
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.response.text)
        if found is None:
            raise MismatchError(f"No form on {self.response.url}")
        return found[1]


@dataclass(frozen=True)
class Step:
    """What became of one step: how long it took, and why it missed, if it did."""

    title: str
    seconds: float
    reason: str = ""


def run_step(title: str, action: Callable[[], object]) -> Step:
    started = time.monotonic()
    try:
        action()
    except Exception as error:
        return Step(title, time.monotonic() - started, f"{type(error).__name__}: {error}")
    return Step(title, time.monotonic() - started)


def new_browser() -> httpx.Client:
    return httpx.Client(follow_redirects=True, timeout=TIMEOUT_SECONDS)


class Journey:
    """The visitor's browser, in which a cookie belongs to a host and not to a port, and what the session should hold.

    Each home page counts a visit and is compared with the count and the user expected; no page may show the key.
    """

    def __init__(self, servers: list[WebServer], username: str, password: str, in_sql: bool) -> None:
        self.a, self.b = servers
        self.in_sql = in_sql
        self.credentials = {"username": username, "password": password}
        self.browser, self.other = new_browser(), new_browser()
        self.user: str | None = None
        self.visits = 0
        self.old_key = ""

    def steps(self) -> Iterator[Step]:
        """Do one step after the other, up to the first miss."""
        with self.browser, self.other:
            for title, action in self.plan().items():
                step = run_step(title, action)
                yield step
                if step.reason:
                    return

    def plan(self) -> dict[str, Callable[[], None]]:
        return {
            "sign in on A": self.sign_in,
            "count on B": self.count,
            "fill the cart on A": self.fill_cart,
            "no key in the store": self.look_at_record,
            "see another browser": self.see_another,
            "end its session": self.end_another,
            "change the password": self.change_password,
            "end all as an admin": self.end_all,
            "kill A": self.kill,
            "go on at B": self.go_on,
            "sign out": self.sign_out,
            "old cookie refused": self.replay,
            "limit of sessions": self.exceed_limit,
            "expired ones purged": self.purge,
        }

    # Steps

    def sign_in(self) -> None:
        self.get(self.a)
        anonymous = self.key
        form = self.get(self.a, "sign-in/")
        self.user = self.credentials["username"]
        self.post(self.a, "sign-in/", form, **self.credentials)
        expect("The key is another one after signing in", self.key != anonymous, True)

    def count(self) -> None:
        self.get(self.b)
        page = self.get(self.b)
        expect("Port", page.text("port"), str(self.b.port))

    def fill_cart(self) -> None:
        page = self.get(self.a)
        for product in ("tea", "tea", "honey", "bread"):
            page = self.post(self.a, f"cart/add/{product}/", page)
        page = self.post(self.a, "cart/remove/bread/", page)
        expect("Port", page.text("port"), str(self.a.port))
        self.expect_cart(page)

    def look_at_record(self) -> None:
        page = self.get(self.b)
        stored_id = page.text("record-id") or ""
        expect("Stored id", stored_id, sha256(self.key.encode()).hexdigest())
        expect("A user id is stored", (page.text("record-user") or "").isdigit(), True)
        self.expect_stranger(cookie=stored_id)

    def see_another(self) -> None:
        """A second browser signs in; each sees both sessions, the own one first."""
        self.sign_in_other()
        for page in (self.get(self.a, "sessions/"), self.see_as_other("sessions/")):
            expect("Sessions", [button for _, button in page.ends], ["Sign out"] * 2)

    def end_another(self) -> None:
        """The second browser is signed out at its next click, and its cookie is of no use anywhere."""
        cookie = self.other.cookies["sessionid"]
        page = self.get(self.a, "sessions/")
        _, (path, _button) = page.ends
        page = self.post(self.a, path, page)
        expect("Sessions", len(page.ends), 1)
        expect("User in the other browser", self.see_as_other().text("user"), None)
        self.expect_stranger(cookie=cookie)

    def change_password(self) -> None:
        """And back. The second browser, which signed in with the old one, is signed out; the one at work is not."""
        self.sign_in_other()
        passwords = [self.credentials["password"], OTHER_PASSWORD]
        for old, new in (passwords, passwords[::-1]):
            form = self.get(self.a, "change-password/")
            values = {"old_password": old, "new_password1": new, "new_password2": new}
            expect("Changed", self.post(self.a, "change-password/", form, **values).text("user"), self.user)
        expect("User in the other browser", self.see_as_other().text("user"), None)

    def end_all(self) -> None:
        """By the admin's pages, which leave the session of the admin at work."""
        self.sign_in_other()
        user_id = self.get(self.b).text("record-user")
        path = f"admin/django_multisession/session/user/{user_id}/end/"
        self.post(self.a, path, self.get(self.a, path))
        expect("User in the other browser", self.see_as_other().text("user"), None)

    def kill(self) -> None:
        self.a.kill()
        try:
            self.browser.get(self.a.url)
        except httpx.ConnectError:
            return
        raise MismatchError("A answers after it was killed")

    def go_on(self) -> None:
        page = self.get(self.b)
        self.expect_cart(page)
        page = self.post(self.b, "cart/add/candle/", page)
        expect("Candles", page.text("cart-candle"), "1")

    def sign_out(self) -> None:
        page = self.get(self.b)
        self.old_key = self.key
        self.user, self.visits = None, 0
        page = self.post(self.b, "sign-out/", page)
        expect("Tea", page.text("cart-tea"), None)

    def replay(self) -> None:
        self.expect_stranger(cookie=self.old_key)

    def exceed_limit(self) -> None:
        """One browser more than a user may have: the first is signed out, and no other."""
        with ExitStack() as stack:
            browsers = [stack.enter_context(new_browser()) for _ in range(MOST_SESSIONS + 1)]
            for browser in browsers:
                self.sign_in_as(browser)
            users = [Page(browser.get(self.b.url)).text("user") for browser in browsers]
        expect("Users", users, [None, *[self.credentials["username"]] * MOST_SESSIONS])

    def purge(self) -> None:
        """By beat and worker, within some seconds; the other engines' pages say that nobody has to."""
        page = self.get(self.b, "purges/")
        expect("Nothing to purge", page.text("by-server") is None, self.in_sql)
        if not self.in_sql:
            return
        self.post(self.b, "purges/leave-behind/", page)
        deadline = time.monotonic() + PURGE_SECONDS
        while page.text("removed") != "1000" and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            page = self.get(self.b, "purges/")
        expect("Sessions purged", page.text("removed"), "1000")
        expect("Sessions waiting", page.text("waiting"), "0")

    # Means

    @property
    def key(self) -> str:
        return self.browser.cookies.get("sessionid") or ""

    def get(self, server: WebServer, path: str = "") -> Page:
        return self.look(self.browser.get(server.url + path))

    def sign_in_other(self) -> None:
        self.sign_in_as(self.other)

    def sign_in_as(self, browser: httpx.Client) -> None:
        form = Page(browser.get(self.b.url + "sign-in/"))
        data = {"csrfmiddlewaretoken": form.csrf_token, **self.credentials}
        browser.post(self.b.url + "sign-in/", data=data)
        expect("User in the other browser", Page(browser.get(self.b.url)).text("user"), self.credentials["username"])

    def see_as_other(self, path: str = "") -> Page:
        return Page(self.other.get(self.b.url + path))

    def post(self, server: WebServer, path: str, page: Page, **data: str) -> Page:
        """Send a form of the page, and follow to the page after."""
        return self.look(self.browser.post(server.url + path, data={"csrfmiddlewaretoken": page.csrf_token, **data}))

    def look(self, response: httpx.Response) -> Page:
        page = Page(response)
        expect(f"Status of {response.url} ({page.title})", response.status_code, 200)
        expect("The page shows the session key", bool(self.key) and self.key in response.text, False)
        if response.url.path == "/":
            self.visits += 1
            expect("Visits", page.text("visits"), str(self.visits))
            expect("User", page.text("user"), self.user)
        return page

    def expect_cart(self, page: Page) -> None:
        for product, quantity in {"tea": "2", "honey": "1", "bread": None}.items():
            expect(product.capitalize(), page.text(f"cart-{product}"), quantity)
        expect("Total", page.text("total"), "26.00")

    def expect_stranger(self, cookie: str) -> None:
        """A browser that comes with just this cookie is nobody, and is given a key of the site's choice."""
        page = Page(httpx.get(self.b.url, headers={"Cookie": f"sessionid={cookie}"}, timeout=TIMEOUT_SECONDS))
        expect("User of the cookie", page.text("user"), None)
        expect("Tea of the cookie", page.text("cart-tea"), None)
        expect("Visits of the cookie", page.text("visits"), "1")
        expect("The cookie is adopted", page.response.cookies.get("sessionid") in (None, cookie), False)
