# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the driver ``gce``, with the environment variables that Docker Machine, Google's tools and AWX use."""

from __future__ import annotations

import typing as t

from ansible.module_utils.basic import env_fallback
from ansible_collections.dockyard.machine.plugins.module_utils.cloud import CLOUD_OPTIONS


def _env(kind: str, default: t.Any, *names: str, **more: t.Any) -> dict[str, t.Any]:
    spec: dict[str, t.Any] = {"type": kind, **more}
    if names:
        spec["fallback"] = (env_fallback, list(names))
    if default is not None:
        spec["default"] = default
    return spec


OPTIONS: t.Final[dict[str, t.Any]] = {
    **CLOUD_OPTIONS,
    "private_address_only": _env("bool", False, "GOOGLE_USE_INTERNAL_IP_ONLY"),
    "project": _env("str", "", "GOOGLE_PROJECT", "GOOGLE_CLOUD_PROJECT", "GCP_PROJECT", "GCE_PROJECT", "CLOUDSDK_CORE_PROJECT"),
    "credentials_file": _env("path", "", "GCE_CREDENTIALS_FILE_PATH", "GCP_SERVICE_ACCOUNT_FILE"),
    "credentials_json": _env("str", "", "GCP_SERVICE_ACCOUNT_CONTENTS", no_log=True),
    "access_token": _env("str", "", "GCP_ACCESS_TOKEN", "GOOGLE_OAUTH_ACCESS_TOKEN", no_log=True),
    "auth_kind": _env("str", "auto", choices=["auto", "anonymous"]),
    "api_endpoint": _env("str", "", "GOOGLE_COMPUTE_CUSTOM_ENDPOINT"),
    "zone": _env("str", "us-central1-a", "GOOGLE_ZONE", "GCE_ZONE", "CLOUDSDK_COMPUTE_ZONE"),
    "machine_type": _env("str", "e2-medium", "GOOGLE_MACHINE_TYPE"),
    "image": _env("str", "ubuntu-24.04", "GOOGLE_MACHINE_IMAGE"),
    "disk_size": _env("int", 10, "GOOGLE_DISK_SIZE"),
    "disk_type": _env("str", "", "GOOGLE_DISK_TYPE"),
    "disk_auto_delete": _env("bool", True),
    "disk_kms_key": _env("str", "", no_log=False),
    "network": _env("str", "default", "GOOGLE_NETWORK"),
    "subnetwork": _env("str", "", "GOOGLE_SUBNETWORK"),
    "address": _env("str", "", "GOOGLE_ADDRESS"),
    "use_internal_ip": _env("bool", False, "GOOGLE_USE_INTERNAL_IP"),
    "network_tags": _env("list", [], "GOOGLE_TAGS", elements="str"),
    "firewall": _env("bool", True),
    "preemptible": _env("bool", False, "GOOGLE_PREEMPTIBLE", aliases=["spot"]),
    "spot_fallback": _env("bool", True),
    "service_account": _env("str", "", "GOOGLE_SERVICE_ACCOUNT"),
    "scopes": _env("list", [], "GOOGLE_SCOPES", elements="str"),
    "secure_boot": _env("bool", None),
    "metadata": _env("dict", {}),
    "use_existing": _env("bool", False, "GOOGLE_USE_EXISTING"),
}
"""The argument spec; the documentation stands in the module ``gce_machine``."""
