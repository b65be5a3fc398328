# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks run as a user runs them, in a world of their own: store, Docker configuration and machines' disks in one folder."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import typing as t

import pytest

PLAYBOOK_SECONDS = 1200


@dataclasses.dataclass
class Run:
    """A playbook that has ended."""

    code: int
    output: str

    def host(self, name: str) -> dict[str, int]:
        """The recap of one host: ``{"ok": 5, "changed": 0, ...}``."""
        found = re.findall(rf"^{re.escape(name)}\s+: (.*)$", self.output, re.MULTILINE)
        assert found, f"{name} is not in the recap:\n{self.output}"
        return {key: int(value) for key, value in (pair.split("=") for pair in found[-1].split())}

    @property
    def messages(self) -> list[str]:
        """The ``msg`` of every failed task."""
        found = re.findall(r'^fatal: .*?"msg": ("(?:[^"\\]|\\.)*")', self.output, re.MULTILINE)
        return [json.loads(text) for text in found]


def descendants(pid: int) -> list[int]:
    """Every process below ``pid``, from /proc."""
    children: dict[int, list[int]] = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    seen: set[int] = set()
    todo = [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            if child not in seen:
                seen.add(child)
                todo.append(child)
    return sorted(seen)


class World:
    """One user's computer."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.machines = folder / "data" / "dockyard" / "qemu"
        self.docker_config = folder / "docker"
        self.env = {
            **os.environ,
            "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
            "MACHINE_STORAGE_PATH": str(self.store),
            "XDG_DATA_HOME": str(folder / "data"),
            "DOCKER_CONFIG": str(self.docker_config),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "False",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
            "ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "False",
        }
        for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
            self.env.pop(name, None)

    def command(self, playbook: str, *args: str, **variables: t.Any) -> list[str]:
        """The command line of one of our playbooks; values go as JSON, so that they keep their types."""
        return ["ansible-playbook", f"dockyard.machine.{playbook}", *args, "-e", json.dumps(variables)]

    def play(self, playbook: str, *args: str, env: dict[str, str] | None = None, **variables: t.Any) -> Run:
        """Run a playbook to its end."""
        done = subprocess.run(
            self.command(playbook, *args, **variables),
            env={**self.env, **(env or {})},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PLAYBOOK_SECONDS,
            check=False,
        )
        return Run(done.returncode, done.stdout)

    def play_until(self, reached: t.Callable[[], bool], playbook: str, seconds: float = 600, **variables: t.Any) -> None:
        """Start a playbook and SIGKILL it with everything it started, as soon as ``reached`` says so."""
        with (self.folder / "killed.log").open("w") as log:
            process = subprocess.Popen(
                self.command(playbook, **variables), env=self.env, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            ends = time.monotonic() + seconds
            try:
                while not reached():
                    assert process.poll() is None, f"it ended before it was killed:\n{(self.folder / 'killed.log').read_text()}"
                    assert time.monotonic() < ends, f"it did not come so far:\n{(self.folder / 'killed.log').read_text()}"
                    time.sleep(0.02)
            finally:
                doomed = [process.pid, *descendants(process.pid)]
                for pid in doomed:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                process.wait(30)

    def run(self, *command: str, env: dict[str, str] | None = None, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a client's command."""
        return subprocess.run(
            command, env={**self.env, **(env or {})}, cwd=self.folder, capture_output=True, text=True, timeout=seconds, check=False
        )

    def record(self, name: str) -> dict[str, t.Any]:
        """A machine's record."""
        data: dict[str, t.Any] = json.loads((self.store / "machines" / name / "dockyard.json").read_text())
        return data

    def virtual_machines(self) -> list[int]:
        """The process ids of the qemu processes whose disks are in this world."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    program = (entry / "cmdline").read_bytes().split(b"\0")[0]
                    files = [os.readlink(link) for link in (entry / "fd").iterdir()] if b"qemu-system" in program else []
                except OSError:
                    continue
                # A machine's process holds the machine's disk.
                if any(file.startswith(f"{self.machines}/") and file.endswith("disk.qcow2") for file in files):
                    found.append(int(entry.name))
        return found

    def close(self) -> None:
        """End what this world started, however the tests went."""
        for pid in self.virtual_machines():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def world() -> t.Iterator[World]:
    """A world that is gone afterwards. Its path is short: sockets live in it."""
    created = World(pathlib.Path(tempfile.mkdtemp(prefix="dy-")))
    yield created
    created.close()


@pytest.fixture(scope="session")
def image() -> str:
    """A bootable image, built on first use and cached; the path of its file."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="dy-"))
    try:
        built = World(folder).play("build_image", image_tools=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert built.code == 0, built.output
    found = re.findall(r"(/\S+\.qcow2)", built.output)
    assert found, built.output
    return found[-1]
