#!/usr/bin/python
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driver module gce: instances of Google Compute Engine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_machine
short_description: Keep a machine on Google Compute Engine
version_added: 1.0.0
author:
  - The dockyard.machine authors (@dockyard)
description:
  - Creates, changes, switches and removes an instance of Compute Engine with its boot disk, and a firewall rule for its owner's machines.
  - The instance has the machine's name, which is unique in its zone. Name, owner and token are labels from the call that makes it, and
    it is found again by them, in whatever zone it is.
  - Tags become labels, in lower case and with C(_) for what a label cannot hold. Tags that labels cannot hold to the letter are kept in
    the instance's metadata as well.
  - Use it through the role P(dockyard.machine.machine#role), which keeps the record and pins the host key.
requirements:
  - google-cloud-compute
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
  project:
    description:
      - Project in which everything is made. Empty means the project of the credentials.
      - The environment variables E(GOOGLE_PROJECT), E(GOOGLE_CLOUD_PROJECT), E(GCP_PROJECT), E(GCE_PROJECT) and
        E(CLOUDSDK_CORE_PROJECT) are read in this order.
    type: str
    default: ''
  credentials_file:
    description:
      - File with credentials in JSON, such as a service account's key or a workload identity configuration.
      - Without any credentials option, Application Default Credentials are used. They come from E(GOOGLE_APPLICATION_CREDENTIALS), from
        C(gcloud auth application-default login), or from the instance that this runs on.
      - Default from E(GCE_CREDENTIALS_FILE_PATH), which AWX sets, or E(GCP_SERVICE_ACCOUNT_FILE).
    type: path
    default: ''
  credentials_json:
    description: The same as text. Goes before O(credentials_file). Default from E(GCP_SERVICE_ACCOUNT_CONTENTS).
    type: str
    default: ''
  access_token:
    description:
      - An OAuth 2.0 access token, which is not renewed. Goes before the other credentials.
      - Default from E(GCP_ACCESS_TOKEN) or E(GOOGLE_OAUTH_ACCESS_TOKEN).
    type: str
    default: ''
  auth_kind:
    description:
      - V(auto) uses the first credentials that are given.
      - V(anonymous) uses none. It only works with an O(api_endpoint) on this computer, for tests with a simulator.
    type: str
    choices: [auto, anonymous]
    default: auto
  api_endpoint:
    description:
      - Another end point of the API, for example of Private Service Connect, as C(https://HOST).
      - Default from E(GOOGLE_COMPUTE_CUSTOM_ENDPOINT).
    type: str
    default: ''
  zone:
    description:
      - Zone of the machine. Changing it needs a new machine.
      - Default from E(GOOGLE_ZONE), E(GCE_ZONE) or E(CLOUDSDK_COMPUTE_ZONE).
    type: str
    default: us-central1-a
  machine_type:
    description:
      - Machine type, also a custom one such as V(e2-custom-2-4096), and one with Arm processors such as V(t2a-standard-1).
      - A stopped machine gets another type in place. Default from E(GOOGLE_MACHINE_TYPE).
    type: str
    default: e2-medium
  image:
    description:
      - V(debian-12), V(debian-13), V(ubuntu-22.04), V(ubuntu-24.04) or V(ubuntu-26.04), for the processor of O(machine_type).
      - Or C(PROJECT/FAMILY), C(PROJECT/NAME), C(PROJECT/global/images/NAME), C(PROJECT/global/images/family/FAMILY) or the URL of one of
        these. A bare name is looked for in O(project), as an image, then as a family.
      - Google's own Debian images come without C(cloud-init); a startup script installs it then, which takes some seconds and needs a
        way to the distribution's packages. Ubuntu's images have it, which is why one of them is the default.
      - Changing it needs a new machine. Default from E(GOOGLE_MACHINE_IMAGE).
    type: str
    default: ubuntu-24.04
  disk_size:
    description: Size of the boot disk in GB. It can grow in place, but not shrink. Default from E(GOOGLE_DISK_SIZE).
    type: int
    default: 10
  disk_type:
    description:
      - Type of the boot disk, such as V(pd-ssd). Empty means V(pd-balanced), or V(hyperdisk-balanced) for machine types that take nothing
        else. Default from E(GOOGLE_DISK_TYPE).
    type: str
    default: ''
  disk_auto_delete:
    description:
      - Remove the boot disk with the machine. When it is kept, a new machine of the same name, owner and zone starts from it.
    type: bool
    default: true
  disk_kms_key:
    description:
      - Encrypt the boot disk with this key of Cloud KMS, C(projects/P/locations/L/keyRings/R/cryptoKeys/K).
      - Without it Google's own keys encrypt it.
    type: str
    default: ''
  network:
    description: VPC network, a name or C(projects/PROJECT/global/networks/NAME). Never changed. Default from E(GOOGLE_NETWORK).
    type: str
    default: default
  subnetwork:
    description:
      - Subnetwork, a name or C(projects/PROJECT/regions/REGION/subnetworks/NAME), which may be of a Shared VPC. It decides the network.
      - Changing it needs a new machine. Default from E(GOOGLE_SUBNETWORK).
    type: str
    default: ''
  address:
    description:
      - Reserved external address, by name or number, which the machine keeps when it is stopped and started. It is never released.
      - Default from E(GOOGLE_ADDRESS).
    type: str
    default: ''
  use_internal_ip:
    description: Reach the machine at its private address, though it has a public one. Default from E(GOOGLE_USE_INTERNAL_IP).
    type: bool
    default: false
  private_address_only:
    description:
      - Make the machine without a public address and reach it at its private one. Default from E(GOOGLE_USE_INTERNAL_IP_ONLY).
    type: bool
    default: false
  network_tags:
    description: Network tags, for firewall rules of your own. Default from E(GOOGLE_TAGS), separated by commas.
    type: list
    elements: str
    default: []
  firewall:
    description:
      - Make a firewall rule that lets O(allowed_cidrs) reach SSH, the engine and O(open_ports) of the machines with the rule's network tag.
      - Machines of one owner that need the same rule share it; it goes with the last of them. No other rule is touched.
    type: bool
    default: true
  preemptible:
    description: Make a spot machine, which is cheap and may be stopped at any time. Default from E(GOOGLE_PREEMPTIBLE).
    type: bool
    default: false
    aliases: [spot]
  spot_fallback:
    description: Make an on-demand machine, with a warning, when the zone has no capacity for a spot machine.
    type: bool
    default: true
  service_account:
    description:
      - Service account that programs on the machine can act as, an e-mail address, or V(default) for the project's.
      - Empty means none. Default from E(GOOGLE_SERVICE_ACCOUNT).
    type: str
    default: ''
  scopes:
    description:
      - OAuth scopes of O(service_account), as URLs or their last part. Empty means V(cloud-platform), so that the account's roles decide.
      - Default from E(GOOGLE_SCOPES), separated by commas.
    type: list
    elements: str
    default: []
  secure_boot:
    description:
      - Secure Boot of the shielded VM. Without this option it is on for x86 images.
      - The virtual TPM and integrity monitoring are on for every image that boots by UEFI.
    type: bool
  metadata:
    description: Further metadata of the instance. A C(startup-script) replaces the one that installs C(cloud-init).
    type: dict
    default: {}
  use_existing:
    description:
      - Take over an instance of the machine's name that carries no mark of an owner. Its labels are set, and from then on it is like any
        other machine, O(state=absent) included. Default from E(GOOGLE_USE_EXISTING).
    type: bool
    default: false
seealso:
  - module: dockyard.machine.machine
"""

EXAMPLES = r"""
- name: Make a machine that only one network can reach
  dockyard.machine.gce_machine:
    name: web1
    owner: team
    project: my-project
    zone: europe-west1-b
    machine_type: e2-standard-2
    disk_size: 50
    ssh_user: admin
    ssh_public_key: "{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"
    allowed_cidrs: [203.0.113.0/24]
    open_ports: [80, 443]
    tags:
      stage: production

- name: Make a cheap machine with Arm processors in a subnetwork of your own, without a public address
  dockyard.machine.gce_machine:
    name: build1
    owner: team
    project: my-project
    zone: us-central1-a
    machine_type: t2a-standard-4
    image: debian-13
    subnetwork: builders
    private_address_only: true
    preemptible: true

- name: Remove it
  dockyard.machine.gce_machine:
    name: build1
    owner: team
    project: my-project
    state: absent
"""

RETURN = r"""
machine:
  description: The machine; its fields are the same for every driver. Empty when it is absent.
  type: dict
  returned: success
  sample:
    name: web1
    driver: gce
    id: '4387912345678901234'
    state: running
    address: 203.0.113.77
    private_address: 10.132.0.2
    ssh_user: docker-user
    endpoint: tcp://203.0.113.77:2376
    details:
      project: my-project
      zone: europe-west1-b
      machine_type: e2-standard-2
      image: ubuntu-24.04
actions:
  description: What was done, in order.
  type: list
  elements: str
  returned: success
  sample: [create]
needs_recreation:
  description: Options whose new value only a new machine can have.
  type: list
  elements: dict
  returned: success
  sample: []
leftovers:
  description: What was still there of a machine that is gone, and was removed by O(state=absent).
  type: list
  elements: str
  returned: success
  sample: []
"""

from ansible_collections.dockyard.machine.plugins.module_utils.driver_module import run_driver
from ansible_collections.dockyard.machine.plugins.module_utils.drivers.gce import GceDriver

DRIVER = GceDriver


def main() -> None:
    """Converge one machine."""
    run_driver(DRIVER)


if __name__ == "__main__":
    main()
