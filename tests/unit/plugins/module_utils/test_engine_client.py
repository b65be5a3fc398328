# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a client says about good and bad engines: every one is a real TLS server on the loopback."""

from __future__ import annotations

import datetime
import json
import pathlib
import socket
import ssl
import threading
import typing as t

import pytest

from ansible_collections.dockyard.machine.plugins.module_utils import engine_client, pki
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError

pytest.importorskip("cryptography")
pytest.importorskip("docker")
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

VERSION = {"Version": "26.1.5", "ApiVersion": "1.45", "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64"}


class Server:
    """Answers /version on a free port of the loopback; ``tls`` None speaks plain HTTP."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self.tls = tls
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, dummy = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(plain,), daemon=True).start()

    def _answer(self, plain: socket.socket) -> None:
        try:
            with self.tls.wrap_socket(plain, server_side=True) if self.tls else plain as session:
                session.settimeout(10)
                if session.recv(4096):
                    body = json.dumps(VERSION).encode()
                    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                    session.sendall(head.encode() + body)
        except OSError:
            pass


class Place:
    """A store's certificates, and servers that use them."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.authority = pki.Authority(folder)
        self.authority.ensure_ca()
        self.authority.ensure_client()
        self.servers: list[Server] = []

    def tls(self, sans: t.Sequence[str] = ("127.0.0.1",), *, clients: pathlib.Path | None = None, **more: t.Any) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        pem = self.authority.sign_server(csr.public_bytes(serialization.Encoding.PEM), sans, "demo", **more)
        (self.folder / "server.pem").write_text(pem)
        (self.folder / "server-key.pem").write_bytes(pki._private_pem(key))
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.folder / "server.pem", self.folder / "server-key.pem")
        made.load_verify_locations(clients or self.folder / "ca.pem")
        made.verify_mode = ssl.CERT_REQUIRED
        return made

    def serve(self, tls: ssl.SSLContext | None) -> engine_client.Endpoint:
        server = Server(tls)
        self.servers.append(server)
        return engine_client.Endpoint("127.0.0.1", server.port, self.folder)


@pytest.fixture
def place(tmp_path: pathlib.Path) -> t.Iterator[Place]:
    made = Place(tmp_path / "certs")
    yield made
    for server in made.servers:
        server.listener.close()


def failure(call: t.Callable[[], t.Any]) -> MachineError:
    with pytest.raises(MachineError) as caught:
        call()
    return caught.value


def test_good_engine(place: Place) -> None:
    endpoint = place.serve(place.tls())
    assert engine_client.version(endpoint, 10)["version"] == "26.1.5"
    assert engine_client.anonymous_refused(endpoint, 10).startswith("refused: TLSV13_ALERT_CERTIFICATE_REQUIRED")
    # A server that is configured to speak nothing older says so by an internal error (OpenSSL of Debian).
    assert engine_client.old_tls_refused(endpoint, 10) in ("refused: TLSV1_ALERT_PROTOCOL_VERSION", "refused: TLSV1_ALERT_INTERNAL_ERROR")


def test_good_engine_with_tls_1_2_only(place: Place) -> None:
    tls = place.tls()
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    endpoint = place.serve(tls)
    assert engine_client.version(endpoint, 10)["version"] == "26.1.5"
    assert engine_client.anonymous_refused(endpoint, 10).startswith("refused: ")


def test_engine_that_lets_everybody_in(place: Place) -> None:
    tls = place.tls()
    tls.verify_mode = ssl.CERT_NONE
    assert failure(lambda: engine_client.anonymous_refused(place.serve(tls), 10)).code == "open_to_everybody"


def test_engine_that_speaks_old_tls(place: Place) -> None:
    tls = place.tls()
    tls.set_ciphers("ALL:@SECLEVEL=0")
    tls.minimum_version = ssl.TLSVersion.TLSv1
    assert failure(lambda: engine_client.old_tls_refused(place.serve(tls), 10)).code == "old_tls"


def test_wrong_address_names_the_right_ones(place: Place) -> None:
    endpoint = place.serve(place.tls(["web.example", "10.0.0.9"]))
    error = failure(lambda: engine_client.version(endpoint, 10))
    assert error.code == "certificate_names"
    assert "it is for 10.0.0.9, web.example" in error.message


def test_expired_and_future_certificates(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pki.now()
    monkeypatch.setattr(pki, "now", lambda: real + datetime.timedelta(days=10))
    assert failure(lambda: engine_client.version(place.serve(place.tls()), 10)).code == "clock_skew"
    monkeypatch.setattr(pki, "now", lambda: real)
    # One day of life lies in the past, and that is all it has.
    assert failure(lambda: engine_client.version(place.serve(place.tls(days=1)), 10)).code == "certificate_expired"


def test_other_authority(place: Place, tmp_path: pathlib.Path) -> None:
    other = Place(tmp_path / "other")
    endpoint = other.serve(other.tls())
    mine = engine_client.Endpoint("127.0.0.1", endpoint.port, place.folder)
    assert failure(lambda: engine_client.version(mine, 10)).code == "certificate_authority"
    other.servers[0].listener.close()


def test_engine_that_refuses_our_client_certificate(place: Place, tmp_path: pathlib.Path) -> None:
    other = Place(tmp_path / "other")
    endpoint = place.serve(place.tls(clients=other.folder / "ca.pem"))
    assert failure(lambda: engine_client.version(endpoint, 10)).code == "client_refused"


def test_no_tls(place: Place) -> None:
    assert failure(lambda: engine_client.version(place.serve(None), 10)).code == "no_tls"


def test_nobody_there(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    error = failure(lambda: engine_client.version(engine_client.Endpoint("127.0.0.1", port, place.folder), 10))
    assert isinstance(error, TransientError)
    assert "connection refused" in error.message


def test_silence_is_not_waited_for(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        endpoint = engine_client.Endpoint("127.0.0.1", mute.getsockname()[1], place.folder)
        error = failure(lambda: engine_client.version(endpoint, 0.3))
    assert isinstance(error, TransientError)
    assert "timed out" in error.message


def test_missing_client_files(tmp_path: pathlib.Path) -> None:
    assert failure(lambda: engine_client.version(engine_client.Endpoint("127.0.0.1", 1, tmp_path), 1)).code == "client_files"


def test_plain_port(place: Place) -> None:
    endpoint = place.serve(None)
    assert failure(lambda: engine_client.plain_closed("127.0.0.1", endpoint.port, 5)).code == "plain_port_open"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert engine_client.plain_closed("127.0.0.1", port, 5).startswith("closed: ")


def test_library_is_named_when_missing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_client, "DOCKER_ERROR", "No module named 'docker'")
    assert "pip install docker" in failure(lambda: engine_client.version(place.serve(place.tls()), 5)).message


def test_docker_machines_authority_is_not_judged_strictly(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ssl.create_default_context

    def strict(**more: t.Any) -> ssl.SSLContext:
        made = real(**more)
        made.verify_flags |= ssl.VERIFY_X509_STRICT
        return made

    monkeypatch.setattr(ssl, "create_default_context", strict)
    endpoint = engine_client.Endpoint("127.0.0.1", 1, place.folder)
    assert engine_client.context(endpoint).verify_flags & ssl.VERIFY_X509_STRICT
    monkeypatch.setattr(pki, "strict_enough", lambda pem: False)
    assert not engine_client.context(endpoint).verify_flags & ssl.VERIFY_X509_STRICT
