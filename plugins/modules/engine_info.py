#!/usr/bin/python
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_info
short_description: Tell what a host is, and which Docker Engine it has
version_added: 1.0.0
description:
  - Everything that has to be known before an engine is installed or configured, in one call.
  - Changes nothing, and asks no network.
author:
  - The dockyard.machine authors (@dockyard)
extends_documentation_fragment:
  - dockyard.machine.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
options: {}
"""

EXAMPLES = r"""
- name: Look at the host
  dockyard.machine.engine_info:
  become: true
  register: host

- name: Show the engine's version
  ansible.builtin.debug:
    msg: "{{ host.engine.version }} on {{ host.os.pretty_name }}"
"""

RETURN = r"""
os:
  description: The operating system, from C(os-release).
  returned: success
  type: dict
  contains:
    id:
      description: The distribution.
      type: str
      sample: debian
    like:
      description: The distributions that it derives from.
      type: list
      elements: str
      sample: []
    version:
      description: Its version; empty for rolling ones.
      type: str
      sample: "13"
    pretty_name:
      description: Its name for people.
      type: str
      sample: Debian GNU/Linux 13 (trixie)
    systemd:
      description: Whether systemd runs the host.
      type: bool
      sample: true
    root:
      description: Whether the module ran as root.
      type: bool
      sample: true
engine:
  description: The engine that is installed, running or not.
  returned: success
  type: dict
  contains:
    usable:
      description: Whether it is completely installed.
      type: bool
      sample: true
    version:
      description: Its version, empty without engine.
      type: str
      sample: 26.1.5
    path:
      description: Where C(dockerd) is.
      type: str
      sample: /usr/sbin/dockerd
    package:
      description: The package that it is from, also one that is only half installed; empty for none, or where there is no dpkg.
      type: str
      sample: docker.io
    running:
      description: Whether it runs.
      type: bool
      sample: true
missing_commands:
  description: Which of C(openssl) and C(iptables) are not there.
  returned: success
  type: list
  elements: str
  sample: []
interrupted:
  description: Whether a package installation was cut short.
  returned: success
  type: bool
  sample: false
package_lists_age:
  description: Age in seconds of apt's package lists; V(-1) when there are none, as in most images, or no apt.
  returned: success
  type: int
  sample: 3600
free_mb:
  description: Free space in MiB where packages and images go, the smallest of the file systems.
  returned: success
  type: int
  sample: 20480
problem:
  description: What is wrong with the host's C(daemon.json), as engine_config would say it; empty when nothing is.
  returned: success
  type: str
  sample: ""
"""

import os
import pathlib
import shutil
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.machine.plugins.module_utils import engine_daemon, engine_service, files
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GROWING = ("/usr", "/var/cache", "/var/lib")
_STAMPS = ("/var/lib/apt/periodic/update-success-stamp", "/var/lib/apt/lists/partial", "/var/lib/apt/lists")
_ABSENT = ("not-installed", "config-files")
_ENGINES = ("docker.io", "docker-ce")
_PACKAGES = (*_ENGINES, "containerd", "containerd.io", "runc")


def os_release() -> dict[str, str]:
    """The settings of os-release(5); unquoted."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            text = pathlib.Path(path).read_text(encoding="utf-8")
        except OSError:
            continue
        pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
        return {name: value.strip().strip("\"'") for name, dummy, value in pairs}
    return {}


def system() -> dict[str, t.Any]:
    """The operating system, see RETURN."""
    release = os_release()
    return {
        "id": release.get("ID", ""),
        "like": release.get("ID_LIKE", "").split(),
        "version": release.get("VERSION_ID", ""),
        "pretty_name": release.get("PRETTY_NAME", release.get("ID", "an unknown system")),
        "systemd": pathlib.Path("/run/systemd/system").is_dir(),
        "root": os.geteuid() == 0,
    }


def package_states() -> dict[str, str]:
    """The engine's packages that dpkg knows, and their states (dpkg(1), package states)."""
    if not shutil.which("dpkg-query", path=_PATH):
        return {}
    answer = engine_service.command(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n", *_PACKAGES])
    return {line.split()[0]: line.split()[1] for line in answer.out.splitlines() if line.count(" ") == 1}


def interrupted(states: t.Mapping[str, str]) -> bool:
    """Whether dpkg was cut short, so that apt refuses to work before it has been finished."""
    updates = pathlib.Path("/var/lib/dpkg/updates")
    try:
        journal = any(entry.name.isdigit() for entry in updates.iterdir())
    except OSError:
        journal = False
    return journal or bool(set(states.values()) - {"installed", *_ABSENT})


def package_lists_age() -> int:
    """Age of apt's lists, see RETURN. The folder's own age says nothing: images come with a new and empty one."""
    lists = list(pathlib.Path("/var/lib/apt/lists").glob("*_Packages*"))
    # apt keeps the mirror's dates on the files; when it looked last is the date of its stamp or folder.
    looked = [path.stat().st_mtime for path in map(pathlib.Path, _STAMPS) if path.exists()]
    return max(0, int(time.time() - max(looked))) if lists and looked else -1


def engine(systemd: bool, states: t.Mapping[str, str]) -> dict[str, t.Any]:
    """The engine, see RETURN."""
    path = shutil.which("dockerd", path=_PATH) or ""
    unit = engine_service.unit() if systemd else engine_service.Unit()
    # Asking the running engine is cheaper than starting its big binary.
    running = engine_service.version().get("version", "") if unit.running else ""
    return {
        "usable": bool(path and (unit.loaded or unit.masked)),
        "version": running or (engine_service.binary_version(path) if path else ""),
        "path": path,
        "package": next((name for name in _ENGINES if states.get(name, "not-installed") not in _ABSENT), ""),
        "running": unit.running,
    }


def free_mb() -> int:
    """Free space, see RETURN."""
    return min(shutil.disk_usage(path).free for path in _GROWING if pathlib.Path(path).exists()) >> 20


def problem() -> str:
    """What a configuration would stumble on, see RETURN."""
    try:
        text = files.read(pathlib.Path(engine_daemon.DAEMON_JSON), 1 << 20).decode("utf-8", "replace")
        engine_daemon.check_hosts_key(engine_daemon.parse_daemon_json(text), engine_daemon.DAEMON_JSON)
    except FileNotFoundError:
        return ""
    except MachineError as error:
        return error.message
    return ""


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    try:
        host = system()
        states = package_states()
        broken = interrupted(states)
        found = engine(host["systemd"], states)
        found["usable"] = found["usable"] and not broken
        module.exit_json(
            changed=False,
            os=host,
            engine=found,
            missing_commands=[name for name in ("openssl", "iptables") if not shutil.which(name, path=_PATH)],
            interrupted=broken,
            package_lists_age=package_lists_age(),
            free_mb=free_mb(),
            problem=problem(),
        )
    except MachineError as error:
        module.fail_json(**error.result())


if __name__ == "__main__":
    main()
