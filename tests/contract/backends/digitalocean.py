# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""DigitalOcean: the fake that is checked against the published API description."""

from __future__ import annotations

import importlib
import typing as t

import backend as contract
from fakes.digitalocean import CLOSED_REGION, RARE_SIZE, TOKEN, VPC, DigitalOcean

from ansible_collections.dockyard.machine.plugins.module_utils.drivers.digitalocean import DigitalOceanDriver

# Without the SDK the backend is left out.
importlib.import_module("pydo")


class Backend(contract.FakeBackend):
    """See contract.Backend."""

    name = "digitalocean"
    driver = DigitalOceanDriver
    can = contract.EVERYTHING | {contract.ADOPT}
    create_call = "droplets_create"

    def make_fake(self) -> t.Any:
        """See contract.FakeBackend."""
        return DigitalOcean()

    def options(self) -> dict[str, t.Any]:
        """See contract.Backend."""
        return {
            "access_token": TOKEN,
            "api_url": self.fake.url,
            "poll_interval": self.poll_interval,
            "allowed_cidrs": ["203.0.113.0/24"],
            "open_ports": ["80", "8000-8010/udp"],
        }

    def bad(self) -> list[contract.Bad]:
        """See contract.Backend."""
        return [
            contract.Bad({"access_token": "dop_v1_wrong"}, "bad_credentials", "access_token"),
            contract.Bad({"access_token": ""}, "bad_credentials", "access_token"),
            contract.Bad({"image": "debian-5"}, "unknown_image", "image"),
            contract.Bad({"image": "424242"}, "unknown_image", "image"),
            contract.Bad({"image": "golden", "region": "fra1"}, "unknown_image", "image"),
            contract.Bad({"size": "s-0vcpu"}, "unknown_size", "size"),
            contract.Bad({"size": RARE_SIZE}, "capacity", "size"),
            contract.Bad({"region": "atlantis1"}, "unknown_region", "region"),
            contract.Bad({"region": CLOSED_REGION}, "capacity", "region"),
            contract.Bad({"vpc_uuid": "no-such-vpc"}, "invalid_option", "vpc_uuid"),
            contract.Bad({"vpc_uuid": VPC, "region": "fra1"}, "invalid_option", "vpc_uuid"),
            contract.Bad({"ssh_key_fingerprint": "aa:bb"}, "invalid_option", "ssh_key_fingerprint"),
            contract.Bad({"firewall_ids": ["no-such-firewall"]}, "invalid_option", "firewall_ids"),
            contract.Bad({"allowed_cidrs": ["203.0.113.7/24"]}, "invalid_option", "allowed_cidrs"),
            contract.Bad({"open_ports": ["http"]}, "invalid_option", "open_ports"),
            contract.Bad({"tag_names": ["a b"]}, "invalid_option", "tags"),
            contract.Bad({"ipv6": True, "private_address_only": True}, "invalid_option", "ipv6"),
        ]

    def resources(self) -> list[str]:
        """The tags of an owner and of a set of rules are labels that stay; everything else has to go."""
        state = self.fake.state()
        assert state["problems"] == []
        found = [f"droplet {droplet['name']}" for droplet in state["droplets"] if any("dockyard" in tag for tag in droplet["tags"])]
        found += [f"key {key['name']}" for key in state["ssh_keys"] if "dockyard" in key["name"]]
        found += [f"firewall {wall['name']}" for wall in state["firewalls"] if "dockyard" in wall["name"]]
        stay = ("dockyard-machine-owner:", "dockyard-machine-firewall:")
        return sorted([*found, *(f"tag {tag}" for tag in state["tags"] if "dockyard" in tag and not tag.startswith(stay))])

    def machines(self) -> list[str]:
        """See contract.Backend."""
        marked = [droplet for droplet in self.fake.state()["droplets"] if any("dockyard" in tag for tag in droplet["tags"])]
        return [str(droplet["id"]) for droplet in marked]

    def delete_outside(self, name: str) -> None:
        """See contract.Backend."""
        self.fake.control("delete_outside", {"name": name})

    def change_address(self, name: str) -> str:
        """See contract.Backend."""
        return str(self.fake.control("change_address", {"name": name})["address"])

    def foreign(self, name: str) -> str:
        """See contract.Backend."""
        return str(self.fake.control("foreign", {"name": name})["id"])
