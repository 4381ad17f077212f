"""`manage.py demo --move`, and its step of `demo --check`: from Django's own engine to one of the package's."""

import json
from collections.abc import Callable

from journey import Journey, Step, expect
from launcher import WebServer, deploy, manage, site

STAGES = "prepare", "move", "new"


class Move(Journey):
    """A visitor who signs in on the old engine and fills a cart, while the servers are replaced one by one."""

    def plan(self) -> dict[str, Callable[[], None]]:
        return {"moved from Django's db": self.move}

    def move(self) -> None:
        self.sign_in()
        key = self.key
        self.fill_cart()
        for stage in STAGES:
            for _ in deploy([self.a, self.b], stage):
                for server in (self.a, self.b):
                    self.expect_cart(self.get(server))
            if stage == "move":
                expect("Left", moved(self.a), {"left": 0})
        expect("The key is still the same", self.key == key, True)
        self.look_at_record()


def moved(server: WebServer) -> object:
    """Move the rest, and say what is left then."""
    manage(server.environment, "sessions", "move")
    return json.loads(manage(server.environment, "sessions", "move", "--status", "--json"))


def try_move(engine: str, secret_key: str, username: str, password: str) -> list[Step]:
    with site(engine, secret_key, ports=(0, 0), stage="old") as servers:
        return list(Move(servers, username, password, engine == "db").steps())
