"""A throw-away cluster of Redis, of `servers.RedisNode`: for the demo and the tests, as `servers.py`."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import redis

START_SECONDS = 60


class RedisCluster:
    """Three primaries, each with as many replicas as asked for; it opens and closes as a server does."""

    PRIMARIES = 3

    def __init__(self, node: Callable[[], Any], replicas: int = 0) -> None:
        self.replicas = replicas
        self.nodes = [node() for _ in range(self.PRIMARIES * (1 + replicas))]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    @property
    def pid(self) -> int | None:
        return self.nodes[0].pid

    def start(self) -> Self:
        for node in self.nodes:
            node.start()
        self._join()
        return self

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _join(self) -> None:
        clients = [redis.Redis.from_url(node.url) for node in self.nodes]
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER MEET", "127.0.0.1", self.nodes[0].port)
        size = -(-16384 // self.PRIMARIES)
        for number, client in enumerate(clients[: self.PRIMARIES]):
            slots = range(number * size, min(16384, (number + 1) * size))
            client.execute_command("CLUSTER ADDSLOTSRANGE", slots[0], slots[-1])
        ids = [client.execute_command("CLUSTER MYID").decode() for client in clients]
        self._wait(lambda: all(_knows(client, len(clients)) for client in clients))
        for number, client in enumerate(clients[self.PRIMARIES :]):
            client.execute_command("CLUSTER REPLICATE", ids[number % self.PRIMARIES])
        self._wait(lambda: all(_is_up(client, self.replicas) for client in clients))
        for client in clients:
            client.close()

    def _wait(self, is_done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not is_done():
            if time.monotonic() > deadline:
                raise TimeoutError("The nodes of the cluster do not find one another.")
            time.sleep(0.05)


def _knows(client: Any, number: int) -> bool:
    return len(client.execute_command("CLUSTER NODES")) == number


def _is_up(client: Any, replicas: int) -> bool:
    about = client.info("replication")
    is_linked = (
        about["connected_slaves"] == replicas if about["role"] == "master" else about["master_link_status"] == "up"
    )
    slots = client.execute_command("CLUSTER SLOTS")
    return bool(
        is_linked
        and client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"
        and len(slots) == RedisCluster.PRIMARIES
        and all(len(each) == 3 + replicas for each in slots)
    )
