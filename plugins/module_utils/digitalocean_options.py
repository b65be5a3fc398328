# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the driver ``digitalocean``, with the environment variables that Docker Machine and others read."""

from __future__ import annotations

import typing as t

from ansible.module_utils.basic import env_fallback
from ansible_collections.dockyard.machine.plugins.module_utils import cloud
from ansible_collections.dockyard.machine.plugins.module_utils.digitalocean_api import DEFAULT_URL


def env(*names: str) -> tuple[t.Any, list[str]]:
    """A default from the environment; the first variable that is set counts."""
    return (env_fallback, list(names))


OPTIONS: t.Final[dict[str, t.Any]] = {
    **cloud.CLOUD_OPTIONS,
    "access_token": {
        "type": "str",
        "no_log": True,
        "fallback": env("DIGITALOCEAN_ACCESS_TOKEN", "DIGITALOCEAN_TOKEN", "DO_API_TOKEN", "DO_API_KEY", "DO_OAUTH_TOKEN"),
    },
    "api_url": {"type": "str", "default": DEFAULT_URL, "fallback": env("DIGITALOCEAN_API_URL")},
    "region": {"type": "str", "default": "nyc3", "fallback": env("DIGITALOCEAN_REGION")},
    "size": {"type": "str", "default": "s-1vcpu-1gb", "fallback": env("DIGITALOCEAN_SIZE")},
    "resize_disk": {"type": "bool", "default": False},
    "image": {"type": "str", "default": cloud.DEFAULT_IMAGE, "fallback": env("DIGITALOCEAN_IMAGE")},
    "ssh_key_fingerprint": {"type": "str", "default": "", "no_log": False, "fallback": env("DIGITALOCEAN_SSH_KEY_FINGERPRINT")},
    "ssh_port": {"type": "int", "default": 22, "fallback": env("DIGITALOCEAN_SSH_PORT")},
    "ipv6": {"type": "bool", "default": False, "fallback": env("DIGITALOCEAN_IPV6")},
    "private_networking": {"type": "bool", "default": False, "fallback": env("DIGITALOCEAN_PRIVATE_NETWORKING")},
    "backups": {"type": "bool", "default": False, "fallback": env("DIGITALOCEAN_BACKUPS")},
    "monitoring": {"type": "bool", "default": False, "fallback": env("DIGITALOCEAN_MONITORING")},
    "droplet_agent": {"type": "bool"},
    "tag_names": {"type": "list", "elements": "str", "default": [], "fallback": env("DIGITALOCEAN_TAGS")},
    "vpc_uuid": {"type": "str", "default": ""},
    "firewall": {"type": "bool", "default": True},
    "firewall_ids": {"type": "list", "elements": "str", "default": []},
    "poll_interval": {"type": "float", "default": 5.0},
}
"""The argument spec; documented in the module."""
