# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What clients read is read back by the real shell and the real ssh."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

from ansible_collections.dockyard.machine.plugins.module_utils import client_files
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import Machine
from ansible_collections.dockyard.machine.plugins.module_utils.store import Record, Store

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="needs the OpenSSH client")

STRANGE = ["plain", "with space", "it's", "a%d", "50%", "[glob]*?", "ünï", "$HOME", "a;b", "#hash", "a=b,c", "-dash", "~tilde"]


def make(folder: pathlib.Path, **fields: object) -> tuple[Record, Store]:
    store = Store(folder)
    record = Record.new("web1", "qemu", "me")
    record.machine = Machine(name="web1", driver="qemu", address="192.0.2.7", ssh_port=2222, ssh_user="debian")
    record.ssh_key_path = str(store.machine_dir("web1") / "id_ed25519")
    record.host_keys = "pinned"
    for key, value in fields.items():
        setattr(record if hasattr(record, key) else record.machine, key, value)
    return record, store


def ssh_reads(*arguments: str) -> dict[str, str]:
    """What ssh makes of its configuration."""
    output = subprocess.run(["ssh", "-G", *arguments], check=True, capture_output=True, text=True, timeout=20).stdout
    found: dict[str, str] = {}
    for line in output.splitlines():
        key, dummy, value = line.partition(" ")
        found.setdefault(key, value)
    return found


@pytest.mark.parametrize("path", [*STRANGE, 'quo"te', "back\\slash", "`id`", "$(id)", "${HOME}"])
def test_a_shell_reads_the_exports(path: str) -> None:
    text = client_files.env_exports("tcp://192.0.2.7:2376", f"/store/{path}", "web1")
    script = f'{text}printf "%s\\n" "$DOCKER_TLS_VERIFY" "$DOCKER_HOST" "$DOCKER_CERT_PATH" "$DOCKER_MACHINE_NAME"'
    shell = subprocess.run(["sh", "-eu", "-c", script], check=True, capture_output=True, text=True, env={}, timeout=20)
    assert shell.stdout.splitlines() == ["1", "tcp://192.0.2.7:2376", f"/store/{path}", "web1"]
    shell = subprocess.run(
        ["sh", "-c", text + "env"], check=True, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}, timeout=20
    )
    assert f"DOCKER_CERT_PATH=/store/{path}\n" in shell.stdout


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b", "a\x1bb"])
def test_control_characters_are_refused(bad: str) -> None:
    for values in ((bad, "/p", "n"), ("tcp://h:1", bad, "n"), ("tcp://h:1", "/p", bad)):
        with pytest.raises(MachineError) as caught:
            client_files.env_exports(*values)
        assert caught.value.code == "unsafe_value"


@needs_ssh
@pytest.mark.parametrize("folder", STRANGE)
def test_ssh_reads_the_configuration_through_the_include(tmp_path: pathlib.Path, folder: str) -> None:
    record, store = make(tmp_path / folder)
    store.save(record)
    found = ssh_reads("-F", str(store.path / "ssh_config"), "web1")
    assert (found["hostname"], found["port"], found["user"]) == ("192.0.2.7", "2222", "debian")
    assert found["hostkeyalias"] == "web1" and found["identitiesonly"] == "yes"
    assert found["stricthostkeychecking"] in ("true", "yes")
    # Some releases show percent signs before, some after expanding them.
    key, hosts = found["identityfile"].replace("%%", "%"), found["userknownhostsfile"].replace("%%", "%")
    assert key == str(store.machine_dir("web1") / "id_ed25519")
    assert hosts == str(store.known_hosts("web1"))


@needs_ssh
@pytest.mark.parametrize("folder", STRANGE)
def test_ssh_reads_the_arguments(tmp_path: pathlib.Path, folder: str) -> None:
    record, store = make(tmp_path / folder)
    found = ssh_reads("-F", "/dev/null", *client_files.ssh_arguments(record, store), "192.0.2.7")
    assert found["hostkeyalias"] == "web1" and found["stricthostkeychecking"] in ("true", "yes") and found["identitiesonly"] == "yes"
    assert found["userknownhostsfile"].replace("%%", "%") == str(store.known_hosts("web1"))


@needs_ssh
def test_another_host_is_not_concerned(tmp_path: pathlib.Path) -> None:
    record, store = make(tmp_path / "store")
    store.save(record)
    found = ssh_reads("-F", str(store.path / "ssh_config"), "web10")
    assert found["hostname"] == "web10" and found["port"] == "22" and "hostkeyalias" not in found


@needs_ssh
@pytest.mark.parametrize("address", ["2001:db8::1", "fe80::1%eth0", "host.example", "my_host", "192.0.2.7"])
def test_ssh_reads_every_kind_of_address(tmp_path: pathlib.Path, address: str) -> None:
    record, store = make(tmp_path / "store", address=address)
    store.save(record)
    assert ssh_reads("-F", str(store.path / "ssh_config"), "web1")["hostname"] == address


@pytest.mark.parametrize(
    "fields",
    [
        {"address": "1.2.3.4\nProxyCommand x"},
        {"address": "-oProxyCommand=x"},
        {"address": "a b"},
        {"address": '"x"'},
        {"ssh_user": "root\n"},
        {"ssh_user": "-l"},
        {"ssh_user": "a b"},
        {"ssh_key_path": '/a"b'},
        {"ssh_key_path": "/a\nb"},
        {"ssh_key_path": "/a\\"},
        {"ssh_key_path": "/${HOME}/x"},
    ],
)
def test_what_would_add_a_setting_is_refused(tmp_path: pathlib.Path, fields: dict[str, str]) -> None:
    record, store = make(tmp_path / "store", **fields)
    for call in (client_files.ssh_config, client_files.ssh_arguments):
        with pytest.raises(MachineError) as caught:
            call(record, store)
        assert caught.value.code == "unsafe_value"


def test_without_a_key_the_agent_is_asked(tmp_path: pathlib.Path) -> None:
    record, store = make(tmp_path / "store", ssh_key_path="")
    text = client_files.ssh_config(record, store)
    assert "IdentityFile" not in text and "IdentitiesOnly" not in text


def test_with_nothing_pinned_the_users_known_hosts_decide_but_strictly(tmp_path: pathlib.Path) -> None:
    record, store = make(tmp_path / "store", host_keys="")
    assert client_files.ssh_arguments(record, store) == ["-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes"]
    store.write(store.known_hosts("web1"), b"web1 ssh-ed25519 AAAA\n", 0o600)
    assert "HostKeyAlias=web1" in client_files.ssh_arguments(record, store)


def test_without_an_address_there_is_nothing(tmp_path: pathlib.Path) -> None:
    record, store = make(tmp_path / "store", address="")
    assert client_files.ssh_config(record, store) == "" and client_files.ssh_arguments(record, store) == []
    record.machine = None
    assert client_files.ssh_config(record, store) == ""
