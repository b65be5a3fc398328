# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the attributes of the modules and action plugins mean, said once."""

from __future__ import annotations


class ModuleDocFragment:
    """Fragments ``attributes`` (check_mode, diff_mode, platform) and ``attributes.actiongroup`` (action_group)."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
  platform:
    description: Target OS/families that can be operated against.
    support: full
    platforms: posix
"""

    # Shared by every driver module, so that module_defaults can set options of all drivers at once.
    ACTIONGROUP = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/dockyard.machine.machine) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - dockyard.machine.machine
"""
