# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The firewall of machines at DigitalOcean: one for all machines of an owner that have the same rules.

Its name and tag are made from its rules, so that a machine with other rules uses another one and nobody's rules
change under him. It applies to a tag, which a machine carries from the call that creates it: there is no moment
without rules, and no limit of ten Droplets.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import json
import re
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.cloud import Port
from ansible_collections.dockyard.machine.plugins.module_utils.digitalocean_api import Api
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import MARK

_ANYWHERE: t.Final = {"addresses": ["0.0.0.0/0", "::/0"]}

# Outgoing traffic is free, as it is without a firewall; "0" means all ports.
OUTBOUND: t.Final = [{"protocol": protocol, "ports": "0", "destinations": _ANYWHERE} for protocol in ("tcp", "udp", "icmp")]

MAX_RULES: t.Final = 50
"""The API's limit, incoming and outgoing together."""

MAX_SOURCES: t.Final = 1000
"""The API's limit for addresses in one rule."""


@dataclasses.dataclass(frozen=True)
class Firewall:
    """Who may reach which ports of an owner's machines."""

    owner: str
    ports: tuple[Port, ...]
    cidrs: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The rules as a short word."""
        return hashlib.sha256(json.dumps([self.owner, [str(port) for port in self.ports], self.cidrs]).encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """Its name, unique in an account."""
        return f"{MARK}-{self.owner}-{self.digest}"

    @property
    def tag(self) -> str:
        """The tag that it applies to."""
        return f"{MARK}-firewall:{self.owner}:{self.digest}"

    def body(self) -> dict[str, t.Any]:
        """The request that makes it."""
        return {
            "name": self.name,
            "tags": [self.tag],
            "inbound_rules": [
                {
                    "protocol": port.protocol,
                    "ports": str(port).partition("/")[0],
                    "sources": {"addresses": list(self.cidrs)},
                }
                for port in self.ports
            ],
            "outbound_rules": OUTBOUND,
        }


def ours(api: Api, owner: str) -> list[dict[str, t.Any]]:
    """Every firewall that was made for this owner, as the API shows it."""
    name = re.compile(rf"{re.escape(MARK)}-{re.escape(owner)}-[0-9a-f]{{12}}")
    return [found for found in api.pages("firewalls", "list", "firewalls", doing="list the firewalls") if name.fullmatch(found["name"])]


def in_order(firewall: Firewall, found: t.Iterable[t.Mapping[str, t.Any]]) -> bool:
    """Whether the firewall is among those found and still has its rules and its tag."""
    for candidate in found:
        if candidate["name"] == firewall.name:
            return firewall.tag in (candidate.get("tags") or []) and _incoming(candidate) == _incoming(firewall.body())
    return False


def ensure(api: Api, firewall: Firewall) -> None:
    """Make it, or give it back the rules and the tag that somebody took away. Several may do this at once."""
    found = {candidate["name"]: candidate for candidate in ours(api, firewall.owner)}
    if in_order(firewall, found.values()):
        return
    # A firewall can only apply to a tag that exists.
    ensure_tag(api, firewall.tag)
    if firewall.name in found:
        api.call("firewalls", "update", found[firewall.name]["id"], firewall.body(), doing="update the firewall")
        return
    try:
        api.call("firewalls", "create", firewall.body(), doing="create the firewall")
    except MachineError as error:
        # Somebody else was quicker.
        if error.code != "conflict":
            raise


def ensure_tag(api: Api, tag: str) -> None:
    """Make a tag; one that exists is fine."""
    try:
        api.call("tags", "create", {"name": tag}, doing=f"create the tag {tag}")
    except MachineError as error:
        if error.code not in ("conflict", "provider_error") or api.maybe("tags", "get", tag, doing=f"read the tag {tag}") is None:
            raise


def users(api: Api, found: t.Mapping[str, t.Any]) -> set[int]:
    """Ids of the Droplets that a firewall applies to."""
    ids = {int(droplet) for droplet in found.get("droplet_ids") or []}
    for tag in found.get("tags") or []:
        ids |= {
            int(droplet["id"]) for droplet in api.pages("droplets", "list", "droplets", tag_name=tag, doing="list the firewall's Droplets")
        }
    return ids


def unused(api: Api, owner: str, going: t.Collection[int] = ()) -> list[dict[str, t.Any]]:
    """The owner's firewalls that no Droplet uses, but for those that are ``going`` away."""
    return [found for found in ours(api, owner) if not users(api, found) - set(going)]


def remove_unused(api: Api, owner: str, going: t.Collection[int] = ()) -> None:
    """Remove what :func:`unused` finds.

    A machine may be made at the same moment. Its maker looks for the firewall again after creating it, and here we
    look for machines again after removing it: one of the two sees the other.
    """
    for found in unused(api, owner, going):
        api.maybe("firewalls", "delete", found["id"], doing="delete the firewall")
        if users(api, found) - set(going):
            body = {key: found[key] for key in ("name", "tags", "inbound_rules", "outbound_rules")}
            try:
                api.call("firewalls", "create", body, doing="create the firewall")
            except MachineError as error:
                if error.code != "conflict":
                    raise


def _incoming(firewall: t.Mapping[str, t.Any]) -> set[tuple[str, str, frozenset[str]]]:
    """The incoming rules, comparable however the API writes them."""
    return {
        (
            rule["protocol"],
            str(rule["ports"]),
            frozenset(_network(address) for address in (rule.get("sources") or {}).get("addresses") or []),
        )
        for rule in firewall.get("inbound_rules") or []
    }


def _network(address: str) -> str:
    try:
        return str(ipaddress.ip_network(address))
    except ValueError:
        return address
