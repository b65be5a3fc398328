# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every action plugin of the collection shares: checked arguments, one place where errors become results.

Private to the collection.
"""

from __future__ import annotations

import abc
import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError


class MachineAction(ActionBase, metaclass=abc.ABCMeta):
    """An action plugin that works on the store, and runs modules where they belong."""

    ARGUMENT_SPEC: t.ClassVar[dict[str, t.Any]]
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Check the arguments, act, and turn a ``MachineError`` into a failed result."""
        base: dict[str, t.Any] = super().run(tmp, task_vars)
        dummy, args = self.validate_argument_spec(argument_spec=self.ARGUMENT_SPEC)
        self.warnings: list[str] = []
        try:
            base.update(self.act(args, task_vars or {}))
        except MachineError as error:
            base.update({"failed": True, "changed": False, **error.result()})
        if self.warnings:
            base["warnings"] = [*base.get("warnings", []), *self.warnings]
        return base

    @abc.abstractmethod
    def act(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Do the work and return the result."""

    @property
    def check_mode(self) -> bool:
        """True when nothing may be changed."""
        return bool(self._task.check_mode)

    def module(self, name: str, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Run a module over this task's connection; its result, failed or not."""
        result: dict[str, t.Any] = self._execute_module(module_name=name, module_args=args, task_vars=task_vars)
        for key in ("invocation", "_ansible_parsed"):
            result.pop(key, None)
        return result
