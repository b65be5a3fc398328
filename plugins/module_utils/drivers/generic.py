# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driver ``generic``: a host that exists already and is reached over SSH. Nothing is created, nothing deleted."""

from __future__ import annotations

import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.driver import Driver
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import Machine, State


class GenericDriver(Driver):
    """The host's owner is its provider; whether it answers is found out by connecting to it."""

    name = "generic"
    options: t.ClassVar[dict[str, t.Any]] = {
        "address": {"type": "str", "required": True},
        "private_address": {"type": "str", "default": ""},
        "ssh_port": {"type": "int", "default": 22},
    }
    default_ssh_user = "root"
    has_power = False
    creates = False

    def check(self) -> None:
        """See Driver."""
        address = self.opts["address"]
        if not address or any(letter.isspace() or letter in "'\"$`\\;&|<>" for letter in address) or address.startswith("-"):
            raise MachineError(
                f"{address!r} is no address", where="option address", hint="Give an IP address or a DNS name", code="invalid_option"
            )
        if not 0 < self.opts["ssh_port"] < 65536:
            raise MachineError(f"{self.opts['ssh_port']} is no TCP port", where="option ssh_port", code="invalid_option")

    def find(self) -> Machine | None:
        """The host as it was described; removing it means forgetting it, so it is never there for ``absent``."""
        if self.wanted.state == "absent":
            return None
        self.check()
        return Machine(
            name=self.wanted.name,
            driver=self.name,
            id=self.opts["address"],
            state=State.RUNNING,
            address=self.opts["address"],
            private_address=self.opts["private_address"],
            ssh_user=self.wanted.ssh_user,
            ssh_port=self.opts["ssh_port"],
            engine_port=self.wanted.engine_port,
            owner=self.wanted.owner,
            token=self.wanted.token,
            tags=dict(self.wanted.tags),
        )

    def list(self) -> t.List[Machine]:  # noqa: UP006 - the method shadows the builtin
        """Only the store knows such hosts."""
        return []

    def create(self) -> None:
        """There is nothing to make."""
        raise self.no_power("create")

    def delete(self, machine: Machine) -> None:
        """There is nothing to remove."""
