"""What happens to a cluster: slots that are moved, and a primary that dies. These tests have one of their own."""

import asyncio
import threading
import time
from contextlib import suppress
from itertools import count

import pytest
import redis
from django.test import override_settings

from django_multisession import user_sessions
from django_multisession.backends.redis import SessionStore
from django_multisession.exceptions import EngineUnavailable
from django_multisession.records import identify
from django_multisession.testing.faces import Verbs
from django_multisession.testing.stored import a_record
from django_multisession.twins import run_sync
from example_project.servers import RedisCluster

from .nodes import Nodes, slot_of

pytestmark = pytest.mark.slow
WRITERS = 20
MOVES = 6  # there and back again, of each slot
PROMOTED = 30  # seconds: the cluster's own fail-over takes 2 to 3


@pytest.fixture(scope="module")
def cluster():
    with RedisCluster(replicas=1) as cluster:
        yield cluster


@pytest.fixture
def nodes(cluster):
    return Nodes(cluster)


def user_of(number):
    return f"user {number}"


def login(session, number):
    session["_auth_user_id"] = user_of(number)
    session.save()


class Writers:
    """Each has a session, saves it, and opens and deletes another, until they are told to stop."""

    def __init__(self) -> None:
        self.keys, self.saves, self.ended = [], [0] * WRITERS, set()
        self.errors, self.stopping = [], False
        for number in range(WRITERS):
            session = SessionStore()
            login(session, number)
            self.keys.append(session.session_key)

    def write(self, number):
        while not self.stopping:
            session = SessionStore(self.keys[number])
            session["saves"] = session.get("saves", 0) + 1
            session.save()
            self.saves[number] = session["saves"]
            other = SessionStore()
            login(other, number)
            other.delete()
            self.ended.add(other.session_key)

    async def awrite(self, number):
        while not self.stopping:
            session = SessionStore(self.keys[number])
            await session.aset("saves", await session.aget("saves", 0) + 1)
            await session.asave()
            self.saves[number] = await session.aget("saves")
            other = SessionStore()
            await other.aset("_auth_user_id", user_of(number))
            await other.asave()
            await other.adelete()
            self.ended.add(other.session_key)

    def run_threads(self):
        def safely(number):
            try:
                self.write(number)
            except Exception as error:
                self.errors.append(error)

        threads = [threading.Thread(target=safely, args=(number,)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def run_tasks(self):
        async def all_of_them():
            tasks = [self.awrite(number) for number in range(WRITERS)]
            self.errors += [each for each in await asyncio.gather(*tasks, return_exceptions=True) if each]

        asyncio.run(all_of_them())

    def check(self):
        assert self.errors == []
        assert [SessionStore(key)["saves"] for key in self.keys] == self.saves
        for number, key in enumerate(self.keys):
            listed = user_sessions.sessions_of(user_of(number))
            assert [SessionStore(key).session_key for _ in listed] == [key]
        assert not any(SessionStore().exists(key) for key in list(self.ended)[:200])


@pytest.mark.parametrize("how", ["run_threads", "run_tasks"])
def test_slots_are_moved_while_20_write(Store, nodes, how):
    """MOVED, ASK and TRYAGAIN are never seen, no save is lost, and a walk misses none that was there all the time."""
    writers = Writers()
    running = threading.Thread(target=getattr(writers, how))
    running.start()
    try:
        ids = {identify(key) for key in writers.keys}
        slots = [slot_of(f"session:{identify(key)}") for key in writers.keys[:3]]
        slots += [slot_of(f"session:user:{user_of(number)}") for number in range(3)]
        moving = threading.Thread(target=move_about, args=(nodes, slots))
        moving.start()
        walks = 0
        while moving.is_alive():
            assert ids <= {record.id for record in everything(Store)}
            walks += 1
        moving.join()
        assert walks and min(writers.saves)
    finally:
        writers.stopping = True
        running.join()
    writers.check()


def move_about(nodes, slots):
    """Each to another node and back again, and what is in it one by one, with time to look in."""
    for _ in range(MOVES // 2):
        homes = {slot: nodes.owner(slot) for slot in set(slots)}
        for slot, home in homes.items():
            other = next(each for each in nodes.primaries() if each is not home)
            nodes.move(slot, home, other, pause=lambda: time.sleep(0.01))
            nodes.move(slot, other, home, pause=lambda: time.sleep(0.01))


def everything(Store):
    storage, after = Store.storage, None
    while True:
        page = run_sync(storage.scan(after, 10))
        yield from page
        if (after := page.next) is None:
            return
