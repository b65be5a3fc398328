# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which acceleration works here, found out by running something with it.

A /dev/kvm that opens says little: nested or filtered ones exist that cannot run the host's CPU model. So a tiny
guest is run, which can only end the way it should when its instructions were executed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import tempfile
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils import files
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError

# A boot sector: mov dx,0xf4; mov al,0x10; out dx,al; hlt; jmp back. QEMU's isa-debug-exit ends with (value << 1) | 1.
_X86_CODE: t.Final = bytes.fromhex("baf400b010eef4ebfd")
_X86_EXIT: t.Final = (0x10 << 1) | 1

# Firmware: w0 = 0x84000008 (SYSTEM_OFF of the Power State Coordination Interface); hvc #0; b back.
_ARM_CODE: t.Final = b"".join(word.to_bytes(4, "little") for word in (0x52800100, 0x72B08000, 0xD4000002, 0x14000000))

# Nested hypervisors were seen to take 4 s for this; a guest that hangs must not hold a user for long.
PROBE_SECONDS: t.Final = 15.0

_CACHE: t.Final = ".accel.json"
_NATIVE: t.Final = {"Linux": "kvm", "Darwin": "hvf"}
_ARCHITECTURES: t.Final = {"amd64": "x86_64", "arm64": "aarch64"}


def host_arch() -> str:
    """This host's architecture in QEMU's words."""
    machine = platform.machine().lower()
    return _ARCHITECTURES.get(machine, machine)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether an acceleration works, and why not."""

    works: bool
    why: str = ""


def _probe_arguments(arch: str, accel: str, guest: str) -> list[str]:
    common = ["-accel", accel, "-cpu", "host", "-m", "64", "-display", "none", "-nodefaults", "-no-user-config", "-no-reboot"]
    if arch == "x86_64":
        drive = f"file={guest.replace(',', ',,')},format=raw,if=ide,snapshot=on"
        return [*common, "-machine", "pc", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-drive", drive]
    return [*common, "-machine", "virt", "-bios", guest]


def probe(binary: str, arch: str, accel: str, seconds: float = PROBE_SECONDS) -> Verdict:
    """Run the tiny guest once."""
    code, expected = (_X86_CODE.ljust(510, b"\0") + b"\x55\xaa", _X86_EXIT) if arch == "x86_64" else (_ARM_CODE.ljust(4096, b"\0"), 0)
    with tempfile.TemporaryDirectory(prefix="dockyard-probe-") as folder:
        guest = os.path.join(folder, "guest")
        with open(guest, "wb") as stream:
            stream.write(code)
        try:
            done = subprocess.run(
                [binary, *_probe_arguments(arch, accel, guest)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Verdict(False, f"a test guest did not end within {seconds:.0f} s")
        except OSError as error:
            return Verdict(False, str(error))
    if done.returncode == expected:
        return Verdict(True)
    said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    return Verdict(False, f"a test guest ended with {done.returncode}: {said[0].strip() if said else 'no message'}"[:300])


def _boot_id() -> str:
    """Something that changes when the host boots."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def _facts(binary: str) -> str:
    """What the verdict depends on: this boot, this kernel, this QEMU, this user."""
    status = os.stat(binary)
    facts = [
        _boot_id(),
        platform.release(),
        binary,
        status.st_mtime_ns,
        status.st_size,
        os.geteuid(),
        os.access("/dev/kvm", os.R_OK | os.W_OK),
    ]
    return json.dumps(facts)


class Acceleration:
    """Chooses, and remembers verdicts in the state folder until the host boots or its QEMU changes.

    Args:
        state_dir: the state folder; it need not exist, then nothing is remembered.
        binary: the QEMU program.
        arch: the guest's architecture.
    """

    def __init__(self, state_dir: str, binary: str, arch: str) -> None:
        self.path = os.path.join(state_dir, _CACHE)
        self.binary = binary
        self.arch = arch

    def choose(self, wanted: str) -> tuple[str, str]:
        """The acceleration to use and, when it is ``tcg`` against hope, the reason.

        Args:
            wanted: ``auto``, ``kvm``, ``hvf`` or ``tcg``.

        Raises:
            MachineError: ``acceleration`` when the one that was asked for doesn't work.
        """
        if wanted == "tcg":
            return "tcg", ""
        native = _NATIVE.get(platform.system(), "")
        accel = native if wanted == "auto" else wanted
        verdict = self._verdict(accel, native)
        if verdict.works:
            return accel, ""
        if wanted == "auto":
            return "tcg", f"{accel or 'hardware acceleration'} cannot be used: {verdict.why}"
        raise MachineError(
            f"{wanted} does not work on this host",
            where="option accel",
            why=verdict.why,
            hint="Use accel=auto, which takes software emulation (tcg) then",
            code="acceleration",
        )

    def _verdict(self, accel: str, native: str) -> Verdict:
        if not native or accel != native:
            return Verdict(False, f"{platform.system()} does not have it")
        if self.arch != host_arch():
            return Verdict(False, f"a guest of architecture {self.arch} cannot run on a {host_arch()} CPU")
        if accel == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
            missing = not os.path.exists("/dev/kvm")
            return Verdict(False, "there is no /dev/kvm" if missing else "this user may not open /dev/kvm (is it in the group kvm?)")
        key = f"{accel}/{self.arch}"
        known = self._read().get(key)
        if isinstance(known, dict):
            return Verdict(bool(known.get("works")), str(known.get("why", "")))
        verdict = probe(self.binary, self.arch, accel)
        self._write(key, verdict)
        return verdict

    def remember_failure(self, accel: str, why: str) -> None:
        """A real guest failed with it, whatever the tiny one did."""
        self._write(f"{accel}/{self.arch}", Verdict(False, why))

    def _read(self) -> dict[str, t.Any]:
        try:
            found = json.loads(files.read(pathlib.Path(self.path), 65536))
        except (FileNotFoundError, ValueError, MachineError):
            return {}
        if not isinstance(found, dict) or found.get("facts") != _facts(self.binary):
            return {}
        verdicts = found.get("verdicts")
        return verdicts if isinstance(verdicts, dict) else {}

    def _write(self, key: str, verdict: Verdict) -> None:
        if not os.path.isdir(os.path.dirname(self.path)):
            return
        verdicts = {**self._read(), key: dataclasses.asdict(verdict)}
        data = json.dumps({"facts": _facts(self.binary), "verdicts": verdicts}, indent=1).encode() + b"\n"
        files.write(pathlib.Path(self.path), data, 0o600)
