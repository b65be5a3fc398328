# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driver ``qemu``: a virtual machine on the host that the module runs on. Needs QEMU's programs, and no rights."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import re
import shutil
import subprocess
import typing as t
import uuid

from ansible_collections.dockyard.machine.plugins.module_utils import files
from ansible_collections.dockyard.machine.plugins.module_utils.driver import DEFAULT_TIMEOUTS, Difference, Driver, Wanted
from ansible_collections.dockyard.machine.plugins.module_utils.errors import DeadlineError, MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import Machine, State
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_accel import Acceleration, host_arch
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_command import (
    DISK,
    MACHINE_TYPES,
    PIDFILE,
    SEED,
    SERIAL_LOG,
    arguments,
    find_firmware,
    find_process,
    kill_process,
)
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_image import ImageStore, base_name, default_cache, inspect, keep_base
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_qmp import SOCKET, Monitor, NotRunning
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_seed import check_tools, meta_data, minimal_user_data, write_seed
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_state import (
    IMAGES,
    BusyPort,
    Forward,
    StateFolder,
    VmRecord,
    busy_port,
    default_folder,
)
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_tools import need_programs, program_error, run_program
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline, poll

_GIB: t.Final = 1 << 30
# Less than this and a first boot cannot end well.
_MIN_FREE: t.Final = 1 << 30
# QEMU is up or has failed after this; TCG on a busy host takes a second or two.
_LAUNCH_SECONDS: t.Final = 60.0
# How long a new guest with hardware acceleration is watched: those that fail do so in the first instructions.
_WATCH_SECONDS: t.Final = 3.0
# A guest that is still booting does not hear the power button; it is pressed again.
_PRESS_SECONDS: t.Final = 15.0

# Run states of QEMU (QAPI RunState) in our words; what isn't here is running.
_STATES: t.Final = {
    "prelaunch": State.STARTING,
    "inmigrate": State.STARTING,
    "paused": State.PAUSED,
    "suspended": State.PAUSED,
    "postmigrate": State.PAUSED,
    "debug": State.PAUSED,
    "watchdog": State.PAUSED,
    "io-error": State.PAUSED,
    "shutdown": State.STOPPING,
    "internal-error": State.ERROR,
    "guest-panicked": State.ERROR,
}
_FAULTS: t.Final = {
    "io-error": "writing to its disk failed; most likely the host's disk is full",
    "internal-error": "QEMU reports an internal error of the acceleration; restart it, with accel=tcg if it happens again",
    "guest-panicked": "the guest's kernel panicked; see its serial.log",
}

OPTIONS: t.Final[dict[str, t.Any]] = {
    "state_dir": {"type": "path", "default": ""},
    "image": {"type": "str", "default": ""},
    "image_checksum": {"type": "str", "default": ""},
    "image_cache_dir": {"type": "path", "default": ""},
    "cpus": {"type": "int", "default": 2},
    "memory": {"type": "int", "default": 1024},
    "disk": {"type": "int", "default": 10},
    "arch": {"type": "str", "choices": ["", "x86_64", "aarch64"], "default": ""},
    "accel": {"type": "str", "choices": ["auto", "kvm", "hvf", "tcg"], "default": "auto"},
    "cpu_model": {"type": "str", "default": ""},
    "machine_type": {"type": "str", "default": ""},
    "firmware": {"type": "path", "default": ""},
    "qemu_binary": {"type": "path", "default": ""},
    "bind_address": {"type": "str", "default": "127.0.0.1"},
    "address": {"type": "str", "default": ""},
    "ssh_port": {"type": "int", "default": 0},
    "engine_forward_port": {"type": "int", "default": 0},
    "forwards": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "host_port": {"type": "int", "default": 0},
            "guest_port": {"type": "int", "required": True},
            "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
        },
    },
    "network_config": {"type": "str", "default": ""},
    "extra_args": {"type": "list", "elements": "str", "default": []},
}


class QemuDriver(Driver):
    """Machines are folders; see ``qemu_state``. Whether one runs, its QEMU process says."""

    name = "qemu"
    options: t.ClassVar[dict[str, t.Any]] = OPTIONS
    default_ssh_user = "debian"

    def __init__(self, wanted: Wanted, options: t.Mapping[str, t.Any], deadline: Deadline) -> None:
        super().__init__(wanted, options, deadline)
        self.folder = StateFolder(os.path.abspath(options["state_dir"] or default_folder()), deadline)
        self.arch: str = options["arch"] or host_arch()
        self._pressed: Deadline | None = None

    # --- looking -----------------------------------------------------------------------------------------------

    def find(self) -> Machine | None:
        """See Driver."""
        record = self.folder.read(self.wanted.name)
        if record is None:
            return None
        if self.wanted.owner and record.owner and record.owner != self.wanted.owner:
            raise MachineError(
                f"The machine {record.name} is not ours",
                where=self.folder.folder(record.name),
                why=f"its owner is {record.owner}",
                hint="Choose another name or state_dir",
                code="not_ours",
            )
        return self._machine(record)

    def list(self) -> t.List[Machine]:  # noqa: UP006 - the method shadows the builtin
        """See Driver."""
        owner = self.wanted.owner
        return [self._machine(record) for record in self.folder.records() if owner in ("", record.owner)]

    def leftovers(self) -> t.List[str]:  # noqa: UP006
        """See Driver."""
        return self.folder.leftovers(self.wanted.name)

    def delete_leftovers(self) -> None:
        """See Driver."""
        self.folder.remove(self.wanted.name)

    def _machine(self, record: VmRecord) -> Machine:
        folder = self.folder.folder(record.name)
        status = self._status(record)
        details: dict[str, t.Any] = {
            "folder": folder, "pid": find_process(folder, record.uuid), "status": status, "arch": record.arch, "accel": record.accel,
            "cpus": record.cpus, "memory": record.memory, "disk": record.disk, "image": record.image,
            "serial_log": os.path.join(folder, SERIAL_LOG), "bind_address": record.bind_address,
            "guest_engine_port": record.engine.guest_port,
            "forwards": [dataclasses.asdict(item) for item in record.forwards],
        }  # fmt: skip
        if status in _FAULTS:
            details["fault"] = _FAULTS[status]
        return Machine(
            name=record.name,
            driver=self.name,
            id=record.uuid,
            state=_STATES.get(status, State.RUNNING) if status else State.STOPPED,
            address=record.address,
            ssh_user=record.ssh_user,
            ssh_port=record.ssh.host_port,
            engine_port=record.engine.host_port,
            owner=record.owner,
            token=record.token,
            tags=dict(record.tags),
            complete=record.complete,
            details=details,
        )

    def _status(self, record: VmRecord) -> str:
        """QEMU's run state; empty when the machine isn't running."""
        folder = self.folder.folder(record.name)
        try:
            with Monitor(folder) as monitor:
                if monitor.execute("query-uuid").get("UUID") != record.uuid:
                    return ""
                if self._pressed is not None and self._pressed.over:
                    self._pressed = self.deadline.within(_PRESS_SECONDS)
                    monitor.execute("system_powerdown")
                return str(monitor.execute("query-status").get("status", ""))
        except NotRunning:
            # Between its end as a guest and its end as a process.
            return "shutdown" if find_process(folder, record.uuid) else ""
        except MachineError:
            if not find_process(folder, record.uuid):
                return ""
            raise

    # --- checking ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """See Driver."""
        _check_numbers(self.opts)
        _check_addresses(self.opts)
        self._binary()
        need_programs(["qemu-img"], "a machine's disk")
        check_tools()
        find_firmware(self.arch, self.opts["firmware"])
        self._images().check(self.opts["image"], self.opts["image_checksum"])
        Acceleration(self.folder.path, self._binary(), self.arch).choose(self.opts["accel"])
        self._check_room()

    def _binary(self) -> str:
        wanted = self.opts["qemu_binary"] or f"qemu-system-{self.arch}"
        try:
            return need_programs([wanted], "a virtual machine")[wanted]
        except MachineError as error:
            error.hint = "Correct the option qemu_binary" if self.opts["qemu_binary"] else error.hint
            raise

    def _images(self) -> ImageStore:
        return ImageStore(self.opts["image_cache_dir"] or default_cache(), self.deadline)

    def _check_room(self) -> None:
        folder = self.folder.path
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        with files.explained("The disk could not be looked at", folder):
            free = shutil.disk_usage(folder).free
        if free < _MIN_FREE:
            raise MachineError(
                "There is not enough room for a machine",
                where=folder,
                why=f"{free >> 20} MiB are free, a machine needs {_MIN_FREE >> 20} MiB at least",
                hint="Free some space, or choose another state_dir",
                code="no_space",
            )

    # --- making ------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """See Driver. When it fails, nothing stays; when it is killed, the record says that the machine isn't complete."""
        self.folder.make()
        image = self._images().resolve(self.opts["image"], self.opts["image_checksum"])
        facts = inspect(image, self.deadline)
        if facts.virtual_size > self.opts["disk"] * _GIB:
            raise MachineError(
                f"A disk of {self.opts['disk']} GiB is too small for this image",
                where="option disk",
                why=f"the image has {-(-facts.virtual_size // _GIB)} GiB",
                code="invalid_option",
            )
        record = self._new_record()
        try:
            with self.folder.lock():
                self.folder.pick_ports(record)
                record.base = base_name(image)
                self.folder.add(record)
                keep_base(image, self.folder.images)
            self._make_disks(record, facts.format)
            self._launch(record)
            record.complete = True
            self.folder.save(record)
        except BaseException:
            # Only what this call made: the folder belongs to somebody else when it was there before.
            with contextlib.suppress(MachineError):
                found = self.folder.read(record.name)
                if found is not None and found.uuid == record.uuid:
                    self._remove(record)
            raise

    def _new_record(self) -> VmRecord:
        opts = self.opts
        return VmRecord(
            name=self.wanted.name,
            owner=self.wanted.owner,
            token=self.wanted.token,
            uuid=str(uuid.uuid4()),
            tags=dict(self.wanted.tags),
            ssh_user=self.wanted.ssh_user,
            arch=self.arch,
            binary=self._binary(),
            machine_type=opts["machine_type"] or MACHINE_TYPES[self.arch],
            cpu_model=opts["cpu_model"],
            cpus=opts["cpus"],
            memory=opts["memory"],
            disk=opts["disk"],
            firmware=find_firmware(self.arch, opts["firmware"]),
            image=opts["image"],
            bind_address=opts["bind_address"],
            address=opts["address"] or opts["bind_address"],
            ssh=Forward(opts["ssh_port"], 22),
            engine=Forward(opts["engine_forward_port"], self.wanted.engine_port),
            forwards=[Forward(item["host_port"], item["guest_port"], item["protocol"]) for item in opts["forwards"]],
            extra_args=[str(item) for item in opts["extra_args"]],
        )

    def _make_disks(self, record: VmRecord, base_format: str) -> None:
        folder = self.folder.folder(record.name)
        tool = need_programs(["qemu-img"], "a machine's disk")["qemu-img"]
        # Relative to the disk, so that the state folder can be moved.
        base = os.path.join("..", IMAGES, record.base)
        disk = os.path.join(folder, DISK)
        run_program(
            [tool, "create", "-q", "-f", "qcow2", "-F", base_format, "-b", base, disk, f"{record.disk}G"],
            what="Making the machine's disk", deadline=self.deadline,
        )  # fmt: skip
        os.chmod(disk, 0o600)
        contents = {
            "meta-data": meta_data(record.name, record.token or record.uuid),
            "user-data": self.wanted.user_data or minimal_user_data(record.ssh_user, self.wanted.ssh_public_key),
            "network-config": self.opts["network_config"],
        }
        write_seed(os.path.join(folder, SEED), contents, self.deadline)

    # --- running -----------------------------------------------------------------------------------------------

    def _launch(self, record: VmRecord) -> None:
        """Start QEMU; with accel ``auto``, fall back to emulation when a real guest fails where the test guest did not."""
        acceleration = Acceleration(self.folder.path, record.binary, record.arch)
        record.accel, why = acceleration.choose(self.opts["accel"])
        if why:
            self.warn(f"{record.name} runs with software emulation, which is slow: {why}.")
        if record.accel == "tcg":
            self._spawn(record)
        else:
            fault = self._try(record)
            if fault and self.opts["accel"] == "auto":
                acceleration.remember_failure(record.accel, fault)
                self.warn(f"{record.name} runs with software emulation, which is slow: with {record.accel}, {fault}.")
                record.accel = "tcg"
                self._end(record)
                self._spawn(record)
            elif fault:
                self._end(record)
                raise MachineError(
                    f"The machine {record.name} does not run with {record.accel}", why=fault, hint="Use accel=auto", code="acceleration"
                )
        self.folder.save(record)

    def _try(self, record: VmRecord) -> str:
        """Start with hardware acceleration and watch; returns what went wrong, or an empty string."""
        try:
            self._spawn(record)
        except (BusyPort, DeadlineError):
            raise
        except MachineError as error:
            return error.why or error.what
        watch = self.deadline.within(_WATCH_SECONDS)
        while not watch.over:
            status = self._status(record)
            if status in ("", "shutdown", "internal-error"):
                return _FAULTS.get(status, "QEMU ended at once")
            watch.sleep(0.3)
        return ""

    def _spawn(self, record: VmRecord) -> None:
        """Start QEMU as a daemon: it has its own session, no file of ours open, and outlives us."""
        folder = self.folder.folder(record.name)
        for name in (SOCKET, PIDFILE):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))
        seconds = min(_LAUNCH_SECONDS, max(1.0, self.deadline.remaining()))
        try:
            done = subprocess.run(
                [record.binary, *arguments(record)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                umask=0o077,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            self._end(record)
            raise DeadlineError("start QEMU", seconds, "it did not say that it is up", where=folder) from error
        except OSError as error:
            raise MachineError("QEMU could not be started", where=record.binary, why=error.strerror or str(error), code="launch") from error
        if done.returncode != 0:
            raise _launch_error(record, done.returncode, done.stderr.decode(errors="replace"))

    def start(self, machine: Machine) -> None:
        """See Driver. Ports, disk and identity stay."""
        record = self._record(machine)
        if machine.state == State.PAUSED:
            self._resume(record, machine)
            return
        if find_process(self.folder.folder(record.name), record.uuid):
            return
        with self.folder.lock():
            taken = self.folder.taken_ports(record.name)
            for item in record.all_forwards():
                self.folder.check_port(record.bind_address, item, taken)
        record.binary = self._binary() if record.arch == self.arch else record.binary
        self._launch(record)

    def _resume(self, record: VmRecord, machine: Machine) -> None:
        with self._monitor(record) as monitor:
            monitor.execute("system_wakeup" if machine.details.get("status") == "suspended" else "cont")
        self.deadline.sleep(1.0)
        if self._status(record) == "io-error":
            raise MachineError(
                f"The machine {record.name} cannot write to its disk",
                where=self.folder.folder(record.name),
                why="most likely the host's disk is full",
                hint="Free some space and start it again; the guest goes on where it was",
                code="no_space",
            )

    def stop(self, machine: Machine) -> None:
        """Press the power button; while ``converge`` waits, it is pressed again now and then."""
        record = self._record(machine)
        with contextlib.suppress(NotRunning), self._monitor(record) as monitor:
            self._pressed = self.deadline.within(_PRESS_SECONDS)
            monitor.execute("system_powerdown")

    def kill(self, machine: Machine) -> None:
        """See Driver."""
        self._end(self._record(machine))

    def restart(self, machine: Machine) -> None:
        """Shut down and start again, so that changed options take effect; its power goes when it doesn't shut down in time."""
        record = self._record(machine)
        self.stop(machine)
        grace = self.deadline.within(float(self.wanted.timeouts.get("stop", DEFAULT_TIMEOUTS["stop"])))
        while self._status(record):
            if grace.over:
                self.warn(f"{record.name} did not shut down within {grace.elapsed():.0f} s; its power was taken away.")
                break
            grace.sleep(self.wanted.poll_interval)
        self._pressed = None
        self._end(record)
        self._launch(record)

    def delete(self, machine: Machine) -> None:
        """See Driver."""
        record = self.folder.read(machine.name)
        if record is not None:
            self._remove(record)

    def _remove(self, record: VmRecord) -> None:
        self._end(record)
        self.folder.remove(record.name)

    def _end(self, record: VmRecord) -> None:
        """End QEMU: ask it to quit, then kill the process, if it is ours for sure."""
        folder = self.folder.folder(record.name)
        pid = find_process(folder, record.uuid)
        with contextlib.suppress(NotRunning, MachineError), Monitor(folder, timeout=3.0) as monitor:
            if monitor.execute("query-uuid").get("UUID") == record.uuid:
                monitor.execute("quit")

        def gone() -> tuple[bool | None, str]:
            return (None, f"process {pid}") if find_process(folder, record.uuid) else (True, "")

        if pid:
            with contextlib.suppress(DeadlineError):
                poll(gone, phase="end QEMU", deadline=self.deadline.within(5.0), interval=0.1)
                return
            kill_process(find_process(folder, record.uuid) or pid)
            poll(gone, phase="end QEMU", deadline=Deadline(10.0), interval=0.1, hint="The process hangs in the kernel; is its disk gone?")

    def _record(self, machine: Machine) -> VmRecord:
        record = self.folder.read(machine.name)
        if record is None:
            raise MachineError(f"The machine {machine.name} vanished", where=self.folder.folder(machine.name), code="vanished")
        return record

    def _monitor(self, record: VmRecord) -> Monitor:
        return Monitor(self.folder.folder(record.name))

    # --- changing ----------------------------------------------------------------------------------------------

    def drift(self, machine: Machine) -> t.List[Difference]:  # noqa: UP006
        """See Driver. A port that was picked is right; an image is compared by its name only."""
        record = self._record(machine)
        opts = self.opts
        found = [
            Difference("cpus", record.cpus, opts["cpus"], needs_stop=True),
            Difference("memory", record.memory, opts["memory"], needs_stop=True),
            Difference("disk", record.disk, opts["disk"], in_place=opts["disk"] > record.disk, needs_stop=True),
            Difference("cpu_model", record.cpu_model, opts["cpu_model"], needs_stop=True),
            Difference("bind_address", record.bind_address, opts["bind_address"], needs_stop=True),
            Difference("address", record.address, opts["address"] or opts["bind_address"]),
            Difference("ssh_port", record.ssh.host_port, opts["ssh_port"] or record.ssh.host_port, needs_stop=True),
            Difference(
                "engine_forward_port", record.engine.host_port, opts["engine_forward_port"] or record.engine.host_port, needs_stop=True
            ),
            Difference("engine_port", record.engine.guest_port, self.wanted.engine_port, needs_stop=True),
            Difference("forwards", _shown(record.forwards), _shown(_merged(opts["forwards"], record.forwards)), needs_stop=True),
            Difference("extra_args", record.extra_args, [str(item) for item in opts["extra_args"]], needs_stop=True),
            Difference("tags", record.tags, dict(self.wanted.tags)),
            Difference("image", record.image, opts["image"] or record.image, in_place=False),
            Difference("arch", record.arch, opts["arch"] or record.arch, in_place=False),
            Difference("machine_type", record.machine_type, opts["machine_type"] or record.machine_type, needs_stop=True),
        ]
        return [item for item in found if item.actual != item.wanted]

    def update(self, machine: Machine, differences: t.Sequence[Difference]) -> None:
        """See Driver."""
        _check_numbers(self.opts)
        _check_addresses(self.opts)
        record = self._record(machine)
        possible = {
            item.option: item.wanted for item in differences if item.in_place and (machine.state == State.STOPPED or not item.needs_stop)
        }
        for option in ("cpus", "memory", "disk", "cpu_model", "bind_address", "address", "extra_args", "tags", "machine_type"):
            if option in possible:
                setattr(record, option, possible[option])
        for option, item, field in (
            ("ssh_port", record.ssh, "host_port"),
            ("engine_forward_port", record.engine, "host_port"),
            ("engine_port", record.engine, "guest_port"),
        ):
            if option in possible:
                setattr(item, field, possible[option])
        if "forwards" in possible:
            record.forwards = _merged(self.opts["forwards"], record.forwards)
        if "disk" in possible:
            tool = need_programs(["qemu-img"], "a machine's disk")["qemu-img"]
            disk = os.path.join(self.folder.folder(record.name), DISK)
            run_program([tool, "resize", "-q", "-f", "qcow2", disk, f"{record.disk}G"], what="Growing the disk", deadline=self.deadline)
        with self.folder.lock():
            if possible.keys() & {"ssh_port", "engine_forward_port", "forwards", "bind_address"}:
                self.folder.pick_ports(record)
            self.folder.save(record)


# --- helpers -------------------------------------------------------------------------------------------------------


def _shown(forwards: t.Iterable[Forward]) -> list[str]:
    """Forwards as a person writes them."""
    return [f"{item.host_port}:{item.guest_port}/{item.protocol}" for item in forwards]


def _merged(wanted: t.Iterable[t.Mapping[str, t.Any]], actual: t.Sequence[Forward]) -> list[Forward]:
    """The wanted forwards; one without a host port keeps that which was picked for it."""
    picked = {(item.protocol, item.guest_port): item.host_port for item in actual}
    return [
        Forward(item["host_port"] or picked.get((item["protocol"], item["guest_port"]), 0), item["guest_port"], item["protocol"])
        for item in wanted
    ]


def _invalid(option: str, value: t.Any, why: str) -> MachineError:
    return MachineError(f"{value!r} is not valid", where=f"option {option}", why=why, code="invalid_option")


def _check_numbers(opts: t.Mapping[str, t.Any]) -> None:
    for option, low, high, unit in (("cpus", 1, 512, "CPUs"), ("memory", 128, 1 << 24, "MiB"), ("disk", 1, 1 << 16, "GiB")):
        if not low <= opts[option] <= high:
            raise _invalid(option, opts[option], f"it is between {low} and {high} {unit}")
    ports = [("ssh_port", opts["ssh_port"]), ("engine_forward_port", opts["engine_forward_port"])]
    for item in opts["forwards"]:
        ports += [("forwards", item["host_port"]), ("forwards", item["guest_port"] or -1)]
    for option, port in ports:
        if not 0 <= port <= 65535:
            raise _invalid(option, port, "it is no port number")
    given = [(item["protocol"], item["host_port"]) for item in opts["forwards"] if item["host_port"]]
    given += [("tcp", port) for dummy, port in ports[:2] if port]
    twice = next((pair for pair in given if given.count(pair) > 1), None)
    if twice:
        raise _invalid("forwards", twice[1], "the same port is forwarded twice")


def _check_addresses(opts: t.Mapping[str, t.Any]) -> None:
    try:
        bound = ipaddress.IPv4Address(opts["bind_address"])
    except ValueError as error:
        raise _invalid("bind_address", opts["bind_address"], "it is no IPv4 address") from error
    if bound.is_unspecified and not opts["address"]:
        raise MachineError(
            "How the machine is reached is not known",
            where="option address",
            why="with bind_address 0.0.0.0, its ports are forwarded from every address of the host",
            hint="Give the host's address or name in the option address",
            code="invalid_option",
        )
    if not re.fullmatch(r"[A-Za-z0-9_.:-]*", opts["address"]) or opts["address"].startswith("-"):
        raise _invalid("address", opts["address"], "it is no IP address and no DNS name")
    for option in ("cpu_model", "machine_type"):
        if not re.fullmatch(r"[A-Za-z0-9_.,=+-]*", opts[option]) or opts[option].startswith("-"):
            raise _invalid(option, opts[option], "it has characters that cannot stand there")


def _launch_error(record: VmRecord, code: int, said: str) -> MachineError:
    """QEMU's own words for the usual reasons, turned into ours."""
    rule = re.search(r"host forwarding rule '(\w+):[^:]*:(\d+)-:?[^:]*:?(\d+)'", said)
    if rule:
        return busy_port(record.bind_address, Forward(int(rule.group(2)), int(rule.group(3)), rule.group(1)), "QEMU cannot listen there")
    if "lock" in said and "Is another process using the image" in said:
        return MachineError(
            f"The disk of {record.name} is in use", why="another QEMU process has it open", hint="End that process", code="disk_in_use"
        )
    if "annot allocate memory" in said or "cannot set up guest memory" in said:
        return MachineError(
            f"The host has not enough memory for {record.name}",
            where="option memory",
            why=f"{record.memory} MiB were asked for",
            code="no_memory",
        )
    error = program_error("Starting QEMU", record.binary, code, said)
    error.code = "launch"
    return error
