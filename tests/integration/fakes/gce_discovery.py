# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks requests and responses against the description of compute.v1 that google-api-python-client ships.

That description (https://developers.google.com/discovery/v1/reference/apis) is Google's own: methods, paths, parameters,
bodies with their fields, types, formats, patterns and enumerations, and which fields only the server sets. A fake behind
this check can be wrong about behaviour, but not about the shape of what goes in and out.
"""

from __future__ import annotations

import base64
import binascii
import importlib.resources
import json
import re
import typing as t

SERVICE_PATH: t.Final = "/compute/v1/"

# Parameters of every Google API, which the description leaves out: https://cloud.google.com/apis/docs/system-parameters
SYSTEM_PARAMETERS: t.Final = ("$alt", "$prettyPrint", "$fields", "$userProject")

_INTEGER_RANGES: t.Final = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}


class Method(t.NamedTuple):
    """One method of the API, and the parameters in its path."""

    id: str
    description: dict[str, t.Any]
    path: dict[str, str]


class Discovery:
    """The description of compute.v1."""

    def __init__(self) -> None:
        documents = importlib.resources.files("googleapiclient") / "discovery_cache" / "documents"
        self.document: dict[str, t.Any] = json.loads((documents / "compute.v1.json").read_text(encoding="utf-8"))
        self._methods: dict[tuple[str, int], list[tuple[re.Pattern[str], dict[str, t.Any]]]] = {}
        for resource in self.document["resources"].values():
            self._collect(resource)

    def _collect(self, resource: dict[str, t.Any]) -> None:
        for method in resource.get("methods", {}).values():
            path = method.get("flatPath", method["path"])
            expression = re.sub(r"\\\{\\?\+?(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(path))
            key = (method["httpMethod"], path.count("/"))
            self._methods.setdefault(key, []).append((re.compile(expression), method))
        for child in resource.get("resources", {}).values():
            self._collect(child)

    def find(self, verb: str, path: str) -> Method | None:
        """The method that a request calls; None when the API has no such path."""
        if not path.startswith(SERVICE_PATH):
            return None
        path = path[len(SERVICE_PATH) :]
        for expression, method in self._methods.get((verb, path.count("/")), []):
            match = expression.fullmatch(path)
            if match:
                return Method(method["id"], method, match.groupdict())
        return None

    def request(self, method: Method, query: t.Mapping[str, t.Sequence[str]], body: t.Any) -> list[str]:
        """What is wrong with a request; ``body`` None when it has none."""
        wrong: list[str] = []
        known = {**self.document.get("parameters", {}), **method.description.get("parameters", {})}
        for name, value in method.path.items():
            self._parameter(f"path parameter {name}", known.get(name, {}), value, wrong)
        for name, values in query.items():
            if name in SYSTEM_PARAMETERS:
                continue
            if name not in known or known[name].get("location") != "query":
                wrong.append(f"query parameter {name}: unknown")
                continue
            if len(values) > 1 and not known[name].get("repeated"):
                wrong.append(f"query parameter {name}: given {len(values)} times")
            for value in values:
                self._parameter(f"query parameter {name}", known[name], value, wrong)
        wrong += [
            f"query parameter {name}: missing"
            for name, schema in known.items()
            if schema.get("required") and schema.get("location") == "query" and name not in query
        ]
        if "request" in method.description:
            self._value(method.description["request"], {} if body is None else body, "body", wrong, method.id)
        elif body is not None:
            wrong.append("body: the method takes none")
        return wrong

    def response(self, method: Method, body: t.Any) -> list[str]:
        """What is wrong with a response of a call that went well."""
        wrong: list[str] = []
        if "response" in method.description:
            self._value(method.description["response"], body, "response", wrong, "")
        return wrong

    # --- values ------------------------------------------------------------------------------------------------

    def _parameter(self, where: str, schema: dict[str, t.Any], value: str, wrong: list[str]) -> None:
        kind = schema.get("type", "string")
        if kind == "integer" and not re.fullmatch(r"-?\d+", value):
            wrong.append(f"{where}: no integer: {value!r}")
        elif kind == "boolean" and value not in ("true", "false"):
            wrong.append(f"{where}: no boolean: {value!r}")
        else:
            self._limits(where, schema, value, wrong)

    def _limits(self, where: str, schema: dict[str, t.Any], value: str, wrong: list[str]) -> None:
        if "enum" in schema and value not in schema["enum"]:
            wrong.append(f"{where}: {value!r} is none of {', '.join(schema['enum'])}")
        if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
            wrong.append(f"{where}: {value!r} doesn't match {schema['pattern']}")
        if "minimum" in schema and value.lstrip("-").isdigit() and int(value) < int(schema["minimum"]):
            wrong.append(f"{where}: {value} is below {schema['minimum']}")
        if "maximum" in schema and value.lstrip("-").isdigit() and int(value) > int(schema["maximum"]):
            wrong.append(f"{where}: {value} is above {schema['maximum']}")

    def _value(self, schema: dict[str, t.Any], value: t.Any, where: str, wrong: list[str], request: str) -> None:
        """``request`` is the method's id for a request, empty for a response."""
        if "$ref" in schema:
            schema = self.document["schemas"][schema["$ref"]]
        kind = schema.get("type", "any")
        check = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
        }.get(kind)
        if check is not None:
            check(schema, value, where, wrong, request)
        elif kind == "boolean" and not isinstance(value, bool):
            wrong.append(f"{where}: no boolean: {value!r}")
        elif kind == "number" and (isinstance(value, bool) or not isinstance(value, (int, float))):
            wrong.append(f"{where}: no number: {value!r}")

    def _object(self, schema: dict[str, t.Any], value: t.Any, where: str, wrong: list[str], request: str) -> None:
        if not isinstance(value, dict):
            wrong.append(f"{where}: no object: {value!r}")
            return
        properties, more = schema.get("properties", {}), schema.get("additionalProperties")
        for name, item in value.items():
            inner = properties.get(name, more)
            if inner is None:
                wrong.append(f"{where}.{name}: unknown field")
            elif request and inner.get("readOnly"):
                wrong.append(f"{where}.{name}: only the server sets it")
            else:
                self._value(inner, item, f"{where}.{name}", wrong, request)
        for name, inner in properties.items():
            if request and request in inner.get("annotations", {}).get("required", []) and name not in value:
                wrong.append(f"{where}.{name}: missing")

    def _array(self, schema: dict[str, t.Any], value: t.Any, where: str, wrong: list[str], request: str) -> None:
        if not isinstance(value, list):
            wrong.append(f"{where}: no array: {value!r}")
            return
        # Some patterns stand at the array, though its items are meant.
        inner = {**({"pattern": schema["pattern"]} if "pattern" in schema else {}), **schema.get("items", {})}
        for index, item in enumerate(value):
            self._value(inner, item, f"{where}[{index}]", wrong, request)

    def _string(self, schema: dict[str, t.Any], value: t.Any, where: str, wrong: list[str], request: str) -> None:
        if not isinstance(value, str):
            wrong.append(f"{where}: no string: {value!r}")
            return
        form = schema.get("format", "")
        if form in _INTEGER_RANGES:
            low, high = _INTEGER_RANGES[form]
            if not re.fullmatch(r"-?\d+", value) or not low <= int(value) <= high:
                wrong.append(f"{where}: no {form}: {value!r}")
        elif form == "byte":
            try:
                base64.urlsafe_b64decode(value.replace("+", "-").replace("/", "_"))
            except binascii.Error:
                wrong.append(f"{where}: no base64: {value!r}")
        self._limits(where, schema, value, wrong)

    def _integer(self, schema: dict[str, t.Any], value: t.Any, where: str, wrong: list[str], request: str) -> None:
        low, high = _INTEGER_RANGES.get(schema.get("format", "int64"), _INTEGER_RANGES["int64"])
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            wrong.append(f"{where}: no integer: {value!r}")
