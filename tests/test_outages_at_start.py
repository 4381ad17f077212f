"""A server, or whoever tells where it is, that is away when a process looks for it first: an outage, no mistake in the
settings, and the next use tries again."""

import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from threading import Thread
from types import SimpleNamespace
from typing import Any

import dns.asyncresolver
import dns.message
import dns.resolver
import dns.rrset
import pymongo
import pytest
import redis
import redis.sentinel
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_multisession.exceptions import EngineUnavailable

from .contract import saved, stored

MONGODB = settings.MULTISESSION_MONGODB


@pytest.fixture
def engine_name() -> str:
    return "mongodb"


class NameServer(Thread):
    """Knows one MongoDB server, by the name of its service. Until it is `there` it answers nothing."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.there = port, False
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.start()

    def run(self) -> None:
        with suppress(OSError):
            while True:
                query, address = self.socket.recvfrom(4096)
                if self.there:
                    self.socket.sendto(self.answer(dns.message.from_wire(query)), address)

    def answer(self, query: Any) -> bytes:
        response, [question] = dns.message.make_response(query), query.question
        if question.rdtype == dns.rdatatype.SRV:
            target = f"0 0 {self.port} localhost.mysite.example."
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "SRV", target))
        return bytes(response.to_wire())


@pytest.fixture
def name_server(Store: Any, monkeypatch: Any) -> Iterator[NameServer]:
    [(_, port)] = pymongo.uri_parser.parse_uri(settings.MULTISESSION_MONGODB)["nodelist"]
    server, resolve = NameServer(port), socket.getaddrinfo
    for module, kind in ((dns.resolver, dns.resolver.Resolver), (dns.asyncresolver, dns.asyncresolver.Resolver)):
        resolver = kind(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], server.socket.getsockname()[1]
        monkeypatch.setattr(module, "default_resolver", resolver)
    # The system's resolver does not ask ours.
    known = {"localhost.mysite.example": "127.0.0.1"}
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: resolve(known.get(host, host), *rest, **more)
    )
    with closing(server.socket):
        yield server


SRV = "mongodb+srv://db.mysite.example/multisession?tls=false"


def test_a_name_server_that_is_away_is_an_outage_until_it_is_back(Store, face, name_server):
    with override_settings(MULTISESSION_MONGODB=SRV, MULTISESSION_TIMEOUT=0.5):
        for _ in range(2):
            with pytest.raises(EngineUnavailable):
                face(Store("k" * 32)).load()
        name_server.there = True
        key = saved(face, Store, a=1)
        assert stored(face, Store, key) == {"a": 1}


NETWORK = [ConnectionRefusedError, TimeoutError, socket.gaierror]
FUNCTIONS = {"redis": "MULTISESSION_REDIS", "mongodb": "MULTISESSION_MONGODB"}


@pytest.mark.parametrize(
    ("engine_name", "error"),
    [
        *[(name, error) for name in FUNCTIONS for error in NETWORK],
        ("mongodb", pymongo.errors.ServerSelectionTimeoutError),
        ("redis", redis.ConnectionError),
        ("redis", redis.sentinel.MasterNotFoundError),
    ],
)
def test_a_function_that_finds_a_server_away_meets_an_outage(Store, face, engine_name, error, monkeypatch):
    key = saved(face, Store, a=1)
    with override_settings(**{FUNCTIONS[engine_name]: f"{__name__}.{engine_name}_client"}):
        monkeypatch.setattr(failing, "error", error("away"))
        for _ in range(2):
            with pytest.raises(EngineUnavailable, match="away"):
                face(Store(key)).load()
        monkeypatch.undo()
        assert stored(face, Store, key) == {"a": 1}


@pytest.mark.parametrize(
    ("engine_name", "error"),
    [
        ("mongodb", FileNotFoundError),
        ("mongodb", ValueError),
        ("mongodb", pymongo.errors.ConfigurationError),
        ("redis", ValueError),
    ],
)
def test_a_function_with_another_fault_is_a_mistake(Store, engine_name, error, monkeypatch):
    monkeypatch.setattr(failing, "error", error("wrong"))
    with (
        override_settings(**{FUNCTIONS[engine_name]: f"{__name__}.{engine_name}_client"}),
        pytest.raises(ImproperlyConfigured, match="wrong"),
    ):
        Store().create()


failing: Any = SimpleNamespace(error=None)


def mongodb_client() -> Any:
    if failing.error:
        raise failing.error
    return pymongo.MongoClient(MONGODB)


def redis_client() -> Any:
    if failing.error:
        raise failing.error
    return redis.Redis.from_url(settings.REDIS_URL)


@pytest.mark.parametrize("engine_name", ["redis"])
def test_sentinels_that_are_away_are_an_outage(Store, face):
    options = {
        "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
        "CLIENT_CLASS": "django_redis.client.SentinelClient",
        "SENTINELS": [("127.0.0.1", 1)],
        "CONNECTION_POOL_CLASS": "redis.sentinel.SentinelConnectionPool",
    }
    cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://mymaster/0", "OPTIONS": options}
    with override_settings(CACHES={**settings.CACHES, "sessions": cache}), pytest.raises(EngineUnavailable):
        face(Store("k" * 32)).load()
