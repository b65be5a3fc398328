# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the test hosts' scripts share: paths, one way to run a program, one lock, one error."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import subprocess
import sys
import time
import typing as t

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("DOCKYARD_CACHE") or pathlib.Path.home() / ".cache/dockyard-tests") / "hosts"
RUN = pathlib.Path(os.environ.get("DOCKYARD_HOSTS_RUN") or "/run/dockyard-tests")
"""Sockets, pids and state of what runs now; on a file system that a reboot empties."""


class HostsError(Exception):
    """What went wrong and what to do, for a person."""


class Unavailable(HostsError):
    """This machine cannot give that host (its mirror is not reachable, for example): skip it, never pass it."""


class Busy(HostsError):
    """Another run holds a lock."""


def say(text: str) -> None:
    """Progress goes to stderr: stdout is JSON only."""
    print(f"hosts: {text}", file=sys.stderr, flush=True)


def run(argv: t.Sequence[str | os.PathLike[str]], timeout: float = 30, **kwargs: t.Any) -> str:
    """Run a program and return its stdout.

    Args:
        timeout: seconds after which the program is killed.

    Raises:
        HostsError: it could not be started, failed or took too long; the message ends with its last output.
    """
    words = [str(word) for word in argv]
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            words, capture_output=True, text=True, timeout=timeout, check=False, **kwargs
        )
    except FileNotFoundError as error:
        raise HostsError(f"{words[0]} is not installed (see tests/hosts/README.md)") from error
    except subprocess.TimeoutExpired as error:
        raise HostsError(f"gave up after {timeout:g} s: {' '.join(words)}") from error
    if done.returncode:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-12:])
        raise HostsError(f"exit code {done.returncode}: {' '.join(words)[:400]}\n{tail}")
    return done.stdout


@contextlib.contextmanager
def locked(path: pathlib.Path, timeout: float, shared: bool = False) -> t.Iterator[None]:
    """Hold a lock on a file; the kernel drops it when the process dies, so a kill leaves nothing stale."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    with open(path, "a", encoding="utf-8") as handle:
        while True:
            try:
                fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Busy(f"another run has held {path} for {timeout:g} s") from None
                time.sleep(0.2)
        yield
