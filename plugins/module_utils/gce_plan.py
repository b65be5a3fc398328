# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks up what a new instance needs: machine type, image, network, address, disk. Reads only."""

from __future__ import annotations

import ipaddress
import re
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.cloud import invalid
from ansible_collections.dockyard.machine.plugins.module_utils.driver import Wanted
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.gce_api import Api, last
from ansible_collections.dockyard.machine.plugins.module_utils.gce_instance import (
    ARM,
    X86,
    Plan,
    default_disk_type,
    image_places,
    our_labels,
    project_of,
    region_of,
    resource_path,
)


class Planner:
    """Makes the plan of one machine.

    Args:
        api: for the calls.
        wanted: the machine.
        opts: the driver's options.
    """

    def __init__(self, api: Api, wanted: Wanted, opts: t.Mapping[str, t.Any]) -> None:
        self.api = api
        self.wanted = wanted
        self.opts = opts
        self.zone = str(opts["zone"])

    def plan(self) -> Plan:
        """Look everything up; each option that names nothing gives an error of its own.

        Raises:
            MachineError: with the option at fault.
        """
        opts, project = self.opts, self.api.project
        architecture = self._architecture()
        image, image_project = self._image(architecture)
        disk = self._kept_disk() if not opts["disk_auto_delete"] else ""
        if not disk and opts["disk_size"] < image.disk_size_gb:
            why = f"the image {image.name} has {image.disk_size_gb} GB"
            raise invalid("disk_size", f"A disk of {opts['disk_size']} GB is too small", f"Set it to {image.disk_size_gb} or more", why=why)
        network, subnetwork, ipv6 = self._network()
        return Plan(
            project=project,
            zone=self.zone,
            machine_type=opts["machine_type"],
            architecture=architecture,
            image=str(image.self_link),
            image_project=image_project,
            secure_image=any(feature.type_ == "UEFI_COMPATIBLE" for feature in image.guest_os_features),
            disk_size=opts["disk_size"],
            disk_type=opts["disk_type"] or default_disk_type(opts["machine_type"]),
            network=network,
            subnetwork=subnetwork,
            ipv6_access=ipv6,
            external_address=self._external_address(),
            existing_disk=disk,
        )

    def _architecture(self) -> str:
        kind = self.opts["machine_type"]
        # A custom type has no entry of its own before its first use.
        if "custom" in kind:
            return ARM if re.match(r"(t2a|c4a|n4a|a4x)-", kind) else X86
        request = {"zone": self.zone, "machine_type": kind}
        what = f"The machine type {kind} cannot be had in {self.zone}"
        found = self.api.find("MachineTypes", "get", request, what=what, where="option machine_type")
        if found is None:
            if self.api.find("Zones", "get", {"zone": self.zone}, what=what, where="option zone") is None:
                hint = "List them: gcloud compute zones list"
                raise MachineError(f"There is no zone {self.zone}", where="option zone", hint=hint, code="unknown_region")
            hint = f"List what the zone has: gcloud compute machine-types list --zones {self.zone}"
            raise MachineError(what, where="option machine_type", why="the zone has no such type", hint=hint, code="unknown_size")
        return ARM if found.architecture == ARM else X86

    def _image(self, architecture: str) -> tuple[t.Any, str]:
        """The image itself, and the project that publishes it."""
        spec = self.opts["image"]
        what = f"The image {spec} could not be read"
        for place in image_places(spec, self.api.project, architecture):
            if place.family:
                request = {"project": place.project, "family": place.family}
                image = self.api.find("Images", "get_from_family", request, what=what, where="option image")
            else:
                image = self.api.find("Images", "get", {"project": place.project, "image": place.name}, what=what, where="option image")
            if image is None:
                continue
            if image.architecture in (X86, ARM) and image.architecture != architecture:
                raise MachineError(
                    f"The image {spec} does not run on {self.opts['machine_type']}",
                    where="option image",
                    why=f"the image is for {image.architecture}, the machine type is {architecture}",
                    hint="Choose an image for this architecture, or another machine_type",
                    code="unknown_image",
                )
            return image, place.project
        hint = "Give PROJECT/FAMILY, PROJECT/global/images/NAME or an alias such as ubuntu-24.04: gcloud compute images list"
        raise MachineError(f"There is no image {spec}", where="option image", hint=hint, code="unknown_image")

    def _network(self) -> tuple[str, str, str]:
        """Paths of network and subnetwork, and how the machine gets an IPv6 address."""
        opts, project = self.opts, self.api.project
        network = resource_path("networks", opts["network"], project)
        if not opts["subnetwork"]:
            if opts["ipv6"]:
                raise invalid("ipv6", "An IPv6 address needs a subnetwork", "Name a subnetwork that has IPv6 ranges in subnetwork")
            return network, "", ""
        path = resource_path("subnetworks", opts["subnetwork"], project, f"regions/{region_of(self.zone)}")
        request = {"project": project_of(path, project), "region": path.split("/")[3], "subnetwork": last(path)}
        what = f"The subnetwork {opts['subnetwork']} could not be read"
        found = self.api.find("Subnetworks", "get", request, what=what, where="option subnetwork")
        if found is None:
            hint = f"It has to be in {region_of(self.zone)}: gcloud compute networks subnets list"
            raise MachineError(f"There is no subnetwork {opts['subnetwork']}", where="option subnetwork", hint=hint, code="not_found")
        if opts["ipv6"] and found.stack_type not in ("IPV4_IPV6", "IPV6_ONLY"):
            raise invalid("ipv6", f"The subnetwork {found.name} has no IPv6 ranges", "Choose a dual-stack subnetwork")
        return resource_path("networks", found.network, project), path, str(found.ipv6_access_type) if opts["ipv6"] else ""

    def _external_address(self) -> str:
        """The reserved address; it stays the user's when the machine goes."""
        address = self.opts["address"]
        if not address:
            return ""
        if self.opts["private_address_only"]:
            raise invalid("address", "A machine without a public address cannot have this one", "Leave out address or private_address_only")
        try:
            return str(ipaddress.ip_address(address))
        except ValueError:
            pass
        request = {"region": region_of(self.zone), "address": last(address)}
        found = self.api.find("Addresses", "get", request, what=f"The address {address} could not be read", where="option address")
        if found is None:
            hint = f"Reserve it in {region_of(self.zone)} first: gcloud compute addresses create"
            raise MachineError(f"There is no reserved address {address}", where="option address", hint=hint, code="not_found")
        return str(found.address)

    def _kept_disk(self) -> str:
        """The boot disk that an earlier machine of this name left behind, as disk_auto_delete=false asks."""
        request = {"zone": self.zone, "disk": self.wanted.name}
        disk = self.api.find("Disks", "get", request, what=f"The disk {self.wanted.name} could not be read")
        if disk is None:
            return ""
        if our_labels(disk.labels) != (self.wanted.name, self.wanted.owner):
            raise MachineError(
                f"The disk {self.wanted.name} is not ours",
                where=f"zone {self.zone}",
                why="it doesn't carry our mark",
                hint="Choose another name for the machine, or rename the disk",
                code="not_ours",
            )
        return str(disk.self_link)
