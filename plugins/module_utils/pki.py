# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate authority of a store, and the certificates that it signs.

File names and places are Docker Machine's: ``ca.pem``, ``ca-key.pem``, ``cert.pem`` and ``key.pem`` in ``<store>/certs``. An authority
that Docker Machine made (RSA 2048, a subject without common name) is used as it is. Profiles follow RFC 5280 strictly enough for
Python 3.13, which refuses certificates without key identifiers.

Runs on the controller only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import getpass
import ipaddress
import pathlib
import re
import secrets
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils import files
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError

CRYPTOGRAPHY_ERROR = ""
try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as import_error:
    CRYPTOGRAPHY_ERROR = str(import_error)

if t.TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, CertificatePublicKeyTypes

CA_DAYS = 3650
SERVER_DAYS = 397
CLIENT_DAYS = 90
RENEW_FRACTION = 1 / 3
"""A leaf is renewed when no more than this part of its life is left."""

BACKDATE = datetime.timedelta(days=1)
"""How far before now a certificate begins.

Docker Machine took five minutes. Virtual machines whose clock is kept in local time are wrong by up to 14 hours until NTP has
corrected them, and would refuse a certificate "from the future". The day counts as part of the certificate's life, never on top.
"""

ORGANIZATION = "dockyard.machine"
MODE_PUBLIC = 0o644
MODE_SECRET = 0o600
# No honest PEM file of ours comes near.
_LIMIT = 1 << 20

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_DNS_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")

Lock = t.Callable[[], t.ContextManager[t.Any]]


def now() -> datetime.datetime:
    """The time as certificates count it: UTC, whole seconds."""
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def begins(certificate: x509.Certificate) -> datetime.datetime:
    """notBefore in UTC, with old and new versions of ``cryptography``."""
    if hasattr(certificate, "not_valid_before_utc"):
        return certificate.not_valid_before_utc
    return certificate.not_valid_before.replace(tzinfo=datetime.timezone.utc)


def ends(certificate: x509.Certificate) -> datetime.datetime:
    """notAfter in UTC, with old and new versions of ``cryptography``."""
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_after_utc
    return certificate.not_valid_after.replace(tzinfo=datetime.timezone.utc)


def _require_cryptography() -> None:
    if CRYPTOGRAPHY_ERROR:
        raise MachineError(
            "The Python library cryptography is missing on the controller",
            why=CRYPTOGRAPHY_ERROR,
            hint="Install it into the Python that runs Ansible: pip install cryptography",
            code="missing_library",
        )


# --- Names ---------------------------------------------------------------------------------------------------------------------


def normalize_san(name: str) -> str:
    """One subject alternative name in its canonical form: an IP address (without brackets) or a lower-case DNS name.

    Raises:
        MachineError: ``invalid_san``.
    """
    text = str(name).strip().strip("[]").lower().rstrip(".")
    with contextlib.suppress(ValueError):
        # A zone (fe80::1%eth0) means something on one host only; certificates know none.
        return str(ipaddress.ip_address(text.partition("%")[0]))
    try:
        ascii_name = text if text.isascii() else text.encode("idna").decode("ascii")
    except UnicodeError:
        ascii_name = ""
    labels = ascii_name.split(".")
    labels = labels[1:] if labels[0] == "*" and len(labels) > 2 else labels
    if not ascii_name or len(ascii_name) > 253 or not all(_DNS_LABEL.fullmatch(label) for label in labels):
        raise MachineError(
            f"{str(name)[:80]!r} cannot stand in a certificate",
            where="option sans",
            why="it is neither an IP address nor a DNS name",
            hint="Give addresses and names without port, scheme or path",
            code="invalid_san",
        )
    return ascii_name


def server_sans(name: str, extra: t.Iterable[str] = ()) -> list[str]:
    """The names of an engine's certificate: the machine's, those of the loopback, and ``extra``; canonical, sorted, unique."""
    return sorted({normalize_san(entry) for entry in (name, "localhost", "127.0.0.1", "::1", *extra) if str(entry).strip()})


def certificate_sans(certificate: x509.Certificate) -> list[str]:
    """The DNS names and addresses in a certificate, sorted; empty when it has none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return sorted([*names.get_values_for_type(x509.DNSName), *addresses])


# --- Reading -------------------------------------------------------------------------------------------------------------------


def load_certificates(pem: bytes | str) -> list[x509.Certificate]:
    """Every certificate in ``pem``; an empty list when there is none or one of them is broken."""
    data = pem.encode() if isinstance(pem, str) else pem
    try:
        return [x509.load_pem_x509_certificate(block) for block in _PEM.findall(data)]
    except ValueError:
        return []


def load_der(data: bytes) -> x509.Certificate:
    """One certificate in DER, as TLS libraries show it."""
    return x509.load_der_x509_certificate(data)


def strict_enough(ca_pem: bytes) -> bool:
    """Whether every authority in ``ca_pem`` has the key identifier that RFC 5280 asks for; Docker Machine's have none."""
    for certificate in load_certificates(ca_pem):
        try:
            certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound:
            return False
    return True


def public_bytes(key: CertificatePublicKeyTypes) -> bytes:
    """A public key in its one canonical form (DER SubjectPublicKeyInfo), to compare keys by."""
    return bytes(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def _load_request(csr_pem: str | bytes) -> x509.CertificateSigningRequest:
    data = csr_pem.encode() if isinstance(csr_pem, str) else csr_pem
    try:
        return x509.load_pem_x509_csr(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MachineError("The signing request cannot be read", why=str(error), code="csr_invalid") from error


def request_public_key(csr_pem: str | bytes) -> bytes:
    """The public key of a signing request, see :func:`public_bytes`.

    Raises:
        MachineError: ``csr_invalid``.
    """
    return public_bytes(_load_request(csr_pem).public_key())


def _read(path: pathlib.Path) -> bytes:
    """The file's content, empty when there is no file."""
    try:
        return files.read(path, _LIMIT)
    except FileNotFoundError:
        return b""


def _load_key(pem: bytes, path: pathlib.Path) -> CertificateIssuerPrivateKeyTypes:
    """Read an unencrypted private key, PKCS#8 or PKCS#1."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise MachineError(
            "The private key is protected by a passphrase",
            where=str(path),
            hint="Store it without one (openssl pkey -in FILE -out FILE), in a folder that only you can read",
            code="key_encrypted",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MachineError("The private key cannot be read", where=str(path), why=str(error), code="key_invalid") from error
    return t.cast("CertificateIssuerPrivateKeyTypes", key)


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether ``issuer``'s key signed ``certificate`` (names and signature; not the dates)."""
    if certificate.issuer != issuer.subject:
        return False
    key = issuer.public_key()
    signature, data, hash_algorithm = certificate.signature, certificate.tbs_certificate_bytes, certificate.signature_hash_algorithm
    try:
        if isinstance(key, rsa.RSAPublicKey) and hash_algorithm:
            key.verify(signature, data, padding.PKCS1v15(), hash_algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey) and hash_algorithm:
            key.verify(signature, data, ec.ECDSA(hash_algorithm))
        elif isinstance(key, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)):
            key.verify(signature, data)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


# --- Leaves --------------------------------------------------------------------------------------------------------------------


def _age_reason(certificate: x509.Certificate, renew_fraction: float) -> str:
    """Why the dates call for a new certificate, or an empty string."""
    moment, start, end = now(), begins(certificate), ends(certificate)
    if moment >= end:
        return f"expired on {end:%Y-%m-%d %H:%M} UTC"
    if moment < start:
        return f"not valid before {start:%Y-%m-%d %H:%M} UTC"
    if (end - moment) <= (end - start) * renew_fraction:
        return f"expires on {end:%Y-%m-%d %H:%M} UTC"
    return ""


def _profile_reason(certificate: x509.Certificate, usage: x509.ObjectIdentifier) -> str:
    """Why strict clients would refuse the certificate, or an empty string."""
    extensions = certificate.extensions
    try:
        purposes = list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound as error:
        return f"has no extension {getattr(error.oid, '_name', 'required by strict clients')}"
    return "" if purposes == [usage] else "has another purpose"


def _sans_reason(certificate: x509.Certificate, sans: t.Iterable[str]) -> str:
    """Which names are missing or too many, or an empty string."""
    actual, wanted = set(certificate_sans(certificate)), {normalize_san(name) for name in sans}
    parts = []
    if wanted - actual:
        parts.append(f"lacks {', '.join(sorted(wanted - actual))}")
    if actual - wanted:
        parts.append(f"has names that are not wanted: {', '.join(sorted(actual - wanted))}")
    return "; ".join(parts)


def leaf_needs_renewal(
    certificate_pem: str | bytes,
    issuer: x509.Certificate,
    sans: t.Iterable[str] | None,
    public_key: bytes | None,
    *,
    renew_fraction: float = RENEW_FRACTION,
    client: bool = False,
) -> str:
    """Why a leaf certificate has to be issued anew, in words; an empty string when it is good.

    Args:
        certificate_pem: the certificate as it is, or nothing.
        issuer: the authority that should have signed it.
        sans: the names it shall have, exactly; None when they don't matter (client certificates).
        public_key: see :func:`public_bytes`; None when the key need not be compared.
        renew_fraction: the part of its life that triggers renewal, 0 to 1.
        client: True for a client's certificate, False for a server's.
    """
    if not certificate_pem:
        return "there is none"
    found = load_certificates(certificate_pem)
    if not found:
        return "cannot be read"
    leaf = found[0]
    usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
    checks: list[t.Callable[[], str]] = [
        lambda: "" if public_key is None or public_bytes(leaf.public_key()) == public_key else "belongs to another key",
        lambda: "" if issued_by(leaf, issuer) else "is from another authority",
        lambda: _age_reason(leaf, renew_fraction),
        # A client certificate of Docker Machine serves every engine: only our servers meet strict clients.
        lambda: "" if client else _profile_reason(leaf, usage),
        lambda: "" if sans is None else _sans_reason(leaf, sans),
    ]
    return next((reason for reason in (check() for check in checks) if reason), "")


# --- The authority -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ClientFiles:
    """What a client needs to reach an engine: PEM, as it stands in the store."""

    ca: bytes
    certificate: bytes
    key: bytes = dataclasses.field(repr=False)


class Authority:
    """The certificate authority of one store, and its client certificate.

    Everything that writes happens under ``lock``; reading what is already good takes no lock, so that machines never wait for
    each other once the authority exists.

    Args:
        certs_dir: ``<store>/certs``; made when missing.
        lock: returns a context manager that keeps every other run out, such as ``lambda: store.lock("ca", 60)``.
        client_name: the common name of client certificates (authorization plugins see it as the user); default: who runs this.

    Raises:
        MachineError: ``missing_library``.
    """

    def __init__(self, certs_dir: pathlib.Path, lock: Lock = contextlib.nullcontext, *, client_name: str = "") -> None:
        _require_cryptography()
        self.ca_path = certs_dir / "ca.pem"
        self.ca_key_path = certs_dir / "ca-key.pem"
        self.client_path = certs_dir / "cert.pem"
        self.client_key_path = certs_dir / "key.pem"
        self._directory = certs_dir
        self._lock = lock
        self._client_name = client_name
        self._found: tuple[x509.Certificate, bytes] | None = None

    # -- the CA itself

    def ensure_ca(self) -> bool:
        """Make the authority unless it is there, and check it.

        Returns:
            True when it was made now.

        Raises:
            MachineError: ``ca_expired``, ``ca_not_yet_valid``, ``ca_invalid``, ``ca_key_mismatch``, ``ca_key_missing``.
        """
        made = False
        if not self.ca_path.exists():
            files.make_directory(self._directory)
            with self._lock():
                if not self.ca_path.exists():
                    self._make_ca()
                    made = True
        self._found = self._load_ca()
        return made

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate of the authority that signs."""
        return self._loaded()[0]

    @property
    def ca_pem(self) -> bytes:
        """The whole of ``ca.pem``: every authority that is trusted, as it stands in the store."""
        return self._loaded()[1]

    def _loaded(self) -> tuple[x509.Certificate, bytes]:
        if self._found is None:
            self._found = self._load_ca()
        return self._found

    def _load_ca(self) -> tuple[x509.Certificate, bytes]:
        bundle = _read(self.ca_path)
        found = load_certificates(bundle)
        if not found:
            raise MachineError(
                "The certificate authority cannot be read",
                where=str(self.ca_path),
                why="it holds no certificate" if bundle else "there is no such file",
                hint="Put the store's ca.pem back from a backup; every machine trusts only it",
                code="ca_invalid",
            )
        key = _read(self.ca_key_path)
        chosen = self._matching(found, key) if key else found[0]
        self._check_ca(chosen)
        return chosen, bundle

    def _matching(self, found: list[x509.Certificate], key_pem: bytes) -> x509.Certificate:
        """The certificate of the key; while two authorities overlap, ``ca.pem`` holds both."""
        public = public_bytes(_load_key(key_pem, self.ca_key_path).public_key())
        for certificate in found:
            if public_bytes(certificate.public_key()) == public:
                return certificate
        raise MachineError(
            "The authority's certificate and key do not belong together",
            where=f"{self.ca_path}, {self.ca_key_path}",
            hint="Put the pair back from one backup; nothing was changed",
            code="ca_key_mismatch",
        )

    def _check_ca(self, certificate: x509.Certificate) -> None:
        moment = now()
        if moment >= ends(certificate):
            raise MachineError(
                "The certificate authority has expired",
                where=str(self.ca_path),
                why=f"it was valid until {ends(certificate):%Y-%m-%d %H:%M} UTC, so no client trusts what it signs",
                hint=f"Move ca.pem and ca-key.pem away from {self._directory} and run again: a new authority is made, and every"
                " machine of this store that is provisioned gets a certificate of it; nothing was changed",
                code="ca_expired",
            )
        if moment < begins(certificate):
            raise MachineError(
                "The certificate authority is not valid yet",
                where=str(self.ca_path),
                why=f"it is valid from {begins(certificate):%Y-%m-%d %H:%M} UTC, and here it is {moment:%Y-%m-%d %H:%M} UTC",
                hint="Set the controller's clock",
                code="ca_not_yet_valid",
            )
        try:
            is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (x509.ExtensionNotFound, ValueError):
            is_ca = False
        if not is_ca:
            raise MachineError(
                "The certificate may not sign others", where=str(self.ca_path), why="it is no authority (CA:TRUE)", code="ca_invalid"
            )

    def _signing_key(self) -> CertificateIssuerPrivateKeyTypes:
        pem = _read(self.ca_key_path)
        if not pem:
            raise MachineError(
                "The authority's private key is missing",
                where=str(self.ca_key_path),
                why="without it no certificate can be issued or renewed",
                hint="Copy ca-key.pem from the store that made the authority",
                code="ca_key_missing",
            )
        return _load_key(pem, self.ca_key_path)

    def _make_ca(self) -> None:
        """The key is written first: a run killed in between leaves a key without certificate, for which one is made then."""
        left = _read(self.ca_key_path)
        key = _load_key(left, self.ca_key_path) if left else ec.generate_private_key(ec.SECP256R1())
        subject = _name(f"{ORGANIZATION} CA {secrets.token_hex(4)}")
        start = now() - BACKDATE
        public = key.public_key()
        builder = (
            _builder(subject, subject, public, start, start + datetime.timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        )
        certificate = builder.sign(key, _hash_for(key))
        if not left:
            files.write(self.ca_key_path, _private_pem(key), MODE_SECRET)
        files.write(self.ca_path, certificate.public_bytes(serialization.Encoding.PEM), MODE_PUBLIC)

    # -- leaves

    def sign_server(self, csr_pem: str | bytes, sans: t.Iterable[str], name: str, *, days: int = SERVER_DAYS) -> str:
        """Sign an engine's request. Only its key is taken from it; names and usage are ours.

        Args:
            csr_pem: the PKCS#10 request in PEM.
            sans: DNS names and addresses.
            name: the machine's name, the common name.
            days: the whole life, :data:`BACKDATE` included; it ends no later than the authority.

        Returns:
            The certificate in PEM.

        Raises:
            MachineError: ``csr_invalid``, ``invalid_san``, and those of :meth:`ensure_ca`.
        """
        request = _load_request(csr_pem)
        valid = request.is_signature_valid
        public = request.public_key()
        weak = (isinstance(public, rsa.RSAPublicKey) and public.key_size < 2048) or (
            isinstance(public, ec.EllipticCurvePublicKey) and public.key_size < 256
        )
        if not valid or weak:
            raise MachineError(
                "The signing request is refused",
                where=name,
                why="its key is too short" if weak else "its signature is wrong",
                code="csr_invalid",
            )
        names = sorted({normalize_san(entry) for entry in sans})
        return self._sign(public, name, days, ExtendedKeyUsageOID.SERVER_AUTH, names).decode("ascii")

    def _sign(self, public: CertificatePublicKeyTypes, name: str, days: int, usage: x509.ObjectIdentifier, sans: list[str]) -> bytes:
        key, issuer = self._signing_key(), self.certificate
        start = now() - BACKDATE
        # A leaf that outlives or precedes its authority is worth nothing outside of the authority's life.
        end = min(start + datetime.timedelta(days=days), ends(issuer))
        builder = (
            _builder(_name(name), issuer.subject, public, max(start, begins(issuer)), end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(_authority_identifier(issuer), critical=False)
        )
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(san) for san in sans]), critical=False)
        return builder.sign(key, _hash_for(key)).public_bytes(serialization.Encoding.PEM)

    # -- the client

    def client_renewal(self, renew_fraction: float = RENEW_FRACTION) -> str:
        """Why the client certificate has to be issued anew; empty when it is good."""
        key_pem = _read(self.client_key_path)
        if not key_pem:
            return "there is none"
        public = public_bytes(_load_key(key_pem, self.client_key_path).public_key())
        return leaf_needs_renewal(_read(self.client_path), self.certificate, None, public, renew_fraction=renew_fraction, client=True)

    def ensure_client(self, *, days: int = CLIENT_DAYS, renew_fraction: float = RENEW_FRACTION, force: bool = False) -> str:
        """Make or renew the client certificate, with a new key each time.

        Returns:
            Why it was made, or an empty string when it was good.

        Raises:
            MachineError: those of :meth:`ensure_ca`, ``ca_key_missing``.
        """
        if not force and not self.client_renewal(renew_fraction):
            return ""
        with self._lock():
            reason = "forced" if force else self.client_renewal(renew_fraction)
            if reason:
                key = ec.generate_private_key(ec.SECP256R1())
                certificate = self._sign(key.public_key(), self._client(), days, ExtendedKeyUsageOID.CLIENT_AUTH, [])
                files.write(self.client_key_path, _private_pem(key), MODE_SECRET)
                files.write(self.client_path, certificate, MODE_PUBLIC)
        return reason

    def client_files(self) -> ClientFiles:
        """CA, client certificate and key as they belong together, even while another run renews them."""
        with self._lock():
            return ClientFiles(_read(self.ca_path), _read(self.client_path), _read(self.client_key_path))

    def _client(self) -> str:
        if self._client_name:
            return self._client_name[:64]
        try:
            return getpass.getuser()[:64]
        except (OSError, KeyError):
            # A container may run under a user id without name.
            return "client"


# --- Building blocks -----------------------------------------------------------------------------------------------------------


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION), x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: CertificatePublicKeyTypes,
    start: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    """What every certificate has, its own key identifier included."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _authority_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The issuer's own key identifier; Docker Machine's authorities have none, then it is computed."""
    try:
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(t.cast("t.Any", issuer.public_key()))
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _general_name(san: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(san))
    except ValueError:
        return x509.DNSName(san)


def _key_usage(*usages: str) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{usage: usage in usages for usage in every})


def _hash_for(key: CertificateIssuerPrivateKeyTypes) -> t.Any:
    """The hash to sign with: None for keys that bring their own."""
    if isinstance(key, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size >= 384:
        return hashes.SHA384()
    return hashes.SHA256()


def _private_pem(key: ec.EllipticCurvePrivateKey | t.Any) -> bytes:
    pem: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem
