# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an existing EC2 machine differs from what is wanted, and how it is brought there.

An option that nobody gave is not compared: the machine may be an older one, made with other defaults.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.driver import Difference, Wanted
from ansible_collections.dockyard.machine.plugins.module_utils.ec2_client import Ec2Api, Ec2Error
from ansible_collections.dockyard.machine.plugins.module_utils.ec2_firewall import Firewall, rules_of, tag_list
from ansible_collections.dockyard.machine.plugins.module_utils.ec2_launch import all_tags
from ansible_collections.dockyard.machine.plugins.module_utils.machine import MARK, State, marks

Instance = t.Mapping[str, t.Any]


def tags_of(resource: t.Mapping[str, t.Any]) -> dict[str, str]:
    """The tags of anything that EC2 describes."""
    return {tag["Key"]: tag["Value"] for tag in resource.get("Tags", [])}


def user_tags(tags: t.Mapping[str, str], name: str) -> dict[str, str]:
    """The user's tags: neither our marks nor Amazon's own, nor the name that we gave."""
    ours = {"Name": name}
    return {
        key: value for key, value in tags.items() if key != MARK and not key.startswith((f"{MARK}-", "aws:")) and ours.get(key) != value
    }


def ipv6_of(instance: Instance) -> str:
    """The first IPv6 address, or an empty string."""
    found = (entry["Ipv6Address"] for card in instance.get("NetworkInterfaces", []) for entry in card.get("Ipv6Addresses", []))
    return str(instance.get("Ipv6Address") or next(found, ""))


def groups_of(instance: Instance) -> list[dict[str, str]]:
    """The security groups of the instance, which are those of its first interface; sorted by id."""
    first = (card.get("Groups", []) for card in instance.get("NetworkInterfaces", []) if card.get("Attachment", {}).get("DeviceIndex") == 0)
    return sorted(instance.get("SecurityGroups") or next(first, []), key=lambda group: str(group["GroupId"]))


def volumes_of(instance: Instance) -> list[str]:
    """Ids of the volumes, the root volume first."""
    disks = instance.get("BlockDeviceMappings", [])
    ranked = sorted(disks, key=lambda disk: disk.get("DeviceName") != instance.get("RootDeviceName"))
    return [disk["Ebs"]["VolumeId"] for disk in ranked if "Ebs" in disk]


class Drift:
    """One instance next to what is wanted."""

    def __init__(self, api: Ec2Api, opts: t.Mapping[str, t.Any], wanted: Wanted, firewall: Firewall, instance: Instance) -> None:
        self.api = api
        self.opts = opts
        self.wanted = wanted
        self.firewall = firewall
        self.instance = instance
        self.id = str(instance["InstanceId"])

    # --- compare -----------------------------------------------------------------------------------------------

    def differences(self) -> list[Difference]:
        """All of them; up to three more calls."""
        return [*self._tags(), *self._fixed(), *self._size(), *self._switches(), *self._profile(), *self._volume(), *self._groups()]

    def _tags(self) -> t.Iterator[Difference]:
        now = tags_of(self.instance)
        missing = {key: value for key, value in marks(self.wanted.name, self.wanted.owner, "").items() if now.get(key) != value}
        if missing:
            yield Difference("marks", {}, missing)
        actual = user_tags(now, self.wanted.name)
        if actual != self.wanted.tags:
            yield Difference("tags", actual, dict(self.wanted.tags))

    def _fixed(self) -> t.Iterator[Difference]:
        """What only a new machine can have."""
        place = self.instance.get("Placement", {}).get("AvailabilityZone", "")
        actual = {
            "image": self.instance.get("ImageId", "") if re.fullmatch(r"ami-[0-9a-f]+", self.opts["image"]) else "",
            "keypair_name": self.instance.get("KeyName", ""),
            "subnet_id": self.instance.get("SubnetId", ""),
            "vpc_id": self.instance.get("VpcId", ""),
            "zone": place[-1:] if len(self.opts["zone"]) == 1 else place,
        }
        for option, value in actual.items():
            if self.opts[option] and value and value != self.opts[option]:
                yield Difference(option, value, self.opts[option], in_place=False)
        if self.opts["private_address_only"] and self.instance.get("PublicIpAddress"):
            yield Difference("private_address_only", False, True, in_place=False)
        if self.opts["ipv6"] and not ipv6_of(self.instance):
            yield Difference("ipv6", False, True, in_place=False)

    def _size(self) -> t.Iterator[Difference]:
        actual = self.instance.get("InstanceType", "")
        if self.opts["instance_type"] and actual != self.opts["instance_type"]:
            yield Difference("instance_type", actual, self.opts["instance_type"], needs_stop=True)
        if self.opts["use_ebs_optimized_instance"] and not self.instance.get("EbsOptimized"):
            yield Difference("use_ebs_optimized_instance", False, True, needs_stop=True)

    def _switches(self) -> t.Iterator[Difference]:
        monitoring = self.instance.get("Monitoring", {}).get("State") in ("enabled", "pending")
        if monitoring != self.opts["monitoring"]:
            yield Difference("monitoring", monitoring, self.opts["monitoring"])
        metadata = self.instance.get("MetadataOptions", {})
        for option, key in (("http_tokens", "HttpTokens"), ("http_put_response_hop_limit", "HttpPutResponseHopLimit")):
            if key in metadata and metadata[key] != self.opts[option]:
                yield Difference(option, metadata[key], self.opts[option])
        if self.instance.get("InstanceLifecycle") != "spot":
            answer = self.api.call("describe_instance_attribute", InstanceId=self.id, Attribute="disableApiTermination")
            protected = bool(answer.get("DisableApiTermination", {}).get("Value"))
            if protected != self.opts["delete_protection"]:
                yield Difference("delete_protection", protected, self.opts["delete_protection"])

    def _profile(self) -> t.Iterator[Difference]:
        wanted, actual = self.opts["iam_instance_profile"], self.instance.get("IamInstanceProfile", {}).get("Arn", "")
        if wanted and actual != wanted and actual.rpartition("/")[2] != wanted:
            yield Difference("iam_instance_profile", actual, wanted)

    def _volume(self) -> t.Iterator[Difference]:
        keys = {"root_size": "Size", "volume_type": "VolumeType", "volume_iops": "Iops", "volume_throughput": "Throughput"}
        given = {option: key for option, key in keys.items() if self.opts[option]}
        volumes = volumes_of(self.instance)
        if not given or not volumes:
            return
        volume = self.api.call("describe_volumes", VolumeIds=volumes[:1])["Volumes"][0]
        for option, key in given.items():
            actual = volume.get(key)
            if actual != self.opts[option]:
                shrinks = option == "root_size" and bool(actual) and actual > self.opts[option]
                yield Difference(option, actual, self.opts[option], in_place=not shrinks)

    def _groups(self) -> t.Iterator[Difference]:
        ids = {group["GroupId"] for group in groups_of(self.instance)}
        vpc_id = self.instance.get("VpcId", "")
        if self.opts["security_group"]:
            wanted = self.firewall.named(vpc_id)
            if ids != set(wanted):
                yield Difference("security_group", sorted(ids), wanted)
            return
        ours = [group["GroupId"] for group in groups_of(self.instance) if self.firewall.is_ours(group)]
        if self.opts["security_group_readonly"] or (ids and not ours):
            # It was made with groups of the user's, and nothing says that they are wrong.
            return
        rules = self.current_rules(ours)
        wanted_rules = self.firewall.rules()
        if rules != wanted_rules:
            yield Difference(
                "allowed_cidrs",
                sorted(f"{rule.port} {rule.cidr}" for rule in rules),
                sorted(f"{rule.port} {rule.cidr}" for rule in wanted_rules),
            )

    def current_rules(self, group_ids: list[str]) -> set[t.Any]:
        """The rules of our groups that the machine is in."""
        found: set[t.Any] = set()
        for group in self.api.pages("describe_security_groups", "SecurityGroups", GroupIds=group_ids) if group_ids else []:
            found |= rules_of(group)
        return found

    # --- apply -------------------------------------------------------------------------------------------------

    def apply(self, differences: t.Sequence[Difference], state: str) -> None:
        """Change what can be changed now. May be repeated."""
        names = {item.option: item for item in differences if item.in_place and not (item.needs_stop and state != State.STOPPED)}
        if "marks" in names or "tags" in names:
            self._apply_tags()
        for option, change in (
            ("instance_type", {"InstanceType": {"Value": self.opts["instance_type"]}}),
            ("use_ebs_optimized_instance", {"EbsOptimized": {"Value": True}}),
            ("delete_protection", {"DisableApiTermination": {"Value": self.opts["delete_protection"]}}),
        ):
            if option in names:
                self.api.call("modify_instance_attribute", InstanceId=self.id, **change)
        if "monitoring" in names:
            self.api.call("monitor_instances" if self.opts["monitoring"] else "unmonitor_instances", InstanceIds=[self.id])
        if {"http_tokens", "http_put_response_hop_limit"} & names.keys():
            self.api.call(
                "modify_instance_metadata_options",
                InstanceId=self.id,
                HttpTokens=self.opts["http_tokens"],
                HttpPutResponseHopLimit=self.opts["http_put_response_hop_limit"],
            )
        if "iam_instance_profile" in names:
            self._apply_profile()
        if {"root_size", "volume_type", "volume_iops", "volume_throughput"} & names.keys():
            self._apply_volume(names)
        if {"security_group", "allowed_cidrs"} & names.keys():
            self._apply_groups()

    def _apply_tags(self) -> None:
        cards = [card["NetworkInterfaceId"] for card in self.instance.get("NetworkInterfaces", [])]
        resources = [self.id, *volumes_of(self.instance), *cards]
        now = tags_of(self.instance)
        gone = set(user_tags(now, self.wanted.name)) - set(self.wanted.tags) - {"Name"}
        wanted = all_tags(self.wanted)
        # The token marks the generation; it stays as the machine was made.
        wanted.pop(f"{MARK}-token", None)
        self.api.call("create_tags", Resources=resources, Tags=tag_list(wanted))
        if gone:
            self.api.call("delete_tags", Resources=resources, Tags=[{"Key": key} for key in sorted(gone)])

    def _apply_profile(self) -> None:
        given = self.opts["iam_instance_profile"]
        profile = {"Arn" if given.startswith("arn:") else "Name": given}
        filters = [{"Name": "instance-id", "Values": [self.id]}, {"Name": "state", "Values": ["associated", "associating"]}]
        found = self.api.call("describe_iam_instance_profile_associations", Filters=filters)["IamInstanceProfileAssociations"]
        if found:
            self.api.call("replace_iam_instance_profile_association", AssociationId=found[0]["AssociationId"], IamInstanceProfile=profile)
        else:
            self.api.call("associate_iam_instance_profile", InstanceId=self.id, IamInstanceProfile=profile)

    def _apply_volume(self, names: t.Collection[str]) -> None:
        """The file system follows at the next boot, when cloud-init grows it."""
        keys = {"root_size": "Size", "volume_type": "VolumeType", "volume_iops": "Iops", "volume_throughput": "Throughput"}
        change = {key: self.opts[option] for option, key in keys.items() if option in names}
        try:
            self.api.call("modify_volume", VolumeId=volumes_of(self.instance)[0], **change)
        except Ec2Error as error:
            # A repeated call finds its own change under way.
            if error.aws_code != "IncorrectModificationState":
                raise

    def _apply_groups(self) -> None:
        vpc_id = str(self.instance.get("VpcId", ""))
        if self.opts["security_group"]:
            wanted = self.firewall.named(vpc_id)
        else:
            wanted = [self.firewall.ensure(vpc_id, self.firewall.rules())]
        self.api.call("modify_instance_attribute", InstanceId=self.id, Groups=wanted)
        for group in groups_of(self.instance):
            if self.firewall.is_ours(group) and group["GroupId"] not in wanted:
                self.firewall.remove(group["GroupId"])
