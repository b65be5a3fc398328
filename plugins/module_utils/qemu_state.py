# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder in which virtual machines live: one sub-folder each, base images, and ports that no two machines share.

STATE_DIR/              0700
|-- NAME/               0700: machine.json, disk.qcow2, seed.iso, serial.log, qmp.sock, qemu.pid
|-- .images/            base images, as long as a machine uses them
|-- .lock               held while ports are picked, and folders made and removed
`-- .new-* .trash-*     what a run that was killed left of a machine
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import random
import socket
import tempfile
import typing as t
import uuid

from ansible_collections.dockyard.machine.plugins.module_utils import files
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_tools import locked, remove_tree
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline

RECORD: t.Final = "machine.json"
IMAGES: t.Final = ".images"

# Below the ranges from which systems take ports for outgoing connections (32768 on Linux, 49152 elsewhere).
_PORTS: t.Final = range(20000, 32768)
_TRIES: t.Final = 200


def default_folder() -> str:
    """Where machines live unless the user says otherwise."""
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(base, "dockyard", "qemu")


@dataclasses.dataclass
class Forward:
    """A port of the host that leads to one of the guest."""

    host_port: int
    guest_port: int
    protocol: str = "tcp"


@dataclasses.dataclass
class VmRecord:
    """What the folder of a machine says of it. Holds no secret."""

    name: str
    owner: str = ""
    token: str = ""
    uuid: str = ""
    complete: bool = False
    """False until it was started for the first time."""
    tags: dict[str, str] = dataclasses.field(default_factory=dict)
    ssh_user: str = ""
    arch: str = ""
    binary: str = ""
    machine_type: str = ""
    accel: str = ""
    """What it was started with last: kvm, hvf or tcg."""
    cpu_model: str = ""
    cpus: int = 1
    memory: int = 1024
    disk: int = 10
    """GiB."""
    firmware: str = ""
    image: str = ""
    """The option, as the user gave it."""
    base: str = ""
    """The image's name in ``.images``."""
    bind_address: str = "127.0.0.1"
    address: str = "127.0.0.1"
    ssh: Forward = dataclasses.field(default_factory=lambda: Forward(0, 22))
    engine: Forward = dataclasses.field(default_factory=lambda: Forward(0, 2376))
    forwards: list[Forward] = dataclasses.field(default_factory=list)
    extra_args: list[str] = dataclasses.field(default_factory=list)

    def all_forwards(self) -> list[Forward]:
        """Every forwarded port."""
        return [self.ssh, self.engine, *self.forwards]

    @classmethod
    def from_json(cls, data: bytes) -> VmRecord:
        """Read what :meth:`to_json` wrote; raises ``ValueError`` when it is something else."""
        facts = json.loads(data)
        if not isinstance(facts, dict) or not isinstance(facts.get("name"), str):
            raise ValueError("it is no machine's record")
        known = {field.name for field in dataclasses.fields(cls)}
        found = {key: value for key, value in facts.items() if key in known}
        try:
            for key in ("ssh", "engine"):
                if key in found:
                    found[key] = Forward(**found[key])
            found["forwards"] = [Forward(**item) for item in found.get("forwards", [])]
        except TypeError as error:
            raise ValueError(str(error)) from error
        return cls(**found)

    def to_json(self) -> bytes:
        """For the file."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True).encode() + b"\n"


def port_is_free(address: str, port: int, protocol: str = "tcp") -> bool:
    """Whether we could listen there now."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as probe:
        if protocol == "tcp":
            # As QEMU does it: a connection that has just ended doesn't make the port busy.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            if protocol == "tcp":
                probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EPERM):
                return False
            raise
    return True


def _names(folder: str) -> list[str]:
    """What is in a folder; nothing when it isn't there."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


class StateFolder:
    """The folder of all machines.

    Args:
        path: its path.
        deadline: for waiting for its lock.
    """

    def __init__(self, path: str, deadline: Deadline) -> None:
        self.path = path
        self.deadline = deadline
        self.images = os.path.join(path, IMAGES)

    def folder(self, name: str) -> str:
        """A machine's folder, which need not exist."""
        return os.path.join(self.path, name)

    def make(self) -> None:
        """Make the folder."""
        with files.explained("The folder for machines could not be made", self.path):
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            os.makedirs(self.images, mode=0o700, exist_ok=True)

    @contextlib.contextmanager
    def lock(self) -> t.Iterator[None]:
        """Nobody else makes or removes a machine meanwhile."""
        with locked(os.path.join(self.path, ".lock"), self.deadline, "change the folder of machines"):
            yield

    def read(self, name: str) -> VmRecord | None:
        """A machine's record; None when there is no such machine.

        Raises:
            MachineError: ``not_ours`` when the folder holds something else, ``bad_record`` when the record is damaged.
        """
        folder = self.folder(name)
        if not os.path.lexists(folder):
            return None
        path = pathlib.Path(folder, RECORD)
        try:
            return VmRecord.from_json(files.read(path, 1 << 20))
        except (FileNotFoundError, NotADirectoryError) as error:
            if not os.path.lexists(folder):
                return None
            raise MachineError(
                f"The folder {folder} is not ours",
                where="option state_dir",
                why=f"it has no {RECORD}",
                hint="Choose another name or state_dir, or move that folder away",
                code="not_ours",
            ) from error
        except ValueError as error:
            raise MachineError(
                f"The record of the machine {name} is damaged",
                where=str(path),
                why=str(error),
                hint="Repair it, or end its QEMU process and remove its folder",
                code="bad_record",
            ) from error

    def save(self, record: VmRecord) -> None:
        """Write a record into its folder."""
        files.write(pathlib.Path(self.folder(record.name), RECORD), record.to_json(), 0o600)

    def records(self) -> t.Iterator[VmRecord]:
        """Every readable record."""
        for name in sorted(_names(self.path)):
            if not name.startswith("."):
                with contextlib.suppress(MachineError):
                    record = self.read(name)
                    if record is not None:
                        yield record

    def add(self, record: VmRecord) -> None:
        """Make a machine's folder with its record in it, in one step; its ports become its own. Call under the lock."""
        with files.explained("The machine's folder could not be made", self.path):
            temporary = tempfile.mkdtemp(prefix=f".new-{record.name}-", dir=self.path)
            try:
                files.write(pathlib.Path(temporary, RECORD), record.to_json(), 0o600)
                os.rename(temporary, self.folder(record.name))
            except BaseException:
                remove_tree(temporary)
                raise

    def remove(self, name: str) -> None:
        """Remove a machine's folder, and base images that nobody uses any more."""
        with self.lock():
            with files.explained("The machine's folder could not be removed", self.folder(name)), contextlib.suppress(FileNotFoundError):
                os.rename(self.folder(name), os.path.join(self.path, f".trash-{name}-{uuid.uuid4().hex}"))
            for rest in self._remains(name):
                remove_tree(os.path.join(self.path, rest))
            self._drop_images()

    def leftovers(self, name: str) -> list[str]:
        """What a run that was killed left of a machine, relative to the folder, and base images that nobody uses."""
        return [*self._remains(name), *(os.path.join(IMAGES, image) for image in self._unused_images())]

    def _remains(self, name: str) -> list[str]:
        starts = (f".new-{name}-", f".trash-{name}-")
        # What follows the name has no hyphen; the name may.
        return sorted(item for item in _names(self.path) for start in starts if item.startswith(start) and "-" not in item[len(start) :])

    def _unused_images(self) -> list[str]:
        """A record names its image before the image is there, so one without a record is nobody's.

        While a record cannot be read, nobody knows what it uses: none is unused then.
        """
        used = set()
        for name in _names(self.path):
            if not name.startswith("."):
                try:
                    record = self.read(name)
                except MachineError:
                    return []
                if record is not None:
                    used.add(record.base)
        return sorted(set(_names(self.images)) - used)

    def _drop_images(self) -> None:
        for name in self._unused_images():
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.images, name))

    # --- ports -------------------------------------------------------------------------------------------------

    def taken_ports(self, but: str = "") -> dict[tuple[str, int], str]:
        """``(protocol, port)`` of every machine, running or not, and its name."""
        return {
            (item.protocol, item.host_port): record.name
            for record in self.records()
            if record.name != but
            for item in record.all_forwards()
        }

    def pick_ports(self, record: VmRecord) -> None:
        """Give every forward without a host port a free one, and check the others. Call under the lock.

        Raises:
            MachineError: ``busy_port``, naming the machine that has it where it is one of ours; ``no_port``.
        """
        taken = self.taken_ports(record.name)
        for item in record.all_forwards():
            if item.host_port:
                self.check_port(record.bind_address, item, taken)
            else:
                item.host_port = self._free_port(record.bind_address, item.protocol, taken)
            taken[(item.protocol, item.host_port)] = record.name

    @staticmethod
    def check_port(address: str, item: Forward, taken: t.Mapping[tuple[str, int], str]) -> None:
        """Raise ``busy_port`` when a port is in use."""
        holder = taken.get((item.protocol, item.host_port), "")
        try:
            free = not holder and port_is_free(address, item.host_port, item.protocol)
        except OSError as error:
            raise MachineError(
                f"{address} cannot be listened on", where="option bind_address", why=error.strerror or str(error), code="invalid_option"
            ) from error
        if not free:
            raise busy_port(address, item, f"the machine {holder} has it" if holder else "another program listens there, or may alone")

    def _free_port(self, address: str, protocol: str, taken: t.Mapping[tuple[str, int], str]) -> int:
        for port in random.sample(_PORTS, _TRIES):
            item = Forward(port, 0, protocol)
            if (protocol, port) not in taken:
                with contextlib.suppress(BusyPort):
                    self.check_port(address, item, taken)
                    return port
        raise MachineError("No free port was found", why=f"{_TRIES} ports between {_PORTS[0]} and {_PORTS[-1]} were tried", code="no_port")


class BusyPort(MachineError):
    """A port that a machine needs is in use; its code is ``busy_port``."""


def busy_port(address: str, item: Forward, why: str) -> BusyPort:
    """The error for a port that is in use."""
    return BusyPort(
        f"Port {item.host_port}/{item.protocol} on {address} is busy",
        where=f"forward to the guest's port {item.guest_port}",
        why=why,
        hint="Free it, or choose another port (0 picks a free one)",
        code="busy_port",
    )
