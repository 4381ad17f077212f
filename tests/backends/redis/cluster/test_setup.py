"""How the settings name a cluster, and sentinels."""

import asyncio
import re
import shlex
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import redis
import redis.asyncio
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from redis.cluster import ClusterNode, RedisCluster

from django_multisession import user_sessions
from django_multisession.backends.redis import SessionStore, urls
from django_multisession.backends.redis import clients as redis_clients
from django_multisession.backends.redis.cluster import ClusterStorage
from django_multisession.backends.redis.cluster_commands import errors_of_connections
from django_multisession.backends.redis.scripts import LIST_ALONE, SHA
from django_multisession.exceptions import EngineUnavailable
from django_multisession.records import utcnow
from django_multisession.testing.stored import a_record, saved, stored
from example_project.servers import RedisServer, free_port
from tests.backends.redis.test_clients import Sentinel
from tests.proxies import Proxy

from .nodes import Nodes, is_synced, wait_until

ENGINE = "django_multisession.backends.redis"
HOSTS = [("one", 7000), ("two", 6379), ("::1", 7001)]


def assert_works(face):
    for number in range(9):  # on each node
        assert stored(face, SessionStore, saved(face, SessionStore, a=number)) == {"a": number}


class TestUrls:
    def test_of_a_cluster(self):
        url = "rediss+cluster://ann:s%40x@one:7000,two,[::1]:7001?socket_timeout=2&ssl_ca_certs=/ca.pem"
        assert urls.kind_of(url) == "cluster"
        assert urls.addresses(url) == HOSTS
        expected = {"username": "ann", "password": "s@x", "ssl": True, "socket_timeout": 2.0, "ssl_ca_certs": "/ca.pem"}
        assert urls.options_of(url) == expected

    def test_of_sentinels(self):
        login = "sentinel_username=sam&sentinel_password=t%26p&sentinel_ssl=true&sentinel_socket_timeout=1"
        url = f"redis+sentinel://ann:secret@one,two:5/my%20master/3?{login}&health_check_interval=9"
        assert urls.addresses(url) == [("one", 26379), ("two", 5)]
        assert urls.service_of(url) == "my master"
        assert urls.options_of(url) == {"username": "ann", "password": "secret", "db": 3, "health_check_interval": 9}
        expected = {"username": "sam", "password": "t&p", "ssl": True, "socket_timeout": 1.0}
        assert urls.sentinel_options(url) == expected

    def test_the_clients_of_sentinels(self):
        client = urls.client_of("rediss+sentinel://:secret@one,two/main/3?sentinel_password=other", socket_timeout=4)
        pool = client.connection_pool
        assert issubclass(pool.connection_class, redis.SSLConnection)
        assert (pool.service_name, pool.connection_kwargs["password"]) == ("main", "secret")
        assert (pool.connection_kwargs["db"], pool.connection_kwargs["socket_timeout"]) == (3, 4)
        options = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]
        assert [(each["host"], each["port"], each["password"]) for each in options] == [
            ("one", 26379, "other"),
            ("two", 26379, "other"),
        ]
        twin = redis_clients.asynchronous(client).connection_pool
        assert issubclass(twin.connection_class, redis.asyncio.SSLConnection)
        assert twin.connection_kwargs["db"] == 3
        assert twin.sentinel_manager.sentinel_kwargs["password"] == "other"

    @pytest.mark.parametrize(
        "url",
        ["redis+cluster://", "redis+sentinel://one", "redis+cluster://one/3", "redis+cluster://one:x", "redis+x://a"],
    )
    def test_what_is_none(self, url):
        with override_settings(MULTISESSION_REDIS=url), pytest.raises(ImproperlyConfigured, match="Redis"):
            SessionStore().load()

    @pytest.mark.slow
    def test_sentinels(self, face, tmp_path):
        with RedisServer() as primary, RedisServer("--replicaof", "127.0.0.1", str(primary.port)):
            configuration, port = tmp_path / "sentinel.conf", free_port()
            configuration.write_text(f"port {port}\nsentinel monitor main 127.0.0.1 {primary.port} 1\n")
            url = f"redis+sentinel://127.0.0.1:{port}/main/2"
            with Sentinel(configuration, port), override_settings(MULTISESSION_REDIS=url):
                assert_works(face)
                assert SessionStore.storage.client.dbsize() == 9


class TestClients:
    def test_a_single_endpoint_that_redirects(self, cluster, face):
        with override_settings(MULTISESSION_REDIS=cluster.url.partition(",")[0]):
            assert_works(face)
            assert len(SessionStore.storage.client.get_primaries()) == 3

    def test_a_function(self, cluster, face):
        own_client.make = lambda: RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port)
        with override_settings(MULTISESSION_REDIS=f"{__name__}.own_client"):
            assert_works(face)

    def test_nodes_that_announce_another_address(self, cluster, face):
        """All goes by way of proxies, of which the nodes know nothing."""
        with by_proxies(cluster) as proxies:
            assert_works(face)
            assert {node.port for node in SessionStore.storage.client.get_nodes()} == {p.port for p in proxies}

    def test_decoded_responses_are_refused(self, cluster):
        own_client.make = lambda: RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port, decode_responses=True)
        with override_settings(MULTISESSION_REDIS=f"{__name__}.own_client"), pytest.raises(ImproperlyConfigured):
            SessionStore().exists("some key")

    def test_each_loop_has_its_own_which_is_closed_with_it(self, Store):
        async def use():
            await Store().aexists("a key of somebody")
            client = Store.astorage.client
            assert client is Store.astorage.client
            [node] = [node for node in client.get_nodes() if node._connections][:1]
            return client, node._connections[0]

        (one, its), (other, _) = asyncio.run(use()), asyncio.run(use())
        assert one is not other
        assert not its.is_connected

    def test_tls_options_reach_the_asynchronous_client(self, cluster):
        client = RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port)
        client.nodes_manager.connection_kwargs.update(ssl=True, ssl_ca_certs="/ca.pem", username="ann", password="hers")
        options = redis_clients.asynchronous(client).connection_kwargs
        assert issubclass(options["connection_class"], redis.asyncio.SSLConnection)
        assert (options["ssl_ca_certs"], options["username"], options["password"]) == ("/ca.pem", "ann", "hers")

    def test_the_acl_user_of_the_docs_may_do_all_that_a_session_needs(self, cluster, Store, face):
        page = (Path(__file__).parents[4] / "docs" / "redis.md").read_text()
        commands = re.findall(r"^redis-cli (ACL SETUSER multisession (?:.*\\\n)*.*)$", page, re.MULTILINE)
        assert len(commands) == 2
        for node in Nodes(cluster).clients:
            for command in commands:
                node.execute_command(*shlex.split(command.replace("\\\n", "")))
        url = cluster.url.replace("://", "://multisession:secret@")
        with override_settings(MULTISESSION_REDIS=url, MULTISESSION_REDIS_WAIT=1, SESSION_ENGINE=ENGINE):
            session = face(SessionStore(key := saved(face, SessionStore, a=1)))
            session["_auth_user_id"] = "1"
            session.save()
            with override_settings(SESSION_COOKIE_AGE=15 * 24 * 3600):
                session.save()
            verbs = face.verbs(SessionStore)
            assert [each.user_id for each in verbs.of_user("1")] == ["1"]
            assert verbs.may_miss("1") is False
            SessionStore.storage.client.delete("session:user:1")
            assert face.functions(user_sessions).repair_index().indexed == 1
            assert verbs.purge(utcnow() - timedelta(days=1), 10) == 0
            assert face.functions(user_sessions).revoke_all("1").ended == 1
            assert face(SessionStore()).exists(key) is False

    def test_a_connection_that_another_task_has_closed_is_lost(self):
        """redis-py's asynchronous one has no writer by then: seen while slots were moved, on a loaded machine."""
        connection = redis.asyncio.Connection()
        with pytest.raises(redis.ConnectionError), errors_of_connections():
            connection._writer.writelines([])
        with pytest.raises(AttributeError), errors_of_connections():
            _ = connection.writer

    def test_an_outage_at_the_start(self):
        with (
            override_settings(MULTISESSION_REDIS=f"redis+cluster://127.0.0.1:{free_port()}"),
            pytest.raises(EngineUnavailable),
        ):
            SessionStore().exists("a key of somebody")

    @pytest.mark.parametrize("verb", [("scan", None, 10), ("clock",), ("purge", utcnow(), 10), ("of_user", "1")])
    def test_an_outage_before_the_first_command(self, verb):
        """The asynchronous client looks for the nodes then, and where the synchronous one has found them."""

        async def ask():
            nodes = [redis.asyncio.cluster.ClusterNode("127.0.0.1", free_port())]
            storage = ClusterStorage(redis.asyncio.RedisCluster(startup_nodes=nodes))
            try:
                await getattr(storage, verb[0])(*verb[1:])
            finally:
                await storage.aclose()

        with pytest.raises(EngineUnavailable):
            asyncio.run(ask())


@contextmanager
def by_proxies(cluster):
    """The sessions' client reaches each node by a proxy of its own."""
    with ExitStack() as stack:
        proxies = {node.port: stack.enter_context(Proxy(node.port)) for node in cluster.nodes}

        def remap(address):
            proxy = proxies.get(address[1])
            return ("127.0.0.1", proxy.port) if proxy else address

        first = proxies[cluster.nodes[0].port].port
        own_client.make = lambda: RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", first)], address_remap=remap)
        stack.enter_context(override_settings(MULTISESSION_REDIS=f"{__name__}.own_client"))
        yield list(proxies.values())


def own_client():
    return own_client.make()


class TestLost:
    """A connection that is cut between a write and its answer, at the proxies."""

    @pytest.fixture
    def proxies(self, cluster, Store):
        with by_proxies(cluster) as proxies:
            yield proxies

    def cut(self, proxies, what, where="lose_answer"):
        left = [1]

        def lose(request):
            if what in request.upper() and left:
                return bool(left.pop())
            return False

        for proxy in proxies:
            setattr(proxy, where, lose)

    @pytest.mark.parametrize("where", ["lose_answer", "lose_request"])
    @pytest.mark.parametrize("user_id", [None, "9"])
    def test_an_insert_is_made_once(self, proxies, face, where, user_id):
        verbs = face.verbs(SessionStore)
        verbs.read("c" * 64)
        self.cut(proxies, b"\r\nSET\r\n", where)
        record = a_record(user_id=user_id)
        assert verbs.insert(record) is True
        assert verbs.insert(record) is False
        assert sum(proxy.lost for proxy in proxies) == 1

    @pytest.mark.parametrize("where", ["lose_answer", "lose_request"])
    def test_a_removal_counts_once(self, proxies, face, where):
        verbs = face.verbs(SessionStore)
        verbs.insert(record := a_record(user_id="9"))
        self.cut(proxies, b"\r\nDEL\r\n", where)
        assert verbs.remove([record.id]) == 1
        assert verbs.read(record.id) is None
        assert sum(proxy.lost for proxy in proxies) == 1

    @pytest.mark.parametrize("rest", [False, True], ids=["both answers", "that of WAIT"])
    def test_of_a_write_and_its_wait(self, proxies, face, rest):
        """Done, and not known to be on replicas: what the browser will not learn of is removed again."""
        verbs = face.verbs(SessionStore)
        verbs.insert(kept := a_record("b" * 64))
        with override_settings(MULTISESSION_REDIS_WAIT=2):
            for proxy in proxies:
                proxy.lose_rest = rest
            self.cut(proxies, b"\r\nSET\r\n")
            with pytest.raises(EngineUnavailable, match="not on 2 replicas"):
                verbs.insert(record := a_record(user_id=None))
            assert verbs.read(record.id) is None
            self.cut(proxies, b"\r\nDEL\r\n")
            with pytest.raises(EngineUnavailable, match="not on 2 replicas"):
                verbs.remove([kept.id])
            assert verbs.read(kept.id) is None
        assert sum(proxy.lost for proxy in proxies) == 2

    @pytest.mark.parametrize("where", ["lose_answer", "lose_request"])
    def test_a_listing_that_waits_is_sent_again(self, proxies, face, where):
        verbs = face.verbs(SessionStore)
        verbs.insert(a_record("b" * 64, user_id="9"))
        with override_settings(MULTISESSION_REDIS_WAIT=1):
            self.cut(proxies, SHA[LIST_ALONE].upper().encode(), where)
            assert verbs.insert(record := a_record(user_id="9")) is True
        assert sum(proxy.lost for proxy in proxies) == 1
        assert record in verbs.of_user("9")

    def test_a_wait_that_is_refused(self, cluster, Store, face):
        for node in Nodes(cluster).clients:
            node.acl_setuser(
                "hasty", enabled=True, passwords=["+p"], keys=["*"], categories=["+@all"], commands=["-wait"]
            )
        url = cluster.url.replace("://", "://hasty:p@")
        with override_settings(MULTISESSION_REDIS=url, MULTISESSION_REDIS_WAIT=1):
            with pytest.raises(EngineUnavailable, match="not on 1 replicas"):
                face.verbs(SessionStore).insert(a_record())
            assert face.verbs(SessionStore).read("a" * 64) is None


class TestChecks:
    def found(self, deploy=True, **settings):
        with override_settings(SESSION_ENGINE=ENGINE, SESSION_COOKIE_SECURE=True, **settings):
            messages = run_checks(include_deployment_checks=deploy)
        ours = [each.id.removeprefix("django_multisession.") for each in messages if "multisession" in str(each.id)]
        return " ".join(ours)

    def test_right(self, cluster):
        assert self.found(MULTISESSION_REDIS=cluster.url, MULTISESSION_REDIS_WAIT=1) == ""

    def test_a_database_number(self):
        assert self.found(False, MULTISESSION_REDIS="redis+cluster://nowhere/1") == "E016"
        assert self.found(False, MULTISESSION_REDIS="redis+cluster://nowhere/0") == ""
        assert self.found(False, MULTISESSION_REDIS="redis+cluster://nowhere") == ""

    def test_decoded_responses(self):
        for kind in "cluster://nowhere", "sentinel://nowhere/main":
            assert self.found(False, MULTISESSION_REDIS=f"redis+{kind}?decode_responses=1") == "E010"

    @pytest.mark.parametrize("url", ["redis+cluster://", "redis+sentinel://nowhere", "rediss+cluster://:x"])
    def test_no_url(self, url):
        assert self.found(False, MULTISESSION_REDIS=url) == "E009"

    def test_a_wait_that_is_no_number(self):
        assert self.found(False, MULTISESSION_REDIS_WAIT="1") == "E004"

    def test_the_url_of_a_server_for_a_node_of_a_cluster(self, cluster):
        assert self.found(MULTISESSION_REDIS=cluster.nodes[0].url) == "E017"

    def test_the_url_of_a_cluster_for_a_server_alone(self):
        with RedisServer() as server:
            assert (
                self.found(MULTISESSION_REDIS=server.url.replace("redis:", "redis+cluster:").removesuffix("/0"))
                == "E017"
            )

    def test_fewer_replicas_than_are_waited_for(self, cluster):
        assert self.found(MULTISESSION_REDIS=cluster.url, MULTISESSION_REDIS_WAIT=2) == "E018"
        with RedisServer() as server:
            assert self.found(MULTISESSION_REDIS=server.url, MULTISESSION_REDIS_WAIT=1) == "E018"
            assert self.found(MULTISESSION_REDIS=server.url) == ""

    def test_one_primary_that_evicts(self, cluster):
        primary = Nodes(cluster).primaries()[-1]
        primary.config_set("maxmemory-policy", "allkeys-lru")
        try:
            assert self.found(MULTISESSION_REDIS=cluster.url) == "W006"
        finally:
            primary.config_set("maxmemory-policy", "noeviction")


@pytest.mark.slow
def test_wait_on_one_server(face):
    """The same setting, where there is no cluster."""
    of_it = "--replicaof", "127.0.0.1"
    with RedisServer("--repl-diskless-sync-delay", "0") as primary, RedisServer(*of_it, str(primary.port)) as replica:
        wait_until(lambda: is_synced(replica))
        with override_settings(MULTISESSION_REDIS=primary.url, MULTISESSION_REDIS_WAIT=1):
            verbs = face.verbs(SessionStore)
            record = a_record(user_id="9")
            assert verbs.insert(record) is True
            assert verbs.insert(record) is False
            assert verbs.remove([record.id, "b" * 64]) == 1
        with override_settings(MULTISESSION_REDIS=primary.url, MULTISESSION_REDIS_WAIT=2, MULTISESSION_TIMEOUT=0.4):
            with pytest.raises(EngineUnavailable, match="not on 2 replicas"):
                verbs.insert(record)
            assert verbs.read(record.id) is None
