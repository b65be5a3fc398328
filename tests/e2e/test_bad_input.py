# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users get wrong, and what goes wrong around them: one clear message each, and nothing lost or half-made."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import typing as t

import pytest
from conftest import Run, World
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOSTS = pathlib.Path(__file__).parents[1] / "hosts" / "hosts.py"
GOOD = "e2e-good"


def hosts(*args: str) -> t.Any:
    """The program that keeps test hosts."""
    done = subprocess.run([sys.executable, str(HOSTS), *args], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def host() -> t.Iterator[dict[str, t.Any]]:
    """One Debian host with systemd and SSH."""
    found = json.loads(hosts("up", GOOD, "--image", "debian-12"))
    yield {entry["name"]: entry for entry in found}[GOOD]
    hosts("down", GOOD)


def on_host(*command: str) -> str:
    """Run something on the host as root, past SSH."""
    return str(hosts("exec", GOOD, *command))


@pytest.fixture
def inventory(world: World, host: dict[str, t.Any]) -> pathlib.Path:
    """The host in an inventory, as a user would write it."""
    path = world.folder / "hosts.json"
    variables = {
        "ansible_host": host["address"],
        "ansible_user": host["user"],
        "ansible_ssh_private_key_file": host["key"],
        "machine_driver": "generic",
        "machine_wait_timeout": 60,
    }
    path.write_text(json.dumps({"machines": {"hosts": {GOOD: variables}}}))
    return path


def only_message(done: Run) -> str:
    """The one message of a run that failed as it should: no traceback, short, with what to do."""
    assert done.code != 0, done.output
    assert "Traceback" not in done.output, done.output
    assert len(done.messages) == 1, done.output
    message = done.messages[0]
    assert 20 < len(message) < 900, message
    return message


def provision_vm(world: World, **more: t.Any) -> Run:
    """A machine that must not come to be."""
    return world.play("provision", **{"machine_name": "web1", "machine_driver": "qemu", "qemu_image": "/nonexistent/image.qcow2", **more})


def nothing_made(world: World, name: str = "web1") -> None:
    """No record, no folder, no process."""
    assert not (world.store / "machines" / name).exists()
    assert list(world.machines.glob(f"**/{name}")) == []
    assert world.virtual_machines() == []


# --- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"machine_name": "Bad_Name"}, ["'Bad_Name'", "lower-case", "Choose another name"]),
        ({"machine_name": "-x"}, ["'-x'"]),
        ({"machine_name": "a" * 64}, ["is not valid"]),
        ({"machine_driver": "qemo"}, ["'qemo'", "ansible-doc"]),
        ({"machine_driver": "nobody.nothing.server"}, ["nobody.nothing.server"]),
        ({"qemu_memory": "plenty"}, ["memory", "int"]),
        ({"machine_options": {"memroy": 1}}, ["memroy", "memory"]),
        ({}, ["/nonexistent/image.qcow2"]),
        ({"machine_user_data": "hello"}, ["user_data"]),
    ],
    ids=["name", "name-dash", "name-long", "driver", "foreign-driver", "type", "unknown-option", "image", "user-data"],
)
def test_an_option_is_wrong(world: World, variables: dict[str, t.Any], words: list[str]) -> None:
    message = only_message(provision_vm(world, **variables))
    for word in words:
        assert word in message
    nothing_made(world, variables.get("machine_name", "web1"))


def test_the_image_has_another_checksum(world: World, tmp_path: pathlib.Path) -> None:
    image = tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "10M"], check=True)
    message = only_message(provision_vm(world, qemu_image=str(image), qemu_image_checksum="sha256:" + "0" * 64))
    assert "checksum" in message
    assert image.exists()
    nothing_made(world)


def test_the_port_is_taken(world: World, tmp_path: pathlib.Path) -> None:
    image = tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "10M"], check=True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = only_message(provision_vm(world, qemu_image=str(image), qemu_ssh_port=port))
    assert str(port) in message
    nothing_made(world)


def test_qemu_is_not_installed(world: World, tmp_path: pathlib.Path) -> None:
    image = tmp_path / "image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "10M"], check=True)
    bare = tmp_path / "bin"
    bare.mkdir()
    for folder in ("/bin", "/usr/bin", "/sbin", "/usr/sbin"):
        for program in pathlib.Path(folder).iterdir():
            if not program.name.startswith("qemu") and not (bare / program.name).exists():
                (bare / program.name).symlink_to(program)
    path = f"{pathlib.Path(sys.executable).parent}:{bare}"
    done = subprocess.run(
        [str(pathlib.Path(sys.executable).parent / "ansible-playbook"), *world.command("provision")[1:-2]]
        + ["-e", json.dumps({"machine_name": "web1", "machine_driver": "qemu", "qemu_image": str(image)})],
        env={**world.env, "PATH": path},
        cwd=world.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    message = only_message(Run(done.returncode, done.stdout + done.stderr))
    assert "qemu-system" in message
    assert "install" in message.lower()
    nothing_made(world)


# --- the store -----------------------------------------------------------------------------------------------------


def test_the_name_belongs_to_a_machine_of_another_driver(world: World, inventory: pathlib.Path) -> None:
    first = world.play("provision", "-i", str(inventory), provision_engine=False)
    assert first.code == 0, first.output
    before = (world.store / "machines" / GOOD / "dockyard.json").read_bytes()
    message = only_message(provision_vm(world, machine_name=GOOD))
    assert "generic" in message and "qemu" in message
    assert (world.store / "machines" / GOOD / "dockyard.json").read_bytes() == before


def test_another_run_holds_the_machine(world: World, inventory: pathlib.Path) -> None:
    lock = world.store / "locks" / f"{GOOD}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(json.dumps({"pid": os.getpid(), "host": "elsewhere", "since": "today", "purpose": "a test"}))
        held.flush()
        message = only_message(world.play("provision", "-i", str(inventory), machine_lock_timeout=2, provision_engine=False))
    assert str(os.getpid()) in message and "elsewhere" in message


def test_a_corrupt_record_hides_no_other_machine(world: World, inventory: pathlib.Path) -> None:
    broken = world.store / "machines" / "broken"
    broken.mkdir(mode=0o700)
    (broken / "config.json").write_text("{half a")
    (world.folder / "machines.yml").write_text("plugin: dockyard.machine.machines\n")
    listed = world.run("ansible-inventory", "-i", str(world.folder / "machines.yml"), "--list")
    assert GOOD in json.loads(listed.stdout)["_meta"]["hostvars"]
    assert "broken" in listed.stderr
    message = only_message(world.play("rm", machine_name="broken"))
    assert str(broken / "config.json") in message
    assert (broken / "config.json").read_text() == "{half a"
    shutil.rmtree(broken)


# --- the host ------------------------------------------------------------------------------------------------------


def test_the_host_does_not_answer(world: World, inventory: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    # Nobody listens there any more.
    message = only_message(
        world.play(
            "provision",
            machine_name="nowhere",
            machine_driver="generic",
            generic_address="127.0.0.1",
            generic_ssh_port=port,
            machine_wait_timeout=4,
        )
    )
    assert "nowhere" in message and "refused" in message and "4 s" in message.replace("5 s", "4 s")
    world.play("rm", machine_name="nowhere")


def test_the_ssh_key_is_the_wrong_one(world: World, inventory: pathlib.Path, tmp_path: pathlib.Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    message = only_message(world.play("provision", "-i", str(inventory), ansible_ssh_private_key_file=str(key)))
    assert "permission denied" in message and GOOD in message


def test_the_host_key_has_changed(world: World, inventory: pathlib.Path) -> None:
    pins = world.store / "machines" / GOOD / "known_hosts"
    before = pins.read_text()
    other = world.folder / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    pins.write_text(f"{GOOD} {other.with_suffix('.pub').read_text()}")
    try:
        # Not over a connection that was opened while the key was right.
        message = only_message(
            world.play("provision", "-i", str(inventory), env={"ANSIBLE_SSH_CONTROL_PATH_DIR": str(world.folder / "cp")})
        )
    finally:
        pins.write_text(before)
    assert "host key" in message and "machine_repin_host_key" in message


def test_the_account_cannot_become_root(world: World, inventory: pathlib.Path) -> None:
    message = only_message(world.play("provision", "-i", str(inventory), ansible_user="plain"))
    assert "plain" in message and "sudo" in message


def test_the_distribution_is_not_supported(world: World, inventory: pathlib.Path) -> None:
    on_host("cp", "-P", "/etc/os-release", "/etc/os-release.kept")
    on_host("sh", "-c", "rm /etc/os-release; printf 'ID=plan9\nVERSION_ID=4\nPRETTY_NAME=\"Plan 9\"\n' >/etc/os-release")
    try:
        message = only_message(world.play("provision", "-i", str(inventory)))
    finally:
        on_host("mv", "/etc/os-release.kept", "/etc/os-release")
    assert "plan9" in message.lower() or "plan 9" in message.lower()
    assert "debian" in message.lower()


def test_a_broken_daemon_json_is_refused_and_kept(world: World, inventory: pathlib.Path) -> None:
    on_host("mkdir", "-p", "/etc/docker")
    on_host("sh", "-c", "printf '{\"debug\": tru' >/etc/docker/daemon.json")
    try:
        message = only_message(world.play("provision", "-i", str(inventory)))
        assert "/etc/docker/daemon.json" in message
        assert on_host("cat", "/etc/docker/daemon.json").strip() == '{"debug": tru'
    finally:
        on_host("rm", "-f", "/etc/docker/daemon.json")


def test_the_disk_of_the_host_is_full(world: World, inventory: pathlib.Path) -> None:
    message = only_message(world.play("provision", "-i", str(inventory), docker_engine_min_free_mb=10**9))
    assert "space" in message or "free" in message


def test_the_disk_of_the_controller_is_full(world: World) -> None:
    small = world.folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(small)], check=True)
    try:
        (small / "filler").write_bytes(b"x" * 40 * 1024)
        with pytest.raises(OSError, match="space"):
            with (small / "more").open("wb") as more:
                more.write(b"x" * 64 * 1024)
        message = only_message(
            world.play("provision", machine_name="full", machine_driver="generic", generic_address="127.0.0.1", machine_store=str(small))
        )
        assert "space" in message.lower()
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_the_authority_has_expired(world: World, inventory: pathlib.Path) -> None:
    """Nothing is replaced behind the user's back: every machine of the store trusts that authority."""
    certs = world.store / "certs"
    kept = world.folder / "certs.kept"
    if certs.exists():
        certs.rename(kept)
    certs.mkdir(mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old")])
    now = datetime.datetime.now(tz=datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=20))
        .not_valid_after(now - datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (certs / "ca.pem").write_bytes(pem)
    (certs / "ca-key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (certs / "ca-key.pem").chmod(0o600)
    try:
        message = only_message(world.play("provision", "-i", str(inventory)))
        assert "expired" in message and str(certs / "ca.pem") in message
        assert (certs / "ca.pem").read_bytes() == pem
    finally:
        shutil.rmtree(certs)
        if kept.exists():
            kept.rename(certs)


def test_after_all_that_the_same_host_is_provisioned(world: World, inventory: pathlib.Path) -> None:
    done = world.play("provision", "-i", str(inventory))
    assert done.code == 0, done.output
    assert world.record(GOOD)["engine"]["version"]
    again = world.play("provision", "-i", str(inventory))
    assert again.host(GOOD)["changed"] == 0, again.output
    removed = world.play("rm", "-i", str(inventory))
    assert removed.code == 0, removed.output
    assert not (world.store / "machines" / GOOD).exists()
    assert "dockerd" in on_host("ps", "ax")
