# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The words that everything else uses: a machine, its state, and how it is reached."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError

ENGINE_PORT = 2376
"""TCP port of a TLS-secured Docker Engine."""

MARK = "dockyard-machine"
"""Prefix of every tag or label that says a resource is ours; see :func:`marks`."""

# A label of RFC 1123, section 2.1: also a valid host name, tag value and file name.
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class State:
    """The states a machine can be in. ``docker-machine`` prints the same words, capitalised."""

    RUNNING = "running"
    STOPPED = "stopped"
    STARTING = "starting"
    STOPPING = "stopping"
    PAUSED = "paused"
    SAVED = "saved"
    ERROR = "error"
    UNKNOWN = "unknown"

    ALL: t.Final = (RUNNING, STOPPED, STARTING, STOPPING, PAUSED, SAVED, ERROR, UNKNOWN)


def validate_name(name: t.Any) -> str:
    """Return ``name`` if it can name a machine.

    Raises:
        MachineError: ``invalid_name`` when it is no RFC 1123 label in lower case.
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise MachineError(
        f"The machine name {str(name)[:80]!r} is not valid",
        where="option name",
        why="a name has 1 to 63 lower-case letters, digits and hyphens, and begins and ends with a letter or digit",
        hint="Choose another name",
        code="invalid_name",
    )


def marks(name: str, owner: str, token: str) -> dict[str, str]:
    """The tags that every resource of a machine carries from the call that creates it.

    Args:
        name: the machine's name; empty for a resource that several machines share.
        owner: who keeps the machine (``machine_owner``).
        token: the record's random token; it tells two generations of one name apart.
    """
    wanted = {MARK: name or "shared", f"{MARK}-owner": owner, f"{MARK}-token": token}
    return {key: value for key, value in wanted.items() if value}


@dataclasses.dataclass
class Machine:
    """One Docker host as its provider shows it now. Never holds a secret."""

    name: str
    driver: str
    id: str = ""
    """The provider's id; empty when the provider has none."""
    state: str = State.UNKNOWN
    address: str = ""
    """Where clients and SSH reach the machine: an IP address or DNS name."""
    private_address: str = ""
    ipv6_address: str = ""
    dns_names: list[str] = dataclasses.field(default_factory=list)
    ssh_user: str = "root"
    ssh_port: int = 22
    engine_port: int = ENGINE_PORT
    """The port at ``address`` where the engine answers (a forwarded one for local machines)."""
    owner: str = ""
    token: str = ""
    tags: dict[str, str] = dataclasses.field(default_factory=dict)
    """The user's tags, without our marks."""
    complete: bool = True
    """False when its creation was cut short, so that it has to be made anew."""
    details: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    """What only this driver knows (region, image, size ...); JSON types, no secrets."""

    @property
    def endpoint(self) -> str:
        """``tcp://ADDRESS:PORT`` as ``DOCKER_HOST`` wants it; empty while there is no address."""
        if not self.address:
            return ""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"tcp://{host}:{self.engine_port}"

    def to_dict(self) -> dict[str, t.Any]:
        """The ``machine`` dictionary that modules return; every field, plus ``endpoint``."""
        return {**dataclasses.asdict(self), "endpoint": self.endpoint}

    @classmethod
    def from_dict(cls, data: t.Mapping[str, t.Any]) -> Machine:
        """Read what :meth:`to_dict` wrote; keys of a newer version are ignored.

        Raises:
            MachineError: ``invalid_machine`` when a field has the wrong type.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        known = {key: value for key, value in data.items() if key in fields}
        for key, kind in (("name", str), ("driver", str), ("ssh_port", int), ("engine_port", int), ("details", dict)):
            if key in known and not isinstance(known[key], kind):
                raise MachineError(
                    f"The machine's {key} has the wrong type",
                    why=f"expected {kind.__name__}, found {type(known[key]).__name__}",
                    code="invalid_machine",
                )
        if "name" not in known or "driver" not in known:
            raise MachineError("This is no machine", why="it has no name or no driver", code="invalid_machine")
        return cls(**known)
