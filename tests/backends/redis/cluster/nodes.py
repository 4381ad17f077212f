"""The nodes of a cluster, asked one by one."""

import redis
from redis.crc import key_slot

from example_project.clusters import RedisCluster


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

    def owner(self, slot: int):
        return next(client for client in self.primaries() if slot in slots_of(client))

    def move(self, slot: int, source, target, pause=lambda: None, arrive: bool = True) -> None:
        """As `redis-cli --cluster reshard` does it; with `arrive` false, all but the last step."""
        ids = {client: client.execute_command("CLUSTER MYID").decode() for client in (source, target)}
        target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[source])
        source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[target])
        port = target.connection_pool.connection_kwargs["port"]
        while keys := source.execute_command("CLUSTER GETKEYSINSLOT", slot, 2):
            pause()
            source.execute_command("MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *keys)
        pause()
        if not arrive:
            return
        for client in (target, source, *(each for each in self.primaries() if each not in (source, target))):
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[target])


def slots_of(client) -> set[int]:
    nodes = client.execute_command("CLUSTER NODES").values()
    [own] = [node for node in nodes if "myself" in node["flags"]]
    return {slot for part in own["slots"] for slot in range(int(part[0]), int(part[-1]) + 1)}


def slot_of(key: str) -> int:
    return key_slot(key.encode())
