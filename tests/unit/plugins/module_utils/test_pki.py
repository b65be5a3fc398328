# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate authority: what it makes, what it takes over, and what it refuses."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import multiprocessing
import pathlib
import shutil
import ssl
import stat
import subprocess
import sys
import textwrap

import pytest

from ansible_collections.dockyard.machine.plugins.module_utils import pki
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError

pytest.importorskip("cryptography")
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM


def request(key=None) -> tuple[bytes, bytes]:
    """A signing request as a host makes it, and its public key."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return csr.public_bytes(PEM), pki.public_bytes(key.public_key())


@pytest.fixture
def authority(tmp_path: pathlib.Path) -> pki.Authority:
    made = pki.Authority(tmp_path / "certs")
    made.ensure_ca()
    return made


def docker_machine_ca(folder: pathlib.Path, *, days: int = 1080, age: int = 0) -> None:
    """What Docker Machine 0.16 writes: RSA 2048 in PKCS#1, only an organization, no key identifiers."""
    folder.mkdir(parents=True, exist_ok=True)
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "you")])
    start = pki.now() - datetime.timedelta(days=age, minutes=5)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(True, False, True, False, True, True, False, False, False),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(certificate.public_bytes(PEM))
    (folder / "ca-key.pem").write_bytes(
        key.private_bytes(PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    )


# --- what it makes


def test_ca_profile(authority: pki.Authority) -> None:
    ca = authority.certificate
    assert isinstance(ca.public_key().curve, ec.SECP256R1)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and constraints.value.ca and constraints.value.path_length == 0
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical and usage.value.key_cert_sign and not usage.value.digital_signature
    assert (pki.ends(ca) - pki.begins(ca)).days == 3650
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in authority.ca_path.parent.iterdir()}
    assert modes == {"ca.pem": 0o644, "ca-key.pem": 0o600}
    assert stat.S_IMODE(authority.ca_path.parent.stat().st_mode) == 0o700


def test_server_profile(authority: pki.Authority) -> None:
    csr, public = request()
    pem = authority.sign_server(csr, ["10.0.0.5", "fd00::5", "Demo.Example."], "demo")
    (leaf,) = pki.load_certificates(pem)
    assert pki.public_bytes(leaf.public_key()) == public
    assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "demo"
    assert pki.certificate_sans(leaf) == ["10.0.0.5", "demo.example", "fd00::5"]
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    issuer_id = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == issuer_id
    assert (pki.ends(leaf) - pki.begins(leaf)).days == 397
    assert pki.now() - pki.begins(leaf) >= datetime.timedelta(hours=14), "clocks kept in local time are up to 14 hours off"
    assert pki.issued_by(leaf, authority.certificate)


def test_client_is_made_once_and_private(authority: pki.Authority) -> None:
    assert authority.ensure_client() == "there is none"
    before = authority.client_files()
    assert authority.ensure_client() == ""
    assert authority.client_files() == before
    assert stat.S_IMODE(authority.client_key_path.stat().st_mode) == 0o600
    (leaf,) = pki.load_certificates(before.certificate)
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert (pki.ends(leaf) - pki.begins(leaf)).days == 90
    assert b"PRIVATE" not in repr(before).encode()


def test_client_renewed_with_a_third_left(authority: pki.Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.ensure_client()
    before = authority.client_files()
    real = pki.now()
    monkeypatch.setattr(pki, "now", lambda: real + datetime.timedelta(days=58))
    assert authority.ensure_client() == ""
    monkeypatch.setattr(pki, "now", lambda: real + datetime.timedelta(days=60))
    assert "expires on" in authority.ensure_client()
    assert authority.client_files().key != before.key, "a new certificate brings a new key"
    assert authority.ensure_client() == ""


def test_client_of_a_killed_run_is_repaired(authority: pki.Authority) -> None:
    authority.ensure_client()
    other = ec.generate_private_key(ec.SECP256R1())
    authority.client_key_path.write_bytes(pki._private_pem(other))
    assert authority.ensure_client() == "belongs to another key"
    assert authority.ensure_client() == ""


def test_ca_of_a_killed_run_is_finished(authority: pki.Authority) -> None:
    key = authority.ca_key_path.read_bytes()
    authority.ca_path.unlink()
    again = pki.Authority(authority.ca_path.parent)
    assert again.ensure_ca()
    assert authority.ca_key_path.read_bytes() == key


# --- when a leaf is renewed


def reason(authority: pki.Authority, pem, sans=("demo",), public=None, **more) -> str:
    return pki.leaf_needs_renewal(pem, authority.certificate, sans, public, **more)


def test_good_leaf_is_kept(authority: pki.Authority) -> None:
    csr, public = request()
    pem = authority.sign_server(csr, ["demo", "10.0.0.1"], "demo")
    assert reason(authority, pem, ["10.0.0.1", "DEMO"], public) == ""


@pytest.mark.parametrize(
    ("sans", "expected"),
    [
        (["demo", "10.0.0.2"], "lacks 10.0.0.2; has names that are not wanted: 10.0.0.1"),
        (["demo"], "has names that are not wanted: 10.0.0.1"),
        (["demo", "10.0.0.1", "web.example"], "lacks web.example"),
    ],
)
def test_changed_names_are_said(authority: pki.Authority, sans: list[str], expected: str) -> None:
    csr, public = request()
    pem = authority.sign_server(csr, ["demo", "10.0.0.1"], "demo")
    assert reason(authority, pem, sans, public) == expected


def test_other_reasons(authority: pki.Authority, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csr, public = request()
    pem = authority.sign_server(csr, ["demo"], "demo")
    assert reason(authority, "") == "there is none"
    assert reason(authority, "nonsense") == "cannot be read"
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
    assert reason(authority, broken) == "cannot be read"
    assert reason(authority, pem, public=request()[1]) == "belongs to another key"
    other = pki.Authority(tmp_path / "other")
    other.ensure_ca()
    assert reason(other, pem, public=public) == "is from another authority"
    authority.ensure_client()
    assert reason(authority, authority.client_path.read_bytes()) == "has another purpose"
    real = pki.now()
    monkeypatch.setattr(pki, "now", lambda: real + datetime.timedelta(days=262))
    assert reason(authority, pem, public=public) == ""
    monkeypatch.setattr(pki, "now", lambda: real + datetime.timedelta(days=265))
    assert "expires on" in reason(authority, pem, public=public)
    monkeypatch.setattr(pki, "now", lambda: real + datetime.timedelta(days=400))
    assert "expired on" in reason(authority, pem, public=public)
    monkeypatch.setattr(pki, "now", lambda: real - datetime.timedelta(days=3))
    assert "not valid before" in reason(authority, pem, public=public)


# --- what it takes over


def test_docker_machine_authority_is_used(tmp_path: pathlib.Path) -> None:
    docker_machine_ca(tmp_path)
    before = (tmp_path / "ca.pem").read_bytes(), (tmp_path / "ca-key.pem").read_bytes()
    assert not pki.strict_enough(before[0])
    authority = pki.Authority(tmp_path)
    assert not authority.ensure_ca()
    authority.ensure_client()
    csr, public = request()
    pem = authority.sign_server(csr, ["demo"], "demo")
    assert reason(authority, pem, public=public) == ""
    (leaf,) = pki.load_certificates(pem)
    assert leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert pki.begins(leaf) >= pki.begins(authority.certificate), "a leaf begins no earlier than its authority"
    assert before == ((tmp_path / "ca.pem").read_bytes(), (tmp_path / "ca-key.pem").read_bytes())


def test_leaf_ends_with_its_authority(tmp_path: pathlib.Path) -> None:
    docker_machine_ca(tmp_path, age=1000)
    authority = pki.Authority(tmp_path)
    authority.ensure_ca()
    (leaf,) = pki.load_certificates(authority.sign_server(request()[0], ["demo"], "demo"))
    assert pki.ends(leaf) == pki.ends(authority.certificate)


def test_two_authorities_in_one_file(authority: pki.Authority, tmp_path: pathlib.Path) -> None:
    old = pki.Authority(tmp_path / "old")
    old.ensure_ca()
    both = old.ca_path.read_bytes() + authority.ca_path.read_bytes()
    authority.ca_path.write_bytes(both)
    again = pki.Authority(authority.ca_path.parent)
    again.ensure_ca()
    assert again.certificate == authority.certificate
    assert again.ca_pem == both
    pem = old.sign_server(request()[0], ["demo"], "demo")
    assert reason(again, pem) == "is from another authority"


# --- what it refuses


def refused(authority: pki.Authority, call=None) -> MachineError:
    with pytest.raises(MachineError) as caught:
        (call or authority.ensure_ca)()
    return caught.value


def test_expired_ca_is_kept_and_explained(tmp_path: pathlib.Path) -> None:
    docker_machine_ca(tmp_path, age=1100)
    before = sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir())
    error = refused(pki.Authority(tmp_path))
    assert error.code == "ca_expired"
    assert "Move ca.pem and ca-key.pem away" in error.message
    assert sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir()) == before


def test_following_the_advice_for_an_expired_ca_works(tmp_path: pathlib.Path) -> None:
    docker_machine_ca(tmp_path, age=1100)
    (tmp_path / "ca.pem").unlink()
    (tmp_path / "ca-key.pem").unlink()
    authority = pki.Authority(tmp_path)
    assert authority.ensure_ca()
    assert authority.ensure_client()


def test_ca_of_the_future(authority: pki.Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pki, "now", lambda: pki.begins(authority.certificate) - datetime.timedelta(days=1))
    assert refused(authority).code == "ca_not_yet_valid"


def test_mismatching_pair(authority: pki.Authority) -> None:
    authority.ca_key_path.write_bytes(pki._private_pem(ec.generate_private_key(ec.SECP256R1())))
    assert refused(pki.Authority(authority.ca_path.parent)).code == "ca_key_mismatch"


def test_missing_key_matters_only_for_signing(authority: pki.Authority) -> None:
    authority.ensure_client()
    authority.ca_key_path.unlink()
    shared = pki.Authority(authority.ca_path.parent)
    assert not shared.ensure_ca()
    assert shared.ensure_client() == ""
    assert refused(shared, lambda: shared.sign_server(request()[0], ["demo"], "demo")).code == "ca_key_missing"


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_broken_ca(authority: pki.Authority, content: bytes) -> None:
    authority.ca_path.write_bytes(content)
    assert refused(pki.Authority(authority.ca_path.parent)).code == "ca_invalid"


def test_key_with_passphrase(authority: pki.Authority) -> None:
    key = serialization.load_pem_private_key(authority.ca_key_path.read_bytes(), None)
    authority.ca_key_path.write_bytes(
        key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret"))
    )
    assert refused(pki.Authority(authority.ca_path.parent)).code == "key_encrypted"


@pytest.mark.parametrize("pem", ["", "nonsense", "short"])
def test_bad_request(authority: pki.Authority, pem: str) -> None:
    data = request(rsa.generate_private_key(65537, 1024))[0] if pem == "short" else pem
    assert refused(authority, lambda: authority.sign_server(data, ["demo"], "demo")).code == "csr_invalid"


@pytest.mark.parametrize("name", ["http://x", "a b", "x:2376", "-x", "", "a..b", "x" * 64, "*"])
def test_bad_names(name: str) -> None:
    with pytest.raises(MachineError) as caught:
        pki.normalize_san(name)
    assert caught.value.code == "invalid_san"


def test_names_are_canonical() -> None:
    assert pki.server_sans("demo", ["10.0.0.1", "[FD00:0::1]", "Web.Example.", "web.example", "", "*.apps.example"]) == [
        "*.apps.example", "10.0.0.1", "127.0.0.1", "::1", "demo", "fd00::1", "localhost", "web.example",
    ]  # fmt: skip


# --- many runs at once


def _lock(path: pathlib.Path):
    @contextlib.contextmanager
    def hold():
        with path.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    return hold


def _first_run(folder: str, barrier, answers) -> None:
    path = pathlib.Path(folder)
    authority = pki.Authority(path / "certs", _lock(path / "lock"))
    barrier.wait(30)
    authority.ensure_ca()
    authority.ensure_client()
    found = authority.client_files()
    key = serialization.load_pem_private_key(found.key, None)
    (leaf,) = pki.load_certificates(found.certificate)
    (ca,) = pki.load_certificates(found.ca)
    good = pki.issued_by(leaf, ca) and pki.public_bytes(key.public_key()) == pki.public_bytes(leaf.public_key())
    answers.put((found.ca, good))


@pytest.mark.parametrize("attempt", range(3))
def test_four_first_runs_make_one_authority(tmp_path: pathlib.Path, attempt: int) -> None:
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(4), context.Queue()
    runs = [context.Process(target=_first_run, args=(str(tmp_path), barrier, answers)) for number in range(4)]
    for run in runs:
        run.start()
    found = [answers.get(timeout=60) for run in runs]
    for run in runs:
        run.join(30)
        assert run.exitcode == 0
    assert len({ca for ca, good in found}) == 1
    assert all(good for ca, good in found)
    assert sorted(path.name for path in (tmp_path / "certs").iterdir()) == ["ca-key.pem", "ca.pem", "cert.pem", "key.pem"]


# --- what strict clients say

_HANDSHAKE = textwrap.dedent(
    """
    import ssl, sys
    folder, host, ca = sys.argv[1:]
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder + "/server.pem", folder + "/server-key.pem")
    server.load_verify_locations(ca)
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= ssl.VERIFY_X509_STRICT
    client = ssl.create_default_context(cafile=ca)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.load_cert_chain(folder + "/cert.pem", folder + "/key.pem")
    a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(a, b, server_hostname=host), server.wrap_bio(b, a, server_side=True)]
    done = set()
    for step in range(20):
        for end in ends:
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                pass
    assert len(done) == 2, "handshake did not end"
    ends[0].write(b"x")
    assert ends[1].read(1) == b"x"
    print("ok")
    """
)


def _pythons() -> list[str]:
    """This Python, and 3.13 where one is found: it is strict by itself."""
    installed = pathlib.Path.home().glob(".pyenv/versions/3.13.*/bin/python3.13")
    candidates = [sys.executable, shutil.which("python3.13") or "", *map(str, installed)]
    return [path for path in dict.fromkeys(candidates) if path]


def _works(python: str) -> bool:
    return subprocess.run([python, "-c", "import ssl"], capture_output=True, timeout=30, check=False).returncode == 0


@pytest.mark.parametrize("host", ["demo", "10.0.0.5", "fd00::5"])
@pytest.mark.parametrize("which", ["this", "3.13"])
def test_strict_handshake(authority: pki.Authority, host: str, which: str) -> None:
    pythons = [path for path in _pythons()[1:] if _works(path)] if which == "3.13" else [sys.executable]
    if not pythons:
        pytest.skip("no Python 3.13 here: its own strictness is not tried")
    folder = authority.ca_path.parent
    key = ec.generate_private_key(ec.SECP256R1())
    authority.ensure_client()
    (folder / "server-key.pem").write_bytes(pki._private_pem(key))
    (folder / "server.pem").write_text(authority.sign_server(request(key)[0], ["demo", "10.0.0.5", "fd00::5"], "demo"))
    command = [pythons[0], "-c", _HANDSHAKE, str(folder), host, str(authority.ca_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.stdout.strip() == "ok", run.stderr
    wrong = subprocess.run([*command[:4], "other", command[5]], capture_output=True, text=True, timeout=60, check=False)
    assert "CERTIFICATE_VERIFY_FAILED" in wrong.stderr


def test_tls_library_is_named_when_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(pki, "CRYPTOGRAPHY_ERROR", "No module named 'cryptography'")
    with pytest.raises(MachineError, match="pip install cryptography"):
        pki.Authority(tmp_path)


def test_openssl_agrees(authority: pki.Authority) -> None:
    if not ssl.OPENSSL_VERSION or not shutil.which("openssl"):
        pytest.skip("no openssl here")
    leaf = authority.ca_path.parent / "leaf.pem"
    leaf.write_text(authority.sign_server(request()[0], ["demo"], "demo"))
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(authority.ca_path), str(leaf)]
    assert subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
