# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine consists of at Azure: names, tags, request bodies, and a machine read back from them.

API: https://learn.microsoft.com/rest/api/compute/virtual-machines and https://learn.microsoft.com/rest/api/virtualnetwork
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.azure_api import Resource
from ansible_collections.dockyard.machine.plugins.module_utils.cloud import Port, invalid
from ansible_collections.dockyard.machine.plugins.module_utils.driver import Wanted
from ansible_collections.dockyard.machine.plugins.module_utils.machine import MARK, Machine, State, marks

PROTECTED: t.Final = f"{MARK}-protected"
"""A tag of ours on a virtual machine that must not be deleted."""
IMAGE: t.Final = f"{MARK}-image"
"""A tag of ours with the image as the user wrote it: an alias says less than what Azure shows."""

MAX_TAGS: t.Final = 50
MAX_USER_DATA: t.Final = 65535 // 4 * 3

_SYSTEM: t.Final = (MARK, f"{MARK}-owner", f"{MARK}-token", PROTECTED, IMAGE)


class Kind(t.NamedTuple):
    """A kind of resource that belongs to one machine."""

    service: str
    group: str
    type: str
    word: str
    suffix: str
    body: bool = False
    """Its tags are changed by a long-running update, not by update_tags."""


# In the order in which they can be removed: a NIC before its address and its firewall.
KINDS: t.Final = (
    Kind("compute", "disks", "Microsoft.Compute/disks", "disk", "-os", True),
    Kind("network", "network_interfaces", "Microsoft.Network/networkInterfaces", "network interface", "-nic"),
    Kind("network", "public_ip_addresses", "Microsoft.Network/publicIPAddresses", "public address", "-ip"),
    Kind("network", "public_ip_addresses", "Microsoft.Network/publicIPAddresses", "public address", "-ip6"),
    Kind("network", "network_security_groups", "Microsoft.Network/networkSecurityGroups", "network security group", "-nsg"),
)
DISK, NIC, IP, IP6, NSG = KINDS


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a machine's resources are, and how they are named."""

    subscription: str
    group: str
    own_group: bool
    """The resource group is made and removed by us."""
    name: str
    owner: str

    def named(self, kind: Kind) -> str:
        """The name of the machine's resource of this kind."""
        return self.name + kind.suffix

    def id(self, type_: str, *names: str) -> str:
        """The full id of a resource in our group; a child (``.../subnets``) takes two names."""
        provider, dummy, kinds = type_.partition("/")
        path = "/".join(f"{kind}/{name}" for kind, name in zip(kinds.split("/"), names))
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.group}/providers/{provider}/{path}"

    @property
    def vnet(self) -> str:
        """The name of the network that an owner's machines share in this group."""
        return f"dockyard-{digest(self.owner)}-vnet"


def digest(text: str) -> str:
    """A short name for an owner, who may be called anything."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def own_group(owner: str, location: str) -> str:
    """The resource group of an owner's machines in a location."""
    return f"dockyard-{digest(owner)}-{location}"


def split_id(identifier: str) -> dict[str, str]:
    """``{"resourcegroups": GROUP, "virtualmachines": NAME ...}``, keys in lower case, of a resource's id."""
    parts = identifier.strip("/").split("/")
    return {key.lower(): value for key, value in zip(parts[::2], parts[1::2])}


def name_in(identifier: str) -> str:
    """The last segment of an id."""
    return identifier.rstrip("/").rpartition("/")[2]


# --- tags ---------------------------------------------------------------------------------------------------------


def our_tags(resource: Resource) -> tuple[str, str]:
    """Name and owner that a resource's tags tell; empty where it carries none of our marks."""
    tags = resource.get("tags") or {}
    return str(tags.get(MARK, "")), str(tags.get(f"{MARK}-owner", ""))


def check_tags(tags: t.Mapping[str, str]) -> None:
    """Refuse what Azure would.

    Raises:
        MachineError: ``invalid_option``.
    """
    for key, value in tags.items():
        if not 0 < len(key) <= 512 or len(value) > 256 or re.search(r"[<>%&\\?/]", key):
            hint = "A name has up to 512 characters without <>%&\\?/, a value up to 256"
            raise invalid("tags", f"{key[:60]!r} cannot be a tag at Azure", hint)
        if key.lower() in _SYSTEM or re.match(r"(?i)microsoft|azure|windows", key):
            raise invalid("tags", f"The tag {key!r} is reserved", "Choose another name")
    if len({key.lower() for key in tags}) < len(tags):
        raise invalid("tags", "Two tags differ only in case", "Azure takes them for the same: leave one out")
    if len(tags) + len(_SYSTEM) > MAX_TAGS:
        raise invalid("tags", f"{len(tags)} tags are too many", f"Azure takes {MAX_TAGS}, {len(_SYSTEM)} of which are ours")


def machine_tags(wanted: Wanted, token: str) -> dict[str, str]:
    """Tags of everything that belongs to one machine."""
    return {**wanted.tags, **marks(wanted.name, wanted.owner, token)}


def vm_tags(wanted: Wanted, token: str, *, protect: bool, image: str) -> dict[str, str]:
    """Tags of the virtual machine."""
    tags = machine_tags(wanted, token)
    if 0 < len(image) <= 256:
        tags[IMAGE] = image
    return {**tags, PROTECTED: "true"} if protect else tags


# --- bodies -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Plan:
    """What was looked up for a new machine."""

    location: str
    image: Resource
    """``imageReference``"""
    plan: Resource
    """``plan`` of a marketplace image that has one."""
    trusted: bool
    subnet: str
    """Its id; that of our own network when ``own_network``."""
    own_network: bool
    security_group: str
    """The id of the user's; empty for one of our own."""
    availability_set: str


def rule(name: str, priority: int, **more: t.Any) -> Resource:
    """One security rule."""
    base = {"priority": priority, "direction": "Inbound", "sourcePortRange": "*", "destinationAddressPrefix": "*"}
    return {"name": name, "properties": {**base, **more}}


def rules(cidrs: t.Sequence[str], ports: t.Sequence[Port]) -> list[Resource]:
    """Rules for a set of permissions: one for each protocol and IP version, and nothing else, from neighbours neither."""
    found: list[Resource] = []
    for version, sources in (("4", [cidr for cidr in cidrs if ":" not in cidr]), ("6", [cidr for cidr in cidrs if ":" in cidr])):
        for protocol in ("tcp", "udp"):
            ranges = [str(port).partition("/")[0] for port in ports if port.protocol == protocol]
            if sources and ranges:
                more = {
                    "access": "Allow",
                    "protocol": protocol.capitalize(),
                    "sourceAddressPrefixes": sources,
                    "destinationPortRanges": ranges,
                }
                found.append(rule(f"dockyard-{protocol}-ipv{version}", 1000 + 10 * len(found), **more))
    deny = {"access": "Deny", "protocol": "*", "sourceAddressPrefix": "VirtualNetwork", "destinationPortRange": "*"}
    return [*found, rule("dockyard-deny-neighbours", 4096, **deny)]


def rule_notes(listed: t.Iterable[Resource]) -> list[str]:
    """Rules in a form that can be compared and shown."""
    notes = []
    for item in listed:
        found = item.get("properties", {})
        sources = sorted(found.get("sourceAddressPrefixes") or [found.get("sourceAddressPrefix", "*")])
        ranges = sorted(found.get("destinationPortRanges") or [found.get("destinationPortRange", "*")])
        access = str(found.get("access", "")).lower()
        protocol = str(found.get("protocol", "")).lower()
        notes.append(f"{found.get('priority')} {access} {protocol} {','.join(ranges)} from {','.join(sources)}")
    return sorted(notes)


def security_group_body(location: str, tags: dict[str, str], listed: list[Resource]) -> Resource:
    """``NetworkSecurityGroup``"""
    return {"location": location, "tags": tags, "properties": {"securityRules": listed}}


def ipv6_prefix(owner: str) -> str:
    """An unique local range (RFC 4193) for an owner's network, /48 as far as ``::``."""
    name = digest(owner)
    return f"fd{name[:2]}:{name[2:6]}:{name[6:10]}::"


def network_body(place: Place, location: str, prefix: str) -> Resource:
    """``VirtualNetwork`` with one subnet, for both IP versions: a machine that wants IPv6 may come later."""
    ranges = [prefix, f"{ipv6_prefix(place.owner)}/64"]
    subnet = {"name": SUBNET, "properties": {"addressPrefixes": ranges}}
    space = {"addressPrefixes": [prefix, f"{ipv6_prefix(place.owner)}/48"]}
    return {"location": location, "tags": marks("", place.owner, ""), "properties": {"addressSpace": space, "subnets": [subnet]}}


SUBNET: t.Final = "machines"


def address_body(location: str, tags: dict[str, str], *, version: str, zone: str, dns: str) -> Resource:
    """``PublicIPAddress``, of the one kind that Azure still sells: standard and static."""
    properties: Resource = {"publicIPAllocationMethod": "Static", "publicIPAddressVersion": version, "idleTimeoutInMinutes": 4}
    if dns:
        properties["dnsSettings"] = {"domainNameLabel": dns}
    body = {"location": location, "tags": tags, "sku": {"name": "Standard", "tier": "Regional"}, "properties": properties}
    return {**body, "zones": [zone]} if zone else body


def interface_body(place: Place, plan: Plan, tags: dict[str, str], opts: t.Mapping[str, t.Any], *, group: str) -> Resource:
    """``NetworkInterface``"""

    def configuration(version: str, kind: Kind, fixed: str) -> Resource:
        properties: Resource = {
            "primary": version == "IPv4",
            "privateIPAddressVersion": version,
            "privateIPAllocationMethod": "Static" if fixed else "Dynamic",
            "subnet": {"id": plan.subnet},
        }
        if fixed:
            properties["privateIPAddress"] = fixed
        if not opts["private_address_only"]:
            properties["publicIPAddress"] = {"id": place.id(kind.type, place.named(kind))}
        return {"name": version.lower(), "properties": properties}

    listed = [configuration("IPv4", IP, str(opts["private_ip_address"]))]
    if opts["ipv6"]:
        listed.append(configuration("IPv6", IP6, ""))
    return {"location": plan.location, "tags": tags, "properties": {"ipConfigurations": listed, "networkSecurityGroup": {"id": group}}}


def _disk_body(place: Place, opts: t.Mapping[str, t.Any]) -> Resource:
    managed: Resource = {"storageAccountType": opts["storage_type"]}
    if opts["disk_encryption_set"]:
        managed["diskEncryptionSet"] = {"id": opts["disk_encryption_set"]}
    disk: Resource = {
        "name": place.named(DISK),
        "createOption": "FromImage",
        "deleteOption": "Delete",
        "caching": "ReadWrite",
        "managedDisk": managed,
    }
    return {**disk, "diskSizeGB": opts["disk_size"]} if opts["disk_size"] else disk


def _system_body(wanted: Wanted) -> Resource:
    key = {"path": f"/home/{wanted.ssh_user}/.ssh/authorized_keys", "keyData": wanted.ssh_public_key}
    linux = {"disablePasswordAuthentication": True, "provisionVMAgent": True, "ssh": {"publicKeys": [key]}}
    system: Resource = {"computerName": wanted.name, "adminUsername": wanted.ssh_user, "linuxConfiguration": linux}
    if wanted.user_data:
        system["customData"] = base64.b64encode(wanted.user_data.encode()).decode()
    return system


def vm_body(wanted: Wanted, opts: t.Mapping[str, t.Any], place: Place, plan: Plan, *, spot: bool) -> Resource:
    """``VirtualMachine``"""
    nic = {"id": place.id(NIC.type, place.named(NIC)), "properties": {"primary": True, "deleteOption": "Delete"}}
    properties: Resource = {
        "hardwareProfile": {"vmSize": opts["size"]},
        "storageProfile": {"imageReference": plan.image, "osDisk": _disk_body(place, opts)},
        "osProfile": _system_body(wanted),
        "networkProfile": {"networkInterfaces": [nic]},
        "diagnosticsProfile": {"bootDiagnostics": {"enabled": True}},
    }
    security: Resource = {}
    if plan.trusted:
        security = {"securityType": "TrustedLaunch", "uefiSettings": {"secureBootEnabled": True, "vTpmEnabled": True}}
    if opts["encryption_at_host"]:
        security["encryptionAtHost"] = True
    if security:
        properties["securityProfile"] = security
    if plan.availability_set:
        properties["availabilitySet"] = {"id": plan.availability_set}
    if spot:
        price = {"maxPrice": opts["spot_max_price"]}
        properties.update({"priority": "Spot", "evictionPolicy": "Deallocate", "billingProfile": price})
    tags = vm_tags(wanted, wanted.token, protect=bool(opts["delete_protection"]), image=str(opts["image"]))
    body: Resource = {"location": plan.location, "tags": tags, "properties": properties}
    if plan.plan:
        body["plan"] = plan.plan
    return {**body, "zones": [opts["zone"]]} if opts["zone"] else body


# --- reading ------------------------------------------------------------------------------------------------------

_POWER: t.Final = {
    "starting": State.STARTING,
    "running": State.RUNNING,
    "stopping": State.STOPPING,
    "stopped": State.STOPPED,
    "deallocating": State.STOPPING,
    "deallocated": State.STOPPED,
}


def _statuses(vm: Resource) -> list[Resource]:
    view = vm.get("properties", {}).get("instanceView") or {}
    return [item for item in view.get("statuses") or [] if isinstance(item, dict)]


def state_of(vm: Resource) -> tuple[str, bool]:
    """The machine's state, and whether its creation came to its end."""
    progress = str(vm.get("properties", {}).get("provisioningState", ""))
    power = next((name_in(str(item["code"])) for item in _statuses(vm) if str(item.get("code", "")).startswith("PowerState/")), "")
    if progress == "Deleting":
        # Whoever wants it has to wait until it is gone, and make another one.
        return State.STOPPING, False
    if progress == "Creating":
        return State.STARTING, True
    if not power:
        return (State.ERROR, False) if progress in ("Failed", "Canceled") else (State.UNKNOWN, True)
    return _POWER.get(power, State.UNKNOWN), True


def _fault(vm: Resource) -> str:
    """Why Azure calls it failed."""
    if vm.get("properties", {}).get("provisioningState") != "Failed":
        return ""
    failed = [item for item in _statuses(vm) if str(item.get("code", "")).startswith("ProvisioningState/failed")]
    return " ".join(str(failed[0].get("message") or failed[0].get("displayStatus") or failed[0]["code"]).split()) if failed else ""


def nic_ids(vm: Resource) -> list[str]:
    """Ids of the machine's network interfaces, the primary one first."""
    listed = vm.get("properties", {}).get("networkProfile", {}).get("networkInterfaces") or []
    listed = sorted(listed, key=lambda item: not item.get("properties", {}).get("primary"))
    return [str(item["id"]) for item in listed]


def configurations(nic: Resource) -> list[Resource]:
    """The properties of a network interface's IP configurations."""
    return [item.get("properties", {}) for item in nic.get("properties", {}).get("ipConfigurations") or []]


def address_ids(nic: Resource) -> list[str]:
    """Ids of its public addresses."""
    return [str(item["publicIPAddress"]["id"]) for item in configurations(nic) if item.get("publicIPAddress")]


def _details(vm: Resource, nic: Resource, public: t.Sequence[Resource]) -> dict[str, t.Any]:
    properties, parts = vm.get("properties", {}), split_id(str(vm.get("id", "")))
    disk = properties.get("storageProfile", {}).get("osDisk", {})
    tags = vm.get("tags") or {}
    group = nic.get("properties", {}).get("networkSecurityGroup") or {}
    subnets = [item["subnet"]["id"] for item in configurations(nic) if item.get("subnet")]
    return {
        "subscription": parts.get("subscriptions", ""),
        "resource_group": parts.get("resourcegroups", ""),
        "location": str(vm.get("location", "")),
        "zone": (vm.get("zones") or [""])[0],
        "size": properties.get("hardwareProfile", {}).get("vmSize", ""),
        "image": tags.get(IMAGE, ""),
        "disk": disk.get("name", ""),
        "disk_size": int(disk.get("diskSizeGB") or 0),
        "spot": properties.get("priority") == "Spot",
        "availability_set": name_in(str((properties.get("availabilitySet") or {}).get("id", ""))),
        "security_type": str((properties.get("securityProfile") or {}).get("securityType", "Standard")),
        "delete_protection": tags.get(PROTECTED) == "true",
        "network_interface": str(nic.get("id", "")),
        "public_addresses": [str(item.get("id", "")) for item in public],
        "security_group": str(group.get("id", "")),
        "subnet": str(subnets[0]) if subnets else "",
        "fault": _fault(vm),
    }


def to_machine(vm: Resource, nic: Resource, public: t.Sequence[Resource], opts: t.Mapping[str, t.Any], wanted: Wanted) -> Machine:
    """The machine that a virtual machine, its network interface and its public addresses are."""
    tags = {str(key): str(value) for key, value in (vm.get("tags") or {}).items()}
    state, complete = state_of(vm)
    numbers = {str(item.get("properties", {}).get("ipAddress") or ""): item.get("properties", {}) for item in public}
    outside = sorted((number for number in numbers if number), key=lambda number: ":" in number)
    inside = [str(item["privateIPAddress"]) for item in configurations(nic) if item.get("privateIPAddress")]
    private = next((number for number in inside if ":" not in number), "")
    sixes = [number for number in [*outside, *inside] if ":" in number]
    public4 = next((number for number in outside if ":" not in number), "")
    names = [str(item["dnsSettings"]["fqdn"]) for item in numbers.values() if (item.get("dnsSettings") or {}).get("fqdn")]
    user = str(vm.get("properties", {}).get("osProfile", {}).get("adminUsername") or wanted.ssh_user)
    return Machine(
        name=tags.get(MARK, "") or str(vm.get("name", "")),
        driver="azure",
        id=str(vm.get("properties", {}).get("vmId", "")),
        state=state,
        address=private if opts["use_private_ip"] or not public4 else public4,
        private_address=private,
        ipv6_address=sixes[0] if sixes else "",
        dns_names=names,
        ssh_user=user,
        engine_port=wanted.engine_port,
        owner=tags.get(f"{MARK}-owner", ""),
        token=tags.get(f"{MARK}-token", ""),
        tags={key: value for key, value in tags.items() if key not in _SYSTEM},
        complete=complete,
        details=_details(vm, nic, public),
    )
