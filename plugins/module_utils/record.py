# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of one machine, as ``dockyard.json`` holds it. Never a cloud secret."""

from __future__ import annotations

import dataclasses
import datetime
import secrets
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import Machine, State

RECORD_VERSION = 1

HOST_KEYS = ("", "first", "pinned")
"""Nothing pinned yet; the key that we gave the machine for its first boot; the key that it made itself."""

_MACHINE_TYPES: t.Final[dict[str, type]] = {
    "name": str,
    "driver": str,
    "id": str,
    "state": str,
    "address": str,
    "private_address": str,
    "ipv6_address": str,
    "dns_names": list,
    "ssh_user": str,
    "ssh_port": int,
    "engine_port": int,
    "owner": str,
    "token": str,
    "tags": dict,
    "complete": bool,
    "details": dict,
}


@dataclasses.dataclass
class Record:
    """What we know of a machine."""

    name: str
    driver: str
    owner: str = ""
    token: str = ""
    """Random; tells two generations of one name apart (a tag at the provider)."""
    version: int = RECORD_VERSION
    options: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    """The driver's options as they were given, without secrets."""
    machine: Machine | None = None
    ssh_key_path: str = ""
    """The private key, an absolute path; empty for an agent or the user's default keys."""
    host_keys: str = ""
    """One of :data:`HOST_KEYS`."""
    engine: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    """What the verified engine said (``version``, ``api_version`` ...); empty until it is verified."""
    engine_options: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    """What config.json shows: ``labels``, ``insecure_registries``, ``registry_mirrors``, ``env``, ``opts``, ``tls_sans``
    (lists of strings) and ``storage_driver`` (a string)."""
    created: str = ""
    """ISO 8601, UTC; empty for a machine that Docker Machine made."""
    extra: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    """Keys that a newer version wrote; they are written back untouched."""
    imported: bool = False
    """True when Docker Machine made it and there is no dockyard.json yet. Not written."""

    @classmethod
    def new(cls, name: str, driver: str, owner: str) -> Record:
        """A record for a machine that is about to be made, with a token of its own."""
        now = datetime.datetime.now(tz=datetime.timezone.utc)
        created = now.replace(microsecond=0).isoformat().replace("+00:00", "Z")
        return cls(name=name, driver=driver, owner=owner, token=secrets.token_hex(8), created=created)

    def to_dict(self) -> dict[str, t.Any]:
        """What dockyard.json holds."""
        data = {**self.extra, **dataclasses.asdict(self)}
        del data["extra"], data["imported"]
        return data

    @classmethod
    def from_dict(cls, data: t.Any) -> Record:
        """Read what :meth:`to_dict` wrote.

        Raises:
            MachineError: ``corrupt_record``; ``why`` names the key at fault.
        """
        if not isinstance(data, dict):
            raise _wrong("it holds no JSON object")
        version = data.get("version")
        if version is None or not _is(version, int):
            raise _wrong("it has no version number")
        if version > RECORD_VERSION:
            raise _wrong(
                f"it has version {version}, and this release reads versions up to {RECORD_VERSION}",
                hint="Use the newer release of dockyard.machine that wrote it",
            )
        fields = {field.name: field for field in dataclasses.fields(cls) if field.name not in ("extra", "imported")}
        known = {key: value for key, value in data.items() if key in fields}
        for key in ("name", "driver"):
            if not known.get(key):
                raise _wrong(f"it has no {key}")
        for key, value in known.items():
            kind = _RECORD_TYPES[key]
            if key != "machine" and not _is(value, kind):
                raise _wrong(f"{key} is {type(value).__name__}, not {kind.__name__}")
        if known.get("host_keys", "") not in HOST_KEYS:
            raise _wrong("host_keys has an unknown value")
        known["machine"] = _machine(known.get("machine"), known["name"])
        return cls(**known, extra={key: value for key, value in data.items() if key not in fields})


_RECORD_TYPES: t.Final[dict[str, type]] = {
    "version": int,
    "name": str,
    "driver": str,
    "owner": str,
    "token": str,
    "options": dict,
    "machine": dict,
    "ssh_key_path": str,
    "host_keys": str,
    "engine": dict,
    "engine_options": dict,
    "created": str,
}


@dataclasses.dataclass
class BrokenRecord:
    """A machine whose record cannot be read; ``error`` says why and what to do."""

    name: str
    error: MachineError


def _machine(data: t.Any, name: str) -> Machine | None:
    if data is None:
        return None
    if not isinstance(data, dict):
        raise _wrong(f"machine is {type(data).__name__}, not dict")
    for key, kind in _MACHINE_TYPES.items():
        if key in data and not _is(data[key], kind):
            raise _wrong(f"machine.{key} is {type(data[key]).__name__}, not {kind.__name__}")
    if not all(isinstance(entry, str) for entry in [*data.get("dns_names", []), *data.get("tags", {}).values()]):
        raise _wrong("machine.dns_names and machine.tags hold strings only")
    bad_port = next((key for key in ("ssh_port", "engine_port") if not 0 < data.get(key, 1) < 65536), "")
    if bad_port:
        raise _wrong(f"machine.{bad_port} is no TCP port")
    if data.get("state", State.UNKNOWN) not in State.ALL:
        raise _wrong(f"machine.state is none of {', '.join(State.ALL)}")
    try:
        machine = Machine.from_dict(data)
    except MachineError as error:
        raise _wrong(f"machine: {error.why or error.what}") from error
    if machine.name != name:
        raise _wrong(f"machine.name is {machine.name!r}, but the record's name is {name!r}")
    return machine


def _is(value: t.Any, kind: type) -> bool:
    """``isinstance``, but a truth value is no number."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _wrong(why: str, hint: str = "") -> MachineError:
    return MachineError("The machine's record cannot be read", why=why, hint=hint, code="corrupt_record")
