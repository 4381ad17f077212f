"""What happens to a cluster: slots that are moved, and a primary that dies. These tests have one of their own."""

import asyncio
import dataclasses
import gc
import itertools
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import pytest
import redis
from django.contrib.sessions.serializers import JSONSerializer
from django.test import override_settings

from django_multisession import user_sessions
from django_multisession.backends.redis import SessionStore
from django_multisession.backends.redis import cluster as cluster_module
from django_multisession.exceptions import EngineUnavailable
from django_multisession.payload import codecs
from django_multisession.records import identify, utcnow
from django_multisession.testing.faces import SyncFace
from django_multisession.testing.stored import a_record
from django_multisession.twins import run_sync
from example_project.clusters import RedisCluster
from example_project.servers import RedisNode

from .nodes import Nodes, commands_of, covered, id_of, is_ok, is_synced, nodes_role, slot_of, slots_of, wait_until
from .test_setup import by_proxies

pytestmark = pytest.mark.slow
WRITERS = 20
MANY = 500  # slots
MOVES = 4  # there and back again, of each slot


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
    slots = [slot_of(f"session:{identify(key)}") for key in writers.keys[:3]]
    slots += [slot_of(f"session:user:{user_of(number)}") for number in range(3)]
    write_while(Store, writers, how, lambda: move_about(nodes, slots))


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("how", ["run_threads", "run_tasks"])
def test_thousands_of_slots_are_moved_while_20_write(Store, nodes, how):
    """To another node and back."""
    writers = Writers()
    source, target, *_ = nodes.primaries()
    slots, began = sorted(slots_of(source))[:MANY], time.monotonic()

    def move_all():
        for slot in slots:
            nodes.move(slot, source, target)
        for slot in slots:
            nodes.move(slot, target, source)

    walks = write_while(Store, writers, how, move_all)
    about = time.monotonic() - began, sum(writers.saves), len(writers.ended), walks
    print(f"{2 * len(slots)} moves in {about[0]:.0f} s; saved, signed in and out, walks: {about[1:]}")


def write_while(Store, writers, how, move):
    """How many walks went over all meanwhile."""
    ids, walks = {identify(key) for key in writers.keys}, 0
    running = threading.Thread(target=getattr(writers, how))
    running.start()
    try:
        with ThreadPoolExecutor(1) as pool:
            moving = pool.submit(move)
            while not moving.done():
                assert ids <= {record.id for record in everything(Store)}
                walks += 1
        moving.result()
        assert walks
        assert min(writers.saves)
    finally:
        writers.stopping = True
        running.join()
    writers.check()
    return walks


@pytest.fixture(scope="class")
def newcomer(cluster):
    """A primary that has no slot yet: clients are not told of it."""
    others = [redis.Redis.from_url(node.url) for node in cluster.nodes]
    stays = "--cluster-allow-replica-migration", "no"  # a primary, when its only slot is gone again
    with RedisNode(*stays) as node, redis.Redis.from_url(node.url) as client:
        client.execute_command("CLUSTER SET-CONFIG-EPOCH", 1000)
        client.execute_command("CLUSTER MEET", "127.0.0.1", cluster.nodes[0].port)
        wait_until(lambda: all(len(known_to(each)) == len(others) + 1 for each in [client, *others]) and is_ok(node))
        yield client
        for each in others:
            each.execute_command("CLUSTER FORGET", id_of(client))


def known_to(client):
    return [each for each in client.execute_command("CLUSTER NODES").values() if each["connected"]]


@pytest.fixture(params=["to another node", "to a new node"])
def on_its_way(request, Store, nodes):
    """A slot, of which some keys are at the new node, and the ids of sessions that lie in it."""
    slot, *ids = ids_of_one_slot(9)
    source = nodes.owner(slot)
    target = next(each for each in nodes.primaries() if each is not source)
    if request.param == "to a new node":
        target = request.getfixturevalue("newcomer")
        nodes.clients.append(target)
    for number, id in enumerate(ids[:6]):
        payload = codecs.encode({"a": number}, id, JSONSerializer)
        run_sync(Store.storage.insert(a_record(id, user_id=str(number), payload=payload)))
    nodes.begin_to_move(slot, source, target)
    nodes.migrate(slot, source, target, 3)
    yield slot, ids
    nodes.move(slot, source, target)
    Store.storage.client.flushall(target_nodes="primaries")
    target.flushall()
    if request.param == "to a new node":
        nodes.move(slot, target, source)


def ids_of_one_slot(count, last="0"):
    ids = (f"{number:064x}" for number in itertools.count())
    slot = slot_of("session:" + last.zfill(64))
    return [slot, *itertools.islice((id for id in ids if slot_of(f"session:{id}") == slot), count)]


class TestASlotOnItsWay:
    def test_its_sessions_are_used(self, Store, face, nodes, on_its_way):
        """They are at either node, and new ones are made at the new one, which has to be asked with ASKING over the
        connection of the command. redis-py's asynchronous client asks over one connection and sends over another, and
        both know no node that has no slot yet."""
        _, ids = on_its_way
        elsewhere = [f"{number:064x}" for number in range(1, 40)]
        verbs = face.verbs(Store)
        for number in range(1, 7):
            # So many connections to the nodes: with an even number, redis-py's are never the same.
            read_at_once(Store, face, elsewhere[:number])
            for user_id, id in enumerate(ids[:6]):
                record = verbs.read(id)
                assert record.user_id == str(user_id)
                changed = dataclasses.replace(record, version=record.version + 1, payload=b"%d" % number)
                assert verbs.replace(changed) == changed
        for id in ids[6:]:
            record = a_record(id)
            assert verbs.insert(record)
            assert verbs.read(id) == record
        assert [len(verbs.of_user(str(number))) for number in range(6)] == [1] * 6
        assert [verbs.remove([id]) for id in ids[:3]] == [1] * 3
        assert verbs.remove([*ids[3:], *elsewhere[:3]]) == 6

    @pytest.mark.parametrize("on_its_way", ["to another node"], indirect=True)
    def test_its_target_does_not_answer(self, Store, face, nodes, on_its_way):
        """What else was asked for is answered, and of all that are led there one alone waits."""
        slot, ids = on_its_way
        target = next(each for each in nodes.primaries() if each is not nodes.owner(slot))
        elsewhere = [f"{number:064x}" for number in range(1, 10)]
        others = [each for each in elsewhere if nodes.owner(slot_of(f"session:{each}")) is not target]
        process = target.info("server")["process_id"]
        with override_settings(MULTISESSION_TIMEOUT=0.5):
            commands = commands_of(Store, face)
            assert all(type(each) is int for each in commands.all([("EXISTS", f"session:{id}") for id in ids[:6]]))
            os.kill(process, signal.SIGSTOP)
            try:
                found = commands.all([("EXISTS", f"session:{id}") for id in [*others, *ids[:6]]])
            finally:
                os.kill(process, signal.SIGCONT)
        errors = [each for each in found[len(others) :] if isinstance(each, redis.TimeoutError)]
        assert found[: len(others)] == [0] * len(others)
        assert (len(errors), len({id(each) for each in errors})) == (3, 1)

    def test_walks_go_over_it_though_it_stays_so(self, Store, face, on_its_way):
        """For days perhaps: what is not at its source any more is at its target."""
        _, ids = on_its_way
        functions, verbs = face.functions(user_sessions), face.verbs(Store)
        assert {record.id for record in everything(Store)} == set(ids[:6])
        for number in range(6):
            Store.storage.client.delete(f"session:user:{number}")
        assert functions.repair_index().indexed == 6
        assert not any(verbs.may_miss(str(number)) for number in range(6))
        assert verbs.purge(utcnow() + timedelta(days=400), 100) == 0
        assert functions.revoke_everyone() == 6
        assert list(everything(Store)) == []

    def test_by_nodes_whose_names_nobody_resolves(self, Store, nodes, on_its_way):
        """They announce one, and clients are told their addresses all the same (`cluster-preferred-endpoint-type`)."""
        _, ids = on_its_way
        try:
            for node in nodes.clients:
                node.config_set("cluster-announce-hostname", "nowhere.invalid")
            wait_until(lambda: all(names_known_to(node) == len(nodes.clients) for node in nodes.clients))
            assert {record.id for record in everything(Store)} == set(ids[:6])
        finally:
            for node in nodes.clients:
                node.config_set("cluster-announce-hostname", "")


def names_known_to(client):
    nodes = client.execute_command("CLUSTER NODES").values()
    return sum(each["hostname"] == "nowhere.invalid" for each in nodes)


def read_at_once(Store, face, ids):
    async def all_of_them():
        await asyncio.gather(*(Store.astorage.read(id) for id in ids))

    if not isinstance(face, SyncFace):
        face.runner.run(all_of_them())


@pytest.mark.parametrize("another", [6000, 16383])
def test_a_walk_over_a_slot_that_came_back_and_leaves_again(Store, nodes, another):
    """Between two pages: its target was to be gone over, at once or later, for what its source had no more."""
    slot, *ids = ids_of_one_slot(6, "2")
    source, target = nodes.owner(slot), nodes.owner(another)
    target.execute_command("CLUSTER BUMPEPOCH")  # so that it takes the slot without a new one
    for id in ids:
        run_sync(Store.storage.insert(a_record(id)))
    nodes.begin_to_move(slot, source, target)
    nodes.migrate(slot, source, target, 3)
    page = run_sync(Store.storage.scan(None, 10))
    while str(slot) not in json.loads(page.next)["halves"]:
        page = run_sync(Store.storage.scan(page.next, 10))
    met = {record.id for record in page}
    nodes.move(slot, source, target)
    nodes.move(slot, target, source)
    nodes.begin_to_move(slot, source, target)
    try:
        assert len(met) == 3
        while page.next:
            page = run_sync(Store.storage.scan(page.next, 10))
            met |= {record.id for record in page}
    finally:
        nodes.move(slot, source, target)
        nodes.move(slot, target, source)
    assert met == set(ids)


def test_a_slot_that_its_target_does_not_take(Store, nodes, monkeypatch):
    """A walk goes over all else before it fails, and says which slot it is."""
    slot, *ids = ids_of_one_slot(2)
    elsewhere = [id for id in (f"{number:064x}" for number in range(1, 40)) if id not in ids]
    for id in [*ids, *elsewhere]:
        run_sync(Store.storage.insert(a_record(id)))
    source = nodes.owner(slot)
    target = next(each for each in nodes.primaries() if each is not source)
    nodes.begin_to_move(slot, source, target)
    target.execute_command("CLUSTER SETSLOT", slot, "STABLE")
    monkeypatch.setattr(cluster_module, "STANDSTILL", 3)
    met = []
    try:
        with pytest.raises(EngineUnavailable, match=f"{slot} .*{id_of(target)}"):
            met.extend(record.id for record in everything(Store))  # what has come by then is in it
    finally:
        source.execute_command("CLUSTER SETSLOT", slot, "STABLE")
    assert set(met) == {*ids, *elsewhere}


def test_a_slot_that_nobody_has(Store, nodes, monkeypatch):
    owner, slot = nodes.owner(0), 0
    monkeypatch.setattr(cluster_module, "STANDSTILL", 3)
    for each in nodes.clients:
        with suppress(redis.ResponseError):  # of a replica
            each.execute_command("CLUSTER DELSLOTS", slot)
    try:
        with pytest.raises(EngineUnavailable):
            list(everything(Store))
    finally:
        owner.execute_command("CLUSTER ADDSLOTS", slot)
        wait_until(lambda: all(each.execute_command("CLUSTER INFO")["cluster_state"] == "ok" for each in nodes.clients))


def test_slots_are_moved_where_nodes_announce_another_address(Store, cluster, nodes, face):
    """MOVED and ASK name addresses that a site cannot reach."""
    slot, id = ids_of_one_slot(1)
    source = nodes.owner(slot)
    target = next(each for each in nodes.primaries() if each is not source)
    with by_proxies(cluster) as proxies:
        verbs = face.verbs(SessionStore)
        verbs.insert(record := a_record(id))
        nodes.begin_to_move(slot, source, target)
        nodes.migrate(slot, source, target, 1)
        try:
            assert verbs.read(id) == record
        finally:
            nodes.settle(slot, source, target)
        assert verbs.read(id) == record
        nodes.move(slot, target, source)
        assert verbs.read(id) == record
        assert {node.port for node in client_of(face).get_nodes()} == {proxy.port for proxy in proxies}


def client_of(face):
    async def asynchronous():
        return SessionStore.astorage.client

    return SessionStore.storage.client if isinstance(face, SyncFace) else face.runner.run(asynchronous())


class TestAnIndexOfSlotsThatMove:
    """Of a user whose set lies in a slot of the first node, and is handed on to the others."""

    @pytest.fixture
    def slot(self, Store, nodes):
        run_sync(Store.storage.insert(a_record("a" * 64, user_id="9")))
        slot = slot_of("session:user:9")
        home = nodes.owner(slot)
        yield slot
        if nodes_role_of(home) != "master":
            fail_over(home)
        if (owner := nodes.owner(slot)) is not home:
            nodes.move(slot, owner, home)

    def hand_on(self, nodes, slot):
        """To the next of the primaries that have slots, in their order."""
        owner = nodes.owner(slot)
        others = [each for each in nodes.primaries() if each is not owner]
        nodes.move(slot, owner, others[0])
        return owner

    def test_nothing_is_lost_by_moving_alone(self, Store, nodes, slot):
        for _ in range(3):
            self.hand_on(nodes, slot)
            assert run_sync(Store.storage.may_miss("9")) is False

    def test_what_was_lost_moves_along(self, Store, nodes, slot):
        """The node that has the set now has lost nothing, but the one that had it before."""
        fail_over(replica_of(nodes, nodes.owner(slot)))
        assert run_sync(Store.storage.may_miss("9")) is True
        self.hand_on(nodes, slot)
        assert run_sync(Store.storage.may_miss("9")) is True
        user_sessions.repair_index()
        assert run_sync(Store.storage.may_miss("9")) is False

    def test_what_was_lost_elsewhere_comes_back(self, Store, nodes, slot):
        """Its node has lost nothing, and has had it when all was whole, but not all the time."""
        home = self.hand_on(nodes, slot)
        guest = nodes.owner(slot)
        fail_over(replica_of(nodes, guest))
        nodes.move(slot, nodes.owner(slot), home)
        assert run_sync(Store.storage.may_miss("9")) is True
        fail_over(guest)

    def test_a_new_node_counts_as_one_that_may_have_lost_some(self, Store, nodes, slot, newcomer):
        home = nodes.owner(slot)
        nodes.clients.append(newcomer)
        nodes.move(slot, home, newcomer)
        try:
            assert run_sync(Store.storage.may_miss("9")) is True
        finally:
            nodes.move(slot, newcomer, home)
        assert run_sync(Store.storage.may_miss("9")) is True


def replica_of(nodes, primary):
    port = primary.connection_pool.connection_kwargs["port"]
    return next(each for each in nodes.clients if each.info("replication").get("master_port") == port)


def nodes_role_of(client):
    return client.info("replication")["role"]


def fail_over(replica):
    """To that replica, as an administrator does it."""
    wait_until(lambda: replica.info("replication").get("master_link_status") == "up")
    replica.execute_command("CLUSTER FAILOVER")
    wait_until(lambda: nodes_role_of(replica) == "master" and slots_of(replica))


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


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # redis-py's of nodes that it has replaced
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("face_name", [pytest.param("sync", marks=pytest.mark.soak), "async"])
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
        nodes.promote_after(seconds=1)
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
        gc.collect()  # of what its tasks have had no time to close before the loop ended
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
        nodes.promote_after(seconds=15)


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
