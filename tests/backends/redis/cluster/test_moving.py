"""What happens to a cluster: slots that are moved, and a primary that dies. These tests have one of their own."""

import asyncio
import threading
import time

import pytest
import redis
from django.test import override_settings

from django_multisession import user_sessions
from django_multisession.backends.redis import SessionStore
from django_multisession.backends.redis import cluster as cluster_module
from django_multisession.exceptions import EngineUnavailable
from django_multisession.records import identify
from django_multisession.testing.faces import SyncFace
from django_multisession.testing.stored import a_record, saved
from django_multisession.twins import run_sync
from example_project.clusters import RedisCluster
from example_project.servers import RedisNode

from .nodes import Nodes, slot_of, slots_of

pytestmark = pytest.mark.slow
WRITERS = 20
MOVES = 6  # there and back again, of each slot
PATIENCE = 60  # seconds: the cluster's own fail-over takes 2 to 3


@pytest.fixture(scope="module")
def cluster():
    with RedisCluster(RedisNode, replicas=1) as cluster:
        yield cluster


@pytest.fixture
def nodes(cluster):
    return Nodes(cluster)


def user_of(number):
    return str(1000 + number)


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
            listed = run_sync(SessionStore.storage.of_user(user_of(number)))
            assert [record.id for record in listed] == [identify(key)]
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
        assert walks
        assert min(writers.saves)
    finally:
        writers.stopping = True
        running.join()
    writers.check()


def test_a_slot_that_is_on_its_way(Store, nodes, runner, monkeypatch):
    """Its sessions are at the new node, which has to be asked with ASKING over the connection of the command, and new
    ones are made there. redis-py's asynchronous client asks over one connection and sends over another."""
    key = saved(SyncFace(), Store, a=1)
    slot = slot_of(f"session:{identify(key)}")
    source = nodes.owner(slot)
    target = next(node for node in nodes.primaries() if node is not source)
    nodes.move(slot, source, target, arrive=False)

    owned = slots_of(target)
    there = [id for id in (f"{number:064x}" for number in range(60)) if slot_of(f"session:{id}") in owned]

    async def use():
        for number in range(1, 7):
            # So many connections to the new node: with an even number, redis-py's are never the same.
            await asyncio.gather(*(Store.astorage.read(id) for id in there[:number]))
            session = Store(key)
            assert await session.aget("a") == 1
            await session.aset("b", number)
            await session.asave()
        assert await Store.astorage.remove([identify(key)]) == 1
        assert await Store.astorage.insert(record := a_record(identify(key)))
        assert await Store.astorage.read(record.id) == record
        assert await Store.astorage.remove([record.id, "a" * 64]) == 1

    try:
        runner.run(use())
        monkeypatch.setattr(cluster_module, "STANDSTILL", 3)
        with pytest.raises(EngineUnavailable, match="moved"):  # nobody knows yet where what is on its way will be found
            list(everything(Store))
        monkeypatch.undo()
    finally:
        nodes.move(slot, source, target)
    assert len(list(everything(Store))) == 0


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


@pytest.mark.soak  # of its time limits a loaded machine keeps none
@pytest.mark.parametrize("face_name", ["sync", "async"])
def test_a_primary_dies_and_its_replica_takes_over(Store, cluster, nodes, face_name):
    """Outages within the fail-over alone, no session that was replicated is gone, and lists say what they may lack."""
    with override_settings(MULTISESSION_REDIS_WAIT=1):
        writers = Writers()
    users = [user_of(number) for number in range(WRITERS)]
    assert not any(run_sync(Store.storage.may_miss(user)) for user in users)
    loaders = Loaders(writers.keys, face_name)
    running = threading.Thread(target=loaders.run)
    running.start()
    try:
        loaders.wait_for_each()
        victim = next(node for node in cluster.nodes if nodes_role(node) == "master")
        slots = slots_of(redis.Redis.from_url(victim.url))
        of_the_dead = [user for user in users if slot_of(f"session:user:{user}") in slots]
        victim.kill()
        survivors = [node for node in cluster.nodes if node.running]
        wait_until(lambda: all(is_ok(node) and not slots - covered(survivors) for node in survivors))
        loaders.wait_for_each()
        after = len(loaders.errors)
        loaders.wait_for_each()
        assert loaders.errors[after:] == []
        assert {type(error) for error in loaders.errors} <= {EngineUnavailable}
        assert loaders.logged_out == 0
    finally:
        loaders.stopping = True
        running.join()
    try:
        assert all(SessionStore(key).get("_auth_user_id") for key in writers.keys)
        assert of_the_dead
        assert [user for user in users if run_sync(Store.storage.may_miss(user))] == of_the_dead
        assert user_sessions.revoke_all("1").complete is None  # has none: nobody knows
        user_sessions.repair_index()
        assert not any(run_sync(Store.storage.may_miss(user)) for user in users)
        for number, key in enumerate(writers.keys):
            assert [each.id for each in run_sync(Store.storage.of_user(user_of(number)))] == [identify(key)]
    finally:
        victim.start()  # it finds its place by its nodes.conf, as a replica
        wait_until(lambda: nodes_role(victim) == "slave" and is_synced(victim))


class Loaders:
    """Each loads a session and saves it, all the time, whatever happens."""

    def __init__(self, keys, face_name) -> None:
        self.keys, self.face_name = keys, face_name
        self.rounds, self.errors, self.logged_out, self.stopping = [0] * len(keys), [], 0, False

    def run(self):
        if self.face_name == "async":
            return asyncio.run(self.all_of_them())
        threads = [threading.Thread(target=self.one, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    async def all_of_them(self):
        await asyncio.gather(*(self.aone(number) for number in range(4)))

    def one(self, first):
        while not self.stopping:
            for number in range(first, len(self.keys), 4):
                try:
                    session = SessionStore(self.keys[number])
                    self.logged_out += "_auth_user_id" not in session
                    session["round"] = self.rounds[number]
                    session.save()
                    self.rounds[number] += 1
                except Exception as error:
                    self.errors.append(error)
            time.sleep(0.005)

    async def aone(self, first):
        while not self.stopping:
            for number in range(first, len(self.keys), 4):
                try:
                    session = SessionStore(self.keys[number])
                    self.logged_out += not await session.ahas_key("_auth_user_id")
                    await session.aset("round", self.rounds[number])
                    await session.asave()
                    self.rounds[number] += 1
                except Exception as error:
                    self.errors.append(error)
            await asyncio.sleep(0.005)

    def wait_for_each(self):
        """Until each session has been saved twice from now on."""
        before = list(self.rounds)
        wait_until(lambda: all(now >= then + 2 for now, then in zip(self.rounds, before, strict=True)))


def nodes_role(node):
    with redis.Redis.from_url(node.url) as client:
        return client.info("replication")["role"]


def is_synced(node):
    with redis.Redis.from_url(node.url) as client:
        return client.info("replication")["master_link_status"] == "up"


def is_ok(node):
    with redis.Redis.from_url(node.url) as client:
        return client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"


def covered(survivors):
    primaries = [node for node in survivors if nodes_role(node) == "master"]
    return set().union(*(slots_of(redis.Redis.from_url(node.url)) for node in primaries))


def wait_until(happened):
    ends = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < ends
        time.sleep(0.05)
