# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the store that the inventory is read from."""

from __future__ import annotations

import json

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.machine.plugins.module_utils.machine import Machine
from ansible_collections.dockyard.machine.plugins.module_utils.store import Record, Store


def make(store, name, port, state="running", certificates=True, **fields):
    """A machine of ours."""
    record = Record.new(name, fields.pop("driver", "qemu"), "tester")
    record.host_keys = "pinned"
    record.ssh_key_path = str(store.machine_dir(name) / "id_ed25519")
    record.engine = {"version": "28.2.2"}
    machine = {"address": "127.0.0.1", "ssh_port": port, "engine_port": port + 10000, "ssh_user": "debian", "state": state, **fields}
    record.machine = Machine(name=name, driver=record.driver, **machine)
    store.save(record)
    if not certificates:
        for path in store.machine_dir(name).glob("*.pem"):
            path.unlink()


def make_foreign(store):
    """A machine of Docker Machine's."""
    driver = {"IPAddress": "192.0.2.9", "MachineName": "cloud1", "SSHUser": "ubuntu", "SSHPort": 22, "SSHKeyPath": "/keys/id_rsa"}
    config = {
        "ConfigVersion": 3,
        "Driver": {**driver, "InstanceId": "i-0abc", "Region": "eu-west-1", "SecretKey": "t0psecret", "Tags": "env,prod"},
        "DriverName": "amazonec2",
        "HostOptions": {"EngineOptions": {}, "SwarmOptions": {}, "AuthOptions": {}},
        "Name": "cloud1",
    }
    store.write(store.machine_dir("cloud1") / "config.json", json.dumps(config).encode(), 0o600)


def main():
    module = AnsibleModule(argument_spec={"path": {"type": "path", "required": True}, "many": {"type": "int", "default": 0}})
    store = Store(module.params["path"])
    for name, mode in (("ca.pem", 0o644), ("cert.pem", 0o644), ("key.pem", 0o600)):
        store.write(store.certs / name, b"-----BEGIN TEST-----\n", mode)
    if module.params["many"]:
        for number in range(module.params["many"]):
            make(store, f"m{number}", 20000 + number)
    else:
        make(store, "web1", 2201, tags={"env": "prod", "odd": "{{ lookup('pipe', 'touch PWNED') }}"}, details={"cpus": 2})
        make(store, "web2", 2202, state="stopped")
        make(store, "new1", 2203, certificates=False)
        make(store, "own1", 2204, driver="acme.cloud.vm")
        make_foreign(store)
        make(store, "bad1", 2205)
        store.write(store.machine_dir("bad1") / "dockyard.json", b'{"version": 1, "name"', 0o600)
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
