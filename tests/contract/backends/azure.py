# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Azure: the fake behind the models of Microsoft's SDK."""

from __future__ import annotations

import importlib
import typing as t

from backend import Bad, FakeBackend
from fakes.azure import SUBSCRIPTION, Azure

from ansible_collections.dockyard.machine.plugins.module_utils.drivers.azure import AzureDriver

# Without the SDK the backend is left out.
importlib.import_module("azure.identity")


class Backend(FakeBackend):
    """See backend.Backend."""

    name = "azure"
    driver = AzureDriver
    create_call = "virtualMachines.put"

    def make_fake(self) -> Azure:
        """See FakeBackend."""
        return Azure()

    def options(self) -> dict[str, t.Any]:
        """See Backend."""
        return {"subscription_id": SUBSCRIPTION, "auth_kind": "anonymous", "api_endpoint": self.fake.url}

    def bad(self) -> list[Bad]:
        """See Backend."""
        return [
            Bad({"image": "debian-99"}, "unknown_image", "image"),
            Bad({"image": "Debian:debian-12:99:latest"}, "unknown_image", "image"),
            Bad({"image": "Debian:debian-12:12-gen2:1.2.3"}, "unknown_image", "image"),
            Bad({"image": "Debian:debian-12:12-arm64:latest"}, "unknown_image", "image"),
            Bad({"image": "Not An Image"}, "invalid_option", "image"),
            Bad({"size": "Standard_Huge"}, "unknown_size", "size"),
            Bad({"size": "Standard_M416ms_v2"}, "capacity", "size"),
            Bad({"size": "Standard_A2_v2", "spot": True}, "invalid_option", "spot"),
            Bad({"size": "Standard_A2_v2", "security_type": "trusted_launch"}, "invalid_option", "security_type"),
            Bad({"location": "moon"}, "unknown_region", "location"),
            Bad({"location": "the/moon"}, "invalid_option", "location"),
            Bad({"zone": "1"}, "invalid_option", "zone"),
            Bad({"zone": "1", "availability_set": "office:together"}, "invalid_option", "zone"),
            Bad({"subscription_id": "mine"}, "invalid_option", "subscription_id"),
            Bad({"subscription_id": SUBSCRIPTION[:-1] + "9"}, "not_found", "subscription_id"),
            Bad({"environment": "moon"}, "invalid_option", "environment"),
            Bad({"disk_size": -5}, "invalid_option", "disk_size"),
            Bad({"resource_group": "nowhere"}, "not_found", "resource_group"),
            Bad({"vnet": "office:nowhere"}, "not_found", "vnet"),
            Bad({"vnet": "lan"}, "invalid_option", "vnet"),
            Bad({"vnet": "office:lan", "subnet": "nowhere"}, "not_found", "subnet"),
            Bad({"subnet": "dual"}, "invalid_option", "subnet"),
            Bad({"subnet_prefix": "8.8.8.0/24"}, "invalid_option", "subnet_prefix"),
            Bad({"security_group": "office:nowhere"}, "not_found", "security_group"),
            Bad({"availability_set": "office:nowhere"}, "not_found", "availability_set"),
            Bad({"ipv6": True, "vnet": "office:lan"}, "invalid_option", "ipv6"),
            Bad({"dns": "No Label"}, "invalid_option", "dns"),
            Bad({"dns": "label", "private_address_only": True}, "invalid_option", "dns"),
            Bad({"private_ip_address": "somewhere"}, "invalid_option", "private_ip_address"),
            Bad({"allowed_cidrs": ["nonsense"]}, "invalid_option", "allowed_cidrs"),
            Bad({"open_ports": ["http"]}, "invalid_option", "open_ports"),
        ]

    def resources(self) -> list[str]:
        """See Backend."""
        return sorted(f"{item['type']} {item['name']}" for item in self._marked())

    def machines(self) -> list[str]:
        """See Backend."""
        return [item["properties"]["vmId"] for item in self._marked() if item["type"].endswith("/virtualMachines")]

    def _marked(self) -> list[dict[str, t.Any]]:
        with self.fake.lock:
            state: dict[str, t.Any] = self.fake.state()
        assert state["violations"] == [], f"{state['violations']}: the fake answered what the SDK's models do not know"
        return [item for item in state["resources"] if any(key.startswith("dockyard-machine") for key in item.get("tags") or {})]

    def delete_outside(self, name: str) -> None:
        """See Backend."""
        with self.fake.lock:
            self.fake.control("delete_outside", {"name": name})

    def change_address(self, name: str) -> str:
        """See Backend."""
        with self.fake.lock:
            return str(self.fake.control("change_address", {"name": name})["address"])
