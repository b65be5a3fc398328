# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The firewall rule of an owner's machines on a VPC network.

Machines that let in the same addresses to the same ports share one rule, and a machine is bound to it by a network tag
of the rule's name. Another set of permissions is another rule: what one machine opens, no other one does. A rule takes
either IPv4 or IPv6 ranges, so there may be a second one with the suffix ``-v6`` for the same tag.

Rules have no labels: the owner stands in the description.
API: https://cloud.google.com/compute/docs/reference/rest/v1/firewalls
"""

from __future__ import annotations

import hashlib
import json
import typing as t
import uuid

from ansible_collections.dockyard.machine.plugins.module_utils.cloud import Port
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.gce_api import Api, is_gone
from ansible_collections.dockyard.machine.plugins.module_utils.gce_instance import our_labels
from ansible_collections.dockyard.machine.plugins.module_utils.machine import MARK, marks
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline

IPV6_SUFFIX: t.Final = "-v6"


def _digest(*parts: t.Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]


def owner_filter(owner: str, name: str = "") -> str:
    """The filter for lists (AIP-160): instances and disks of an owner, or those of one machine."""
    terms = [f'(labels.{key} = "{value}")' for key, value in marks(name, owner, "").items() if key != MARK or name]
    return " ".join(terms or [f"(labels.{MARK}:*)"])


class Firewall:
    """Rules of one owner in the project of one network.

    Args:
        api: for the calls.
        owner: whose rules.
        project: the network's project; a shared network belongs to another one than the machines.
        machines_project: the machines' project.
    """

    def __init__(self, api: Api, owner: str, project: str, machines_project: str) -> None:
        self.api = api
        self.owner = owner
        self.project = project
        self.machines_project = machines_project
        self.prefix = f"dockyard-{_digest(owner, machines_project)}-"
        self.description = f"{MARK}-owner={owner} (shared by machines, made by dockyard.machine)"

    def tag(self, network: str, cidrs: t.Sequence[str], ports: t.Sequence[Port]) -> str:
        """The network tag, and the rule's name, for a set of permissions."""
        return self.prefix + _digest(network, list(cidrs), [str(port) for port in ports])

    def rules(self, network: str, cidrs: t.Sequence[str], ports: t.Sequence[Port]) -> list[dict[str, t.Any]]:
        """The messages ``Firewall`` for a set of permissions: one for each IP version."""
        tag = self.tag(network, cidrs, ports)
        allowed = [
            {"I_p_protocol": protocol, "ports": found}
            for protocol in ("tcp", "udp")
            if (found := [str(port).partition("/")[0] for port in ports if port.protocol == protocol])
        ]
        by_version = {
            tag: [cidr for cidr in cidrs if ":" not in cidr],
            tag + IPV6_SUFFIX: [cidr for cidr in cidrs if ":" in cidr],
        }
        return [
            {
                "name": name,
                "description": self.description,
                "network": network,
                "direction": "INGRESS",
                "priority": 1000,
                "source_ranges": ranges,
                "target_tags": [tag],
                "allowed": allowed,
            }
            for name, ranges in by_version.items()
            if ranges
        ]

    def wrong(self, rules: t.Sequence[dict[str, t.Any]]) -> list[tuple[dict[str, t.Any], bool]]:
        """Rules that are missing or not as they shall be, each with whether it exists.

        Raises:
            MachineError: ``not_ours`` when somebody else's rule has the name.
        """
        found = []
        for rule in rules:
            request = {"project": self.project, "firewall": rule["name"]}
            actual = self.api.find("Firewalls", "get", request, what="The firewall rule could not be read", where="option network")
            if actual is not None and actual.description != self.description:
                raise MachineError(
                    f"The firewall rule {rule['name']} is not ours",
                    where=f"project {self.project}",
                    why="its description is not what we wrote",
                    hint="Rename or remove it, or set firewall=false and bring your own rules",
                    code="not_ours",
                )
            if actual is None or not _same(actual, rule):
                found.append((rule, actual is not None))
        return found

    def ensure(self, rules: t.Sequence[dict[str, t.Any]], deadline: Deadline) -> None:
        """Make the rules that are missing, mend those that somebody changed."""
        started = []
        for rule, exists in self.wrong(rules):
            request = {"project": self.project, "firewall_resource": rule, "request_id": str(uuid.uuid4())}
            what = f"Making the firewall rule {rule['name']}"
            if exists:
                request["firewall"] = rule["name"]
            method = "patch" if exists else "insert"
            try:
                started.append((what, self.api.begin("Firewalls", method, request, what=what, where="option network")))
            except MachineError as error:
                # Another machine of this owner was faster.
                if error.code != "exists":
                    raise
        for what, operation in started:
            try:
                self.api.finish(operation, what=what, where="option network", deadline=deadline)
            except MachineError as error:
                if error.code != "exists":
                    raise

    def unused(self, without: str = "") -> list[t.Any]:
        """Our rules that no machine is bound to; the instance with the id ``without`` doesn't count."""
        request = {"project": self.project, "filter": f'name eq "{self.prefix}.*"'}
        rules = self.api.pages("Firewalls", "list", request, what="The firewall rules could not be listed")
        ours = [rule for rule in rules if rule.description == self.description]
        if not ours:
            return []
        used = self._tags_in_use(without)
        return [rule for rule in ours if not used.intersection(rule.target_tags)]

    def remove_unused(self, deadline: Deadline, without: str = "") -> None:
        """Remove the rules that no machine is bound to.

        A machine that is made at the same time may have seen a rule that goes away here: after removing, look again, and
        make it anew for that machine. (Its own driver makes sure of the rule only once the instance can be seen.)
        """
        removed = self.unused(without)
        for rule in removed:
            self._remove(str(rule.name), deadline)
        used = self._tags_in_use(without) if removed else set()
        for rule in removed:
            if used.intersection(rule.target_tags):
                self.ensure([self._body(rule)], deadline)

    def _remove(self, name: str, deadline: Deadline) -> None:
        what = f"Removing the firewall rule {name}"
        request = {"project": self.project, "firewall": name, "request_id": str(uuid.uuid4())}
        try:
            operation = self.api.begin("Firewalls", "delete", request, what=what, where="option network")
            self.api.finish(operation, what=what, where="option network", deadline=deadline)
        except MachineError as error:
            # Gone already: another machine's removal was faster.
            if not is_gone(error):
                raise

    def _tags_in_use(self, without: str) -> set[str]:
        request = {"project": self.machines_project, "filter": owner_filter(self.owner)}
        machines = self.api.pages("Instances", "aggregated_list", request, what="The machines could not be listed")
        return {
            str(tag)
            for machine in machines
            if str(machine.id) != without and our_labels(machine.labels)[1] == self.owner
            for tag in machine.tags.items
        }

    @staticmethod
    def _body(rule: t.Any) -> dict[str, t.Any]:
        return {
            "name": str(rule.name),
            "description": str(rule.description),
            "network": str(rule.network),
            "direction": "INGRESS",
            "priority": int(rule.priority),
            "source_ranges": [str(cidr) for cidr in rule.source_ranges],
            "target_tags": [str(tag) for tag in rule.target_tags],
            "allowed": [{"I_p_protocol": str(item.I_p_protocol), "ports": [str(port) for port in item.ports]} for item in rule.allowed],
        }


def _same(actual: t.Any, rule: dict[str, t.Any]) -> bool:
    """Whether a rule lets in what it shall; order does not matter."""
    allowed = {item["I_p_protocol"]: sorted(item["ports"]) for item in rule["allowed"]}
    return (
        sorted(actual.source_ranges) == sorted(rule["source_ranges"])
        and list(actual.target_tags) == rule["target_tags"]
        and {str(item.I_p_protocol): sorted(item.ports) for item in actual.allowed} == allowed
        and not actual.disabled
    )
