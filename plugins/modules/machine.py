#!/usr/bin/python
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: machine
short_description: Converge a machine through its driver and keep its record
version_added: 1.0.0
author:
  - The dockyard.machine authors (@dockyard)
description:
  - Writes the machine's record into the store, runs the driver's module, and saves what came of it.
  - The record with its token is written before the first call to the provider, so that a run that is cut short at any point is
    finished by the next one, without a second machine and without an orphan.
  - For a new machine it makes the SSH key and the throw-away host key, and composes the user-data for the first boot.
  - Runs on the controller; the driver's module runs on the task's host. Delegate the task to the controller, or for local
    hypervisors to the host that has the hypervisor.
notes:
  - Driver options can also be given as variables named after driver and option, such as C(qemu_cpus) or C(ec2_region).
extends_documentation_fragment:
  - dockyard.machine.attributes
  - dockyard.machine.attributes.actiongroup
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  name:
    description: Name of the machine, 1 to 63 lower-case letters, digits and hyphens.
    type: str
    required: true
  driver:
    description:
      - The driver, named by its module. V(qemu) means P(dockyard.machine.qemu_machine#module).
      - A name with dots is a module of another collection that follows the same contract.
      - Not needed for a machine that the store knows.
    type: str
    default: ''
  state:
    description: What the machine shall be; see P(dockyard.machine.generic_machine#module) for the meaning of each.
    type: str
    choices: [present, started, stopped, restarted, killed, absent]
    default: started
  options:
    description: Options of the driver's module. What is given is remembered (secrets are not) and need not be repeated.
    type: dict
    default: {}
  host_options:
    description: Options that follow from the inventory host itself. They stand above remembered ones and below all others.
    type: dict
    default: {}
  store:
    description:
      - Folder of the machine store.
      - E(MACHINE_STORAGE_PATH) of the controller when not given, else C(~/.docker/machine).
    type: path
  owner:
    description: Who keeps the machine; the store's owner when empty.
    type: str
    default: ''
  tags:
    description: Tags for the machine at its provider.
    type: dict
    default: {}
  user_data:
    description: User-data for the first boot; merged with what we need there.
    type: str
    default: ''
  ssh_user:
    description: Account for SSH. Empty means the driver's default.
    type: str
    default: ''
  ssh_key:
    description:
      - Private key for SSH; its public half is read from the same path with C(.pub).
      - When not given, a key is made for each machine that we create; for a host that exists already the agent or the user's
        own keys serve.
    type: path
  engine_port:
    description: TCP port on which the engine will listen.
    type: int
    default: 2376
  timeout:
    description: Seconds for everything together.
    type: float
    default: 1800
  timeouts:
    description: Seconds for each phase.
    type: dict
    default: {}
    suboptions:
      create:
        description: Until a new machine runs and has an address.
        type: float
      start:
        description: Until a started machine runs and has an address.
        type: float
      stop:
        description: Until a machine has shut down; then its power is taken away.
        type: float
      delete:
        description: Until a removed machine is gone.
        type: float
  lock_timeout:
    description: Seconds to wait for another run that works on the same machine.
    type: float
    default: 300
"""

EXAMPLES = r"""
- name: A virtual machine on this computer
  dockyard.machine.machine:
    name: demo
    driver: qemu
    options:
      image: /var/lib/images/debian-12.qcow2
      cpus: 2
  delegate_to: localhost

- name: Remove it; the driver and its options are known
  dockyard.machine.machine:
    name: demo
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
machine:
  description: The machine as its provider shows it; null when it is absent.
  type: dict
  returned: success
  sample:
    name: demo
    driver: qemu
    state: running
    address: 127.0.0.1
    ssh_port: 40022
    endpoint: tcp://127.0.0.1:42376
connection:
  description: Ansible's connection variables for the machine.
  type: dict
  returned: unless O(state=absent)
  sample:
    ansible_host: 127.0.0.1
    ansible_port: 40022
    ansible_user: debian
actions:
  description: What was done, in order.
  type: list
  elements: str
  returned: success
  sample: [create]
fresh:
  description: Whether no engine was verified on the machine yet.
  type: bool
  returned: unless O(state=absent)
  sample: true
"""
