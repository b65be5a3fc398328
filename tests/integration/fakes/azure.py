# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Azure Resource Manager, as far as the driver ``azure`` uses it: stateful, and behind the models of Microsoft's SDK.

A request body that the models do not allow is refused (400), and so is one that refers to something that doesn't exist. An
answer that they do not allow is a bug of this fake and stands in ``violations``. What takes its time answers with the
headers ``Azure-AsyncOperation``, ``Location`` and ``Retry-After``, and shows ``provisioningState`` meanwhile.

Extra faults: ``quota``, ``capacity`` (``data={"spot": true}``: only of spot machines; ``data={"code": "SkuNotAvailable"}``:
refused at once) and ``operation_error`` make a virtual machine fail; ``busy`` refuses a write once. Orders of the control
API: ``delete_outside`` and ``change_address`` (``name``), ``foreign`` (``id``, ``tags``): somebody else's resource, ``edit``
(``id``, ``properties``).
"""

from __future__ import annotations

import base64
import dataclasses
import ipaddress
import pathlib
import re
import sys
import time
import typing as t
import uuid

if __package__ in (None, ""):
    # In place of this folder, where this very file would hide the SDK's package.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)

from fakes import azure_schema as schema
from fakes.core import Fake, Refusal, Request, Response, Shelf, main

SUBSCRIPTION: t.Final = "00000000-0000-4000-8000-000000000001"
ROOT: t.Final = f"/subscriptions/{SUBSCRIPTION}"
ZONES: t.Final = {"westus": [], "westeurope": ["1", "2", "3"]}
# (name, architecture, generations, has trusted launch, can be spot)
SIZES: t.Final = (
    ("Standard_B2s", "x64", "V1,V2", True, True),
    ("Standard_D2s_v5", "x64", "V1,V2", True, True),
    ("Standard_D2ps_v5", "Arm64", "V2", False, True),
    ("Standard_A2_v2", "x64", "V1", False, False),
    ("Standard_M416ms_v2", "x64", "V1,V2", True, False),
)
RESTRICTED: t.Final = "Standard_M416ms_v2"
# (publisher, offer, SKU, architecture, generation, trusted launch, plan)
IMAGES: t.Final = (
    ("Debian", "debian-12", "12", "x64", "V1", False, ""),
    ("Debian", "debian-12", "12-gen2", "x64", "V2", True, ""),
    ("Debian", "debian-12", "12-arm64", "Arm64", "V2", False, ""),
    ("Debian", "debian-13", "13-gen2", "x64", "V2", True, ""),
    ("Canonical", "ubuntu-24_04-lts", "server", "x64", "V2", True, ""),
    ("Canonical", "ubuntu-24_04-lts", "server-arm64", "Arm64", "V2", False, ""),
    ("vendor", "appliance", "standard", "x64", "V2", False, "gold"),
)
VERSIONS: t.Final = ("12.20260901.1", "12.20261101.2")
TYPES: t.Final = {
    "microsoft.compute/virtualmachines": "Microsoft.Compute/virtualMachines",
    "microsoft.compute/disks": "Microsoft.Compute/disks",
    "microsoft.compute/availabilitysets": "Microsoft.Compute/availabilitySets",
    "microsoft.network/virtualnetworks": "Microsoft.Network/virtualNetworks",
    "microsoft.network/virtualnetworks/subnets": "Microsoft.Network/virtualNetworks/subnets",
    "microsoft.network/networksecuritygroups": "Microsoft.Network/networkSecurityGroups",
    "microsoft.network/publicipaddresses": "Microsoft.Network/publicIPAddresses",
    "microsoft.network/networkinterfaces": "Microsoft.Network/networkInterfaces",
}
VM, DISK, NIC, IP, NSG, VNET = (
    "microsoft.compute/virtualmachines",
    "microsoft.compute/disks",
    "microsoft.network/networkinterfaces",
    "microsoft.network/publicipaddresses",
    "microsoft.network/networksecuritygroups",
    "microsoft.network/virtualnetworks",
)
VERBS: t.Final = {"start": "running", "poweroff": "stopped", "deallocate": "deallocated", "restart": "running"}
PASSING: t.Final = {"start": "starting", "poweroff": "stopping", "deallocate": "deallocating", "restart": "running"}

Resource = dict[str, t.Any]


@dataclasses.dataclass
class Running:
    """An operation, and what happens when it is done."""

    due: float
    then: t.Callable[[], None] | None
    error: tuple[str, str] | None = None
    done: bool = False


@dataclasses.dataclass
class Target:
    """What a path names."""

    key: str
    """The path of a resource in lower case, without an action."""
    path: str
    group: str = ""
    type: str = ""
    name: str = ""
    action: str = ""
    listing: bool = False


def target_of(path: str) -> Target:
    """Read a path such as ``/subscriptions/S/resourceGroups/G/providers/P/TYPE/NAME[/TYPE/NAME | /ACTION]``."""
    path = path.rstrip("/")
    key = path.lower()
    match = re.fullmatch(r"/subscriptions/[^/]+(?:/resourcegroups/(?P<group>[^/]+))?(?:/providers/(?P<rest>.+))?", key)
    if match is None:
        inside = re.fullmatch(r"/subscriptions/[^/]+/resourcegroups/([^/]+)/resources", key)
        return Target(key, path, inside[1] if inside else "", listing=key.endswith(("/resourcegroups", "/resources")))
    group, rest = match["group"] or "", match["rest"] or ""
    if not rest:
        return Target(key, path, group, "resourcegroups", path.rpartition("/")[2])
    provider, *segments = rest.split("/")
    if len(segments) == 3 and segments[0] == "virtualmachines":
        base = path.rpartition("/")[0]
        return Target(base.lower(), base, group, f"{provider}/{segments[0]}", base.rpartition("/")[2], segments[2])
    kind = "/".join([provider, *segments[::2]])
    return Target(key, path, group, kind, path.rpartition("/")[2], listing=len(segments) % 2 == 1)


def last(path: str) -> str:
    """The last segment."""
    return path.rpartition("/")[2]


class Azure(Fake):
    """A subscription at Azure."""

    page = 4
    """Items on a page of a list: few, so that every list of a test has several."""

    def __init__(self, operation_seconds: float = 0.05) -> None:
        self.operation_seconds = operation_seconds
        self.retry_after = 0
        super().__init__()

    def reset(self) -> None:
        """Forget all state; what users brought is there from the start."""
        super().reset()
        self.things: Shelf[Resource] = Shelf(self)
        self.operations: dict[str, Running] = {}
        self.secrets: dict[str, Resource] = {}
        self.violations: list[str] = []
        self.retry_after = 0
        self._number = getattr(self, "_number", 0)
        group = f"{ROOT}/resourceGroups/office"
        self._seed(group, {"location": "westus"})
        vnet = f"{group}/providers/Microsoft.Network/virtualNetworks/lan"
        subnets = [self._subnet(vnet, "docker-machine", ["10.1.0.0/24"]), self._subnet(vnet, "dual", ["10.1.1.0/24", "fd00:1::/64"])]
        properties = {"addressSpace": {"addressPrefixes": ["10.1.0.0/16", "fd00:1::/48"]}, "subnets": subnets}
        self._seed(vnet, {"location": "westus", "properties": properties})
        nsg = f"{group}/providers/Microsoft.Network/networkSecurityGroups/strict"
        self._seed(nsg, {"location": "westus", "properties": {"securityRules": []}})
        self._seed(f"{group}/providers/Microsoft.Compute/availabilitySets/together", {"location": "westus", "properties": {}})

    def _seed(self, path: str, body: Resource) -> None:
        target = target_of(path)
        kind = TYPES.get(target.type, "Microsoft.Resources/resourceGroups")
        properties = {**body.get("properties", {}), **({} if target.type.endswith("sets") else {"provisioningState": "Succeeded"})}
        self.things.put(target.key, {**body, "id": path, "name": target.name, "type": kind, "properties": properties})

    @staticmethod
    def _subnet(vnet: str, name: str, prefixes: list[str]) -> Resource:
        return {"id": f"{vnet}/subnets/{name}", "name": name, "properties": {"addressPrefixes": prefixes, "provisioningState": "Succeeded"}}

    # --- the way in and out ------------------------------------------------------------------------------------

    def error(self, status: int, code: str, message: str) -> t.Any:
        """See Fake."""
        code = {"too_many_requests": "TooManyRequests", "server_error": "InternalServerError"}.get(code, code)
        return {"error": {"code": code, "message": message}}

    def operation(self, request: Request) -> str:
        """Type and verb, such as ``virtualMachines.put`` or ``virtualMachines.start``."""
        if re.search(r"/operation(result)?s/", request.path):
            return "operations.get"
        target = target_of(request.path)
        kind = last(TYPES.get(target.type, target.type)) or last(request.path)
        return f"{kind}.{target.action or ('list' if target.listing else request.method.lower())}"

    def respond(self, request: Request) -> Response:
        """Answer one call."""
        if not re.fullmatch(r"\d{4}-\d\d-\d\d(-preview)?", request.first("api-version")):
            raise Refusal(
                400, "MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required for all requests."
            )
        if not request.path.lower().startswith(ROOT + "/"):
            raise Refusal(404, "SubscriptionNotFound", f"The subscription '{request.path.split('/')[2]}' could not be found.")
        self._advance()
        status = re.search(r"/(operations|operationresults)/([\w-]+)$", request.path)
        if status:
            return self._status(request, status[1], status[2])
        if self.is_write(request) and self.take("busy", request.operation):
            raise Refusal(409, "AnotherOperationInProgress", "Another operation on this or dependent resource is in progress.")
        special = self._catalogue(request)
        if special is not None:
            return special
        target = target_of(request.path)
        self._check_group(target)
        if request.method == "POST":
            return self._power(request, target)
        return {"GET": self._get, "PUT": self._put, "PATCH": self._patch, "DELETE": self._delete}[request.method](request, target)

    def _check_group(self, target: Target) -> None:
        if not target.group or target.type == "resourcegroups":
            return
        group = self.things.get(f"{ROOT}/resourcegroups/{target.group}".lower(), fresh=True)
        if group is None:
            raise Refusal(404, "ResourceGroupNotFound", f"Resource group '{target.group}' could not be found.")

    # --- operations --------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        for running in [item for item in self.operations.values() if not item.done and item.due <= time.monotonic()]:
            running.done = True
            if running.then is not None:
                running.then()

    def _begin(
        self,
        then: t.Callable[[], None] | None,
        *,
        error: tuple[str, str] | None = None,
        headers: str = "both",
        provider: str = "Microsoft.Compute",
    ) -> dict[str, str]:
        name = str(uuid.uuid4())
        self.operations[name] = Running(time.monotonic() + self.operation_seconds, then, error)
        base = f"{self.url}{ROOT}/providers/{provider}/locations/westus"
        found = {"Retry-After": str(self.retry_after)}
        if headers in ("both", "async"):
            found["Azure-AsyncOperation"] = f"{base}/operations/{name}?api-version=2024-07-01"
        if headers in ("both", "location"):
            found["Location"] = f"{base}/operationresults/{name}?api-version=2024-07-01"
        return found

    def _status(self, request: Request, kind: str, name: str) -> Response:
        running = self.operations.get(name)
        if running is None:
            raise Refusal(404, "NotFound", "The entity was not found.")
        if kind == "operationresults":
            if running.error and running.done:
                raise Refusal(409, *running.error)
            headers = {"Location": f"{self.url}{request.url}", "Retry-After": str(self.retry_after)}
            return Response(204) if running.done else Response(202, None, headers)
        body: Resource = {"name": name, "status": "InProgress", "startTime": "2026-11-23T12:00:00.000000+00:00"}
        if running.done:
            body["status"] = "Failed" if running.error else "Succeeded"
            if running.error:
                body["error"] = {"code": running.error[0], "message": running.error[1]}
        return Response(200, body, {} if running.done else {"Retry-After": str(self.retry_after)})

    # --- what is there from the start --------------------------------------------------------------------------

    def _catalogue(self, request: Request) -> Response | None:
        path = request.path.lower()
        if path.endswith("/providers/microsoft.compute/skus"):
            match = re.search(r"location eq '(\w+)'", request.first("$filter"))
            location = match[1] if match else ""
            return self._page(request, [self._sku(location, *size) for size in SIZES] if location in ZONES else [], "sku")
        match = re.search(
            r"/locations/([^/]+)/publishers/([^/]+)/artifacttypes/vmimage/offers/([^/]+)/skus/([^/]+)/versions(?:/([^/]+))?$", path
        )
        if match is None:
            return None
        if match[1] not in ZONES:
            raise Refusal(400, "LocationNotAvailableForResourceType", f"The provided location '{match[1]}' is not available.")
        for publisher, offer, sku, architecture, generation, trusted, plan in IMAGES:
            if (publisher.lower(), offer, sku) != match.group(2, 3, 4):
                continue
            if match[5] is None:
                newest_first = "desc" in request.first("$orderby")
                names = sorted(VERSIONS, reverse=newest_first)[: int(request.first("$top", "99"))]
                return Response(200, [{"name": name, "location": match[1], "id": f"{request.path}/{name}"} for name in names])
            if match[5] in VERSIONS:
                return Response(200, self._image(request.path, architecture, generation, trusted, plan))
        raise Refusal(404, "PlatformImageNotFound", f"The platform image '{':'.join(match.group(2, 3, 4))}' is not available.")

    def _sku(self, location: str, name: str, architecture: str, generations: str, trusted: bool, spot: bool) -> Resource:
        can = {"HyperVGenerations": generations, "CpuArchitectureType": architecture, "LowPriorityCapable": str(spot), "vCPUs": "2"}
        if not trusted:
            can["TrustedLaunchDisabled"] = "True"
        found: Resource = {
            "resourceType": "virtualMachines",
            "name": name,
            "locations": [location],
            "locationInfo": [{"location": location, "zones": ZONES[location]}],
            "capabilities": [{"name": key, "value": value} for key, value in can.items()],
            "restrictions": [],
        }
        if name == RESTRICTED:
            info = {"locations": [location]}
            found["restrictions"] = [
                {"type": "Location", "values": [location], "restrictionInfo": info, "reasonCode": "NotAvailableForSubscription"}
            ]
        return found

    def _image(self, path: str, architecture: str, generation: str, trusted: bool, plan: str) -> Resource:
        properties: Resource = {
            "architecture": architecture,
            "hyperVGeneration": generation,
            "osDiskImage": {"operatingSystem": "Linux"},
            "features": [{"name": "SecurityType", "value": "TrustedLaunchSupported"}] if trusted else [],
        }
        if plan:
            properties["plan"] = {"name": plan, "product": "appliance", "publisher": "vendor"}
        return self._seen("image", {"id": path, "name": last(path), "location": "westus", "properties": properties})

    # --- reading -----------------------------------------------------------------------------------------------

    def _seen(self, kind: str, thing: Resource) -> Resource:
        """A resource as it goes out, checked."""
        model = schema.MODELS.get(kind)
        if model is not None:
            self.violations += schema.wrong(model, thing, kind, answer=True)
        return thing

    def _public(self, kind: str, thing: Resource, *, view: bool = False) -> Resource:
        shown = {key: value for key, value in thing.items() if not key.startswith("_")}
        if kind == VM:
            shown["properties"] = {**shown["properties"], **({"instanceView": self._view(thing)} if view else {})}
        return self._seen(kind, shown)

    @staticmethod
    def _view(thing: Resource) -> Resource:
        state = thing["properties"]["provisioningState"].lower()
        statuses = [{"code": f"ProvisioningState/{state}{thing.get('_fault', '')}", "level": "Info", "displayStatus": state}]
        if thing.get("_message"):
            statuses[0]["message"] = thing["_message"]
        if thing.get("_power"):
            statuses.append({"code": f"PowerState/{thing['_power']}", "level": "Info", "displayStatus": f"VM {thing['_power']}"})
        return {"statuses": statuses}

    def _get(self, request: Request, target: Target) -> Response:
        if target.listing:
            return self._list(request, target)
        if target.type.endswith("/subnets"):
            vnet = self.things.get(target.key.rpartition("/subnets/")[0])
            listed = vnet["properties"]["subnets"] if vnet else []
            found = next((item for item in listed if item["name"].lower() == last(target.key)), None)
        else:
            found = self.things.get(target.key)
        if found is None:
            code = "ResourceGroupNotFound" if target.type == "resourcegroups" else "ResourceNotFound"
            raise Refusal(404, code, f"The Resource '{target.path}' was not found.")
        return Response(200, self._public(target.type, found, view=request.first("$expand") == "instanceView"))

    def _list(self, request: Request, target: Target) -> Response:
        kind, base = target.type, f"{ROOT}/resourcegroups/{target.group}/".lower() if target.group else ROOT.lower()
        every = kind in ("resourcegroups", "") and last(target.key) == "resources"
        if last(target.key) == "resourcegroups":
            kind = "resourcegroups"
        listed = [
            (target_of(key).type, thing)
            for key, thing in self.things.items()
            if key.startswith(base) and (target_of(key).type != "resourcegroups" if every else target_of(key).type == kind)
        ]
        match = re.fullmatch(r"tagName eq '([^']*)' and tagValue eq '([^']*)'", request.first("$filter"))
        if match:
            listed = [item for item in listed if (item[1].get("tags") or {}).get(match[1]) == match[2]]
        if request.first("statusOnly") == "true":
            names = ("id", "name", "type", "location")
            shown = [{**{key: thing[key] for key in names}, "properties": {"instanceView": self._view(thing)}} for dummy, thing in listed]
            return self._page(request, shown, VM)
        if every:
            names = ("id", "name", "type", "location", "tags")
            return self._page(request, [{key: thing[key] for key in names if key in thing} for dummy, thing in listed], "")
        return self._page(request, [self._public(found, thing) for found, thing in listed], kind)

    def _page(self, request: Request, listed: list[Resource], kind: str) -> Response:
        start = int(request.first("$skiptoken", "0"))
        body: Resource = {"value": [self._seen(kind, item) for item in listed[start : start + self.page]]}
        if start + self.page < len(listed):
            rest = re.sub(r"[&?]%24skiptoken=\d+|[&?]\$skiptoken=\d+", "", request.url)
            body["nextLink"] = f"{self.url}{rest}&%24skiptoken={start + self.page}"
        return Response(200, body)

    # --- making ------------------------------------------------------------------------------------------------

    def _put(self, request: Request, target: Target) -> Response:
        body = request.json()
        if target.type not in schema.MODELS or target.listing:
            raise Refusal(404, "InvalidResourceType", f"The resource type could not be found: {target.path}")
        found = schema.wrong(schema.MODELS[target.type], body)
        if found:
            raise Refusal(400, "InvalidRequestContent", f"The request content was invalid: {'; '.join(found)}.")
        if body.get("location", "").lower() not in ZONES:
            kind = "ResourceGroup" if target.type == "resourcegroups" else "ResourceType"
            raise Refusal(400, f"LocationNotAvailableFor{kind}", f"The provided location '{body.get('location')}' is not available.")
        old = self.things.get(target.key, fresh=True)
        group = self.things.get(f"{ROOT}/resourcegroups/{target.group}".lower(), fresh=True)
        if group is not None and group["properties"]["provisioningState"] == "Deleting":
            raise Refusal(409, "ResourceGroupBeingDeleted", f"The resource group '{target.group}' is in deprovisioning state.")
        new: Resource = {
            **body,
            "id": target.path,
            "name": target.name,
            "type": TYPES.get(target.type, "Microsoft.Resources/resourceGroups"),
        }
        new["properties"] = {**body.get("properties", {}), "provisioningState": "Succeeded"}
        if target.type == "resourcegroups":
            self.things.put(target.key, new)
            return Response(200 if old else 201, self._public(target.type, new))
        if target.type == VM:
            return self._put_vm(request, target, new, old)
        {NIC: self._check_nic, IP: self._check_ip, VNET: self._check_vnet, NSG: self._check_nsg}[target.type](target, new, old)
        new["properties"]["provisioningState"] = "Updating"
        self.things.put(target.key, new)
        headers = self._begin(lambda: self._finish(target.key), headers="async", provider="Microsoft.Network")
        return Response(200 if old else 201, self._public(target.type, new), headers)

    def _finish(self, key: str, **changes: t.Any) -> None:
        thing = self.things.get(key, fresh=True)
        if thing is not None:
            thing["properties"]["provisioningState"] = changes.pop("state", "Succeeded")
            self.things.put(key, {**thing, **changes})

    def _need(self, path: str, target: Target) -> Resource:
        found = self.things.get(path.lower().partition("/subnets/")[0], fresh=True)
        if "/subnets/" in path and found is not None:
            found = next((item for item in found["properties"]["subnets"] if item["id"].lower() == path.lower()), None)
        if found is None:
            what = (
                f"Resource {path} referenced by resource {target.path} was not found. Please make sure that the referenced resource exists."
            )
            raise Refusal(400, "InvalidResourceReference", what)
        return found

    def _id(self) -> int:
        self._number += 1
        return self._number

    def _check_vnet(self, target: Target, new: Resource, old: Resource | None) -> None:
        subnets = new["properties"].get("subnets", [])
        space = [ipaddress.ip_network(item) for item in new["properties"]["addressSpace"]["addressPrefixes"]]
        for subnet in subnets:
            for prefix in subnet["properties"]["addressPrefixes"]:
                network: t.Any = ipaddress.ip_network(prefix)
                if network.version == 6 and network.prefixlen != 64:
                    raise Refusal(400, "NetcfgInvalidSubnet", f"Subnet '{subnet['name']}' is not valid: IPv6 subnets are /64.")
                if not any(network.version == item.version and network.subnet_of(item) for item in space):
                    raise Refusal(400, "NetcfgInvalidSubnet", f"Subnet '{subnet['name']}' is not valid in virtual network '{target.name}'.")
        new["properties"]["subnets"] = [self._subnet(target.path, item["name"], item["properties"]["addressPrefixes"]) for item in subnets]

    def _check_nsg(self, target: Target, new: Resource, old: Resource | None) -> None:
        seen: set[int] = set()
        for item in new["properties"].get("securityRules", []):
            found = item["properties"]
            if not 100 <= found["priority"] <= 4096 or found["priority"] in seen:
                raise Refusal(400, "SecurityRuleConflict", f"Security rule {item['name']} has an invalid priority.")
            seen.add(found["priority"])
            sources = found.get("sourceAddressPrefixes", [])
            if len({":" in source for source in sources}) > 1:
                raise Refusal(400, "SecurityRuleMixedAddressFamilies", f"Security rule {item['name']} mixes IPv4 and IPv6.")
            if not (sources or "sourceAddressPrefix" in found) or "sourcePortRange" not in found:
                raise Refusal(400, "SecurityRuleInvalidAddressPrefix", f"Security rule {item['name']} has no source.")
            item["id"] = f"{target.path}/securityRules/{item['name']}"
            found["provisioningState"] = "Succeeded"

    def _check_ip(self, target: Target, new: Resource, old: Resource | None) -> None:
        found = new["properties"]
        if new.get("sku", {}).get("name") != "Standard" or found.get("publicIPAllocationMethod") != "Static":
            raise Refusal(400, "PublicIPAddressSkuNotSupported", "Only standard public addresses with static allocation can be made.")
        self._check_zones(target, new)
        label = found.get("dnsSettings", {}).get("domainNameLabel")
        if label:
            found["dnsSettings"]["fqdn"] = f"{label}.{new['location']}.cloudapp.azure.com"
        address = (old or {}).get("properties", {}).get("ipAddress")
        found["ipAddress"] = address or self._address(found.get("publicIPAddressVersion", "IPv4"))

    @staticmethod
    def _check_zones(target: Target, new: Resource) -> None:
        for zone in new.get("zones", []):
            if zone not in ZONES[new["location"]]:
                raise Refusal(400, "AvailabilityZoneNotSupported", f"The zone(s) '{zone}' for resource '{target.path}' is not supported.")

    def _address(self, version: str) -> str:
        number = self._id()
        return f"2001:db8::{number:x}" if version == "IPv6" else f"203.0.113.{number % 250 + 1}"

    def _check_nic(self, target: Target, new: Resource, old: Resource | None) -> None:
        found = new["properties"]
        if "networkSecurityGroup" in found:
            self._need(found["networkSecurityGroup"]["id"], target)
        for item in found["ipConfigurations"]:
            properties = item["properties"]
            prefixes = self._need(properties["subnet"]["id"], target)["properties"]["addressPrefixes"]
            version = properties.get("privateIPAddressVersion", "IPv4")
            network = next((ipaddress.ip_network(prefix) for prefix in prefixes if (":" in prefix) == (version == "IPv6")), None)
            if network is None:
                raise Refusal(400, "SubnetHasNoIPv6Prefix", f"The subnet has no {version} range.")
            if "publicIPAddress" in properties:
                public = self._need(properties["publicIPAddress"]["id"], target)
                if public["properties"].get("publicIPAddressVersion", "IPv4") != version:
                    raise Refusal(400, "PublicIPAddressVersionMismatch", "The address has another version than its configuration.")
            item["id"] = f"{target.path}/ipConfigurations/{item['name']}"
            given = properties.get("privateIPAddress")
            if given and ipaddress.ip_address(given) not in network:
                raise Refusal(400, "PrivateIPAddressNotInSubnet", f"Private static IP address {given} does not belong to the subnet.")
            old_items = (old or {}).get("properties", {}).get("ipConfigurations", [])
            kept = next((entry["properties"]["privateIPAddress"] for entry in old_items if entry["name"] == item["name"]), None)
            properties["privateIPAddress"] = given or kept or str(network[4 + self._id() % 200])
        if old and "virtualMachine" in old["properties"]:
            found["virtualMachine"] = old["properties"]["virtualMachine"]

    # --- virtual machines --------------------------------------------------------------------------------------

    def _put_vm(self, request: Request, target: Target, new: Resource, old: Resource | None) -> Response:
        if old is not None:
            if request.headers.get("If-None-Match") == "*":
                raise Refusal(412, "PreconditionFailed", "The precondition given in one of the request headers evaluated to false.")
            raise Refusal(409, "PropertyChangeNotAllowed", "Changing property 'osProfile' is not allowed.")
        self._check_vm(target, new)
        properties = new["properties"]
        spot = properties.get("priority") == "Spot"
        self._limits(request, spot)
        # ARM never shows these again.
        self.secrets[target.key] = {"customData": properties["osProfile"].pop("customData", "")}
        disk = properties["storageProfile"]["osDisk"]
        path = f"{target.path.rpartition('/providers/')[0]}/providers/Microsoft.Compute/disks/{disk['name']}"
        if self.things.get(path.lower(), fresh=True) is not None:
            raise Refusal(409, "Conflict", f"Disk {disk['name']} already exists in resource group {target.group}.")
        if disk.setdefault("diskSizeGB", 30) < 30:
            what = f"The specified disk size {disk['diskSizeGB']} GB is smaller than that of the disk in the VM image: 30 GB."
            raise Refusal(400, "ResizeDiskError", what)
        disk["managedDisk"]["id"] = path
        disk["osType"] = "Linux"
        properties.update({"vmId": str(uuid.uuid4()), "provisioningState": "Creating"})
        failure = self._failure(spot)
        self.things.put(target.key, new)
        if failure is None:
            size = {"diskSizeGB": disk["diskSizeGB"], "creationData": {"createOption": "FromImage"}, "diskState": "Attached"}
            self._seed(path, {"location": new["location"], "tags": new.get("tags", {}), "managedBy": target.path, "properties": size})
            self.things.put(target.key, {**new, "_power": "running"})
        for item in properties["networkProfile"]["networkInterfaces"]:
            nic = self._need(item["id"], target)
            nic["properties"]["virtualMachine"] = {"id": target.path}
            self.things.put(item["id"].lower(), nic)

        def then() -> None:
            if failure:
                self._finish(target.key, state="Failed", _fault=f"/{failure[0]}", _message=failure[1])
            else:
                self._finish(target.key)

        return Response(201, self._public(VM, new), self._begin(then, error=failure, headers="async"))

    def _limits(self, request: Request, spot: bool) -> None:
        """What refuses a machine at once."""
        if self.take("quota", request.operation):
            text = "Operation could not be completed as it results in exceeding approved Total Regional Cores quota. Current Limit: 10."
            raise Refusal(409, "OperationNotAllowed", text)
        for fault in [item for item in self.faults if item.kind == "capacity" and item.data.get("code") == "SkuNotAvailable"]:
            if (not fault.data.get("spot") or spot) and self.take("capacity", request.operation):
                raise Refusal(409, "SkuNotAvailable", "The requested VM size is currently not available in location 'westus'.")

    def _failure(self, spot: bool) -> tuple[str, str] | None:
        """What an accepted machine ends in."""
        for fault in [item for item in self.faults if item.kind == "capacity"]:
            if (not fault.data.get("spot") or spot) and self.take("capacity", "virtualMachines.put"):
                return "AllocationFailed", "Allocation failed. We do not have sufficient capacity for the requested VM size in this region."
        if self.take("operation_error", "virtualMachines.put"):
            return "VMStartTimedOut", "VM did not start in the allotted time. The VM may still start successfully."
        return None

    def _check_vm(self, target: Target, new: Resource) -> None:
        found = new["properties"]
        size = next((item for item in SIZES if item[0].lower() == found["hardwareProfile"]["vmSize"].lower()), None)
        if size is None:
            raise Refusal(400, "InvalidParameter", f"The value {found['hardwareProfile']['vmSize']} provided for the VM size is not valid.")
        self._check_image(new, size)
        self._check_zones(target, new)
        self._check_system(found["osProfile"])
        for item in found["networkProfile"]["networkInterfaces"]:
            owner = self._need(item["id"], target)["properties"].get("virtualMachine")
            if owner and owner["id"].lower() != target.key:
                raise Refusal(409, "NicInUse", f"Network Interface {item['id']} is used by existing resource {owner['id']}.")

    @staticmethod
    def _check_image(new: Resource, size: tuple[str, str, str, bool, bool]) -> None:
        found = new["properties"]
        image = found["storageProfile"]["imageReference"]
        if "id" not in image:
            names = (image["publisher"], image["offer"], image["sku"])
            known = next((item for item in IMAGES if item[:3] == names), None)
            if known is None:
                raise Refusal(404, "PlatformImageNotFound", f"The platform image '{':'.join(names)}' is not available.")
            if known[3] != size[1] or known[4] not in size[2]:
                raise Refusal(400, "BadRequest", f"The selected VM size '{size[0]}' cannot boot Hypervisor Generation '{known[4]}'.")
            if bool(known[6]) != ("plan" in new):
                raise Refusal(
                    400, "VMMarketplaceInvalidInput", "Creating a virtual machine from Marketplace image requires Plan information."
                )
            if found.get("securityProfile", {}).get("securityType") == "TrustedLaunch" and not (known[5] and size[3]):
                raise Refusal(400, "BadRequest", "Use of TrustedLaunch setting is not supported for the provided image or size.")

    @staticmethod
    def _check_system(system: Resource) -> None:
        linux = system["linuxConfiguration"]
        if "adminPassword" in system or not linux["disablePasswordAuthentication"] or not linux["ssh"]["publicKeys"]:
            raise Refusal(400, "InvalidParameter", "This subscription takes SSH keys only.")
        for key in linux["ssh"]["publicKeys"]:
            if key["path"] != f"/home/{system['adminUsername']}/.ssh/authorized_keys" or not key["keyData"].startswith("ssh-"):
                raise Refusal(400, "InvalidParameter", "Destination path for SSH public keys is limited to its default value.")
        if system["adminUsername"] in ("root", "admin"):
            raise Refusal(400, "InvalidParameter", "The Admin Username specified is not allowed.")
        base64.b64decode(system.get("customData", ""), validate=True)

    def _patch(self, request: Request, target: Target) -> Response:
        body, thing = request.json(), self.things.get(target.key, fresh=True)
        if thing is None:
            raise Refusal(404, "ResourceNotFound", f"The Resource '{target.path}' was not found.")
        found = schema.wrong(schema.UPDATES[target.type], body)
        if found:
            raise Refusal(400, "InvalidRequestContent", f"The request content was invalid: {'; '.join(found)}.")
        if "tags" in body:
            thing["tags"] = body["tags"]
        if target.type == DISK and "diskSizeGB" in body.get("properties", {}):
            self._resize(target, thing, body["properties"]["diskSizeGB"])
        if target.type == VM:
            thing["properties"].update({key: value for key, value in body.get("properties", {}).items() if key == "hardwareProfile"})
        self.things.put(target.key, thing)
        if not target.type.startswith("microsoft.compute"):
            return Response(200, self._public(target.type, thing))
        headers = self._begin(None, headers="location" if target.type == DISK else "async")
        return Response(202 if target.type == DISK else 200, self._public(target.type, thing), headers)

    def _resize(self, target: Target, disk: Resource, size: int) -> None:
        machine = self.things.get(str(disk.get("managedBy", "")).lower(), fresh=True)
        if size < disk["properties"]["diskSizeGB"]:
            raise Refusal(400, "InvalidParameter", "Disk size can not be reduced: diskSizeGB.")
        if machine is not None:
            if machine["_power"] != "deallocated":
                raise Refusal(409, "OperationNotAllowed", "Cannot resize disk while it is attached to running VM.")
            machine["properties"]["storageProfile"]["osDisk"]["diskSizeGB"] = size
            self.things.put(str(disk["managedBy"]).lower(), machine)
        disk["properties"]["diskSizeGB"] = size

    def _power(self, request: Request, target: Target) -> Response:
        thing = self.things.get(target.key, fresh=True)
        if thing is None or target.type != VM or target.action not in VERBS:
            raise Refusal(404, "ResourceNotFound", f"The Resource '{target.path}' was not found.")
        if not thing.get("_power"):
            raise Refusal(409, "OperationNotAllowed", "The machine is in a failed state.")
        if target.action == "restart" and thing["_power"] != "running":
            raise Refusal(409, "OperationNotAllowed", "Cannot restart a machine that does not run.")
        thing["_power"] = PASSING[target.action]
        self.things.put(target.key, thing)
        return Response(202, None, self._begin(lambda: self._finish(target.key, _power=VERBS[target.action])))

    # --- removing ----------------------------------------------------------------------------------------------

    def _delete(self, request: Request, target: Target) -> Response:
        thing = self.things.get(target.key, fresh=True)
        if thing is None:
            if target.type == "resourcegroups":
                raise Refusal(404, "ResourceGroupNotFound", f"Resource group '{target.name}' could not be found.")
            return Response(204)
        self._check_free(target, thing)
        thing["properties"]["provisioningState"] = "Deleting"
        self.things.put(target.key, thing)
        if target.type == VM:
            return Response(202, None, self._begin(lambda: self._drop_vm(target.key)))
        if target.type == "resourcegroups":
            return Response(202, None, self._begin(lambda: self._drop_group(target.key), headers="location"))
        return Response(202, None, self._begin(lambda: self.things.remove(target.key)))

    def _check_free(self, target: Target, thing: Resource) -> None:
        """What is in use cannot be removed."""
        nics = [item["properties"] for key, item in self.things.items(fresh=True) if target_of(key).type == NIC]
        items = [entry["properties"] for nic in nics for entry in nic["ipConfigurations"]]
        if target.type == NIC and "virtualMachine" in thing["properties"]:
            raise Refusal(400, "NicInUse", f"Network Interface {target.path} is used by {thing['properties']['virtualMachine']['id']}.")
        if target.type == IP and any(item.get("publicIPAddress", {}).get("id", "").lower() == target.key for item in items):
            raise Refusal(400, "PublicIPAddressCannotBeDeleted", f"Public IP address {target.path} is still allocated.")
        if target.type == NSG and any(nic.get("networkSecurityGroup", {}).get("id", "").lower() == target.key for nic in nics):
            raise Refusal(400, "InUseNetworkSecurityGroupCannotBeDeleted", f"Network security group {target.path} is in use.")
        if target.type == VNET and any(item["subnet"]["id"].lower().startswith(target.key + "/") for item in items):
            raise Refusal(400, "InUseSubnetCannotBeDeleted", f"Subnet of {target.path} is in use and cannot be deleted.")
        if target.type == DISK and thing.get("managedBy"):
            raise Refusal(409, "OperationNotAllowed", f"Disk {target.name} is attached to VM {thing['managedBy']}.")

    def _drop_vm(self, key: str, *, cascade: bool = True) -> None:
        thing = self.things.get(key, fresh=True)
        if thing is None:
            return
        properties = thing["properties"]
        disk = properties["storageProfile"]["osDisk"]
        parts = [(disk["managedDisk"].get("id", ""), disk.get("deleteOption"))]
        parts += [
            (item["id"], item.get("properties", {}).get("deleteOption")) for item in properties["networkProfile"]["networkInterfaces"]
        ]
        for path, option in parts:
            part = self.things.get(path.lower(), fresh=True)
            if part is None:
                continue
            if cascade and option == "Delete":
                self.things.remove(path.lower())
            else:
                part.pop("managedBy", None)
                part["properties"].pop("virtualMachine", None)
                self.things.put(path.lower(), part)
        self.things.remove(key)

    def _drop_group(self, key: str) -> None:
        for name, dummy in self.things.items(fresh=True):
            if name == key or name.startswith(key + "/"):
                self.things.remove(name)

    # --- for tests ---------------------------------------------------------------------------------------------

    def state(self) -> t.Any:
        """Everything but what was there from the start, and the user-data that machines got."""
        self._advance()
        things = [thing for key, thing in self.things.items(fresh=True)]
        return {"resources": things, "violations": self.violations, "secrets": self.secrets}

    def control(self, verb: str, data: dict[str, t.Any]) -> t.Any:
        """See the module."""
        self._advance()
        if verb == "foreign":
            self._seed(data["id"], {"location": "westus", "tags": data.get("tags", {}), "properties": data.get("properties", {})})
            return {}
        if verb == "edit":
            thing = self.things.get(data["id"].lower(), fresh=True)
            if thing is None:
                raise Refusal(404, "ResourceNotFound", data["id"])
            self.things.put(data["id"].lower(), {**thing, "properties": {**thing["properties"], **data["properties"]}})
            return {}
        key = next((key for key, dummy in self.things.items(fresh=True) if target_of(key).type == VM and last(key) == data["name"]), None)
        if key is None:
            raise Refusal(404, "ResourceNotFound", data["name"])
        if verb == "delete_outside":
            self._drop_vm(key, cascade=False)
            return {}
        if verb == "change_address":
            path = key.replace("microsoft.compute/virtualmachines", "microsoft.network/publicipaddresses") + "-ip"
            thing = self.things.get(path, fresh=True)
            if thing is not None:
                thing["properties"]["ipAddress"] = self._address("IPv4")
                self.things.put(path, thing)
                return {"address": thing["properties"]["ipAddress"]}
        return super().control(verb, data)


if __name__ == "__main__":
    sys.exit(main(Azure()))
