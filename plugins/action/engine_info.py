# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``dockyard.machine.engine_info``: say in one sentence that an account cannot become root."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.plugin_utils.controller import MachineAction


class ActionModule(MachineAction):
    """``dockyard.machine.engine_info``"""

    ARGUMENT_SPEC: t.ClassVar[dict[str, t.Any]] = {}

    def act(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Run the module; what sudo says against it becomes our error."""
        try:
            result = self.module("dockyard.machine.engine_info", {}, task_vars)
        except AnsibleConnectionFailure:
            raise
        except AnsibleError as error:
            raise self._refused(str(error)) from error
        if result.get("failed") and "failure" not in result:
            said = [str(result.get(key) or "").strip() for key in ("module_stderr", "module_stdout", "msg")]
            raise self._refused(next((text for text in said if text), "the module failed"))
        return result

    def _refused(self, why: str) -> MachineError:
        become = self._connection.become
        if become is None:
            return MachineError(
                "The host could not be looked at", why=why[-500:], hint="Does it have Python 3.9 or newer?", code="host_failed"
            )
        user = self._connection.get_option("remote_user") if "remote_user" in self._connection._options else None
        return MachineError(
            f"The account {user or 'of this connection'} cannot become root with {become.name}",
            why=why[-500:],
            hint=f"Install {become.name} on the host and let the account use it without a password, give ansible_become_password,"
            " or connect as root",
            code="no_root",
        )
