"""MariaDB Galera: two nodes that both take writes, and refuse at their commit what the other was faster with."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections

from django_multisession.models import PurgeLease, Session
from example_project.servers import MariaDBServer, PostgresServer, free_port, mariadb_program

from ...children import child
from ...purging import expired
from ...routers import SessionRouter
from ..test_outages import using

LIBRARY = Path("/usr/lib/galera/libgalera_smm.so")
MISSING = "" if LIBRARY.exists() else "Galera is missing: apt-get install galera-4 rsync"
try:
    mariadb_program("mariadbd")
except FileNotFoundError as error:
    MISSING = str(error)

# A minute and a half on a busy machine, a third of it until the nodes are up: `pytest -m soak tests/backends/db`.
pytestmark = [pytest.mark.soak, pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=MISSING)]


class GaleraNode(MariaDBServer):
    """The first of a cluster, or one that joins it, and gets its data from the first: by rsync, which as root is
    "nobody", who may go nowhere. So the nodes are nobody's, too."""

    ready_line = b"Synchronized with group, ready for connections"

    def __init__(self, first: "GaleraNode | None" = None) -> None:
        super().__init__()
        self.first = first
        self.group = free_port()
        self.state, self.increments = free_port(), free_port()

    identity = PostgresServer.identity

    def prepare(self) -> None:
        if identity := self.identity():
            shutil.chown(self.directory, identity["user"], identity["group"])
        super().prepare()

    def common(self) -> list[str]:
        return [each for each in super().common() if each != "--user=root"]

    def command(self) -> list[str]:
        members = f"127.0.0.1:{self.first.group}" if self.first else ""
        provider = f"base_port={self.group};ist.recv_addr=127.0.0.1:{self.increments};gcache.size=8M"
        options = {
            "wsrep-on": "ON",
            "wsrep-provider": LIBRARY,
            "wsrep-provider-options": f"gmcast.listen_addr=tcp://127.0.0.1:{self.group};{provider}",
            "wsrep-cluster-address": f"gcomm://{members}",
            "wsrep-node-address": f"127.0.0.1:{self.group}",
            "wsrep-sst-method": "rsync",
            "wsrep-sst-receive-address": f"127.0.0.1:{self.state}",
            "binlog-format": "ROW",
            "innodb-autoinc-lock-mode": 2,
        }
        return [*super().command(), *(f"--{name}={value}" for name, value in options.items())]


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[GaleraNode]]:
    with ExitStack() as stack:
        first = stack.enter_context(GaleraNode())
        yield [first, stack.enter_context(GaleraNode(first))]


@pytest.fixture
def stores(nodes: list[GaleraNode]) -> Iterator[Callable[..., Any]]:
    """`with stores(1) as Store` is the store at that node."""

    @contextmanager
    def at(number: int, **more: Any) -> Iterator[Any]:
        alias = SessionRouter.alias
        with using("mysql", nodes[number].url, **more) as store:
            yield store
        SessionRouter.alias = alias

    with at(0):
        call_command("migrate", database=SessionRouter.alias, verbosity=0)
        yield at
        for model in (Session, PurgeLease):
            model._base_manager.using(SessionRouter.alias).all().delete()


def test_it_is_a_cluster(stores):
    with stores(1), connections[SessionRouter.alias].cursor() as cursor:
        cursor.execute("SHOW STATUS LIKE 'wsrep_cluster_size'")
        assert cursor.fetchone()[1] == "2"


def at_both(stores: Any, code: str, **given: Any) -> list[Any]:
    """A process at each node, each of which runs the code."""
    processes = []
    for number in (0, 1):
        with stores(number):
            processes.append(child(code, node=number, **given))
    return processes


def ended(process: Any) -> list[str]:
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return out.split()


SAVE = """
from concurrent.futures import ThreadPoolExecutor
from django_multisession.backends.db import SessionStore
from django_multisession.exceptions import SessionEnded
def save(thread):
    for visit in range(5):
        session = SessionStore(given["key"])
        try:
            session[f"{given['node']}-{thread}-{visit}"] = 1
            session.save()
        except SessionEnded:
            print("ended")
with ThreadPoolExecutor(4) as pool:
    list(pool.map(save, range(4)))
"""


def eventually(Store: Any, key: str, keys: set[str]) -> set[str]:
    """What a session has at a node, once it has these."""
    until = time.monotonic() + 60
    while not keys <= set(found := Store(key).load()) and time.monotonic() < until:
        time.sleep(0.1)
    return set(found)


def test_what_both_nodes_save_in_one_session_is_kept(stores):
    """The one that is slower to commit is refused as a deadlock (1213), and repeats it: that is no outage."""
    with stores(0) as Store:
        (session := Store()).create()
    for process in at_both(stores, SAVE, key=session.session_key):
        assert ended(process) == []
    wanted = {f"{node}-{thread}-{visit}" for node in (0, 1) for thread in range(4) for visit in range(5)}
    for number in (0, 1):
        with stores(number) as Store:
            assert eventually(Store, session.session_key, wanted) == wanted


def test_what_one_node_ends_no_other_brings_back(stores):
    with stores(0) as Store:
        (session := Store()).create()
        processes = at_both(stores, SAVE, key=session.session_key)
        until = time.monotonic() + 60
        while not Store(session.session_key).load() and time.monotonic() < until:
            time.sleep(0.01)
        session.delete()
    for process in processes:
        ended(process)
    for number in (0, 1):
        with stores(number) as Store:
            assert not eventually(Store, session.session_key, set())
            assert not Store().exists(session.session_key)


PURGE = """
import os, time
from pathlib import Path
from django_multisession.purge import purge
path = Path(given["path"])
def wait(progress):
    path.with_suffix(".going").touch()
    until = time.monotonic() + 60
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.05)
print(purge(batch_size=5, progress=wait).reason)
"""


def test_of_two_purges_at_two_nodes_one_works(stores, tmp_path):
    """The server's own lock would be of one node."""
    path = tmp_path / "end"
    with stores(0):
        expired(20)
        first = child(PURGE, path=str(path))
        until = time.monotonic() + 60
        while not path.with_suffix(".going").exists() and time.monotonic() < until:
            time.sleep(0.05)
    with stores(1):
        assert ended(child(PURGE, path=str(path))) == ["running"]
    path.touch()
    assert ended(first) == ["done"]


def test_who_waits_for_the_other_node_finds_what_was_just_saved(stores):
    with stores(0) as Store:
        for _ in range(30):
            (session := Store()).create()
            with stores(1, OPTIONS={"init_command": "SET SESSION wsrep_sync_wait = 3"}) as other:
                assert other().exists(session.session_key)
