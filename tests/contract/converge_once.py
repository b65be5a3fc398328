# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Converge one machine in a process of its own, so that a test can kill it: JSON in on stdin, "done" out."""

from __future__ import annotations

import importlib
import json
import sys

from ansible_collections.dockyard.machine.plugins.module_utils.driver import Wanted, converge, new_deadline


def main() -> None:
    """Read ``{"module", "class", "wanted", "options"}`` and do it."""
    order = json.load(sys.stdin)
    driver = getattr(importlib.import_module(order["module"]), order["class"])
    wanted = Wanted(**order["wanted"])
    converge(driver(wanted, order["options"], new_deadline(wanted)))
    print("done")


if __name__ == "__main__":
    main()
