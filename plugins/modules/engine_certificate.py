#!/usr/bin/python
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_certificate
short_description: Give an engine a server certificate of the store's authority
version_added: 1.0.0
description:
  - Makes the store's certificate authority and client certificate on the controller when they are missing or due.
  - Makes the engine's private key on its host. It never leaves the host. A key that others could read is replaced.
  - Has the host sign a request, signs it on the controller, and installs the certificate. Nothing is done while the certificate
    there is good.
  - Copies C(ca.pem), C(cert.pem), C(key.pem) and C(server.pem) to the machine's folder in the store, as Docker Machine does.
  - The engine reads its certificates only when it starts. M(dockyard.machine.engine_config) restarts it.
author:
  - The dockyard.machine authors (@dockyard)
extends_documentation_fragment:
  - dockyard.machine.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows names and dates, never keys.
requirements:
  - cryptography (on the controller)
  - openssl (the command, on the host)
options:
  name:
    description: The machine's name in the store.
    type: str
    required: true
  store:
    description: The store on the controller. The default is E(MACHINE_STORAGE_PATH), else C(~/.docker/machine).
    type: str
    default: ""
  sans:
    description:
      - Addresses and DNS names under which clients reach the engine.
      - The machine's name, V(localhost), V(127.0.0.1) and V(::1) are always among them.
    type: list
    elements: str
    default: []
  certificate_dir:
    description: Folder on the host.
    type: path
    default: /etc/docker
  validity_days:
    description: Days that a new server certificate is valid, of which one lies in the past for hosts whose clock is wrong.
    type: int
    default: 397
  client_validity_days:
    description: Days that a new client certificate is valid.
    type: int
    default: 90
  renew_fraction:
    description: A certificate is renewed when this part of its life, or less, is left.
    type: float
    default: 0.34
  force:
    description: Make a new key and certificate for the engine now.
    type: bool
    default: false
  takeover:
    description:
      - Replace the authority of an engine that trusts another one than this store's.
      - Without it such a host is left alone, because its clients would be locked out.
    type: bool
    default: false
  lock_timeout:
    description: Seconds to wait for another run that makes certificates in the same store.
    type: float
    default: 60
  certificate:
    description: The certificate to install, in PEM. The action plugin gives it; without it the module only looks and prepares.
    type: str
    default: ""
  ca:
    description: The authorities that the engine shall trust, in PEM. The action plugin gives it.
    type: str
    default: ""
notes:
  - An expired authority is never replaced silently; the error says what to do.
seealso:
  - module: dockyard.machine.engine_config
"""

EXAMPLES = r"""
- name: Keep the engine's certificate good
  dockyard.machine.engine_certificate:
    name: web1
    sans:
      - 192.0.2.10
      - web1.example.com
  become: true
  register: certificate

- name: Restart the engine when needed
  dockyard.machine.engine_config:
    restart: "{{ certificate is changed }}"
  become: true
"""

RETURN = r"""
reasons:
  description: What was made or renewed (or would be, in check mode), and why.
  returned: success
  type: list
  elements: str
  sample: ["server certificate: lacks 192.0.2.10"]
installed:
  description: Whether files of the engine changed, so that it has to be restarted.
  returned: success
  type: bool
  sample: true
sans:
  description: The names in the certificate.
  returned: success
  type: list
  elements: str
  sample: [127.0.0.1, 192.0.2.10, "::1", localhost, web1]
cert_path:
  description: The machine's folder in the store, with what a client needs (E(DOCKER_CERT_PATH)).
  returned: success
  type: str
  sample: /home/you/.docker/machine/machines/web1
expires:
  description: When the server certificate ends, ISO 8601 in UTC; empty when there is none yet (check mode).
  returned: success
  type: str
  sample: "2027-12-24T10:00:00+00:00"
client_expires:
  description: When the store's client certificate ends.
  returned: success
  type: str
  sample: "2027-02-20T10:00:00+00:00"
"""

import os
import pathlib
import stat
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.machine.plugins.module_utils import engine_service, files
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError

KEY = "server-key.pem"
PENDING = ".server-key.pem.new"
MODES = {KEY: 0o400, "server.pem": 0o444, "ca.pem": 0o444}
_LIMIT = 1 << 20


def openssl(*arguments: str, given: str = "") -> str:
    """Run openssl and return its output.

    Raises:
        MachineError: ``openssl_missing`` or ``openssl_failed``.
    """
    answer = engine_service.command(["openssl", *arguments], given=given)
    if answer.code == 127:
        raise MachineError(
            "The command openssl is missing on the host",
            hint="Install the package openssl; the role dockyard.machine.docker_engine does",
            code="openssl_missing",
        )
    if answer.code != 0:
        raise MachineError(f"openssl {arguments[0]} failed", why=answer.err.strip()[-500:], code="openssl_failed")
    return answer.out


def read(path: pathlib.Path) -> str:
    """The file's text, empty when there is none."""
    try:
        return files.read(path, _LIMIT).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def key_problem(path: pathlib.Path) -> str:
    """Why the engine's key cannot be used, or an empty string."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return "there is none"
    if not stat.S_ISREG(found.st_mode):
        return "it is no file"
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        return "others could read it"
    return ""


def modes_right(folder: pathlib.Path) -> bool:
    """Whether every file is there with its mode."""
    return all(files.mode(folder / name) == mode for name, mode in MODES.items())


def request(path: pathlib.Path, name: str) -> str:
    """A signing request for a key; empty when the key is no key."""
    try:
        return openssl("req", "-new", "-sha256", "-subj", f"/CN={name}", "-key", str(path))
    except MachineError as error:
        if error.code == "openssl_missing":
            raise
        return ""


def prepare(params: t.Mapping[str, t.Any], check_mode: bool) -> dict[str, t.Any]:
    """Look at what is there and make sure that there is a key to sign for.

    A new key waits beside the old one until its certificate is there, so that the pair in use stays whole.
    """
    folder = pathlib.Path(params["certificate_dir"])
    problem = "a new one is wanted" if params["force"] else key_problem(folder / KEY)
    csr = "" if problem else request(folder / KEY, params["name"])
    problem = problem or ("" if csr else "it cannot be read")
    if problem and not check_mode:
        files.make_directory(folder, 0o755)
        pending = folder / PENDING
        csr = "" if key_problem(pending) else request(pending, params["name"])
        if not csr:
            key = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
            files.write(pending, key.encode("ascii"), MODES[KEY])
            csr = request(pending, params["name"])
    elif not check_mode:
        files.remove(folder / PENDING)
    return {
        "changed": False,
        "key_problem": problem,
        "csr": csr,
        "certificate": read(folder / "server.pem"),
        "ca": read(folder / "ca.pem"),
        "modes_right": modes_right(folder),
    }


def install(params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Put key, certificate and authority in place; a restart of the engine is remembered first.

    Raises:
        MachineError: ``key_mismatch``.
    """
    folder = pathlib.Path(params["certificate_dir"])
    wanted = openssl("x509", "-noout", "-pubkey", given=params["certificate"])
    candidates = [path for path in (folder / PENDING, folder / KEY) if path.is_file()]
    chosen = next((path for path in candidates if openssl("pkey", "-pubout", "-in", str(path)) == wanted), None)
    if chosen is None:
        raise MachineError(
            "The certificate belongs to none of the host's keys",
            where=str(folder),
            hint="Another run changed the key meanwhile; run again",
            code="key_mismatch",
        )
    engine_service.mark_restart()
    with files.explained("The engine's key could not be put in place", folder / KEY):
        os.chmod(chosen, MODES[KEY])
        if chosen.name == PENDING:
            os.rename(chosen, folder / KEY)
    files.remove(folder / PENDING)
    files.write(folder / "server.pem", params["certificate"].encode("ascii"), MODES["server.pem"])
    files.write(folder / "ca.pem", params["ca"].encode("ascii"), MODES["ca.pem"])
    return {"changed": True}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "store": {"type": "str", "default": ""},
            "sans": {"type": "list", "elements": "str", "default": []},
            "certificate_dir": {"type": "path", "default": "/etc/docker"},
            "validity_days": {"type": "int", "default": 397},
            "client_validity_days": {"type": "int", "default": 90},
            "renew_fraction": {"type": "float", "default": 0.34},
            "force": {"type": "bool", "default": False},
            "takeover": {"type": "bool", "default": False},
            "lock_timeout": {"type": "float", "default": 60},
            "certificate": {"type": "str", "default": ""},
            "ca": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    try:
        if module.params["certificate"]:
            answer = {"changed": True} if module.check_mode else install(module.params)
        else:
            answer = prepare(module.params, module.check_mode)
    except MachineError as error:
        module.fail_json(**error.result())
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
