# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""EC2: moto's server behind a layer of ours."""

from __future__ import annotations

import importlib
import typing as t

import backend as contract
from fakes.ec2_layer import Ec2Layer

from ansible_collections.dockyard.machine.plugins.module_utils.drivers.ec2 import Ec2Driver

# Without the SDK the backend is left out.
importlib.import_module("boto3")
importlib.import_module("moto")


class Backend(contract.FakeBackend):
    """States take a moment here, so that a driver has to wait for them."""

    name = "ec2"
    driver = Ec2Driver
    create_call = "RunInstances"

    def make_fake(self) -> t.Any:
        """See FakeBackend."""
        return Ec2Layer()

    def reset(self) -> None:
        """See Backend."""
        super().reset()
        self.fake.transition = 0.15

    def options(self) -> dict[str, t.Any]:
        """See Backend."""
        return {
            "endpoint": self.fake.url,
            "insecure_transport": True,
            "region": "us-east-1",
            # Each test has an account of its own, at the same endpoint.
            "lookup_cache": 0,
            "access_key": "AKIAIOSFODNN7EXAMPLE",
            "secret_key": "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY",
        }

    def bad(self) -> list[contract.Bad]:
        """See Backend."""
        return [
            contract.Bad({"image": "ami-00000000000000fff"}, "unknown_image", "image"),
            contract.Bad({"image": "no-such-name-*"}, "unknown_image", "image"),
            contract.Bad({"instance_type": "t3.enormous"}, "unknown_size", "instance_type"),
            contract.Bad({"instance_type": "t4g.micro", "image": self._image("x86_64")}, "unknown_size", "instance_type"),
            contract.Bad({"subnet_id": "subnet-00000000000000fff"}, "not_found", "subnet_id"),
            contract.Bad({"vpc_id": "vpc-00000000000000fff"}, "not_found", "vpc_id"),
            contract.Bad({"zone": "x"}, "not_found", "zone"),
            contract.Bad({"security_group": ["sg-00000000000000fff"]}, "not_found", "security_group"),
            contract.Bad({"security_group": ["nobodys"]}, "not_found", "security_group"),
            contract.Bad({"keypair_name": "nobodys"}, "not_found", "keypair_name"),
            contract.Bad({"root_size": 1}, "invalid_option", "root_size"),
            contract.Bad({"volume_type": "io2"}, "invalid_option", "volume_iops"),
            contract.Bad({"open_ports": ["http"]}, "invalid_option", "open_ports"),
            contract.Bad({"allowed_cidrs": ["10.0.0.1/8"]}, "invalid_option", "allowed_cidrs"),
            contract.Bad({"insecure_transport": False}, "invalid_option", "endpoint"),
            contract.Bad({"profile": "nobodys"}, "bad_credentials", "profile"),
        ]

    def _image(self, architecture: str) -> str:
        images = self.fake.backend("us-east-1").amis.values()
        return str(next(image.id for image in images if image.architecture == architecture))

    def resources(self) -> list[str]:
        """See Backend."""
        found: list[str] = self.fake.resources()
        return found

    def machines(self) -> list[str]:
        """See Backend."""
        found: list[str] = self.fake.machines()
        return found

    def delete_outside(self, name: str) -> None:
        """See Backend."""
        self.fake.delete_outside(name)

    def change_address(self, name: str) -> str:
        """See Backend."""
        return str(self.fake.change_address(name))
