#!/usr/bin/python
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driver module qemu: a virtual machine on the host that the module runs on."""

from __future__ import annotations

DOCUMENTATION = r"""
module: qemu_machine
short_description: Make a machine of a local QEMU virtual machine
version_added: 1.0.0
author:
  - The dockyard.machine authors (@dockyard)
description:
  - Creates, starts, stops and removes a virtual machine with QEMU on the host that the module runs on. That is the controller, or, with
    C(delegate_to), any host with QEMU.
  - Neither root nor libvirt is needed. The network is QEMU's user mode. SSH and the engine are forwarded to ports of the host, which the
    machine keeps for its life.
  - The disk is a copy-on-write layer on a cloud image. The image must have C(cloud-init) with its data source NoCloud, as those of
    Debian and Ubuntu have. M(dockyard.machine.machine_image) builds one.
  - The machine goes on running when the run ends. After the host was restarted, the machine is there, stopped, and
    O(state=started) starts it.
extends_documentation_fragment:
  - dockyard.machine.driver
  - dockyard.machine.attributes
  - dockyard.machine.attributes.actiongroup
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
requirements:
  - C(qemu-system-x86_64) or C(qemu-system-aarch64), 5.2 or newer
  - C(qemu-img)
  - one of C(xorriso), C(genisoimage), C(mkisofs) and C(hdiutil)
notes:
  - O(state=restarted) means a shutdown and a new start, so that changed options take effect.
  - The seed disk holds O(user_data) for as long as the machine exists. Only the user who made the machine can read it.
options:
  state_dir:
    description:
      - Folder in which the machines live, one sub-folder each.
      - C(dockyard/qemu) in E(XDG_DATA_HOME) when this isn't given.
    type: path
    default: ''
  image:
    description:
      - The cloud image that the disk is based on. A path, or an C(https), C(http) or C(file) address.
      - A new image under the same name does not change a machine that exists. Another name is reported as needing re-creation.
      - Required to create a machine.
    type: str
    default: ''
  image_checksum:
    description:
      - Checksum of O(image) as V(sha256:HEX) or V(sha512:HEX), or the address or path of a list of checksums such as C(SHA512SUMS).
      - Required when O(image) is downloaded.
    type: str
    default: ''
  image_cache_dir:
    description:
      - Folder for downloaded images. C(dockyard/images) in E(XDG_CACHE_HOME) when this isn't given.
    type: path
    default: ''
  cpus:
    description: Number of virtual CPUs. Changed when the machine is stopped.
    type: int
    default: 2
  memory:
    description: Memory in MiB. Changed when the machine is stopped.
    type: int
    default: 1024
  disk:
    description:
      - Size of the disk in GiB. Room is taken only as it is used.
      - The disk can grow when the machine is stopped. It cannot shrink.
    type: int
    default: 10
  arch:
    description: Architecture of the machine. That of the host when this isn't given.
    type: str
    choices: ['', x86_64, aarch64]
    default: ''
  accel:
    description:
      - How instructions are executed.
      - V(auto) takes hardware acceleration (KVM on Linux, HVF on macOS) when a test guest really runs with it, and software emulation
        (V(tcg)) when not. A machine that fails with hardware acceleration is started again without.
      - V(kvm) and V(hvf) fail when they don't work.
      - V(tcg) works everywhere and is ten times slower.
    type: str
    choices: [auto, kvm, hvf, tcg]
    default: auto
  cpu_model:
    description: CPU model in QEMU's words. The host's own with hardware acceleration and V(max) without when this isn't given.
    type: str
    default: ''
  machine_type:
    description: Machine type in QEMU's words. V(q35) for x86_64 and V(virt) for aarch64 when this isn't given.
    type: str
    default: ''
  firmware:
    description:
      - A firmware file such as C(/usr/share/ovmf/OVMF.fd).
      - QEMU's BIOS for x86_64 and the first UEFI that is found for aarch64 when this isn't given.
    type: path
    default: ''
  qemu_binary:
    description: QEMU's program. C(qemu-system-x86_64) or C(qemu-system-aarch64) when this isn't given.
    type: path
    default: ''
  bind_address:
    description:
      - IPv4 address of the host on which forwarded ports listen. Everybody who reaches that address reaches the ports.
    type: str
    default: 127.0.0.1
  address:
    description:
      - Address or name at which others reach O(bind_address). Required when that is V(0.0.0.0).
    type: str
    default: ''
  ssh_port:
    description: Port of the host that leads to SSH. A free one is picked, and kept, when this is V(0).
    type: int
    default: 0
  engine_forward_port:
    description: Port of the host that leads to the engine. A free one is picked, and kept, when this is V(0).
    type: int
    default: 0
  forwards:
    description: Further ports of the host that lead into the machine.
    type: list
    elements: dict
    default: []
    suboptions:
      host_port:
        description: Port of the host. A free one is picked, and kept, when this is V(0).
        type: int
        default: 0
      guest_port:
        description: Port of the machine.
        type: int
        required: true
      protocol:
        description: Protocol.
        type: str
        choices: [tcp, udp]
        default: tcp
  network_config:
    description: Network configuration for C(cloud-init), in its format. DHCP when this isn't given.
    type: str
    default: ''
  extra_args:
    description:
      - Arguments that QEMU gets besides ours.
      - They can give the guest access to the host. Take them from nobody whom you don't trust.
    type: list
    elements: str
    default: []
seealso:
  - module: dockyard.machine.machine_image
"""

EXAMPLES = r"""
- name: Create a machine of an image that was built here
  dockyard.machine.qemu_machine:
    name: demo
    image: /var/cache/dockyard/images/debian-bookworm-amd64-0123456789ab.qcow2
    ssh_public_key: "{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"
    memory: 2048

- name: Create one of a downloaded image, on a hypervisor, reachable from elsewhere
  dockyard.machine.qemu_machine:
    name: web1
    image: https://images.example.org/debian-12-genericcloud-amd64.qcow2
    image_checksum: https://images.example.org/SHA512SUMS
    bind_address: 192.0.2.20
    ssh_public_key: "{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"
    forwards:
      - host_port: 8080
        guest_port: 80
  delegate_to: hypervisor1

- name: Stop it
  dockyard.machine.qemu_machine:
    name: demo
    state: stopped

- name: Remove it with its disk
  dockyard.machine.qemu_machine:
    name: demo
    state: absent
"""

RETURN = r"""
machine:
  description: The machine; its fields are the same for every driver. Null when there is none.
  type: dict
  returned: success
  sample:
    name: demo
    driver: qemu
    id: 6a2f41a3-c54c-4e3b-8b4a-1d2e3f405162
    state: running
    address: 127.0.0.1
    ssh_user: debian
    ssh_port: 24022
    engine_port: 24376
    endpoint: tcp://127.0.0.1:24376
    details:
      folder: /home/me/.local/share/dockyard/qemu/demo
      accel: kvm
      cpus: 2
      memory: 1024
      disk: 10
      serial_log: /home/me/.local/share/dockyard/qemu/demo/serial.log
actions:
  description: What was done, in order.
  type: list
  elements: str
  returned: success
  sample: [create]
needs_recreation:
  description: Options that only a new machine can have.
  type: list
  elements: dict
  returned: success
  sample: []
leftovers:
  description: What a run that was cut short had left, and which was removed.
  type: list
  elements: str
  returned: success
  sample: []
"""

from ansible_collections.dockyard.machine.plugins.module_utils.driver_module import run_driver
from ansible_collections.dockyard.machine.plugins.module_utils.drivers.qemu import QemuDriver

DRIVER = QemuDriver


def main() -> None:
    """Converge one machine."""
    run_driver(DRIVER)


if __name__ == "__main__":
    main()
