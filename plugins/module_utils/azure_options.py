# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the driver ``azure``, with the environment variables that Docker Machine, Azure's tools and AWX use."""

from __future__ import annotations

import typing as t

from ansible.module_utils.basic import env_fallback
from ansible_collections.dockyard.machine.plugins.module_utils.cloud import CLOUD_OPTIONS, DEFAULT_IMAGE


def _env(kind: str, default: t.Any, *names: str, **more: t.Any) -> dict[str, t.Any]:
    spec: dict[str, t.Any] = {"type": kind, "default": default, **more}
    if names:
        spec["fallback"] = (env_fallback, list(names))
    return spec


OPTIONS: t.Final[dict[str, t.Any]] = {
    **CLOUD_OPTIONS,
    "subscription_id": _env("str", "", "AZURE_SUBSCRIPTION_ID"),
    "client_id": _env("str", "", "AZURE_CLIENT_ID"),
    "client_secret": _env("str", "", "AZURE_CLIENT_SECRET", "AZURE_SECRET", no_log=True),
    "tenant": _env("str", "", "AZURE_TENANT_ID", "AZURE_TENANT"),
    "environment": _env("str", "AzurePublicCloud", "AZURE_ENVIRONMENT", "AZURE_CLOUD_ENVIRONMENT"),
    "auth_kind": _env("str", "auto", choices=["auto", "anonymous"]),
    "api_endpoint": _env("str", "", "AZURE_RESOURCE_MANAGER_ENDPOINT"),
    "resource_group": _env("str", "", "AZURE_RESOURCE_GROUP"),
    "location": _env("str", "westus", "AZURE_LOCATION"),
    "size": _env("str", "Standard_B2s", "AZURE_SIZE"),
    "image": _env("str", DEFAULT_IMAGE, "AZURE_IMAGE"),
    "disk_size": _env("int", 0),
    "storage_type": _env("str", "StandardSSD_LRS", "AZURE_STORAGE_TYPE"),
    "disk_encryption_set": _env("str", ""),
    "encryption_at_host": _env("bool", False),
    "vnet": _env("str", "", "AZURE_VNET"),
    "subnet": _env("str", "", "AZURE_SUBNET"),
    "subnet_prefix": _env("str", "192.168.0.0/16", "AZURE_SUBNET_PREFIX"),
    "security_group": _env("str", ""),
    "private_ip_address": _env("str", ""),
    "use_private_ip": _env("bool", False),
    "dns": _env("str", "", "AZURE_DNS_LABEL"),
    "zone": _env("str", ""),
    "availability_set": _env("str", "", "AZURE_AVAILABILITY_SET"),
    "security_type": _env("str", "auto", choices=["auto", "trusted_launch", "standard"]),
    "spot": _env("bool", False),
    "spot_fallback": _env("bool", True),
    "spot_max_price": _env("float", -1.0),
    "keep_allocated": _env("bool", False),
}
"""The argument spec; the documentation stands in the module ``azure_machine``."""
