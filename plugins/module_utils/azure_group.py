# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine needs beside itself at Azure, made and removed in the right order.

An owner's machines in a location share a resource group and a network, unless the user names others. Both go with the
last machine. All else belongs to one machine: address, firewall, network interface, disk. Everything is found by its
name and changed or removed only when it carries our mark.
"""

from __future__ import annotations

import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.azure_api import Api, Operation, Resource, is_gone
from ansible_collections.dockyard.machine.plugins.module_utils.azure_errors import VANISHED, ApiError, not_ours
from ansible_collections.dockyard.machine.plugins.module_utils.azure_parts import (
    DISK,
    IP,
    IP6,
    KINDS,
    NIC,
    NSG,
    Kind,
    Place,
    Plan,
    address_body,
    interface_body,
    network_body,
    our_tags,
    security_group_body,
    split_id,
)
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import MARK, marks
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline


class Parts:
    """Resources of one machine, and those that it shares.

    Args:
        api: for the calls.
        place: where they are and how they are named.
        warn: tells the user something that is no failure.
    """

    def __init__(self, api: Api, place: Place, warn: t.Callable[[str], None]) -> None:
        self.api = api
        self.place = place
        self.warn = warn

    def find(self, kind: Kind) -> Resource | None:
        """The machine's resource of this kind, whoever's it is."""
        name = self.place.named(kind)
        return self.api.find(kind.service, kind.group, self.place.group, name, what=f"The {kind.word} {name} could not be read")

    def ours(self, kind: Kind) -> Resource | None:
        """The same, but only if it carries the machine's mark.

        A disk that Azure made with the machine and left without tags is known by its name in a group of our own.
        """
        found = self.find(kind)
        if found is None or our_tags(found) == (self.place.name, self.place.owner):
            return found
        return found if kind is DISK and self.place.own_group and not our_tags(found)[0] else None

    # --- making ------------------------------------------------------------------------------------------------

    def make(self, plan: Plan, tags: dict[str, str], rules: list[Resource], opts: t.Mapping[str, t.Any], deadline: Deadline) -> None:
        """All that the virtual machine needs, in two steps: what stands alone, then what joins it.

        Raises:
            TransientError: ``conflict`` when a shared part went away under our hands; the same again makes it anew.
        """
        try:
            self._make(plan, tags, rules, opts, deadline)
        except ApiError as error:
            if error.provider_code in VANISHED and (self.place.own_group or plan.own_network):
                raise TransientError(error.what, where=error.where, why=error.why, code="conflict") from error
            raise

    def _make(self, plan: Plan, tags: dict[str, str], rules: list[Resource], opts: t.Mapping[str, t.Any], deadline: Deadline) -> None:
        place, location = self.place, plan.location
        if place.own_group:
            self._make_group(location)
        self._drop_old_disk(deadline)
        started: list[tuple[str, Operation]] = []
        # First, because it says to others that a machine is being made here.
        if not plan.security_group:
            started.append(self._put(NSG, security_group_body(location, tags, rules)))
        if plan.own_network:
            started += self._begin_network(location, str(opts["subnet_prefix"]))
        if not opts["private_address_only"]:
            zone, dns = str(opts["zone"]), str(opts["dns"])
            started.append(self._put(IP, address_body(location, tags, version="IPv4", zone=zone, dns=dns)))
            if opts["ipv6"]:
                started.append(self._put(IP6, address_body(location, tags, version="IPv6", zone=zone, dns="")))
        for what, operation in started:
            self.api.finish(operation, what=what, where=f"resource group {place.group}", deadline=deadline)
        group = plan.security_group or place.id(NSG.type, place.named(NSG))
        what, operation = self._put(NIC, interface_body(place, plan, tags, opts, group=group))
        self.api.finish(operation, what=what, where=f"resource group {place.group}", deadline=deadline)

    def _put(self, kind: Kind, body: Resource) -> tuple[str, Operation]:
        """Make it, or make it anew where a broken run left it.

        Raises:
            MachineError: ``not_ours`` when somebody else's has the name.
        """
        name, found = self.place.named(kind), self.find(kind)
        if found is not None and our_tags(found) != (self.place.name, self.place.owner):
            raise not_ours(kind.word, name, self.place.group, our_tags(found)[1])
        what = f"Making the {kind.word} {name}"
        where = f"resource group {self.place.group}"
        return what, self.api.begin(kind.service, kind.group, "create_or_update", self.place.group, name, body, what=what, where=where)

    def _make_group(self, location: str) -> None:
        group, wanted = self.place.group, marks("", self.place.owner, "")
        found = self.api.find("resource", "resource_groups", group, what=f"The resource group {group} could not be read")
        if found is not None and our_tags(found) != ("shared", self.place.owner):
            raise not_ours("resource group", group, group, our_tags(found)[1])
        what = f"Making the resource group {group}"
        if found is not None and (found.get("properties") or {}).get("provisioningState") == "Deleting":
            raise TransientError(what, where=f"resource group {group}", why="the old one is just being removed", code="conflict")
        if found is None:
            body = {"location": location, "tags": wanted}
            self.api.call("resource", "resource_groups", "create_or_update", group, body, what=what, where="option location")

    def _begin_network(self, location: str, prefix: str) -> list[tuple[str, Operation]]:
        group, name = self.place.group, self.place.vnet
        found = self.api.find("network", "virtual_networks", group, name, what=f"The network {name} could not be read")
        if found is not None:
            if our_tags(found) != ("shared", self.place.owner):
                raise not_ours("network", name, group, our_tags(found)[1])
            if (found.get("properties") or {}).get("provisioningState", "Succeeded") == "Succeeded":
                return []
        what, body = f"Making the network {name}", network_body(self.place, location, prefix)
        where = "option subnet_prefix"
        return [(what, self.api.begin("network", "virtual_networks", "create_or_update", group, name, body, what=what, where=where))]

    def _drop_old_disk(self, deadline: Deadline) -> None:
        """A disk whose machine was removed by somebody else has the new one's name."""
        disk = self.find(DISK)
        if disk is None:
            return
        if disk.get("managedBy"):
            what, why = f"The disk {disk['name']} is in use", "the machine that it belongs to cannot be seen yet"
            raise TransientError(what, where=f"resource group {self.place.group}", why=why, code="conflict")
        if self.ours(DISK) is None:
            raise not_ours("disk", self.place.named(DISK), self.place.group, our_tags(disk)[1])
        self._remove([DISK], deadline)

    # --- removing ----------------------------------------------------------------------------------------------

    def remaining(self) -> list[Kind]:
        """What there is of the machine's parts."""
        return [kind for kind in KINDS if self.ours(kind) is not None]

    def remove(self, deadline: Deadline) -> None:
        """The machine's parts, then what it shared if nobody else does."""
        there = self.remaining()
        self._remove([kind for kind in there if kind in (DISK, NIC)], deadline)
        self._remove([kind for kind in there if kind in (IP, IP6, NSG)], deadline)
        self.remove_unused(deadline)

    def _remove(self, kinds: t.Sequence[Kind], deadline: Deadline) -> None:
        for kind in kinds:
            self._delete(kind.service, kind.group, self.place.named(kind), kind.word, deadline)

    def _delete(self, service: str, operations: str, name: str, word: str, deadline: Deadline) -> None:
        what, where = f"Removing the {word} {name}", f"resource group {self.place.group}"
        try:
            operation = self.api.begin(service, operations, "delete", self.place.group, name, what=what, where=where)
            self.api.finish(operation, what=what, where=where, deadline=deadline)
        except MachineError as error:
            if not is_gone(error):
                raise

    def shared(self) -> list[str]:
        """Shared things of ours that no machine needs any more, as ``kind name``."""
        place, found = self.place, []
        if place.own_group:
            group = self.api.find("resource", "resource_groups", place.group, what=f"The resource group {place.group} could not be read")
            if group is None or our_tags(group) != ("shared", place.owner):
                return []
            found = [f"resource group {place.group}"]
        else:
            vnet = self.api.find("network", "virtual_networks", place.group, place.vnet, what=f"The network {place.vnet} could not be read")
            found = [f"network {place.vnet}"] if vnet is not None and our_tags(vnet) == ("shared", place.owner) else []
        return found if found and not self._in_use() else []

    def _in_use(self) -> bool:
        """Whether another machine of the owner is here, or is being made."""
        mine = {self.place.named(kind).lower() for kind in KINDS}
        what = f"The resource group {self.place.group} could not be read"
        for kind in (NSG, NIC):
            for item in self.api.pages(kind.service, kind.group, "list", self.place.group, what=what):
                name, owner = our_tags(item)
                if name and owner == self.place.owner and str(item["name"]).lower() not in mine:
                    return True
        return False

    def remove_unused(self, deadline: Deadline) -> None:
        """The shared network, then the shared group.

        A machine that is made at the same time is safe: Azure keeps a network in use, its maker's first resource here is
        seen by the second look, and one that came even later makes everything anew.
        """
        if not self.shared():
            return
        try:
            self._delete("network", "virtual_networks", self.place.vnet, "network", deadline)
        except MachineError as error:
            if error.code != "in_use":
                raise
            return
        if self.place.own_group and not self._in_use() and not self._foreign():
            self._delete_group(deadline)

    def _foreign(self) -> bool:
        """Whether somebody put something of his own into our group: then it stays, with a warning."""
        group = self.place.group
        what = f"The resource group {group} could not be read"
        listed = self.api.pages("resource", "resources", "list_by_resource_group", group, what=what)
        mine = {self.place.named(kind).lower() for kind in KINDS} | {self.place.name.lower()}
        others = [str(item["name"]) for item in listed if not our_tags(item)[0] and str(item["name"]).lower() not in mine]
        if others:
            self.warn(f"The resource group {group} is kept: it holds {', '.join(sorted(others)[:5])}, which is not ours.")
        return bool(others)

    def _delete_group(self, deadline: Deadline) -> None:
        group = self.place.group
        what, where = f"Removing the resource group {group}", f"resource group {group}"
        try:
            operation = self.api.begin("resource", "resource_groups", "delete", group, what=what, where=where)
            self.api.finish(operation, what=what, where=where, deadline=deadline)
        except MachineError as error:
            # Another machine's removal was faster.
            if not (is_gone(error) or error.code == "conflict"):
                raise


def marked_groups(api: Api, name: str, owner: str) -> list[str]:
    """Resource groups with something of a machine, or that an owner's machines share, wherever they are."""
    what = "The resources could not be listed"
    filters = f"tagName eq '{MARK}' and tagValue eq '{name}'"
    found = {
        split_id(str(item["id"])).get("resourcegroups", "")
        for item in api.pages("resource", "resources", "list", what=what, filter=filters)
        if our_tags(item) in ((name, owner), (name, ""))
    }
    filters = f"tagName eq '{MARK}' and tagValue eq 'shared'"
    groups = api.pages("resource", "resource_groups", "list", what=what, filter=filters)
    found.update(str(item["name"]) for item in groups if our_tags(item) == ("shared", owner))
    return sorted(group for group in found if group)
