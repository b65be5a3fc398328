# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds bootable Debian cloud images from this machine's own package sources, and keeps them in a cache.

An image is valid when its description (``.json``) stands beside it: that one is written last. Whatever else a
cut-short build leaves stands in a folder named ``.build-``, which the next build removes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import time
import typing as t
import uuid

from ansible_collections.dockyard.machine.plugins.module_utils import files
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_disk import FIRMWARE, TOOLS, DiskBuilder, Layout
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_sources import DEBIAN_KEYRING, Source
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_tools import (
    file_digest,
    locked,
    need_programs,
    remove_tree,
    run_program,
)
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline

RECIPE_VERSION: t.Final = 1
"""Part of every image's key; raise it when the recipe below changes what comes out."""

_PACKAGES: t.Final = (
    "apparmor", "ca-certificates", "cloud-guest-utils", "cloud-init", "curl", "dbus", "e2fsprogs", "fdisk", "grub2-common",
    "initramfs-tools", "iproute2", "iptables", "iputils-ping", "kmod", "less", "libpam-systemd", "netbase", "openssh-server", "openssl",
    "procps", "python3", "python3-apt", "sudo", "systemd", "systemd-resolved", "systemd-sysv", "systemd-timesyncd", "udev", "zstd",
)  # fmt: skip
_ARCH_PACKAGES: t.Final = {
    "amd64": ("linux-image-cloud-amd64", "grub-pc-bin", "grub-efi-amd64-bin"),
    "arm64": ("linux-image-cloud-arm64", "grub-efi-arm64-bin"),
}
_CONSOLE: t.Final = {"amd64": "ttyS0,115200", "arm64": "ttyAMA0,115200"}

# The engine's packages; up to Debian 12 the client is part of docker.io.
_CLIENT_INSIDE: t.Final = frozenset({"buster", "bullseye", "bookworm"})

# Loaded in the initramfs: what the disks of the usual hypervisors and clouds need, and nothing else, since a big one is slow to unpack.
_DISK_MODULES: t.Final = (
    "virtio_pci", "virtio_blk", "virtio_scsi", "virtio_mmio", "nvme", "ahci", "ata_piix", "sd_mod", "sr_mod", "xen-blkfront",
    "hv_storvsc", "vmw_pvscsi", "mptspi", "ext4", "crc32c_generic", "crc32c-intel",
)  # fmt: skip

# Timers of desktops and mail servers: on a short-lived machine they only hold the apt lock at the wrong moment.
_MASKED: t.Final = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "man-db.timer",
    "systemd-pstore.service",
)  # fmt: skip
# Profiles of programs that aren't there; compiling them costs seconds at each boot. Docker loads its own profile.
_NO_PROFILES: t.Final = ("lsb_release", "nvidia_modprobe", "sbin.dhclient", "usr.bin.man", "usr.bin.tcpdump")
_ENABLED: t.Final = ("systemd-networkd.service", "systemd-resolved.service", "ssh.service")

# Documentation and translations are two thirds of the files; copyright files stay.
_DPKG_OPTIONS: t.Final = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides what an image has in it."""

    suite: str
    arch: str
    size_mib: int
    sources: tuple[Source, ...]
    packages: tuple[str, ...] = ()
    engine: str = "none"
    """``none``, ``cached`` (the packages lie ready, nothing is downloaded in the guest) or ``installed``."""
    datasources: tuple[str, ...] = ()
    kernel_arguments: str = ""
    build_settings: tuple[str, ...] = ()
    guest_settings: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """A digest of the recipe; build-time settings (proxies) don't change what comes out."""
        facts = dataclasses.asdict(self)
        del facts["build_settings"]
        text = json.dumps(
            {"version": RECIPE_VERSION, "parts": [_PACKAGES, _DISK_MODULES, _MASKED, _DPKG_OPTIONS, _NO_PROFILES], **facts}, sort_keys=True
        )
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def file_name(self) -> str:
        """The image's name in the cache."""
        return f"debian-{self.suite}-{self.arch}-{self.key[:12]}.qcow2"

    @property
    def engine_packages(self) -> tuple[str, ...]:
        """The distribution's engine, as a list of packages."""
        return ("docker.io",) if self.suite in _CLIENT_INSIDE else ("docker.io", "docker-cli")

    @property
    def all_packages(self) -> tuple[str, ...]:
        """What is installed."""
        engine = self.engine_packages if self.engine == "installed" else ()
        return tuple(dict.fromkeys((*_PACKAGES, *_ARCH_PACKAGES[self.arch], *engine, *self.packages)))


def cached_image(folder: str, recipe: Recipe) -> dict[str, t.Any] | None:
    """The description of a whole, unchanged image in the cache; None when there is none.

    The shape is that of the module's result: ``path``, ``sha256``, ``size``, ``built``, ``suite``, ``arch``, ``engine``, ``key``.
    """
    path = os.path.join(folder, recipe.file_name)
    try:
        with open(path + ".json", encoding="utf-8") as stream:
            facts = json.load(stream)
        whole = isinstance(facts, dict) and facts.get("key") == recipe.key and os.path.getsize(path) == facts.get("size")
        if not whole or file_digest(path) != facts.get("sha256"):
            return None
    except (OSError, ValueError):
        return None
    return {**facts, "path": path}


class ImageBuilder:
    """Builds one recipe into a folder.

    Args:
        recipe: what to build.
        folder: the cache.
        deadline: for everything together.
    """

    def __init__(self, recipe: Recipe, folder: str, deadline: Deadline) -> None:
        self.recipe = recipe
        self.folder = folder
        self.deadline = deadline
        self.lock = -1
        self.tools = need_programs(("mmdebstrap", "unshare", *TOOLS), "building an image")

    def build(self, *, force: bool = False) -> tuple[dict[str, t.Any], bool]:
        """Return the image's description and whether it was built now.

        Raises:
            MachineError: when a step failed; nothing that looks like an image stays.
        """
        with files.explained("The image folder could not be made", self.folder):
            os.makedirs(self.folder, mode=0o755, exist_ok=True)
        with locked(os.path.join(self.folder, ".build.lock"), self.deadline, "build an image") as self.lock:
            self._sweep()
            found = None if force else cached_image(self.folder, self.recipe)
            if found:
                return found, False
            work = os.path.join(self.folder, f".build-{self.recipe.key[:12]}-{os.getpid()}")
            try:
                with files.explained("The image could not be built", self.folder):
                    os.mkdir(work, 0o700)
                    return self._build(work), True
            finally:
                remove_tree(work)

    def _sweep(self) -> None:
        """Remove what an earlier build left when it was killed. We hold the lock, so nobody works in there."""
        for name in os.listdir(self.folder):
            if name.startswith(".build-"):
                remove_tree(os.path.join(self.folder, name))

    def _build(self, work: str) -> dict[str, t.Any]:
        root = os.path.join(work, "root")
        root_uuid = str(uuid.uuid5(uuid.NAMESPACE_URL, f"dockyard.machine/image/{self.recipe.key}"))
        self._root_tree(work, root)
        self._configure(root, root_uuid)
        disk = os.path.join(work, "image.qcow2")
        DiskBuilder(root, work, Layout(self.recipe.arch, self.recipe.size_mib, root_uuid), self.deadline, [self.lock]).build(disk)
        facts = {
            "key": self.recipe.key,
            "sha256": file_digest(disk),
            "size": os.path.getsize(disk),
            "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "suite": self.recipe.suite,
            "arch": self.recipe.arch,
            "engine": self.recipe.engine,
        }
        return self._publish(disk, facts)

    def _publish(self, disk: str, facts: dict[str, t.Any]) -> dict[str, t.Any]:
        """Put the image in its place; its description comes last and makes it valid."""
        path = os.path.join(self.folder, self.recipe.file_name)
        handle = os.open(disk, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        os.chmod(disk, 0o644)
        if os.path.exists(path + ".json"):
            os.unlink(path + ".json")
        os.replace(disk, path)
        files.write(pathlib.Path(path + ".json"), json.dumps(facts, indent=2, sort_keys=True).encode() + b"\n", 0o644)
        return {**facts, "path": path}

    # --- the tree ----------------------------------------------------------------------------------------------

    def _root_tree(self, work: str, root: str) -> None:
        sources = os.path.join(work, "debian.sources")
        hook = os.path.join(work, "disk-modules")
        _write(sources, "\n".join(source.deb822() for source in self.recipe.sources))
        _write(hook, _initramfs_hook(), 0o755)
        conf = os.path.join(work, "initramfs.conf")
        _write(conf, "MODULES=list\nCOMPRESS=zstd\n")
        arguments = [
            # What it mounts goes with it, however it ends.
            self.tools["unshare"], "--mount", self.tools["mmdebstrap"], "--mode=root", "--variant=apt", "--format=directory",
            f"--architectures={self.recipe.arch}",
            "--include=" + ",".join(self.recipe.all_packages), "--aptopt=APT::Install-Recommends \"false\"",
            *(f"--aptopt={setting}" for setting in self.recipe.build_settings),
            *(f"--dpkgopt={option}" for option in _DPKG_OPTIONS),
            # In place before the kernel is installed, so that its initramfs is made once and right.
            "--essential-hook=mkdir -p \"$1/etc/initramfs-tools/hooks\" \"$1/etc/initramfs-tools/conf.d\"",
            f"--essential-hook=upload {hook} /etc/initramfs-tools/hooks/disk-modules",
            f"--essential-hook=upload {conf} /etc/initramfs-tools/conf.d/cloud",
            "--essential-hook=chmod 0755 \"$1/etc/initramfs-tools/hooks/disk-modules\"",
            *self._keyrings(), *self._cached_engine(), self.recipe.suite, root, sources,
        ]  # fmt: skip
        run_program(
            arguments, what="Building the root tree", deadline=self.deadline, env={"TMPDIR": work, "DEBIAN_FRONTEND": "noninteractive"},
            keep_fds=[self.lock],
        )  # fmt: skip

    def _keyrings(self) -> list[str]:
        """Keyrings that the sources name and that no package brings into the tree."""
        names = sorted({source.signed_by for source in self.recipe.sources if source.signed_by not in ("", DEBIAN_KEYRING)})
        return [f"--setup-hook=copy-in {name} {os.path.dirname(name)}" for name in names]

    def _cached_engine(self) -> list[str]:
        if self.recipe.engine != "cached":
            return []
        packages = " ".join(self.recipe.engine_packages)
        return [
            '--customize-hook=chroot "$1" apt-get clean',
            f'--customize-hook=chroot "$1" apt-get --yes --no-install-recommends --download-only install {packages}',
            "--skip=cleanup/apt",
        ]

    def _configure(self, root: str, root_uuid: str) -> None:
        """What makes a tree the disk of a cloud machine."""
        for path, text in _files(self.recipe, root, root_uuid).items():
            _write(root + path, text)
        for unit in _MASKED:
            link = f"{root}/etc/systemd/system/{unit}"
            if not os.path.lexists(link):
                os.symlink("/dev/null", link)
        for profile in _NO_PROFILES:
            if os.path.exists(f"{root}/etc/apparmor.d/{profile}"):
                os.makedirs(f"{root}/etc/apparmor.d/disable", exist_ok=True)
                os.symlink(f"/etc/apparmor.d/{profile}", f"{root}/etc/apparmor.d/disable/{profile}")
        run_program(
            [self.tools["chroot"], root, "systemctl", "--quiet", "enable", *_ENABLED],
            what="Enabling services", deadline=self.deadline, keep_fds=[self.lock],
        )  # fmt: skip
        _forget_identity(root)


def _write(path: str, text: str, mode: int = 0o644) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(path, mode)


def _forget_identity(root: str) -> None:
    """Nothing that two machines must not share stays in the image."""
    for folder, prefix in (("etc/ssh", "ssh_host_"), ("var/log", ""), ("etc/apt/apt.conf.d", "99mmdebstrap")):
        for name in os.listdir(os.path.join(root, folder)):
            path = os.path.join(root, folder, name)
            if name.startswith(prefix) and os.path.isfile(path):
                os.unlink(path)
    for name in ("etc/hostname", "usr/sbin/policy-rc.d", "var/lib/dbus/machine-id", "var/lib/systemd/random-seed"):
        if os.path.lexists(os.path.join(root, name)):
            os.unlink(os.path.join(root, name))
    _write(os.path.join(root, "etc/machine-id"), "")
    _write(os.path.join(root, "etc/hostname"), "localhost\n")
    link = os.path.join(root, "etc/resolv.conf")
    if os.path.lexists(link):
        os.unlink(link)
    os.symlink("../run/systemd/resolve/stub-resolv.conf", link)
    shutil.rmtree(os.path.join(root, "var/lib/cloud"), ignore_errors=True)


def _initramfs_hook() -> str:
    return f"""#!/bin/sh
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
force_load virtio_pci
manual_add_modules {" ".join(_DISK_MODULES)}
"""


def _files(recipe: Recipe, root: str, root_uuid: str) -> dict[str, str]:
    """Configuration files of the image, by their path in it."""
    kernels = sorted((name for name in os.listdir(root + "/boot") if name.startswith("vmlinuz-")), key=_version)
    if not kernels:
        raise MachineError("The tree has no kernel", where="packages", code="no_kernel")
    version = kernels[-1][len("vmlinuz-") :]
    console = f"console=tty0 console={_CONSOLE[recipe.arch]}"
    arguments = f"{console} {recipe.kernel_arguments}".strip()
    serial = "serial --unit=0 --speed=115200\n" if recipe.arch == "amd64" else ""
    terminals = "console serial" if serial else "console"
    found = {
        "/boot/grub/grub.cfg": (
            f"{serial}terminal_input {terminals}\nterminal_output {terminals}\nset timeout=0\nmenuentry Debian {{\n"
            f"  search --no-floppy --fs-uuid --set=root {root_uuid}\n"
            f"  linux /boot/vmlinuz-{version} root=UUID={root_uuid} ro {arguments}\n  initrd /boot/initrd.img-{version}\n}}\n"
        ),
        # For update-grub, which runs in the guest when a kernel is installed.
        "/etc/default/grub.d/10_cloud.cfg": (
            f'GRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX="{arguments}"\nGRUB_CMDLINE_LINUX_DEFAULT=""\nGRUB_TERMINAL="{terminals}"\n'
            'GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"\nGRUB_DISABLE_OS_PROBER=true\n'
        ),
        "/etc/default/grub": "",
        "/etc/fstab": f"UUID={root_uuid} / ext4 rw,discard,errors=remount-ro 0 1\n",
        "/etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n",
        "/etc/cloud/cloud.cfg.d/10_image.cfg": _cloud_config(recipe),
        # Waiting for every interface would wait for Docker's bridges too.
        "/etc/systemd/system/systemd-networkd-wait-online.service.d/10-any.conf": (
            "[Service]\nExecStart=\nExecStart=/lib/systemd/systemd-networkd-wait-online --any --timeout=60\n"
        ),
    }
    settings = (*recipe.guest_settings, 'Acquire::Languages "none"')
    found["/etc/apt/apt.conf.d/90image"] = "".join(f"{setting};\n" for setting in settings)
    return found


def _cloud_config(recipe: Recipe) -> str:
    lines = [
        "# Written by dockyard.machine.machine_image.",
        "apt: {preserve_sources_list: true}",
        "grub_dpkg: {enabled: false}",
        "locale: false",
        "resize_rootfs: noblock",
    ]
    if recipe.datasources:
        lines.append(f"datasource_list: [{', '.join(recipe.datasources)}]")
    return "\n".join(lines) + "\n"


def _version(name: str) -> list[tuple[int, str]]:
    """Sort key that counts: 6.1.0-9 before 6.1.0-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.replace("-", ".").split(".")]


def host_architecture(machine: str) -> str:
    """Debian's name of an architecture as the kernel calls it; empty when we don't build it."""
    found = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(machine, "")
    return found if found in FIRMWARE else ""
