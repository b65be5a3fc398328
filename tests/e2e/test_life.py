# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One real virtual machine, from nothing to removed, with the controller killed on the way.

The tests are the chapters of one story and run in order; each needs the ones before it.
"""

from __future__ import annotations

import json
import pathlib
import socket
import ssl
import subprocess
import sys
import typing as t

import docker
import pytest
from conftest import World

NAME = "demo"
HOSTS = pathlib.Path(__file__).parents[1] / "hosts" / "hosts.py"


def provision(world: World, image: str, *args: str, **more: t.Any) -> t.Any:
    """One ordinary run."""
    return world.play("provision", *args, machine_name=NAME, machine_driver="qemu", qemu_image=image, qemu_cpus=2, qemu_memory=1536, **more)


@pytest.fixture(autouse=True)
def _no_other_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's HTTP library prefers these to the authority that it is given."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def client(world: World) -> docker.DockerClient:
    """The Docker SDK with the variables that the inventory gives."""
    listed = world.run("ansible-inventory", "-i", str(inventory(world)), "--host", NAME)
    assert listed.returncode == 0, listed.stderr
    variables = json.loads(listed.stdout)
    folder = variables["DOCKER_CERT_PATH"]
    tls = docker.tls.TLSConfig(client_cert=(f"{folder}/cert.pem", f"{folder}/key.pem"), ca_cert=f"{folder}/ca.pem", verify=True)
    return docker.DockerClient(base_url=variables["DOCKER_HOST"].replace("tcp://", "https://"), tls=tls, timeout=60)


def inventory(world: World) -> pathlib.Path:
    """A file for the inventory plugin."""
    path = world.folder / "machines.yml"
    path.write_text("plugin: dockyard.machine.machines\n")
    return path


def test_check_mode_says_what_it_would_do_and_does_nothing(world: World, image: str) -> None:
    done = provision(world, image, "--check", "--diff")
    assert done.code == 0, done.output
    assert done.host(NAME)["changed"] >= 1
    assert "absent" in done.output and "running" in done.output
    assert not world.store.exists()
    assert not world.machines.exists() or not list(world.machines.glob(f"*/{NAME}"))
    assert world.virtual_machines() == []


def test_killed_after_the_record_was_written(world: World, image: str) -> None:
    record = world.store / "machines" / NAME / "dockyard.json"
    world.play_until(record.exists, "provision", machine_name=NAME, machine_driver="qemu", qemu_image=image, qemu_cpus=2, qemu_memory=1536)
    assert world.record(NAME)["token"]


def test_killed_after_the_machine_started(world: World, image: str) -> None:
    world.play_until(
        lambda: bool(world.virtual_machines()),
        "provision",
        machine_name=NAME,
        machine_driver="qemu",
        qemu_image=image,
        qemu_cpus=2,
        qemu_memory=1536,
    )
    assert len(world.virtual_machines()) <= 1


def test_killed_while_packages_are_installed(world: World, image: str) -> None:
    def installing() -> bool:
        config = world.store / "ssh_config"
        if not world.store.joinpath("machines", NAME, "ssh_config").exists():
            return False
        try:
            found = world.run("ssh", "-F", str(config), "-o", "ConnectTimeout=2", "-o", "BatchMode=yes", NAME, "pgrep -x dpkg", seconds=10)
        except subprocess.TimeoutExpired:
            return False
        return found.returncode == 0

    world.play_until(installing, "provision", machine_name=NAME, machine_driver="qemu", qemu_image=image, qemu_cpus=2, qemu_memory=1536)
    assert len(world.virtual_machines()) == 1


def test_the_next_run_ends_with_one_working_machine(world: World, image: str) -> None:
    done = provision(world, image)
    assert done.code == 0, done.output
    assert len(world.virtual_machines()) == 1
    record = world.record(NAME)
    assert record["machine"]["state"] == "running"
    assert record["engine"]["version"]
    assert record["host_keys"] == "pinned"
    assert not (world.store / "machines" / NAME / "first_host_key").exists()


def test_the_second_run_changes_nothing(world: World, image: str) -> None:
    done = provision(world, image)
    assert done.code == 0, done.output
    assert done.host(NAME)["changed"] == 0, done.output


def test_the_host_key_is_its_own_and_no_copy_of_the_first_one_is_left(world: World) -> None:
    pinned = (world.store / "machines" / NAME / "known_hosts").read_text().split()[2]
    ssh = ["ssh", "-F", str(world.store / "ssh_config"), "-o", "BatchMode=yes", NAME]
    assert pinned in world.run(*ssh, "cat /etc/ssh/ssh_host_ed25519_key.pub").stdout
    private = world.run(*ssh, "sudo grep -rlE 'OPENSSH PRIVATE KEY' /etc/ssh /var/lib/cloud").stdout.split()
    assert private == ["/etc/ssh/ssh_host_ed25519_key"]


def test_an_imported_image_runs_through_the_context(world: World) -> None:
    if not world.run("docker", "--version").stdout:
        pytest.fail("the docker command is missing")
    rootfs = json.loads(subprocess.run([sys.executable, str(HOSTS), "probe-image"], capture_output=True, text=True, check=True).stdout)
    imported = world.run("docker", "--context", NAME, "import", rootfs, "probe:1", seconds=300)
    assert imported.returncode == 0, imported.stderr
    ran = world.run("docker", "--context", NAME, "run", "--rm", "probe:1", "/bin/busybox", "echo", "hello from inside", seconds=300)
    assert ran.stdout.strip() == "hello from inside", ran.stderr


def test_the_inventory_and_the_env_file_lead_to_the_same_engine(world: World) -> None:
    version = client(world).version()["Version"]
    assert version == world.record(NAME)["engine"]["version"]
    env = world.store / "machines" / NAME / "env"
    sourced = world.run("sh", "-c", '. "$1" && docker version --format "{{.Server.Version}}"', "sh", str(env))
    assert sourced.stdout.strip() == version, sourced.stderr


def test_without_a_client_certificate_the_engine_refuses(world: World) -> None:
    machine = world.record(NAME)["machine"]
    context = ssl.create_default_context(cafile=str(world.store / "certs" / "ca.pem"))
    context.check_hostname = False
    with pytest.raises((ssl.SSLError, ConnectionError)):
        with socket.create_connection((machine["address"], machine["engine_port"]), timeout=30) as plain:
            with context.wrap_socket(plain, server_hostname=machine["address"]) as connection:
                connection.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
                assert not connection.recv(1), "the engine answered"
                raise ConnectionError("closed without an answer")


def test_stopped_and_started_again(world: World, image: str) -> None:
    before = world.record(NAME)["machine"]
    stopped = provision(world, image, machine_state="stopped")
    assert stopped.code == 0, stopped.output
    assert world.virtual_machines() == []
    assert world.record(NAME)["machine"]["state"] == "stopped"
    started = provision(world, image)
    assert started.code == 0, started.output
    after = world.record(NAME)["machine"]
    assert (after["address"], after["ssh_port"], after["engine_port"]) == (before["address"], before["ssh_port"], before["engine_port"])
    assert client(world).version()["Version"]


def test_removed_twice_leaves_nothing(world: World) -> None:
    first = world.play("rm", machine_name=NAME)
    assert first.code == 0, first.output
    assert first.host(NAME)["changed"] >= 1
    assert world.virtual_machines() == []
    assert list(world.machines.rglob(f"*{NAME}*")) == []
    assert list((world.store / "machines").iterdir()) == []
    assert list((world.store / "locks").iterdir()) == []
    assert [path for path in world.docker_config.rglob("*") if path.is_file() and path.name != "config.json"] == []
    second = world.play("rm", machine_name=NAME)
    assert second.code == 0, second.output
    assert second.host(NAME)["changed"] == 0
