"""The nodes of a cluster, asked one by one."""

import time

import redis
from redis.crc import key_slot

from django_multisession.backends.redis.cluster_commands import ClusterCommands
from django_multisession.testing.faces import Verbs
from example_project.clusters import RedisCluster

PATIENCE = 60  # seconds: the cluster's own fail-over takes 2 to 3 after `promote_after(1)`


class Nodes:
    def __init__(self, cluster: RedisCluster) -> None:
        self.clients = [redis.Redis.from_url(node.url) for node in cluster.nodes]

    def primaries(self):
        return [client for client in self.clients if client.info("replication")["role"] == "master"]

    def commands(self, do):
        """What clients have sent to primaries meanwhile, but for what a client asks when it connects."""
        primaries, sent = self.primaries(), []
        monitors = [client.monitor() for client in primaries]
        for monitor in monitors:
            monitor.__enter__()
        do()
        for client, monitor in zip(primaries, monitors, strict=True):
            client.echo("the end")
            for line in monitor.listen():
                name = line["command"].partition(" ")[0].upper()
                if "the end" in line["command"]:
                    break
                if line["client_type"] != "lua" and name not in ("CLIENT", "HELLO", "READONLY", "PING", "REPLCONF"):
                    sent.append(name)
            monitor.__exit__(None, None, None)
        return sorted(sent)

    def promote_after(self, seconds: int) -> None:
        """When a replica takes over. By itself it is after 15 s, for which the nodes of a busy machine stand still
        less often than for one."""
        for client in self.clients:
            client.config_set("cluster-node-timeout", seconds * 1000)

    def owner(self, slot: int):
        return next(client for client in self.primaries() if slot in slots_of(client))

    def move(self, slot: int, source, target, pause=lambda: None) -> None:
        """As `redis-cli --cluster reshard` does it."""
        self.begin_to_move(slot, source, target)
        while self.migrate(slot, source, target, 2, pause):
            pass
        pause()
        self.settle(slot, source, target)

    def begin_to_move(self, slot: int, source, target) -> None:
        target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", id_of(source))
        source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", id_of(target))

    def migrate(self, slot: int, source, target, count: int, pause=lambda: None) -> bool:
        port = target.connection_pool.connection_kwargs["port"]
        if keys := source.execute_command("CLUSTER GETKEYSINSLOT", slot, count):
            pause()
            source.execute_command("MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *keys)
        return bool(keys)

    def settle(self, slot: int, source, target) -> None:
        id = id_of(target)
        for client in (target, source, *(each for each in self.primaries() if each not in (source, target))):
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", id)


class Commands(ClusterCommands):
    async def forget_slot(self, slot):
        """redis-py does not know of it any more."""
        del self.client.nodes_manager.slots_cache[slot]


def commands_of(store, face):
    """The commands of the face, as plain calls."""
    verbs = face.verbs(store)
    return Verbs(lambda: Commands(verbs._storage().client), verbs._run)


def id_of(client) -> str:
    return client.execute_command("CLUSTER MYID").decode()


def slots_of(client) -> set[int]:
    nodes = client.execute_command("CLUSTER NODES").values()
    [own] = [node for node in nodes if "myself" in node["flags"]]
    return {slot for part in own["slots"] for slot in range(int(part[0]), int(part[-1]) + 1)}


def slot_of(key: str) -> int:
    return key_slot(key.encode())


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
