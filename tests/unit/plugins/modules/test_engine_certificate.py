# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's half of engine_certificate, with the real openssl, in a folder of the test's own."""

from __future__ import annotations

import pathlib
import shutil
import stat
import typing as t

import pytest

from ansible_collections.dockyard.machine.plugins.module_utils import engine_service, pki
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.modules import engine_certificate as module

pytest.importorskip("cryptography")
pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl here: nothing of the host's half is tried")


class Host:
    """A host's folder, and the authority that signs for it."""

    def __init__(self, path: pathlib.Path) -> None:
        self.folder = path / "docker"
        self.authority = pki.Authority(path / "certs")
        self.authority.ensure_ca()

    def prepare(self, *, check_mode: bool = False, force: bool = False) -> dict[str, t.Any]:
        return module.prepare({"name": "demo", "certificate_dir": str(self.folder), "force": force}, check_mode)

    def install(self, csr: str) -> str:
        certificate = self.authority.sign_server(csr, ["demo"], "demo")
        ca = self.authority.ca_pem.decode()
        module.install({"certificate_dir": str(self.folder), "certificate": certificate, "ca": ca})
        return certificate

    def files(self) -> dict[str, int]:
        return {path.name: stat.S_IMODE(path.stat().st_mode) for path in self.folder.iterdir()}

    def reason(self) -> str:
        seen = self.prepare()
        key = pki.request_public_key(seen["csr"])
        return seen["key_problem"] or pki.leaf_needs_renewal(seen["certificate"], self.authority.certificate, ["demo"], key)


@pytest.fixture
def host(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(engine_service, "RESTART_MARKER", tmp_path / "run" / "engine-restart")
    return Host(tmp_path)


def test_first_certificate(host: Host) -> None:
    seen = host.prepare()
    assert seen["key_problem"] == "there is none"
    assert host.files() == {".server-key.pem.new": 0o400}, "the key waits for its certificate"
    assert not engine_service.restart_marked()
    host.install(seen["csr"])
    assert host.files() == {"server-key.pem": 0o400, "server.pem": 0o444, "ca.pem": 0o444}
    assert engine_service.restart_marked(), "a run that is killed now restarts the engine next time"
    assert host.reason() == ""
    assert host.prepare()["modes_right"]
    assert "PRIVATE" not in str(host.prepare())


def test_check_mode_touches_nothing(host: Host) -> None:
    assert host.prepare(check_mode=True)["key_problem"] == "there is none"
    assert not host.folder.exists()


def test_killed_between_the_two_halves(host: Host) -> None:
    first = host.prepare()
    second = host.prepare()
    assert pki.request_public_key(first["csr"]) == pki.request_public_key(second["csr"]), "the waiting key is used"
    host.install(second["csr"])
    assert host.reason() == ""


def test_killed_while_installing(host: Host) -> None:
    host.install(host.prepare()["csr"])
    seen = host.prepare(force=True)
    # The key was already renamed, the certificate not yet replaced.
    (host.folder / ".server-key.pem.new").rename(host.folder / "server-key.pem")
    assert host.reason() == "belongs to another key"
    host.install(host.prepare()["csr"])
    assert host.reason() == ""
    assert seen["csr"]


def test_forced_renewal_brings_a_new_key_and_keeps_the_pair_whole(host: Host) -> None:
    old = host.install(host.prepare()["csr"])
    before = (host.folder / "server-key.pem").read_bytes()
    seen = host.prepare(force=True)
    assert (host.folder / "server-key.pem").read_bytes() == before
    assert (host.folder / "server.pem").read_text() == old
    host.install(seen["csr"])
    assert (host.folder / "server-key.pem").read_bytes() != before
    assert host.reason() == ""


@pytest.mark.parametrize("mode", [0o644, 0o440, 0o404])
def test_a_key_that_others_could_read_is_replaced(host: Host, mode: int) -> None:
    host.install(host.prepare()["csr"])
    before = (host.folder / "server-key.pem").read_bytes()
    (host.folder / "server-key.pem").chmod(mode)
    seen = host.prepare()
    assert seen["key_problem"] == "others could read it"
    host.install(seen["csr"])
    assert (host.folder / "server-key.pem").read_bytes() != before
    assert host.files()["server-key.pem"] == 0o400


def test_a_broken_key_is_replaced(host: Host) -> None:
    host.install(host.prepare()["csr"])
    key = host.folder / "server-key.pem"
    key.unlink()
    key.write_text("nonsense")
    key.chmod(0o400)
    seen = host.prepare()
    assert seen["key_problem"] == "it cannot be read"
    host.install(seen["csr"])
    assert host.reason() == ""


def test_wrong_modes_are_seen(host: Host) -> None:
    host.install(host.prepare()["csr"])
    (host.folder / "ca.pem").chmod(0o600)
    assert not host.prepare()["modes_right"]


def test_a_certificate_of_another_key_is_refused(host: Host, tmp_path: pathlib.Path) -> None:
    host.install(host.prepare()["csr"])
    other = Host(tmp_path / "other")
    before = {path.name: path.read_bytes() for path in host.folder.iterdir()}
    with pytest.raises(MachineError) as caught:
        host.install(other.prepare()["csr"])
    assert caught.value.code == "key_mismatch"
    assert before == {path.name: path.read_bytes() for path in host.folder.iterdir()}
    assert set(before) == {"server-key.pem", "server.pem", "ca.pem"}


def test_missing_openssl_is_named(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_service, "command", lambda *a, **k: engine_service.Completed(127, "", "openssl: not found"))
    with pytest.raises(MachineError) as caught:
        host.prepare()
    assert caught.value.code == "openssl_missing"
