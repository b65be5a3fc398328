# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bootable disk from a root tree, without loop devices or mounts.

The layout is that of Debian's cloud images, so that growing the root works: partition 1 is the root and comes
last on the disk, 14 holds GRUB's BIOS part, 15 is the EFI system partition.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import struct
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_tools import need_programs, run_program
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline

SECTOR: t.Final = 512
_MIB: t.Final = 2048  # sectors
_BIOS_START: t.Final = 1 * _MIB
_BIOS_END: t.Final = 4 * _MIB
_ESP_END: t.Final = 68 * _MIB

# What GRUB, old e2fsprogs and every supported kernel know; the builder's own defaults may be newer than the guest.
_EXT4_FEATURES: t.Final = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,"
    "large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
)
_GRUB_MODULES: t.Final = (
    "part_gpt", "ext2", "fat", "normal", "linux", "search", "search_fs_uuid", "configfile",
    "echo", "serial", "terminal", "test", "sleep", "minicmd", "boot", "gzio",
)  # fmt: skip

# Where GRUB's boot sector and its first stage keep what grub-install writes into them (GRUB 2: boot.S, diskboot.S).
_BOOT_KERNEL_SECTOR: t.Final = 0x5C
_BOOT_DRIVE: t.Final = 0x64
_BOOT_DRIVE_CHECK: t.Final = 0x66
_BOOT_CODE: t.Final = 440
_DISKBOOT_LIST: t.Final = SECTOR - 12
_DISKBOOT_SEGMENT: t.Final = 0x820

TOOLS: t.Final = ("sgdisk", "mke2fs", "mkfs.vfat", "mmd", "mcopy", "qemu-img", "chroot")


@dataclasses.dataclass(frozen=True)
class Firmware:
    """How an architecture boots."""

    efi_format: str
    efi_file: str
    efi_modules: tuple[str, ...]
    bios_format: str = ""
    root_type: str = "8300"


FIRMWARE: t.Final = {
    "amd64": Firmware("x86_64-efi", "BOOTX64.EFI", ("efi_gop", "all_video"), "i386-pc"),
    "arm64": Firmware("arm64-efi", "BOOTAA64.EFI", ("efi_gop", "all_video")),
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the disk shall be."""

    arch: str
    size_mib: int
    root_uuid: str
    """UUID of the root file system."""


def early_config(root_uuid: str) -> str:
    """What GRUB does first: find the root by its UUID and read the configuration there."""
    return f"search --no-floppy --fs-uuid --set=root {root_uuid}\nset prefix=($root)/boot/grub\nconfigfile ($root)/boot/grub/grub.cfg\n"


def patch_boot_sector(boot: bytes, core: bytes, start: int) -> tuple[bytes, bytes]:
    """Tie GRUB's boot sector and core image together, as grub-install does for a BIOS boot partition.

    Args:
        boot: boot.img, one sector.
        core: core.img; its first sector is diskboot.img.
        start: the sector where ``core`` will stand.

    Returns:
        The boot sector's code (440 bytes) and the core image, padded to whole sectors.
    """
    first = bytearray(boot)
    padded = bytearray(core + b"\0" * (-len(core) % SECTOR))
    sectors = len(padded) // SECTOR
    if len(first) != SECTOR or sectors < 2 or sectors > _BIOS_END - _BIOS_START:
        raise MachineError("GRUB's images have an unexpected size", why=f"{len(first)} and {len(padded)} bytes", code="grub_images")
    struct.pack_into("<Q", first, _BOOT_KERNEL_SECTOR, start)
    first[_BOOT_DRIVE] = 0xFF
    first[_BOOT_DRIVE_CHECK : _BOOT_DRIVE_CHECK + 2] = b"\x90\x90"
    struct.pack_into("<QHH", padded, _DISKBOOT_LIST, start + 1, sectors - 1, _DISKBOOT_SEGMENT)
    return bytes(first[:_BOOT_CODE]), bytes(padded)


class DiskBuilder:
    """Writes one disk.

    Args:
        root: the tree; GRUB's files and its ``grub-mkimage`` are taken from it.
        work: an empty folder for temporary files, on the disk that the image comes to.
        layout: what the disk shall be.
        deadline: for each step together.
        keep_fds: descriptors that the programs inherit (locks).
    """

    def __init__(self, root: str, work: str, layout: Layout, deadline: Deadline, keep_fds: t.Sequence[int] = ()) -> None:
        self.root = root
        self.work = work
        self.layout = layout
        self.deadline = deadline
        self.keep_fds = keep_fds
        self.tools = need_programs(TOOLS, "building an image")
        self.firmware = FIRMWARE[layout.arch]

    def build(self, target: str) -> None:
        """Write the disk as qcow2 to ``target``."""
        raw = os.path.join(self.work, "disk.raw")
        efi = self._grub_image(self.firmware.efi_format, self.firmware.efi_modules, "/EFI/debian")
        core = self._grub_image(self.firmware.bios_format, ("biosdisk",), "/boot/grub") if self.firmware.bios_format else ""
        with open(raw, "wb") as stream:
            stream.truncate(self.layout.size_mib * _MIB * SECTOR)
        self._partitions(raw)
        self._root_file_system(raw)
        self._copy_in(raw, self._efi_partition(efi), _BIOS_END)
        if core:
            self._boot_code(raw, core)
        self._run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, target, what="Converting the disk")
        os.unlink(raw)

    def _run(self, tool: str, *arguments: str, what: str) -> str:
        return run_program([self.tools[tool], *arguments], what=what, deadline=self.deadline, keep_fds=self.keep_fds)

    def _grub_image(self, kind: str, modules: tuple[str, ...], prefix: str) -> str:
        """GRUB's core for one platform, made by the tree's own GRUB; returns its path."""
        inside = "/tmp/grub-image"
        folder = self.root + inside
        os.makedirs(folder, mode=0o700, exist_ok=True)
        try:
            with open(folder + "/early.cfg", "w", encoding="ascii") as stream:
                stream.write(early_config(self.layout.root_uuid))
            self._run(
                "chroot", self.root, "grub-mkimage", "-O", kind, "-d", f"/usr/lib/grub/{kind}", "-c", f"{inside}/early.cfg",
                "-p", prefix, "-o", f"{inside}/image", *_GRUB_MODULES, *modules, what="Making the boot loader",
            )  # fmt: skip
            path = os.path.join(self.work, f"grub-{kind}")
            shutil.copyfile(folder + "/image", path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return path

    def _partitions(self, raw: str) -> None:
        bios = [f"-n14:{_BIOS_START}:{_BIOS_END - 1}", "-t14:ef02"] if self.firmware.bios_format else []
        self._run(
            "sgdisk", "-a1", *bios, f"-n15:{_BIOS_END}:{_ESP_END - 1}", "-t15:ef00",
            f"-n1:{_ESP_END}:0", f"-t1:{self.firmware.root_type}", raw, what="Partitioning the disk",
        )  # fmt: skip

    def _root_file_system(self, raw: str) -> None:
        # The backup of the partition table takes the last 33 sectors.
        sectors = self.layout.size_mib * _MIB - 34 - _ESP_END
        options = f"offset={_ESP_END * SECTOR},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,nodiscard"
        self._run(
            "mke2fs", "-q", "-F", "-t", "ext4", "-O", _EXT4_FEATURES, "-b", "4096", "-m", "1", "-L", "root", "-U", self.layout.root_uuid,
            "-d", self.root, "-E", options, raw, f"{sectors // 8 * 4}k", what="Making the root file system",
        )  # fmt: skip

    def _efi_partition(self, efi: str) -> str:
        path = os.path.join(self.work, "efi.raw")
        with open(path, "wb") as stream:
            stream.truncate((_ESP_END - _BIOS_END) * SECTOR)
        self._run("mkfs.vfat", "-F32", "-n", "ESP", path, what="Making the EFI partition")
        self._run("mmd", "-i", path, "::EFI", "::EFI/BOOT", what="Making the EFI partition")
        self._run("mcopy", "-i", path, efi, f"::EFI/BOOT/{self.firmware.efi_file}", what="Making the EFI partition")
        return path

    @staticmethod
    def _copy_in(raw: str, part: str, start: int) -> None:
        with open(part, "rb") as source, open(raw, "r+b") as target:
            target.seek(start * SECTOR)
            shutil.copyfileobj(source, target, 1 << 20)

    def _boot_code(self, raw: str, core: str) -> None:
        with open(f"{self.root}/usr/lib/grub/{self.firmware.bios_format}/boot.img", "rb") as stream:
            boot = stream.read()
        with open(core, "rb") as stream:
            code, image = patch_boot_sector(boot, stream.read(), _BIOS_START)
        with open(raw, "r+b") as target:
            target.write(code)
            target.seek(_BIOS_START * SECTOR)
            target.write(image)
