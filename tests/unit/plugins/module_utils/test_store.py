# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pathlib
import signal
import stat
import time
import typing as t

import pytest

from ansible_collections.dockyard.machine.plugins.module_utils import files
from ansible_collections.dockyard.machine.plugins.module_utils import store as store_module
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import Machine, State
from ansible_collections.dockyard.machine.plugins.module_utils.store import BrokenRecord, Record, Store, default_path, natural_key


@pytest.fixture
def store(tmp_path: pathlib.Path) -> Store:
    return Store(tmp_path / "a store")


def make_record(store: Store, name: str = "web1", **fields: t.Any) -> Record:
    record = Record.new(name, "qemu", "me")
    record.machine = Machine(
        name=name, driver="qemu", address="127.0.0.1", ssh_port=2222, engine_port=12376, ssh_user="debian", state=State.RUNNING
    )
    record.ssh_key_path = str(store.machine_dir(name) / "id_ed25519")
    record.host_keys = "pinned"
    for key, value in fields.items():
        setattr(record, key, value)
    return record


def snapshot(folder: pathlib.Path) -> dict[str, tuple[int, int, bytes]]:
    """Mode, inode and content of every file."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_ino, path.read_bytes() if path.is_file() else b"")
    return found


def code_of(call: t.Callable[[], t.Any]) -> str:
    with pytest.raises(MachineError) as caught:
        call()
    return caught.value.code


# --- where it is, and what is in it ---


def test_the_path_follows_docker_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MACHINE_STORAGE_PATH", raising=False)
    assert default_path() == tmp_path / ".docker" / "machine"
    monkeypatch.setenv("MACHINE_STORAGE_PATH", "~/other")
    assert Store(None).path == tmp_path / "other"
    monkeypatch.chdir(tmp_path)
    assert Store("relative").path == tmp_path / "relative"


def test_names_sort_as_a_person_would() -> None:
    assert sorted(["web10", "web2", "db", "web1", "2", "10", "a2b10", "a2b9"], key=natural_key) == [
        "2", "10", "a2b9", "a2b10", "db", "web1", "web2", "web10",
    ]  # fmt: skip


def test_an_absent_store_is_empty_and_reading_makes_nothing(store: Store) -> None:
    assert store.names() == [] and store.records() == [] and store.load("web1") is None and not store.forget("web1")
    assert store.owner(write=False)
    assert not store.path.exists()


def test_names_are_folders_without_a_dot(store: Store) -> None:
    store.save(make_record(store, "web10"))
    store.save(make_record(store, "web2"))
    (store.machines / ".hidden").mkdir()
    (store.machines / "file").write_text("x")
    (store.machines / "link").symlink_to(store.machines / "web2")
    assert store.names() == ["web2", "web10"]


# --- round trip ---


def test_what_was_saved_is_loaded(store: Store) -> None:
    record = make_record(
        store,
        options={"memory": 2048, "nested": {"a": [1, None, "ü"]}},
        engine={"version": "28.2.2"},
        engine_options={"labels": ["a=b"]},
        extra={"future": {"key": [1]}},
    )
    assert store.save(record) is True
    assert store.load("web1") == record
    before = snapshot(store.path)
    assert store.save(record) is False
    assert snapshot(store.path) == before
    record.machine.state = State.STOPPED
    assert store.save(record) is True


def test_every_token_is_another(store: Store) -> None:
    tokens = {Record.new("web1", "qemu", "me").token for dummy in range(50)}
    assert len(tokens) == 50 and all(len(token) == 16 for token in tokens)


def test_modes_are_private(store: Store) -> None:
    old = os.umask(0)
    try:
        store.write(store.certs / "ca.pem", b"ca", 0o644)
        store.write(store.certs / "cert.pem", b"cert", 0o644)
        store.write(store.certs / "key.pem", b"key", 0o600)
        store.save(make_record(store))
        store.owner()
    finally:
        os.umask(old)
    modes = {str(path.relative_to(store.path)): stat.S_IMODE(path.stat().st_mode) for path in store.path.rglob("*")}
    modes["."] = stat.S_IMODE(store.path.stat().st_mode)
    public = {"certs/ca.pem", "certs/cert.pem", "machines/web1/ca.pem", "machines/web1/cert.pem"}
    for name, mode in modes.items():
        expected = 0o700 if (store.path / name).is_dir() else 0o644 if name in public else 0o600
        assert mode == expected, name
    assert (store.machine_dir("web1") / "key.pem").read_bytes() == b"key"


def test_a_loosened_mode_is_repaired(store: Store) -> None:
    record = make_record(store)
    store.save(record)
    (store.machine_dir("web1") / "dockyard.json").chmod(0o644)
    (store.machine_dir("web1") / "config.json").chmod(0o644)
    store.machine_dir("web1").chmod(0o755)
    assert store.save(record) is True
    assert {stat.S_IMODE(path.stat().st_mode) for path in store.machine_dir("web1").iterdir()} == {0o600}
    assert stat.S_IMODE(store.machine_dir("web1").stat().st_mode) == 0o700


def test_a_store_can_be_moved(store: Store, tmp_path: pathlib.Path) -> None:
    store.save(make_record(store))
    moved = Store(store.path.rename(tmp_path / "moved"))
    record = moved.load("web1")
    assert record is not None and record.ssh_key_path == str(moved.machine_dir("web1") / "id_ed25519")
    assert moved.save(record) is True
    text = "".join(path.read_text() for path in moved.machine_dir("web1").iterdir())
    assert str(store.path) not in text


def test_a_key_elsewhere_keeps_its_path(store: Store) -> None:
    store.save(make_record(store, ssh_key_path="/home/me/.ssh/id_rsa"))
    record = store.load("web1")
    assert record is not None and record.ssh_key_path == "/home/me/.ssh/id_rsa"


def test_files_for_clients_come_and_go_with_the_address(store: Store) -> None:
    record = make_record(store)
    store.save(record)
    folder = store.machine_dir("web1")
    assert (folder / "env").exists() and (folder / "ssh_config").exists()
    record.machine.address = ""
    assert store.save(record) is True
    assert not (folder / "env").exists() and not (folder / "ssh_config").exists()


def test_keys_of_a_newer_release_survive(store: Store) -> None:
    store.save(make_record(store))
    path = store.machine_dir("web1") / "dockyard.json"
    data = json.loads(path.read_text())
    data["shiny"] = {"new": True}
    path.write_text(json.dumps(data))
    record = store.load("web1")
    assert record is not None and record.extra == {"shiny": {"new": True}}
    record.engine = {"version": "1"}
    store.save(record)
    assert json.loads(path.read_text())["shiny"] == {"new": True}


# --- names ---


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\nb", "-o", ".hidden", "a b", "a\x00b", "ü"])
def test_a_name_never_leaves_the_store(store: Store, name: str) -> None:
    for call in (store.machine_dir, store.load, store.forget, store.known_hosts):
        assert code_of(lambda call=call: call(name)) == "invalid_name"
    assert code_of(lambda: store.save(Record.new(name, "qemu", "me"))) == "invalid_name"
    with pytest.raises(MachineError):
        with store.lock(name, 0):
            pass
    assert not store.path.exists() or list(store.path.iterdir()) == []


# --- corrupt records ---


def corrupt(change: t.Callable[[dict[str, t.Any]], t.Any]) -> t.Callable[[dict[str, t.Any]], bytes]:
    def apply(data: dict[str, t.Any]) -> bytes:
        change(data)
        return json.dumps(data).encode()

    return apply


CORRUPTIONS: dict[str, t.Callable[[dict[str, t.Any]], bytes]] = {
    "empty": lambda data: b"",
    "truncated": lambda data: json.dumps(data).encode()[:-20],
    "zeros": lambda data: b"\0" * 100,
    "not utf-8": lambda data: b'{"name": "\xff"}',
    "a list": lambda data: b"[]",
    "null": lambda data: b"null",
    "too deep": lambda data: b"[" * 200_000,
    "too big": lambda data: json.dumps({**data, "pad": "x" * 1024 * 1024}).encode(),
    "huge number": lambda data: b'{"version": ' + b"9" * 10_000 + b"}",
    "no version": corrupt(lambda data: data.pop("version")),
    "newer version": corrupt(lambda data: data.update(version=2)),
    "true version": corrupt(lambda data: data.update(version=True)),
    "no name": corrupt(lambda data: data.pop("name")),
    "other name": corrupt(lambda data: (data.update(name="web2"), data["machine"].update(name="web2"))),
    "no driver": corrupt(lambda data: data.update(driver="")),
    "options a list": corrupt(lambda data: data.update(options=[])),
    "owner a number": corrupt(lambda data: data.update(owner=1)),
    "host_keys unknown": corrupt(lambda data: data.update(host_keys="maybe")),
    "machine a string": corrupt(lambda data: data.update(machine="x")),
    "machine of another name": corrupt(lambda data: data["machine"].update(name="web2")),
    "address a list": corrupt(lambda data: data["machine"].update(address=[])),
    "port a string": corrupt(lambda data: data["machine"].update(ssh_port="22")),
    "port true": corrupt(lambda data: data["machine"].update(ssh_port=True)),
    "port too high": corrupt(lambda data: data["machine"].update(engine_port=70000)),
    "state unknown": corrupt(lambda data: data["machine"].update(state="dancing")),
    "tags of numbers": corrupt(lambda data: data["machine"].update(tags={"a": 1})),
    "dns names of numbers": corrupt(lambda data: data["machine"].update(dns_names=[1])),
}


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corrupt_record_is_named_and_hides_no_other(store: Store, kind: str) -> None:
    for name in ("web1", "web2", "web3"):
        store.save(make_record(store, name))
    path = store.machine_dir("web1") / "dockyard.json"
    path.write_bytes(CORRUPTIONS[kind](json.loads(path.read_text())))
    content = path.read_bytes()
    with pytest.raises(MachineError) as caught:
        store.load("web1")
    assert caught.value.code == "corrupt_record"
    assert caught.value.where == str(path) and caught.value.hint and caught.value.why
    records = store.records()
    assert [record.name for record in records] == ["web1", "web2", "web3"]
    assert [isinstance(record, BrokenRecord) for record in records] == [True, False, False]
    assert path.read_bytes() == content


def test_a_link_in_the_place_of_a_record_is_refused(store: Store, tmp_path: pathlib.Path) -> None:
    store.save(make_record(store))
    path = store.machine_dir("web1") / "dockyard.json"
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    assert code_of(lambda: store.load("web1")) == "corrupt_record"
    path.unlink()
    os.mkfifo(path)
    assert code_of(lambda: store.load("web1")) == "corrupt_record"
    path.unlink()
    path.mkdir()
    assert code_of(lambda: store.load("web1")) == "corrupt_record"


def test_a_linked_machine_folder_is_refused(store: Store, tmp_path: pathlib.Path) -> None:
    store.save(make_record(store))
    store.machine_dir("web1").rename(tmp_path / "web1")
    store.machine_dir("web1").symlink_to(tmp_path / "web1")
    assert code_of(lambda: store.load("web1")) == "corrupt_record"
    assert code_of(lambda: store.save(make_record(store))) == "corrupt_record"
    assert store.forget("web1") is True
    assert (tmp_path / "web1" / "dockyard.json").exists()


# --- unsafe stores ---


def test_a_store_that_everybody_may_write_is_refused(store: Store) -> None:
    store.path.mkdir(mode=0o777)
    store.path.chmod(0o777)
    for call in (store.names, store.records, store.owner, lambda: store.load("web1"), lambda: store.save(make_record(store))):
        assert code_of(call) == "unsafe_store"
    store.path.chmod(0o755)
    assert store.names() == []


def test_a_store_of_somebody_else_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.path.mkdir()
    own = store.path.stat()
    if own.st_uid == 0:
        os.chown(store.path, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: own.st_uid + 1)
    assert code_of(store.names) == "unsafe_store"


def test_a_file_is_no_store(store: Store) -> None:
    store.path.write_text("x")
    assert code_of(store.names) == "not_a_folder"


# --- writing ---


def test_write_is_atomic_and_says_whether_it_wrote(store: Store) -> None:
    path = store.path / "sub" / "file"
    assert store.write(path, b"one", 0o600) is True
    inode = path.stat().st_ino
    assert store.write(path, b"one", 0o600) is False
    assert path.stat().st_ino == inode
    assert store.write(path, b"one", 0o644) is True
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert store.write(path, b"two", 0o644) is True
    assert os.listdir(path.parent) == ["file"]


def test_a_link_is_replaced_not_followed(store: Store, tmp_path: pathlib.Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    store.path.mkdir()
    (store.path / "file").symlink_to(victim)
    assert store.write(store.path / "file", b"x", 0o600) is True
    assert victim.read_bytes() == b"precious" and not (store.path / "file").is_symlink()


@pytest.mark.parametrize("number, code", [(errno.ENOSPC, "no_space"), (errno.EDQUOT, "no_space"), (errno.EROFS, "not_permitted")])
@pytest.mark.parametrize("function", ["fsync", "rename"])
def test_a_full_disk_leaves_the_old_file(store: Store, monkeypatch: pytest.MonkeyPatch, function: str, number: int, code: str) -> None:
    record = make_record(store)
    store.save(record)
    before = snapshot(store.path)

    def fail(*dummy: t.Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, function, fail)
    record.owner = "somebody-else"
    with pytest.raises(MachineError) as caught:
        store.save(record)
    monkeypatch.undo()
    assert caught.value.code == code and caught.value.hint and str(store.path) in caught.value.where
    assert snapshot(store.path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(store: Store) -> None:
    store.path.mkdir(mode=0o500)
    assert code_of(lambda: store.save(make_record(store))) == "not_permitted"


def test_a_value_that_cannot_be_written_stops_everything(store: Store) -> None:
    record = make_record(store)
    record.machine.address = "1.2.3.4\n    ProxyCommand evil"
    assert code_of(lambda: store.save(record)) == "unsafe_value"
    assert not store.path.exists()


# --- forgetting ---


def test_forget_removes_everything_of_the_machine(store: Store) -> None:
    for name in ("web1", "web2"):
        store.save(make_record(store, name))
    (store.machine_dir("web1") / "known_hosts").write_text("web1 ssh-ed25519 AAAA\n")
    assert store.forget("web1") is True
    assert store.forget("web1") is False
    assert os.listdir(store.machines) == ["web2"]


def test_what_a_killed_forget_left_is_cleaned(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(make_record(store, "web1"))
    store.save(make_record(store, "web2"))

    def die(*dummy: t.Any, **also_dummy: t.Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module.shutil, "rmtree", die)
    with pytest.raises(KeyboardInterrupt):
        store.forget("web1")
    monkeypatch.undo()
    assert store.names() == ["web2"] and store.load("web1") is None
    assert len(os.listdir(store.machines)) == 2
    store.save(make_record(store, "web2"))
    assert os.listdir(store.machines) == ["web2"]


def test_unfinished_files_of_killed_runs_are_cleaned(store: Store) -> None:
    record = make_record(store)
    store.save(record)
    old, new = store.machine_dir("web1") / ".env.abc.tmp", store.machine_dir("web1") / ".env.def.tmp"
    old.write_text("x")
    new.write_text("x")
    os.utime(old, (1, 1))
    store.save(record)
    assert not old.exists() and new.exists()


# --- owner ---


def test_the_owner_is_written_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKYARD_OWNER", "team-a")
    assert store.owner(write=False) == "team-a" and not store.path.exists()
    assert store.owner() == "team-a"
    monkeypatch.setenv("DOCKYARD_OWNER", "team-b")
    assert store.owner() == "team-a"
    assert os.listdir(store.path) == ["owner"]


@pytest.mark.parametrize("login, owner", [("Jane.Doe", "jane-doe"), ("DOMAIN\\me", "domain-me"), ("-x_", "x"), ("a" * 80, "a" * 63)])
def test_the_login_name_becomes_an_owner(store: Store, monkeypatch: pytest.MonkeyPatch, login: str, owner: str) -> None:
    monkeypatch.delenv("DOCKYARD_OWNER", raising=False)
    monkeypatch.setattr(store_module.getpass, "getuser", lambda: login)
    assert store.owner() == owner


def test_a_user_without_a_name_owns_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise KeyError("uid not found")

    monkeypatch.delenv("DOCKYARD_OWNER", raising=False)
    monkeypatch.setattr(store_module.getpass, "getuser", fail)
    assert store.owner() == f"uid-{os.getuid()}"


@pytest.mark.parametrize("owner", ["Upper", "a b", "-a", "x" * 64, "a/b"])
def test_a_bad_owner_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch, owner: str) -> None:
    monkeypatch.setenv("DOCKYARD_OWNER", owner)
    assert code_of(store.owner) == "invalid_owner"
    store.write(store.path / "owner", owner.encode(), 0o600)
    monkeypatch.delenv("DOCKYARD_OWNER")
    assert code_of(store.owner) == "invalid_owner"


# --- locks ---


def hold(path: str, ready: t.Any, seconds: float) -> None:
    with Store(path).lock("web1", 5, "holding"):
        ready.set()
        time.sleep(seconds)


def holder(store: Store, seconds: float) -> multiprocessing.process.BaseProcess:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold, args=(str(store.path), ready, seconds))
    process.start()
    assert ready.wait(10)
    return process


def test_a_held_lock_names_its_holder(store: Store) -> None:
    process = holder(store, 30)
    try:
        with pytest.raises(MachineError) as caught:
            with store.lock("web1", 0.3):
                pass
        assert caught.value.code == "locked"
        assert f"process {process.pid} on " in caught.value.why and "holding" in caught.value.why
        with store.lock("web2", 0):
            pass
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    # Its death has released it.
    with store.lock("web1", 2):
        assert json.loads((store.path / "locks" / "web1.lock").read_text())["pid"] == os.getpid()
    assert os.listdir(store.path / "locks") == []


def test_a_lock_is_waited_for(store: Store) -> None:
    process = holder(store, 0.5)
    with store.lock("web1", 10):
        pass
    process.join()
    assert process.exitcode == 0


def count(path: str, file: str, rounds: int) -> None:
    store = Store(path)
    while rounds:
        rounds -= 1
        with store.lock("web1", 60):
            value = int(pathlib.Path(file).read_text())
            time.sleep(0.001)
            pathlib.Path(file).write_text(str(value + 1))


def test_no_two_hold_a_lock_at_once(store: Store, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Waiters look often, so that removing and making the lock file overlap.
    monkeypatch.setattr(store_module, "poll", lambda look, **kw: real_poll(look, **{**kw, "interval": 0.001}))
    file = tmp_path / "counter"
    file.write_text("0")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=count, args=(str(store.path), str(file), 40)) for dummy in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert file.read_text() == "160"


real_poll = store_module.poll


def test_a_lock_is_released_by_an_error(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        with store.lock("web1", 0):
            raise ZeroDivisionError
    with store.lock("web1", 0):
        pass


def test_a_lock_file_that_is_a_link_is_refused(store: Store, tmp_path: pathlib.Path) -> None:
    (store.path / "locks").mkdir(parents=True)
    (store.path / "locks" / "web1.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(MachineError) as caught:
        with store.lock("web1", 0):
            pass
    assert caught.value.code == "symbolic_link" and not (tmp_path / "victim").exists()
