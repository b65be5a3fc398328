#!/usr/bin/python
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_verify
short_description: Check from a client's place that an engine answers us, and nobody else
version_added: 1.0.0
description:
  - With our client certificate the engine answers; its certificate is verified against the store's authority and the address.
  - Without a client certificate it refuses.
  - TLS 1.1 is refused.
  - No engine answers without TLS on the plain port.
  - Runs where the clients are, usually on the controller with C(delegate_to) V(localhost).
author:
  - The dockyard.machine authors (@dockyard)
extends_documentation_fragment:
  - dockyard.machine.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
requirements:
  - docker
  - cryptography
options:
  address:
    description: Where clients reach the engine.
    type: str
    required: true
  port:
    description: Port at that address.
    type: int
    default: 2376
  cert_path:
    description: Folder with C(ca.pem), C(cert.pem) and C(key.pem), such as the machine's folder in the store.
    type: path
    required: true
  plain_port:
    description: Port on which no engine may answer without TLS. V(0) leaves this check out, for example behind a port forward.
    type: int
    default: 2375
  timeout:
    description: Seconds for one connection.
    type: float
    default: 10
  deadline:
    description: Seconds for all tries to reach the engine.
    type: float
    default: 60
seealso:
  - module: dockyard.machine.engine_config
"""

EXAMPLES = r"""
- name: Check the engine as a client
  dockyard.machine.engine_verify:
    address: 192.0.2.10
    cert_path: ~/.docker/machine/machines/web1
  delegate_to: localhost
  become: false
"""

RETURN = r"""
engine:
  description: The engine that answered.
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
    os:
      description: Its operating system.
      type: str
      sample: linux
    arch:
      description: Its processor architecture.
      type: str
      sample: amd64
checks:
  description: What was tried and how it went, in words.
  returned: success
  type: dict
  contains:
    client_certificate:
      description: With our client certificate.
      type: str
      sample: answers
    no_certificate:
      description: Without one.
      type: str
      sample: "refused: TLSV13_ALERT_CERTIFICATE_REQUIRED"
    tls_1_1:
      description: With TLS 1.1.
      type: str
      sample: "refused: TLSV1_ALERT_PROTOCOL_VERSION"
    plain_port:
      description: Without TLS.
      type: str
      sample: "closed: nobody listens there (connection refused)"
"""

import concurrent.futures
import pathlib
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.machine.plugins.module_utils import engine_client
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline, retry

# A firewall that drops packets is a closed port; waiting longer tells no more.
_PLAIN_TIMEOUT = 2.0


def verify(params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The whole of the module.

    Raises:
        MachineError: see :mod:`engine_client`.
    """
    endpoint = engine_client.Endpoint(params["address"].strip("[]"), params["port"], pathlib.Path(params["cert_path"]))
    timeout = params["timeout"]
    engine = retry(
        lambda: engine_client.version(endpoint, timeout),
        phase="engine answers over TLS",
        deadline=Deadline(params["deadline"]),
        attempts=1000,
    )
    tries: dict[str, t.Callable[[], str]] = {
        "no_certificate": lambda: engine_client.anonymous_refused(endpoint, timeout),
        "tls_1_1": lambda: engine_client.old_tls_refused(endpoint, timeout),
    }
    if params["plain_port"]:
        tries["plain_port"] = lambda: engine_client.plain_closed(endpoint.address, params["plain_port"], min(timeout, _PLAIN_TIMEOUT))
    with concurrent.futures.ThreadPoolExecutor(len(tries)) as pool:
        running = {name: pool.submit(attempt) for name, attempt in tries.items()}
        checks = {name: attempt.result() for name, attempt in running.items()}
    return {"changed": False, "engine": engine, "checks": {"client_certificate": "answers", **checks}}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "port": {"type": "int", "default": 2376},
            "cert_path": {"type": "path", "required": True},
            "plain_port": {"type": "int", "default": 2375},
            "timeout": {"type": "float", "default": 10},
            "deadline": {"type": "float", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        answer = verify(module.params)
    except MachineError as error:
        module.fail_json(**error.result())
    for name, said in answer["checks"].items():
        if said.startswith("not tried"):
            module.warn(f"The check {name} proved nothing: {said}")
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
