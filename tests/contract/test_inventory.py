# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What another computer sees of a team's machines: the inventory, straight from the providers."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time
import typing as t

import backend as contract
import yaml

from ansible_collections.dockyard.machine.plugins.module_utils.driver import converge
from ansible_collections.dockyard.machine.plugins.module_utils.record import Record
from ansible_collections.dockyard.machine.plugins.module_utils.store import Store


def listing(folder: pathlib.Path, **config: t.Any) -> subprocess.CompletedProcess[str]:
    """``ansible-inventory --list`` as AWX calls it."""
    path = folder / "machines.yml"
    path.write_text(yaml.safe_dump({"plugin": "dockyard.machine.machines", **config}))
    command = [str(pathlib.Path(sys.executable).parent / "ansible-inventory"), "-i", str(path), "--list", "--export"]
    env = {**os.environ, "MACHINE_STORAGE_PATH": str(folder / "store"), "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_machines_are_listed_without_a_store(backend: contract.Backend, tmp_path: pathlib.Path) -> None:
    made = [converge(backend.make(backend.wanted(name))).machine for name in ("web1", "web2")]
    converge(backend.make(backend.wanted("other", owner="somebody-else")))
    time.sleep(backend.settle)
    done = listing(tmp_path, owner="contract", providers=[{"driver": backend.name, "options": backend.options()}])
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    hosts = {name: values for group in shown.values() for name, values in group.get("hostvars", {}).items()}
    assert sorted(hosts) == ["web1", "web2"]
    assert [hosts[machine.name]["ansible_host"] for machine in made if machine] == [machine.address for machine in made if machine]
    assert sorted(shown[f"driver_{backend.name}"]["hosts"]) == ["web1", "web2"]
    assert hosts["web1"]["machine_running"] is True
    assert not (tmp_path / "store").exists()
    for option, value in backend.options().items():
        if backend.driver.options[option].get("no_log") and isinstance(value, str) and len(value) > 6:
            assert value not in done.stdout, option


def test_the_store_adds_its_keys_to_what_the_provider_shows(backend: contract.Backend, tmp_path: pathlib.Path) -> None:
    converge(backend.make(backend.wanted("web1")))
    time.sleep(backend.settle)
    record = Record("web1", backend.name, owner="contract", ssh_key_path="/keys/web1")
    Store(tmp_path / "store").save(record)
    done = listing(tmp_path, owner="contract", providers=[{"driver": backend.name, "options": backend.options()}])
    host = json.loads(done.stdout)["_meta"]["hostvars"]["web1"]
    assert host["ansible_ssh_private_key_file"] == "/keys/web1"
    assert host["machine"]["state"] == "running"


def test_a_provider_that_cannot_be_asked_is_an_error(backend: contract.Backend, tmp_path: pathlib.Path) -> None:
    done = listing(tmp_path, owner="contract", providers=[{"driver": backend.name, "options": {"nonsense": 1}}])
    assert done.returncode != 0
    assert "nonsense" in done.stderr
