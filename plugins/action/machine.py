# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dispatch from ``driver`` to the driver's module, around it the record: intent first, what came of it after.

The action runs on the controller and alone knows the store; the module runs where the provider is reached from.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import json
import shlex
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils import cloud_init, ssh_keys
from ansible_collections.dockyard.machine.plugins.module_utils.client_files import ssh_arguments
from ansible_collections.dockyard.machine.plugins.module_utils.driver import DEFAULT_TIMEOUTS, WANTED_STATES, Driver
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import Machine, validate_name
from ansible_collections.dockyard.machine.plugins.module_utils.store import Record, Store
from ansible_collections.dockyard.machine.plugins.plugin_utils.controller import MachineAction
from ansible_collections.dockyard.machine.plugins.plugin_utils.dispatch import (
    check_options,
    driver_variables,
    load_driver,
    module_name,
    secret_options,
)

MAKING = ("present", "started")


@dataclasses.dataclass
class Job:
    """One task: whose machine, by which module, with what."""

    store: Store
    record: Record
    known: bool
    """The record was there before this task."""
    module: str
    driver: type[Driver] | None
    """None for somebody else's module, of which only the contract is known."""
    options: dict[str, t.Any]
    interrupted: bool = False
    """An earlier run was cut short while it made this machine."""


class ActionModule(MachineAction):
    """``dockyard.machine.machine``"""

    ARGUMENT_SPEC = {
        "name": {"type": "str", "required": True},
        "driver": {"type": "str", "default": ""},
        "state": {"type": "str", "choices": list(WANTED_STATES), "default": "started"},
        "options": {"type": "dict", "default": {}},
        "host_options": {"type": "dict", "default": {}},
        "store": {"type": "path"},
        "owner": {"type": "str", "default": ""},
        "tags": {"type": "dict", "default": {}},
        "user_data": {"type": "str", "default": "", "no_log": True},
        "ssh_user": {"type": "str", "default": ""},
        "ssh_key": {"type": "path"},
        "engine_port": {"type": "int", "default": 2376},
        "timeout": {"type": "float", "default": 1800},
        "timeouts": {"type": "dict", "default": {}, "options": {phase: {"type": "float"} for phase in DEFAULT_TIMEOUTS}},
        "lock_timeout": {"type": "float", "default": 300},
    }

    def act(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Converge one machine under its lock."""
        name = validate_name(args["name"])
        store = Store(args["store"])
        # Check mode leaves no trace, not even a lock file.
        lock = contextlib.nullcontext() if self.check_mode else store.lock(name, args["lock_timeout"], f"state {args['state']}")
        with lock:
            record = store.load(name)
            if record is None and not args["driver"]:
                if args["state"] == "absent":
                    return {"changed": False, "machine": None, "actions": []}
                raise MachineError(
                    f"The driver of the machine {name} is not known",
                    where="option driver",
                    why=f"the store {store.path} has no such machine",
                    hint="Name its driver, for example machine_driver=qemu",
                    code="unknown_driver",
                )
            job = self._job(args, store, record, task_vars)
            return self._absent(job, args, task_vars) if args["state"] == "absent" else self._converge(job, args, task_vars)

    def _job(self, args: dict[str, t.Any], store: Store, record: Record | None, task_vars: dict[str, t.Any]) -> Job:
        name, driver_name = args["name"], args["driver"] or (record.driver if record else "")
        if record is not None and record.driver != driver_name:
            raise MachineError(
                f"The machine {name} exists with the driver {record.driver}",
                where="option driver",
                why=f"this run asks for {driver_name}",
                hint="Choose another name, or remove the machine first",
                code="duplicate_name",
            )
        module = module_name(driver_name)
        driver = load_driver(module)
        if driver is None and not self._shared_loader_obj.module_loader.has_plugin(module):
            raise MachineError(
                f"There is no module {module}",
                where="option driver",
                why="no installed collection has it",
                hint="Install its collection, or name one of our drivers (ansible-doc --list dockyard.machine)",
                code="unknown_driver",
            )
        options = self._options(driver, record, args, task_vars)
        known = record is not None
        if record is None:
            record = Record.new(name, driver_name, args["owner"] or store.owner(write=not self.check_mode))
        return Job(store, record, known, module, driver, options)

    def _options(
        self, driver: type[Driver] | None, record: Record | None, args: dict[str, t.Any], task_vars: dict[str, t.Any]
    ) -> dict[str, t.Any]:
        """The driver's options: remembered ones, then what the inventory host says, variables, and what was given."""
        options = dict(record.options) if record else {}
        if driver is not None:
            # An option that a newer release dropped is no reason to fail.
            options = {key: value for key, value in options.items() if key in driver.options}
            # Where the machine was made is not asked of a later run's environment: it would look in the wrong place.
            details = record.machine.details if record and record.machine else {}
            options = {**{key: details[key] for key in driver.remembered if details.get(key)}, **options}
            options.update(args["host_options"])
            options.update(self._templar.template(driver_variables(driver, task_vars)))
        options.update(args["options"])
        # An empty answer of a survey means "not given".
        options = {key: value for key, value in options.items() if value is not None and value != ""}
        if driver is not None:
            check_options(driver, options)
        return options

    # --- making and keeping ------------------------------------------------------------------------------------

    def _converge(self, job: Job, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        record = job.record
        before = copy.deepcopy(record)
        if args["ssh_key"]:
            record.ssh_key_path = args["ssh_key"]
        secrets = secret_options(job.driver)
        if job.driver is not None:
            record.options = {key: value for key, value in job.options.items() if key not in secrets}
        try:
            if not self.check_mode and args["state"] in MAKING:
                self._intent(job)
            module_args = self._module_args(job, args)
        except MachineError:
            if not self.check_mode:
                self._undo(job, before)
            raise
        result = self._run_module(job, args, module_args, task_vars)
        if result.get("failed"):
            # A module that refused its arguments did not come as far as naming actions.
            if result.pop("untouched", "actions" not in result) and job.driver is not None and not self.check_mode:
                self._undo(job, before)
            return result
        result["registered"] = not job.known
        result["changed"] = bool(result.get("changed")) or not job.known
        machine = Machine.from_dict(result["machine"])
        if not self.check_mode:
            self._remember(job, machine, created="create" in result.get("actions", []))
        result["connection"] = self._connection_variables(job, machine)
        result["fresh"] = not record.engine
        return result

    @staticmethod
    def _undo(job: Job, before: Record) -> None:
        """Nothing was touched at the provider, so nothing of this run stays in the store."""
        if not job.known:
            job.store.forget(before.name)
        elif not job.interrupted:
            job.store.save(before)

    def _intent(self, job: Job) -> None:
        """Write down what is about to be made, with its keys, before anything is."""
        store, record = job.store, job.record
        folder = store.machine_dir(record.name)
        if job.driver is not None and job.driver.creates and not record.ssh_key_path:
            record.ssh_key_path = str(folder / "id_ed25519")
        store.save(record)
        if record.ssh_key_path == str(folder / "id_ed25519") and not (folder / "id_ed25519").exists():
            pair = ssh_keys.generate(f"dockyard-{record.name}")
            store.write(folder / "id_ed25519.pub", f"{pair.public}\n".encode(), 0o644)
            store.write(folder / "id_ed25519", pair.private.encode(), 0o600)
        if job.driver is None or not job.driver.creates:
            return
        job.interrupted = (folder / ssh_keys.FIRST_HOST_KEY).exists()
        if not job.interrupted:
            store.write(
                folder / ssh_keys.FIRST_HOST_KEY, json.dumps(dataclasses.asdict(ssh_keys.generate("first-contact"))).encode(), 0o600
            )
        # A killed run may have made the machine with this key: it is trusted beside the pins until that is known.
        self._pin(job, [*self._pins(job), self._first_key(job).public])

    @staticmethod
    def _first_key(job: Job) -> ssh_keys.KeyPair:
        return ssh_keys.KeyPair(**json.loads((job.store.machine_dir(job.record.name) / ssh_keys.FIRST_HOST_KEY).read_text()))

    @staticmethod
    def _pins(job: Job) -> list[str]:
        path = job.store.known_hosts(job.record.name)
        return ssh_keys.parse_known_hosts(path.read_text()) if path.exists() else []

    @staticmethod
    def _pin(job: Job, keys: list[str]) -> None:
        unique = dict.fromkeys(ssh_keys.public_key(key) for key in keys)
        job.store.write(job.store.known_hosts(job.record.name), ssh_keys.known_hosts(job.record.name, unique).encode(), 0o600)

    def _settle_host_key(self, job: Job, created: bool) -> None:
        """Which host key the machine has, now that it is known whether this run made it."""
        record = job.record
        first = job.store.machine_dir(record.name) / ssh_keys.FIRST_HOST_KEY
        if not first.exists():
            return
        public = self._first_key(job).public
        if created:
            record.host_keys = "first"
            record.engine = {}
            self._pin(job, [public])
        elif job.interrupted:
            # It shows this key or a pinned one; both are trusted, and it gets a new one.
            record.host_keys = "first"
        else:
            self._pin(job, [key for key in self._pins(job) if key != ssh_keys.public_key(public)])
            first.unlink()

    def _public_key(self, job: Job) -> str:
        path = job.record.ssh_key_path
        if not path:
            return ""
        try:
            with open(f"{path}.pub", encoding="utf-8") as file:
                return file.read().strip()
        except OSError as error:
            if self.check_mode or not (job.driver and job.driver.creates):
                return ""
            raise MachineError(
                "The public half of the SSH key cannot be read",
                where=f"{path}.pub",
                why=str(error.strerror),
                hint="Put it beside the private key: ssh-keygen -y -f KEY > KEY.pub",
                code="missing_key",
            ) from error

    def _user_data(self, job: Job, args: dict[str, t.Any], user: str, public_key: str) -> str:
        if job.driver is None or not job.driver.creates or not public_key:
            return str(args["user_data"])
        first = job.store.machine_dir(job.record.name) / ssh_keys.FIRST_HOST_KEY
        pair = self._first_key(job) if first.exists() else None
        return cloud_init.compose(cloud_init.base_config(job.record.name, user, public_key, pair), args["user_data"])

    def _module_args(self, job: Job, args: dict[str, t.Any]) -> dict[str, t.Any]:
        record = job.record
        machine = record.machine
        user = args["ssh_user"] or (machine.ssh_user if machine else "") or (job.driver.default_ssh_user if job.driver else "")
        public_key = self._public_key(job)
        shared = {key: args[key] for key in ("name", "state", "tags", "engine_port", "timeout", "timeouts")}
        return {
            **job.options,
            **shared,
            "owner": args["owner"] or record.owner,
            "token": record.token,
            "provider_id": machine.id if machine else "",
            "ssh_user": user,
            "ssh_public_key": public_key,
            "user_data": self._user_data(job, args, user, public_key) if args["state"] in MAKING else "",
        }

    def _run_module(self, job: Job, args: dict[str, t.Any], module_args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        result = self.module(job.module, module_args, task_vars)
        if not result.get("failed") and args["state"] != "absent" and not isinstance(result.get("machine"), dict):
            raise MachineError(
                f"The module {job.module} returned no machine",
                why="a driver's result needs the dictionary 'machine'",
                hint="See docs/writing-a-driver.md",
                code="broken_driver",
            )
        return result

    def _remember(self, job: Job, machine: Machine, *, created: bool) -> None:
        record = job.record
        if not job.known and machine.token and machine.token != record.token:
            # The machine was there before this store knew it: take over its generation.
            record.token = machine.token
        record.machine = machine
        self._settle_host_key(job, created)
        job.store.save(record)

    def _connection_variables(self, job: Job, machine: Machine) -> dict[str, t.Any]:
        """What Ansible needs to reach the machine, by the names of its own variables."""
        # A host that exists already is pinned at first contact, which comes after this.
        record = dataclasses.replace(job.record, machine=machine, host_keys=job.record.host_keys or "pinned")
        return {
            "ansible_host": machine.address,
            "ansible_port": machine.ssh_port,
            "ansible_user": machine.ssh_user,
            "ansible_ssh_private_key_file": record.ssh_key_path,
            "ansible_control_path": f"%(directory)s/{_generation(record)}-%%r",
            "ssh_arguments": " ".join(shlex.quote(word) for word in ssh_arguments(record, job.store)),
        }

    # --- removing ----------------------------------------------------------------------------------------------

    def _absent(self, job: Job, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        result = self._run_module(job, args, self._module_args(job, args), task_vars)
        if result.get("failed"):
            return result
        result["changed"] = bool(result.get("changed")) or job.known
        if job.known:
            result.setdefault("actions", []).append("forget")
        if not self.check_mode:
            job.store.forget(job.record.name)
        return result


def _generation(record: Record) -> str:
    """A name for SSH's shared connection, so that another generation of the machine, address or key never rides on an old one."""
    machine = record.machine
    where = f"{machine.address} {machine.ssh_port}" if machine else ""
    return hashlib.sha256(f"{record.name} {record.token} {record.ssh_key_path} {where}".encode()).hexdigest()[:10]
