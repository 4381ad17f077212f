"""PostgreSQL whose connections come from Django's pool in the process, and a primary that moves."""

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connections, transaction

from django_multisession.exceptions import EngineUnavailable
from django_multisession.models import Session
from django_multisession.purge import purge
from django_multisession.testing.faces import SyncFace
from django_multisession.testing.stored import saved
from example_project.servers import PostgresServer

from ... import servers
from ...purging import expired, left
from ...routers import SessionRouter
from ..test_outages import using
from .test_pgbouncer import visits

pytestmark = [pytest.mark.slow, pytest.mark.skipif("postgres" in servers.MISSING, reason="PostgreSQL is missing")]
POOL = {"pool": {"min_size": 2, "max_size": 5, "timeout": 20}}


def sql(statement: str) -> Any:
    with connections[SessionRouter.alias].cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else None


@pytest.fixture
def pooled() -> Iterator[Any]:
    pytest.importorskip("psycopg_pool")
    with using("postgres", servers.url_of("postgres") or "", OPTIONS=POOL) as store:
        yield store
        Session._base_manager.using(SessionRouter.alias).all().delete()
        connections[SessionRouter.alias].close()
        connections[SessionRouter.alias].close_pool()


def test_requests_share_a_pool_in_the_process(pooled):
    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(visits, [pooled] * 40))
    assert found == [{f"visit{number}": number for number in range(10)}] * 40


def test_no_lock_of_a_purge_stays_in_the_pool(pooled):
    """Whose connections are not closed, whatever Django's connection is told: another one would find it taken."""
    expired(6)
    closing = lambda progress: connections[SessionRouter.alias].close()  # noqa: E731
    assert purge(batch_size=2, progress=closing).reason == "done"
    assert left() == set()
    assert sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]
    expired(1)
    assert purge().reason == "done"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        with using("postgres", server.url):
            call_command("migrate", database=SessionRouter.alias, verbosity=0)
        yield server


@pytest.fixture(params=["one connection", "a pool"])
def Store(request: pytest.FixtureRequest, server: PostgresServer) -> Iterator[Any]:
    kept = {"CONN_MAX_AGE": 600} if request.param == "one connection" else {"OPTIONS": POOL}
    if request.param == "a pool":
        pytest.importorskip("psycopg_pool")
    with using("postgres", server.url, **kept) as store:
        yield store
        connections[SessionRouter.alias].close()
        connections[SessionRouter.alias].close_pool()


def demote(read_only: bool) -> None:
    """As a managed database does it: those who are connected stay so, and may write no more; who comes anew, may."""
    sql(f"SET SESSION CHARACTERISTICS AS TRANSACTION READ {'ONLY' if read_only else 'WRITE'}")


def test_a_connection_to_a_server_that_was_demoted_is_not_kept(Store):
    face = SyncFace()
    key = saved(face, Store, a=1)
    session = Store(key)
    session["a"] = 2
    demote(read_only=True)
    session.save()
    assert Store(key)["a"] == 2
    demote(read_only=True)
    Store(key).flush()
    assert not Store().exists(key)


def test_nor_is_any_of_those_that_a_pool_has_kept(server):
    pytest.importorskip("psycopg_pool")
    with using("postgres", server.url, OPTIONS={"pool": {"min_size": 4, "max_size": 4}}) as Store:
        key = saved(SyncFace(), Store, a=1)
        connections[SessionRouter.alias].close()
        with ThreadPoolExecutor(4) as threads:
            barrier = Barrier(4, timeout=60)
            list(threads.map(lambda _: demote_one(barrier), range(4)))
        for number in range(8):
            session = Store(key)
            session["a"] = number
            session.save()
        assert Store(key)["a"] == 7
        connections[SessionRouter.alias].close()
        connections[SessionRouter.alias].close_pool()


def demote_one(barrier: Any) -> None:
    demote(read_only=True)
    barrier.wait()  # so that each has a connection of its own
    connections[SessionRouter.alias].close()


def test_within_a_transaction_a_demotion_is_an_outage(Store):
    def create() -> None:
        with transaction.atomic(using=SessionRouter.alias):
            sql("SET TRANSACTION READ ONLY")
            Store().create()

    with pytest.raises(EngineUnavailable, match="read-only"):
        create()
    assert saved(SyncFace(), Store)


class Standby(PostgresServer):
    """Of another server, whose data it copies and follows."""

    ready_line = b"database system is ready to accept read-only connections"

    def __init__(self, primary: PostgresServer) -> None:
        super().__init__()
        self.primary = primary

    def prepare(self) -> None:
        if self.identity():
            shutil.chown(self.directory, **{name: self.identity()[name] for name in ("user", "group")})
        given = ["-h", "127.0.0.1", "-p", str(self.primary.port), "-U", "postgres"]
        self._run(self.program("pg_basebackup"), "-D", "data", "-R", "-X", "stream", "-c", "fast", "--no-sync", *given)


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


def test_a_primary_that_moves_is_followed(primary):
    """`HOST` and `PORT` name both; `target_session_attrs` picks the one that takes writes."""
    with Standby(primary) as standby:
        both = {"HOST": "127.0.0.1,127.0.0.1", "PORT": f"{primary.port},{standby.port}"}
        options = {"target_session_attrs": "read-write", "connect_timeout": 5}
        with using("postgres", primary.url, **both, OPTIONS=options, CONN_MAX_AGE=600) as Store:
            call_command("migrate", database=SessionRouter.alias, verbosity=0)
            key = saved(SyncFace(), Store, a=1)
            wait_for_standby(standby)
            primary.kill()
            with pytest.raises(EngineUnavailable):
                Store(key).load()
            promote(standby)
            assert Store(key).load() == {"a": 1}
            session = Store(key)
            session["b"] = 2
            session.save()
            assert Store(key).load() == {"a": 1, "b": 2}


def wait_for_standby(standby: PostgresServer) -> None:
    """Until it has what the primary has committed."""
    [[written]] = sql("SELECT pg_current_wal_lsn()::text")
    with psycopg.connect(standby.url, autocommit=True) as connection:
        arrived = f"SELECT pg_last_wal_replay_lsn() >= '{written}'"
        eventually(lambda: connection.execute(arrived).fetchone() == (True,))


def promote(standby: PostgresServer) -> None:
    with psycopg.connect(standby.url, autocommit=True) as connection:
        assert connection.execute("SELECT pg_promote(true, 60)").fetchone() == (True,)


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)
