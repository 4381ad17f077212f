"""TLS with a certificate authority of one's own, on real servers: a cluster, and sentinels.

The Valkey of the wheel knows no TLS. These tests are run by hand where a `redis-server` that does is in the PATH.
"""

import ipaddress
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from django_multisession.backends.redis import SessionStore
from django_multisession.exceptions import EngineUnavailable
from django_multisession.records import utcnow
from django_multisession.testing.stored import saved, stored
from example_project.clusters import RedisCluster
from example_project.servers import RedisNode, RedisServer, free_port

from .test_clients import Sentinel

pytestmark = [pytest.mark.slow, pytest.mark.soak]


class TLS:
    """Nothing else is spoken on its port, nor between servers."""

    files: Path

    def command(self) -> list[str]:
        program = shutil.which("redis-server")
        assert program, "There is no redis-server."
        ports = "--port", "0", "--tls-port", str(self.port)  # type: ignore[attr-defined]
        return [program, *super().command()[1:], *ports, *options_of_tls()]  # type: ignore[misc]

    @property
    def url(self) -> str:
        return f"rediss://127.0.0.1:{self.port}/0?ssl_ca_certs={TLS.files}"  # type: ignore[attr-defined]


def options_of_tls() -> list[str]:
    pem = str(TLS.files)
    named = {"cert-file": pem, "key-file": pem, "ca-cert-file": pem, "auth-clients": "no"}
    return [part for name, value in named.items() for part in (f"--tls-{name}", value)] + ["--tls-replication", "yes"]


class Node(TLS, RedisNode):
    def command(self) -> list[str]:
        return [*super().command(), "--tls-cluster", "yes"]


class Server(TLS, RedisServer):
    pass


@pytest.fixture(scope="module", autouse=True)
def certificate(tmp_path_factory: Any) -> Path:
    """Its own authority, for 127.0.0.1; the key is in the same file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(utcnow() - timedelta(days=1))
        .not_valid_after(utcnow() + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    TLS.files = tmp_path_factory.mktemp("tls") / "server.pem"
    TLS.files.write_bytes(made.public_bytes(pem) + secret)
    return TLS.files


@pytest.fixture(scope="module")
def cluster(certificate: Path) -> Iterator[RedisCluster]:
    with RedisCluster(Node) as cluster:
        yield cluster


def assert_works(face: Any) -> None:
    for number in range(9):  # on each node
        assert stored(face, SessionStore, saved(face, SessionStore, a=number, _auth_user_id="9"))["a"] == number
    assert len(face.verbs(SessionStore).of_user("9")) == 9


def test_a_cluster(cluster, certificate, face):
    addresses = ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
    with override_settings(MULTISESSION_REDIS=f"rediss+cluster://{addresses}?ssl_ca_certs={certificate}"):
        SessionStore.storage.client.flushall(target_nodes="primaries")
        assert_works(face)
        ports = {node.port for node in SessionStore.storage.client.get_nodes()}
        assert ports == {node.port for node in cluster.nodes}


def test_a_cluster_whose_authority_is_unknown(cluster, face):
    url = f"rediss+cluster://127.0.0.1:{cluster.nodes[0].port}"
    with override_settings(MULTISESSION_REDIS=url), pytest.raises(EngineUnavailable, match="certificate"):
        face(SessionStore()).exists("a key of somebody")


def test_sentinels(certificate, face, tmp_path):
    """They speak TLS, and so does the primary behind them."""
    port, hidden = free_port(), free_port()
    of_it = "--replicaof", "127.0.0.1"
    with Server("--repl-diskless-sync-delay", "0") as primary, Server(*of_it, str(primary.port)):
        lines, options = [f"port {hidden}", f"tls-port {port}"], options_of_tls()
        lines += [f"{name[2:]} {value}" for name, value in zip(options[::2], options[1::2], strict=True)]
        lines += [f"sentinel monitor main 127.0.0.1 {primary.port} 1"]
        configuration = tmp_path / "sentinel.conf"
        configuration.write_text("\n".join(lines))
        tls = f"ssl_ca_certs={certificate}&sentinel_ssl=true&sentinel_ssl_ca_certs={certificate}"
        url = f"rediss+sentinel://127.0.0.1:{port}/main/2?{tls}"
        program = shutil.which("redis-server")
        with Sentinel(configuration, hidden, program), override_settings(MULTISESSION_REDIS=url):
            assert_works(face)
            assert SessionStore.storage.client.info("keyspace")["db2"]["keys"] == 10
