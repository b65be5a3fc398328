# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compute Engine, as far as the driver ``gce`` uses it: stateful, and behind Google's own description of compute.v1.

A request that the description does not allow is refused as Google does (400), and so is one that refers to something that
doesn't exist. An answer that the description does not allow is a bug of this fake: status 500, and a line in
``violations``. Mutations start operations (PENDING, RUNNING, DONE) that take ``operation_seconds``; a ``requestId`` that
was seen before gives the operation it started, whatever became of that.

Extra faults: ``quota``, ``capacity`` (``data={"spot": true}``: only of spot machines) and ``operation_error`` make an
insert's operation end in an error; ``conflict`` refuses a fingerprint once. Orders of the control API:
``delete_outside`` and ``change_address`` (``name``), ``foreign`` (``name``, ``zone``, ``labels``): somebody else's instance,
``suspend`` (``name``), ``reserve`` (``name``, ``address``), ``firewall_edit`` (``name``, and fields of the rule).
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import pathlib
import re
import sys
import time
import typing as t

if __package__ in (None, ""):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from fakes.core import Fake, Refusal, Request, Response, Shelf, main
from fakes.gce_discovery import Discovery, Method

ROOT: t.Final = "https://www.googleapis.com/compute/v1/"
NOW: t.Final = "2026-11-23T12:00:00.000-08:00"
REGIONS: t.Final = {"us-central1": "abcf", "europe-west1": "bcd"}
ARM_TYPES: t.Final = ("t2a-standard-1", "c4a-standard-1")
MACHINE_TYPES: t.Final = ("e2-micro", "e2-medium", "e2-standard-4", "n1-standard-1", "n2-standard-2", "c4-standard-2", *ARM_TYPES)
DISK_TYPES: t.Final = ("pd-standard", "pd-balanced", "pd-ssd", "hyperdisk-balanced")
# (project, name, family, architecture, boots by UEFI)
IMAGES: t.Final = (
    ("debian-cloud", "debian-12-bookworm-v20261110", "debian-12", "X86_64", True),
    ("debian-cloud", "debian-12-bookworm-arm64-v20261110", "debian-12-arm64", "ARM64", True),
    ("debian-cloud", "debian-13-trixie-v20261110", "debian-13", "X86_64", True),
    ("ubuntu-os-cloud", "ubuntu-2404-noble-amd64-v20261112", "ubuntu-2404-lts-amd64", "X86_64", True),
    ("ubuntu-os-cloud", "ubuntu-2404-noble-arm64-v20261112", "ubuntu-2404-lts-arm64", "ARM64", True),
    ("demo", "golden-1", "golden", "X86_64", False),
)
PROJECTS: t.Final = ("demo", "host-project", "debian-cloud", "ubuntu-os-cloud")
NETWORKS: t.Final = (("demo", "default"), ("demo", "own"), ("host-project", "shared"))
# (project, region, name, network, stack type, IPv6 access)
SUBNETWORKS: t.Final = (
    ("demo", "us-central1", "default", "default", "IPV4_ONLY", ""),
    ("demo", "us-central1", "dual", "own", "IPV4_IPV6", "EXTERNAL"),
    ("demo", "us-central1", "dual-internal", "own", "IPV4_IPV6", "INTERNAL"),
    ("host-project", "us-central1", "shared-sub", "shared", "IPV4_ONLY", ""),
)
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")

Resource = dict[str, t.Any]


@dataclasses.dataclass
class Call:
    """One request that the description allows."""

    method: Method
    query: dict[str, str]
    body: Resource

    def __getitem__(self, name: str) -> str:
        return self.method.path[name]

    @property
    def project(self) -> str:
        """The project in the path."""
        return self.method.path["project"]


@dataclasses.dataclass
class Running:
    """An operation, and what happens when it is done."""

    resource: Resource
    due: float
    then: t.Callable[[], None] | None
    errors: list[tuple[str, str, int]]


def name_of(url: str) -> str:
    """The last segment."""
    return url.rpartition("/")[2]


def relative(url: str) -> str:
    """``projects/...`` of a full or partial URL."""
    return re.sub(r"^https?://[^/]+/compute/[^/]+/", "", url)


def invalid(message: str) -> Refusal:
    """400 as Google words it."""
    return Refusal(400, "invalid", f"Invalid value for field {message}")


def not_found(path: str) -> Refusal:
    """404 as Google words it."""
    return Refusal(404, "notFound", f"The resource '{path}' was not found")


class ComputeEngine(Fake):
    """A project on Compute Engine."""

    def __init__(self, operation_seconds: float = 0.06) -> None:
        self.discovery = Discovery()
        self.operation_seconds = operation_seconds
        self.violations: list[str] = []
        super().__init__()

    def reset(self) -> None:
        """Forget all state."""
        super().reset()
        self.instances: Shelf[Resource] = Shelf(self)
        self.disks: Shelf[Resource] = Shelf(self)
        self.firewalls: Shelf[Resource] = Shelf(self)
        self.addresses: dict[str, str] = {}
        self.operations: dict[str, Running] = {}
        self.requests: dict[tuple[str, str], str] = {}
        self._number = getattr(self, "_number", 0)

    # --- the way in and out ------------------------------------------------------------------------------------

    def error(self, status: int, code: str, message: str) -> t.Any:
        """See Fake."""
        reason = {"too_many_requests": "rateLimitExceeded", "server_error": "backendError"}.get(code, code)
        return {"error": {"code": status, "message": message, "errors": [{"message": message, "domain": "global", "reason": reason}]}}

    def operation(self, request: Request) -> str:
        """The method's id, such as ``compute.instances.insert``."""
        method = self.discovery.find(request.method, request.path)
        return method.id if method else f"{request.method} {request.path}"

    def respond(self, request: Request) -> Response:
        """Check the request, answer it, check the answer."""
        method = self.discovery.find(request.method, request.path)
        if method is None:
            raise Refusal(404, "notFound", f"The requested URL {request.path} was not found on this server.")
        body = request.json() if request.body else None
        wrong = self.discovery.request(method, request.query, body)
        if wrong:
            raise Refusal(400, "badRequest", f"Invalid JSON payload or parameter received: {'; '.join(wrong)}")
        if method.path.get("project") not in PROJECTS:
            raise not_found(f"projects/{method.path.get('project')}")
        self._advance()
        handler = getattr(self, "_" + "_".join(re.findall(r"[a-z]+|[A-Z][a-z]+", method.id)[1:]).lower(), None)
        if handler is None:
            raise Refusal(501, "notImplemented", f"this fake has no {method.id}")
        query = {key: values[0] for key, values in request.query.items()}
        answer = handler(Call(method, query, body or {}))
        wrong = self.discovery.response(method, answer)
        if wrong:
            self.violations += [f"{method.id}: {item}" for item in wrong]
            raise Refusal(500, "internalError", f"the fake broke the contract: {'; '.join(wrong)}")
        return Response(200, answer)

    def _id(self) -> str:
        self._number += 1
        return str(5_000_000_000_000_000_000 + self._number)

    @staticmethod
    def _fingerprint(*parts: t.Any) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()[:8]).decode()

    # --- operations --------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Let what is due happen."""
        for running in list(self.operations.values()):
            if running.resource["status"] == "DONE":
                continue
            if time.monotonic() < running.due:
                running.resource.update(status="RUNNING", progress=50, startTime=NOW)
                continue
            running.resource.update(status="DONE", progress=100, endTime=NOW)
            if running.errors:
                code, message, status = running.errors[0]
                running.resource.update(
                    error={"errors": [{"code": item[0], "message": item[1]} for item in running.errors]},
                    httpErrorStatusCode=status,
                    httpErrorMessage="FORBIDDEN" if status == 403 else "SERVICE UNAVAILABLE",
                )
            if running.then is not None:
                running.then()

    def _begin(
        self,
        call: Call,
        target: str,
        then: t.Callable[[], None] | None = None,
        *,
        target_id: str = "",
        errors: t.Sequence[tuple[str, str, int]] = (),
    ) -> Resource:
        number = self._id()
        name = f"operation-{number}"
        zone = call.method.path.get("zone")
        scope = f"zones/{zone}" if zone else "global"
        resource: Resource = {
            "kind": "compute#operation",
            "id": number,
            "name": name,
            "operationType": call.method.id.rpartition(".")[2],
            "targetLink": ROOT + target,
            "targetId": target_id or number,
            "status": "PENDING",
            "user": "tester@example.com",
            "progress": 0,
            "insertTime": NOW,
            "selfLink": f"{ROOT}projects/{call.project}/{scope}/operations/{name}",
        }
        if zone:
            resource["zone"] = f"{ROOT}projects/{call.project}/zones/{zone}"
        self.operations[name] = Running(resource, time.monotonic() + self.operation_seconds, then, list(errors))
        if "requestId" in call.query:
            self.requests[(call.method.id, call.query["requestId"])] = name
        return dict(resource)

    def _replayed(self, call: Call) -> Resource | None:
        """The operation that this request started before."""
        given = call.query.get("requestId", "")
        if given and not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", given):
            raise invalid(f"'requestId': '{given}'. The request ID must be a valid UUID.")
        name = self.requests.get((call.method.id, given))
        return dict(self.operations[name].resource) if name else None

    def _operation(self, call: Call) -> Resource:
        running = self.operations.get(call["operation"])
        if running is None:
            raise not_found(f"projects/{call.project}/operations/{call['operation']}")
        return dict(running.resource)

    _zone_operations_get = _global_operations_get = _operation

    # --- what is there from the start --------------------------------------------------------------------------

    def _check_zone(self, zone: str) -> None:
        if zone.rpartition("-")[2] not in list(REGIONS.get(zone.rpartition("-")[0], "")):
            raise invalid(f"'zone': '{zone}'. Unknown zone.")

    def _zones_get(self, call: Call) -> Resource:
        zone = call["zone"]
        if zone.rpartition("-")[2] not in list(REGIONS.get(zone.rpartition("-")[0], "")):
            raise not_found(f"projects/{call.project}/zones/{zone}")
        return {
            "kind": "compute#zone",
            "id": "2000",
            "name": zone,
            "status": "UP",
            "selfLink": f"{ROOT}projects/{call.project}/zones/{zone}",
        }

    def _machine_types_get(self, call: Call) -> Resource:
        zone, name = call["zone"], call["machineType"]
        self._check_zone(zone)
        path = f"projects/{call.project}/zones/{zone}/machineTypes/{name}"
        if name not in MACHINE_TYPES:
            raise not_found(path)
        architecture = "ARM64" if name in ARM_TYPES else "X86_64"
        shown: Resource = {"kind": "compute#machineType", "id": "801001", "name": name, "zone": zone, "selfLink": ROOT + path}
        return {**shown, "guestCpus": 2, "memoryMb": 4096, "isSharedCpu": name.startswith("e2-m"), "architecture": architecture}

    @staticmethod
    def _image(project: str, name: str, family: str, architecture: str, uefi: bool) -> Resource:
        features = [{"type": "VIRTIO_SCSI_MULTIQUEUE"}, *([{"type": "UEFI_COMPATIBLE"}] if uefi else [])]
        return {
            "kind": "compute#image",
            "id": "3000",
            "name": name,
            "family": family,
            "architecture": architecture,
            "diskSizeGb": "10",
            "status": "READY",
            "guestOsFeatures": features,
            "selfLink": f"{ROOT}projects/{project}/global/images/{name}",
        }

    def _images_get(self, call: Call) -> Resource:
        for project, name, family, architecture, uefi in IMAGES:
            if (project, name) == (call.project, call["image"]):
                return self._image(project, name, family, architecture, uefi)
        raise not_found(f"projects/{call.project}/global/images/{call['image']}")

    def _images_get_from_family(self, call: Call) -> Resource:
        for project, name, family, architecture, uefi in IMAGES:
            if (project, family) == (call.project, call["family"]):
                return self._image(project, name, family, architecture, uefi)
        raise not_found(f"projects/{call.project}/global/images/family/{call['family']}")

    def _subnetworks_get(self, call: Call) -> Resource:
        for project, region, name, network, stack, access in SUBNETWORKS:
            if (project, region, name) == (call.project, call["region"], call["subnetwork"]):
                shown: Resource = {
                    "kind": "compute#subnetwork",
                    "id": "4000",
                    "name": name,
                    "network": f"{ROOT}projects/{project}/global/networks/{network}",
                    "region": f"{ROOT}projects/{project}/regions/{region}",
                    "ipCidrRange": "10.128.0.0/20",
                    "stackType": stack,
                }
                return {**shown, **({"ipv6AccessType": access} if access else {})}
        raise not_found(f"projects/{call.project}/regions/{call['region']}/subnetworks/{call['subnetwork']}")

    def _addresses_get(self, call: Call) -> Resource:
        name = call["address"]
        if name not in self.addresses:
            raise not_found(f"projects/{call.project}/regions/{call['region']}/addresses/{name}")
        return {"kind": "compute#address", "id": "4100", "name": name, "address": self.addresses[name], "status": "RESERVED"}

    # --- instances: reading ------------------------------------------------------------------------------------

    def _get(self, shelf: Shelf[Resource], call: Call, kind: str, parameter: str, *, fresh: bool = False) -> Resource:
        zone = call.method.path.get("zone", "")
        if zone:
            self._check_zone(zone)
        scope = f"zones/{zone}" if zone else "global"
        path = f"projects/{call.project}/{scope}/{kind}/{call[parameter]}"
        found = shelf.get(path, fresh=fresh)
        if found is None:
            raise not_found(path)
        return found

    def _instances_get(self, call: Call) -> Resource:
        return self._get(self.instances, call, "instances", "instance")

    def _disks_get(self, call: Call) -> Resource:
        return self._get(self.disks, call, "disks", "disk")

    def _firewalls_get(self, call: Call) -> Resource:
        return self._get(self.firewalls, call, "firewalls", "firewall")

    def _aggregated(self, call: Call, shelf: Shelf[Resource], kind: str) -> Resource:
        prefix = f"projects/{call.project}/zones/"
        found = [item for key, item in shelf.items() if key.startswith(prefix) and matches(item, call.query.get("filter", ""))]
        page, token = self._page(call, found)
        zones: dict[str, Resource] = {}
        for item in page:
            zones.setdefault(f"zones/{name_of(item['zone'])}", {kind: []})[kind].append(item)
        if not zones:
            warning = {"code": "NO_RESULTS_ON_PAGE", "message": "There are no results for scope 'zones/us-central1-a' on this page."}
            zones = {"zones/us-central1-a": {"warning": warning}}
        name = kind[:-1]
        answer: Resource = {"kind": f"compute#{name}AggregatedList", "id": prefix + f"aggregated/{kind}", "items": zones}
        return {**answer, **({"nextPageToken": token} if token else {})}

    @staticmethod
    def _page(call: Call, found: list[Resource]) -> tuple[list[Resource], str]:
        size = int(call.query.get("maxResults", "500"))
        if not 0 <= size <= 500:
            raise invalid(f"'maxResults': '{size}'. Must be between 0 and 500")
        start = int(call.query.get("pageToken", "0") or "0")
        return found[start : start + size], str(start + size) if start + size < len(found) else ""

    def _instances_aggregated_list(self, call: Call) -> Resource:
        return self._aggregated(call, self.instances, "instances")

    def _disks_aggregated_list(self, call: Call) -> Resource:
        return self._aggregated(call, self.disks, "disks")

    def _firewalls_list(self, call: Call) -> Resource:
        prefix = f"projects/{call.project}/"
        found = [item for key, item in self.firewalls.items() if key.startswith(prefix) and matches(item, call.query.get("filter", ""))]
        page, token = self._page(call, found)
        answer: Resource = {"kind": "compute#firewallList", "id": prefix + "global/firewalls", "items": page}
        return {**answer, **({"nextPageToken": token} if token else {})}

    # --- instances: making -------------------------------------------------------------------------------------

    def _instances_insert(self, call: Call) -> Resource:
        replayed = self._replayed(call)
        if replayed is not None:
            return replayed
        zone, body = call["zone"], call.body
        self._check_zone(zone)
        name = body["name"]
        path = f"projects/{call.project}/zones/{zone}/instances/{name}"
        if self.instances.get(path, fresh=True) is not None:
            raise Refusal(409, "alreadyExists", f"The resource '{path}' already exists")
        machine_type = self._checked_type(call, body)
        self._check_labels(body.get("labels", {}), "resource.labels")
        self._check_scheduling(body.get("scheduling", {}))
        disk = self._checked_disk(call, body, machine_type)
        interfaces = [self._interface(call, item) for item in body.get("networkInterfaces", [])]
        if not interfaces:
            raise invalid("'resource.networkInterfaces': ''. At least one network interface is required.")
        errors = self._planned_errors(call, body)
        instance = self._made(call, path, body, disk, interfaces)
        self.instances.put(path, instance)
        if "source" not in body["disks"][0]:
            self.disks.put(relative(disk["selfLink"]), disk)

        def finished() -> None:
            if errors:
                self.instances.remove(path)
                self.disks.remove(relative(disk["selfLink"]))
                return
            self._power_on(path)

        return self._begin(call, path, finished, target_id=instance["id"], errors=errors)

    def _planned_errors(self, call: Call, body: Resource) -> list[tuple[str, str, int]]:
        spot = body.get("scheduling", {}).get("provisioningModel") == "SPOT"
        if self.take("quota", call.method.id):
            return [("QUOTA_EXCEEDED", "Quota 'CPUS' exceeded.  Limit: 24.0 in region us-central1.", 403)]
        errors = self._no_capacity(call, spot)
        if errors:
            return errors
        if self.take("operation_error", call.method.id):
            return [("INTERNAL_ERROR", "Internal error. Please try again or contact Google Support. (Code: '-7')", 503)]
        return []

    def _no_capacity(self, call: Call, spot: bool = False) -> list[tuple[str, str, int]]:
        fault = self.take("capacity", call.method.id)
        if fault is None or (fault.data.get("spot") and not spot):
            return []
        zone = f"projects/{call.project}/zones/{call['zone']}"
        message = f"The zone '{zone}' does not have enough resources available to fulfill the request. Try a different zone."
        return [("ZONE_RESOURCE_POOL_EXHAUSTED", message, 503)]

    def _checked_type(self, call: Call, body: Resource) -> str:
        match = re.fullmatch(r"(?:projects/[^/]+/)?zones/([^/]+)/machineTypes/([^/]+)", relative(body.get("machineType", "")))
        if not match or match.group(1) != call["zone"] or match.group(2) not in MACHINE_TYPES:
            raise invalid(f"'resource.machineType': '{body.get('machineType')}'. The referenced machineType cannot be found.")
        return match.group(2)

    @staticmethod
    def _check_labels(labels: dict[str, str], where: str) -> None:
        for key, value in labels.items():
            if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
                raise invalid(f"'{where}': '{key}={value}'. Label contains invalid characters.")
        if len(labels) > 64:
            raise invalid(f"'{where}': ''. Too many labels.")

    @staticmethod
    def _check_scheduling(scheduling: Resource) -> None:
        if scheduling.get("provisioningModel") != "SPOT" and not scheduling.get("preemptible"):
            return
        if scheduling.get("automaticRestart", True):
            raise invalid("'resource.scheduling.automaticRestart': 'true'. Scheduling must have automatic restart off for spot instances.")
        if scheduling.get("onHostMaintenance", "MIGRATE") != "TERMINATE":
            raise invalid("'resource.scheduling.onHostMaintenance': 'MIGRATE'. Spot instances cannot migrate.")

    def _checked_disk(self, call: Call, body: Resource, machine_type: str) -> Resource:
        disks = body.get("disks", [])
        if len(disks) != 1 or not disks[0].get("boot"):
            raise invalid("'resource.disks': ''. The first disk must be a boot disk.")
        given = disks[0]
        if "source" in given:
            kept = self.disks.get(relative(given["source"]), fresh=True)
            if kept is None:
                raise not_found(relative(given["source"]))
            if kept.get("users"):
                raise Refusal(400, "resourceInUseByAnotherResource", f"The disk resource '{given['source']}' is already being used")
            kept["users"] = [f"{ROOT}projects/{call.project}/zones/{call['zone']}/instances/{body['name']}"]
            self.disks.put(relative(given["source"]), kept)
            return kept
        params = given["initializeParams"]
        image = self._referenced_image(call, params.get("sourceImage", ""))
        architecture = "ARM64" if machine_type in ARM_TYPES else "X86_64"
        if image["architecture"] != architecture:
            raise invalid(
                f"'resource.disks[0].initializeParams.sourceImage': '{image['name']}'. Image architecture mismatch with machine type."
            )
        uefi = any(feature["type"] == "UEFI_COMPATIBLE" for feature in image["guestOsFeatures"])
        if "shieldedInstanceConfig" in body and not uefi:
            raise invalid("'resource.shieldedInstanceConfig': ''. Shielded VM Config can only be set when using a UEFI-compatible disk.")
        return self._new_disk(call, body["name"], params, given, image)

    def _new_disk(self, call: Call, instance: str, params: Resource, given: Resource, image: Resource) -> Resource:
        kind = name_of(params.get("diskType", "pd-standard"))
        if kind not in DISK_TYPES:
            raise invalid(
                f"'resource.disks[0].initializeParams.diskType': '{params['diskType']}'. The referenced diskType cannot be found."
            )
        size = int(params.get("diskSizeGb", image["diskSizeGb"]))
        if size < int(image["diskSizeGb"]):
            raise invalid(
                f"'resource.disks[0].initializeParams.diskSizeGb': '{size}'. Requested disk size cannot be smaller than the image size."
            )
        self._check_labels(params.get("labels", {}), "resource.disks[0].initializeParams.labels")
        zone, name = call["zone"], params.get("diskName", instance)
        path = f"projects/{call.project}/zones/{zone}/disks/{name}"
        if self.disks.get(path, fresh=True) is not None:
            raise Refusal(409, "alreadyExists", f"The resource '{path}' already exists")
        disk: Resource = {
            "kind": "compute#disk",
            "id": self._id(),
            "name": name,
            "zone": f"{ROOT}projects/{call.project}/zones/{zone}",
            "sizeGb": str(size),
            "type": f"{ROOT}projects/{call.project}/zones/{zone}/diskTypes/{kind}",
            "status": "READY",
            "sourceImage": image["selfLink"],
            "labels": params.get("labels", {}),
            "labelFingerprint": self._fingerprint(params.get("labels", {})),
            "users": [f"{ROOT}projects/{call.project}/zones/{zone}/instances/{instance}"],
            "selfLink": ROOT + path,
        }
        return {**disk, **({"diskEncryptionKey": given["diskEncryptionKey"]} if "diskEncryptionKey" in given else {})}

    def _referenced_image(self, call: Call, url: str) -> Resource:
        match = re.fullmatch(r"projects/([^/]+)/global/images/(family/)?([^/]+)", relative(url))
        for project, name, family, architecture, uefi in IMAGES:
            if match and project == match.group(1) and match.group(3) == (family if match.group(2) else name):
                return self._image(project, name, family, architecture, uefi)
        raise invalid(f"'resource.disks[0].initializeParams.sourceImage': '{url}'. The referenced image resource cannot be found.")

    def _interface(self, call: Call, given: Resource) -> Resource:
        network, subnetwork = relative(given.get("network", "")), relative(given.get("subnetwork", ""))
        known = {f"projects/{project}/global/networks/{name}" for project, name in NETWORKS}
        stack, access = "IPV4_ONLY", ""
        if subnetwork:
            found = [item for item in SUBNETWORKS if f"projects/{item[0]}/regions/{item[1]}/subnetworks/{item[2]}" == subnetwork]
            if not found or found[0][1] != call["zone"].rpartition("-")[0]:
                raise invalid(
                    f"'resource.networkInterfaces[0].subnetwork': '{subnetwork}'. The referenced subnetwork resource cannot be found."
                )
            if network and network != f"projects/{found[0][0]}/global/networks/{found[0][3]}":
                raise invalid(f"'resource.networkInterfaces[0].subnetwork': '{subnetwork}'. Subnetwork must belong to the network.")
            network, stack, access = f"projects/{found[0][0]}/global/networks/{found[0][3]}", found[0][4], found[0][5]
        if network not in known:
            raise invalid(f"'resource.networkInterfaces[0].network': '{network}'. The referenced network resource cannot be found.")
        made = {
            **given,
            "kind": "compute#networkInterface",
            "name": "nic0",
            "network": ROOT + network,
            "networkIP": self._address("10.128"),
        }
        made["fingerprint"] = self._fingerprint(made)
        made["subnetwork"] = ROOT + (subnetwork or "projects/demo/regions/us-central1/subnetworks/default")
        if given.get("stackType") == "IPV4_IPV6":
            self._dual_stack(given, made, stack, access)
        for item in made.get("accessConfigs", []):
            if item.get("natIP") and item["natIP"] not in self.addresses.values():
                where = "'resource.networkInterfaces[0].accessConfigs[0].natIP'"
                raise invalid(f"{where}: '{item['natIP']}'. The specified external IP address was not found.")
        return made

    def _dual_stack(self, given: Resource, made: Resource, stack: str, access: str) -> None:
        if stack != "IPV4_IPV6" or (access == "EXTERNAL") != bool(given.get("ipv6AccessConfigs")):
            raise invalid("'resource.networkInterfaces[0].stackType': 'IPV4_IPV6'. The subnetwork's IPv6 access type doesn't allow this.")
        made["ipv6AccessType"] = access
        if access == "INTERNAL":
            made["ipv6Address"] = "fd20::1"
        for item in made.get("ipv6AccessConfigs", []):
            item.update(externalIpv6="2001:db8::1", externalIpv6PrefixLength=96)

    def _address(self, prefix: str) -> str:
        self._number += 1
        return f"{prefix}.{self._number // 250 % 250}.{self._number % 250 + 2}"

    def _made(self, call: Call, path: str, body: Resource, disk: Resource, interfaces: list[Resource]) -> Resource:
        zone = f"{ROOT}projects/{call.project}/zones/{call['zone']}"
        attached = {key: value for key, value in body["disks"][0].items() if key != "initializeParams"}
        attached.update(
            kind="compute#attachedDisk", type="PERSISTENT", mode="READ_WRITE", index=0, source=disk["selfLink"], diskSizeGb=disk["sizeGb"]
        )
        metadata, tags = body.get("metadata", {}), body.get("tags", {})
        for item in metadata.get("items", []):
            if len(item["value"].encode()) > 262144:
                raise invalid(f"'resource.metadata.items': '{item['key']}'. Metadata value is too long.")
        scheduling = {"onHostMaintenance": "MIGRATE", "automaticRestart": True, "preemptible": False, "provisioningModel": "STANDARD"}
        return {
            **{key: body[key] for key in ("name", "description", "serviceAccounts", "shieldedInstanceConfig") if key in body},
            "kind": "compute#instance",
            "id": self._id(),
            "creationTimestamp": NOW,
            "status": "PROVISIONING",
            "machineType": f"{zone}/machineTypes/{name_of(body['machineType'])}",
            "zone": zone,
            "selfLink": ROOT + path,
            "labels": body.get("labels", {}),
            "labelFingerprint": self._fingerprint(body.get("labels", {})),
            "metadata": {**metadata, "kind": "compute#metadata", "fingerprint": self._fingerprint(metadata.get("items", []))},
            "tags": {"items": tags.get("items", []), "fingerprint": self._fingerprint(tags.get("items", []))},
            "disks": [attached],
            "networkInterfaces": interfaces,
            "scheduling": {**scheduling, **body.get("scheduling", {})},
            "deletionProtection": body.get("deletionProtection", False),
            "startRestricted": False,
        }

    def _change(self, shelf: Shelf[Resource], path: str, **changes: t.Any) -> None:
        current = shelf.get(path, fresh=True)
        if current is not None:
            shelf.put(path, {**current, **changes})

    def _power_on(self, path: str) -> None:
        current = self.instances.get(path, fresh=True)
        if current is None:
            return
        for interface in current["networkInterfaces"]:
            for item in interface.get("accessConfigs", []):
                item["kind"] = "compute#accessConfig"
                item.setdefault("natIP", self._address("198.51"))
                item.setdefault("networkTier", "PREMIUM")
        self.instances.put(path, {**current, "status": "RUNNING", "lastStartTimestamp": NOW})

    def _power_off(self, path: str, status: str = "TERMINATED") -> None:
        current = self.instances.get(path, fresh=True)
        if current is None:
            return
        for interface in current["networkInterfaces"]:
            for item in interface.get("accessConfigs", []):
                if item.get("natIP") not in self.addresses.values():
                    item.pop("natIP", None)
        self.instances.put(path, {**current, "status": status, "lastStopTimestamp": NOW})

    # --- instances: verbs --------------------------------------------------------------------------------------

    def _target(self, call: Call, parameter: str = "instance") -> tuple[str, Resource]:
        current = self._get(self.instances, call, "instances", parameter, fresh=True)
        return relative(current["selfLink"]), current

    def _instances_delete(self, call: Call) -> Resource:
        replayed = self._replayed(call)
        if replayed is not None:
            return replayed
        path, current = self._target(call)
        if current["deletionProtection"]:
            message = f"Invalid resource usage: 'Resource cannot be deleted if it's protected against deletion: {path}'."
            raise Refusal(400, "resourceInUseByAnotherResource", message)
        self._change(self.instances, path, status="STOPPING")
        return self._begin(call, path, lambda: self._gone(path), target_id=current["id"])

    def _gone(self, path: str) -> None:
        current = self.instances.get(path, fresh=True)
        if current is None:
            return
        self.instances.remove(path)
        for disk in current["disks"]:
            if disk["autoDelete"]:
                self.disks.remove(relative(disk["source"]))
            else:
                self._change(self.disks, relative(disk["source"]), users=[])

    def _switch(
        self,
        call: Call,
        allowed: t.Sequence[str],
        during: str,
        then: t.Callable[[str], None],
        errors: t.Sequence[tuple[str, str, int]] = (),
    ) -> Resource:
        replayed = self._replayed(call)
        if replayed is not None:
            return replayed
        path, current = self._target(call)
        if current["status"] in allowed:
            self._change(self.instances, path, status=during)
        elif not (call.method.id.endswith("stop") and current["status"] in ("TERMINATED", "STOPPING")) and not (
            call.method.id.endswith("start") and current["status"] == "RUNNING"
        ):
            raise Refusal(400, "resourceNotReady", f"The resource '{path}' is not ready")
        return self._begin(call, path, lambda: then(path), target_id=current["id"], errors=errors)

    def _instances_stop(self, call: Call) -> Resource:
        return self._switch(call, ("RUNNING", "PROVISIONING", "STAGING"), "STOPPING", self._power_off)

    def _instances_start(self, call: Call) -> Resource:
        errors = self._no_capacity(call)
        return self._switch(call, ("TERMINATED",), "STAGING", self._power_off if errors else self._power_on, errors)

    def _instances_resume(self, call: Call) -> Resource:
        return self._switch(call, ("SUSPENDED",), "STAGING", self._power_on)

    def _check_fingerprint(self, call: Call, given: str, current: str) -> None:
        if given != current or self.take("conflict", call.method.id):
            raise Refusal(412, "conditionNotMet", "Supplied fingerprint does not match current metadata fingerprint.")

    def _instances_set_labels(self, call: Call) -> Resource:
        path, current = self._target(call)
        self._check_fingerprint(call, call.body.get("labelFingerprint", ""), current["labelFingerprint"])
        labels = call.body.get("labels", {})
        self._check_labels(labels, "labels")
        then = self._later(self.instances, path, labels=labels, labelFingerprint=self._fingerprint(labels))
        return self._begin(call, path, then, target_id=current["id"])

    def _instances_set_tags(self, call: Call) -> Resource:
        path, current = self._target(call)
        self._check_fingerprint(call, call.body.get("fingerprint", ""), current["tags"]["fingerprint"])
        items = call.body.get("items", [])
        then = self._later(self.instances, path, tags={"items": items, "fingerprint": self._fingerprint(items)})
        return self._begin(call, path, then, target_id=current["id"])

    def _instances_set_metadata(self, call: Call) -> Resource:
        path, current = self._target(call)
        self._check_fingerprint(call, call.body.get("fingerprint", ""), current["metadata"]["fingerprint"])
        items = call.body.get("items", [])
        metadata = {"kind": "compute#metadata", "items": items, "fingerprint": self._fingerprint(items)}
        return self._begin(call, path, self._later(self.instances, path, metadata=metadata), target_id=current["id"])

    def _instances_set_deletion_protection(self, call: Call) -> Resource:
        path, current = self._target(call, "resource")
        protected = call.query.get("deletionProtection", "true") == "true"
        return self._begin(call, path, self._later(self.instances, path, deletionProtection=protected), target_id=current["id"])

    def _instances_set_machine_type(self, call: Call) -> Resource:
        path, current = self._target(call)
        if current["status"] != "TERMINATED":
            raise Refusal(400, "resourceNotReady", f"The resource '{path}' has to be stopped")
        kind = self._checked_type(call, call.body)
        then = self._later(self.instances, path, machineType=f"{current['zone']}/machineTypes/{kind}")
        return self._begin(call, path, then, target_id=current["id"])

    def _later(self, shelf: Shelf[Resource], path: str, **changes: t.Any) -> t.Callable[[], None]:
        return lambda: self._change(shelf, path, **changes)

    # --- disks and firewalls -----------------------------------------------------------------------------------

    def _disks_delete(self, call: Call) -> Resource:
        replayed = self._replayed(call)
        if replayed is not None:
            return replayed
        current = self._get(self.disks, call, "disks", "disk", fresh=True)
        path = relative(current["selfLink"])
        if current.get("users"):
            raise Refusal(
                400, "resourceInUseByAnotherResource", f"The disk resource '{path}' is already being used by '{current['users'][0]}'"
            )
        return self._begin(call, path, lambda: self.disks.remove(path), target_id=current["id"])

    def _disks_resize(self, call: Call) -> Resource:
        replayed = self._replayed(call)
        if replayed is not None:
            return replayed
        current = self._get(self.disks, call, "disks", "disk", fresh=True)
        path, size = relative(current["selfLink"]), call.body["sizeGb"]
        if int(size) <= int(current["sizeGb"]):
            raise invalid(f"'sizeGb': '{size}'. New disk size '{size}' GiB must be larger than existing size '{current['sizeGb']}' GiB.")

        def grown() -> None:
            self._change(self.disks, path, sizeGb=size)
            for key, instance in self.instances.items(fresh=True):
                for disk in instance["disks"]:
                    if relative(disk["source"]) == path:
                        disk["diskSizeGb"] = size
                        self.instances.put(key, instance)

        return self._begin(call, path, grown, target_id=current["id"])

    def _disks_set_labels(self, call: Call) -> Resource:
        current = self._get(self.disks, call, "disks", "resource", fresh=True)
        path, labels = relative(current["selfLink"]), call.body.get("labels", {})
        self._check_fingerprint(call, call.body.get("labelFingerprint", ""), current["labelFingerprint"])
        self._check_labels(labels, "labels")
        then = self._later(self.disks, path, labels=labels, labelFingerprint=self._fingerprint(labels))
        return self._begin(call, path, then, target_id=current["id"])

    def _checked_rule(self, call: Call) -> Resource:
        rule = call.body
        known = {f"projects/{project}/global/networks/{name}" for project, name in NETWORKS if project == call.project}
        if relative(rule.get("network", "global/networks/default")) not in known:
            raise not_found(relative(rule.get("network", "")))
        ranges = rule.get("sourceRanges", [])
        if len({":" in item for item in ranges}) > 1:
            raise invalid("'resource.sourceRanges': ''. IPv4 and IPv6 ranges cannot be mixed.")
        if not rule.get("allowed") and not rule.get("denied"):
            raise invalid("'resource.allowed': ''. A rule must allow or deny something.")
        return {**rule, "network": ROOT + relative(rule["network"])}

    def _firewalls_insert(self, call: Call) -> Resource:
        replayed = self._replayed(call)
        if replayed is not None:
            return replayed
        rule = self._checked_rule(call)
        path = f"projects/{call.project}/global/firewalls/{rule['name']}"
        if self.firewalls.get(path, fresh=True) is not None:
            raise Refusal(409, "alreadyExists", f"The resource '{path}' already exists")
        made = {**rule, "kind": "compute#firewall", "id": self._id(), "creationTimestamp": NOW, "selfLink": ROOT + path, "disabled": False}
        # The name is taken at once, though the rule works only when the operation is done.
        self.firewalls.put(path, made)
        return self._begin(call, path, target_id=made["id"])

    def _firewalls_patch(self, call: Call) -> Resource:
        replayed = self._replayed(call)
        if replayed is not None:
            return replayed
        current = self._get(self.firewalls, call, "firewalls", "firewall", fresh=True)
        path = relative(current["selfLink"])
        changes = {key: value for key, value in self._checked_rule(call).items() if key != "name"}
        return self._begin(call, path, self._later(self.firewalls, path, **changes), target_id=current["id"])

    def _firewalls_delete(self, call: Call) -> Resource:
        replayed = self._replayed(call)
        if replayed is not None:
            return replayed
        current = self._get(self.firewalls, call, "firewalls", "firewall", fresh=True)
        path = relative(current["selfLink"])
        return self._begin(call, path, lambda: self.firewalls.remove(path), target_id=current["id"])

    # --- for tests ---------------------------------------------------------------------------------------------

    def state(self) -> t.Any:
        """See Fake."""
        self._advance()
        return {
            "instances": self.instances.values(fresh=True),
            "disks": self.disks.values(fresh=True),
            "firewalls": self.firewalls.values(fresh=True),
            "violations": self.violations,
        }

    def named(self, name: str) -> str:
        """The path of the instance with this name, in any zone."""
        paths = [path for path, dummy in self.instances.items(fresh=True) if name_of(path) == name]
        if not paths:
            raise Refusal(404, "notFound", f"no instance {name}")
        return paths[0]

    def control(self, verb: str, data: dict[str, t.Any]) -> t.Any:
        """See Fake and the module."""
        self._advance()
        if verb == "delete_outside":
            self._gone(self.named(data["name"]))
        elif verb == "change_address":
            path = self.named(data["name"])
            self._power_off(path)
            self._power_on(path)
            return {"address": (self.instances.get(path, fresh=True) or {})["networkInterfaces"][0]["accessConfigs"][0]["natIP"]}
        elif verb == "foreign":
            self._foreign(data)
        elif verb == "suspend":
            self._power_off(self.named(data["name"]), "SUSPENDED")
        elif verb == "reserve":
            self.addresses[data["name"]] = data["address"]
        elif verb == "firewall_edit":
            self._change(self.firewalls, f"projects/demo/global/firewalls/{data.pop('name')}", **data)
        else:
            return super().control(verb, data)
        return {}

    def _foreign(self, data: dict[str, t.Any]) -> None:
        zone = data.get("zone", "us-central1-a")
        body = {
            "name": data["name"],
            "machineType": f"zones/{zone}/machineTypes/e2-medium",
            "labels": data.get("labels", {}),
            "disks": [{"boot": True, "autoDelete": True}],
        }
        method = Method("compute.instances.insert", {}, {"project": "demo", "zone": zone})
        call = Call(method, {}, body)
        params = {"sourceImage": "projects/debian-cloud/global/images/family/debian-12"}
        disk = self._new_disk(call, data["name"], params, {}, self._referenced_image(call, params["sourceImage"]))
        interface = self._interface(
            call, {"network": "projects/demo/global/networks/default", "accessConfigs": [{"type": "ONE_TO_ONE_NAT"}]}
        )
        path = f"projects/demo/zones/{zone}/instances/{data['name']}"
        self.disks.put(relative(disk["selfLink"]), disk)
        self.instances.put(path, self._made(call, path, body, disk, [interface]))
        self._power_on(path)


def matches(item: Resource, expression: str) -> bool:
    """Evaluate a filter: ``FIELD eq "REGULAR EXPRESSION"``, or AIP-160's ``(FIELD = "VALUE") (FIELD:*)``.

    Raises:
        Refusal: 400 for anything else.
    """
    if not expression:
        return True
    old = re.fullmatch(r'([\w.-]+) (eq|ne) "?([^"]*)"?', expression)
    if old:
        found = re.fullmatch(old.group(3), str(_field(item, old.group(1)) or "")) is not None
        return found == (old.group(2) == "eq")
    term = re.compile(r'\s*\(?([\w.-]+)\s*(?:(=|!=)\s*"([^"]*)"|(:\*))\)?\s*(?:AND\s+)?')
    position = 0
    result = True
    while position < len(expression):
        match = term.match(expression, position)
        if not match:
            raise invalid(f"'filter': '{expression}'. Invalid list filter expression.")
        value = _field(item, match.group(1))
        hit = value is not None if match.group(4) else (str(value) == match.group(3)) == (match.group(2) == "=")
        result = result and hit
        position = match.end()
    return result


def _field(item: Resource, path: str) -> t.Any:
    value: t.Any = item
    for part in path.split(".", 1) if path.startswith("labels.") else path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


if __name__ == "__main__":
    sys.exit(main(ComputeEngine()))
