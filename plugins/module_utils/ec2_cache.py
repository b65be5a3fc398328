# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What EC2 answered a moment ago, for the next of many machines that are made at once.

Each machine is made by a process of its own, and EC2 counts the calls of an account. So answers that hold for all of them (an
image's id, a type's architecture, the default VPC, the group of some rules) are kept for minutes in the user's cache folder.
They are hints: who finds one wrong calls :meth:`Cache.forget` and asks again. No secret is among them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
import time
import typing as t


class Cache:
    """Answers under ``$XDG_CACHE_HOME/dockyard-machine/ec2`` (``~/.cache`` unless set), one small file each.

    Args:
        scope: whose answers: account, region, endpoint.
        seconds: how long one is believed; 0 switches the cache off.
    """

    def __init__(self, scope: str, seconds: float) -> None:
        self.scope = scope
        self.seconds = seconds
        self._used: set[pathlib.Path] = set()

    def get(self, question: str, look: t.Callable[[], t.Any]) -> t.Any:
        """The answer to ``question``, JSON types: the kept one, else what ``look`` returns. An empty answer is not kept."""
        path = self._path(question)
        known = self._read(path)
        if known is not None:
            self._used.add(path)
            return known
        answer = look()
        if answer:
            self._write(path, answer)
        return answer

    def forget(self) -> bool:
        """Forget the kept answers that were given; False when there were none."""
        for path in self._used:
            with contextlib.suppress(OSError):
                path.unlink()
        found, self._used = bool(self._used), set()
        return found

    def _path(self, question: str) -> pathlib.Path:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        name = hashlib.sha256(f"{self.scope}\n{question}".encode()).hexdigest()[:32]
        return pathlib.Path(home, "dockyard-machine", "ec2", f"{name}.json")

    def _read(self, path: pathlib.Path) -> t.Any:
        try:
            if not 0 <= time.time() - path.stat().st_mtime < self.seconds:
                return None
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _write(self, path: pathlib.Path, answer: t.Any) -> None:
        if self.seconds <= 0:
            return
        # A cache that cannot be written is only slower.
        with contextlib.suppress(OSError), contextlib.ExitStack() as undo:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent)
            undo.callback(_remove, name)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(answer, file, default=str)
            os.replace(name, path)
            undo.pop_all()


def _remove(name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)
