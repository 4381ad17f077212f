"""Of which slots of a cluster the users' sets are known to lack nothing: what `<prefix>:index` says, as text.

For each primary it has `<master_replid>:<config epoch>:<slots>`, with blanks between them, as they were when it was
noted. A restart or a fail-over, which may lose what a set was told last, gives a node another `master_replid`. A slot
that is handed on takes its sets along, and what its former nodes have lost of them.
"""

from collections.abc import Iterable

from .cluster_walk import Node, of_ranges, ranges


class Whole:
    """Constructed with what is stored."""

    def __init__(self, stored: bytes | None) -> None:
        self.nodes = [each.split(":") for each in (stored or b"").decode(errors="replace").split()]

    @staticmethod
    def noted(node: Node) -> str:
        return f"{node.replication}:{node.epoch}:{ranges(node.slots - node.leaving.keys())}"

    def has_stayed(self, slot: int, node: Node) -> bool:
        """Whether that node has had it all the time and lost nothing.

        A slot that had been elsewhere meanwhile would have given it another epoch when it came back.
        """
        slots = {(replication, epoch): slots for replication, epoch, slots in self._told()}
        return slot in node.slots and slot in of_ranges(slots.get((node.replication, node.epoch), ""))

    def was_nowhere_else(self, node: Node, primaries: Iterable[Node]) -> bool:
        """Whether no node has lost anything, so that none can have handed on a set that lacks something.

        Where there are other nodes than there were, slots may have been with one that has lost some. Nodes without a
        slot are known to other nodes, though not to a client.
        """
        noted, now = sorted(each for each, _, _ in self._told()), sorted(each.replication for each in primaries)
        return bool(noted) and noted == now and node.primaries == len(now)

    def _told(self) -> list[list[str]]:
        return [each for each in self.nodes if len(each) == 3]
