# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the driver qemu: state folder, monitor, acceleration, images, command line. No QEMU is started."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import socket
import subprocess
import threading
import typing as t
import urllib.error

import pytest

from ansible_collections.dockyard.machine.plugins.module_utils import qemu_accel, qemu_command, qemu_image, qemu_seed
from ansible_collections.dockyard.machine.plugins.module_utils.driver import Wanted, new_deadline
from ansible_collections.dockyard.machine.plugins.module_utils.drivers import qemu
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_qmp import SOCKET, Monitor, NotRunning
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_state import BusyPort, Forward, StateFolder, VmRecord
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline


@pytest.fixture(name="folder")
def fixture_folder(tmp_path: pathlib.Path) -> StateFolder:
    folder = StateFolder(str(tmp_path / "state"), Deadline(5))
    folder.make()
    return folder


def record(name: str = "a", **fields: t.Any) -> VmRecord:
    return VmRecord(**{"name": name, "uuid": f"uuid-{name}", "arch": "x86_64", "accel": "tcg", "machine_type": "q35", **fields})


# --- state ---------------------------------------------------------------------------------------------------------


def test_record_survives_the_file(folder: StateFolder) -> None:
    one = record(ssh=Forward(2222, 22), forwards=[Forward(8080, 80, "udp")], tags={"a": "b"}, base="x")
    folder.add(one)
    assert folder.read("a") == one
    assert oct(os.stat(folder.folder("a")).st_mode & 0o777) == "0o700"
    assert oct(os.stat(os.path.join(folder.folder("a"), "machine.json")).st_mode & 0o777) == "0o600"


def test_record_of_a_newer_version_is_read() -> None:
    data = {**json.loads(record().to_json()), "new_field": 1}
    assert VmRecord.from_json(json.dumps(data).encode()) == record()


@pytest.mark.parametrize("data", [b"", b"[]", b'{"name": 1}', b'{"name": "a", "ssh": {"x": 1}}', b"\xff"])
def test_damaged_record_is_named_and_kept(folder: StateFolder, data: bytes) -> None:
    os.mkdir(folder.folder("a"))
    pathlib.Path(folder.folder("a"), "machine.json").write_bytes(data)
    with pytest.raises(MachineError) as error:
        folder.read("a")
    assert error.value.code == "bad_record"
    assert list(folder.records()) == []


def test_image_is_kept_while_a_record_cannot_be_read(folder: StateFolder) -> None:
    pathlib.Path(folder.images, "base").touch()
    assert folder.leftovers("b") == [".images/base"]
    os.mkdir(folder.folder("a"))
    pathlib.Path(folder.folder("a"), "machine.json").write_bytes(b"{")
    folder.remove("b")
    assert os.listdir(folder.images) == ["base"]


def test_removing_one_machine_keeps_the_image_of_another(folder: StateFolder) -> None:
    for name, base in (("a", "one"), ("b", "two")):
        folder.add(record(name, base=base))
        pathlib.Path(folder.images, base).touch()
    folder.remove("a")
    assert os.listdir(folder.images) == ["two"]
    assert [item.name for item in folder.records()] == ["b"]
    folder.remove("a")


def test_leftovers_are_told_apart_by_name(folder: StateFolder) -> None:
    for name in (".new-web-abc", ".trash-web-1f", ".new-web-2-abc"):
        os.mkdir(os.path.join(folder.path, name))
    assert folder.leftovers("web") == [".new-web-abc", ".trash-web-1f"]
    assert folder.leftovers("web-2") == [".new-web-2-abc"]
    folder.remove("web")
    assert folder.leftovers("web") == []
    assert folder.leftovers("web-2") == [".new-web-2-abc"]


def test_ports_are_picked_kept_and_never_shared(folder: StateFolder) -> None:
    one = record("a", forwards=[Forward(0, 80), Forward(0, 53, "udp")])
    folder.pick_ports(one)
    ports = [item.host_port for item in one.all_forwards()]
    assert len(set(ports)) == 4 and all(20000 <= port < 32768 for port in ports)
    folder.add(one)
    again = [item.host_port for item in one.all_forwards()]
    folder.pick_ports(one)
    assert [item.host_port for item in one.all_forwards()] == again
    with pytest.raises(BusyPort) as error:
        folder.pick_ports(record("b", ssh=Forward(ports[0], 22)))
    assert "machine a has it" in error.value.message


def test_port_of_another_program_is_busy(folder: StateFolder) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        with pytest.raises(BusyPort):
            folder.pick_ports(record("b", ssh=Forward(other.getsockname()[1], 22)))


# --- monitor -------------------------------------------------------------------------------------------------------


def serve(folder: pathlib.Path, answers: list[bytes]) -> threading.Thread:
    """A monitor that says each answer in turn: the first at once, the others when it was asked."""
    server = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(folder)
    server.bind(SOCKET)
    os.chdir(here)
    server.listen(1)

    def run() -> None:
        client, dummy = server.accept()
        with client, server:
            client.sendall(answers[0])
            for answer in answers[1:]:
                client.recv(4096)
                client.sendall(answer)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_monitor_in_a_folder_with_a_long_path(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    here = os.getcwd()
    event = b'{"event": "RESUME"}\n'
    thread = serve(
        folder, [b'{"QMP": {}}\n', b'{"return": {}}\n', event + b'{"return": {"status": "running"}}\n', b'{"error": {"desc": "no"}}\n']
    )
    with Monitor(str(folder)) as monitor:
        assert monitor.execute("query-status") == {"status": "running"}
        with pytest.raises(MachineError, match="no"):
            monitor.execute("cont")
    thread.join()
    assert os.getcwd() == here


def test_monitor_nobody_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(NotRunning):
        Monitor(str(tmp_path))
    with pytest.raises(NotRunning):
        Monitor(str(tmp_path / "nothing"))
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / SOCKET))
    stale.close()
    with pytest.raises(NotRunning):
        Monitor(str(tmp_path))


@pytest.mark.parametrize("greeting", [b"", b"hello\n", b'{"return": 1}\n', b"{}\n"])
def test_monitor_that_is_none(tmp_path: pathlib.Path, greeting: bytes) -> None:
    thread = serve(tmp_path, [greeting])
    with pytest.raises(TransientError):
        Monitor(str(tmp_path), timeout=2)
    thread.join()


# --- acceleration --------------------------------------------------------------------------------------------------


@pytest.fixture(name="accelerated")
def fixture_accelerated(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., qemu_accel.Acceleration]:
    def make(works: bool, *, native: str = "Linux", access: bool = True, arch: str = "x86_64") -> qemu_accel.Acceleration:
        binary = tmp_path / "qemu"
        binary.touch()
        calls: list[str] = []

        def fake_probe(binary: str, arch: str, accel: str) -> qemu_accel.Verdict:
            calls.append(accel)
            return qemu_accel.Verdict(works, "" if works else "it broke")

        monkeypatch.setattr(qemu_accel, "probe", fake_probe)
        monkeypatch.setattr(qemu_accel.platform, "system", lambda: native)
        monkeypatch.setattr(qemu_accel.platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(qemu_accel.os, "access", lambda *dummy: access)
        found = qemu_accel.Acceleration(str(tmp_path), str(binary), arch)
        found.calls = calls  # type: ignore[attr-defined]
        return found

    return make


def test_acceleration_that_runs_is_used_and_remembered(accelerated: t.Any) -> None:
    found = accelerated(True)
    assert found.choose("auto") == found.choose("kvm") == ("kvm", "")
    assert found.calls == ["kvm"]


def test_device_that_opens_but_cannot_run_a_guest(accelerated: t.Any) -> None:
    found = accelerated(False)
    accel, why = found.choose("auto")
    assert accel == "tcg" and "it broke" in why
    with pytest.raises(MachineError, match="it broke") as error:
        found.choose("kvm")
    assert error.value.code == "acceleration"
    assert found.calls == ["kvm"]


def test_failure_of_a_real_guest_is_remembered(accelerated: t.Any) -> None:
    found = accelerated(True)
    assert found.choose("auto")[0] == "kvm"
    found.remember_failure("kvm", "the kernel hung")
    assert found.choose("auto") == ("tcg", "kvm cannot be used: the kernel hung")


def test_another_qemu_is_probed_again(accelerated: t.Any) -> None:
    found = accelerated(True)
    found.choose("auto")
    pathlib.Path(found.binary).write_text("new", encoding="ascii")
    found.choose("auto")
    assert found.calls == ["kvm", "kvm"]


@pytest.mark.parametrize(("named", "word"), [({"native": "FreeBSD"}, "tcg"), ({"arch": "aarch64"}, "tcg"), ({"access": False}, "tcg")])
def test_acceleration_that_cannot_be(accelerated: t.Any, named: dict[str, t.Any], word: str) -> None:
    found = accelerated(True, **named)
    accel, why = found.choose("auto")
    assert accel == word and why
    assert found.calls == []


def test_hvf_on_macos(accelerated: t.Any) -> None:
    assert accelerated(True, native="Darwin").choose("auto") == ("hvf", "")


def test_probe_reads_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def done(code: int, err: bytes = b"") -> t.Callable[..., t.Any]:
        return lambda *dummy, **named: subprocess.CompletedProcess([], code, b"", err)

    for code, works in ((33, True), (0, False), (1, False), (-6, False)):
        monkeypatch.setattr(qemu_accel.subprocess, "run", done(code, b"failed to set MSR"))
        assert qemu_accel.probe("qemu", "x86_64", "kvm").works is works

    def hang(*dummy: t.Any, **named: t.Any) -> t.Any:
        raise subprocess.TimeoutExpired("qemu", 1)

    monkeypatch.setattr(qemu_accel.subprocess, "run", hang)
    assert "did not end" in qemu_accel.probe("qemu", "x86_64", "kvm").why


# --- images --------------------------------------------------------------------------------------------------------

CONTENT = b"image" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Web:
    """Addresses and their content; an exception is raised as often as it stands there."""

    def __init__(self, **pages: t.Any) -> None:
        self.pages = {f"https://example.org/{name.replace('_', '.')}": content for name, content in pages.items()}
        self.asked: list[str] = []

    def __call__(self, address: str, **named: t.Any) -> t.Any:
        assert named["timeout"] > 0
        self.asked.append(address)
        content = self.pages[address]
        if isinstance(content, list):
            content = content.pop(0)
        if isinstance(content, Exception):
            raise content
        return io.BytesIO(content)


@pytest.fixture(name="images")
def fixture_images(tmp_path: pathlib.Path) -> t.Callable[..., qemu_image.ImageStore]:
    return lambda web=None: qemu_image.ImageStore(str(tmp_path / "cache"), Deadline(20), web or Web())


IMAGE = "https://example.org/disk.img"


def test_download_is_verified_and_cached(images: t.Any) -> None:
    web = Web(disk_img=CONTENT)
    path = images(web).resolve(IMAGE, f"sha256:{SHA256}")
    assert pathlib.Path(path).read_bytes() == CONTENT
    assert images(web).resolve(IMAGE, f"SHA256:{SHA256.upper()}") == path
    assert web.asked == [IMAGE]
    pathlib.Path(path).write_bytes(b"damaged")
    assert pathlib.Path(images(web).resolve(IMAGE, f"sha256:{SHA256}")).read_bytes() == CONTENT


def test_wrong_download_leaves_nothing(images: t.Any, tmp_path: pathlib.Path) -> None:
    with pytest.raises(MachineError) as error:
        images(Web(disk_img=b"other")).resolve(IMAGE, f"sha256:{SHA256}")
    assert error.value.code == "wrong_checksum"
    assert [name for name in os.listdir(tmp_path / "cache") if not name.endswith(".lock")] == []


def test_download_killed_before_is_swept(images: t.Any, tmp_path: pathlib.Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f".part-{SHA256[:16]}-xyz").touch()
    images(Web(disk_img=CONTENT)).resolve(IMAGE, f"sha256:{SHA256}")
    assert not list((tmp_path / "cache").glob(".part-*"))


def test_list_of_checksums(images: t.Any) -> None:
    sums = f"{'0' * 128}  other.img\n{SHA256} *disk.img\n".encode()
    web = Web(disk_img=CONTENT, SHA256SUMS=sums)
    assert images(web).resolve(IMAGE, "https://example.org/SHA256SUMS")
    with pytest.raises(MachineError, match=r"no line names disk\.img"):
        images(Web(disk_img=CONTENT, SHA256SUMS=b"")).resolve(IMAGE, "https://example.org/SHA256SUMS")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (f"{SHA256}  d.img", f"sha256:{SHA256}"),
        (f"{SHA256}  ./d.img", f"sha256:{SHA256}"),
        (f"SHA256 (d.img) = {SHA256}", f"sha256:{SHA256}"),
        (f"{SHA256}  xd.img", ""),
        (f"{SHA256[:-1]}  d.img", ""),
        (f"{SHA256}{SHA256}  d.img", f"sha512:{SHA256}{SHA256}"),
    ],
)
def test_lines_of_checksums(line: str, found: str) -> None:
    assert qemu_image.find_sum(line, "d.img") == found


def test_server_errors(images: t.Any) -> None:
    def http(code: int) -> urllib.error.HTTPError:
        return urllib.error.HTTPError(IMAGE, code, "reason", None, None)  # type: ignore[arg-type]

    web = Web(disk_img=[http(503), CONTENT])
    assert images(web).resolve(IMAGE, f"sha256:{SHA256}")
    assert len(web.asked) == 2
    with pytest.raises(MachineError, match="404") as error:
        images(Web(disk_img=http(404))).resolve(IMAGE, f"sha512:{SHA256}{SHA256}")
    assert not isinstance(error.value, TransientError)


def test_local_image(images: t.Any, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "my image"
    path.write_bytes(CONTENT)
    assert images().resolve(str(path), "") == images().resolve(f"file://{tmp_path}/my%20image", f"sha256:{SHA256}") == str(path)
    with pytest.raises(MachineError) as error:
        images().resolve(str(path), f"sha256:{'0' * 64}")
    assert error.value.code == "wrong_checksum"


def test_kept_base_survives_a_new_image_of_the_same_name(tmp_path: pathlib.Path) -> None:
    path, kept, new = tmp_path / "image", tmp_path / "kept", tmp_path / "new"
    kept.mkdir()
    path.write_bytes(b"old")
    name = qemu_image.base_name(str(path))
    qemu_image.keep_base(str(path), str(kept))
    new.write_bytes(b"fresh")
    os.replace(new, path)
    assert (kept / name).read_bytes() == b"old"
    assert qemu_image.base_name(str(path)) != name


def test_base_is_copied_where_no_link_can_be(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"old")
    (tmp_path / "kept").mkdir()

    def no_link(*dummy: t.Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(qemu_image.os, "link", no_link)
    qemu_image.keep_base(str(path), str(tmp_path / "kept"))
    assert [item.read_bytes() for item in (tmp_path / "kept").iterdir()] == [b"old"]


@pytest.mark.parametrize(
    ("extra", "word"), [({"backing-filename": "/etc/shadow"}, "backing"), ({"format-specific": {"data": {"data-file": "x"}}}, "data file")]
)
def test_image_that_opens_other_files_is_refused(monkeypatch: pytest.MonkeyPatch, extra: dict[str, t.Any], word: str) -> None:
    said = json.dumps({"format": "qcow2", "virtual-size": 1 << 30, **extra})
    monkeypatch.setattr(qemu_image, "need_programs", lambda *dummy: {"qemu-img": "qemu-img"})
    monkeypatch.setattr(qemu_image, "run_program", lambda *dummy, **named: said)
    with pytest.raises(MachineError, match=word):
        qemu_image.inspect("/image", Deadline(5))


# --- command line, seed, driver ------------------------------------------------------------------------------------


def test_arguments() -> None:
    one = record(ssh=Forward(2222, 22), engine=Forward(2377, 2376), cpus=3, memory=700, bind_address="127.0.0.2", extra_args=["-snapshot"])
    found = qemu_command.arguments(one)
    pairs = dict(zip(found, found[1:], strict=False))
    assert pairs["-smp"] == "3" and pairs["-m"] == "700M" and pairs["-cpu"] == "max" and pairs["-uuid"] == one.uuid
    assert "hostfwd=tcp:127.0.0.2:2222-:22,hostfwd=tcp:127.0.0.2:2377-:2376" in pairs["-netdev"]
    assert found[-1] == "-snapshot"
    one.accel = "kvm"
    assert "host" in qemu_command.arguments(one)


def test_process_with_our_number_that_is_not_ours(tmp_path: pathlib.Path) -> None:
    (tmp_path / "qemu.pid").write_text(f"{os.getpid()}\n", encoding="ascii")
    assert qemu_command.find_process(str(tmp_path), "11111111-2222-3333-4444-555555555555") == 0
    (tmp_path / "qemu.pid").write_text("1\n", encoding="ascii")
    assert qemu_command.find_process(str(tmp_path), "") == 0
    (tmp_path / "qemu.pid").write_text("nonsense", encoding="ascii")
    assert qemu_command.find_process(str(tmp_path), "x") == 0


def test_minimal_user_data() -> None:
    head, dummy, body = qemu_seed.minimal_user_data("debian", "ssh-ed25519 AAAA").partition("\n")
    assert head == "#cloud-config"
    user = json.loads(body)["users"][0]
    assert user["name"] == "debian" and user["ssh_authorized_keys"] == ["ssh-ed25519 AAAA"] and user["lock_passwd"]
    assert json.loads(qemu_seed.minimal_user_data("root", "k").partition("\n")[2])["disable_root"] is False


def driver(folder: StateFolder, **options: t.Any) -> qemu.QemuDriver:
    defaults = {key: value.get("default") for key, value in qemu.OPTIONS.items()}
    wanted = Wanted("a", owner=options.pop("owner", "me"), ssh_user="debian")
    return qemu.QemuDriver(wanted, {**defaults, "state_dir": folder.path, "arch": "x86_64", **options}, new_deadline(wanted))


def test_machine_after_a_reboot_of_the_host_is_stopped(folder: StateFolder) -> None:
    folder.add(record(owner="me", complete=True, ssh=Forward(2222, 22), engine=Forward(2377, 2376)))
    pathlib.Path(folder.folder("a"), "qemu.pid").write_text(str(os.getpid()), encoding="ascii")
    machine = driver(folder).find()
    assert machine is not None and machine.state == "stopped" and machine.ssh_port == 2222 and machine.engine_port == 2377
    assert machine.details["pid"] == 0
    assert [item.name for item in driver(folder).list()] == ["a"]
    assert driver(folder, owner="other").list() == []
    with pytest.raises(MachineError) as error:
        driver(folder, owner="other").find()
    assert error.value.code == "not_ours"


def test_drift(folder: StateFolder) -> None:
    folder.add(
        record(owner="me", complete=True, cpus=2, memory=1024, disk=10, ssh=Forward(2222, 22), engine=Forward(2377, 2376), image="one")
    )
    machine = driver(folder).find()
    assert machine is not None
    assert driver(folder).drift(machine) == []
    found = {item.option: item for item in driver(folder, cpus=4, disk=5, ssh_port=2223, image="two").drift(machine)}
    assert set(found) == {"cpus", "disk", "ssh_port", "image"}
    assert found["cpus"].in_place and found["cpus"].needs_stop
    assert not found["disk"].in_place and not found["image"].in_place
    assert {item.option for item in driver(folder, disk=11).drift(machine) if item.in_place} == {"disk"}


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("qemu: -netdev x: Could not set up host forwarding rule 'tcp:127.0.0.1:2222-:22'", "busy_port"),
        ('qemu: Failed to get "write" lock\nIs another process using the image [disk.qcow2]?', "disk_in_use"),
        ("qemu: cannot set up guest memory 'pc.ram': Cannot allocate memory", "no_memory"),
        ("qemu: write failed: No space left on device", "launch"),
        ("qemu: unknown", "launch"),
    ],
)
def test_words_of_qemu(said: str, code: str) -> None:
    assert qemu._launch_error(record(binary="qemu"), 1, said).code == code
