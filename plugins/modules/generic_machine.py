#!/usr/bin/python
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driver module generic: a host that exists already."""

from __future__ import annotations

DOCUMENTATION = r"""
module: generic_machine
short_description: Use a host that exists already as a machine
version_added: 1.0.0
author:
  - The dockyard.machine authors (@dockyard)
description:
  - Describes a host that is reached over SSH, so that the roles of this collection can make a Docker host of it.
  - Nothing is created and nothing deleted; O(state=absent) only forgets it. Its power cannot be switched.
  - Use it through the role P(dockyard.machine.machine#role), which also pins the host's SSH key.
extends_documentation_fragment:
  - dockyard.machine.driver
  - dockyard.machine.attributes
  - dockyard.machine.attributes.actiongroup
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  address:
    description: IP address or DNS name at which SSH and the engine are reached.
    type: str
    required: true
  private_address:
    description: A second address of the host, for example in its private network. It becomes a name in the engine's certificate.
    type: str
    default: ''
  ssh_port:
    description: TCP port of the SSH service.
    type: int
    default: 22
"""

EXAMPLES = r"""
- name: Describe a host
  dockyard.machine.generic_machine:
    name: web1
    address: 192.0.2.10
    ssh_user: debian
"""

RETURN = r"""
machine:
  description: The machine; its fields are the same for every driver.
  type: dict
  returned: success
  sample:
    name: web1
    driver: generic
    state: running
    address: 192.0.2.10
    ssh_user: debian
    ssh_port: 22
    endpoint: tcp://192.0.2.10:2376
actions:
  description: What was done, in order.
  type: list
  elements: str
  returned: success
  sample: []
"""

from ansible_collections.dockyard.machine.plugins.module_utils.driver_module import run_driver
from ansible_collections.dockyard.machine.plugins.module_utils.drivers.generic import GenericDriver

DRIVER = GenericDriver


def main() -> None:
    """Converge one machine."""
    run_driver(DRIVER)


if __name__ == "__main__":
    main()
