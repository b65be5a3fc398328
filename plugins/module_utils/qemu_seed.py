# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The seed of a machine's first boot: a small disk that cloud-init's data source NoCloud reads.

Format: https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.files import explained
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_tools import find_program, run_program
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline

_LABEL: t.Final = "cidata"

# Programs that make an ISO 9660 image, the best first, with what comes before their common options.
_TOOLS: t.Final = (("xorriso", ("-as", "mkisofs")), ("genisoimage", ()), ("mkisofs", ()))


def _iso_command(target: str, folder: str) -> list[str]:
    for name, first in _TOOLS:
        path = find_program(name)
        if path:
            return [path, *first, "-quiet", "-volid", _LABEL, "-joliet", "-rock", "-output", target, folder]
    path = find_program("hdiutil")
    if path:
        return [path, "makehybrid", "-quiet", "-iso", "-joliet", "-default-volume-name", _LABEL, "-o", target, folder]
    raise MachineError(
        "There is no program to make the seed of the first boot",
        why="none of xorriso, genisoimage, mkisofs and hdiutil was found",
        hint="Install one; on Debian and Ubuntu: apt-get install xorriso",
        code="missing_program",
    )


def check_tools() -> None:
    """Raise ``missing_program`` when no seed can be made here."""
    _iso_command("", "")


def meta_data(name: str, instance_id: str) -> str:
    """The NoCloud meta-data."""
    return f"instance-id: {json.dumps(instance_id)}\nlocal-hostname: {json.dumps(name)}\n"


def minimal_user_data(ssh_user: str, ssh_public_key: str) -> str:
    """User-data for a machine that got none: the account and its key."""
    user: dict[str, t.Any] = {"name": ssh_user, "lock_passwd": True, "ssh_authorized_keys": [ssh_public_key] if ssh_public_key else []}
    config: dict[str, t.Any] = {"ssh_pwauth": False, "users": [user]}
    if ssh_user == "root":
        config["disable_root"] = False
    else:
        user.update({"shell": "/bin/bash", "sudo": "ALL=(ALL) NOPASSWD:ALL"})
    return f"#cloud-config\n{json.dumps(config, indent=1)}\n"


def write_seed(target: str, contents: t.Mapping[str, str], deadline: Deadline) -> None:
    """Make the seed, readable by its owner only.

    Args:
        target: its path, in a folder of ours.
        contents: file names (``meta-data``, ``user-data``, ``network-config``) and texts; empty texts are left out.
    """
    with explained("The seed of the first boot could not be written", target):
        folder = tempfile.mkdtemp(prefix=".seed-", dir=os.path.dirname(target))
        try:
            inside = os.path.join(folder, "content")
            os.mkdir(inside, 0o700)
            for name, text in contents.items():
                if text:
                    handle = os.open(os.path.join(inside, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                    with os.fdopen(handle, "w", encoding="utf-8") as stream:
                        stream.write(text)
            image = os.path.join(folder, "seed.iso")
            run_program(_iso_command(image, inside), what="Making the seed of the first boot", deadline=deadline)
            os.chmod(image, 0o600)
            os.replace(image, target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
