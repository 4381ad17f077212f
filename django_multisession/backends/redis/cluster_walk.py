"""Where a walk over all keys of a cluster has got to, so that it misses none that was there all the time.

A SCAN goes over the keys of one node, and slots move from node to node meanwhile. So a walk counts slots, not nodes:
those that a node had from the beginning of its SCAN to its end are done. Of a slot that it is handing over, and be it
for days, the keys only go one way: whoever was not met at its source is met by a SCAN of the target that begins
afterwards, and so it is done after both, if the source is still the same then: a slot that has come back to it and
leaves it again may have brought them along. A SCAN begins anew on a node that has been replaced or restarted, or that
has got slots: its epoch tells.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

ALL_SLOTS = frozenset(range(16384))
RANGES, TARGETS = ("done", "slots"), ("leaving", "halves")


@dataclass(frozen=True)
class Node:
    """What a primary says of itself."""

    id: str
    replication: str  # INFO's `master_replid`: another after a restart or a fail-over
    epoch: str = ""  # another after a fail-over too, and with a slot that it has got from whoever had got one last
    slots: frozenset[int] = frozenset()  # that it has
    leaving: dict[int, str] = field(default_factory=dict)  # those of them that it is handing over: to whose id
    arriving: frozenset[int] = frozenset()  # that it is being handed
    addresses: dict[str, list[tuple[str, int]]] = field(default_factory=dict)  # of all nodes by id: by IP, and by name
    primaries: int = 0  # that it knows, with slots or without

    @property
    def identity(self) -> str:
        return f"{self.id} {self.replication} {self.epoch}"

    @classmethod
    def told(cls, nodes: dict[str, Any], replication: dict[str, Any]) -> "Node":
        """From CLUSTER NODES and INFO replication, as redis-py parses them."""
        [own] = [each for each in nodes.values() if "myself" in each["flags"]]
        slots, moves = frozenset[int](), dict[str, dict[int, str]]({"migrating": {}, "importing": {}})
        if "master" in own["flags"]:
            slots = frozenset(slot for part in own["slots"] for slot in range(int(part[0]), int(part[-1]) + 1))
            for each in own["migrations"]:
                moves[each["state"]][int(each["slot"])] = each["node_id"]
        about = own["node_id"], str(replication["master_replid"]), str(own["epoch"])
        addresses = {each["node_id"]: _addresses(name, each["hostname"]) for name, each in nodes.items()}
        primaries = sum("master" in each["flags"] for each in nodes.values())
        return cls(*about, slots, moves["migrating"], frozenset(moves["importing"]), addresses, primaries)


@dataclass
class Position:
    """As text it is the `after` of a page."""

    done: frozenset[int] = frozenset()
    address: str = ""  # of the node that is being gone over, "host:port"
    identity: str = ""
    slots: frozenset[int] = frozenset()  # that have been there since its SCAN began
    leaving: dict[int, str] = field(default_factory=dict)  # of these: to which node
    cursor: int = 0
    halves: dict[int, list[str]] = field(default_factory=dict)  # slots whose source is done: target's id, its identity
    began: list[str] = field(default_factory=list)  # what was noted of each primary when the walk began

    @classmethod
    def parse(cls, after: str | None) -> "Position":
        if after is None:
            return cls()
        found = json.loads(after)
        found |= {name: of_ranges(found[name]) for name in RANGES}
        return cls(**found | {name: {int(slot): id for slot, id in found[name].items()} for name in TARGETS})

    def __str__(self) -> str:
        return json.dumps(vars(self) | {name: ranges(getattr(self, name)) for name in RANGES})

    def at(self, address: str, node: Node) -> None:
        """Go on at that node, or begin there."""
        there = node.slots | {slot for slot in node.arriving if self.target(slot) == node.id}
        if (address, node.identity) != (self.address, self.identity):
            self.address, self.identity, self.slots, self.leaving, self.cursor = address, node.identity, there, {}, 0
        turned = {slot for slot, id in self.leaving.items() if node.leaving.get(slot) != id}  # keys may have come back
        self.slots = (self.slots & there) - turned
        self.leaving = {slot: id for slot, id in node.leaving.items() if slot in self.slots}

    def end(self, node: Node) -> None:
        """The SCAN has come to its end; what it has gone over counts, if the node is still the same."""
        if node.identity == self.identity:
            self.at(self.address, node)
            self.done |= self.slots - self.leaving.keys()
            self.halves = {slot: half for slot, half in self.halves.items() if half[0] != node.id}
            self.halves |= {slot: [id, node.identity] for slot, id in self.leaving.items()}
            self.halves = {slot: half for slot, half in self.halves.items() if slot not in self.done}
        self.address, self.identity, self.slots, self.leaving, self.cursor = "", "", frozenset(), {}, 0

    def target(self, slot: int) -> str | None:
        """Of a slot whose source is done."""
        return self.halves[slot][0] if slot in self.halves else None

    def is_half(self, slot: int, owner: Node) -> bool:
        """Whether its source is done, and hands it over still; else both are to be gone over."""
        return self.halves.get(slot) == [owner.leaving.get(slot), owner.identity]

    @property
    def left(self) -> frozenset[int]:
        return ALL_SLOTS - self.done


def _addresses(name: str, hostname: str) -> list[tuple[str, int]]:
    host, _, port = name.rpartition(":")
    named = hostname if hostname and "=" not in hostname else host  # behind Valkey's may be a shard's id
    return [(host, int(port)), (named, int(port))]


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
