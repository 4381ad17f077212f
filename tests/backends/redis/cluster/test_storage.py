import asyncio
import dataclasses
from datetime import timedelta

import pytest
from django.test import override_settings

from django_multisession.backends.redis import cluster as cluster_module
from django_multisession.backends.redis.cluster_walk import Node, Position, of_ranges, ranges
from django_multisession.backends.redis.scripts import SHA
from django_multisession.exceptions import EngineUnavailable
from django_multisession.purge import purge
from django_multisession.records import epoch_now, to_epoch, utcnow
from django_multisession.testing.stored import HOUR, a_record

from .nodes import Nodes, commands_of, slot_of

ID = "a" * 64


@pytest.fixture
def nodes(cluster):
    return Nodes(cluster)


class TestCommands:
    def test_many_where_one_has_a_slot_that_redis_py_does_not_know(self, Store, face, client):
        """The nodes are asked for it, and the others are answered whether they know or not."""
        names = [f"session:{number:064x}" for number in range(20)]
        for name in names:
            client.set(name, name)
        commands, asked = commands_of(Store, face), [("GET", name) for name in names]
        commands.all(asked)
        commands.forget_slot(slot_of(names[3]))
        assert commands.all(asked) == [name.encode() for name in names]

    def test_one_for_the_session_and_one_more_where_it_is_listed(self, verbs, nodes):
        verbs.insert(other := a_record("b" * 64, user_id="8"))  # the scripts are known
        verbs.replace(dataclasses.replace(other, version=2))
        verbs.touch(other.id, other.expires_at)
        for node in nodes.primaries():
            for script in cluster_module.LIST_ALONE, cluster_module.REPLACE_ALONE, cluster_module.TOUCH_ALONE:
                node.script_load(script)
        record = a_record(ID)
        assert nodes.commands(lambda: verbs.insert(record)) == ["SET"]
        assert nodes.commands(lambda: verbs.read(record.id)) == ["GET"]
        record = dataclasses.replace(record, version=2, user_id="9")
        assert nodes.commands(lambda: verbs.replace(record)) == ["EVALSHA", "EVALSHA"]  # a log-in
        record = dataclasses.replace(record, version=3)
        assert nodes.commands(lambda: verbs.replace(record)) == ["EVALSHA"]
        assert nodes.commands(lambda: verbs.touch(record.id, record.expires_at)) == ["EVALSHA"]
        record = dataclasses.replace(record, version=4, expires_at=record.expires_at + 3 * HOUR)
        assert nodes.commands(lambda: verbs.replace(record)) == ["EVALSHA", "EVALSHA"]  # another hour
        assert nodes.commands(lambda: verbs.touch(record.id, record.expires_at + 3 * HOUR)) == ["EVALSHA", "EVALSHA"]
        assert nodes.commands(lambda: verbs.of_user("9")) == ["GET", "ZRANGE", "ZRANGE"]
        assert nodes.commands(lambda: verbs.remove([record.id])) == ["DEL"]
        assert nodes.commands(lambda: verbs.insert(a_record("c" * 64, user_id="9"))) == ["EVALSHA", "SET"]

    def test_of_a_process_that_has_not_read_it(self, verbs, nodes):
        """Nobody knows then whether it is due: the session says so."""
        verbs.insert(record := a_record(ID))
        cluster_module.listed.clear()
        record = dataclasses.replace(record, version=2, user_id="9")
        assert verbs.replace(record) == record
        assert verbs.of_user("9") == [record]
        cluster_module.listed.clear()
        later = record.expires_at + 9 * HOUR
        assert verbs.touch(ID, later)
        assert [each.expires_at for each in verbs.of_user("9")] == [later]


class TestIndex:
    def test_is_written_before_the_session(self, verbs, client, nodes):
        """Where the session cannot be written, the index has it all the same: too much, never too little."""
        assert slot_of(f"session:{ID}") != slot_of("session:user:9")
        client.set(f"session:{ID}", b"taken")
        assert verbs.insert(a_record(ID, user_id="9")) is False
        assert client.zrange("session:user:9", 0, -1) == [bytes.fromhex(ID)]

    def test_what_cannot_be_listed_is_not_stored(self, verbs, client):
        client.set("session:user:9", "no sorted set")
        with pytest.raises(EngineUnavailable):
            verbs.insert(a_record(ID, user_id="9"))
        verbs.insert(record := a_record(ID))
        with pytest.raises(EngineUnavailable):
            verbs.replace(dataclasses.replace(record, version=2, user_id="9"))
        assert verbs.read(ID) == record

    def test_a_session_knows_its_hour(self, verbs, client):
        verbs.insert(record := a_record(ID, user_id="9"))
        for version, hours in (2, 5), (3, 1), (4, 90):
            moved = dataclasses.replace(record, version=version, expires_at=record.expires_at + hours * HOUR)
            verbs.replace(moved)
            hour = int.from_bytes(client.getrange(f"session:{ID}", 32, 35), "big")
            assert hour <= client.zscore("session:user:9", bytes.fromhex(ID))
            assert hour * 3_600_000 >= to_epoch(moved.expires_at)

    def test_a_clock_that_is_wrong_costs_questions_only(self, verbs, clock):
        verbs.insert(a_record("b" * 64, user_id="8"))
        clock.shift(-30 * 24 * 3600)
        verbs.insert(record := a_record(ID, user_id="9"))
        for version, hours in (2, 5), (3, 90):
            expires_at = record.expires_at + hours * HOUR
            assert verbs.replace(dataclasses.replace(record, version=version, expires_at=expires_at))
        assert [each.id for each in verbs.of_user("9")] == [ID]

    def test_nodes_whose_clocks_differ_come_to_an_hour(self, verbs, Store, client, monkeypatch):
        """The session's node says which hour it takes, where that of the index has another idea of it."""
        verbs.insert(record := a_record(ID, user_id="9"))
        cluster_module.listed.clear()
        script = cluster_module.LIST_ALONE.replace("return now[1] * 1000", "return (now[1] - 86400) * 1000")
        monkeypatch.setattr(cluster_module, "LIST_ALONE", script)
        monkeypatch.setitem(SHA, script, "0" * 40)  # unknown, so that EVAL takes it as it is
        later = dataclasses.replace(record, version=2, expires_at=record.expires_at + 9 * HOUR)
        assert verbs.replace(later) == later
        assert client.zscore("session:user:9", bytes.fromhex(ID)) * 3_600_000 >= to_epoch(later.expires_at)


class TestWholeIndex:
    """`complete` of users' lists is `not may_miss()`, or not known."""

    def test_an_empty_cluster_lacks_nothing(self, verbs):
        verbs.insert(a_record(ID, user_id="9"))
        assert verbs.may_miss("9") is False
        assert verbs.may_miss("nobody") is True

    def test_it_is_not_known_of_one_that_is_not_empty(self, Store, verbs, client):
        client.delete("session:index")
        Store.storage._is_marked = False
        client.set("somebody", "else's")
        verbs.insert(a_record(ID, user_id="9"))
        assert verbs.may_miss("9") is True

    def test_until_a_repair_has_gone_through_all(self, Store, verbs, face, client):
        from django_multisession import user_sessions

        client.set("session:index", "of another time")
        for number in range(30):
            verbs.insert(a_record(f"{number:064x}", user_id="9"))
        assert verbs.may_miss("9") is True
        repair_index = face.functions(user_sessions).repair_index
        assert repair_index("9").indexed == 0  # a user's alone says nothing about the others'
        assert verbs.may_miss("9") is True
        repair_index()
        assert verbs.may_miss("9") is False

    def test_a_fail_over_while_it_is_repaired_counts(self, verbs, client):
        verbs.insert(a_record(ID, user_id="9"))
        page = verbs.scan(None, 100)
        while page.next:
            page = verbs.scan(page.next, 100)
        page.began = ["what", "was", "there"]
        verbs.index_is_whole(page)
        assert verbs.may_miss("9") is True

    def test_it_comes_back(self, verbs, client):
        verbs.insert(record := a_record(ID, user_id="9"))
        client.delete("session:user:9")
        assert verbs.of_user("9") == []
        assert verbs.index([record, a_record("b" * 64, user_id="9"), a_record("c" * 64)]) == 1  # b is not stored
        assert verbs.of_user("9") == [record]


class TestWalk:
    def test_slots_as_text(self):
        assert ranges({0, 1, 2, 7, 16383}) == "0-2,7-7,16383-16383"
        assert of_ranges("0-2,7-7,16383-16383") == {0, 1, 2, 7, 16383}
        assert of_ranges(ranges(())) == frozenset()

    def test_a_position_is_its_text(self):
        position = Position(frozenset({1}), "host:1", "id", frozenset({5, 6}), {5: "b"}, 77, {7: "c"}, ["x"])
        assert Position.parse(str(position)) == position

    @pytest.mark.parametrize(
        "other", [Node("id", "restarted", "7", frozenset({1, 2})), Node("id", "r", "8", frozenset({1, 2, 3}))]
    )
    def test_begins_anew_on_a_node_that_is_not_as_it_was(self, other):
        position = Position()
        position.at("host:1", Node("id", "r", "7", frozenset({1, 2})))
        position.cursor = 99
        position.at("host:1", other)
        assert (position.cursor, position.slots) == (0, other.slots)

    def test_what_has_left_a_node_is_not_done(self):
        position = Position()
        position.at("host:1", Node("id", "r", "7", frozenset({1, 2, 3})))
        position.at("host:1", Node("id", "r", "7", frozenset({1, 2})))
        position.at("host:1", Node("id", "r", "7", frozenset({1, 2, 3})))
        position.end(Node("id", "r", "7", frozenset({2, 3})))
        assert position.done == {2}

    def test_nothing_is_done_on_a_node_that_was_replaced_at_the_end(self):
        position = Position()
        position.at("host:1", Node("id", "r", "7", frozenset({1, 2})))
        position.end(Node("another", "r", "7", frozenset({1, 2})))
        assert position.done == frozenset()

    def test_the_slowest_of_the_clocks_counts(self, verbs):
        assert abs(to_epoch(verbs.clock()) - epoch_now()) < timedelta(minutes=1).total_seconds() * 1000


class TestWait:
    def test_a_write_and_what_waits_for_it_go_over_one_connection(self, verbs, nodes):
        with override_settings(MULTISESSION_REDIS_WAIT=1):
            verbs.insert(record := a_record(ID, user_id="9"))
            record = dataclasses.replace(record, version=2)
            assert verbs.replace(record) == record
            assert "WAIT" in nodes.commands(lambda: verbs.replace(dataclasses.replace(record, version=3)))
            assert nodes.commands(lambda: verbs.insert(a_record("b" * 64, user_id="9"))).count("WAIT") == 2
            assert "WAIT" not in nodes.commands(lambda: verbs.touch(ID, record.expires_at + 9 * HOUR))
            assert nodes.commands(lambda: verbs.remove([ID])) == ["DEL", "WAIT"]

    def test_too_few_replicas(self, verbs, Store):
        """What the browser will not learn of is removed, all else is done."""
        verbs.insert(record := a_record(ID, user_id="9"))
        with override_settings(MULTISESSION_REDIS_WAIT=2, MULTISESSION_TIMEOUT=0.4):
            with pytest.raises(EngineUnavailable, match="not on 2 replicas"):
                verbs.insert(a_record("b" * 64))
            assert verbs.read("b" * 64) is None
            assert verbs.insert(dataclasses.replace(record, user_id=None)) is False  # nothing to wait for
            with pytest.raises(EngineUnavailable, match="not on 2 replicas"):
                verbs.replace(dataclasses.replace(record, version=2))
            assert verbs.read(ID).version == 2
            with pytest.raises(EngineUnavailable, match="not on 2 replicas"):
                verbs.remove([ID])
            assert verbs.read(ID) is None

    def test_all_of_many_are_removed_where_there_are_too_few_replicas(self, verbs):
        """Of a user whose sessions are revoked none stays signed in."""
        ids = [f"{number:064x}" for number in range(8)]
        for id in ids:
            verbs.insert(a_record(id))
        too_many = override_settings(MULTISESSION_REDIS_WAIT=2, MULTISESSION_TIMEOUT=0.4)
        with too_many, pytest.raises(EngineUnavailable, match="not on 2 replicas"):
            verbs.remove(ids)
        assert not any(verbs.read(id) for id in ids)


def test_a_purge_goes_on_where_its_batch_before_has_ended(verbs, client, Store):
    """On a primary after another, until all are done."""
    for number in range(12):
        client.zadd(f"session:user:{number}", {b"%032d" % number: 1})
    assert purge(batch_size=5).rows == 12
    assert verbs.purge(utcnow(), 100) == 0


def test_a_client_that_is_to_learn_of_its_nodes_anew_is_closed_with_its_loop(Store):
    """As one is after an error, while what other tasks had under way has connected its nodes again."""

    async def read():
        await Store.astorage.read(ID)
        client = Store.astorage.client
        client._initialize = True
        return [*client.get_nodes(), *client.nodes_manager.startup_nodes.values()]

    nodes = asyncio.run(read())
    assert nodes
    assert not any(connection.is_connected for node in nodes for connection in node._connections)
