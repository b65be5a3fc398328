#!/usr/bin/python
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read from the store how clients reach machines."""

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_env
short_description: Tell how clients reach machines
version_added: 1.0.0
author:
  - The dockyard.machine authors (@dockyard)
description:
  - Reads the store and returns the variables that Docker clients want, for one machine, several or all.
  - Asks no network and no provider. Runs on the controller.
extends_documentation_fragment:
  - dockyard.machine.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  names:
    description: Names of machines; all machines of the store when empty.
    type: list
    elements: str
    default: []
  store:
    description: Folder of the machine store; E(MACHINE_STORAGE_PATH) when not given, else C(~/.docker/machine).
    type: path
"""

EXAMPLES = r"""
- name: How is demo reached?
  dockyard.machine.machine_env:
    names: [demo]
  delegate_to: localhost
  register: found
"""

RETURN = r"""
environments:
  description: One entry a machine that has an address.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: The machine's name.
      type: str
      sample: demo
    variables:
      description: The environment variables.
      type: dict
      sample:
        DOCKER_HOST: tcp://127.0.0.1:42376
        DOCKER_TLS_VERIFY: "1"
    exports:
      description: The same as lines for a POSIX shell.
      type: str
      sample: export DOCKER_TLS_VERIFY=1
    file:
      description: A file with these lines, to be sourced.
      type: str
      sample: /home/you/.docker/machine/machines/demo/env
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.machine.plugins.module_utils.client_files import env_exports, env_variables
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import validate_name
from ansible_collections.dockyard.machine.plugins.module_utils.store import Store


def environment(store: Store, name: str) -> dict[str, t.Any]:
    """How clients reach one machine.

    Raises:
        MachineError: ``missing_machine``, or ``no_address`` while there is none.
    """
    record = store.load(name)
    if record is None:
        raise MachineError(
            f"There is no machine {name}",
            where=f"store {store.path}",
            hint="Create it with dockyard.machine.provision, or name another store (MACHINE_STORAGE_PATH)",
            code="missing_machine",
        )
    endpoint = record.machine.endpoint if record.machine else ""
    if not endpoint:
        raise MachineError(f"The machine {name} has no address yet", hint="Run dockyard.machine.provision again", code="no_address")
    folder = store.machine_dir(name)
    return {
        "name": name,
        "variables": env_variables(endpoint, folder, name),
        "exports": env_exports(endpoint, folder, name),
        "file": str(folder / "env"),
    }


def main() -> None:
    """Read and answer."""
    module = AnsibleModule(
        argument_spec={"names": {"type": "list", "elements": "str", "default": []}, "store": {"type": "path"}},
        supports_check_mode=True,
    )
    found = []
    try:
        store = Store(module.params["store"])
        if module.params["names"]:
            found = [environment(store, validate_name(name)) for name in module.params["names"]]
        else:
            for name in store.names():
                try:
                    found.append(environment(store, name))
                except MachineError as error:
                    module.warn(error.message)
    except MachineError as error:
        module.fail_json(**error.result())
    module.exit_json(changed=False, environments=found)


if __name__ == "__main__":
    main()
