# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which resources a call of EC2 touches, and whether an IAM policy lets it: what moto's authentication mode leaves out.

moto checks an action's name only. Resources and conditions are checked here, for the calls that the driver makes, after
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
"""

from __future__ import annotations

import fnmatch
import re
import typing as t

KINDS = {"i": "instance", "vol": "volume", "eni": "network-interface", "sg": "security-group"}


class Need(t.NamedTuple):
    """One permission that a call needs."""

    action: str
    resource: str
    context: dict[str, str]


def arn(kind: str, name: str) -> str:
    """The name of a resource in us-east-1; images belong to no account."""
    return f"arn:aws:ec2:us-east-1:{'' if kind == 'image' else '123456789012'}:{kind}/{name}"


def _values(form: t.Mapping[str, str], pattern: str) -> list[str]:
    return [value for key, value in form.items() if re.fullmatch(pattern, key)]


def request_tags(form: t.Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The tags of ``TagSpecification``, by kind of resource."""
    found: dict[str, dict[str, str]] = {}
    for number in range(1, 8):
        kind = form.get(f"TagSpecification.{number}.ResourceType")
        if kind:
            keys = [key for key in form if re.fullmatch(rf"TagSpecification\.{number}\.Tag\.\d+\.Key", key)]
            found[kind] = {form[key]: form[key[:-3] + "Value"] for key in keys}
    return found


def _asked(tags: t.Mapping[str, str]) -> dict[str, str]:
    return {f"aws:RequestTag/{key}": value for key, value in tags.items()}


def needs(operation: str, form: t.Mapping[str, str], tags_of: t.Callable[[str, str], t.Mapping[str, str]]) -> list[Need]:
    """Everything that a call needs.

    Args:
        operation: for example ``RunInstances``.
        form: its parameters as they are on the wire.
        tags_of: the tags that a resource has now, by kind and name.
    """
    action = f"ec2:{operation}"
    if operation.startswith("Describe"):
        return [Need(action, "*", {})]

    def existing(kind: str, name: str) -> Need:
        return Need(action, arn(kind, name), {f"aws:ResourceTag/{key}": value for key, value in tags_of(kind, name).items()})

    found = []
    made = {
        "RunInstances": ("instance", "volume", "network-interface"),
        "ImportKeyPair": ("key-pair",),
        "CreateSecurityGroup": ("security-group",),
    }
    tagged = request_tags(form)
    names = {"key-pair": form.get("KeyName", "")}
    for kind in {*made.get(operation, ()), *tagged}:
        found.append(Need(action, arn(kind, names.get(kind, "new")), _asked(tagged.get(kind, {}))))
        if kind in tagged:
            found.append(Need("ec2:CreateTags", arn(kind, names.get(kind, "new")), {**_asked(tagged[kind]), "ec2:CreateAction": operation}))
    if operation == "RunInstances":
        found += [existing("image", form["ImageId"]), existing("subnet", form.get("NetworkInterface.1.SubnetId", "any"))]
        found += [existing("security-group", name) for name in _values(form, r"NetworkInterface\.1\.SecurityGroupId\.\d+")]
        found += [existing("key-pair", form["KeyName"])] if form.get("KeyName") else []
        return found
    found += [existing("instance", name) for name in _values(form, r"InstanceId(\.\d+)?")]
    found += [existing("volume", name) for name in _values(form, "VolumeId")]
    found += [existing("network-interface", name) for name in _values(form, "NetworkInterfaceId")]
    found += [existing("security-group", name) for name in _values(form, r"GroupId(\.\d+)?")]
    found += [existing("vpc", name) for name in _values(form, "VpcId")]
    found += [existing("association", name) for name in _values(form, "AssociationId")]
    if operation == "DeleteKeyPair":
        found.append(existing("key-pair", form["KeyName"]))
    for name in _values(form, r"ResourceId\.\d+"):
        found.append(existing(KINDS[name.partition("-")[0]], name))
    return found


def _listed(value: t.Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _conditions_hold(conditions: t.Mapping[str, t.Mapping[str, t.Any]], context: t.Mapping[str, str]) -> bool:
    for operator, entries in conditions.items():
        if operator not in ("StringEquals", "StringLike"):
            raise ValueError(f"the condition operator {operator} is not known here")
        for key, wanted in entries.items():
            actual = context.get(key)
            matches = fnmatch.fnmatchcase if operator == "StringLike" else str.__eq__
            if actual is None or not any(matches(actual, pattern) for pattern in _listed(wanted)):
                return False
    return True


def allows(policy: t.Mapping[str, t.Any], need: Need) -> bool:
    """Whether some statement allows it; the policy holds Allow statements only."""
    for statement in policy["Statement"]:
        if statement["Effect"] != "Allow" or set(statement) - {"Sid", "Effect", "Action", "Resource", "Condition"}:
            raise ValueError(f"the statement {statement.get('Sid')} has something that is not known here")
        if (
            any(fnmatch.fnmatchcase(need.action, pattern) for pattern in _listed(statement["Action"]))
            and any(fnmatch.fnmatchcase(need.resource, pattern) for pattern in _listed(statement["Resource"]))
            and _conditions_hold(statement.get("Condition", {}), need.context)
        ):
            return True
    return False
