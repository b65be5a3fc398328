# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge an engine's endpoint from outside, with nothing of the collection: exits non-zero at the first thing wrong.

    tls_probe.py ADDRESS CERTIFICATES [IMAGE_TAR]

CERTIFICATES is a folder with ca.pem, cert.pem and key.pem. With IMAGE_TAR an image is imported and a container run.
Prints JSON: version, protocol and what the container said.
"""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import warnings

PORT = 2376
TIMEOUT = 20


def context(folder: pathlib.Path, *, certificate: str = "", version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client that trusts the store's authority alone and shows the certificate of a folder, or none."""
    made = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    # What newer Pythons ask by default: key identifiers and extensions as RFC 5280 wants them.
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    if certificate:
        made.load_cert_chain(f"{certificate}/cert.pem", f"{certificate}/key.pem")
    if version:
        warnings.simplefilter("ignore", DeprecationWarning)
        made.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        made.maximum_version = version
        # OpenSSL offers old versions only at this level; without it this side would refuse and prove nothing.
        made.set_ciphers("ALL:@SECLEVEL=0")
    return made


def get(address: str, client: ssl.SSLContext, path: str = "/version") -> tuple[int, bytes]:
    connection = http.client.HTTPSConnection(address, PORT, timeout=TIMEOUT, context=client)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def refused(address: str, client: ssl.SSLContext, what: str) -> None:
    """The server ends the handshake with an alert; a connection that is not there at all would prove nothing."""
    with socket.create_connection((address, PORT), timeout=TIMEOUT) as raw:
        try:
            with client.wrap_socket(raw, server_hostname=address) as secured:
                # With TLS 1.3 our side is done before the server judges; reading, not writing, is what shows its alert.
                secured.settimeout(3)
                secured.recv(1)
        except TimeoutError:
            sys.exit(f"{what}: the server waits for a request")
        except ssl.SSLError as error:
            if "ALERT" not in str(error).upper():
                sys.exit(f"{what}: ended by {error}, which is not the server's refusal")
            return
    sys.exit(f"{what}: the connection ended without a refusal")


def closed(address: str, port: int) -> None:
    try:
        socket.create_connection((address, port), timeout=TIMEOUT).close()
    except ConnectionRefusedError:
        return
    sys.exit(f"port {port} is open")


def stranger(folder: pathlib.Path) -> str:
    """A client certificate of an authority that the engine does not know."""
    subject = ["-subj", "/CN=stranger", "-days", "2", "-addext", "extendedKeyUsage=clientAuth"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject, *files]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    return str(folder)


def container(address: str, folder: pathlib.Path, tar: str) -> str:
    import docker

    tls = docker.tls.TLSConfig(client_cert=(f"{folder}/cert.pem", f"{folder}/key.pem"), ca_cert=f"{folder}/ca.pem", verify=True)
    client = docker.DockerClient(base_url=f"https://{address}:{PORT}", tls=tls, version="auto", timeout=60)
    if not client.images.list("probe"):
        client.api.import_image_from_file(tar, repository="probe", tag="1")
    # Not containers.run(): it shows no output of the log driver "local".
    made = client.containers.create("probe:1", ["/bin/busybox", "echo", "container says hello"])
    try:
        made.start()
        made.wait(timeout=60)
        said: bytes = made.logs()
    finally:
        made.remove(force=True)
    return said.decode().strip()


def main() -> None:
    # requests prefers this variable to the CA that the docker library is given.
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        os.environ.pop(name, None)
    address, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    status, body = get(address, context(folder, certificate=str(folder)))
    if status != 200:
        sys.exit(f"with our certificate: {status} {body!r}")
    result = {"version": json.loads(body)["Version"]}
    with socket.create_connection((address, PORT), timeout=TIMEOUT) as raw:
        with context(folder, certificate=str(folder)).wrap_socket(raw, server_hostname=address) as secured:
            result["protocol"] = secured.version()
            result["serial"] = ssl.DER_cert_to_PEM_cert(secured.getpeercert(True))
    refused(address, context(folder), "without a client certificate")
    with tempfile.TemporaryDirectory() as scratch:
        refused(address, context(folder, certificate=stranger(pathlib.Path(scratch))), "with a stranger's certificate")
    refused(address, context(folder, certificate=str(folder), version=ssl.TLSVersion.TLSv1_1), "with TLS 1.1")
    closed(address, 2375)
    if len(sys.argv) > 3:
        result["said"] = container(address, folder, sys.argv[3])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
