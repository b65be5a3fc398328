# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one family of errors that every part of the collection raises.

An error answers four questions: what went wrong, where (option, file or host), why, and what to do next.
Plugins turn a ``MachineError`` into a failed result exactly once, at their outer edge.
"""

from __future__ import annotations

import typing as t


class MachineError(Exception):
    """A failure that a person can act on.

    Args:
        what: one sentence: what could not be done.
        where: the option, file or host at fault, or an empty string.
        why: the reason, as far as it is known.
        hint: what to do next.
        code: a stable machine-readable word (``snake_case``), returned as ``failure.code``.
    """

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "", code: str = "machine_error") -> None:
        self.what = what
        self.where = where
        self.why = why
        self.hint = hint
        self.code = code
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The whole error in one or two lines."""
        head = f"{self.what.rstrip('.')} ({self.where})" if self.where else self.what.rstrip(".")
        parts = [f"{head}: {self.why.rstrip('.')}." if self.why else f"{head}."]
        if self.hint:
            parts.append(f"{self.hint.rstrip('.')}.")
        return " ".join(parts)

    def result(self) -> dict[str, t.Any]:
        """The failure as module results show it: ``{"msg": str, "failure": {"code", "where", "hint"}}``."""
        return {"msg": self.message, "failure": {"code": self.code, "where": self.where, "hint": self.hint}}


class TransientError(MachineError):
    """A failure that may pass by itself: throttling, a lost connection, a busy service.

    ``retry_after`` is the number of seconds the other side asked us to wait, or None.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        why: str = "",
        hint: str = "",
        code: str = "transient",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(what, where=where, why=why, hint=hint, code=code)
        self.retry_after = retry_after


class DeadlineError(MachineError):
    """A wait reached its end. The message names the phase, the elapsed time and the last thing that was seen."""

    def __init__(self, phase: str, elapsed: float, last: str, *, where: str = "", hint: str = "") -> None:
        self.phase = phase
        self.elapsed = elapsed
        self.last = last
        super().__init__(
            f"Gave up on '{phase}' after {elapsed:.0f} s",
            where=where,
            why=f"last seen: {last}" if last else "nothing was seen",
            hint=hint,
            code="deadline",
        )
