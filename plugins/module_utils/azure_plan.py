# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks up what a new virtual machine needs: size, image, network. Reads only."""

from __future__ import annotations

import ipaddress
import re
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.azure_api import Api, Resource
from ansible_collections.dockyard.machine.plugins.module_utils.azure_parts import NSG, SUBNET, Place, Plan, split_id
from ansible_collections.dockyard.machine.plugins.module_utils.cloud import IMAGE_ALIASES, invalid
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError

X64: t.Final = "x64"
ARM64: t.Final = "Arm64"

# (publisher, offer, SKUs by generation and architecture)
_ALIASES: t.Final = {
    "debian-12": ("Debian", "debian-12", {"V2": "12-gen2", "V1": "12", ARM64: "12-arm64"}),
    "debian-13": ("Debian", "debian-13", {"V2": "13-gen2", "V1": "13", ARM64: "13-arm64"}),
    "ubuntu-22.04": (
        "Canonical",
        "0001-com-ubuntu-server-jammy",
        {"V2": "22_04-lts-gen2", "V1": "22_04-lts", ARM64: "22_04-lts-arm64"},
    ),
    "ubuntu-24.04": ("Canonical", "ubuntu-24_04-lts", {"V2": "server", "V1": "server-gen1", ARM64: "server-arm64"}),
    "ubuntu-26.04": ("Canonical", "ubuntu-26_04-lts", {"V2": "server", "V1": "server-gen1", ARM64: "server-arm64"}),
}


class Size(t.NamedTuple):
    """What a location's size can do."""

    architecture: str
    generations: tuple[str, ...]
    trusted: bool


class Image(t.NamedTuple):
    """An image that exists, as far as Azure tells."""

    reference: Resource
    plan: Resource
    trusted: bool


def urn_of(spec: str, size: Size) -> tuple[str, str, str, str] | None:
    """Publisher, offer, SKU and version of an alias or URN; None for a resource's id.

    Raises:
        MachineError: ``unknown_image`` or ``invalid_option``.
    """
    if spec.startswith("/"):
        return None
    if spec in _ALIASES:
        publisher, offer, skus = _ALIASES[spec]
        generation = "V2" if "V2" in size.generations else "V1"
        return publisher, offer, skus[ARM64 if size.architecture == ARM64 else generation], "latest"
    parts = spec.split(":")
    if len(parts) == 4 and all(re.fullmatch(r"[A-Za-z0-9._-]+", part) for part in parts):
        return parts[0], parts[1], parts[2], parts[3]
    if re.fullmatch(r"[a-z]+-[0-9.]+", spec):
        hint = f"Aliases are {', '.join(IMAGE_ALIASES)}; any other image is PUBLISHER:OFFER:SKU:VERSION or a resource's id"
        raise MachineError(f"There is no image {spec}", where="option image", hint=hint, code="unknown_image")
    raise invalid("image", f"{spec!r} is no image", "Give an alias such as debian-12, PUBLISHER:OFFER:SKU:VERSION, or a resource's id")


class Planner:
    """Makes the plan of one machine.

    Args:
        api: for the calls.
        opts: the driver's options.
        place: where it will be.
    """

    def __init__(self, api: Api, opts: t.Mapping[str, t.Any], place: Place) -> None:
        self.api = api
        self.opts = opts
        self.place = place
        self.location = str(opts["location"])

    def plan(self) -> Plan:
        """Look everything up; each option that names nothing gives an error of its own.

        Raises:
            MachineError: with the option at fault.
        """
        self._check_options()
        size = self._size()
        image = self._image(size)
        wish = self.opts["security_type"]
        able = image.trusted and size.trusted
        if wish == "trusted_launch" and not size.trusted:
            what = f"The size {self.opts['size']} has no trusted launch"
            raise invalid("security_type", what, "Choose another size, or security_type auto")
        subnet, own = self._subnet()
        return Plan(
            location=self.location,
            image=image.reference,
            plan=image.plan,
            trusted=wish == "trusted_launch" or (wish == "auto" and able),
            subnet=subnet,
            own_network=own,
            security_group=self._security_group(),
            availability_set=self._availability_set(),
        )

    def _check_options(self) -> None:
        opts = self.opts
        if opts["zone"] and opts["availability_set"]:
            raise invalid("zone", "A machine is in a zone or in an availability set", "Leave out zone or availability_set")
        if opts["dns"] and not re.fullmatch(r"[a-z][a-z0-9-]{1,61}[a-z0-9]", opts["dns"]):
            raise invalid("dns", f"{opts['dns']!r} is no label", "Use 3 to 63 lower-case letters, digits and hyphens, a letter first")
        if opts["dns"] and opts["private_address_only"]:
            raise invalid("dns", "A machine without a public address has no public name", "Leave out dns or private_address_only")
        if opts["disk_size"] < 0 or opts["disk_size"] > 4095:
            raise invalid("disk_size", f"A disk of {opts['disk_size']} GB cannot be", "Give 1 to 4095, or 0 for the image's own size")
        if opts["private_ip_address"]:
            try:
                ipaddress.IPv4Address(opts["private_ip_address"])
            except ValueError as error:
                raise invalid(
                    "private_ip_address", "This is no IPv4 address", "Give a free address of the subnet", why=str(error)
                ) from error
        try:
            network = ipaddress.IPv4Network(opts["subnet_prefix"])
        except ValueError as error:
            raise invalid("subnet_prefix", "This is no IPv4 range", "Write for example 192.168.0.0/16", why=str(error)) from error
        if not network.is_private or not 8 <= network.prefixlen <= 29:
            raise invalid("subnet_prefix", f"{network} cannot be a subnet", "Give a private range between /8 and /29 (RFC 1918)")

    # --- size and image ----------------------------------------------------------------------------------------

    def _size(self) -> Size:
        wanted, location = str(self.opts["size"]), self.location
        what = f"The sizes of {location} could not be listed"
        listed = self.api.pages("compute", "resource_skus", "list", what=what, where="option location", filter=f"location eq '{location}'")
        machines = [sku for sku in listed if sku.get("resourceType") == "virtualMachines"]
        if not machines:
            hint = "List them: az account list-locations"
            raise MachineError(f"There is no location {location}", where="option location", hint=hint, code="unknown_region")
        sku = next((item for item in machines if str(item.get("name", "")).lower() == wanted.lower()), None)
        hint = f"List what the location has: az vm list-skus --location {location} --resource-type virtualMachines"
        if sku is None:
            raise MachineError(f"There is no size {wanted} in {location}", where="option size", hint=hint, code="unknown_size")
        self._check_restrictions(sku, hint)
        can = {str(item.get("name")): str(item.get("value")) for item in sku.get("capabilities") or []}
        if self.opts["spot"] and can.get("LowPriorityCapable") == "False":
            raise invalid("spot", f"The size {wanted} cannot be had as a spot machine", "Choose another size")
        return Size(
            can.get("CpuArchitectureType", X64),
            tuple(can.get("HyperVGenerations", "V1").split(",")),
            can.get("TrustedLaunchDisabled", "False") != "True" and "V2" in can.get("HyperVGenerations", "V1"),
        )

    def _check_restrictions(self, sku: Resource, hint: str) -> None:
        """Refuse what this subscription cannot have here, before anything is made."""
        zone, size = str(self.opts["zone"]), sku.get("name")
        for item in sku.get("restrictions") or []:
            zones = (item.get("restrictionInfo") or {}).get("zones") or []
            if item.get("type") == "Location" or (zone and zone in zones):
                what = f"The size {size} cannot be had in {self.location}{f', zone {zone}' if zone else ''}"
                why = f"Azure restricts it for this subscription: {item.get('reasonCode', 'no reason given')}"
                raise MachineError(what, where="option size", why=why, hint=hint, code="capacity")
        zones = [str(name) for info in sku.get("locationInfo") or [] for name in info.get("zones") or []]
        if zone and zone not in zones:
            have = ", ".join(sorted(zones)) or "none"
            raise invalid("zone", f"There is no zone {zone} for {size} in {self.location}", f"It has these zones: {have}")

    def _image(self, size: Size) -> Image:
        spec = str(self.opts["image"])
        urn = urn_of(spec, size)
        if urn is None:
            return Image(_reference(spec), {}, False)
        publisher, offer, sku, version = urn
        what, names = f"The image {spec} could not be read", (self.location, publisher, offer, sku)
        if version == "latest":
            try:
                listed = self.api.call(
                    "compute", "virtual_machine_images", "list", *names, top=1, orderby="name desc", what=what, where="option image"
                )
            except MachineError as error:
                if error.code not in ("not_found", "unknown_image"):
                    raise
                listed = []
            newest = str(listed[0]["name"]) if listed else ""
        else:
            newest = version
        found = self.api.find("compute", "virtual_machine_images", *names, newest, what=what, where="option image") if newest else None
        if found is None:
            hint = f"List what there is: az vm image list --location {self.location} --publisher {publisher} --all"
            raise MachineError(f"There is no image {spec} in {self.location}", where="option image", hint=hint, code="unknown_image")
        return self._checked(found, size, {"publisher": publisher, "offer": offer, "sku": sku, "version": version})

    def _checked(self, found: Resource, size: Size, reference: Resource) -> Image:
        """The image, if it runs on the size."""
        properties = found.get("properties", {})
        architecture, generation = str(properties.get("architecture", X64)), str(properties.get("hyperVGeneration", "V1"))
        if architecture != size.architecture or generation not in size.generations:
            takes = f"{size.architecture}, {' or '.join(size.generations)}"
            raise MachineError(
                f"The image {self.opts['image']} does not run on {self.opts['size']}",
                where="option image",
                why=f"the image is for {architecture}, {generation}; the size takes {takes}",
                hint="Choose an image for this size, or another size",
                code="unknown_image",
            )
        features = {str(item.get("name")): str(item.get("value")) for item in properties.get("features") or []}
        plan = properties.get("plan") or {}
        trusted = generation == "V2" and "TrustedLaunch" in features.get("SecurityType", "")
        return Image(reference, {key: plan[key] for key in ("name", "product", "publisher") if key in plan}, trusted)

    # --- network -----------------------------------------------------------------------------------------------

    def _named(self, option: str, type_: str) -> tuple[str, str, str]:
        """Group, name and id of a resource of the user's: ``NAME``, ``GROUP:NAME`` or an id.

        Raises:
            MachineError: ``invalid_option``.
        """
        spec = str(self.opts[option])
        if spec.startswith("/"):
            parts = split_id(spec)
            kind = type_.partition("/")[2].lower()
            if kind not in parts or parts.get("subscriptions", "").lower() != self.api.subscription.lower():
                raise invalid(option, f"{spec} is no {type_} of this subscription", "Give NAME, GROUP:NAME or a resource's id")
            return parts["resourcegroups"], parts[kind], spec
        group, dummy, name = spec.rpartition(":")
        group = group or str(self.opts["resource_group"])
        if not group or not name:
            raise invalid(option, f"{spec!r} does not say in what resource group", "Write GROUP:NAME, or set resource_group")
        return group, name, f"/subscriptions/{self.api.subscription}/resourceGroups/{group}/providers/{type_}/{name}"

    def _subnet(self) -> tuple[str, bool]:
        """The id of the subnet, and whether it is our own network's."""
        opts = self.opts
        if not opts["vnet"]:
            if opts["subnet"]:
                raise invalid("subnet", "A subnet of your own needs its network", "Set vnet too, as GROUP:NAME")
            return self.place.id("Microsoft.Network/virtualNetworks/subnets", self.place.vnet, SUBNET), True
        group, name, identifier = self._named("vnet", "Microsoft.Network/virtualNetworks")
        subnet = str(opts["subnet"] or "docker-machine")
        what = f"The subnet {subnet} could not be read"
        found = self.api.find("network", "subnets", group, name, subnet, what=what, where="option subnet")
        if found is None:
            vnet = self.api.find("network", "virtual_networks", group, name, what=what, where="option vnet")
            if vnet is None:
                hint = "Write GROUP:NAME; list them: az network vnet list"
                raise MachineError(f"There is no network {name} in {group}", where="option vnet", hint=hint, code="not_found")
            hint = f"List them: az network vnet subnet list --resource-group {group} --vnet-name {name}"
            raise MachineError(f"The network {name} has no subnet {subnet}", where="option subnet", hint=hint, code="not_found")
        properties = found.get("properties", {})
        ranges = [*(properties.get("addressPrefixes") or []), str(properties.get("addressPrefix") or "")]
        if opts["ipv6"] and not any(":" in item for item in ranges):
            raise invalid("ipv6", f"The subnet {subnet} has no IPv6 range", "Choose a dual-stack subnet")
        return f"{identifier}/subnets/{subnet}", False

    def _security_group(self) -> str:
        return self._existing("security_group", NSG.type, "network", "network_security_groups")

    def _availability_set(self) -> str:
        return self._existing("availability_set", "Microsoft.Compute/availabilitySets", "compute", "availability_sets")

    def _existing(self, option: str, type_: str, service: str, operations: str) -> str:
        """The id of something of the user's, which has to be there; empty when the option is."""
        if not self.opts[option]:
            return ""
        group, name, identifier = self._named(option, type_)
        if self.api.find(service, operations, group, name, what=f"{name} could not be read", where=f"option {option}") is None:
            hint = "Make it first, or leave the option out"
            raise MachineError(f"There is no {name} in {group}", where=f"option {option}", hint=hint, code="not_found")
        return identifier


def _reference(spec: str) -> Resource:
    """``imageReference`` of an image's id."""
    lower = spec.lower()
    if lower.startswith("/communitygalleries/"):
        return {"communityGalleryImageId": spec}
    return {"sharedGalleryImageId": spec} if lower.startswith("/sharedgalleries/") else {"id": spec}
