# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine store on disk, in Docker Machine's layout: records, keys and certificates, locks.

Only code on the controller uses it. See the architecture guide for the layout.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import getpass
import json
import os
import pathlib
import re
import secrets
import shutil
import socket
import stat
import tempfile
import time
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils import client_files, docker_machine_config, files
from ansible_collections.dockyard.machine.plugins.module_utils.errors import DeadlineError, MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.record import BrokenRecord, Record
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline, poll

__all__ = ["BrokenRecord", "Record", "Store", "default_path", "natural_key"]

MAX_RECORD = 1024 * 1024
"""Bytes; a bigger record is not ours."""

RECORD_FILE = "dockyard.json"
CONFIG_FILE = "config.json"

# Names as Docker Machine allows them; ours are a part of these.
_FOLDER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9.-]*")
_OWNER = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_STALE_SECONDS = 3600
_FORGOTTEN = ".forgotten-"
_CERTIFICATES: t.Final = {"ca.pem": 0o644, "cert.pem": 0o644, "key.pem": 0o600}


def default_path() -> pathlib.Path:
    """``$MACHINE_STORAGE_PATH``, else ``~/.docker/machine``."""
    return pathlib.Path(os.path.expanduser(os.environ.get("MACHINE_STORAGE_PATH") or "~/.docker/machine")).absolute()


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which ``web2`` comes before ``web10``."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


class Store:
    """One folder of machines.

    Args:
        path: the folder; it is made when something is first written. None: :func:`default_path`.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        chosen = pathlib.Path(os.path.abspath(os.path.expanduser(path))) if path else default_path()
        self.path = chosen
        self.certs = chosen / "certs"
        self._safe = False

    @property
    def machines(self) -> pathlib.Path:
        """The folder of the machines' folders."""
        return self.path / "machines"

    def machine_dir(self, name: str) -> pathlib.Path:
        """The folder of one machine.

        Raises:
            MachineError: ``invalid_name`` when the name could not be a folder's.
        """
        if not _FOLDER.fullmatch(name):
            raise MachineError(
                f"The machine name {name[:80]!r} is not valid",
                why="a machine's folder is named by letters, digits, hyphens and dots, and begins with no dot or hyphen",
                hint="Choose another name, or move that folder out of the store",
                code="invalid_name",
            )
        return self.machines / name

    def known_hosts(self, name: str) -> pathlib.Path:
        """The file of a machine's pinned host keys, under the alias ``name``."""
        return self.machine_dir(name) / "known_hosts"

    def names(self) -> list[str]:
        """Every machine's name, in natural order; all folders that don't begin with a dot count, as for Docker Machine."""
        self._check()
        with files.explained("The store could not be listed", self.machines):
            try:
                with os.scandir(self.machines) as entries:
                    found = [e.name for e in entries if not e.name.startswith(".") and e.is_dir(follow_symlinks=False)]
            except FileNotFoundError:
                return []
        return sorted(found, key=natural_key)

    def load(self, name: str) -> Record | None:
        """Read one record; one that only Docker Machine wrote comes back with ``imported`` set.

        Raises:
            MachineError: ``corrupt_record`` naming the file and what to do.
        """
        self._check()
        folder = self.machine_dir(name)
        if folder.is_symlink():
            raise self._corrupt(folder, "it is a symbolic link")
        for filename in (RECORD_FILE, CONFIG_FILE):
            path = folder / filename
            data = self._read_json(path)
            if data is None:
                continue
            try:
                record = Record.from_dict(data) if filename == RECORD_FILE else docker_machine_config.read(data, name)
            except MachineError as error:
                raise self._corrupt(path, error.why, error.hint) from error
            if record.name != name:
                raise self._corrupt(path, f"it is the record of {record.name!r}")
            if record.ssh_key_path:
                record.ssh_key_path = os.path.join(folder, record.ssh_key_path)
            return record
        return None

    def records(self) -> list[Record | BrokenRecord]:
        """All records in natural order; one that cannot be read stands there with its error and hides no other."""
        found: list[Record | BrokenRecord] = []
        for name in self.names():
            try:
                record = self.load(name)
            except MachineError as error:
                found.append(BrokenRecord(name, error))
            else:
                if record is not None:
                    found.append(record)
        return found

    def docker_machine_config(self, record: Record) -> dict[str, t.Any]:
        """The content of config.json as it is on disk, or as it would be, without credentials."""
        try:
            data = self._read_json(self.machine_dir(record.name) / CONFIG_FILE)
        except MachineError:
            data = None
        config = docker_machine_config.build(record, self) if data is None else data
        return docker_machine_config.without_secrets(config)

    def save(self, record: Record) -> bool:
        """Write everything that follows from a record: dockyard.json, config.json, env, ssh_config, copies of the certificates.

        The record itself is written first: it is what a later run needs when this one is killed.

        Returns:
            True when something on disk changed.

        Raises:
            MachineError: ``invalid_name``, ``unsafe_value``, ``no_space``, ``not_permitted`` and others.
        """
        self._check()
        folder = self.machine_dir(record.name)
        # Worked out before the first write, so that a bad value leaves no half of the files.
        ssh_config = client_files.ssh_config(record, self)
        include = client_files.ssh_include(self)
        endpoint = record.machine.endpoint if record.machine else ""
        env = client_files.env_exports(endpoint, folder, record.name) if endpoint else ""
        changed = self._make_machine_dir(folder)
        self._sweep(folder)
        changed |= self.write(folder / RECORD_FILE, _json(self._portable(record, folder)), 0o600)
        changed |= self._save_config(record, folder / CONFIG_FILE)
        for filename, mode in _CERTIFICATES.items():
            with contextlib.suppress(FileNotFoundError):
                changed |= self.write(folder / filename, files.read(self.certs / filename, MAX_RECORD), mode)
        for filename, text in (("env", env), ("ssh_config", ssh_config)):
            path = folder / filename
            changed |= self.write(path, text.encode(), 0o600) if text else files.remove(path)
        changed |= self.write(self.path / "ssh_config", include.encode(), 0o600)
        record.imported = False
        return changed

    def forget(self, name: str) -> bool:
        """Remove a machine's folder with everything in it; False when there is none.

        It gets a name with a dot first, so that a run killed here leaves no half of a machine; what such a run left is
        cleaned by the next ``forget`` or ``save``.
        """
        self._check()
        folder = self.machine_dir(name)
        self._sweep_forgotten()
        doomed = self.machines / f".{name}{_FORGOTTEN}{secrets.token_hex(4)}"
        with files.explained("The machine's folder could not be removed", folder):
            try:
                os.rename(folder, doomed)
            except FileNotFoundError:
                return False
            files.sync_directory(self.machines)
            if doomed.is_symlink():
                doomed.unlink()
            else:
                _remove_tree(doomed)
        return True

    def owner(self, write: bool = True) -> str:
        """Who keeps this store's machines: the file ``owner``, else ``$DOCKYARD_OWNER``, else the login name.

        Args:
            write: also write the file when it is missing (not in check mode).

        Raises:
            MachineError: ``invalid_owner``.
        """
        self._check()
        path = self.path / "owner"
        known = self._read_owner(path)
        if known:
            return known
        given = os.environ.get("DOCKYARD_OWNER", "")
        if given and not _OWNER.fullmatch(given):
            raise _invalid_owner(given, "the environment variable DOCKYARD_OWNER")
        owner = given or _login_name()
        if not write:
            return owner
        files.make_directory(self.path)
        with files.explained("The owner could not be written", path):
            descriptor, temporary = tempfile.mkstemp(prefix=".owner.", suffix=files.TEMPORARY_SUFFIX, dir=self.path)
            try:
                with os.fdopen(descriptor, "w", encoding="ascii") as handle:
                    handle.write(owner + "\n")
                    handle.flush()
                    os.fsync(handle.fileno())
                # Whoever comes first decides; everybody else reads it.
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, path)
            finally:
                os.unlink(temporary)
        return self._read_owner(path) or owner

    @contextlib.contextmanager
    def lock(self, name: str, timeout: float, purpose: str = "") -> t.Iterator[None]:
        """Hold the lock ``name`` of this store; the death of its holder releases it.

        Args:
            name: a machine's name, or a store-wide lock's, which begins with an underscore.
            timeout: seconds to wait for another holder; 0 tries once.
            purpose: shown to whoever waits.

        Raises:
            MachineError: ``locked``, naming the holder.
        """
        self._check()
        if not _FOLDER.fullmatch(name.lstrip("_")):
            raise MachineError(f"{name[:80]!r} cannot name a lock", code="invalid_name")
        path = self.path / "locks" / f"{name}.lock"
        files.make_directory(path.parent)

        def attempt() -> tuple[int | None, str]:
            return _take(path), _holder(path)

        try:
            descriptor = poll(attempt, phase=f"lock of {name}", deadline=Deadline(timeout), interval=0.2)
        except DeadlineError as error:
            raise MachineError(
                f"The lock of {name} is held by another run",
                where=str(path),
                why=f"it is held by {error.last}; waited {error.elapsed:.0f} s",
                hint="Wait for that run to end, or end it, and run again",
                code="locked",
            ) from error
        try:
            _sign(descriptor, purpose)
            yield
        finally:
            # Removed while still held; whoever waits notices that the name has a new file (see _take).
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(descriptor)

    def write(self, path: str | os.PathLike[str], data: bytes, mode: int) -> bool:
        """Write a file in the store atomically, and the folders above it (0700); see :func:`files.write`."""
        self._check()
        target = pathlib.Path(path)
        files.make_directory(target.parent)
        return files.write(target, data, mode)

    def _check(self) -> None:
        """Refuse a store that somebody else could have prepared."""
        if self._safe:
            return
        with files.explained("The store cannot be used", self.path):
            try:
                found = self.path.stat()
            except FileNotFoundError:
                return
        where, code = str(self.path), "unsafe_store"
        if not stat.S_ISDIR(found.st_mode):
            raise MachineError("The store cannot be used", where=where, why="it is no folder", code="not_a_folder")
        if found.st_uid not in (os.geteuid(), 0):
            why = f"it belongs to user id {found.st_uid}, and this run has user id {os.geteuid()}"
            hint = "Use a store of your own (machine_store, MACHINE_STORAGE_PATH), or run as its owner"
            raise MachineError("The store cannot be used", where=where, why=why, hint=hint, code=code)
        if found.st_mode & stat.S_IWOTH:
            why, hint = "everybody may write to it", f"Look through it, then run: chmod 0700 '{where}'"
            raise MachineError("The store cannot be used", where=where, why=why, hint=hint, code=code)
        self._safe = True

    def _make_machine_dir(self, folder: pathlib.Path) -> bool:
        if folder.is_symlink():
            raise self._corrupt(folder, "it is a symbolic link")
        changed = files.make_directory(folder)
        with files.explained("The machine's folder cannot be used", folder):
            if stat.S_IMODE(folder.stat().st_mode) != files.DIRECTORY_MODE:
                folder.chmod(files.DIRECTORY_MODE)
                changed = True
        return changed

    def _portable(self, record: Record, folder: pathlib.Path) -> dict[str, t.Any]:
        """The record's content; a key in the machine's folder is named relative to it, so that a store can be moved."""
        data = record.to_dict()
        key = pathlib.PurePath(record.ssh_key_path)
        if record.ssh_key_path and key.parent == folder:
            data["ssh_key_path"] = key.name
        return data

    def _save_config(self, record: Record, path: pathlib.Path) -> bool:
        try:
            old = self._read_json(path)
        except MachineError:
            old = None
        config = docker_machine_config.build(record, self, old)
        if old == config and files.mode(path) == 0o600:
            # The binary writes the same with its own order of keys.
            return False
        return self.write(path, _json(config), 0o600)

    def _read_json(self, path: pathlib.Path) -> dict[str, t.Any] | None:
        """The object in a JSON file; None when there is no file."""
        try:
            data = files.read(path, MAX_RECORD)
        except FileNotFoundError:
            return None
        except MachineError as error:
            raise self._corrupt(path, error.why, error.hint) from error
        try:
            content = json.loads(data)
        except RecursionError as error:
            raise self._corrupt(path, "it is nested too deeply") from error
        except ValueError as error:
            raise self._corrupt(path, f"it is no valid JSON: {error}") from error
        if not isinstance(content, dict):
            raise self._corrupt(path, "it holds no JSON object")
        return content

    def _corrupt(self, path: pathlib.Path, why: str, hint: str = "") -> MachineError:
        hint = hint or f"Repair that file, or remove the folder {path.parent} to forget the machine"
        return MachineError("The machine's record cannot be read", where=str(path), why=why, hint=hint, code="corrupt_record")

    def _read_owner(self, path: pathlib.Path) -> str:
        try:
            data = files.read(path, 4096)
        except FileNotFoundError:
            return ""
        owner = data.decode("ascii", "replace").strip()
        if not _OWNER.fullmatch(owner):
            raise _invalid_owner(owner, str(path))
        return owner

    def _sweep(self, folder: pathlib.Path) -> None:
        """Remove what killed runs left: unfinished files of this machine, and folders that were being forgotten."""
        self._sweep_forgotten()
        oldest = time.time() - _STALE_SECONDS
        for path in folder.glob(f".*{files.TEMPORARY_SUFFIX}"):
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < oldest:
                    path.unlink()

    def _sweep_forgotten(self) -> None:
        for path in self.machines.glob(f".*{_FORGOTTEN}*"):
            shutil.rmtree(path, ignore_errors=True)


def _remove_tree(path: pathlib.Path) -> None:
    """Remove a folder; another run may be removing the same leftovers at this moment."""
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)


def _json(data: dict[str, t.Any]) -> bytes:
    return (json.dumps(data, indent=4, ensure_ascii=False) + "\n").encode()


def _invalid_owner(owner: str, where: str) -> MachineError:
    return MachineError(
        f"{owner[:80]!r} cannot be an owner",
        where=where,
        why="an owner has 1 to 63 lower-case letters, digits and hyphens",
        hint="Give another one; machines that carry the old mark are not found any more",
        code="invalid_owner",
    )


def _login_name() -> str:
    try:
        login = getpass.getuser()
    except (KeyError, OSError, ImportError):
        # A container whose user id has no name.
        login = ""
    cleaned = re.sub(r"[^a-z0-9-]+", "-", login.lower())[:63].strip("-")
    return cleaned or f"uid-{os.getuid()}"


def _take(path: pathlib.Path) -> int | None:
    """Take the lock file; its descriptor, or None while somebody else holds it."""
    with files.explained("The lock could not be taken", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have removed it between our open and our flock.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.ENOENT):
                os.close(descriptor)
                raise
        os.close(descriptor)
        return None


def _sign(descriptor: int, purpose: str) -> None:
    """Write who holds a lock; a full disk is no reason to fail here."""
    now = datetime.datetime.now(tz=datetime.timezone.utc).replace(microsecond=0).isoformat()
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now, "purpose": purpose}
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _holder(path: pathlib.Path) -> str:
    """Who holds a lock, in words."""
    try:
        holder = json.loads(files.read(path, 4096))
        text = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        return f"{text} ({holder['purpose']})" if holder.get("purpose") else text
    except (OSError, MachineError, ValueError, TypeError, KeyError, AttributeError):
        return "a process that has not signed it yet"
