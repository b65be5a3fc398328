#!/usr/bin/python
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_install
short_description: Install an engine's packages with apt
version_added: 1.0.0
description:
  - Finishes a package installation that was cut short, fetches package lists, and installs, all in one call and waiting for every lock.
  - It is meant for a host where M(dockyard.machine.engine_info) has found something missing, and does not look again.
author:
  - The dockyard.machine authors (@dockyard)
extends_documentation_fragment:
  - dockyard.machine.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  packages:
    description: The packages.
    type: list
    elements: str
    required: true
  fallback:
    description: Packages by the command that they bring; one is installed when its command is still missing after O(packages).
    type: dict
    default: {}
  update:
    description: Fetch the package lists first.
    type: bool
    default: false
  lock_timeout:
    description: Seconds to wait for other package managers, such as unattended upgrades on a first boot.
    type: float
    default: 300
  timeout:
    description: Seconds for one step.
    type: float
    default: 1800
seealso:
  - module: dockyard.machine.engine_info
"""

EXAMPLES = r"""
- name: Install the distribution's engine
  dockyard.machine.engine_install:
    packages: [docker.io, ca-certificates]
    fallback:
      docker: docker-cli
    update: true
  become: true
"""

RETURN = r"""
installed:
  description: The packages that were asked for, fallbacks included.
  returned: success
  type: list
  elements: str
  sample: [docker.io, ca-certificates]
finished:
  description: Whether an installation that was cut short had to be finished first.
  returned: success
  type: bool
  sample: false
"""

import re
import shutil
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.machine.plugins.module_utils import engine_service
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline, poll

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "APT_LISTCHANGES_FRONTEND": "none", "NEEDRESTART_SUSPEND": "1"}
# Files that an administrator changed stay theirs.
_CONFFILES = ("--force-confdef", "--force-confold")
_LOCKED = re.compile(r"could not get lock|unable to (acquire|lock)|is locked by another process|is another process using it", re.IGNORECASE)
_CUT_SHORT = re.compile(r"dpkg was interrupted|unmet dependencies|not fully installed")

# What apt says in the C locale: (pattern, code, hint).
_CAUSES: t.Final = (
    (r"no space left|enough free space", "no_space", "Free some space on the host and run again"),
    (
        r"unable to locate package|has no installation candidate",
        "package_missing",
        "Look at the host's package sources: on Ubuntu the engine is in the component universe",
    ),
    (
        r"failed to fetch|temporary failure resolving|could not (resolve|connect)|unable to fetch",
        "download_failed",
        "The host cannot reach its package mirror: check its network and package sources",
    ),
)


def explain(step: str, said: str) -> MachineError:
    """The error for a step that failed."""
    lines = [line for line in said.splitlines() if re.match(r"(E|W|Err|dpkg)[: ]", line)] or said.splitlines()
    why = " / ".join(lines[-4:])[-800:]
    for pattern, code, hint in _CAUSES:
        if re.search(pattern, said, re.IGNORECASE):
            return MachineError(f"{step} failed", why=why, hint=hint, code=code)
    return MachineError(f"{step} failed", why=why, hint="Run the same on the host to see more", code="install_failed")


class Apt:
    """apt and dpkg, with patience.

    Args:
        lock_timeout: seconds to wait for other package managers, in all.
        timeout: seconds for one step.
    """

    def __init__(self, lock_timeout: float, timeout: float) -> None:
        self.deadline = Deadline(lock_timeout)
        self.timeout = timeout
        self.finished = False
        self.fetch_said = ""

    def _run(self, step: str, arguments: t.Sequence[str]) -> engine_service.Completed:
        """Run one step, again while somebody else has a lock.

        Raises:
            DeadlineError: somebody has had it for too long.
        """

        def look() -> tuple[engine_service.Completed | None, str]:
            answer = engine_service.command(arguments, self.timeout, more_environment=_ENVIRONMENT)
            said = f"{answer.err}\n{answer.out}"
            if answer.code != 0 and _LOCKED.search(said):
                return None, next(line for line in said.splitlines() if _LOCKED.search(line))
            return answer, ""

        ended: engine_service.Completed = poll(
            look,
            phase=f"{step}: lock of the package manager",
            deadline=self.deadline,
            interval=2,
            hint="Another package manager runs on the host; wait for it, or give more time (docker_engine_apt_lock_timeout)",
        )
        return ended

    def update(self) -> None:
        """Fetch the package lists. One dead source among several is a warning to apt, and no failure here."""
        answer = self._run("Fetching package lists", ["apt-get", "-q", "update"])
        if answer.code != 0:
            raise explain("Fetching package lists", f"{answer.out}\n{answer.err}")
        self.fetch_said = answer.err

    def install(self, packages: t.Sequence[str]) -> None:
        """Install packages; when an earlier installation was cut short, finish that first.

        Raises:
            MachineError: ``no_space``, ``package_missing``, ``download_failed`` or ``install_failed``.
        """
        options = [f"-oDpkg::Options::={option}" for option in _CONFFILES]
        arguments = ["apt-get", "-qy", "--no-install-recommends", *options, "install", *packages]
        answer = self._run("Installing packages", arguments)
        if answer.code != 0 and _CUT_SHORT.search(f"{answer.out}\n{answer.err}"):
            self.finish()
            answer = self._run("Installing packages", arguments)
        if answer.code != 0:
            error = explain(f"Installing {', '.join(packages)}", f"{answer.out}\n{answer.err}")
            fetched = explain("Fetching package lists", self.fetch_said)
            # Packages that nobody could look up are no fault of the package sources.
            raise fetched if (error.code, fetched.code) == ("package_missing", "download_failed") else error

    def finish(self) -> None:
        """Finish what was cut short: first what is unpacked, then what was not yet."""
        self.finished = True
        self._run("Finishing an installation", ["dpkg", *_CONFFILES, "--configure", "-a"])
        options = [f"-oDpkg::Options::={option}" for option in _CONFFILES]
        answer = self._run("Finishing an installation", ["apt-get", "-qy", *options, "--fix-broken", "install"])
        if answer.code != 0:
            raise explain("Finishing an installation that was cut short", f"{answer.out}\n{answer.err}")


def install(params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The whole of the module."""
    apt = Apt(params["lock_timeout"], params["timeout"])
    if params["update"]:
        apt.update()
    packages = list(params["packages"])
    apt.install(packages)
    missing = [package for command, package in params["fallback"].items() if not shutil.which(command, path=_PATH)]
    if missing:
        apt.install(missing)
    return {"changed": True, "installed": packages + missing, "finished": apt.finished}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "required": True},
            "fallback": {"type": "dict", "default": {}},
            "update": {"type": "bool", "default": False},
            "lock_timeout": {"type": "float", "default": 300},
            "timeout": {"type": "float", "default": 1800},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True, installed=module.params["packages"], finished=False)
    try:
        answer = install(module.params)
    except MachineError as error:
        module.fail_json(**error.result())
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
