# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until a machine can be worked on: its host key pinned, SSH answering, its first boot finished.

Runs on the controller; everything it asks of the machine goes over the task's own connection, so jump hosts, agents
and whatever else the user set for Ansible work here as well.
"""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import subprocess
import tempfile
import time
import typing as t

from ansible.errors import AnsibleConnectionFailure
from ansible_collections.dockyard.machine.plugins.module_utils import ssh_keys
from ansible_collections.dockyard.machine.plugins.module_utils.errors import DeadlineError, MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import validate_name
from ansible_collections.dockyard.machine.plugins.module_utils.record import Record
from ansible_collections.dockyard.machine.plugins.module_utils.store import Store
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline, poll
from ansible_collections.dockyard.machine.plugins.plugin_utils.controller import MachineAction

# A machine whose first boot is not over may not have our key yet.
GRACE = 120.0

CLOUD_INIT = "if command -v cloud-init >/dev/null 2>&1; then timeout {seconds} cloud-init status --wait --long 2>&1; fi"

# What ssh says when waiting is of no use: (pattern, code, why, hint).
_FATAL: t.Final = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed|host key .* mismatch",
        "host_key_changed",
        "the host shows another SSH host key than the one that is pinned",
        "If the host was really reinstalled, run again with machine_repin_host_key=true; otherwise somebody stands between",
    ),
    ("UNPROTECTED PRIVATE KEY FILE", "key_permissions", "the private key can be read by others", "chmod 600 the private key"),
    (
        "Could not resolve hostname|Name or service not known",
        "unknown_host",
        "the address has no such name",
        "Correct ansible_host or the option address",
    ),
    ("Identity file .* not accessible", "missing_key", "the private key file does not exist", "Correct ansible_ssh_private_key_file"),
)
_DENIED = re.compile(r"Permission denied|Too many authentication failures|Invalid/incorrect (username/)?password", re.IGNORECASE)


def classify(text: str, where: str) -> MachineError | None:
    """The error for an answer of ssh that waiting will not mend; None when it may pass."""
    for pattern, code, why, hint in _FATAL:
        if re.search(pattern, text, re.IGNORECASE):
            return MachineError("SSH refuses to connect", where=where, why=why, hint=hint, code=code)
    return None


def denied(where: str) -> MachineError:
    """The error for a host that doesn't take our key."""
    return MachineError(
        "SSH does not let us in",
        where=where,
        why="the host accepts neither the user nor the key (permission denied)",
        hint="Check ansible_user and ansible_ssh_private_key_file, and that the public key is in the host's authorized_keys",
        code="ssh_denied",
    )


class ActionModule(MachineAction):
    """``dockyard.machine.machine_ready``"""

    ARGUMENT_SPEC = {
        "name": {"type": "str", "required": True},
        "store": {"type": "path"},
        "timeout": {"type": "float", "default": 900},
        "cloud_init": {"type": "bool", "default": True},
        "host_key_fingerprint": {"type": "str", "default": ""},
        "repin": {"type": "bool", "default": False},
    }

    def act(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Pin, wait, and give the machine a host key of its own."""
        name = validate_name(args["name"])
        self.store = Store(args["store"])
        self.where = f"machine {name}"
        self.deadline = Deadline(args["timeout"])
        done: list[str] = []
        if self.check_mode:
            return {"changed": False, "actions": done}
        record = self.store.load(name)
        if record is None:
            raise MachineError(
                f"There is no machine {name} in the store",
                where=str(self.store.path),
                hint="Run the role machine first",
                code="missing_machine",
            )
        if args["repin"] or record.host_keys == "":
            done += self._pin_first_contact(record, args)
        self._wait_for_ssh(record)
        if args["cloud_init"] and not record.engine:
            self._wait_for_cloud_init()
        if record.host_keys == "first":
            self._own_host_key(record, task_vars)
            done.append("own_host_key")
        return {"changed": bool(done), "actions": done, "elapsed": round(self.deadline.elapsed(), 1)}

    # --- host keys ---------------------------------------------------------------------------------------------

    def _save(self, record: Record, keys: list[str], state: str) -> None:
        with self.store.lock(record.name, 60):
            self.store.write(self.store.known_hosts(record.name), ssh_keys.known_hosts(record.name, keys).encode(), 0o600)
            current = self.store.load(record.name) or record
            current.host_keys = state
            self.store.save(current)
        record.host_keys = state

    def _ssh_option(self, name: str) -> str:
        try:
            return str(self._connection.get_option(name) or "")
        except KeyError:
            return ""

    def shown_keys(self, alias: str) -> tuple[list[str], str]:
        """The host key that the host shows now, asked for without logging in; and what ssh said.

        Uses the user's own SSH arguments, so it goes through the same jump hosts as everything else.
        """
        with tempfile.TemporaryDirectory(prefix="dockyard-") as folder:
            found = pathlib.Path(folder, "known_hosts")
            command = [self._ssh_option("ssh_executable") or "ssh"]
            for option in (
                "StrictHostKeyChecking=accept-new",
                f"UserKnownHostsFile={found}",
                f"HostKeyAlias={alias}",
                "HashKnownHosts=no",
                "PreferredAuthentications=none",
                "PubkeyAuthentication=no",
                "BatchMode=yes",
                "ControlMaster=no",
                "ControlPath=none",
                "ConnectTimeout=10",
            ):
                command += ["-o", option]
            for option in ("ssh_args", "ssh_common_args", "ssh_extra_args"):
                command += shlex.split(self._ssh_option(option))
            if self._ssh_option("port"):
                command += ["-p", self._ssh_option("port")]
            host = self._ssh_option("host") or str(self._play_context.remote_addr)
            user = self._ssh_option("remote_user")
            command += ["--", f"{user}@{host}" if user else host, "true"]
            try:
                answer = subprocess.run(
                    command, capture_output=True, text=True, check=False, timeout=min(60, self.deadline.remaining() + 1), env=os.environ
                )
            except subprocess.TimeoutExpired:
                return [], "no answer"
            return (ssh_keys.parse_known_hosts(found.read_text()) if found.exists() else []), answer.stderr.strip()

    def _pin_first_contact(self, record: Record, args: dict[str, t.Any]) -> list[str]:
        """Accept the host's key once, or only the one with the given fingerprint."""
        if getattr(self._connection, "transport", "") != "ssh":
            return []

        def look() -> tuple[list[str] | None, str]:
            keys, said = self.shown_keys(record.name)
            fatal = classify(said, self.where) if not keys else None
            if fatal is not None:
                raise fatal
            return (keys or None), said.splitlines()[-1] if said else "no host key"

        keys = poll(
            look,
            phase="first contact by SSH",
            where=self.where,
            deadline=self.deadline,
            interval=2,
            hint="Check the address, the port and the firewall",
        )
        prints = [ssh_keys.fingerprint(key) for key in keys]
        wanted = args["host_key_fingerprint"]
        if wanted and wanted not in prints:
            raise MachineError(
                "The host's SSH key is not the expected one",
                where=self.where,
                why=f"expected {wanted}, the host shows {', '.join(prints)}",
                hint="Compare with ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub on the host itself",
                code="host_key_changed",
            )
        if not wanted:
            self.warnings.append(f"{record.name}: its SSH host key {prints[0]} was accepted at first contact and is pinned from now on.")
        self._save(record, keys, "pinned")
        return ["pin_host_key"]

    def _own_host_key(self, record: Record, task_vars: dict[str, t.Any]) -> None:
        """Replace the throw-away key: both are pinned until the machine shows the new one."""
        new = ssh_keys.public_key(self._host_key("generate", task_vars)["public_key"])
        path = self.store.known_hosts(record.name)
        old = ssh_keys.parse_known_hosts(path.read_text()) if path.exists() else []
        self._save(record, list(dict.fromkeys([new, *old])), "first")
        self._host_key("activate", task_vars)

        def look() -> tuple[bool | None, str]:
            keys, said = self.shown_keys(record.name)
            return (True if new in keys else None), f"the host shows {', '.join(map(ssh_keys.fingerprint, keys)) or said}"

        poll(
            look,
            phase="own SSH host key",
            where=self.where,
            deadline=self.deadline.within(60),
            interval=1,
            hint="Restart the SSH service on the host and run again",
        )
        self._save(record, [new], "pinned")
        (self.store.machine_dir(record.name) / ssh_keys.FIRST_HOST_KEY).unlink(missing_ok=True)

    def _host_key(self, phase: str, task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        result = self.module("dockyard.machine.ssh_host_key", {"phase": phase}, task_vars)
        if result.get("failed"):
            raise MachineError(
                "The machine could not be given an SSH host key of its own",
                where=self.where,
                why=str(result.get("msg", "")),
                hint="The account needs sudo without a password; run again when that is mended",
                code="host_key_failed",
            )
        return result

    # --- waiting -----------------------------------------------------------------------------------------------

    def _run(self, command: str) -> tuple[int, str]:
        """Run a constant command on the host.

        Raises:
            AnsibleConnectionFailure: the host could not be reached.
        """
        result = self._low_level_execute_command(command, sudoable=False)
        return int(result["rc"]), f"{result.get('stdout', '')}{result.get('stderr', '')}".strip()

    def _wait_for_ssh(self, record: Record) -> None:
        # A host that was there before us has had time to learn our key.
        grace = time.monotonic() + (GRACE if record.host_keys == "first" else 5)

        def look() -> tuple[bool | None, str]:
            try:
                code, said = self._run("true")
            except AnsibleConnectionFailure as error:
                said = str(error)
                fatal = classify(said, self.where)
                if fatal is not None and (fatal.code != "host_key_changed" or record.host_keys != "first" or time.monotonic() > grace):
                    raise fatal from error
                if _DENIED.search(said) and time.monotonic() > grace:
                    raise denied(self.where) from error
                return None, " ".join(said.split())[-300:]
            return (True, "") if code == 0 else (None, f"'true' ended with {code}: {said[-200:]}")

        poll(
            look,
            phase="SSH",
            deadline=self.deadline,
            interval=1,
            where=self.where,
            hint="Check the address, the firewall and the machine's console",
        )

    def _wait_for_cloud_init(self) -> None:
        while True:
            seconds = max(1, int(self.deadline.remaining()))
            try:
                code, said = self._run(CLOUD_INIT.format(seconds=seconds))
            except AnsibleConnectionFailure as error:
                # The first boot may restart the network or the machine.
                if self.deadline.over:
                    raise DeadlineError("cloud-init", self.deadline.elapsed(), str(error), where=self.where) from error
                self.deadline.sleep(2)
                continue
            break
        tail = " / ".join(line.strip() for line in said.splitlines() if line.strip(" ."))[-500:]
        if code == 124:
            raise DeadlineError(
                "cloud-init", self.deadline.elapsed(), tail, where=self.where, hint="Look at /var/log/cloud-init-output.log on the machine"
            )
        if code == 2:
            self.warnings.append(f"{self.where}: cloud-init finished with recoverable errors: {tail}")
        elif code != 0:
            raise MachineError(
                "The machine's first boot failed",
                where=self.where,
                why=f"cloud-init ended with {code}: {tail}",
                hint="Look at /var/log/cloud-init-output.log on the machine; mend user_data, remove the machine and run again",
                code="cloud_init_failed",
            )
