# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a driver's name to its module, its class and its options. Private to the collection."""

from __future__ import annotations

import importlib
import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.dockyard.machine.plugins.module_utils.driver import Driver
from ansible_collections.dockyard.machine.plugins.module_utils.driver_module import COMMON_OPTIONS
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError

COLLECTION = "dockyard.machine"


def module_name(driver: str) -> str:
    """``qemu`` is our module ``qemu_machine``; a name with dots is somebody's module."""
    return driver if "." in driver else f"{COLLECTION}.{driver}_machine"


def load_driver(module: str) -> type[Driver] | None:
    """The driver class of one of our modules; None for a module of somebody else's.

    Raises:
        MachineError: ``unknown_driver`` when the collection has no such module.
    """
    namespace, dummy, name = module.rpartition(".")
    if namespace != COLLECTION:
        return None
    path = f"ansible_collections.{COLLECTION}.plugins.modules.{name}"
    try:
        driver: type[Driver] = importlib.import_module(path).DRIVER
    except (ModuleNotFoundError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name != path:
            raise
        raise MachineError(
            f"There is no driver {name.removesuffix('_machine')!r}",
            where="option driver",
            why=f"the collection {COLLECTION} has no driver module {name}",
            hint=f"Name one of its drivers (ansible-doc --list {COLLECTION}), or a module of your own as NAMESPACE.COLLECTION.MODULE",
            code="unknown_driver",
        ) from error
    return driver


def driver_variables(driver: type[Driver], task_vars: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Options that were given as variables ``DRIVER_OPTION``, as Docker Machine had ``--DRIVER-OPTION``."""
    return {option: task_vars[f"{driver.name}_{option}"] for option in driver.options if f"{driver.name}_{option}" in task_vars}


def secret_options(driver: type[Driver] | None) -> set[str]:
    """Names of the options that are never written down."""
    return {name for name, spec in driver.options.items() if spec.get("no_log")} if driver else set()


def check_options(driver: type[Driver], options: t.Mapping[str, t.Any]) -> None:
    """Refuse options that the driver doesn't have or of the wrong type, before anything is written or called.

    Raises:
        MachineError: ``invalid_option``.
    """
    where = f"machine_options, {driver.name}_*"
    shared = sorted(set(options) & set(COMMON_OPTIONS))
    if shared:
        raise MachineError(
            f"{', '.join(shared)} cannot stand among the options of a driver",
            where=where,
            why="every driver has them",
            hint=f"Set the variable machine_{shared[0]} instead",
            code="invalid_option",
        )
    unknown = sorted(set(options) - set(driver.options))
    if unknown:
        raise MachineError(
            f"The driver {driver.name} has no option {', '.join(unknown)}",
            where=where,
            why=f"its options are {', '.join(sorted(driver.options))}",
            hint=f"See ansible-doc {COLLECTION}.{driver.name}_machine",
            code="invalid_option",
        )
    # What is required, and what the environment gives, is known where the module runs.
    spec = {
        name: {key: value for key, value in entry.items() if key not in ("required", "fallback", "default")}
        for name, entry in driver.options.items()
    }
    errors = ArgumentSpecValidator(spec).validate(dict(options)).error_messages
    if errors:
        raise MachineError(
            f"An option of the driver {driver.name} is not valid",
            where=where,
            why="; ".join(errors),
            hint=f"See ansible-doc {COLLECTION}.{driver.name}_machine",
            code="invalid_option",
        )
