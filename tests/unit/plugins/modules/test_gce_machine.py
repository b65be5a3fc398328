# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What gce_machine documents is what its driver takes."""

from __future__ import annotations

import re

import pytest
import yaml

from ansible_collections.dockyard.machine.plugins.module_utils.cloud import CLOUD_OPTIONS
from ansible_collections.dockyard.machine.plugins.module_utils.gce_instance import ALIASES
from ansible_collections.dockyard.machine.plugins.modules import gce_machine

DOCUMENTED = yaml.safe_load(gce_machine.DOCUMENTATION)["options"]
OPTIONS = gce_machine.DRIVER.options


def test_every_option_is_documented() -> None:
    assert set(DOCUMENTED) | set(CLOUD_OPTIONS) == set(OPTIONS)


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_documentation_and_option_agree(name: str) -> None:
    documented, option = DOCUMENTED[name], OPTIONS[name]
    for key in ("type", "default", "choices", "aliases", "elements"):
        assert documented.get(key) == option.get(key), key
    text = str(documented["description"])
    environment = option.get("fallback", (None, []))[1]
    assert re.findall(r"E\((\w+)\)", text.replace("E(GOOGLE_APPLICATION_CREDENTIALS)", "")) == list(environment)


def test_docker_machines_environment_is_read() -> None:
    """Every variable of the driver google, each by the option of its flag."""
    names = {name for option in OPTIONS.values() for name in option.get("fallback", (None, []))[1]}
    flags = "ZONE MACHINE_TYPE MACHINE_IMAGE PROJECT SERVICE_ACCOUNT SCOPES DISK_SIZE DISK_TYPE NETWORK SUBNETWORK ADDRESS PREEMPTIBLE TAGS"
    flags += " USE_INTERNAL_IP USE_INTERNAL_IP_ONLY USE_EXISTING"
    assert {f"GOOGLE_{flag}" for flag in flags.split()} <= names


def test_secrets_are_hidden() -> None:
    assert {name for name, option in OPTIONS.items() if option.get("no_log")} == {"credentials_json", "access_token"}


def test_the_aliases_are_documented() -> None:
    text = str(DOCUMENTED["image"]["description"])
    assert all(f"V({alias})" in text for alias in ALIASES)
