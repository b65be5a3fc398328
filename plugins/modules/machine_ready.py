#!/usr/bin/python
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin machine_ready."""

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_ready
short_description: Wait until a machine can be worked on
version_added: 1.0.0
author:
  - The dockyard.machine authors (@dockyard)
description:
  - Waits over the host's own connection until SSH answers and the first boot (C(cloud-init)) is finished.
  - Pins the host key of a host that exists already, once. A machine that we created is checked strictly from the first connection on,
    and then gets a host key that it makes itself.
  - What waiting cannot mend (a changed host key, a wrong user or key, an unknown name) fails at once, with one clear message.
extends_documentation_fragment:
  - dockyard.machine.attributes
attributes:
  check_mode:
    support: full
    details: In check mode it does nothing.
  diff_mode:
    support: none
options:
  name:
    description: Name of the machine.
    type: str
    required: true
  store:
    description: Folder of the machine store; E(MACHINE_STORAGE_PATH) when not given, else C(~/.docker/machine).
    type: path
  timeout:
    description: Seconds for everything together.
    type: float
    default: 900
  cloud_init:
    description: Whether to wait for C(cloud-init) where it is installed and no engine was verified yet.
    type: bool
    default: true
  host_key_fingerprint:
    description: The fingerprint (C(SHA256:...)) that the key of an existing host must have. Without it the first key seen is accepted.
    type: str
    default: ''
  repin:
    description: Forget the pinned host key and accept the one that the host shows now.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Wait for the machine
  dockyard.machine.machine_ready:
    name: "{{ inventory_hostname }}"
  become: true
"""

RETURN = r"""
actions:
  description: What was done, in order.
  type: list
  elements: str
  returned: success
  sample: [own_host_key]
elapsed:
  description: Seconds that it took.
  type: float
  returned: success
  sample: 41.5
"""
