# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands, the local socket, and who holds a port."""

from __future__ import annotations

import http.server
import json
import os
import pathlib
import socket
import socketserver
import sys
import threading

import pytest

from ansible_collections.dockyard.machine.plugins.module_utils import engine_service as service
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError

SHOWN = """LoadState=loaded
ActiveState=active
UnitFileState=enabled
FragmentPath=/lib/systemd/system/docker.service
DropInPaths=/a.conf /b.conf
MainPID=42
TriggeredBy=docker.socket
ExecStart={ path=/usr/sbin/dockerd ; argv[]=/usr/sbin/dockerd -H fd:// -H tcp://0.0.0.0:2376 ; ignore_errors=no }
"""


def test_commands() -> None:
    answer = service.command([sys.executable, "-c", "import sys; print(sys.stdin.read()); sys.exit(3)"], given="x")
    assert (answer.code, answer.out.strip()) == (3, "x")
    assert service.command(["no-such-command"]).code == 127
    with pytest.raises(MachineError) as caught:
        service.command([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.2)
    assert caught.value.code == "command_timeout"


def test_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "command", lambda *a, **k: service.Completed(0, SHOWN, ""))
    unit = service.unit()
    assert unit.loaded and unit.running and unit.enabled and unit.socket_activation
    assert (unit.pid, unit.drop_ins) == (42, ("/a.conf", "/b.conf"))
    monkeypatch.setattr(service, "command", lambda *a, **k: service.Completed(0, "LoadState=not-found\nMainPID=0\n", ""))
    assert service.unit() == service.Unit()
    monkeypatch.setattr(service, "command", lambda *a, **k: service.Completed(1, "", "System has not been booted with systemd"))
    with pytest.raises(MachineError) as caught:
        service.unit()
    assert caught.value.code == "no_systemd"


def test_local_socket(tmp_path: pathlib.Path) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"Version": "1.2"} if self.path == "/version" else []).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "local"

        def log_message(self, *args: object) -> None:
            pass

    path = str(tmp_path / "s")
    with socketserver.ThreadingUnixStreamServer(path, Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert service.ask("/version", socket_path=path) == {"Version": "1.2"}
        assert service.ask("/list", socket_path=path) == {}
        server.shutdown()
    assert service.ask("/version", socket_path=str(tmp_path / "none")) == {}


def test_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert service.listening(port)
        assert service.port_owner(port).endswith(f"(pid {os.getpid()})")
    assert not service.listening(port)
    assert service.port_owner(port) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Docker version 20.10.24+dfsg1, build 297e128", "20.10.24"), ("Docker version 29.1, build x", "29.1"), ("nonsense", "")],
)
def test_binary_version(monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    monkeypatch.setattr(service, "command", lambda *a, **k: service.Completed(0, text, ""))
    assert service.binary_version("dockerd") == expected


def test_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    log = "level=info msg=chatter\nfailed to start daemon: no such driver\ndocker.service: Failed with result 'exit-code'.\n"
    monkeypatch.setattr(service, "command", lambda *a, **k: service.Completed(0, log, ""))
    error = service.failed("its unit has failed")
    assert "it said: failed to start daemon: no such driver" in error.why
    assert "chatter" not in error.hint
