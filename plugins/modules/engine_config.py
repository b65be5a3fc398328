#!/usr/bin/python
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_config
short_description: Configure Docker Engine on its host, with mutual TLS, and restart it only when needed
version_added: 1.0.0
description:
  - Converges C(daemon.json), a systemd drop-in, and the running engine.
  - In C(daemon.json) only the keys given here are set. All other keys are kept. Keys that an earlier run set and that are no longer
    wanted are removed; the drop-in remembers which these are.
  - The drop-in C(10-machine.conf) repeats the command of the vendor's unit and adds the TCP listener. The vendor's unit is never edited.
    A drop-in of that name written by Docker Machine is taken over with its engine options.
  - Conflicts that would keep the engine from starting are found before anything is changed.
  - With Docker Engine 23 and newer the engine itself validates the configuration first.
  - After a restart the engine has to answer. When it does not, the former files are brought back and the engine is restarted with them.
author:
  - The dockyard.machine authors (@dockyard)
extends_documentation_fragment:
  - dockyard.machine.attributes
attributes:
  check_mode:
    support: full
    details: On a host without engine the result is a prediction.
  diff_mode:
    support: full
    details: Values of environment variables, passwords in URLs, and keys that are named like secrets are hidden.
options:
  config:
    description:
      - Keys of C(daemon.json) that win over what is there. A key with the value V(null) is removed.
      - V(hosts), V(tls), V(tlsverify), V(tlscacert), V(tlscert) and V(tlskey) are refused.
    type: dict
    default: {}
  defaults:
    description:
      - Keys of C(daemon.json) that apply where neither the file nor O(config) sets them.
      - C(live-restore) is left out in a swarm, C(default-ulimits) where the host may not raise limits.
    type: dict
    default: {}
  environment:
    description: Environment variables of the engine, for example C(HTTPS_PROXY).
    type: dict
    default: {}
  certificate_dir:
    description: Folder with C(ca.pem), C(server.pem) and C(server-key.pem).
    type: path
    default: /etc/docker
  listen_address:
    description: Address on which the engine listens. V(::) is both IPv6 and IPv4 on most hosts.
    type: str
    default: 0.0.0.0
  port:
    description: TCP port on which the engine listens.
    type: int
    default: 2376
  restart:
    description: Restart the engine even when its configuration is as wanted, because its certificates changed.
    type: bool
    default: false
  timeout:
    description: Seconds that the engine gets to answer after a restart.
    type: float
    default: 120
seealso:
  - module: dockyard.machine.engine_certificate
"""

EXAMPLES = r"""
- name: Configure the engine
  dockyard.machine.engine_config:
    config:
      labels:
        - zone=a
    defaults:
      log-driver: local
      live-restore: true
    environment:
      HTTPS_PROXY: http://proxy.example:3128
    restart: "{{ certificate is changed }}"
  become: true
"""

RETURN = r"""
restarted:
  description: Whether the engine was started or restarted (or would be, in check mode).
  returned: success
  type: bool
  sample: true
reasons:
  description: Why something was done, in words.
  returned: success
  type: list
  elements: str
  sample: [/etc/docker/daemon.json changes]
engine:
  description: The running engine; empty in check mode when none runs.
  returned: success
  type: dict
  contains:
    version:
      description: Version of the engine.
      type: str
      sample: 26.1.5
    api_version:
      description: Newest API version that it speaks.
      type: str
      sample: "1.45"
    min_api_version:
      description: Oldest API version that it speaks.
      type: str
      sample: "1.24"
failure:
  description: What a program can read about a failure; P(ansible.builtin.debug#module) shows RV(ignore:msg) to a person.
  returned: failure
  type: dict
  contains:
    code:
      description:
        - One stable word, for example V(daemon_json_invalid), V(conflicting_hosts), V(conflicting_drop_in), V(conflicting_flag),
          V(conflicting_listener), V(config_refused), V(port_busy), V(engine_failed), V(engine_missing), V(no_space).
      type: str
      sample: port_busy
    where:
      description: The option or file at fault.
      type: str
      sample: /etc/docker/daemon.json
    hint:
      description: What to do next.
      type: str
      sample: Repair the file or move it away; it was kept as it is
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.machine.plugins.module_utils import engine_configuration, engine_service
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError


def text_of(value: t.Any) -> str:
    """A value of an environment variable: YAML's true and false are written in lower case, as shells expect them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def wish_from(params: t.Mapping[str, t.Any]) -> engine_configuration.Wish:
    """Read the options."""
    if not 1 <= params["port"] <= 65535:
        raise MachineError(f"{params['port']} is no TCP port", where="option port", hint="Give 1 to 65535", code="invalid_option")
    return engine_configuration.Wish(
        config=params["config"],
        defaults=params["defaults"],
        environment={str(name): text_of(value) for name, value in params["environment"].items()},
        certificate_dir=params["certificate_dir"],
        listen_address=params["listen_address"],
        port=params["port"],
        restart=params["restart"],
        timeout=params["timeout"],
    )


def converge(wish: engine_configuration.Wish, module: AnsibleModule) -> dict[str, t.Any]:
    """The whole of the module."""
    plan = engine_configuration.make_plan(wish, check_mode=module.check_mode)
    for warning in plan.warnings:
        module.warn(warning)
    enable = not plan.unit.enabled
    if plan.restart and plan.unit.loaded:
        engine_configuration.check_port(plan, wish.port)
        engine_configuration.validate(plan)
    if plan.restart and not module.check_mode:
        engine = engine_configuration.apply(plan, wish)
    else:
        engine = engine_service.version() if plan.unit.running else {}
    if enable and not module.check_mode:
        engine_configuration.enable()
    return {
        "changed": plan.restart or enable,
        "restarted": plan.restart,
        "reasons": plan.reasons + (["it is not started at boot"] if enable else []),
        "engine": engine,
        "diff": [change.diff() for change in plan.changes],
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "dict", "default": {}},
            "defaults": {"type": "dict", "default": {}},
            "environment": {"type": "dict", "default": {}},
            "certificate_dir": {"type": "path", "default": "/etc/docker"},
            "listen_address": {"type": "str", "default": "0.0.0.0"},
            "port": {"type": "int", "default": 2376},
            "restart": {"type": "bool", "default": False},
            "timeout": {"type": "float", "default": 120},
        },
        supports_check_mode=True,
    )
    try:
        answer = converge(wish_from(module.params), module)
    except MachineError as error:
        module.fail_json(**error.result())
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
