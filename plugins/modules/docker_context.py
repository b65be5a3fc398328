#!/usr/bin/python
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_context
short_description: Manage a Docker context without the docker CLI
version_added: 1.0.0
author: The dockyard.machine authors (@dockyard)
description:
  - Writes the files that C(docker context create) writes, so that C(docker --context NAME) reaches a machine over TLS.
  - The docker CLI is not needed; it finds the context when it is installed later.
  - Contexts that this module has not made are never changed or removed unless O(force=true).
extends_documentation_fragment:
  - dockyard.machine.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Certificates and keys are shown as digests only.
options:
  name:
    description:
      - Name of the context. Docker wants two characters or more.
    type: str
    required: true
  state:
    description:
      - V(present) makes the context and keeps it as described.
      - V(absent) removes it. When it was the current context, the default one is current afterwards. A context that this
        module has not made is left alone with a warning unless O(force=true).
    type: str
    choices: [present, absent]
    default: present
  host:
    description:
      - The endpoint, such as V(tcp://192.0.2.10:2376), V(ssh://user@host) or V(unix:///var/run/docker.sock).
      - Required with O(state=present).
    type: str
  description:
    description:
      - Shown by C(docker context ls).
    type: str
    default: ''
  cert_path:
    description:
      - A folder with C(ca.pem), C(cert.pem) and C(key.pem), such as a machine's folder in the store.
    type: path
  ca:
    description:
      - File with the certificate authorities that the engine is checked against. Default is C(ca.pem) in O(cert_path).
    type: path
  cert:
    description:
      - File with the client's certificate. Default is C(cert.pem) in O(cert_path).
    type: path
  key:
    description:
      - File with the client's private key. Default is C(key.pem) in O(cert_path).
    type: path
  use:
    description:
      - Whether to make the context the current one, as C(docker context use) does. With V(false), the current context stays.
    type: bool
    default: false
  force:
    description:
      - Whether to replace or remove a context of that name which this module has not made.
    type: bool
    default: false
  docker_config:
    description:
      - Configuration folder of the docker CLI. Default is E(DOCKER_CONFIG), or C(~/.docker).
    type: path
notes:
  - Endpoints with V(tcp://) need certificates; there is no way to make a context that does not verify TLS.
seealso:
  - plugin: dockyard.machine.machines
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Reach the machine web1 with docker --context web1
  dockyard.machine.docker_context:
    name: web1
    host: tcp://192.0.2.10:2376
    cert_path: ~/.docker/machine/machines/web1
    description: The first web server
  delegate_to: localhost

- name: Use it from now on
  dockyard.machine.docker_context:
    name: web1
    host: tcp://192.0.2.10:2376
    cert_path: ~/.docker/machine/machines/web1
    use: true
  delegate_to: localhost

- name: Remove it
  dockyard.machine.docker_context:
    name: web1
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
context:
  description: The context as it is, or with check mode would be, after the task.
  returned: success
  type: dict
  contains:
    name:
      description: Its name.
      type: str
      sample: web1
    host:
      description: Its endpoint; empty when there is no context.
      type: str
      sample: tcp://192.0.2.10:2376
    meta_path:
      description: The folder of C(meta.json).
      type: str
      sample: /home/me/.docker/contexts/meta/9d1a...
    current:
      description: Whether it is the current context.
      type: bool
failure:
  description: What went wrong, for programs.
  returned: failure
  type: dict
  contains:
    code:
      description: A stable word, such as V(foreign_context), V(missing_file), V(missing_tls) or V(broken_config).
      type: str
    where:
      description: The option or file at fault.
      type: str
    hint:
      description: What to do next.
      type: str
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.machine.plugins.module_utils import docker_context
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError


def wanted_from(params: dict[str, t.Any]) -> docker_context.Wanted:
    """What the options describe; the files are read."""
    folder = params["cert_path"]
    paths = {}
    for name in docker_context.TLS_FILES:
        path = params[name.split(".", 1)[0]] or (folder and os.path.join(folder, name))
        if path:
            paths[name] = path
    wanted = docker_context.Wanted(
        name=docker_context.validate_name(params["name"]),
        host=params["host"],
        description=params["description"],
        tls=docker_context.read_tls(paths),
    )
    docker_context.validate(wanted)
    return wanted


def run(module: AnsibleModule) -> dict[str, t.Any]:
    """Converge; the result of the module."""
    params, check = module.params, module.check_mode
    contexts = docker_context.Contexts(params["docker_config"])
    name = params["name"]
    before = {**contexts.describe(name), "current": contexts.current() == name}
    if params["state"] == "present":
        wanted = wanted_from(params)
        changed = contexts.present(wanted, force=params["force"], check=check)
        if params["use"]:
            changed |= contexts.use(name, check=check)
        after = {**docker_context.describe(wanted), "current": before["current"] or params["use"]}
    elif not contexts.meta_dir(name).exists() or contexts.ours(name) or params["force"]:
        changed = contexts.absent(name, check=check)
        after = {"current": False}
    else:
        module.warn(f"The Docker context {name} was not made by this collection and is left alone; set force=true to remove it.")
        changed, after = False, before
    context = {"name": name, "host": after.get("host", ""), "meta_path": str(contexts.meta_dir(name)), "current": after["current"]}
    return {"changed": changed, "context": context, "diff": {"before": before, "after": after}}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "host": {"type": "str"},
            "description": {"type": "str", "default": ""},
            "cert_path": {"type": "path"},
            "ca": {"type": "path"},
            "cert": {"type": "path"},
            # The path of the file; its content is never shown.
            "key": {"type": "path", "no_log": False},
            "use": {"type": "bool", "default": False},
            "force": {"type": "bool", "default": False},
            "docker_config": {"type": "path"},
        },
        required_if=[("state", "present", ["host"])],
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except MachineError as error:
        module.fail_json(**error.result())
    module.exit_json(**result)


if __name__ == "__main__":
    main()
