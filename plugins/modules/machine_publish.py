#!/usr/bin/python
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin machine_publish."""

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_publish
short_description: Save a verified engine in its record and write what clients read
version_added: 1.0.0
author:
  - The dockyard.machine authors (@dockyard)
description:
  - Saves the engine's version in the machine's record, brings the files for clients up to date (C(env), C(ssh_config), certificates), and
    keeps a Docker context of the machine's name.
  - Runs on the controller; delegate the task to it.
extends_documentation_fragment:
  - dockyard.machine.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: partial
    details: Shows the Docker context.
options:
  name:
    description: Name of the machine.
    type: str
    required: true
  store:
    description: Folder of the machine store; E(MACHINE_STORAGE_PATH) when not given, else C(~/.docker/machine).
    type: path
  engine:
    description: What the verified engine said of itself.
    type: dict
    required: true
  engine_options:
    description: Engine options to remember, in Docker Machine's words (C(labels), C(env), C(opts) ...).
    type: dict
    default: {}
  docker_context:
    description: Whether to keep a Docker context.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Publish the engine
  dockyard.machine.machine_publish:
    name: "{{ inventory_hostname }}"
    engine: "{{ docker_engine_result.engine }}"
  delegate_to: localhost
"""

RETURN = r"""
endpoint:
  description: Where clients reach the engine.
  type: str
  returned: success
  sample: tcp://127.0.0.1:42376
cert_path:
  description: Folder with C(ca.pem), C(cert.pem) and C(key.pem).
  type: str
  returned: success
  sample: /home/you/.docker/machine/machines/demo
"""
