# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a new EC2 machine is made from: its image, type, place, disk and first boot, and the request that says so.

RunInstances: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import re
import typing as t
import zlib

from ansible_collections.dockyard.machine.plugins.module_utils.cloud import DEFAULT_IMAGE, IMAGE_ALIASES, invalid
from ansible_collections.dockyard.machine.plugins.module_utils.driver import Wanted
from ansible_collections.dockyard.machine.plugins.module_utils.ec2_client import Ec2Api, Ec2Error
from ansible_collections.dockyard.machine.plugins.module_utils.ec2_firewall import tag_list
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import marks

DEFAULT_TYPE = "t3.micro"
DEFAULT_ROOT_SIZE = 16
DEFAULT_VOLUME_TYPE = "gp3"

MAX_USER_DATA = 16384
"""Bytes that EC2 takes, before base64."""

MAX_TAGS = 50

DEBIAN = "136693071363"
CANONICAL: t.Final = {"aws": "099720109477", "aws-cn": "837727238323", "aws-us-gov": "513442679011"}
"""The accounts that publish images, by partition; see wiki.debian.org/Cloud/AmazonEC2Image and documentation.ubuntu.com/aws."""

_UBUNTU: t.Final = {
    "ubuntu-22.04": "ubuntu/images/hvm-ssd*/ubuntu-jammy-22.04-{arch}-server-*",
    "ubuntu-24.04": "ubuntu/images/hvm-ssd*/ubuntu-noble-24.04-{arch}-server-*",
    "ubuntu-26.04": "ubuntu/images/hvm-ssd*/ubuntu-*-26.04-{arch}-server-*",
}
# EC2's word for an architecture, and the one in names of images.
_ARCHITECTURES: t.Final = {"x86_64": "amd64", "arm64": "arm64"}

_IOPS_TYPES: t.Final = ("gp3", "io1", "io2")


def client_token(wanted: Wanted, after: str, attempt: int, market: str) -> str:
    """The ClientToken of a creation, 64 characters.

    The same as long as it is the same creation, so that a repeated call, or the next run after a killed one, gets the same
    machine. Another one once that machine was terminated: EC2 remembers a token for a day after that.

    Args:
        wanted: name, owner and the record's token.
        after: the id of this record's last terminated machine, as far as EC2 still shows it.
        attempt: from 0; the next one when EC2 says that the token was used up.
        market: ``spot`` or ``on-demand``.
    """
    text = "\n".join(("dockyard.machine", wanted.owner, wanted.name, wanted.token, after, str(attempt), market))
    return hashlib.sha256(text.encode()).hexdigest()


def packed_user_data(user_data: str) -> bytes:
    """User-data as EC2 takes it; compressed when it is too long as it is (cloud-init unpacks it).

    Raises:
        MachineError: ``invalid_option`` when it is too long even so.
    """
    raw = user_data.encode()
    if len(raw) <= MAX_USER_DATA:
        return raw
    # No time stamp: a repeated request has to be the same to the byte.
    packed = gzip.compress(raw, 9, mtime=0)
    if len(packed) > MAX_USER_DATA:
        raise invalid(
            "user_data",
            "The user-data is too long for EC2",
            "Fetch the bulk of it from elsewhere with #include",
            why=f"it has {len(packed)} bytes compressed, {MAX_USER_DATA} are allowed",
        )
    return packed


def all_tags(wanted: Wanted) -> dict[str, str]:
    """The tags of the machine and all that belongs to it."""
    return {"Name": wanted.name, **wanted.tags, **marks(wanted.name, wanted.owner, wanted.token)}


def check_tags(wanted: Wanted) -> None:
    """Refuse what EC2 would.

    Raises:
        MachineError: ``invalid_option``.
    """
    for key, value in wanted.tags.items():
        if not 0 < len(key) <= 128 or len(value) > 256 or key.lower().startswith("aws:"):
            raise invalid(
                "tags", f"{key[:40]!r} cannot be a tag on EC2", "A key has 1 to 128 characters and no prefix aws:, a value 256 at most"
            )
    if len(all_tags(wanted)) > MAX_TAGS:
        raise invalid("tags", f"{len(wanted.tags)} tags are too many", f"EC2 takes {MAX_TAGS} together with Name and our own three")


def check_disk(opts: t.Mapping[str, t.Any]) -> None:
    """Refuse combinations of disk options that EC2 doesn't know.

    Raises:
        MachineError: ``invalid_option``.
    """
    kind = opts["volume_type"] or DEFAULT_VOLUME_TYPE
    if opts["volume_iops"] is not None and kind not in _IOPS_TYPES:
        raise invalid(
            "volume_iops", f"A volume of type {kind} has no IOPS to choose", f"Use volume_type {', '.join(_IOPS_TYPES)}, or leave it out"
        )
    if opts["volume_iops"] is None and kind in ("io1", "io2"):
        raise invalid("volume_iops", f"A volume of type {kind} needs its IOPS said", "Set volume_iops, for example 3000")
    if opts["volume_throughput"] is not None and kind != "gp3":
        raise invalid("volume_throughput", f"A volume of type {kind} has no throughput to choose", "Use volume_type gp3, or leave it out")
    if opts["root_size"] is not None and opts["root_size"] < 1:
        raise invalid("root_size", f"{opts['root_size']} GiB is no disk", "Give a size in GiB")
    if opts["kms_key"] and not opts["encrypt_volume"]:
        raise invalid("kms_key", "A KMS key is for an encrypted disk", "Leave out encrypt_volume: false, or the key")


@dataclasses.dataclass
class Plan:
    """What was found out before anything is made."""

    image: dict[str, t.Any]
    instance_type: str
    vpc_id: str
    subnet_id: str
    """Empty: EC2 chooses a zone that has room."""
    user_data: bytes


class Planner:
    """Finds out what a new machine is made from. Reads only."""

    def __init__(self, api: Ec2Api, opts: t.Mapping[str, t.Any], wanted: Wanted) -> None:
        self.api = api
        self.opts = opts
        self.wanted = wanted

    def plan(self) -> Plan:
        """Look everything up.

        Raises:
            MachineError: with the option at fault.
        """
        check_tags(self.wanted)
        check_disk(self.opts)
        user_data = packed_user_data(self.wanted.user_data)
        instance_type = self.opts["instance_type"] or DEFAULT_TYPE
        image = self._image(instance_type, self._architectures(instance_type))
        subnet_id, vpc_id = self._place()
        return Plan(image, instance_type, vpc_id, subnet_id, user_data)

    def _architectures(self, instance_type: str) -> list[str]:
        def look() -> list[str]:
            found = self.api.call("describe_instance_types", InstanceTypes=[instance_type])["InstanceTypes"]
            return [str(word) for word in found[0]["ProcessorInfo"]["SupportedArchitectures"]]

        words: list[str] = self.api.cache.get(f"type {instance_type}", look)
        return words

    # --- image -------------------------------------------------------------------------------------------------

    def _image(self, instance_type: str, architectures: list[str]) -> dict[str, t.Any]:
        name = self.opts["image"] or DEFAULT_IMAGE
        architecture = next((word for word in _ARCHITECTURES if word in architectures), architectures[0])
        question = f"image {name} {architecture} {self.opts['image_owners']}"
        image: dict[str, t.Any] = self.api.cache.get(question, lambda: self._find_image(name, architecture))
        if image["Architecture"] not in architectures:
            raise MachineError(
                f"The image {image['ImageId']} does not run on the instance type {instance_type}",
                where="option instance_type",
                why=f"the image is for {image['Architecture']}, the type for {' or '.join(architectures)}",
                hint="Choose an image and a type of one architecture; aliases such as debian-12 follow the type",
                code="unknown_size",
            )
        disk: dict[str, t.Any] = next(
            (entry for entry in image.get("BlockDeviceMappings", []) if entry.get("DeviceName") == image.get("RootDeviceName")), {}
        )
        least = disk.get("Ebs", {}).get("VolumeSize", 0)
        if least > (self.opts["root_size"] or DEFAULT_ROOT_SIZE):
            raise invalid("root_size", f"The image {image['ImageId']} needs a disk of {least} GiB", f"Set root_size to {least} or more")
        return image

    def _find_image(self, name: str, architecture: str) -> dict[str, t.Any]:
        image = self._image_by_id(name) if re.fullmatch(r"ami-[0-9a-f]+", name) else self._newest(name, architecture)
        return {key: image[key] for key in ("ImageId", "Architecture", "RootDeviceName", "BlockDeviceMappings") if key in image}

    def _image_by_id(self, image_id: str) -> dict[str, t.Any]:
        found = self.api.call("describe_images", ImageIds=[image_id])["Images"]
        if not found:
            raise self._no_image(image_id, "it is not there, or not shared with this account")
        return dict(found[0])

    def _newest(self, name: str, architecture: str) -> dict[str, t.Any]:
        """The newest image of an alias or name pattern."""
        partition = "aws-cn" if self.api.region.startswith("cn-") else "aws-us-gov" if self.api.region.startswith("us-gov-") else "aws"
        word = _ARCHITECTURES.get(architecture, architecture)
        owners, pattern = ["self"], name
        if name in _UBUNTU:
            owners, pattern = [CANONICAL[partition]], _UBUNTU[name].format(arch=word)
        elif name in IMAGE_ALIASES:
            owners, pattern = [DEBIAN], f"{name}-{word}-*"
        owners = self.opts["image_owners"] or owners
        filters = [
            {"Name": "name", "Values": [pattern]},
            {"Name": "architecture", "Values": [architecture]},
            {"Name": "virtualization-type", "Values": ["hvm"]},
            {"Name": "state", "Values": ["available"]},
        ]
        found = self.api.pages("describe_images", "Images", Owners=owners, Filters=filters)
        found = [image for image in found if image.get("RootDeviceType", "ebs") == "ebs"]
        if not found:
            raise self._no_image(name, f"no image of {', '.join(owners)} for {architecture} has a name like {pattern}")
        return max(found, key=lambda image: (image.get("CreationDate", ""), image["ImageId"]))

    def _no_image(self, name: str, why: str) -> MachineError:
        return MachineError(
            f"There is no image {name!r} in {self.api.region}",
            where="option image",
            why=why,
            hint=f"Give the id of an image of this region, a name with image_owners, or one of {', '.join(IMAGE_ALIASES)}",
            code="unknown_image",
        )

    # --- place -------------------------------------------------------------------------------------------------

    def _place(self) -> tuple[str, str]:
        """Subnet (or empty) and VPC."""
        zone, vpc_id = self._zone(), self.opts["vpc_id"]
        if self.opts["subnet_id"]:
            return self._given_subnet(zone, vpc_id)
        if not vpc_id:
            vpc_id = self.api.cache.get("default VPC", self._default_vpc)
            if not zone and not self.opts["ipv6"]:
                return "", vpc_id
        filters = [{"Name": "vpc-id", "Values": [vpc_id]}]
        if zone:
            filters.append({"Name": "availability-zone", "Values": [zone]})
        subnets = self.api.pages("describe_subnets", "Subnets", Filters=filters)
        if self.opts["ipv6"]:
            subnets = [subnet for subnet in subnets if subnet.get("Ipv6CidrBlockAssociationSet")]
        if not subnets:
            raise MachineError(
                f"The VPC {vpc_id} has no fitting subnet",
                where="option ipv6" if self.opts["ipv6"] else "option zone" if zone else "option vpc_id",
                why=f"looked for one{' in ' + zone if zone else ''}{' with IPv6' if self.opts['ipv6'] else ''}",
                hint="Name a subnet in subnet_id",
                code="not_found",
            )
        return self._choose(subnets), vpc_id

    def _default_vpc(self) -> str:
        vpcs = self.api.call("describe_vpcs", Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
        if not vpcs:
            raise MachineError("The region has no default VPC", where="option vpc_id", hint="Name vpc_id or subnet_id", code="not_found")
        return str(vpcs[0]["VpcId"])

    def _choose(self, subnets: list[dict[str, t.Any]]) -> str:
        """One subnet, always the same for one name: EC2 honours a ClientToken per zone only."""
        public = not self.opts["private_address_only"]
        best = [subnet for subnet in subnets if bool(subnet.get("MapPublicIpOnLaunch")) == public] or subnets
        best.sort(key=lambda subnet: str(subnet["SubnetId"]))
        return str(best[zlib.crc32(self.wanted.name.encode()) % len(best)]["SubnetId"])

    def _given_subnet(self, zone: str, vpc_id: str) -> tuple[str, str]:
        subnet = self.api.call("describe_subnets", SubnetIds=[self.opts["subnet_id"]])["Subnets"][0]
        for option, given, actual in (("vpc_id", vpc_id, subnet["VpcId"]), ("zone", zone, subnet["AvailabilityZone"])):
            if given and given != actual:
                raise invalid(
                    option,
                    f"The subnet {subnet['SubnetId']} is not in {given}",
                    f"Leave {option} out, or name another subnet_id",
                    why=f"it is in {actual}",
                )
        if self.opts["ipv6"] and not subnet.get("Ipv6CidrBlockAssociationSet"):
            raise invalid("ipv6", f"The subnet {subnet['SubnetId']} has no IPv6 addresses", "Choose another subnet_id, or leave ipv6 out")
        return str(subnet["SubnetId"]), str(subnet["VpcId"])

    def _zone(self) -> str:
        """The zone's full name; Docker Machine took its letter."""
        zone = str(self.opts["zone"])
        return f"{self.api.region}{zone}" if len(zone) == 1 else zone


def request(plan: Plan, wanted: Wanted, opts: t.Mapping[str, t.Any], groups: list[str], key_name: str) -> dict[str, t.Any]:
    """The parameters of RunInstances, without the token and the market."""
    interface: dict[str, t.Any] = {
        "DeviceIndex": 0,
        "Groups": groups,
        "DeleteOnTermination": True,
        "AssociatePublicIpAddress": not opts["private_address_only"],
    }
    if plan.subnet_id:
        interface["SubnetId"] = plan.subnet_id
    if opts["ipv6"]:
        interface["Ipv6AddressCount"] = 1
    disk: dict[str, t.Any] = {
        "VolumeSize": opts["root_size"] or DEFAULT_ROOT_SIZE,
        "VolumeType": opts["volume_type"] or DEFAULT_VOLUME_TYPE,
        "DeleteOnTermination": True,
        "Encrypted": opts["encrypt_volume"],
        "KmsKeyId": opts["kms_key"],
        "Iops": opts["volume_iops"],
        "Throughput": opts["volume_throughput"],
    }
    profile = opts["iam_instance_profile"]
    tags = tag_list(all_tags(wanted))
    return {
        "ImageId": plan.image["ImageId"],
        "InstanceType": plan.instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "KeyName": key_name,
        "UserData": plan.user_data,
        "NetworkInterfaces": [interface],
        "BlockDeviceMappings": [
            {
                "DeviceName": opts["device_name"] or plan.image.get("RootDeviceName") or "/dev/sda1",
                "Ebs": {key: value for key, value in disk.items() if value not in (None, "")},
            }
        ],
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": opts["http_tokens"],
            "HttpPutResponseHopLimit": opts["http_put_response_hop_limit"],
        },
        "IamInstanceProfile": {"Arn" if profile.startswith("arn:") else "Name": profile} if profile else {},
        "Monitoring": {"Enabled": opts["monitoring"]},
        "EbsOptimized": opts["use_ebs_optimized_instance"] or None,
        "DisableApiTermination": opts["delete_protection"],
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume", "network-interface")],
    }


def spot(opts: t.Mapping[str, t.Any], wanted: Wanted, parameters: dict[str, t.Any]) -> dict[str, t.Any]:
    """The same request, for a spot machine."""
    options: dict[str, t.Any] = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
    if opts["spot_price"]:
        options["MaxPrice"] = opts["spot_price"]
    if opts["block_duration_minutes"]:
        options["BlockDurationMinutes"] = opts["block_duration_minutes"]
    tags = [*parameters["TagSpecifications"], {"ResourceType": "spot-instances-request", "Tags": tag_list(all_tags(wanted))}]
    # EC2 has no protection against termination for spot machines; the option still guards against this collection.
    return {
        **parameters,
        "DisableApiTermination": None,
        "TagSpecifications": tags,
        "InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": options},
    }


def token_is_used(error: Ec2Error) -> bool:
    """Whether EC2 says that the token's machine was terminated (it has said so since 2025; before, it showed that machine)."""
    return error.aws_code == "IdempotentInstanceTerminated"


def token_differs(error: Ec2Error) -> bool:
    """Whether EC2 says that the token came with other parameters before."""
    return error.aws_code == "IdempotentParameterMismatch"
