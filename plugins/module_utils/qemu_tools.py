# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What everything around QEMU needs: programs with deadlines, locks, folders."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.errors import DeadlineError, MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.files import explained, failure
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline

# Debian package of each program that we call, for the error when it is missing.
PACKAGES: t.Final = {
    "mmdebstrap": "mmdebstrap",
    "sgdisk": "gdisk",
    "mke2fs": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mmd": "mtools",
    "mcopy": "mtools",
    "qemu-img": "qemu-utils",
    "xorriso": "xorriso",
    "genisoimage": "genisoimage",
    "mkisofs": "genisoimage",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-system-aarch64": "qemu-system-arm",
    "apt-get": "apt",
    "apt-config": "apt",
}

# Programs of administrators are not on an ordinary user's PATH.
_EXTRA_PATH: t.Final = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/opt/homebrew/bin", "/usr/local/bin")


def find_program(name: str) -> str:
    """The path of a program, or an empty string."""
    if os.path.isabs(name):
        return name if os.access(name, os.X_OK) else ""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_EXTRA_PATH))
    return shutil.which(name, path=path) or ""


def need_programs(names: t.Iterable[str], purpose: str) -> dict[str, str]:
    """The paths of programs, by name.

    Raises:
        MachineError: ``missing_program``, naming all that are missing and the packages that have them.
    """
    found = {name: find_program(name) for name in names}
    missing = sorted(name for name, path in found.items() if not path)
    if missing:
        packages = sorted({PACKAGES.get(name, name) for name in missing})
        raise MachineError(
            f"{', '.join(missing)} not found",
            why=f"{purpose} needs it",
            hint=f"Install it; on Debian and Ubuntu: apt-get install {' '.join(packages)}",
            code="missing_program",
        )
    return found


def _tail(text: str, lines: int = 6) -> str:
    kept = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return "; ".join(kept[-lines:])[-1200:]


def _end_group(process: subprocess.Popen[str]) -> None:
    """End a program and all that it started: politely, then for sure."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        try:
            process.wait(timeout=10)
            return
        except subprocess.TimeoutExpired:
            continue


def run_program(
    argv: t.Sequence[str],
    *,
    what: str,
    deadline: Deadline,
    env: t.Mapping[str, str] | None = None,
    keep_fds: t.Sequence[int] = (),
) -> str:
    """Run a program to its end and return its standard output.

    Args:
        argv: the program and its arguments; no shell is involved.
        what: what it does, for the error: "Making the seed".
        deadline: when it is ended by force.
        env: variables to set besides our own.
        keep_fds: descriptors that it inherits; a lock among them is held until it ends, even when we are killed.

    Raises:
        MachineError: ``program_failed`` with the end of its output; ``no_space`` when that was the reason.
        DeadlineError: when the time was used up.
    """
    # A session of its own: so that its whole tree can be ended.
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C", **(env or {})},
        pass_fds=tuple(keep_fds),
        start_new_session=True,
        text=True,
        errors="replace",
    )
    try:
        out, err = process.communicate(timeout=max(0.1, deadline.remaining()))
    except subprocess.TimeoutExpired as error:
        _end_group(process)
        raise DeadlineError(what, deadline.elapsed(), f"{argv[0]} still running", hint="Give it more time") from error
    except BaseException:
        _end_group(process)
        raise
    if process.returncode != 0:
        raise program_error(what, argv[0], process.returncode, err or out)
    return out


def program_error(what: str, program: str, code: int, output: str) -> MachineError:
    """The error for a program that failed."""
    if "No space left on device" in output or os.strerror(errno.ENOSPC) in output:
        return failure(f"{what} failed", os.path.basename(program), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    ended = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
    return MachineError(
        f"{what} failed", where=os.path.basename(program), why=f"it {ended}: {_tail(output) or 'it said nothing'}", code="program_failed"
    )


@contextlib.contextmanager
def locked(path: str, deadline: Deadline, what: str) -> t.Iterator[int]:
    """Hold an exclusive lock on a file; yields its descriptor.

    Raises:
        DeadlineError: when somebody else holds it for too long.
    """
    with explained(f"Locking for '{what}' failed", path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if deadline.over:
                    raise DeadlineError(
                        what, deadline.elapsed(), "another run holds the lock", where=path, hint="Wait for the other run to end"
                    ) from error
                deadline.sleep(0.2)
        yield handle
    finally:
        os.close(handle)


def file_digest(path: str, kind: str = "sha256") -> str:
    """The hexadecimal digest of a file."""
    digest = hashlib.new(kind)
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def mounts_below(folder: str) -> list[str]:
    """Mount points inside a folder, as far as this system tells; never remove a tree that has some."""
    prefix = os.path.realpath(folder) + "/"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as stream:
            points = [line.split()[4] for line in stream]
    except OSError:
        return []
    return [point for point in points if point.startswith(prefix)]


def remove_tree(folder: str) -> None:
    """Remove a folder of ours; nothing there is fine.

    Raises:
        MachineError: ``busy`` when something is mounted inside it.
    """
    mounted = mounts_below(folder)
    if mounted:
        raise MachineError(f"Cannot remove {folder}", why=f"{mounted[0]} is a mount point", hint=f"Run: umount {mounted[0]}", code="busy")
    with explained("The folder could not be removed", folder), contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
