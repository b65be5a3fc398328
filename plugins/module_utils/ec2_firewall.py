# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Security groups of the driver ec2.

Machines of one owner with the same rules share a group, whose name is made from the rules. So a group's rules never change:
a machine whose rules change moves to another group, and no machine opens a port of another. Who removes the last machine
removes the group; EC2 itself refuses as long as somebody uses it. A group that the user brought is only ever referred to.
"""

from __future__ import annotations

import hashlib
import importlib
import typing as t
import urllib.error

from ansible_collections.dockyard.machine.plugins.module_utils import cloud
from ansible_collections.dockyard.machine.plugins.module_utils.ec2_client import Ec2Api, Ec2Error
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import marks

WHO_AM_I = "https://checkip.amazonaws.com"
"""Amazon's service that answers with the caller's public address."""

LIVE: t.Final = ("pending", "running", "stopping", "stopped")


class Rule(t.NamedTuple):
    """Who may reach which ports."""

    port: cloud.Port
    cidr: str


def tag_filters(tags: t.Mapping[str, str]) -> list[dict[str, t.Any]]:
    """Filters of a describe call for exactly these tags."""
    return [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]


def tag_list(tags: t.Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as EC2 wants them."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def permissions(rules: t.Iterable[Rule]) -> list[dict[str, t.Any]]:
    """Rules as EC2 wants them."""
    found: dict[cloud.Port, dict[str, t.Any]] = {}
    for rule in sorted(rules):
        entry = found.setdefault(rule.port, {"IpProtocol": rule.port.protocol, "FromPort": rule.port.first, "ToPort": rule.port.last})
        if ":" in rule.cidr:
            entry.setdefault("Ipv6Ranges", []).append({"CidrIpv6": rule.cidr, "Description": "dockyard.machine"})
        else:
            entry.setdefault("IpRanges", []).append({"CidrIp": rule.cidr, "Description": "dockyard.machine"})
    return list(found.values())


def rules_of(group: t.Mapping[str, t.Any]) -> set[Rule]:
    """The rules of a group that let address ranges in."""
    found: set[Rule] = set()
    for entry in group.get("IpPermissions", []):
        if entry.get("IpProtocol") not in ("tcp", "udp"):
            continue
        port = cloud.Port(entry["FromPort"], entry["ToPort"], entry["IpProtocol"])
        found.update(Rule(port, item["CidrIp"]) for item in entry.get("IpRanges", []))
        found.update(Rule(port, item["CidrIpv6"]) for item in entry.get("Ipv6Ranges", []))
    return found


def group_name(owner: str, rules: t.Iterable[Rule]) -> str:
    """The name of the group with these rules, the same on every controller."""
    text = "\n".join(f"{rule.port} {rule.cidr}" for rule in sorted(set(rules)))
    return f"dockyard/{owner}/{hashlib.sha256(text.encode()).hexdigest()[:12]}"


class Firewall:
    """The security groups of one machine."""

    def __init__(self, api: Ec2Api, opts: t.Mapping[str, t.Any], owner: str, engine_port: int) -> None:
        self.api = api
        self.opts = opts
        self.owner = owner
        self.marks = marks("", owner, "")
        self.ports = sorted(
            {*cloud.parse_ports(opts["open_ports"]), cloud.Port(opts["ssh_port"], opts["ssh_port"]), cloud.Port(engine_port, engine_port)}
        )
        self._cidrs: list[str] = []

    # --- what is wanted ----------------------------------------------------------------------------------------

    def cidrs(self) -> list[str]:
        """Who may reach the machine; without a word of the user's only this controller."""
        if not self._cidrs:
            # Another service that speaks EC2's language has no way to tell.
            ask = self._who_am_i if self.api.is_aws else None
            private = self.opts["private_address_only"] or self.opts["use_private_address"]
            self._cidrs = cloud.allowed_cidrs({**self.opts, "private_address_only": private}, self.api.host, self.api.port, ask=ask)
        return self._cidrs

    def rules(self) -> set[Rule]:
        """The wanted rules."""
        return {Rule(port, cidr) for port in self.ports for cidr in self.cidrs()}

    @staticmethod
    def _who_am_i() -> str:
        # It takes as long to import as all of the rest, and few need it.
        urls = importlib.import_module("ansible.module_utils.urls")
        try:
            with urls.open_url(WHO_AM_I, timeout=10) as answer:
                return str(answer.read(100).decode("ascii", "replace"))
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise MachineError(
                "The public address of this controller could not be found",
                where="option allowed_cidrs",
                why=f"{WHO_AM_I}: {error}",
                hint="List the address ranges that may reach the machine in allowed_cidrs",
                code="unreachable",
            ) from error

    # --- the user's own groups ---------------------------------------------------------------------------------

    def named(self, vpc_id: str) -> list[str]:
        """Ids of the groups that the user named by id or name.

        Raises:
            MachineError: ``not_found``.
        """
        wanted = self.opts["security_group"]
        ids = [entry for entry in wanted if entry.startswith("sg-")]
        names = [entry for entry in wanted if not entry.startswith("sg-")]
        found: list[dict[str, t.Any]] = []
        if ids:
            found += self.api.pages("describe_security_groups", "SecurityGroups", GroupIds=ids)
        if names:
            filters = [{"Name": "vpc-id", "Values": [vpc_id]}, {"Name": "group-name", "Values": names}]
            found += self.api.pages("describe_security_groups", "SecurityGroups", Filters=filters)
        missing = [entry for entry in wanted if not any(entry in (group["GroupId"], group["GroupName"]) for group in found)]
        other = [group["GroupId"] for group in found if vpc_id and group.get("VpcId") != vpc_id]
        if missing or other:
            raise MachineError(
                f"There is no security group {', '.join(missing or other)}",
                where="option security_group",
                why=f"the VPC {vpc_id} has no such group",
                hint="Name groups of the VPC that the machine is in",
                code="not_found",
            )
        return sorted({group["GroupId"] for group in found})

    # --- our own -----------------------------------------------------------------------------------------------

    def look(self, vpc_id: str, rules: set[Rule]) -> dict[str, t.Any] | None:
        """Our group with these rules; None when there is none.

        Raises:
            MachineError: ``not_ours`` when the name is taken by a group without our marks.
        """
        name = group_name(self.owner, rules)
        filters = [{"Name": "vpc-id", "Values": [vpc_id]}, {"Name": "group-name", "Values": [name]}]
        for group in self.api.pages("describe_security_groups", "SecurityGroups", Filters=filters):
            tags = {tag["Key"]: tag["Value"] for tag in group.get("Tags", [])}
            if not self.marks.items() <= tags.items():
                raise MachineError(
                    f"The security group {name} is not ours",
                    where="option owner",
                    why="it carries no mark of this owner",
                    hint="Rename or remove that group, or name groups of your own in security_group",
                    code="not_ours",
                )
            return group
        return None

    def ensure(self, vpc_id: str, rules: set[Rule]) -> str:
        """The id of our group with these rules, made when there is none.

        Raises:
            TransientError: when somebody else just made it and it cannot be seen yet.
        """
        group = self.look(vpc_id, rules)
        fresh = group is None
        group_id = group["GroupId"] if group else self._make(vpc_id, rules)
        # Its maker may have been cut short between the group and its rules.
        missing = rules - rules_of(group or {})
        if missing and (fresh or not self.opts["security_group_readonly"]):
            try:
                self.api.call("authorize_security_group_ingress", GroupId=group_id, IpPermissions=permissions(missing))
            except Ec2Error as error:
                if error.aws_code == "InvalidGroup.NotFound":
                    raise TransientError(
                        "A new security group cannot be seen yet", where="call AuthorizeSecurityGroupIngress", hint="Try again"
                    ) from error
                if error.aws_code != "InvalidPermission.Duplicate":
                    raise
        return group_id

    def _make(self, vpc_id: str, rules: set[Rule]) -> str:
        try:
            answer = self.api.call(
                "create_security_group",
                GroupName=group_name(self.owner, rules),
                Description="dockyard.machine: SSH, the engine and open ports",
                VpcId=vpc_id,
                TagSpecifications=[{"ResourceType": "security-group", "Tags": tag_list(self.marks)}],
            )
        except Ec2Error as error:
            if error.aws_code != "InvalidGroup.Duplicate":
                raise
            # Another machine's run was faster.
            group = self.look(vpc_id, rules)
            if group is None:
                raise TransientError(
                    "A security group was just made and cannot be seen yet", where="call CreateSecurityGroup", hint="Try again"
                ) from error
            return str(group["GroupId"])
        return str(answer["GroupId"])

    def all(self) -> list[dict[str, t.Any]]:
        """Every group of the owner."""
        return self.api.pages("describe_security_groups", "SecurityGroups", Filters=tag_filters(self.marks))

    def used(self, group_id: str) -> bool:
        """Whether a machine that is not going away uses the group."""
        filters = [{"Name": "instance.group-id", "Values": [group_id]}, {"Name": "instance-state-name", "Values": list(LIVE)}]
        return bool(self.api.call("describe_instances", Filters=filters, MaxResults=5).get("Reservations"))

    def is_ours(self, group: t.Mapping[str, t.Any]) -> bool:
        """Whether a group, as an instance or a describe call shows it, is one that we make."""
        return str(group.get("GroupName", "")).startswith(f"dockyard/{self.owner}/")

    def remove(self, group_id: str) -> bool:
        """Delete a group; False when EC2 says that it is in use."""
        try:
            self.api.call("delete_security_group", GroupId=group_id)
        except Ec2Error as error:
            if error.aws_code in ("DependencyViolation", "InvalidGroup.InUse"):
                return False
            if error.aws_code not in ("InvalidGroup.NotFound", "InvalidSecurityGroupID.NotFound"):
                raise
        return True
