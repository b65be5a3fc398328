# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that every cloud driver takes beside the common ones, said once."""

from __future__ import annotations


class ModuleDocFragment:
    """Fragment ``cloud``; it matches CLOUD_OPTIONS in module_utils/cloud.py."""

    DOCUMENTATION = r"""
options:
  allowed_cidrs:
    description:
      - Address ranges that may reach SSH, the engine and O(open_ports), for example V(203.0.113.0/24). A bare address means only itself.
      - Empty means only the controller. Behind address translation its public address is not known everywhere.
        Then this option is required.
      - The whole world (V(0.0.0.0/0), V(::/0)) is let in only when it is listed here.
    type: list
    elements: str
    default: []
  open_ports:
    description: Further ports that are open to O(allowed_cidrs), each C(PORT), C(PORT/PROTOCOL) or C(FIRST-LAST/PROTOCOL).
    type: list
    elements: str
    default: []
  private_address_only:
    description: Reach the machine at its private address, and give it no public one where the provider allows that.
    type: bool
    default: false
  ipv6:
    description: Give the machine an IPv6 address as well.
    type: bool
    default: false
  delete_protection:
    description: Refuse to remove the machine as long as this is set. Where the provider has such a lock it is set there too.
    type: bool
    default: false
"""
