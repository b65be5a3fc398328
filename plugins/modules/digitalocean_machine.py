#!/usr/bin/python
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driver module digitalocean: Droplets."""

from __future__ import annotations

DOCUMENTATION = r"""
module: digitalocean_machine
short_description: Keep a machine at DigitalOcean
version_added: 1.0.0
author:
  - The dockyard.machine authors (@dockyard)
description:
  - Creates, changes, switches and removes a Droplet with its SSH key in the account and a firewall.
  - Everything carries the machine's name and owner from the call that makes it. It is found again by them, without any other memory.
  - Droplets that Docker Machine made are taken over by their id.
  - Use it through the role P(dockyard.machine.machine#role), which keeps the record and pins the host key.
requirements:
  - pydo >= 0.8
extends_documentation_fragment:
  - dockyard.machine.driver
  - dockyard.machine.cloud
  - dockyard.machine.attributes
  - dockyard.machine.attributes.actiongroup
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  access_token:
    description:
      - API token. It needs the scopes that the driver's page in the documentation lists.
      - The environment variables E(DIGITALOCEAN_ACCESS_TOKEN), E(DIGITALOCEAN_TOKEN), E(DO_API_TOKEN), E(DO_API_KEY) and
        E(DO_OAUTH_TOKEN) are read in this order.
    type: str
  api_url:
    description: End point of the API, an C(https) URL. Default from E(DIGITALOCEAN_API_URL).
    type: str
    default: https://api.digitalocean.com
  region:
    description: Slug of the region. Default from E(DIGITALOCEAN_REGION). Changing it needs a new machine.
    type: str
    default: nyc3
  size:
    description:
      - Slug of the size. Default from E(DIGITALOCEAN_SIZE).
      - A stopped machine is resized in place.
    type: str
    default: s-1vcpu-1gb
  resize_disk:
    description: Let a resize enlarge the disk as well. It can never be made smaller again.
    type: bool
    default: false
  image:
    description:
      - V(debian-12), V(debian-13), V(ubuntu-22.04), V(ubuntu-24.04) or V(ubuntu-26.04), a slug, an id, or the name of one of the
        account's own images, of which the newest is taken. Default from E(DIGITALOCEAN_IMAGE). Changing it needs a new machine.
    type: str
    default: debian-12
  ssh_key_fingerprint:
    description:
      - Fingerprint (MD5, with colons) or id of an SSH key that the account has. It is used and never removed.
      - Empty adds O(ssh_public_key) to the account for the life of the machine. Default from E(DIGITALOCEAN_SSH_KEY_FINGERPRINT).
    type: str
    default: ''
  ssh_port:
    description: TCP port at which the image's SSH service listens. Default from E(DIGITALOCEAN_SSH_PORT).
    type: int
    default: 22
  ipv6:
    description: Give the machine an IPv6 address as well. Default from E(DIGITALOCEAN_IPV6). Changing it needs a new machine.
    type: bool
    default: false
  private_networking:
    description:
      - Known from Docker Machine. Does nothing, as every Droplet has a private network; choose it with O(vpc_uuid).
      - Default from E(DIGITALOCEAN_PRIVATE_NETWORKING).
    type: bool
    default: false
  backups:
    description: Let DigitalOcean make backups. Default from E(DIGITALOCEAN_BACKUPS).
    type: bool
    default: false
  monitoring:
    description: Install the agent for monitoring when the machine is made. Default from E(DIGITALOCEAN_MONITORING).
    type: bool
    default: false
  droplet_agent:
    description: Install the agent for the web console. Without this option it is installed where the image supports it.
    type: bool
  tag_names:
    description: Tags without a value, beside O(tags). Default from E(DIGITALOCEAN_TAGS), separated by commas.
    type: list
    elements: str
    default: []
  vpc_uuid:
    description: The VPC for the machine. Empty means the region's default. Changing it needs a new machine.
    type: str
    default: ''
  firewall:
    description:
      - Make a firewall that lets O(allowed_cidrs) reach SSH, the engine and O(open_ports), and nothing else.
      - Machines of one owner that need the same rules share it; it goes with the last of them.
    type: bool
    default: true
  firewall_ids:
    description:
      - Ids of your own firewalls, in place of the one that O(firewall) makes. Their rules are never changed.
      - A firewall takes at most ten Droplets this way. One that applies to a tag of O(tag_names) takes any number.
    type: list
    elements: str
    default: []
  poll_interval:
    description: Seconds between two looks at a machine that changes. The API allows 250 calls a minute for all together.
    type: float
    default: 5.0
seealso:
  - module: dockyard.machine.machine
"""

EXAMPLES = r"""
- name: Make a machine that only one network can reach
  dockyard.machine.digitalocean_machine:
    name: web1
    owner: team
    region: fra1
    size: s-2vcpu-4gb
    image: debian-13
    ssh_public_key: "{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"
    allowed_cidrs: [203.0.113.0/24]
    open_ports: [80, 443]
    tags:
      stage: production

- name: Remove it
  dockyard.machine.digitalocean_machine:
    name: web1
    owner: team
    state: absent
"""

RETURN = r"""
machine:
  description: The machine; its fields are the same for every driver. Empty when it is absent.
  type: dict
  returned: success
  sample:
    name: web1
    driver: digitalocean
    id: '3164444'
    state: running
    address: 203.0.113.10
    private_address: 10.108.0.2
    endpoint: tcp://203.0.113.10:2376
    details:
      region: fra1
      size: s-2vcpu-4gb
      image: debian-13-x64
actions:
  description: What was done, in order.
  type: list
  elements: str
  returned: success
  sample: [create]
needs_recreation:
  description: Options that only a new machine can have, each with C(option), C(actual) and C(wanted).
  type: list
  elements: dict
  returned: success
  sample: []
leftovers:
  description: What was found of a machine that is gone.
  type: list
  elements: str
  returned: success
  sample: []
"""

from ansible_collections.dockyard.machine.plugins.module_utils.driver_module import run_driver
from ansible_collections.dockyard.machine.plugins.module_utils.drivers.digitalocean import DigitalOceanDriver

DRIVER = DigitalOceanDriver


def main() -> None:
    """Converge one machine."""
    run_driver(DRIVER)


if __name__ == "__main__":
    main()
