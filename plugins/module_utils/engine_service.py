# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine as a service of a host: systemd, its local socket, its log, who holds its port.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import re
import socket
import subprocess
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils import files
from ansible_collections.dockyard.machine.plugins.module_utils.errors import DeadlineError, MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline, poll

UNIT = "docker.service"
SOCKET_UNIT = "docker.socket"
SOCKET = "/var/run/docker.sock"
RESTART_MARKER = pathlib.Path("/run/dockyard-machine/engine-restart")
"""Is there from before a file of the engine is replaced until the engine runs with it. Gone after a reboot, as the need is."""

_COMMAND_TIMEOUT = 30.0


@dataclasses.dataclass(frozen=True)
class Completed:
    """A command that ended: exit code (127 when it is not there), standard output and standard error."""

    code: int
    out: str
    err: str


def command(
    arguments: t.Sequence[str],
    timeout: float = _COMMAND_TIMEOUT,
    given: str = "",
    more_environment: t.Mapping[str, str] | None = None,
) -> Completed:
    """Run a command in the C locale, without a shell.

    Raises:
        MachineError: ``command_timeout``.
    """
    try:
        ended = subprocess.run(
            list(arguments),
            input=given,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            env={
                **os.environ,
                "LC_ALL": "C",
                "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin",
                **(more_environment or {}),
            },
        )
    except FileNotFoundError:
        return Completed(127, "", f"{arguments[0]}: not found")
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"The command {' '.join(arguments[:3])} did not end within {timeout:.0f} s", code="command_timeout") from error
    return Completed(ended.returncode, ended.stdout, ended.stderr)


@dataclasses.dataclass(frozen=True)
class Unit:
    """The engine's unit as systemd has it loaded."""

    loaded: bool = False
    masked: bool = False
    active: str = "inactive"
    """``active``, ``activating``, ``inactive``, ``failed`` ..."""
    enabled: bool = False
    fragment: str = ""
    """Path of the vendor's unit file."""
    drop_ins: tuple[str, ...] = ()
    pid: int = 0
    socket_activation: bool = False
    holds_socket: bool = False
    """Whether the running engine answers on the socket that systemd made, not on one of its own in that place."""

    @property
    def running(self) -> bool:
        """Whether the engine is up, as systemd sees it."""
        return self.active == "active"


def unit() -> Unit:
    """Ask systemd about the engine's unit.

    Raises:
        MachineError: ``no_systemd``.
    """
    names = "LoadState,ActiveState,UnitFileState,FragmentPath,DropInPaths,MainPID,TriggeredBy,ExecStart"
    answer = command(["systemctl", "show", UNIT, "-p", names])
    if answer.code != 0:
        raise MachineError(
            "The host's services cannot be managed",
            why=answer.err.strip() or "systemctl failed",
            hint="The engine needs a host that runs systemd",
            code="no_systemd",
        )
    found = dict(line.split("=", 1) for line in answer.out.splitlines() if "=" in line)
    return Unit(
        loaded=found.get("LoadState") == "loaded",
        masked=found.get("LoadState") == "masked",
        active=found.get("ActiveState", "inactive"),
        enabled=found.get("UnitFileState", "") in ("enabled", "enabled-runtime", "static", "alias"),
        fragment=found.get("FragmentPath", ""),
        drop_ins=tuple(found.get("DropInPaths", "").split()),
        pid=int(found.get("MainPID") or 0),
        socket_activation=SOCKET_UNIT in found.get("TriggeredBy", "").split(),
        holds_socket="fd://" in found.get("ExecStart", "") and os.path.exists(SOCKET),
    )


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over the engine's local socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._seconds = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._seconds)
        self.sock.connect(self._path)


def ask(path: str, timeout: float = 10.0, socket_path: str = SOCKET) -> dict[str, t.Any]:
    """GET ``path`` from the engine's API on its local socket; an empty dictionary when it does not answer."""
    connection = _UnixConnection(socket_path, timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        data = json.loads(response.read()) if response.status == 200 else {}
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    finally:
        connection.close()
    return data if isinstance(data, dict) else {}


def version(timeout: float = 10.0) -> dict[str, str]:
    """The running engine: ``{"version", "api_version", "min_api_version"}``; empty when it does not answer."""
    answer = ask("/version", timeout)
    names = {"version": "Version", "api_version": "ApiVersion", "min_api_version": "MinAPIVersion"}
    return {ours: str(answer[theirs]) for ours, theirs in names.items() if theirs in answer}


def binary_version(dockerd: str) -> str:
    """The version of an installed engine, ``26.1.5`` for example; empty when it cannot be found out."""
    answer = command([dockerd, "--version"])
    found = re.search(r"version v?(\d+\.\d+(\.\d+)?)", answer.out)
    return found.group(1) if answer.code == 0 and found else ""


def journal(lines: int = 15) -> str:
    """The engine's last log lines."""
    return command(["journalctl", "--unit", UNIT, "--lines", str(lines), "--no-pager", "--output", "cat"]).out.strip()


# --- ports ---------------------------------------------------------------------------------------------------------------------


def _listening_inodes(port: int) -> set[str]:
    """Inodes of TCP sockets that listen on ``port``, of both families (proc(5), /proc/net/tcp)."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in pathlib.Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(fields[9])
    return inodes


def listening(port: int) -> bool:
    """Whether anything listens on a TCP port."""
    return bool(_listening_inodes(port))


def port_owner(port: int) -> str:
    """Who listens on a TCP port, ``NAME (pid N)``; empty when nobody does."""
    inodes = _listening_inodes(port)
    if not inodes:
        return ""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        # Processes end while we look.
        with contextlib.suppress(OSError):
            if any(os.readlink(handle) in wanted for handle in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text(encoding='utf-8').strip()} (pid {process.name})"
    return "another process"


# --- restarts ------------------------------------------------------------------------------------------------------------------


def mark_restart() -> None:
    """Remember, until the next boot, that the engine has to be restarted."""
    files.make_directory(RESTART_MARKER.parent)
    files.write(RESTART_MARKER, b"", 0o600)


def restart_marked() -> bool:
    """Whether a restart is still due, because an earlier run was cut short."""
    return RESTART_MARKER.exists()


def clear_restart() -> None:
    """The engine runs with its files."""
    files.remove(RESTART_MARKER)


def systemctl(*arguments: str, timeout: float = _COMMAND_TIMEOUT) -> Completed:
    """Run systemctl."""
    return command(["systemctl", *arguments], timeout)


def restart(timeout: float, port: int, *, new_socket: bool = False) -> dict[str, str]:
    """(Re)start the engine and wait until it answers on its local socket and listens on ``port``.

    Args:
        timeout: seconds for all of it.
        port: the TCP port that has to listen at the end; 0 for none.
        new_socket: have systemd make the local socket anew, which needs the engine to be stopped first.

    Returns:
        See :func:`version`.

    Raises:
        MachineError: ``engine_failed``, with what the engine's log says.
    """
    deadline = Deadline(timeout)
    # A unit that failed often is refused a start; and it may be ours to repair.
    systemctl("reset-failed", UNIT)
    if new_socket:
        systemctl("stop", UNIT, SOCKET_UNIT, timeout=timeout)
    started = systemctl("restart", "--no-block", UNIT)
    if started.code != 0:
        raise failed(started.err.strip())
    try:
        answer: dict[str, str] = poll(lambda: _healthy(port), phase="engine answers", deadline=deadline, interval=0.25)
    except DeadlineError as error:
        raise failed(error.message) from error
    return answer


def _healthy(port: int) -> tuple[dict[str, str] | None, str]:
    shown = systemctl("show", UNIT, "-p", "ActiveState,Job").out
    state = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    active = state.get("ActiveState", "unknown")
    # While its job is queued, the unit is still in the state of before.
    if state.get("Job", "") not in ("", "0"):
        return None, f"the unit is {active}"
    if active == "failed":
        raise failed("its unit has failed")
    if active != "active":
        return None, f"the unit is {active}"
    answer = version(5.0)
    if not answer:
        return None, "it does not answer on its local socket"
    if port and not listening(port):
        return None, f"it does not listen on port {port}"
    return answer, ""


# How dockerd begins the line that says why it gives up.
_LAST_WORDS = re.compile(r"(failed to (?:start|load|create)|unable to configure|error initializing|can't create|invalid)", re.IGNORECASE)


def failed(why: str) -> MachineError:
    """The error of an engine that does not come up: what it said last as the reason, its log's last lines to look at."""
    log = journal(40).splitlines()
    words = [line for line in log if _LAST_WORDS.search(line) and "docker.service" not in line]
    said = f"{why.rstrip('.')}; it said: {words[-1][:600]}" if words else why
    telling = [line for line in log if "level=debug" not in line and "level=info" not in line]
    hint = "The engine's last log lines:\n" + ("\n".join(telling[-12:])[-2500:] or "(none)")
    return MachineError("The engine did not come up", where=UNIT, why=said, hint=hint, code="engine_failed")
