"""What is asked of Redis grows in proportion to what there is to do, not faster; counted in its commands."""

from datetime import timedelta

import pytest

from django_multisession import user_sessions
from django_multisession.backends.redis.leftovers import AT_ONCE, MOST_GONE
from django_multisession.backends.redis.storage import MOST_PURGE_SCANS, SCAN_COUNT
from django_multisession.purge import purge
from django_multisession.records import to_epoch, utcnow
from django_multisession.testing.stored import a_record
from django_multisession.twins import run_sync

STALE = to_epoch(utcnow() - timedelta(days=2)) // 3_600_000


@pytest.fixture
def engine_name() -> str:
    return "redis"


@pytest.fixture
def client(Store):
    return Store.storage.client


def counted(client, command, function):
    """How often the server is asked that."""
    client.config_resetstat()
    function()
    return client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]


def sign_in(Store):
    session = Store()
    session["_auth_user_id"] = "9"
    session.save()


def stale_sets(client, count):
    """So many sets, each with one member whose session has expired, and one that is to stay."""
    later = STALE + 24 * 365
    pipeline = client.pipeline(transaction=False)
    for number in range(count):
        pipeline.zadd(f"session:user:{number}", {b"%032d" % number: STALE, b"%032d" % (count + number): later})
    pipeline.execute()


class TestPurge:
    @pytest.mark.parametrize("sets", [300, 1200])
    def test_many_batches_are_one_walk(self, Store, client, sets):
        """Each of them used to walk from the beginning: with as much to remove as there is, the square of it."""
        stale_sets(client, sets)
        batches = sets // 20
        scans = counted(client, "scan", lambda: purge(batch_size=20))
        # A batch that is full goes over its last page again.
        assert scans <= batches + 2 * sets // SCAN_COUNT + 2
        assert client.zcard("session:user:0") == client.zcard(f"session:user:{sets - 1}") == 1

    def test_all_is_removed_by_batches_of_one(self, Store, client):
        stale_sets(client, 15)
        assert purge(batch_size=1).rows == 15

    def test_can_be_stopped_where_there_is_nothing_to_remove(self, Store, client):
        """A purge is stopped between two batches, of which the one used to be all keys."""
        client.mset({f"other:{number}": "x" for number in range(2 * MOST_PURGE_SCANS * SCAN_COUNT)})
        batches = []
        stopped = purge(progress=batches.append, stop=lambda: bool(batches))
        assert (stopped.reason, stopped.more, stopped.batches) == ("stopped", True, 1)
        assert (purge().reason, purge().more) == ("server", False)

    def test_the_verb_goes_through_all(self, verbs, client):
        client.mset({f"other:{number}": "x" for number in range(2 * MOST_PURGE_SCANS * SCAN_COUNT)})
        stale_sets(client, 3)
        assert verbs.purge(utcnow(), 10) == 3


class TestEndedSessions:
    @pytest.mark.parametrize("ended", [MOST_GONE + 50, AT_ONCE + 200])
    def test_a_list_does_not_go_through_them_again(self, verbs, client, ended):
        keep = a_record("f" * 64, user_id="9")
        verbs.insert(keep)
        client.zadd("session:user:9", {b"%032d" % number: STALE + 24 * 365 for number in range(ended)})
        assert counted(client, "get", lambda: verbs.of_user("9")) == ended + 1
        assert counted(client, "get", lambda: verbs.of_user("9")) <= 2
        assert verbs.of_user("9") == [keep]

    def test_a_few_cost_no_trip(self, verbs, client):
        client.zadd("session:user:9", {b"%032d" % number: STALE + 24 * 365 for number in range(MOST_GONE)})
        assert counted(client, "eval", lambda: verbs.of_user("9")) == 0

    def test_what_is_revoked_time_and_again(self, Store, client):
        asked = []
        for _ in range(3):
            for _ in range(MOST_GONE + 10):
                sign_in(Store)
            asked.append(counted(client, "get", lambda: user_sessions.revoke_all(9)))
            assert user_sessions.count(9) == 0
        assert asked[2] <= asked[0] + 2

    def test_the_index_is_not_taken_for_lost_then(self, verbs, client):
        client.zadd("session:user:9", {b"%032d" % number: STALE + 24 * 365 for number in range(3 * MOST_GONE)})
        assert verbs.of_user("9") == []
        assert client.zcard("session:user:9") == 1
        assert user_sessions.revoke_all(9).complete is True

    def test_a_session_that_begins_meanwhile_stays_listed(self, Store, verbs, client, monkeypatch):
        """It is looked for in the script again: its key was not there when the list was read."""
        ids = [f"{number:064x}" for number in range(2 * MOST_GONE)]
        client.zadd("session:user:9", {bytes.fromhex(id): STALE + 24 * 365 for id in ids})
        storage, begun = Store.storage, a_record(ids[5], user_id="9")
        forget = storage._forget

        async def signed_in_first(*arguments):
            await storage.insert(begun)
            await forget(*arguments)

        monkeypatch.setattr(storage, "_forget", signed_in_first)
        run_sync(storage.of_user("9"))
        monkeypatch.undo()
        assert run_sync(storage.of_user("9")) == [begun]
        assert client.zcard("session:user:9") == 2

    def test_who_may_not_write_can_list(self, Store, verbs, client):
        sign_in(Store)
        client.zadd("session:user:9", {b"%032d" % number: STALE + 24 * 365 for number in range(2 * MOST_GONE)})
        client.config_set("min-replicas-to-write", 1)
        try:
            assert len(run_sync(Store.storage.of_user("9"))) == 1
        finally:
            client.config_set("min-replicas-to-write", 0)
