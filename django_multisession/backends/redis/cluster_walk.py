"""Where a walk over all keys of a cluster has got to, so that it misses none that was there all the time.

A SCAN goes over the keys of one node, and slots move from node to node meanwhile. So a walk counts slots, not nodes:
those that a node had from the beginning of its SCAN to its end, and was not handing over, are done; others are looked
for where they are then. A SCAN begins anew on a node that has been replaced or restarted, or that has got slots: its
epoch tells.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

ALL_SLOTS = frozenset(range(16384))


@dataclass(frozen=True)
class Node:
    """What a primary says of itself: `identity` is another after a restart, a fail-over, or with new slots."""

    identity: str  # its id, the id of what it replicates, and its epoch
    replication: str  # what a restart or fail-over changes alone: INFO's `master_replid`
    slots: frozenset[int] = frozenset()  # that it has, and hands to nobody

    @classmethod
    def told(cls, nodes: dict[str, Any], replication: dict[str, Any]) -> "Node":
        """From CLUSTER NODES and INFO replication, as redis-py parses them."""
        [own] = [each for each in nodes.values() if "myself" in each["flags"]]
        moving = {int(each["slot"]) for each in own["migrations"]}
        id = str(replication["master_replid"])
        slots = frozenset(slot for part in own["slots"] for slot in range(int(part[0]), int(part[-1]) + 1))
        if "master" not in own["flags"]:
            slots = frozenset()
        return cls(f"{own['node_id']} {id} {own['epoch']}", id, slots - moving)


@dataclass
class Position:
    """As text it is the `after` of a page."""

    done: frozenset[int] = frozenset()
    address: str = ""  # of the node that is being gone over, "host:port"
    identity: str = ""
    slots: frozenset[int] = frozenset()  # that have been there since its SCAN began
    cursor: int = 0
    began: list[str] = field(default_factory=list)  # the `replication` of each primary when the walk began

    @classmethod
    def parse(cls, after: str | None) -> "Position":
        if after is None:
            return cls()
        found = json.loads(after)
        return cls(**found | {name: of_ranges(found[name]) for name in ("done", "slots")})

    def __str__(self) -> str:
        return json.dumps(vars(self) | {"done": ranges(self.done), "slots": ranges(self.slots)})

    def at(self, address: str, node: Node) -> None:
        """Go on at that node, or begin there."""
        if (address, node.identity) != (self.address, self.identity):
            self.address, self.identity, self.slots, self.cursor = address, node.identity, node.slots, 0
        self.slots &= node.slots

    def end(self, node: Node) -> None:
        """The SCAN has come to its end; what it has gone over counts, if the node is still the same."""
        if node.identity == self.identity:
            self.done |= self.slots & node.slots
        self.address, self.identity, self.slots, self.cursor = "", "", frozenset(), 0

    @property
    def left(self) -> frozenset[int]:
        return ALL_SLOTS - self.done


def ranges(slots: Iterable[int]) -> str:
    """ "0-5460,5462": half of a page's position else would be numbers."""
    parts: list[list[int]] = []
    for slot in sorted(slots):
        if parts and slot == parts[-1][1] + 1:
            parts[-1][1] = slot
        else:
            parts.append([slot, slot])
    return ",".join(f"{first}-{last}" for first, last in parts)


def of_ranges(text: str) -> frozenset[int]:
    pairs = (part.split("-") for part in text.split(",") if part)
    return frozenset(slot for first, last in pairs for slot in range(int(first), int(last) + 1))
