# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are either the old ones or the new ones, never something between, and readable by whom we say."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import stat
import tempfile
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError

DIRECTORY_MODE = 0o700

TEMPORARY_SUFFIX = ".tmp"
"""End of the names of files that are being written; they begin with a dot."""

# What the operating system says, in the words of what a person can do about it.
_CAUSES: t.Final[dict[int, tuple[str, str]]] = {
    errno.ENOSPC: ("no_space", "Free some space on that file system and run again; the old file is untouched"),
    errno.EDQUOT: ("no_space", "Your disk quota is used up; free some space and run again; the old file is untouched"),
    errno.EFBIG: ("no_space", "A limit on file sizes was reached (ulimit -f); raise it and run again"),
    errno.EACCES: ("not_permitted", "Check the owner and mode of the path and of the folders above it"),
    errno.EPERM: ("not_permitted", "Check the owner and mode of the path and of the folders above it"),
    errno.EROFS: ("not_permitted", "That file system is mounted read-only; choose another store or remount it"),
    errno.ENOTDIR: ("not_a_folder", "A part of that path is a file; move it away"),
    errno.EISDIR: ("not_a_file", "A folder stands where a file belongs; move it away"),
    errno.ELOOP: ("symbolic_link", "Replace the symbolic link by what it points to"),
    errno.ENAMETOOLONG: ("invalid_path", "Choose a shorter path"),
}


def failure(what: str, path: str | os.PathLike[str], error: OSError) -> MachineError:
    """The ``MachineError`` that explains ``error``; its code is ``file_error`` when the cause has none of its own."""
    code, hint = _CAUSES.get(error.errno or 0, ("file_error", ""))
    return MachineError(what, where=os.fspath(path), why=error.strerror or str(error), hint=hint, code=code)


@contextlib.contextmanager
def explained(what: str, path: str | os.PathLike[str]) -> t.Iterator[None]:
    """Turn every ``OSError`` inside into a :class:`MachineError`; see :func:`failure`."""
    try:
        yield
    except OSError as error:
        raise failure(what, path, error) from error


def make_directory(path: pathlib.Path, mode: int = DIRECTORY_MODE) -> bool:
    """Make ``path`` and what is missing above it, each with ``mode``; True when something was made."""
    missing = []
    with explained("The folder could not be made", path):
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        for folder in reversed(missing):
            # Another run may make the same folder at the same moment.
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=mode)
    return bool(missing)


def sync_directory(path: pathlib.Path) -> None:
    """Make renames and removals in ``path`` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: pathlib.Path, limit: int) -> bytes:
    """Read a regular file of at most ``limit`` bytes, without following a symbolic link.

    Raises:
        FileNotFoundError: there is no such file.
        MachineError: ``symbolic_link``, ``not_a_file``, ``too_big`` or ``not_permitted``.
    """
    try:
        # Non-blocking, or a named pipe in the place of the file would hold us for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise failure("The file could not be read", path, error) from error
    with explained("The file could not be read", path):
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise MachineError("The file could not be read", where=str(path), why="it is no regular file", code="not_a_file")
            with os.fdopen(descriptor, "rb", closefd=False) as handle:
                data = handle.read(limit + 1)
        finally:
            os.close(descriptor)
    if len(data) > limit:
        raise MachineError("The file could not be read", where=str(path), why=f"it is bigger than {limit} bytes", code="too_big")
    return data


def mode(path: pathlib.Path) -> int | None:
    """The permission bits of what stands at ``path`` itself; None when there is nothing."""
    try:
        return stat.S_IMODE(path.lstat().st_mode)
    except OSError:
        return None


def same(path: pathlib.Path, data: bytes, mode: int) -> bool:
    """Whether ``path`` is a regular file with just this content and mode."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or stat.S_IMODE(found.st_mode) != mode or found.st_size != len(data):
            return False
        return read(path, len(data)) == data
    except (OSError, MachineError):
        return False


def write(path: pathlib.Path, data: bytes, mode: int) -> bool:
    """Make ``path`` hold ``data`` with ``mode``: a temporary file beside it, fsync, rename, fsync of the folder.

    A symbolic link at ``path`` is replaced, not followed. The folder must exist.

    Returns:
        False when content and mode were already so; then nothing is written.

    Raises:
        MachineError: ``no_space``, ``not_permitted`` and others; the old file is untouched and nothing is left over.
    """
    if same(path, data, mode):
        return False
    with explained("The file could not be written", path):
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX, dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as handle:
                os.fchmod(handle.fileno(), mode)
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            os.rename(temporary, path)
        finally:
            # Renamed, it is gone already.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        sync_directory(path.parent)
    return True


def remove(path: pathlib.Path) -> bool:
    """Remove a file; False when there was none."""
    with explained("The file could not be removed", path):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
    return True
