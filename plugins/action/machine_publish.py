# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Save a verified engine in its machine's record, and write what clients read."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils import docker_context
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
            return self._context(store, name, args)
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
        result = self._context(store, name, args)
        result["changed"] = changed or bool(result.get("changed"))
        return result

    def _context(self, store: Store, name: str, args: dict[str, t.Any]) -> dict[str, t.Any]:
        record = store.load(name)
        endpoint = record.machine.endpoint if record and record.machine else ""
        answer: dict[str, t.Any] = {"changed": False, "endpoint": endpoint, "cert_path": str(store.machine_dir(name))}
        if not args["docker_context"] or not endpoint:
            return answer
        if len(name) < 2:
            self.warnings.append(f"{name} has no Docker context: Docker wants names of two characters or more.")
            return answer
        # In this process: what a module would cost is most of what there is to do.
        paths = {file: os.path.join(answer["cert_path"], file) for file in docker_context.TLS_FILES}
        wanted = docker_context.Wanted(
            name=docker_context.validate_name(name), host=endpoint, description="", tls=docker_context.read_tls(paths)
        )
        docker_context.validate(wanted)
        contexts = docker_context.Contexts(None)
        before = contexts.describe(name)
        changed = contexts.present(wanted, force=False, check=self.check_mode)
        return {**answer, "changed": changed, "diff": {"before": before, "after": docker_context.describe(wanted)}}
