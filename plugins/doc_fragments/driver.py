# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that every driver module takes, said once."""

from __future__ import annotations


class ModuleDocFragment:
    """Fragment ``driver``; it matches COMMON_OPTIONS in module_utils/driver_module.py."""

    DOCUMENTATION = r"""
options:
  name:
    description:
      - Name of the machine, unique for an O(owner).
      - 1 to 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit.
    type: str
    required: true
  state:
    description:
      - V(present) makes sure that it exists; an existing machine's power state is left alone, a new one runs.
      - V(started) makes sure that it exists and runs.
      - V(stopped) shuts it down; its power is taken away when it does not within O(timeouts.stop).
      - V(killed) takes its power away at once.
      - V(restarted) restarts a running machine and starts a stopped one.
      - V(absent) removes it with everything that was made for it.
    type: str
    choices: [present, started, stopped, restarted, killed, absent]
    default: started
  owner:
    description: Who keeps the machine. Written on everything that is made; only machines of this owner are found.
    type: str
    default: ''
  token:
    description:
      - A random word that marks this generation of the name and makes creation idempotent.
      - Comes from the machine's record; leave it empty when no record is kept.
    type: str
    default: ''
  provider_id:
    description: The provider's id of the machine as far as it is known; the marks decide.
    type: str
    default: ''
  tags:
    description: Tags or labels for the machine and what belongs to it, beside our own marks.
    type: dict
    default: {}
  ssh_user:
    description: Account for SSH. Empty means the driver's default.
    type: str
    default: ''
  ssh_public_key:
    description: Public key that the machine accepts for O(ssh_user), one line as in a C(.pub) file.
    type: str
    default: ''
  user_data:
    description: Complete user-data for the first boot, in any format that C(cloud-init) knows.
    type: str
    default: ''
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
        description: Until a new machine runs and has an address. 900 unless given.
        type: float
      start:
        description: Until a machine that was started runs and has an address. 600 unless given.
        type: float
      stop:
        description: Until a machine has shut down; then its power is taken away. 180 unless given.
        type: float
      delete:
        description: Until a removed machine is gone. 600 unless given.
        type: float
"""
