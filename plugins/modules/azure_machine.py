#!/usr/bin/python
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driver module azure: virtual machines of Microsoft Azure."""

from __future__ import annotations

DOCUMENTATION = r"""
module: azure_machine
short_description: Keep a machine on Microsoft Azure
version_added: 1.0.0
author:
  - The dockyard.machine authors (@dockyard)
description:
  - Creates, changes, switches and removes a virtual machine with its managed disk, network interface, public address and network security
    group, and a resource group and virtual network for its owner's machines.
  - Everything has a name made from the machine's, and carries name, owner and token as tags from the call that makes it. By these tags the
    machine is found again in the whole subscription.
  - Use it through the role P(dockyard.machine.machine#role), which keeps the record and pins the host key.
requirements:
  - azure-identity
  - azure-mgmt-compute
  - azure-mgmt-network
  - azure-mgmt-resource
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
  subscription_id:
    description: Subscription in which everything is made, by its id. Default from E(AZURE_SUBSCRIPTION_ID).
    type: str
    default: ''
  client_id:
    description:
      - Application id of a service principal, with O(client_secret); or client id of a managed identity, without.
      - Default from E(AZURE_CLIENT_ID).
    type: str
    default: ''
  client_secret:
    description:
      - Secret of the service principal O(client_id). Without it, the default chain of C(azure-identity) is used. That is a certificate or
        workload identity from the environment, a managed identity, or the login of C(az login).
      - Default from E(AZURE_CLIENT_SECRET), or E(AZURE_SECRET), which AWX sets.
    type: str
    default: ''
  tenant:
    description: Tenant of the service principal. Default from E(AZURE_TENANT_ID), or E(AZURE_TENANT), which AWX sets.
    type: str
    default: ''
  environment:
    description:
      - Which of Microsoft's clouds. V(AzurePublicCloud), V(AzureUSGovernmentCloud) or V(AzureChinaCloud).
      - Default from E(AZURE_ENVIRONMENT) or E(AZURE_CLOUD_ENVIRONMENT).
    type: str
    default: AzurePublicCloud
  auth_kind:
    description:
      - V(auto) uses the first credentials that are given.
      - V(anonymous) uses none. It only works with an O(api_endpoint) on this computer, for tests with a simulator.
    type: str
    choices: [auto, anonymous]
    default: auto
  api_endpoint:
    description:
      - Another end point of Azure Resource Manager, as C(https://HOST). Default from E(AZURE_RESOURCE_MANAGER_ENDPOINT).
    type: str
    default: ''
  resource_group:
    description:
      - A resource group of yours, which has to exist. Nothing in it is touched but what carries the machine's mark.
      - Without it the machines of an owner in a location get one, which goes with the last of them.
      - Default from E(AZURE_RESOURCE_GROUP).
    type: str
    default: ''
  location:
    description: Location of the machine. Changing it needs a new machine. Default from E(AZURE_LOCATION).
    type: str
    default: westus
  size:
    description:
      - Size of the machine, also one with Arm processors such as V(Standard_D2ps_v5).
      - A stopped machine gets another size in place. Default from E(AZURE_SIZE).
    type: str
    default: Standard_B2s
  image:
    description:
      - V(debian-12), V(debian-13), V(ubuntu-22.04), V(ubuntu-24.04) or V(ubuntu-26.04), for the processor of O(size).
      - Or a URN C(PUBLISHER:OFFER:SKU:VERSION), whose version may be V(latest), or the id of an image of a gallery or of your own.
      - Changing it needs a new machine. Default from E(AZURE_IMAGE).
    type: str
    default: debian-12
  disk_size:
    description: Size of the disk in GB; V(0) is the image's own. It can grow in place while the machine is stopped, but not shrink.
    type: int
    default: 0
  storage_type:
    description: Kind of the managed disk, such as V(Premium_LRS). Default from E(AZURE_STORAGE_TYPE).
    type: str
    default: StandardSSD_LRS
  disk_encryption_set:
    description: Id of a disk encryption set, to encrypt the disk with your own key. Without it the platform's keys encrypt it.
    type: str
    default: ''
  encryption_at_host:
    description: Encrypt temporary disks and caches too. The subscription has to have the feature C(EncryptionAtHost).
    type: bool
    default: false
  vnet:
    description:
      - A virtual network of yours, as C(GROUP:NAME), C(NAME) in O(resource_group), or an id. Never changed.
      - Without it the machines of an owner in a resource group get one. Default from E(AZURE_VNET).
    type: str
    default: ''
  subnet:
    description: The subnet of O(vnet). Empty means V(docker-machine), as Docker Machine named it. Default from E(AZURE_SUBNET).
    type: str
    default: ''
  subnet_prefix:
    description: Private range of a network that is made. Default from E(AZURE_SUBNET_PREFIX).
    type: str
    default: 192.168.0.0/16
  security_group:
    description:
      - A network security group of yours, as C(GROUP:NAME), C(NAME) in O(resource_group), or an id. Never changed.
      - With it O(allowed_cidrs) and O(open_ports) have no effect.
    type: str
    default: ''
  private_ip_address:
    description: A fixed private address in the subnet. Without it Azure chooses one, which stays as long as the machine.
    type: str
    default: ''
  use_private_ip:
    description: Reach the machine at its private address, though it has a public one.
    type: bool
    default: false
  dns:
    description:
      - Label of a public DNS name, C(LABEL.LOCATION.cloudapp.azure.com). The engine's certificate gets that name.
      - Default from E(AZURE_DNS_LABEL).
    type: str
    default: ''
  zone:
    description: Availability zone, such as V(1), for machine, disk and address. Changing it needs a new machine.
    type: str
    default: ''
  availability_set:
    description:
      - An availability set of yours, as C(GROUP:NAME), C(NAME) in O(resource_group), or an id. Never changed.
      - Default from E(AZURE_AVAILABILITY_SET).
    type: str
    default: ''
  security_type:
    description:
      - V(auto) is V(trusted_launch) (Secure Boot and a virtual TPM) where both size and image can do it, else V(standard).
      - For an image by id V(auto) is V(standard), because Azure does not tell what it can do.
    type: str
    choices: [auto, trusted_launch, standard]
    default: auto
  spot:
    description: Make a spot machine, which is cheap and may be deallocated at any time.
    type: bool
    default: false
  spot_fallback:
    description: Make an on-demand machine, with a warning, when there is no capacity or quota for a spot machine.
    type: bool
    default: true
  spot_max_price:
    description: The most that an hour of a spot machine may cost, in US dollars. V(-1) is the on-demand price.
    type: float
    default: -1.0
  keep_allocated:
    description: Keep the hardware of a stopped machine, which goes on costing. Without it a stopped machine is deallocated.
    type: bool
    default: false
seealso:
  - module: dockyard.machine.machine
"""

EXAMPLES = r"""
- name: Make a machine that only one network can reach
  dockyard.machine.azure_machine:
    name: web1
    owner: team
    subscription_id: 11111111-2222-3333-4444-555555555555
    location: westeurope
    zone: "1"
    size: Standard_D2s_v5
    disk_size: 64
    ssh_user: deploy
    ssh_public_key: "{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"
    allowed_cidrs: [203.0.113.0/24]
    open_ports: [80, 443]
    tags:
      stage: production

- name: Make a cheap machine with Arm processors in a network of your own, without a public address
  dockyard.machine.azure_machine:
    name: build1
    owner: team
    location: westeurope
    size: Standard_D4ps_v5
    image: ubuntu-24.04
    resource_group: builders
    vnet: shared:lan
    subnet: builders
    private_address_only: true
    spot: true
    ssh_public_key: "{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"

- name: Remove it
  dockyard.machine.azure_machine:
    name: build1
    owner: team
    location: westeurope
    resource_group: builders
    state: absent
"""

RETURN = r"""
machine:
  description: The machine; its fields are the same for every driver. Empty when it is absent.
  type: dict
  returned: success
  sample:
    name: web1
    driver: azure
    id: 0d3f2c5e-8a57-4d0c-9a3b-0f6f1d1c2b3a
    state: running
    address: 203.0.113.77
    private_address: 192.168.0.4
    ssh_user: docker-user
    endpoint: tcp://203.0.113.77:2376
    details:
      resource_group: dockyard-2bb80d537b-westeurope
      location: westeurope
      size: Standard_D2s_v5
      image: debian-12
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
from ansible_collections.dockyard.machine.plugins.module_utils.drivers.azure import AzureDriver

DRIVER = AzureDriver


def main() -> None:
    """Converge one machine."""
    run_driver(DRIVER)


if __name__ == "__main__":
    main()
