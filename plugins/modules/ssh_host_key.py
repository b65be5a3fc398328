#!/usr/bin/python
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give a host an SSH host key that was made on it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_host_key
short_description: Give a machine an SSH host key of its own
version_added: 1.0.0
author:
  - The dockyard.machine authors (@dockyard)
description:
  - A machine that we create is checked by a throw-away SSH host key at first contact. This module replaces it by a key that the
    machine makes itself, so that no private host key ever existed anywhere else.
  - It works in two phases, so that the caller can pin the new key before the host shows it. Neither breaks a connection.
  - Also removes the copies of the throw-away key that C(cloud-init) keeps of its user-data.
extends_documentation_fragment:
  - dockyard.machine.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  phase:
    description:
      - V(generate) makes a new Ed25519 key beside the one in use, if there is none yet, and returns its public half.
      - V(activate) puts it in the place of the one in use and lets the SSH service read it.
    type: str
    choices: [generate, activate]
    required: true
  directory:
    description: Folder of the host keys.
    type: path
    default: /etc/ssh
"""

EXAMPLES = r"""
- name: Make a new host key
  dockyard.machine.ssh_host_key:
    phase: generate
  become: true
  register: made

- name: Use it
  dockyard.machine.ssh_host_key:
    phase: activate
  become: true
"""

RETURN = r"""
public_key:
  description: The public half of the new key, as in a C(.pub) file.
  type: str
  returned: success, when there is one
  sample: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE5tb3JlIHJhbmRvbSBieXRlcyBoZXJlIGFyZSBmaW5l
"""

import contextlib
import glob
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

NAME = "ssh_host_ed25519_key"
SUFFIX = ".dockyard"

# Where cloud-init keeps the user-data of the first boot, private host key included.
CLOUD_INIT_COPIES = (
    "/var/lib/cloud/instances/*/user-data.txt*",
    "/var/lib/cloud/instances/*/cloud-config.txt",
    "/var/lib/cloud/instances/*/obj.pkl",
)


def read(path: str) -> str:
    """The text of a small file; empty when it doesn't exist."""
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8") as file:
        return file.read()


def generate(module: AnsibleModule, path: str) -> dict[str, t.Any]:
    """Make PATH.dockyard unless it is there; safe to repeat after a kill."""
    new = path + SUFFIX
    public = read(f"{new}.pub").strip()
    if public and os.path.exists(new):
        return {"changed": False, "public_key": public}
    if not module.check_mode:
        for leftover in (new, f"{new}.pub"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(leftover)
        module.run_command(
            [module.get_bin_path("ssh-keygen", required=True), "-q", "-t", "ed25519", "-N", "", "-C", os.uname().nodename, "-f", new],
            check_rc=True,
        )
        public = read(f"{new}.pub").strip()
    return {"changed": True, "public_key": public}


def reload_service(module: AnsibleModule) -> None:
    """Let sshd read its keys; sessions go on."""
    systemctl = module.get_bin_path("systemctl")
    if systemctl:
        # The unit is called ssh on Debian and its kin, sshd elsewhere; the other name is no error.
        module.run_command([systemctl, "try-reload-or-restart", "ssh.service", "sshd.service"])
        return
    module.run_command([module.get_bin_path("pkill", required=True), "-HUP", "-o", "-x", "sshd"])


def activate(module: AnsibleModule, path: str) -> dict[str, t.Any]:
    """Put the new key in place; the public half last, so that a repeat after a kill knows where it stands."""
    new = path + SUFFIX
    copies = [copy for pattern in CLOUD_INIT_COPIES for copy in glob.glob(pattern)]
    pending = os.path.exists(f"{new}.pub")
    if module.check_mode:
        return {"changed": pending or bool(copies)}
    if pending:
        if os.path.exists(new):
            os.chmod(new, 0o600)
            os.replace(new, path)
        os.replace(f"{new}.pub", f"{path}.pub")
    for copy in copies:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(copy)
    # Also when nothing was pending: a run that was killed may not have come this far.
    reload_service(module)
    return {"changed": pending or bool(copies), "public_key": read(f"{path}.pub").strip()}


def main() -> None:
    """Run one phase."""
    module = AnsibleModule(
        argument_spec={
            "phase": {"type": "str", "choices": ["generate", "activate"], "required": True},
            "directory": {"type": "path", "default": "/etc/ssh"},
        },
        supports_check_mode=True,
    )
    path = os.path.join(module.params["directory"], NAME)
    try:
        answer = generate(module, path) if module.params["phase"] == "generate" else activate(module, path)
    except OSError as error:
        module.fail_json(msg=f"The host key could not be replaced ({error.filename}): {error.strerror}.")
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
