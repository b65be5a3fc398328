# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Droplet, as the API shows it, as a machine."""

from __future__ import annotations

import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils import digitalocean_marks as marks
from ansible_collections.dockyard.machine.plugins.module_utils.driver import Wanted
from ansible_collections.dockyard.machine.plugins.module_utils.machine import Machine, State

Droplet = dict[str, t.Any]

_STATES: t.Final = {"new": State.STARTING, "active": State.RUNNING, "off": State.STOPPED}


def address(droplet: Droplet, version: str, kind: str) -> str:
    """The first address of a kind (``public``, ``private``); empty while there is none.

    Args:
        droplet: the Droplet.
        version: ``v4`` or ``v6``.
        kind: which network.
    """
    found = (item["ip_address"] for item in (droplet.get("networks") or {}).get(version) or [] if item["type"] == kind)
    return str(next(found, ""))


def to_machine(droplet: Droplet, wanted: Wanted, *, private: bool, failed: bool) -> Machine:
    """The machine that a Droplet is.

    Args:
        droplet: the Droplet.
        wanted: whose machine was asked for.
        private: it is reached at its private address.
        failed: its creation ended in an error.
    """
    details = {
        "region": droplet["region"]["slug"],
        "size": droplet["size_slug"],
        "image": droplet["image"].get("slug") or str(droplet["image"].get("id", "")),
        "vpc_uuid": droplet.get("vpc_uuid") or "",
        "created_at": droplet["created_at"],
        "features": droplet.get("features") or [],
    }
    if failed:
        details["fault"] = "DigitalOcean reports that its creation failed"
    return Machine(
        name=marks.name_of(droplet, wanted.owner) or wanted.name,
        driver="digitalocean",
        id=str(droplet["id"]),
        state=State.ERROR if failed else _STATES.get(droplet["status"], State.UNKNOWN),
        address=address(droplet, "v4", "private" if private else "public"),
        private_address=address(droplet, "v4", "private"),
        ipv6_address=address(droplet, "v6", "public"),
        ssh_user=wanted.ssh_user or "root",
        engine_port=wanted.engine_port,
        owner=wanted.owner,
        token=marks.value(droplet, "token"),
        tags=marks.users_tags(droplet),
        complete=not failed,
        details=details,
    )
