# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Ansible side of every driver module: common options, check mode, diff and errors, said once."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.machine.plugins.module_utils.driver import (
    DEFAULT_TIMEOUTS,
    WANTED_STATES,
    Converger,
    Driver,
    Outcome,
    Wanted,
    new_deadline,
)
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import ENGINE_PORT, Machine, validate_name

COMMON_OPTIONS: t.Final[dict[str, t.Any]] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": list(WANTED_STATES), "default": "started"},
    "owner": {"type": "str", "default": ""},
    "token": {"type": "str", "default": "", "no_log": False},
    "provider_id": {"type": "str", "default": ""},
    "tags": {"type": "dict", "default": {}},
    "ssh_user": {"type": "str", "default": ""},
    "ssh_public_key": {"type": "str", "default": "", "no_log": False},
    "user_data": {"type": "str", "default": "", "no_log": True},
    "engine_port": {"type": "int", "default": ENGINE_PORT},
    "timeout": {"type": "float", "default": 1800},
    "timeouts": {
        "type": "dict",
        "default": {},
        "options": {phase: {"type": "float"} for phase in DEFAULT_TIMEOUTS},
    },
}
"""The options that every driver module takes; the documentation stands in the fragment ``driver``."""


def argument_spec(driver: type[Driver]) -> dict[str, t.Any]:
    """The common options and the driver's own."""
    return {**COMMON_OPTIONS, **driver.options}


def wanted_from(params: t.Mapping[str, t.Any], driver: type[Driver]) -> Wanted:
    """Read the common options.

    Raises:
        MachineError: ``invalid_name``, or ``invalid_option`` for a tag that cannot be one.
    """
    timeouts = {phase: float(value) for phase, value in params["timeouts"].items() if value is not None}
    for option, value in (("timeout", params["timeout"]), *((f"timeouts.{phase}", value) for phase, value in timeouts.items())):
        if value <= 0:
            raise MachineError(
                f"{value:g} is no time to wait", where=f"option {option}", hint="Give a number of seconds above 0", code="invalid_option"
            )
    return Wanted(
        name=validate_name(params["name"]),
        state=params["state"],
        owner=params["owner"],
        token=params["token"],
        provider_id=params["provider_id"],
        tags={str(key): str(value) for key, value in params["tags"].items()},
        ssh_user=params["ssh_user"] or driver.default_ssh_user,
        ssh_public_key=params["ssh_public_key"].strip(),
        user_data=params["user_data"],
        engine_port=params["engine_port"],
        timeout=params["timeout"],
        timeouts=timeouts,
    )


def _shown(machine: Machine | None, outcome: Outcome, *, after: bool) -> dict[str, t.Any]:
    """A machine as diff shows it: what a person asked for or can see, no tokens."""
    if machine is None:
        return {"state": "absent"}
    shown: dict[str, t.Any] = {"state": machine.state, "address": machine.address, "tags": machine.tags}
    for item in outcome.differences:
        if item.in_place and "update" in outcome.actions:
            shown[item.option] = item.wanted if after else item.actual
    return shown


def result(outcome: Outcome) -> dict[str, t.Any]:
    """What the module returns; the shape stands in the fragment ``driver`` and in every RETURN."""
    return {
        "changed": outcome.changed,
        "actions": outcome.actions,
        "machine": outcome.machine.to_dict() if outcome.machine else None,
        "needs_recreation": [dataclasses.asdict(item) for item in outcome.differences if not item.in_place],
        "leftovers": outcome.leftovers,
        "diff": {
            "before": _shown(outcome.before, outcome, after=False),
            "after": _shown(outcome.machine, outcome, after=True),
        },
    }


def run_driver(driver: type[Driver]) -> None:
    """The whole of a driver module: read options, converge, answer."""
    module = AnsibleModule(argument_spec=argument_spec(driver), supports_check_mode=True)
    try:
        wanted = wanted_from(module.params, driver)
        instance = driver(wanted, {key: module.params[key] for key in driver.options}, new_deadline(wanted))
    except MachineError as error:
        module.fail_json(untouched=True, **error.result())
    converger = Converger(instance, check_mode=module.check_mode)
    try:
        answer = result(converger.run())
    except MachineError as error:
        # "untouched" lets the caller forget a record that never came to anything.
        module.fail_json(untouched=not converger.outcome.touched, actions=converger.outcome.actions, **error.result())
    finally:
        for warning in instance.warnings:
            module.warn(warning)
    module.exit_json(**answer)
