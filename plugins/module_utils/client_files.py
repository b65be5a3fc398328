# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What clients read: exports for a shell, configuration for ssh, arguments for Ansible.

Every value is checked before it is written: a line break or a quote in a path would otherwise add a setting of its own.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError

if t.TYPE_CHECKING:
    from ansible_collections.dockyard.machine.plugins.module_utils.record import Record
    from ansible_collections.dockyard.machine.plugins.module_utils.store import Store

# DNS names, IPv4, and IPv6 with or without a zone.
_ADDRESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*|[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]*\$?")
# ssh has no way to write these in a quoted word that all its releases read alike; ${ would expand a variable.
_UNSAFE_IN_SSH = re.compile(r"[\x00-\x1f\x7f\"\\]|\$\{")


def env_variables(endpoint: str, cert_path: str | os.PathLike[str], name: str) -> dict[str, str]:
    """The variables that the docker CLI and the SDKs read, as ``docker-machine env`` names them."""
    values = {
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_HOST": endpoint,
        "DOCKER_CERT_PATH": os.fspath(cert_path),
        "DOCKER_MACHINE_NAME": name,
    }
    for key, value in values.items():
        if re.search(r"[\x00-\x1f\x7f]", value):
            raise _refused(key, value, "it holds a control character")
    return values


def env_exports(endpoint: str, cert_path: str | os.PathLike[str], name: str) -> str:
    """``export KEY=VALUE`` lines for a POSIX shell to source.

    Raises:
        MachineError: ``unsafe_value`` when a value holds a line break or another control character.
    """
    values = env_variables(endpoint, cert_path, name)
    return "".join(f"export {key}={shlex.quote(value)}\n" for key, value in values.items())


def ssh_settings(record: Record, store: Store) -> dict[str, str]:
    """The ssh_config keywords for a machine and their values, quoted as ssh_config(5) wants them.

    A machine whose host keys are pinned is checked against its own file, under its name. For one with nothing pinned (it
    came from Docker Machine) the user's known_hosts decides; an unknown key is refused either way. Empty while the
    machine has no address.

    Raises:
        MachineError: ``unsafe_value`` when an address, user or path cannot be written safely.
    """
    machine = record.machine
    if machine is None or not machine.address:
        return {}
    if not _ADDRESS.fullmatch(machine.address):
        raise _refused("the address", machine.address, "it is neither an IP address nor a DNS name")
    if machine.ssh_user and not _USER.fullmatch(machine.ssh_user):
        raise _refused("the SSH user", machine.ssh_user, "it is no user name")
    settings = {"HostName": machine.address.replace("%", "%%"), "Port": str(machine.ssh_port)}
    if machine.ssh_user:
        settings["User"] = machine.ssh_user
    if record.ssh_key_path:
        settings["IdentityFile"] = _ssh_path(record.ssh_key_path)
        settings["IdentitiesOnly"] = "yes"
    known_hosts = store.known_hosts(record.name)
    if record.host_keys or known_hosts.exists():
        settings["HostKeyAlias"] = record.name
        settings["UserKnownHostsFile"] = _ssh_path(known_hosts)
    settings["StrictHostKeyChecking"] = "yes"
    return settings


def ssh_config(record: Record, store: Store) -> str:
    """The ``Host`` block for a machine, or an empty string while it has no address. Errors: see :func:`ssh_settings`."""
    settings = ssh_settings(record, store)
    if not settings:
        return ""
    return f"Host {record.name}\n" + "".join(f"    {key} {value}\n" for key, value in settings.items())


def ssh_arguments(record: Record, store: Store) -> list[str]:
    """The same as arguments for ssh, scp and sftp: ``["-o", "HostKeyAlias=web1", ...]``.

    Address, port, user and key are left out: Ansible has variables for them. Errors: see :func:`ssh_settings`.
    """
    chosen = ("IdentitiesOnly", "HostKeyAlias", "UserKnownHostsFile", "StrictHostKeyChecking")
    settings = ssh_settings(record, store)
    return [word for key in chosen if key in settings for word in ("-o", f"{key}={settings[key]}")]


def ssh_include(store: Store) -> str:
    """The store's own ssh_config, for one ``Include`` line in the user's."""
    pattern = glob.escape(str(store.path)) + "/machines/*/ssh_config"
    # ssh gives Include to glob(3) without expanding percent signs.
    return f"Include {_ssh_path(pattern, percent='%')}\n"


def _ssh_path(path: str | os.PathLike[str], percent: str = "%%") -> str:
    """A path as one word of ssh_config; percent signs doubled where ssh expands tokens."""
    text = os.fspath(path)
    if _UNSAFE_IN_SSH.search(text):
        raise _refused("the path", text, "ssh cannot read a path with a quote, backslash, line break or ${")
    text = text.replace("%", percent)
    return f'"{text}"' if re.search(r"[\s'#=,]", text) else text


def _refused(what: str, value: str, why: str) -> MachineError:
    return MachineError(f"The files for clients cannot be written: {what} is {value!r}", why=why, code="unsafe_value")
