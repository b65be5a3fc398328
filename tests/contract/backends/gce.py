# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compute Engine: the fake behind Google's own description of the API."""

from __future__ import annotations

import importlib
import typing as t

from backend import Bad, FakeBackend
from fakes.gce import ComputeEngine

from ansible_collections.dockyard.machine.plugins.module_utils.driver import Driver, Wanted
from ansible_collections.dockyard.machine.plugins.module_utils.drivers.gce import GceDriver

# Without the SDK the backend is left out.
importlib.import_module("google.cloud.compute_v1")


class Backend(FakeBackend):
    """See backend.Backend."""

    name = "gce"
    driver = GceDriver
    create_call = "compute.instances.insert"

    def make_fake(self) -> ComputeEngine:
        """See FakeBackend."""
        return ComputeEngine()

    def options(self) -> dict[str, t.Any]:
        """See Backend."""
        return {"project": "demo", "auth_kind": "anonymous", "api_endpoint": self.fake.url}

    def make(self, wanted: Wanted, **options: t.Any) -> Driver:
        """See Backend. A zone has one instance of a name, so the other owner of the suite keeps to another zone."""
        return super().make(wanted, **{"zone": "us-central1-b" if wanted.owner == "somebody-else" else "us-central1-a", **options})

    def bad(self) -> list[Bad]:
        """See Backend."""
        return [
            Bad({"image": "debian-99"}, "unknown_image", "image"),
            Bad({"image": "ubuntu-os-cloud/global/images/ubuntu-1604-xenial-v20170721"}, "unknown_image", "image"),
            Bad({"image": "debian-cloud/debian-12-arm64"}, "unknown_image", "image"),
            Bad({"image": "Not An Image"}, "invalid_option", "image"),
            Bad({"machine_type": "e9-giant"}, "unknown_size", "machine_type"),
            Bad({"zone": "moon-central1-a"}, "unknown_region", "zone"),
            Bad({"zone": "Moon"}, "invalid_option", "zone"),
            Bad({"project": "nobodys"}, "not_found", "project"),
            Bad({"disk_size": 5}, "invalid_option", "disk_size"),
            Bad({"subnetwork": "nowhere"}, "not_found", "subnetwork"),
            Bad({"address": "nowhere"}, "not_found", "address"),
            Bad({"ipv6": True}, "invalid_option", "ipv6"),
            Bad({"ipv6": True, "subnetwork": "default"}, "invalid_option", "ipv6"),
            Bad({"allowed_cidrs": ["nonsense"]}, "invalid_option", "allowed_cidrs"),
            Bad({"open_ports": ["http"]}, "invalid_option", "open_ports"),
            Bad({"network_tags": ["No Tag"]}, "invalid_option", "network_tags"),
            Bad({"metadata": {"user-data": "mine"}}, "invalid_option", "metadata"),
        ]

    def resources(self) -> list[str]:
        """See Backend."""
        state = self._state()
        marked = [
            f"{kind[:-1]} {item['name']}"
            for kind in ("instances", "disks")
            for item in state[kind]
            if any(key.startswith("dockyard-machine") for key in item["labels"])
        ]
        return sorted(marked + [f"firewall {item['name']}" for item in state["firewalls"] if "dockyard" in item["name"]])

    def machines(self) -> list[str]:
        """See Backend."""
        return [item["id"] for item in self._state()["instances"] if "dockyard-machine" in item["labels"]]

    def _state(self) -> dict[str, t.Any]:
        with self.fake.lock:
            state: dict[str, t.Any] = self.fake.state()
        assert state["violations"] == [], "the fake answered what Google's description does not allow"
        return state

    def delete_outside(self, name: str) -> None:
        """See Backend."""
        with self.fake.lock:
            self.fake.control("delete_outside", {"name": name})

    def change_address(self, name: str) -> str:
        """See Backend."""
        with self.fake.lock:
            return str(self.fake.control("change_address", {"name": name})["address"])
