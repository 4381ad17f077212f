"""Each engine against a plain dictionary, in random sequences of requests, with a clock that moves."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
import time_machine
from django.contrib.sessions.backends.base import UpdateError
from django.test import override_settings
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from django_multisession.exceptions import InvalidOption
from django_multisession.records import Record, identify, utcnow
from django_multisession.user_sessions.rotation import MARK_AGE

from ..conftest import ENGINES, empty

pytestmark = pytest.mark.slow

NAMES = st.sampled_from(["a", "b", "_auth_user_id"])
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)  # as a user id may be
VALUES = st.one_of(st.integers(), TEXTS, st.lists(st.integers(0, 9), max_size=3), st.none())
USER_IDS = ["1", "2"]
AGE = 14 * 24 * 3600


@pytest.fixture(autouse=True)
def _touch_at_once() -> Iterator[None]:
    with override_settings(MULTISESSION_TOUCH_AFTER=0):
        yield


@pytest.fixture(autouse=True)
def _servers_go_along(monkeypatch: Any) -> None:
    """A purge goes by the server's clock, which nobody can move: here it is ours. (Their difference: test_purge.py.)"""

    async def untold(storage: Any) -> None:
        return None

    monkeypatch.setattr("django_multisession.purge.targets.clock", lambda alias: utcnow())
    monkeypatch.setattr("django_multisession.backends.mongodb.storage.MongoStorage.clock", untold, raising=False)


@pytest.fixture(params=list(ENGINES))
def engine_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Sessions(RuleBasedStateMachine):
    """The model: key -> (data, moment of expiry). One request at a time; requests that race are tested elsewhere."""

    Store: Any
    face: Any
    keys = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        empty(self.Store)
        self.traveller = time_machine.travel(datetime.now(UTC), tick=False)
        self.clock = self.traveller.start()
        self.model: dict[str, tuple[dict[str, Any], float]] = {}
        self.went_on: dict[str, tuple[str, float]] = {}  # of a user: under which key, and until when that is told

    def teardown(self) -> None:
        self.traveller.stop()

    def now(self) -> float:
        return datetime.now(UTC).timestamp()

    def live(self) -> dict[str, dict[str, Any]]:
        return {key: data for key, (data, expiry) in self.model.items() if expiry > self.now()}

    def remember(self, key: str, data: dict[str, Any]) -> None:
        self.model[key] = dict(data), self.now() + (data.get("_session_expiry") or AGE)

    @rule(target=keys, name=NAMES, value=VALUES)
    def create(self, name: str, value: Any) -> str:
        session = self.face(self.Store())
        session[name] = value
        session.save()
        self.remember(session.session_key, {name: value})
        return str(session.session_key)

    @rule(key=keys, name=NAMES, value=VALUES | st.sampled_from(USER_IDS))
    def write(self, key: str, name: str, value: Any) -> None:
        session = self.face(self.Store(key))
        if key not in self.live():
            return self.refused(session)
        session[name] = value
        session.save()
        self.remember(key, {**self.live()[key], name: value})

    @rule(key=keys, name=NAMES)
    def forget(self, key: str, name: str) -> None:
        session = self.face(self.Store(key))
        session.pop(name, None)
        if key in self.live():
            session.save()
            self.remember(key, {each: value for each, value in self.live()[key].items() if each != name})

    @rule(key=keys)
    def touch(self, key: str) -> None:
        session = self.face(self.Store(key))
        if key not in self.live():
            return self.refused(session)
        session.save()
        self.remember(key, self.live()[key])

    def refused(self, session: Any) -> None:
        with pytest.raises(UpdateError):
            session.save()

    @rule(key=keys, seconds=st.sampled_from([None, 60, 3600, 40 * 24 * 3600]))
    def set_expiry(self, key: str, seconds: int | None) -> None:
        session = self.face(self.Store(key))
        if key not in self.live():
            return
        session.set_expiry(seconds)
        session.save()
        rest = {name: value for name, value in self.live()[key].items() if name != "_session_expiry"}
        self.remember(key, rest if seconds is None else {**rest, "_session_expiry": seconds})

    @rule(target=keys, key=keys)
    def cycle(self, key: str) -> str:
        session = self.face(self.Store(key))
        data = self.live().get(key, {})
        session.cycle_key()
        self.model.pop(key, None)
        self.remember(session.session_key, data)
        if data.get("_auth_user_id") not in (None, ""):
            self.went_on[key] = session.session_key, self.now() + MARK_AGE.total_seconds()
        return str(session.session_key)

    @rule(key=keys)
    def flush(self, key: str) -> None:
        self.face(self.Store(key)).flush()
        while self.model.pop(key, None) is None and key in self.went_on:
            key, until = self.went_on[key]
            if until <= self.now():
                break

    @rule()
    def clear_expired(self) -> None:
        # Redis's own clock cannot be moved: there a purge is refused where ours is far from it.
        refused = InvalidOption if self.Store.__module__.endswith(".redis") else ()
        with suppress(refused):
            self.face(self.Store()).clear_expired()

    @rule(seconds=st.sampled_from([1, 61, 3601, 15 * 24 * 3600]))
    def wait(self, seconds: int) -> None:
        self.clock.shift(seconds)

    @rule(key=keys)
    def read(self, key: str) -> None:
        session = self.face(self.Store(key))
        assert dict(session.items()) == self.live().get(key, {})
        assert session.session_key == (key if key in self.live() else None)
        assert session.exists(key) is (key in self.live())

    @invariant()
    def the_store_holds_the_live_and_lists_them_by_user(self) -> None:
        verbs = self.face.verbs(self.Store)
        live = {identify(key): data for key, data in self.live().items()}
        assert live_by_our_clock(verbs.scan(None, 1000)) == set(live)
        for user_id in USER_IDS:
            own = {id for id, data in live.items() if str(data.get("_auth_user_id")) == user_id}
            assert live_by_our_clock(verbs.of_user(user_id)) == own


def live_by_our_clock(records: list[Record]) -> set[str]:
    """Lists go by the server's clock, which a test cannot move."""
    return {record.id for record in records if record.is_live(utcnow())}


def test_an_engine_behaves_like_a_dictionary_with_a_clock(Store, face):
    machine = type("Machine", (Sessions,), {"Store": Store, "face": face})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
