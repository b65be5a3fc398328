# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill the creation and the removal of a machine at every step; the next run has to end with one machine, or none."""

from __future__ import annotations

import os
import pathlib
import signal
import sys
import time
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils import qemu_tools
from ansible_collections.dockyard.machine.plugins.module_utils.driver import Wanted, converge, new_deadline
from ansible_collections.dockyard.machine.plugins.module_utils.drivers import qemu
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_state import StateFolder

# Where a run dies: owner of a function, its name, and whether before or after it did its work.
CREATING: t.Final = (
    (qemu, "inspect", "after"),
    (qemu, "keep_base", "after"),
    (StateFolder, "add", "after"),
    (qemu, "run_program", "after"),
    (qemu, "write_seed", "before"),
    (qemu, "write_seed", "after"),
    (qemu.QemuDriver, "_spawn", "before"),
    (qemu.QemuDriver, "_spawn", "after"),
    (StateFolder, "save", "before"),
    (StateFolder, "save", "after"),
)
REMOVING: t.Final = (
    (qemu.QemuDriver, "_end", "before"),
    (qemu.QemuDriver, "_end", "after"),
    (StateFolder, "_remains", "before"),
    (StateFolder, "_drop_images", "before"),
)


def driver(work: pathlib.Path, state: str) -> qemu.QemuDriver:
    options = {key: value.get("default") for key, value in qemu.OPTIONS.items()}
    options.update(state_dir=str(work / "state-killed"), image=str(work / "empty.qcow2"), accel="tcg", cpus=1, memory=128, disk=1)
    wanted = Wanted("victim", state=state, owner="tester", token="t1", ssh_user="debian", timeouts={"stop": 1})
    return qemu.QemuDriver(wanted, options, new_deadline(wanted))


def die_at(owner: t.Any, name: str, when: str) -> None:
    """Replace a function by one that kills this process."""
    whole = getattr(owner, name)

    def deadly(*arguments: t.Any, **named: t.Any) -> t.Any:
        if when == "after":
            whole(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, deadly)


def killed_run(work: pathlib.Path, state: str, point: tuple[t.Any, str, str]) -> None:
    child = os.fork()
    if child == 0:
        die_at(*point)
        converge(driver(work, state))
        os._exit(0)
    dummy, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the run did not reach {point}"


def processes() -> list[int]:
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"guest=victim,process=machine-victim" in line:
                found.append(int(entry.name))
    return found


def check_nothing_left(work: pathlib.Path) -> None:
    folder = work / "state-killed"
    rest = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    assert set(rest) <= {".images", ".lock", ".accel.json"}, rest
    # A process that was killed is seen until its parent has taken notice.
    ends = time.monotonic() + 10
    while processes() and time.monotonic() < ends:
        time.sleep(0.1)
    assert not processes(), processes()


def main() -> None:
    work = pathlib.Path(sys.argv[1])
    assert qemu_tools.find_program("qemu-system-x86_64"), "this test needs QEMU"
    for point in CREATING:
        killed_run(work, "started", point)
        outcome = converge(driver(work, "started"))
        assert outcome.machine is not None and outcome.machine.state == "running" and outcome.machine.complete, outcome
        assert len(processes()) == 1, (point, processes())
        assert not converge(driver(work, "started")).changed, point
        converge(driver(work, "absent"))
        check_nothing_left(work)
    for point in CREATING:
        killed_run(work, "started", point)
        converge(driver(work, "absent"))
        check_nothing_left(work)
        assert not converge(driver(work, "absent")).changed, point
    for point in REMOVING:
        converge(driver(work, "started"))
        killed_run(work, "absent", point)
        converge(driver(work, "absent"))
        check_nothing_left(work)
    print(f"killed at {2 * len(CREATING) + len(REMOVING)} points")


if __name__ == "__main__":
    main()
