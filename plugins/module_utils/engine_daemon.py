# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine's configuration shall be: ``daemon.json`` merged, and the systemd drop-in. Texts in, texts out; touches nothing.

Runs on managed hosts: Python 3.9, standard library only. Sources: dockerd's reference of ``daemon.json``, systemd.syntax(7),
systemd.exec(5), systemd.service(5).
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError

DAEMON_JSON = "/etc/docker/daemon.json"
DROP_IN = "/etc/systemd/system/docker.service.d/10-machine.conf"
"""Docker Machine's own name, so that a host which it made has one drop-in, not two."""
ADOPTED_DROP_IN = "/etc/systemd/system/docker.service.d/20-docker-machine-environment.conf"
"""Environment that Docker Machine had set on a host which we took over; ours never again."""

_HEADER = "# Written by dockyard.machine; changes here are lost. Use docker_engine_config and docker_engine_env."
_OWNED = "# daemon.json keys kept by dockyard.machine: "

RESERVED_KEYS = frozenset({"hosts", "tls", "tlsverify", "tlscacert", "tlscert", "tlskey"})
"""Keys of daemon.json that decide who may reach the engine: only the role's own variables set them."""

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Flags that Docker Machine wrote, as keys of daemon.json; True: several make a list.
_FLAG_KEYS: t.Final[dict[str, tuple[str, bool]]] = {
    "storage-driver": ("storage-driver", False),
    "storage-opt": ("storage-opts", True),
    "label": ("labels", True),
    "insecure-registry": ("insecure-registries", True),
    "registry-mirror": ("registry-mirrors", True),
    "log-level": ("log-level", False),
    "log-driver": ("log-driver", False),
    "graph": ("data-root", False),
    "data-root": ("data-root", False),
    "dns": ("dns", True),
    "bip": ("bip", False),
    "mtu": ("mtu", False),
    "exec-opt": ("exec-opts", True),
    "selinux-enabled": ("selinux-enabled", False),
    "ipv6": ("ipv6", False),
    "live-restore": ("live-restore", False),
    "userns-remap": ("userns-remap", False),
}
# Flags that the drop-in itself or the TLS settings replace.
_DROPPED_FLAGS = frozenset({"host", "H", "tls", "tlsverify", "tlscacert", "tlscert", "tlskey"})
# Flags of dockerd whose name differs from the key of daemon.json by more than a plural.
_PLURALS: t.Final[dict[str, str]] = {flag: key for flag, (key, dummy) in _FLAG_KEYS.items()}
_PLURALS.update({"host": "hosts", "H": "hosts", "D": "debug", "l": "log-level", "s": "storage-driver", "G": "group", "b": "bridge"})


# --- daemon.json ---------------------------------------------------------------------------------------------------------------


def parse_daemon_json(text: str, path: str = DAEMON_JSON) -> dict[str, t.Any]:
    """Read a ``daemon.json``; an empty file is an empty configuration, as dockerd sees it.

    Raises:
        MachineError: ``daemon_json_invalid``; the file is somebody's work and is kept.
    """
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise _invalid(path, f"it is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise _invalid(path, "it holds no JSON object")
    return found


def _invalid(path: str, why: str) -> MachineError:
    return MachineError(
        "The engine's configuration cannot be merged",
        where=path,
        why=why,
        hint="Repair the file or move it away; it was kept as it is",
        code="daemon_json_invalid",
    )


@dataclasses.dataclass(frozen=True)
class Merged:
    """A configuration, and which of its keys are ours."""

    config: dict[str, t.Any]
    owned: list[str]


def merge(
    existing: t.Mapping[str, t.Any],
    wanted: t.Mapping[str, t.Any],
    defaults: t.Mapping[str, t.Any],
    owned: t.Collection[str] = (),
) -> Merged:
    """Our keys over what is there.

    Args:
        existing: the file's content.
        wanted: keys that win; None removes the key, and keeps a default out.
        defaults: keys that apply where somebody else set nothing.
        owned: keys that an earlier run set: those no longer wanted are removed, all others are kept for ever.
    """
    config = {key: value for key, value in existing.items() if key not in owned or key in wanted or key in defaults}
    ours = set()
    for key, value in defaults.items():
        if key not in wanted and (key not in existing or key in owned):
            config[key] = value
            ours.add(key)
    for key, value in wanted.items():
        if value is None:
            config.pop(key, None)
        else:
            config[key] = value
            ours.add(key)
    return Merged(config, sorted(ours))


def render_daemon_json(config: t.Mapping[str, t.Any]) -> str:
    """The text of the file: sorted and indented, so that a person can read it and a second run finds the same."""
    return json.dumps(config, indent=4, sort_keys=True, ensure_ascii=False) + "\n"


def check_wanted(wanted: t.Mapping[str, t.Any]) -> None:
    """Refuse what would open the engine to the world or stop it.

    Raises:
        MachineError: ``reserved_key``.
    """
    reserved = sorted(RESERVED_KEYS & set(wanted))
    if reserved:
        raise MachineError(
            f"{', '.join(reserved)} cannot be set here",
            where="option config (docker_engine_config)",
            why="the engine listens with mutual TLS only, and its addresses stand in the systemd drop-in",
            hint="Use docker_engine_listen_address, docker_engine_port and docker_engine_certificate_dir",
            code="reserved_key",
        )


# --- the unit's command --------------------------------------------------------------------------------------------------------


def unit_values(text: str, section: str, key: str) -> list[str]:
    """The values of a setting in a unit file, continuation lines joined; an empty value resets, as systemd does it."""
    values: list[str] = []
    current = ""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        if stripped.startswith("["):
            current = stripped.strip("[]")
        elif current == section and stripped.partition("=")[0].strip() == key:
            value = stripped.partition("=")[2].strip()
            values = [*values, value] if value else []
    return values


def exec_start(unit: str, path: str) -> str:
    """The one command line of the engine's unit.

    Raises:
        MachineError: ``unit_invalid`` when there is none or several.
    """
    found = unit_values(unit, "Service", "ExecStart")
    if len(found) != 1:
        raise MachineError(
            "The engine's unit cannot be extended",
            where=path,
            why=f"it has {len(found)} ExecStart commands, and one is expected",
            hint="Reinstall the package that brings the unit, or repair it",
            code="unit_invalid",
        )
    return found[0]


def arguments(command: str) -> list[str]:
    """A command line's words; prefixes of systemd (``-``, ``@``, ``+``, ``!``, ``:``) are no part of the path."""
    words = shlex.split(command, comments=False)
    return [words[0].lstrip("-@:+!"), *words[1:]] if words else []


def flags(command: str) -> list[tuple[str, str]]:
    """dockerd's flags as ``(name, value)`` in order; a flag without value has an empty one."""
    found: list[tuple[str, str]] = []
    words = arguments(command)[1:]
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if not word.startswith("-"):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if not equals and index < len(words) and not words[index].startswith(("-", "$")):
            value = words[index]
            index += 1
        found.append((name, value))
    return found


def configuration_key(flag: str) -> str:
    """The key of daemon.json that says the same as a flag."""
    return _PLURALS.get(flag, flag)


def check_conflicts(command: str, config: t.Mapping[str, t.Any], where: str) -> None:
    """dockerd refuses to start when a setting is both a flag and in daemon.json, and other listeners defeat TLS.

    Raises:
        MachineError: ``conflicting_listener`` or ``conflicting_flag``.
    """
    given = flags(command)
    listeners = [value for name, value in given if configuration_key(name) == "hosts" and value.startswith("tcp:")]
    if listeners:
        raise MachineError(
            f"The engine is told elsewhere to listen on {', '.join(listeners)}",
            where=where,
            why="two places that name listeners end in an engine that does not start, or that answers without TLS",
            hint="Remove it there; docker_engine_listen_address and docker_engine_port say where the engine listens",
            code="conflicting_listener",
        )
    double = sorted({configuration_key(name) for name, dummy in given} & set(config))
    if double:
        raise MachineError(
            f"The engine would get {', '.join(double)} twice, as a flag and in daemon.json, and refuse to start",
            where=where,
            hint="Remove the flag there, or the key from daemon.json or docker_engine_config",
            code="conflicting_flag",
        )


def check_hosts_key(config: t.Mapping[str, t.Any], path: str) -> None:
    """``hosts`` in daemon.json together with any ``-H`` flag keeps the engine from starting.

    Raises:
        MachineError: ``conflicting_hosts``.
    """
    if "hosts" in config:
        raise MachineError(
            "The engine's listeners are set in daemon.json",
            where=path,
            why="the key 'hosts' and the -H flags of the systemd unit exclude each other: the engine would not start",
            hint="Remove 'hosts' from the file; docker_engine_listen_address and docker_engine_port say where the engine listens",
            code="conflicting_hosts",
        )


# --- the drop-in ---------------------------------------------------------------------------------------------------------------


def listener(address: str, port: int) -> str:
    """``tcp://ADDRESS:PORT`` as dockerd's ``-H`` takes it."""
    bare = address.strip("[]")
    return f"tcp://[{bare}]:{port}" if ":" in bare else f"tcp://{bare}:{port}"


def quote_environment(name: str, value: str) -> str:
    """One assignment for ``Environment=``, quoted after systemd.syntax(7): C escapes, and ``%`` doubled.

    Raises:
        MachineError: ``invalid_env`` for a name that is none, or a value with a NUL byte.
    """
    if not _ENV_NAME.fullmatch(name) or "\0" in value:
        raise MachineError(
            f"{name[:80]!r} cannot be an environment variable",
            where="option environment (docker_engine_env)",
            why="a name has letters, digits and underscores, and a value no NUL byte",
            code="invalid_env",
        )
    escapes = {"\\": "\\\\", '"': '\\"', "%": "%%", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return f'"{name}={"".join(escapes.get(letter, letter) for letter in value)}"'


def command_line(vendor: str, listen: str, socket_activation: bool) -> str:
    """The vendor's command with our listener; the local socket stays."""
    local = "" if any(configuration_key(name) == "hosts" for name, dummy in flags(vendor)) else " -H fd://"
    if local and not socket_activation:
        local = " -H unix:///var/run/docker.sock"
    return f"{vendor}{local} -H {listen}"


def render_drop_in(command: str, environment: t.Mapping[str, str], owned: t.Sequence[str]) -> str:
    """The text of the drop-in; its second line remembers which keys of daemon.json are ours."""
    lines = [_HEADER, _OWNED + json.dumps(list(owned)), "[Service]", "ExecStart=", f"ExecStart={command}"]
    lines += [f"Environment={quote_environment(name, environment[name])}" for name in sorted(environment)]
    return "\n".join(lines) + "\n"


def owned_keys(drop_in: str) -> list[str]:
    """Which keys of daemon.json an earlier run set, read from its drop-in."""
    for line in drop_in.splitlines():
        if line.startswith(_OWNED):
            try:
                found = json.loads(line[len(_OWNED) :])
            except ValueError:
                return []
            return [str(key) for key in found] if isinstance(found, list) else []
    return []


def hide_environment(drop_in: str) -> str:
    """The drop-in as diff may show it: values of environment variables can be passwords (proxies)."""
    return re.sub(r'^(Environment="?[A-Za-z0-9_]+=).*$', r"\1<hidden>", drop_in, flags=re.MULTILINE)


# --- hosts of Docker Machine ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Adopted:
    """What Docker Machine's drop-in said beyond listeners and TLS."""

    config: dict[str, t.Any]
    environment: list[str]
    """``Environment=`` values, verbatim."""
    unknown: list[str]
    """Flags that have no key here; a person has to look at them."""


def from_docker_machine(drop_in: str) -> Adopted | None:
    """Read a drop-in that Docker Machine wrote; None when it is ours or empty."""
    commands = unit_values(drop_in, "Service", "ExecStart")
    if not commands or _HEADER in drop_in:
        return None
    config: dict[str, t.Any] = {}
    unknown = []
    for name, value in flags(commands[-1]):
        if name in _DROPPED_FLAGS:
            continue
        if name not in _FLAG_KEYS:
            unknown.append(name)
            continue
        key, many = _FLAG_KEYS[name]
        config[key] = [*config.get(key, []), value] if many else _scalar(value)
    return Adopted(config, unit_values(drop_in, "Service", "Environment"), unknown)


def _scalar(value: str) -> t.Any:
    if value in ("", "true", "false"):
        return value != "false"
    return int(value) if value.isdigit() else value
