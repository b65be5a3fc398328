# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables of the inventory plugin. What the programs make of it is for the integration target."""

from __future__ import annotations

import json
import pathlib
import shlex
import typing as t

import pytest

from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible_collections.dockyard.machine.plugins.inventory import machines
from ansible_collections.dockyard.machine.plugins.module_utils.machine import Machine, State
from ansible_collections.dockyard.machine.plugins.module_utils.store import Record, Store


def add(store: Store, name: str, **fields: t.Any) -> Record:
    record = Record.new(name, fields.pop("driver", "qemu"), "me")
    record.host_keys = fields.pop("host_keys", "pinned")
    record.ssh_key_path = str(store.machine_dir(name) / "id_ed25519")
    values = {"address": "127.0.0.1", "ssh_port": 2222, "engine_port": 12376, "ssh_user": "debian", "state": State.RUNNING, **fields}
    record.machine = Machine(name=name, driver=record.driver, **values)
    store.save(record)
    return record


@pytest.fixture
def store(tmp_path: pathlib.Path) -> Store:
    store = Store(tmp_path / "store")
    for name in ("ca.pem", "cert.pem", "key.pem"):
        store.write(store.certs / name, b"-----BEGIN TEST-----\n", 0o600)
    return store


def parse(store: Store, monkeypatch: pytest.MonkeyPatch, **options: t.Any) -> tuple[InventoryData, list[str]]:
    """The inventory, and the warnings."""
    source = store.path.parent / "machines.yml"
    source.write_text(json.dumps({"plugin": "dockyard.machine.machines", "store": "store", **options}))
    warnings: list[str] = []
    plugin = machines.InventoryModule()
    plugin._load_name = machines.InventoryModule.NAME
    chosen = {
        "cache": False, "strict": True, "compose": {}, "groups": {}, "keyed_groups": [], "leading_separator": True,
        "store": "store", "drivers": [], "states": [], "filters": [], "running_required": False,
        "daemon_env": "optional-silently", "split_tags": False, "verbose_output": True, "use_extra_vars": False,
        "providers": [], "owner": "", "provider_timeout": 60, "cert_path": None, **options,
    }  # fmt: skip
    monkeypatch.setattr(plugin, "get_option", lambda name, **dummy: chosen[name])
    monkeypatch.setattr(plugin, "_read_config_data", lambda path: {"store": "store"})
    monkeypatch.setattr(plugin.display, "warning", lambda message, **dummy: warnings.append(message))
    inventory = InventoryData()
    plugin.parse(inventory, DataLoader(), str(source), cache=False)
    return inventory, warnings


@pytest.mark.parametrize(
    "name, good",
    [
        ("machines.yml", True),
        ("prod.machines.yaml", True),
        ("docker_machine.yml", True),
        ("x.docker_machine.yaml", True),
        ("hosts.yml", False),
    ],
)
def test_the_files_name_decides(tmp_path: pathlib.Path, name: str, good: bool) -> None:
    (tmp_path / name).write_text("plugin: dockyard.machine.machines\n")
    assert machines.InventoryModule().verify_file(str(tmp_path / name)) is good
    assert machines.InventoryModule().verify_file(str(tmp_path / "absent.machines.yml")) is False


def test_a_machine_has_what_ansible_and_docker_need(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, "web1")
    inventory, warnings = parse(store, monkeypatch)
    seen = inventory.get_host("web1").get_vars()
    assert (seen["ansible_host"], seen["ansible_port"], seen["ansible_user"]) == ("127.0.0.1", 2222, "debian")
    assert seen["DOCKER_HOST"] == seen["dm_DOCKER_HOST"] == "tcp://127.0.0.1:12376"
    words = shlex.split(seen["ansible_ssh_extra_args"])
    assert "HostKeyAlias=web1" in words and "StrictHostKeyChecking=yes" in words
    assert seen["ansible_host_key_checking"] is True and seen["machine_running"] is True
    assert {group.name for group in inventory.get_host("web1").get_groups()} >= {"machines", "driver_qemu", "state_running"}
    assert not warnings


def test_no_input_of_the_roles_is_overridden(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, "web1")
    seen = parse(store, monkeypatch)[0].get_host("web1").get_vars()
    ours = {key for key in seen if key.startswith(("machine", "docker_engine", "ansible_ssh_common"))}
    assert ours == {"machine", "machine_driver", "machine_running", "machine_record"}


def test_one_without_an_address_is_listed_without_a_way_in(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, "web1", address="", state=State.STOPPED)
    record = Record.new("intent", "qemu", "me")
    store.save(record)
    inventory, dummy = parse(store, monkeypatch)
    for name in ("web1", "intent"):
        seen = inventory.get_host(name).get_vars()
        assert not {"ansible_host", "ansible_ssh_extra_args", "DOCKER_HOST"} & set(seen)
        assert seen["machine_running"] is False
    assert inventory.get_host("intent").get_vars()["machine"] == {"name": "intent", "driver": "qemu", "state": "unknown"}


def test_with_nothing_pinned_the_configuration_decides(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, "web1", host_keys="")
    assert "ansible_host_key_checking" not in parse(store, monkeypatch)[0].get_host("web1").get_vars()


@pytest.mark.parametrize(
    "daemon_env, listed, warned",
    [
        ("require", False, True),
        ("require-silently", False, False),
        ("optional", True, True),
        ("optional-silently", True, False),
        ("skip", True, False),
    ],
)
def test_daemon_env(store: Store, monkeypatch: pytest.MonkeyPatch, daemon_env: str, listed: bool, warned: bool) -> None:
    add(store, "web1")
    (store.machine_dir("web1") / "key.pem").unlink()
    inventory, warnings = parse(store, monkeypatch, daemon_env=daemon_env)
    assert (inventory.get_host("web1") is not None) is listed
    assert bool(warnings) is warned


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"running_required": True}, {"a1", "c1"}),
        ({"drivers": ["ec2"]}, {"b1"}),
        ({"states": ["stopped", "unknown"]}, {"b1", "c1"}),
        ({"filters": [{"exclude": "machine_running"}]}, {"b1", "c1"}),
        ({"filters": [{"include": "inventory_hostname == 'a1'"}, {"exclude": True}]}, {"a1"}),
        ({"filters": [{"include": True}, {"exclude": True}]}, {"a1", "b1", "c1"}),
    ],
)
def test_hosts_can_be_chosen(store: Store, monkeypatch: pytest.MonkeyPatch, options: dict[str, t.Any], expected: set[str]) -> None:
    add(store, "a1")
    add(store, "b1", driver="ec2", state=State.STOPPED)
    add(store, "c1", state=State.UNKNOWN)
    if "filters" in options and machines.trust_as_template:
        options = {"filters": [{key: machines.plain(value) for key, value in entry.items()} for entry in options["filters"]]}
    assert set(parse(store, monkeypatch, **options)[0].hosts) == expected


@pytest.mark.parametrize("entry", [{}, {"include": True, "exclude": True}, {"only": True}])
def test_a_wrong_filter_is_named(store: Store, monkeypatch: pytest.MonkeyPatch, entry: dict[str, t.Any]) -> None:
    add(store, "a1")
    with pytest.raises(machines.AnsibleParserError, match="include or exclude"):
        parse(store, monkeypatch, filters=[entry])


def test_a_corrupt_machine_hides_no_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add(store, "web1")
    add(store, "web2")
    add(store, "web3")
    (store.machine_dir("web2") / "dockyard.json").write_text("{")
    # Good JSON, but an address that would add an option to ssh.
    path = store.machine_dir("web3") / "dockyard.json"
    path.write_text(path.read_text().replace("127.0.0.1", "-oProxyCommand=x"))
    inventory, warnings = parse(store, monkeypatch)
    assert set(inventory.hosts) == {"web1"}
    assert len(warnings) == 2 and "web2" in warnings[0] and "web3" in warnings[1]


def test_an_unsafe_store_is_an_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.path.chmod(0o777)
    with pytest.raises(machines.AnsibleParserError, match="everybody may write"):
        parse(store, monkeypatch)


def test_a_store_that_is_not_there_yet_is_empty(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory, warnings = parse(Store(tmp_path / "store"), monkeypatch)
    assert not inventory.hosts and "machines" in inventory.groups and "does not exist yet" in warnings[0]


def test_tags_are_split_on_demand() -> None:
    assert machines.split_tags("") == {}
    assert machines.split_tags("a=1, b:2,c,,d=x:y") == {"a": "1", "b": "2", "c": "", "d": "x:y"}


def test_a_group_has_a_valid_name() -> None:
    assert machines.group_name("driver", "acme.cloud-x.vm") == "driver_acme_cloud_x_vm"


def test_strings_that_could_be_templates_stay_data() -> None:
    value = machines.plain({"a": ["{{ lookup('env', 'HOME') }}", "{% x %}", "{# c #}", "plain"], "n": 1, "t": True, "z": None})
    assert value == {"a": ["{{ lookup('env', 'HOME') }}", "{% x %}", "{# c #}", "plain"], "n": 1, "t": True, "z": None}
    if machines.trust_as_template is None:
        assert [getattr(entry, "__UNSAFE__", False) for entry in value["a"]] == [True, True, True, False]
    else:
        from ansible.template import is_trusted_as_template

        assert [is_trusted_as_template(entry) for entry in value["a"]] == [False, False, False, True]
