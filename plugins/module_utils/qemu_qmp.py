# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of QEMU's machine protocol over a socket in a folder.

Protocol: https://www.qemu.org/docs/master/interop/qmp-spec.html
"""

from __future__ import annotations

import json
import os
import socket
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError

SOCKET: t.Final = "qmp.sock"

# A reply is some hundred bytes; more than this is no QEMU.
_LIMIT: t.Final = 1 << 20


class NotRunning(Exception):
    """Nobody listens on the socket."""


def _connect(folder: str, name: str, timeout: float) -> socket.socket:
    """Connect by a relative path: a socket's path may have no more than 107 bytes (unix(7)), a folder's may."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(timeout)
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.chdir(folder)
        client.connect(name)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        client.close()
        raise NotRunning from error
    except OSError as error:
        client.close()
        raise _broken(folder, str(error)) from error
    finally:
        os.fchdir(here)
        os.close(here)
    return client


def _broken(folder: str, why: str) -> TransientError:
    return TransientError("The virtual machine's monitor does not answer", where=os.path.join(folder, SOCKET), why=why, code="monitor")


class Monitor:
    """One conversation with a running QEMU.

    Args:
        folder: where the socket stands.
        timeout: seconds for each reply.

    Raises:
        NotRunning: nobody is there.
        TransientError: ``monitor`` when it doesn't answer, or breaks off.
    """

    def __init__(self, folder: str, timeout: float = 10.0) -> None:
        self.folder = folder
        self._socket = _connect(folder, SOCKET, timeout)
        self._buffer = b""
        try:
            if "QMP" not in self._message():
                raise _broken(folder, "its greeting is not that of QEMU")
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def close(self) -> None:
        """End the conversation; QEMU goes on."""
        self._socket.close()

    def _message(self) -> dict[str, t.Any]:
        while b"\n" not in self._buffer:
            try:
                block = self._socket.recv(65536)
            except OSError as error:
                raise _broken(self.folder, str(error)) from error
            if not block or len(self._buffer) > _LIMIT:
                raise _broken(self.folder, "it broke off" if not block else "its answer has no end")
            self._buffer += block
        line, dummy, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError as error:
            raise _broken(self.folder, "its answer is no JSON") from error
        return message if isinstance(message, dict) else {}

    def execute(self, command: str, **arguments: t.Any) -> t.Any:
        """Run one command; returns its ``return`` value. Events that come in between are passed over.

        Raises:
            MachineError: ``monitor_refused`` with QEMU's reason.
        """
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise _broken(self.folder, str(error)) from error
        while True:
            message = self._message()
            if "return" in message:
                return message["return"]
            if "error" in message:
                why = str(message["error"].get("desc", message["error"]))
                raise MachineError(f"QEMU refused {command}", where=self.folder, why=why, code="monitor_refused")
