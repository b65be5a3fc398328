# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of a virtual machine, and finding the process that it became."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_qmp import SOCKET
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_state import VmRecord

DISK: t.Final = "disk.qcow2"
SEED: t.Final = "seed.iso"
PIDFILE: t.Final = "qemu.pid"
SERIAL_LOG: t.Final = "serial.log"

MACHINE_TYPES: t.Final = {"x86_64": "q35", "aarch64": "virt"}

# UEFI for aarch64, where Linux distributions, Homebrew and MacPorts put it.
_ARM_FIRMWARE: t.Final = (
    "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd",
    "/usr/share/AAVMF/AAVMF_CODE.fd",
    "/usr/share/edk2/aarch64/QEMU_EFI.fd",
    "/usr/share/edk2/aarch64/QEMU_EFI.silent.fd",
    "/usr/share/edk2-armvirt/aarch64/QEMU_EFI.fd",
    "/usr/share/qemu/edk2-aarch64-code.fd",
    "/opt/homebrew/share/qemu/edk2-aarch64-code.fd",
    "/usr/local/share/qemu/edk2-aarch64-code.fd",
    "/opt/local/share/qemu/edk2-aarch64-code.fd",
)


def find_firmware(arch: str, wanted: str) -> str:
    """The firmware's path; empty for QEMU's own BIOS.

    Raises:
        MachineError: ``missing_firmware``.
    """
    if wanted:
        path = os.path.expanduser(wanted)
        if os.path.isfile(path) and os.access(path, os.R_OK):
            return path
        raise MachineError("The firmware was not found", where=path, hint="Correct the option firmware", code="missing_firmware")
    if arch != "aarch64":
        return ""
    for path in _ARM_FIRMWARE:
        if os.path.isfile(path):
            return path
    raise MachineError(
        "There is no UEFI firmware for aarch64",
        why="none was found where distributions put it",
        hint="Install it (on Debian and Ubuntu: apt-get install qemu-efi-aarch64), or give the option firmware",
        code="missing_firmware",
    )


def mac_address(uuid: str) -> str:
    """A hardware address in QEMU's range, the same for the machine's whole life."""
    digest = hashlib.sha256(uuid.encode()).hexdigest()
    return "52:54:00:" + ":".join(digest[index : index + 2] for index in (0, 2, 4))


def arguments(record: VmRecord) -> list[str]:
    """The arguments of QEMU, which is started in the machine's folder.

    The files are named relative to it, so that no character in its path needs escaping.
    """
    forwards = "".join(
        f",hostfwd={item.protocol}:{record.bind_address}:{item.host_port}-:{item.guest_port}" for item in record.all_forwards()
    )
    accel = "tcg,thread=multi" if record.accel == "tcg" else record.accel
    cpu = record.cpu_model or ("max" if record.accel == "tcg" else "host")
    found = [
        "-name", f"guest={record.name},process=machine-{record.name}"[:200], "-uuid", record.uuid,
        "-nodefaults", "-no-user-config", "-display", "none", "-daemonize", "-pidfile", PIDFILE,
        "-machine", record.machine_type, "-accel", accel, "-cpu", cpu, "-smp", str(record.cpus), "-m", f"{record.memory}M",
        "-rtc", "base=utc",
        "-drive", f"if=none,id=disk,file={DISK},format=qcow2,discard=unmap,detect-zeroes=unmap,werror=enospc",
        "-device", "virtio-blk-pci,drive=disk,bootindex=1",
        "-drive", f"if=none,id=seed,file={SEED},format=raw,readonly=on",
        "-device", "virtio-blk-pci,drive=seed",
        # IPv6 of the user-mode network leads nowhere where the host has none, and makes every download wait for that.
        "-netdev", f"user,id=net,ipv6=off{forwards}",
        "-device", f"virtio-net-pci,netdev=net,mac={mac_address(record.uuid)},romfile=",
        "-device", "virtio-rng-pci",
        "-chardev", f"file,id=serial,path={SERIAL_LOG},append=on", "-serial", "chardev:serial",
        "-qmp", f"unix:{SOCKET},server=on,wait=off",
    ]  # fmt: skip
    if record.firmware:
        found += ["-bios", record.firmware]
    return found + record.extra_args


# --- the process ---------------------------------------------------------------------------------------------------


def _command_line(pid: int) -> str:
    """A process's arguments; empty when there is no such process."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return stream.read().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        if os.path.isdir("/proc/self"):
            return ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, timeout=10, check=False)
        return done.stdout
    return ""


def find_process(folder: str, uuid: str) -> int:
    """The machine's process id; 0 when it isn't running. A process that only took over the number is never returned."""
    try:
        with open(os.path.join(folder, PIDFILE), encoding="ascii", errors="replace") as stream:
            pid = int(stream.read().strip() or "0")
    except (OSError, ValueError):
        return 0
    # Zombies have no arguments.
    return pid if pid > 1 and uuid and f"-uuid {uuid}" in _command_line(pid) else 0


def kill_process(pid: int) -> None:
    """End a process at once; gone already is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
