#!/usr/bin/python
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driver module ec2: instances of Amazon EC2."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ec2_machine
short_description: Make a machine of an Amazon EC2 instance
version_added: 1.0.0
author:
  - The dockyard.machine authors (@dockyard)
description:
  - Makes, finds, starts, stops and removes one EC2 instance with its disk, address, key pair and security group.
  - Everything is tagged in the call that makes it and found by these tags, so that O(state=absent) works without a record.
  - Machines of one O(owner) with the same firewall rules share a security group. It goes with its last machine. A group that is named in
    O(security_group) is only used, never changed.
  - An option that is not given is not compared with an existing machine.
  - Use it through the role P(dockyard.machine.machine#role), which also keeps the record and the keys.
requirements:
  - boto3 >= 1.34
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
  access_key:
    description:
      - Access key id. Without it the AWS SDK looks where it always does (O(profile), shared files, single sign-on, the instance's role).
      - The environment variable E(AWS_ACCESS_KEY_ID) is used when it is not given.
    type: str
    default: ''
  secret_key:
    description: Secret access key; else the environment variable E(AWS_SECRET_ACCESS_KEY).
    type: str
    default: ''
  session_token:
    description: Session token of temporary credentials; else E(AWS_SESSION_TOKEN) or E(AWS_SECURITY_TOKEN).
    type: str
    default: ''
  profile:
    description: Profile of the AWS SDK's configuration; else E(AWS_PROFILE).
    type: str
    default: ''
  region:
    description: Region; else E(AWS_REGION), E(AWS_DEFAULT_REGION), the region of the profile, V(us-east-1).
    type: str
    default: ''
  endpoint:
    description: Host name or URL of another service that speaks EC2's language; else E(AWS_ENDPOINT).
    type: str
    default: ''
  insecure_transport:
    description: Allow an O(endpoint) without TLS; else E(AWS_INSECURE_TRANSPORT).
    type: bool
    default: false
  retries:
    description: How often the SDK repeats a call that failed on the way or was throttled; V(-1) and V(0) switch that off.
    type: int
    default: 5
  lookup_cache:
    description:
      - Seconds for which answers that hold for many machines (the id of an image or group, the default VPC, a type's architecture) are
        kept in the user's cache folder, so that many machines take few calls. V(0) switches that off.
    type: int
    default: 300
  image:
    description:
      - Id of an image (C(ami-...)), an alias (V(debian-12), V(debian-13), V(ubuntu-22.04), V(ubuntu-24.04), V(ubuntu-26.04)), or a name,
        with C(*) and C(?), of an image of O(image_owners).
      - Of an alias or name the newest image for the architecture of O(instance_type) is taken. Empty means V(debian-12).
      - E(AWS_AMI) is used when it is not given.
    type: str
    default: ''
    aliases: [ami]
  image_owners:
    description: Accounts whose images are looked through. Empty means the publisher of an alias, and this account for a name.
    type: list
    elements: str
    default: []
  instance_type:
    description: Instance type; else E(AWS_INSTANCE_TYPE), else V(t3.micro). Changed in place while the machine is stopped.
    type: str
    default: ''
  zone:
    description: Availability zone, or its letter; else E(AWS_ZONE). Empty lets EC2 choose one that has room.
    type: str
    default: ''
  vpc_id:
    description: VPC; else E(AWS_VPC_ID), else the region's default VPC.
    type: str
    default: ''
  subnet_id:
    description: Subnet; else E(AWS_SUBNET_ID). Empty chooses one of the VPC's.
    type: str
    default: ''
  security_group:
    description:
      - Ids or names of security groups to use instead of our own; else E(AWS_SECURITY_GROUP). They are never changed and never removed, so
        they have to let SSH and O(engine_port) through themselves.
    type: list
    elements: str
    default: []
  security_group_readonly:
    description: Leave the rules of our own group as they are once it was made; else E(AWS_SECURITY_GROUP_READONLY).
    type: bool
    default: false
  keypair_name:
    description: An existing key pair of EC2 to use instead of importing O(ssh_public_key); else E(AWS_KEYPAIR_NAME). It is never removed.
    type: str
    default: ''
  device_name:
    description: Device of the root disk; else E(AWS_DEVICE_NAME), else what the image says.
    type: str
    default: ''
  root_size:
    description: Size of the root disk in GiB; else E(AWS_ROOT_SIZE), else 16. It can grow in place.
    type: int
  volume_type:
    description: Type of the root disk; else E(AWS_VOLUME_TYPE), else V(gp3). Changed in place.
    type: str
    default: ''
  volume_iops:
    description: IOPS of a root disk of type V(gp3), V(io1) or V(io2). Changed in place.
    type: int
  volume_throughput:
    description: Throughput in MiB/s of a root disk of type V(gp3). Changed in place.
    type: int
  encrypt_volume:
    description: Encrypt the root disk.
    type: bool
    default: true
  kms_key:
    description: KMS key (id, alias or ARN) for the root disk. Empty means the account's key for EBS.
    type: str
    default: ''
  iam_instance_profile:
    description: Name or ARN of an instance profile; else E(AWS_INSTANCE_PROFILE). Changed in place.
    type: str
    default: ''
  ssh_port:
    description: TCP port of the image's SSH service; else E(AWS_SSH_PORT).
    type: int
    default: 22
  request_spot_instance:
    description:
      - Ask for a spot machine. It costs less, cannot be stopped, has no O(delete_protection) at EC2, and EC2 may take it away.
    type: bool
    default: false
  spot_price:
    description: Highest price an hour in US dollars. Empty means the on-demand price, as AWS recommends.
    type: str
    default: ''
  spot_fallback:
    description: Make an on-demand machine when no spot machine is to be had.
    type: bool
    default: true
  block_duration_minutes:
    description: Minutes that a spot machine shall be kept, where the account still has that. 0 means nothing is asked for.
    type: int
    default: 0
  use_private_address:
    description: Reach the machine at its private address though it has a public one.
    type: bool
    default: false
  monitoring:
    description: Detailed CloudWatch monitoring. Changed in place.
    type: bool
    default: false
  use_ebs_optimized_instance:
    description: Ask for EBS optimisation, for older types that do not have it anyway.
    type: bool
    default: false
  http_tokens:
    description: V(required) allows version 2 of the metadata service only. Changed in place.
    type: str
    choices: [required, optional]
    default: required
  http_put_response_hop_limit:
    description: Hops that an answer of the metadata service may take; 1 keeps it from containers. Changed in place.
    type: int
    default: 1
seealso:
  - name: Guide to the driver
    description: Credentials, what is created, and a least-privilege policy.
    link: https://github.com/dockyard/machine/blob/main/docs/drivers/ec2.md
"""

EXAMPLES = r"""
- name: A machine with the current Debian
  dockyard.machine.ec2_machine:
    name: web1
    owner: me
    region: eu-central-1
    ssh_public_key: "{{ lookup('file', '~/.ssh/id_ed25519.pub') }}"

- name: A bigger one on Graviton, reachable from one network
  dockyard.machine.ec2_machine:
    name: build1
    owner: me
    region: eu-central-1
    instance_type: c7g.large
    image: ubuntu-24.04
    root_size: 60
    allowed_cidrs:
      - 203.0.113.0/24
    tags:
      team: build

- name: Remove it
  dockyard.machine.ec2_machine:
    name: build1
    owner: me
    region: eu-central-1
    state: absent
"""

RETURN = r"""
machine:
  description: The machine; its fields are the same for every driver. Its C(details) hold what only EC2 knows.
  type: dict
  returned: success
  sample:
    name: web1
    driver: ec2
    id: i-0123456789abcdef0
    state: running
    address: 203.0.113.10
    private_address: 172.31.5.6
    ssh_user: admin
    ssh_port: 22
    endpoint: tcp://203.0.113.10:2376
    details:
      region: eu-central-1
      availability_zone: eu-central-1a
      image: ami-0123456789abcdef0
      instance_type: t3.micro
      security_group_ids: [sg-0123456789abcdef0]
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
leftovers:
  description: What an earlier machine had left behind, and was removed.
  type: list
  elements: str
  returned: success
"""

from ansible_collections.dockyard.machine.plugins.module_utils.driver_module import run_driver
from ansible_collections.dockyard.machine.plugins.module_utils.drivers.ec2 import Ec2Driver

DRIVER = Ec2Driver


def main() -> None:
    """Converge one machine."""
    run_driver(DRIVER)


if __name__ == "__main__":
    main()
