# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys against ssh-keygen, the program that has to read them."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

from ansible_collections.dockyard.machine.plugins.module_utils import ssh_keys
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_ssh_keygen_reads_our_key_and_agrees_on_its_fingerprint(tmp_path: pathlib.Path) -> None:
    pair = ssh_keys.generate("web1")
    path = tmp_path / "key"
    path.write_text(pair.private)
    path.chmod(0o600)
    public = subprocess.run(["ssh-keygen", "-y", "-f", str(path)], capture_output=True, text=True, check=True).stdout
    assert ssh_keys.public_key(public) == ssh_keys.public_key(pair.public)
    listed = subprocess.run(["ssh-keygen", "-l", "-f", str(path)], capture_output=True, text=True, check=True).stdout
    assert listed.split()[1] == ssh_keys.fingerprint(pair.public)


def test_known_hosts_round_trip() -> None:
    keys = [ssh_keys.public_key(ssh_keys.generate("x").public) for dummy in range(2)]
    text = ssh_keys.known_hosts("web1", keys)
    assert text.splitlines()[0] == f"web1 {keys[0]}"
    assert ssh_keys.parse_known_hosts("# comment\n@revoked web1 ssh-rsa AAAA\nbroken\n" + text) == keys


@pytest.mark.parametrize("text", ["", "ssh-ed25519", "ssh-ed25519 not-base64!", "-----BEGIN OPENSSH PRIVATE KEY-----"])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(MachineError) as caught:
        ssh_keys.public_key(text)
    assert caught.value.code == "invalid_key"
