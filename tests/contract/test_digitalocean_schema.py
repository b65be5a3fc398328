# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts that the fake keeps to are those of the SDK, which DigitalOcean generates from its API description.

The SDK tells paths and methods by its request builders, accepted statuses by its code, and the fields of answers
(of most requests too) by the examples in its documentation strings.
"""

from __future__ import annotations

import inspect
import re
import typing as t

import pytest

pytest.importorskip("pydo")

from fakes.digitalocean import SCHEMA, wrong
from pydo.operations import _operations

OPERATIONS: dict[str, dict[str, t.Any]] = SCHEMA["operations"]
GROUPS = ("droplet_actions", "droplets", "firewalls", "images", "regions", "sizes", "ssh_keys", "tags", "vpcs")

# What the examples leave out: unions, and what an object of a description in parts holds.
UNTOLD = {"links", "next_backup_window", "tags", "v4", "v6"}

_LINE = re.compile(r'^(\s*)"(\w+)": (.*)$')


def split(operation: str) -> tuple[str, str]:
    group = next(name for name in GROUPS if operation.startswith(name + "_"))
    return group, operation[len(group) + 1 :]


def method(operation: str) -> t.Any:
    group, name = split(operation)
    classes = {"ssh_keys": "SshKeys", "vpcs": "Vpcs"}
    wanted = classes.get(group) or "".join(word.title() for word in group.split("_"))
    return inspect.unwrap(getattr(getattr(_operations, f"{wanted}Operations"), name))


def examples(operation: str) -> dict[str, str]:
    """The documentation's examples: ``body``, and one a status (``200``)."""
    text = inspect.getdoc(method(operation)) or ""
    found = {}
    for match in re.finditer(
        r"^( *)(?:# response body for status code\(s\): (\d+)\n *response ==|body =) \{(?:\}|(.*?)^\1\})", text, re.M | re.S
    ):
        found[match.group(2) or "body"] = match.group(3) or ""
    return found


def fields(example: str) -> dict[str, str]:
    """``a.b.c`` -> the example's value as text; lists count as their items."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in example.splitlines():
        match = _LINE.match(line)
        if match:
            depth, name = len(match.group(1)), match.group(2)
            path = [item for item in path if item[0] < depth] + [(depth, name)]
            found[".".join(item[1] for item in path)] = match.group(3)
    return found


def told(schema: t.Mapping[str, t.Any], prefix: str = "") -> t.Iterator[tuple[str, t.Mapping[str, t.Any]]]:
    """Every field of a schema, by its path."""
    schema = SCHEMA["schemas"][schema["ref"]] if "ref" in schema else schema
    if schema["type"] == "array":
        yield from told(schema["items"], prefix)
    elif schema["type"] == "object":
        for name, item in schema["properties"].items():
            path = f"{prefix}.{name}" if prefix else name
            yield path, SCHEMA["schemas"][item["ref"]] if "ref" in item else item
            if name not in UNTOLD:
                yield from told(item, path)


def kind(value: str) -> set[str]:
    """The types that an example's value may stand for."""
    if value.startswith('"'):
        return {"string"}
    if value.startswith(("True", "False", "bool")):
        return {"boolean"}
    if value.startswith("["):
        return {"array"}
    if value.startswith("{"):
        return {"object", "array", "string", "integer"}
    return {"integer", "number"} if re.match(r"0(?!\.)", value) else {"number"}


def assert_told(schema: t.Mapping[str, t.Any], example: str, operation: str) -> int:
    shown = fields(example)
    for path, item in told(schema):
        if path.split(".")[0] == "links":
            continue
        assert path in shown, f"{operation}: the SDK knows no {path}"
        types = set(item["type"]) if isinstance(item["type"], list) else {item["type"]}
        assert types & kind(shown[path]), f"{operation}: {path} is {item['type']} here and {shown[path][:30]} there"
    return len(shown)


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_paths_and_statuses(operation: str) -> None:
    facts = OPERATIONS[operation]
    group, name = split(operation)
    builder = inspect.getsource(getattr(_operations, f"build_{group}_{name}_request"))
    assert f'method="{facts["method"]}"' in builder
    (path,) = re.findall(r'_url = "([^"]+)"', builder)
    assert path == facts["path"]
    assert re.search(rf"status_code not in \[(?:\d+, )*{facts['status']}\b", inspect.getsource(method(operation)))


@pytest.mark.parametrize("operation", sorted(name for name, facts in OPERATIONS.items() if facts["response"]))
def test_answers(operation: str) -> None:
    facts = OPERATIONS[operation]
    example = examples(operation).get(str(facts["status"]))
    if example is None:
        assert operation == "droplets_create", "the SDK documents every other answer"
        return
    assert assert_told(facts["response"], example, operation) > 1


@pytest.mark.parametrize("operation", sorted(name for name, facts in OPERATIONS.items() if facts["request"]))
def test_requests(operation: str) -> None:
    example = examples(operation)["body"]
    if not example.strip():
        assert operation in ("droplets_create", "droplet_actions_post"), "the SDK documents every other request"
        return
    assert_told({"ref": OPERATIONS[operation]["request"]}, example, operation)


def test_the_new_droplet_has_the_fields_of_a_template_for_droplets() -> None:
    """The SDK leaves requests in variants out; its template for scaling describes the same fields."""
    template = fields(inspect.getdoc(inspect.unwrap(_operations.DropletsOperations.list)) or "")
    assert "droplets.vpc_uuid" in template
    scaling = inspect.getsource(_operations.AutoscalepoolsOperations)
    for name in set(SCHEMA["schemas"]["droplet_create"]["properties"]) - {"names", "backups", "monitoring", "private_networking"}:
        assert f'"{name}":' in scaling, name


def test_the_actions_are_those_that_the_sdk_documents() -> None:
    text = inspect.getdoc(method("droplet_actions_post")) or ""
    for action in SCHEMA["schemas"]["action_create"]["properties"]["type"]["enum"]:
        assert f"<nobr>`{action}`</nobr>" in text


def test_the_check_finds_what_is_wrong() -> None:
    create = {"ref": "droplet_create"}
    good = {"name": "web1", "region": "nyc3", "size": "s-1vcpu-1gb", "image": "debian-12-x64"}
    assert wrong(good, create) == []
    for change in (
        {"name": "web_1"},
        {"region": 3},
        {"backups": "yes"},
        {"ssh_keys": [None]},
        {"tags": ["a b"]},
        {"names": ["web"] * 11},
        {"user_data": "x" * 65537},
        {"colour": "blue"},
    ):
        assert wrong({**good, **change}, create) != [], change
    assert wrong({"name": "web1"}, create) != []
