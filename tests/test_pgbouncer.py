"""PostgreSQL behind PgBouncer in transaction mode: each statement may be another connection's of the server."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connections

from django_multisession.models import PurgeLease, Session
from django_multisession.purge import purge
from example_project.servers import PostgresServer, Server

from . import servers
from .purging import expired, left
from .routers import SessionRouter
from .test_outages import using
from .test_purge import InAnotherProcess, elsewhere

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
MISSING = servers.MISSING.get("postgres") or ("" if PROGRAM else "PgBouncer is missing: apt-get install pgbouncer")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING) and not os.environ.get("CI"), reason=MISSING)]


class PgBouncer(Server):
    """From the system's packages, before the run's PostgreSQL. It refuses to run as root, too."""

    ready_line = b"process up"
    stop_signal = PostgresServer.stop_signal
    identity = PostgresServer.identity

    def __init__(self, server: str) -> None:
        super().__init__()
        self.server = urlsplit(server)

    @property
    def url(self) -> str:
        return self.server._replace(netloc=f"postgres@127.0.0.1:{self.port}").geturl()

    def command(self) -> list[str]:
        assert PROGRAM, MISSING
        (self.directory / "pgbouncer.ini").write_text(
            f"""
            [databases]
            * = host={self.server.hostname} port={self.server.port} user=postgres
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {self.port}
            unix_socket_dir =
            auth_type = any
            pool_mode = transaction
            default_pool_size = 5
            """.replace("    ", "")
        )
        self.directory.chmod(0o755)
        return [PROGRAM, "pgbouncer.ini"]


@pytest.fixture(scope="module")
def pooler() -> Iterator[PgBouncer]:
    with PgBouncer(servers.url_of("postgres") or "") as pooler:
        yield pooler


@pytest.fixture(params=["told", "not told"])
def Store(request: pytest.FixtureRequest, pooler: PgBouncer) -> Iterator[Any]:
    with using("postgres", pooler.url, DISABLE_SERVER_SIDE_CURSORS=request.param == "told") as store:
        yield store
        for model in (Session, PurgeLease):
            model._base_manager.using(SessionRouter.alias).all().delete()


def another() -> Any:
    """A connection within a transaction: it keeps the server connection that was used last."""
    connection = connections.create_connection(SessionRouter.alias)
    connection.set_autocommit(False)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return connection


def purged() -> str:
    """The reason with which a purge ends, each of whose batches gets another server connection than the one before."""
    busy: list[Any] = []
    expired(5)
    try:
        return purge(batch_size=2, progress=lambda progress: busy.append(another())).reason
    finally:
        for connection in busy:
            connection.rollback()  # hung up on within a transaction PgBouncer would close the server's connection
            connection.close()


def test_a_purge_gives_its_lease_back(Store: Any) -> None:
    assert [purged() for _ in range(10)] == ["done"] * 10
    assert left() == set()
    with connections[SessionRouter.alias].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert cursor.fetchone() == (0,)


def test_a_purge_holds_its_lease(Store: Any) -> None:
    expired(5)
    reasons = []

    def also(progress: Any) -> None:
        if not reasons:
            with InAnotherProcess():
                reasons.extend(elsewhere(purged) for _ in range(5))

    assert purge(batch_size=2, progress=also).reason == "done"
    assert reasons == ["running"] * 5


def visits(Store: Any) -> dict[str, Any]:
    try:
        session = Store()
        session.create()
        for number in range(10):
            session = Store(session.session_key)
            session[f"visit{number}"] = number
            session.save()
        return dict(Store(session.session_key).items())
    finally:
        connections.close_all()


def test_requests_share_its_connections(Store: Any) -> None:
    """More of them than the pooler has, each statement by whichever is free."""
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(visits, [Store] * 60))
    assert found == [{f"visit{number}": number for number in range(10)}] * 60
