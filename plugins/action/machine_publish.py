# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Save a verified engine in its machine's record, and write what clients read."""

from __future__ import annotations

import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import validate_name
from ansible_collections.dockyard.machine.plugins.module_utils.store import Store
from ansible_collections.dockyard.machine.plugins.plugin_utils.controller import MachineAction


class ActionModule(MachineAction):
    """``dockyard.machine.machine_publish``"""

    ARGUMENT_SPEC = {
        "name": {"type": "str", "required": True},
        "store": {"type": "path"},
        "engine": {"type": "dict", "required": True},
        "engine_options": {"type": "dict", "default": {}},
        "docker_context": {"type": "bool", "default": True},
    }

    def act(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Write record, env, ssh_config and the Docker context."""
        name = validate_name(args["name"])
        store = Store(args["store"])
        if self.check_mode:
            record = store.load(name)
            if record is None or not record.engine:
                # Its certificates are not there yet either.
                return {"changed": True, "endpoint": "", "cert_path": str(store.machine_dir(name))}
            return self._context(store, name, args, task_vars)
        with store.lock(name, 60, "publish"):
            record = store.load(name)
            if record is None:
                raise MachineError(
                    f"There is no machine {name} in the store",
                    where=str(store.path),
                    hint="Run the role machine first",
                    code="missing_machine",
                )
            record.engine = args["engine"]
            record.engine_options = args["engine_options"] or record.engine_options
            changed = store.save(record)
        result = self._context(store, name, args, task_vars)
        result["changed"] = changed or bool(result.get("changed"))
        return result

    def _context(self, store: Store, name: str, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        record = store.load(name)
        endpoint = record.machine.endpoint if record and record.machine else ""
        answer: dict[str, t.Any] = {"changed": False, "endpoint": endpoint, "cert_path": str(store.machine_dir(name))}
        if not args["docker_context"] or not endpoint:
            return answer
        if len(name) < 2:
            self.warnings.append(f"{name} has no Docker context: Docker wants names of two characters or more.")
            return answer
        options = {"name": name, "host": endpoint, "cert_path": answer["cert_path"], "state": "present"}
        result = self.module("dockyard.machine.docker_context", options, task_vars)
        return {**answer, **result} if result.get("failed") else {**answer, "changed": result["changed"], "diff": result.get("diff", {})}
