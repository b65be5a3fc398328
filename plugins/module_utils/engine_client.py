# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client's view of an engine: does it answer us over TLS, and does it refuse everybody else.

Runs on the controller. Errors say which of the many things that can be wrong with TLS is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import select
import socket
import ssl
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils import pki
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError

DOCKER_ERROR = ""
try:
    import docker
    import docker.errors
    import requests.adapters
    import requests.exceptions
except ImportError as import_error:
    DOCKER_ERROR = str(import_error)

# A server that sends no session tickets says nothing when it agrees.
_VERDICT_TIMEOUT = 2.0

# X509_V_ERR_* of OpenSSL's x509_vfy.h: (code, what a person reads, what to do).
_VERIFY_ERRORS: t.Final[dict[int, tuple[str, str, str]]] = {
    9: ("clock_skew", "its certificate is not valid yet", "Compare the clocks of the controller and the host"),
    10: (
        "certificate_expired",
        "its certificate has expired",
        "Run the role docker_engine again; if it says the same, check the controller's clock",
    ),
    62: ("certificate_names", "its certificate is not for this address", "Add the address to docker_engine_sans"),
    64: ("certificate_names", "its certificate is not for this address", "Add the address to docker_engine_sans"),
}
_UNKNOWN_AUTHORITY = (
    "certificate_authority",
    "its certificate is from another authority",
    "Is this the engine of this store? Run the role docker_engine",
)

# Alerts (RFC 8446, section 6.2) by which the engine refuses our client certificate, as OpenSSL spells them.
_ALERTS: t.Final[dict[str, str]] = {
    "UNKNOWN_CA": "it does not know the authority of our client certificate",
    "CERTIFICATE_EXPIRED": "to the host's clock our client certificate has expired, or is not valid yet",
    "BAD_CERTIFICATE": "it does not accept our client certificate (another authority, or the host's clock is wrong)",
    "CERTIFICATE_REQUIRED": "it wants a client certificate",
    "ACCESS_DENIED": "it does not accept our client certificate",
}


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where an engine answers, and with what we show who we are."""

    address: str
    port: int
    folder: pathlib.Path
    """Holds ``ca.pem``, ``cert.pem`` and ``key.pem``."""

    @property
    def where(self) -> str:
        """``ADDRESS:PORT`` for people."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def context(endpoint: Endpoint, *, anonymous: bool = False) -> ssl.SSLContext:
    """A TLS client context that trusts only the endpoint's authority.

    Args:
        endpoint: the engine.
        anonymous: leave our client certificate out.

    Raises:
        MachineError: ``client_files`` when the folder does not hold what it should.
    """
    ca = endpoint.folder / "ca.pem"
    try:
        made = ssl.create_default_context(cafile=str(ca))
        if not anonymous:
            made.load_cert_chain(endpoint.folder / "cert.pem", endpoint.folder / "key.pem")
        pem = ca.read_bytes()
    except (OSError, ssl.SSLError) as error:
        raise MachineError(
            "The client's certificates cannot be used",
            where=str(endpoint.folder),
            why=str(error),
            hint="Run the role docker_engine; it makes them",
            code="client_files",
        ) from error
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if not pki.strict_enough(pem):
        # Docker Machine's authorities carry no key identifier, which is all that the strict flag of Python 3.13 would object to.
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return made


def connect(endpoint: Endpoint, using: ssl.SSLContext, timeout: float) -> ssl.SSLSocket:
    """Open a TLS connection; raises what the socket raises."""
    plain = socket.create_connection((endpoint.address, endpoint.port), timeout=timeout)
    try:
        return using.wrap_socket(plain, server_hostname=endpoint.address if using.check_hostname else None)
    except BaseException:
        plain.close()
        raise


def await_verdict(session: ssl.SSLSocket, timeout: float) -> None:
    """With TLS 1.3 a server judges our certificate after our handshake is done: session tickets mean yes, an alert no.

    Whoever sends first may never see the alert, as the server closes a connection with unread data. Raises what the socket raises.
    """
    if session.version() != "TLSv1.3":
        return
    readable, dummy, dummy2 = select.select([session], [], [], min(timeout, _VERDICT_TIMEOUT))
    if not readable:
        return
    session.setblocking(False)
    try:
        if session.recv(1) == b"":
            raise ConnectionResetError("the connection was closed after the handshake")
    except ssl.SSLWantReadError:
        pass
    finally:
        session.settimeout(timeout)


def server_names(endpoint: Endpoint, timeout: float) -> list[str]:
    """The names in the certificate that the engine shows, unverified: only to explain a mismatch."""
    using = context(endpoint)
    using.check_hostname = False
    using.verify_mode = ssl.CERT_NONE
    with contextlib.suppress(OSError, ValueError), connect(endpoint, using, timeout) as session:
        shown = session.getpeercert(binary_form=True)
        return pki.certificate_sans(pki.load_der(shown)) if shown else []
    return []


def explain(error: OSError, endpoint: Endpoint, timeout: float) -> MachineError:
    """Turn what ssl or socket raised into an error that a person can act on.

    ``TransientError`` when waiting may help: nobody listens yet, or nothing answers.
    """
    what, where = "The engine cannot be used over TLS", endpoint.where
    if isinstance(error, ssl.SSLCertVerificationError):
        code, why, hint = _VERIFY_ERRORS.get(error.verify_code, _UNKNOWN_AUTHORITY)
        if code == "certificate_names":
            why = f"{why}; it is for {', '.join(server_names(endpoint, timeout)) or 'no name at all'}"
        return MachineError(what, where=where, why=f"{why} ({error.verify_message})", hint=hint, code=code)
    reason = str(getattr(error, "reason", "") or "")
    for alert, why in _ALERTS.items():
        if f"ALERT_{alert}" in reason:
            hint = "Run the role docker_engine again, and compare the clocks of the controller and the host"
            return MachineError(what, where=where, why=why, hint=hint, code="client_refused")
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return MachineError(what, where=where, why="what listens there does not speak TLS", hint="Is the port right?", code="no_tls")
    if isinstance(error, socket.gaierror):
        return MachineError(
            what, where=where, why=f"the name has no address ({error.strerror})", hint="Correct docker_engine_address", code="unknown_host"
        )
    hint = "Is a firewall between? The engine's port has to be open to the controller"
    return TransientError("The engine cannot be reached", where=where, why=_plain_reason(error), hint=hint, code="unreachable")


def _plain_reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "nothing answers (timed out)"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there (connection refused)"
    return error.strerror or str(error) or type(error).__name__


# --- what has to be true -------------------------------------------------------------------------------------------------------


def version(endpoint: Endpoint, timeout: float) -> dict[str, str]:
    """Ask the engine for its version with the docker SDK and our client certificate.

    Returns:
        ``{"version", "api_version", "min_api_version", "os", "arch"}``.

    Raises:
        MachineError: ``missing_library``, and those of :func:`explain`.
        TransientError: the engine may still come.
    """
    if DOCKER_ERROR:
        raise MachineError(
            "The Python library docker is missing on the controller",
            why=DOCKER_ERROR,
            hint="Install it into the Python that runs Ansible: pip install docker",
            code="missing_library",
        )
    using = context(endpoint)
    # The handshake alone first: its errors say exactly what is wrong, the library's do not.
    try:
        with connect(endpoint, using, timeout) as session:
            await_verdict(session, timeout)
        answer = _sdk_version(endpoint, using, timeout)
    except OSError as error:
        raise explain(error, endpoint, timeout) from error
    names = {"version": "Version", "api_version": "ApiVersion", "min_api_version": "MinAPIVersion", "os": "Os", "arch": "Arch"}
    return {ours: str(answer.get(theirs, "")) for ours, theirs in names.items()}


def _sdk_version(endpoint: Endpoint, using: ssl.SSLContext, timeout: float) -> dict[str, t.Any]:
    class Adapter(requests.adapters.HTTPAdapter):  # type: ignore[misc]
        """Gives the library our own context, so that every check uses the same rules."""

        def init_poolmanager(self, *args: t.Any, **kwargs: t.Any) -> None:
            """Called by requests."""
            super().init_poolmanager(*args, ssl_context=using, **kwargs)

    # No version negotiation: /version answers to every client, and an engine of tomorrow must not fail here.
    client = docker.APIClient(base_url=f"https://{endpoint.where}", version="1.44", timeout=timeout)
    try:
        client.trust_env = False
        client.verify = str(endpoint.folder / "ca.pem")
        client.mount("https://", Adapter())
        answer = client.version(api_version=False)
    except requests.exceptions.RequestException as error:
        raise _cause(error) from error
    except docker.errors.DockerException as error:
        raise MachineError("The engine answered with an error", where=endpoint.where, why=str(error), code="engine_error") from error
    finally:
        client.close()
    return dict(answer)


def _cause(error: BaseException) -> OSError:
    """The socket's or TLS error below the layers of requests and urllib3; an unknown one stands for itself."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (ssl.SSLError, ConnectionError, TimeoutError, socket.gaierror)):
            return seen
        inner = next((part for part in (*seen.args, getattr(seen, "reason", None)) if isinstance(part, BaseException)), None)
        seen = inner or seen.__cause__ or seen.__context__
    return OSError(str(error))


def _answers(session: socket.socket) -> bool:
    """Whether somebody answers HTTP on this connection."""
    session.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
    return session.recv(16).startswith(b"HTTP/")


def anonymous_refused(endpoint: Endpoint, timeout: float) -> str:
    """Whether a client without certificate is refused; how, in words.

    Raises:
        MachineError: ``open_to_everybody``.
    """
    try:
        with connect(endpoint, context(endpoint, anonymous=True), timeout) as session:
            await_verdict(session, timeout)
            answered = _answers(session)
    except OSError as error:
        return f"refused: {getattr(error, 'reason', None) or _plain_reason(error)}"
    if answered:
        raise MachineError(
            "The engine answers clients without certificate",
            where=endpoint.where,
            why="everybody who reaches the port controls the host",
            hint="Close the port at once; then look which file turned tlsverify off (systemctl cat docker, daemon.json)",
            code="open_to_everybody",
        )
    return "refused: connection closed"


def old_tls_refused(endpoint: Endpoint, timeout: float) -> str:
    """Whether TLS 1.1 is refused; how, in words. ``not tried`` when this Python cannot even offer it.

    Raises:
        MachineError: ``old_tls``.
    """
    using = context(endpoint)
    try:
        # OpenSSL hides TLS 1.1 behind security level 0; without it we would refuse ourselves, and prove nothing.
        using.set_ciphers("ALL:@SECLEVEL=0")
        using.minimum_version = ssl.TLSVersion.TLSv1
        using.maximum_version = ssl.TLSVersion.TLSv1_1
    except (ssl.SSLError, ValueError) as error:
        return f"not tried: {error}"
    try:
        connect(endpoint, using, timeout).close()
    except OSError as error:
        reason = str(getattr(error, "reason", None) or _plain_reason(error))
        return f"not tried: {reason}" if reason == "NO_PROTOCOLS_AVAILABLE" else f"refused: {reason}"
    raise MachineError(
        "The engine accepts TLS 1.1",
        where=endpoint.where,
        hint="Is a proxy in front of it? The engine itself speaks TLS 1.2 and newer",
        code="old_tls",
    )


def plain_closed(address: str, port: int, timeout: float) -> str:
    """Whether no engine answers without TLS on ``port``; how, in words.

    Raises:
        MachineError: ``plain_port_open``.
    """
    try:
        with socket.create_connection((address, port), timeout=timeout) as session:
            answered = _answers(session)
    except OSError as error:
        return f"closed: {_plain_reason(error)}"
    if answered:
        raise MachineError(
            "Something on the host answers HTTP without TLS on the engine's plain port",
            where=f"{address}:{port}",
            why="whoever reaches it controls the host, if it is the engine",
            hint="Look what listens there (ss -ltnp), and stop it",
            code="plain_port_open",
        )
    return "another service listens, which is no engine"
