# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Azure's own description of its bodies, read from the models that Microsoft's SDK ships.

The models are generated from the published REST specifications: the names, types and values that they know are those that
Azure Resource Manager takes. Whatever they don't know is refused.
"""

from __future__ import annotations

import datetime
import enum
import functools
import sys
import typing as t

import azure.mgmt.compute.models as compute
import azure.mgmt.network.models as network
import azure.mgmt.resource.resources.models as resource

MODELS: t.Final[dict[str, t.Any]] = {
    "resourcegroups": resource.ResourceGroup,
    "microsoft.compute/virtualmachines": compute.VirtualMachine,
    "microsoft.compute/disks": compute.Disk,
    "microsoft.compute/availabilitysets": compute.AvailabilitySet,
    "microsoft.network/virtualnetworks": network.VirtualNetwork,
    "microsoft.network/virtualnetworks/subnets": network.Subnet,
    "microsoft.network/networksecuritygroups": network.NetworkSecurityGroup,
    "microsoft.network/publicipaddresses": network.PublicIPAddress,
    "microsoft.network/networkinterfaces": network.NetworkInterface,
    "sku": compute.ResourceSku,
    "image": compute.VirtualMachineImage,
}
"""What is created and read, by type."""

UPDATES: t.Final[dict[str, t.Any]] = {
    "microsoft.compute/virtualmachines": compute.VirtualMachineUpdate,
    "microsoft.compute/disks": compute.DiskUpdate,
    "microsoft.network/virtualnetworks": network.TagsObject,
    "microsoft.network/networksecuritygroups": network.TagsObject,
    "microsoft.network/publicipaddresses": network.TagsObject,
    "microsoft.network/networkinterfaces": network.TagsObject,
}
"""What PATCH takes."""


OPEN: t.Final = ("VirtualMachineSizeTypes",)
"""Enumerations that Azure has given up: a value that they lack is no mistake."""


class Field(t.NamedTuple):
    """One property of a model."""

    kind: t.Any
    read_only: bool


@functools.cache
def fields(model: t.Any) -> dict[str, Field]:
    """The properties of a model, by their names on the wire."""
    model({})  # the SDK fills in its tables at the first use
    hints = t.get_type_hints(model, localns={"_models": sys.modules[model.__module__.rpartition(".")[0]]})
    return {
        rest._rest_name: Field(hints.get(attribute, t.Any), rest._visibility == ["read"])
        for attribute, rest in model._attr_to_rest_field.items()
    }


def wrong(model: t.Any, value: t.Any, where: str = "body", *, answer: bool = False) -> list[str]:
    """What a model does not allow in a value, in words; ``answer`` also allows what only Azure writes."""
    return list(_wrong(model, value, where, answer))


def _wrong(kind: t.Any, value: t.Any, where: str, answer: bool) -> t.Iterator[str]:
    origin, arguments = t.get_origin(kind), t.get_args(kind)
    if origin is t.Union:
        yield from _wrong_choice([item for item in arguments if item is not type(None)], value, where, answer)
    elif origin is list:
        if not isinstance(value, list):
            yield f"{where} is not a list"
            return
        for index, item in enumerate(value):
            yield from _wrong(arguments[0], item, f"{where}[{index}]", answer)
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{where} is not an object"
            return
        for key, item in value.items():
            yield from _wrong(arguments[1], item, f"{where}.{key}", answer)
    elif isinstance(kind, type) and hasattr(kind, "as_dict"):
        yield from _wrong_object(kind, value, where, answer)
    else:
        yield from _wrong_plain(kind, value, where)


def _wrong_choice(kinds: list[t.Any], value: t.Any, where: str, answer: bool) -> t.Iterator[str]:
    enums = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, enum.Enum)]
    if enums:
        known = [str(item.value) for item in enums[0]]
        closed = enums[0].__name__ not in OPEN
        if not isinstance(value, str) or (closed and value.lower() not in [item.lower() for item in known]):
            yield f"{where} is {value!r}, which is not one of {', '.join(known)}"
        return
    yield from _wrong(kinds[0], value, where, answer)


def _wrong_object(model: t.Any, value: t.Any, where: str, answer: bool) -> t.Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is not an object"
        return
    known = fields(model)
    for key, item in value.items():
        if key not in known:
            yield f"Could not find member '{key}' on object of type '{model.__name__}' at {where}"
        elif known[key].read_only and not answer and key not in ("name", "id", "type"):
            yield f"{where}.{key} is read-only"
        else:
            yield from _wrong(known[key].kind, item, f"{where}.{key}", answer)


def _wrong_plain(kind: t.Any, value: t.Any, where: str) -> t.Iterator[str]:
    expected: t.Any = {str: str, bool: bool, int: int, float: (int, float), datetime.datetime: str}.get(kind)
    if expected is None:
        return
    if not isinstance(value, expected) or (isinstance(value, bool) and kind is not bool):
        yield f"{where} is {value!r}, which is no {kind.__name__}"
