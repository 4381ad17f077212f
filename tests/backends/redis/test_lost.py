"""Answers that are lost on the way and lines that nobody has asked for, by a proxy before a real server."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.test import override_settings

from django_multisession.backends.redis.scripts import SHA
from django_multisession.exceptions import EngineUnavailable
from django_multisession.records import identify
from django_multisession.testing.stored import a_record, saved, stored

from ...proxies import Proxy

MANY = 50


@pytest.fixture
def engine_name() -> str:
    return "redis"


class Clients:
    """Functions for MULTISESSION_REDIS."""

    port = 0

    @classmethod
    def retrying(cls) -> Any:
        """As redis-py makes them: ten retries with redis-py 8.1."""
        return redis.Redis(port=cls.port)

    @classmethod
    def traced(cls) -> Any:
        return Traced(port=cls.port)


class Traced(redis.Redis):
    def execute_command(self, *command: Any, **options: Any) -> Any:
        return super().execute_command(*command, **options)


retrying, traced = Clients.retrying, Clients.traced


@pytest.fixture(params=["plain", "retrying", "traced"])
def proxy(request: Any, Store: Any) -> Iterator[Proxy]:
    """Before the tests' server, for clients that are told to retry and for others."""
    for script in SHA:  # else the first answer to be lost is that the server does not know it
        Store.storage.client.script_load(script)
    port = Store.storage.client.connection_pool.connection_kwargs["port"]
    with Proxy(port) as proxy:
        Clients.port = proxy.port
        plain = f"redis://127.0.0.1:{proxy.port}/0"
        setting = plain if request.param == "plain" else f"{__name__}.{request.param}"
        with override_settings(MULTISESSION_REDIS=setting):
            yield proxy


def writes(request: bytes) -> bool:
    return any(command in request for command in (b"\r\nSET\r\n", b"\r\nEVALSHA\r\n", b"\r\nEVAL\r\n", b"\r\nDEL\r\n"))


def every_other(wanted: Any) -> Any:
    seen = []

    def lose(request: bytes) -> bool:
        seen.append(found := wanted(request))
        return found and seen.count(True) % 2 == 1

    return lose


@pytest.mark.parametrize("lose", [lambda: writes, lambda: every_other(writes)], ids=["all", "every other"])
@pytest.mark.parametrize("data", [{"a": 1}, {"_auth_user_id": "9"}], ids=["anonymous", "signed in"])
def test_creates_whose_answers_are_lost(Store, face, verbs, proxy, data, lose):
    proxy.lose_answer = lose()
    keys = [saved(face, Store, **data) for _ in range(MANY)]
    assert proxy.lost >= MANY / 2
    proxy.lose_answer = lambda request: False
    assert Store.storage.client.dbsize() == MANY + ("_auth_user_id" in data)
    assert stored(face, Store, keys[-1]) == data
    assert len(verbs.of_user("9")) == (MANY if "_auth_user_id" in data else 0)


@pytest.mark.parametrize("data", [{"a": 1}, {"_auth_user_id": "9"}], ids=["anonymous", "signed in"])
def test_creates_that_never_reach_the_server_are_sent_once_more(Store, face, proxy, data):
    saved(face, Store, a=1)
    proxy.lose_request = every_other(writes)
    keys = [saved(face, Store, **data) for _ in range(20)]
    assert proxy.lost == 20
    assert [stored(face, Store, key) for key in keys] == [data] * 20


@pytest.mark.parametrize("lose", [lambda: writes, lambda: every_other(writes)], ids=["all", "every other"])
def test_rotations_whose_answers_are_lost(Store, face, proxy, lose):
    session = face(Store(saved(face, Store, _auth_user_id="9")))
    session["n"] = 0
    proxy.lose_answer = lose()
    for _ in range(MANY):
        old = session.session_key
        session.cycle_key()
        assert session.session_key != old
    proxy.lose_answer = lambda request: False
    assert proxy.lost >= MANY
    assert stored(face, Store, session.session_key)["_auth_user_id"] == "9"
    assert face(Store()).exists(old) is False


def test_saves_whose_answers_are_lost(Store, face, proxy):
    session = face(Store(saved(face, Store, _auth_user_id="9")))
    proxy.lose_answer = every_other(writes)
    for number in range(20):
        session["n"] = number
        session.save()
    assert stored(face, Store, session.session_key)["n"] == 19


def test_a_removal_that_comes_after_it_was_looked_for_counts(verbs, proxy):
    verbs.insert(record := a_record())
    seen: list[bytes] = []

    def come_late(request: bytes) -> bool:
        if b"DEL" in request:
            seen.append(request)
            if len(seen) == 2:  # before this one the first arrives, whose connection was cut
                with redis.Redis(port=proxy.target[1]) as direct:
                    assert direct.delete(f"session:{record.id}") == 1
        return len(seen) == 1 and b"DEL" in request

    proxy.lose_request = come_late
    assert verbs.remove([record.id]) == 1
    assert len(seen) == 2


def test_another_record_under_the_key_is_taken(verbs, proxy):
    verbs.insert(record := a_record())
    proxy.lose_answer = writes
    assert verbs.insert(dataclasses.replace(record, payload=b"another")) is False
    assert verbs.read(record.id) == record


def test_of_two_that_insert_equal_records_one_wins(verbs, proxy):
    record = a_record()
    assert [verbs.insert(record) for _ in range(2)] == [True, False]
    record = a_record("b" * 64, user_id="9")
    assert [verbs.insert(record) for _ in range(2)] == [True, False]


def test_what_was_removed_counts_once_though_the_answer_is_lost(verbs, proxy):
    verbs.insert(record := a_record())
    proxy.lose_answer = writes
    assert verbs.remove([record.id]) == 1
    proxy.lose_answer = lambda request: False
    assert verbs.remove([record.id]) == 0


def test_a_removal_that_never_reaches_the_server_is_sent_again(verbs, proxy):
    records = [a_record(letter * 64) for letter in "abc"]
    for record in records:
        verbs.insert(record)
    proxy.lose_request = every_other(writes)
    assert verbs.remove([record.id for record in records]) == 3
    assert [verbs.read(record.id) for record in records] == [None] * 3


def test_a_server_that_loses_all_is_an_outage(verbs, proxy):
    verbs.insert(record := a_record())
    proxy.lose_request = writes
    with pytest.raises(EngineUnavailable):
        verbs.insert(a_record("b" * 64))
    with pytest.raises(EngineUnavailable):
        verbs.remove([record.id])


@pytest.fixture(params=["both answers", "that of WAIT"])
def lost_behind(request: Any, proxy: Proxy) -> Iterator[Proxy]:
    """The answers to a write and to the WAIT behind it, which none of the server's replicas can answer, having none."""
    proxy.lose_answer = lambda request: b"\r\nWAIT\r\n" in request
    proxy.lose_rest = request.param == "that of WAIT"
    with override_settings(MULTISESSION_REDIS_WAIT=1):
        yield proxy


@pytest.mark.parametrize("user_id", [None, "9"])
def test_a_session_of_which_nobody_knows_whether_it_lasts_is_removed_again(verbs, lost_behind, user_id):
    """The browser will not learn of it."""
    with pytest.raises(EngineUnavailable, match="not on 1 replicas"):
        verbs.insert(record := a_record(user_id=user_id))
    assert lost_behind.lost == 1
    assert verbs.read(record.id) is None


def test_a_save_stays_and_a_removal_is_done_though_nobody_knows_whether_they_last(verbs, lost_behind):
    with override_settings(MULTISESSION_REDIS_WAIT=0):
        verbs.insert(record := a_record())
    changed = dataclasses.replace(record, version=2, payload=b"changed")
    with pytest.raises(EngineUnavailable, match="not on 1 replicas"):
        verbs.replace(changed)
    assert verbs.read(record.id) == changed
    with pytest.raises(EngineUnavailable, match="not on 1 replicas"):
        verbs.remove([record.id])
    assert lost_behind.lost == 2
    assert verbs.read(record.id) is None


LINES = [b"+unasked\r\n", b":1\r\n", b"$7\r\nunasked\r\n", b"*0\r\n"]


@pytest.mark.parametrize("line", LINES)
def test_a_line_that_nobody_asked_for_makes_no_load_wrong(Store, face, proxy, line):
    keys = [saved(face, Store, n=number) for number in range(3)]
    stored(face, Store, keys[0])
    proxy.say(line)
    assert [stored(face, Store, key)["n"] for key in keys * 100] == [0, 1, 2] * 100


@pytest.mark.parametrize("line", [b"$-1\r\n", b"*-1\r\n"])
def test_one_that_may_be_an_answer_makes_one_load_wrong_of_users_too(Store, face, proxy, line):
    keys = [saved(face, Store, n=number, _auth_user_id=str(number)) for number in range(3)]
    stored(face, Store, keys[0])
    proxy.say(line)
    first = stored(face, Store, keys[0])
    assert first == {} or (redis.VERSION[0] < 7 and first["n"] == 0)  # whose own way sees some of them
    assert [stored(face, Store, key).get("n") for key in keys[1:] * 100] == [1, 2] * 100


@pytest.mark.parametrize("line", [b"+unasked\r\n", b"$7\r\nunasked\r\n"])
@pytest.mark.parametrize("user", [{}, {"_auth_user_id": "9"}], ids=["anonymous", "signed in"])
def test_nor_any_write(Store, face, verbs, proxy, line, user):
    session = face(Store(saved(face, Store, a=1, **user)))
    for number in range(5):
        session["n"] = number
        proxy.say(line)
        session.save()
        assert stored(face, Store, session.session_key)["n"] == number
    proxy.say(line)
    session.cycle_key()
    assert stored(face, Store, session.session_key)["n"] == 4
    proxy.say(line)
    assert verbs.touch(identify(session.session_key), a_record().expires_at) is True
    proxy.say(line)
    assert verbs.remove([identify(session.session_key)]) == 1


@pytest.mark.parametrize("proxy", ["plain"], indirect=True)  # others have redis-py's own pool
@pytest.mark.parametrize("line", LINES)
def test_nor_any_list(verbs, proxy, line):
    records = [a_record(letter * 64, user_id="9") for letter in "abc"]
    for record in records:
        verbs.insert(record)
    for _ in range(3):
        proxy.say(line)
        assert sorted(verbs.of_user("9"), key=lambda record: record.id) == records
        proxy.say(line)
        assert sorted(verbs.scan(None, 100), key=lambda record: record.id) == records


def test_a_record_that_may_be_anothers_is_read_anew(verbs, proxy):
    verbs.insert(record := a_record())
    verbs.read(record.id)
    proxy.say(b"$-1\r\n")
    assert verbs.read_anew(record.id) == record


def says_anothers(Store: Any, proxy: Any, other: str) -> None:
    """An answer too many: what Redis has said to another request, of another user's session."""
    value = Store.storage.client.get(f"session:{identify(other)}")
    proxy.say(b"$%d\r\n%b\r\n" % (len(value), value))


def test_an_answer_for_another_user_loads_the_own_session(Store, face, proxy):
    own, other = (saved(face, Store, _auth_user_id=user) for user in "12")
    stored(face, Store, own)
    says_anothers(Store, proxy, other)
    assert stored(face, Store, own) == {"_auth_user_id": "1"}


def test_an_answer_for_another_session_makes_no_key_known(Store, face, proxy):
    gone, other = (saved(face, Store, _auth_user_id="1") for _ in range(2))
    face(Store()).delete(gone)
    says_anothers(Store, proxy, other)
    session = face(Store(gone))
    assert session.load() == {}
    assert session.session_key is None
