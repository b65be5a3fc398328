# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines as their providers list them, by our marks: what is seen where there is no store. Private to the collection."""

from __future__ import annotations

import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.dockyard.machine.plugins.module_utils.driver import Wanted, new_deadline
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import Machine
from ansible_collections.dockyard.machine.plugins.module_utils.record import BrokenRecord, Record
from ansible_collections.dockyard.machine.plugins.module_utils.timing import retry
from ansible_collections.dockyard.machine.plugins.plugin_utils.dispatch import check_options, load_driver, module_name

KEYS: t.Final = {"driver", "options", "owner", "ssh_user"}


def listed(provider: t.Mapping[str, t.Any], owner: str, timeout: float) -> list[Machine]:
    """Every machine of one entry of ``providers``: ``{"driver": str, "options": dict, "owner": str, "ssh_user": str}``.

    Args:
        provider: the entry; ``options`` as the driver's module takes them, its environment variables included.
        owner: whose machines, unless the entry says.
        timeout: seconds for the whole list.

    Raises:
        MachineError: ``invalid_option`` for a wrong entry; whatever the driver raises.
    """
    name = str(provider.get("driver") or "")
    unknown = sorted(set(provider) - KEYS)
    if unknown or not name:
        raise MachineError(
            "An entry of providers is not valid",
            where="option providers",
            why=f"it has the unknown key {unknown[0]}" if unknown else "it names no driver",
            hint=f"Its keys are {', '.join(sorted(KEYS))}",
            code="invalid_option",
        )
    driver = load_driver(module_name(name))
    if driver is None:
        raise MachineError(
            f"The machines of {name} cannot be listed",
            where="option providers",
            why="it is a module of another collection",
            hint="Use that collection's own inventory plugin beside this one",
            code="unsupported",
        )
    options = dict(provider.get("options") or {})
    check_options(driver, options)
    validated = ArgumentSpecValidator(driver.options).validate(options)
    if validated.error_messages:
        raise MachineError(
            f"An option of {name} is missing", where="option providers", why="; ".join(validated.error_messages), code="invalid_option"
        )
    wanted = Wanted(
        name="",
        state="present",
        owner=str(provider.get("owner") or owner),
        ssh_user=provider.get("ssh_user") or driver.default_ssh_user,
        timeout=timeout,
    )
    instance = driver(wanted, validated.validated_parameters, new_deadline(wanted))
    return retry(instance.list, phase=f"list {name}", deadline=instance.deadline)


def merge(records: t.Sequence[Record | BrokenRecord], machines: t.Iterable[Machine]) -> list[Record | BrokenRecord]:
    """The store's records with what the providers see now; machines that the store doesn't know get a record of their own.

    A record keeps its keys and pins; state and addresses are the provider's. Two machines of one name: the store's own stands.
    """
    found = {(machine.name, machine.driver): machine for machine in machines}
    merged: list[Record | BrokenRecord] = []
    for record in records:
        machine = found.pop((record.name, record.driver), None) if isinstance(record, Record) else None
        if isinstance(record, Record) and machine is not None:
            record.machine = machine
        merged.append(record)
    taken = {record.name for record in records}
    for (name, driver), machine in sorted(found.items()):
        if name not in taken:
            taken.add(name)
            merged.append(Record(name, driver, owner=machine.owner, token=machine.token, machine=machine))
    return merged
