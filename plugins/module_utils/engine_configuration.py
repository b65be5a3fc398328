# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Converge an engine's configuration on its host: look, plan, write, restart, roll back.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
import shlex
import tempfile
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils import engine_daemon, engine_service, files
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError

_LIMIT = 1 << 20
_DROP_IN_FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
# What a host without engine most probably gets; only check mode uses it.
_PREDICTED_COMMAND = "dockerd -H fd://"


@dataclasses.dataclass(frozen=True)
class Wish:
    """What a person asked for; the names are the module's options."""

    config: dict[str, t.Any]
    defaults: dict[str, t.Any]
    environment: dict[str, str]
    certificate_dir: str
    listen_address: str
    port: int
    restart: bool
    timeout: float


@dataclasses.dataclass(frozen=True)
class Change:
    """One file, before and after; None means there is none."""

    path: str
    before: str | None
    after: str | None
    mode: int = 0o644

    def diff(self) -> dict[str, str]:
        """As Ansible shows it, without secrets."""
        before, after = _shown(self.before), _shown(self.after)
        if before == after:
            after += "(hidden values changed)\n"
        return {"before_header": self.path, "after_header": self.path, "before": before, "after": after}

    def apply(self) -> None:
        """Write the file, or remove it."""
        _put(self.path, self.after, self.mode)

    def undo(self) -> None:
        """Bring the old file back."""
        _put(self.path, self.before, self.mode)


@dataclasses.dataclass
class Plan:
    """What has to be done, and why."""

    unit: engine_service.Unit
    changes: list[Change]
    reasons: list[str]
    command: str
    config_path: str
    warnings: list[str] = dataclasses.field(default_factory=list)

    @property
    def restart(self) -> bool:
        """Whether the engine has to be started or restarted."""
        return bool(self.reasons)


def _shown(text: str | None) -> str:
    hidden = engine_daemon.hide_environment(text or "")
    hidden = re.sub(r"://[^/@\s\"]+@", "://<hidden>@", hidden)
    return re.sub(r'("[^"]*(?:token|password|secret)[^"]*": )"[^"]*"', r'\1"<hidden>"', hidden, flags=re.IGNORECASE)


def _put(path: str, text: str | None, mode: int) -> None:
    target = pathlib.Path(path)
    if text is None:
        files.remove(target)
    else:
        files.make_directory(target.parent, 0o755)
        files.write(target, text.encode("utf-8"), mode)


def _text(path: str) -> str | None:
    try:
        return files.read(pathlib.Path(path), _LIMIT).decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise MachineError(
            "The file is no text", where=path, why=str(error), hint="Move it away; it was kept as it is", code="not_text"
        ) from error


# --- looking -------------------------------------------------------------------------------------------------------------------


def _check_other_drop_ins() -> None:
    """Another ``ExecStart`` would win over ours, or ours over it.

    Raises:
        MachineError: ``conflicting_drop_in``.
    """
    for folder in _DROP_IN_FOLDERS:
        for path in sorted(pathlib.Path(folder, f"{engine_service.UNIT}.d").glob("*.conf")):
            if str(path) == engine_daemon.DROP_IN:
                continue
            if engine_daemon.unit_values(_text(str(path)) or "", "Service", "ExecStart"):
                raise MachineError(
                    "Another drop-in sets the engine's command",
                    where=str(path),
                    why=f"it and {engine_daemon.DROP_IN} exclude each other",
                    hint="Move its options to docker_engine_config and remove its ExecStart lines; it was kept as it is",
                    code="conflicting_drop_in",
                )


def _check_environment_files(unit_text: str, command: str, config: t.Mapping[str, t.Any]) -> None:
    """Flags hide in files too: Debian's unit reads DOCKER_OPTS from /etc/default/docker."""
    variables = set(re.findall(r"\$\{?([A-Z_]+)\}?", command))
    for value in engine_daemon.unit_values(unit_text, "Service", "EnvironmentFile"):
        path = value.lstrip("-")
        for line in (_text(path) or "").splitlines():
            name, dummy, given = line.strip().partition("=")
            if name in variables:
                # systemd takes the quotes off, then splits the words.
                with contextlib.suppress(ValueError):
                    given = " ".join(shlex.split(given))
                engine_daemon.check_conflicts(f"dockerd {given}", config, path)


def _swarm(config: t.Mapping[str, t.Any]) -> bool:
    root = str(config.get("data-root") or "/var/lib/docker")
    return pathlib.Path(root, "swarm", "docker-state.json").exists()


def may_raise_limits(status: str = "/proc/self/status") -> bool:
    """Whether root may raise limits here (CAP_SYS_RESOURCE, capabilities(7)); not in most containers."""
    for line in (_text(status) or "").splitlines():
        name, dummy, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value, 16) >> 24 & 1)
    return True


def _merged(wish: Wish, existing: dict[str, t.Any], owned: list[str]) -> engine_daemon.Merged:
    """The configuration as it shall be.

    Raises:
        MachineError: ``live_restore_in_swarm``.
    """
    folder = wish.certificate_dir.rstrip("/")
    tls = {
        "tlsverify": True,
        "tlscacert": f"{folder}/ca.pem",
        "tlscert": f"{folder}/server.pem",
        "tlskey": f"{folder}/server-key.pem",
    }
    defaults = dict(wish.defaults)
    swarm = _swarm({**existing, **wish.config})
    if swarm:
        # The engine refuses to start with both.
        defaults.pop("live-restore", None)
    if not may_raise_limits():
        # On a host that is a container itself, no container would start with more than the host was given.
        defaults.pop("default-ulimits", None)
    merged = engine_daemon.merge(existing, {**wish.config, **tls}, defaults, owned)
    if swarm and merged.config.get("live-restore"):
        raise MachineError(
            "live-restore cannot be on while the engine is part of a swarm",
            where="daemon.json, key live-restore",
            hint="Set 'live-restore: false' in docker_engine_config, or let the engine leave the swarm",
            code="live_restore_in_swarm",
        )
    return merged


def _vendor(unit: engine_service.Unit, check_mode: bool) -> tuple[str, str]:
    """The vendor's unit text and its command.

    Raises:
        MachineError: ``engine_masked`` or ``engine_missing``.
    """
    if unit.loaded:
        text = _text(unit.fragment) or ""
        return text, engine_daemon.exec_start(text, unit.fragment)
    if unit.masked:
        raise MachineError(
            "The engine may not be started",
            where=engine_service.UNIT,
            why="somebody has masked its unit",
            hint=f"If the host shall run an engine, run there: systemctl unmask {engine_service.UNIT} {engine_service.SOCKET_UNIT}",
            code="engine_masked",
        )
    if check_mode:
        return "", _PREDICTED_COMMAND
    raise MachineError(
        "There is no Docker Engine on the host",
        why=f"systemd knows no {engine_service.UNIT}",
        hint="Install it first; the role dockyard.machine.docker_engine does",
        code="engine_missing",
    )


def _config_path(command: str) -> str:
    given = [value for name, value in engine_daemon.flags(command) if name == "config-file"]
    return given[-1] if given else engine_daemon.DAEMON_JSON


def _adoption(drop_in: str, existing: dict[str, t.Any], plan: Plan) -> dict[str, t.Any]:
    """Keep what Docker Machine's drop-in said: its flags become keys of daemon.json, its environment a drop-in of its own."""
    adopted = engine_daemon.from_docker_machine(drop_in)
    if adopted is None:
        return existing
    if adopted.environment:
        text = "[Service]\n" + "".join(f"Environment={value}\n" for value in adopted.environment)
        before = _text(engine_daemon.ADOPTED_DROP_IN)
        if before != text:
            plan.changes.append(Change(engine_daemon.ADOPTED_DROP_IN, before, text, 0o600))
    if adopted.unknown:
        plan.warnings.append(
            f"Flags of the former {engine_daemon.DROP_IN} were not taken over: {', '.join(adopted.unknown)}."
            " Set them in docker_engine_config."
        )
    return {**adopted.config, **existing}


def make_plan(wish: Wish, *, check_mode: bool) -> Plan:
    """Find what is and decide what is missing. Changes nothing.

    Raises:
        MachineError: every conflict that would keep the engine from starting, see :mod:`engine_daemon`.
    """
    engine_daemon.check_wanted(wish.config)
    unit = engine_service.unit()
    unit_text, vendor = _vendor(unit, check_mode)
    plan = Plan(unit, [], [], vendor, _config_path(vendor))
    _check_other_drop_ins()

    drop_in, daemon_json = _text(engine_daemon.DROP_IN), _text(plan.config_path)
    on_disk = engine_daemon.parse_daemon_json(daemon_json or "", plan.config_path)
    engine_daemon.check_hosts_key(on_disk, plan.config_path)
    existing = _adoption(drop_in or "", on_disk, plan)
    merged = _merged(wish, existing, engine_daemon.owned_keys(drop_in or ""))
    engine_daemon.check_conflicts(vendor, merged.config, unit.fragment)
    _check_environment_files(unit_text, vendor, merged.config)

    listen = engine_daemon.listener(wish.listen_address, wish.port)
    plan.command = engine_daemon.command_line(vendor, listen, unit.socket_activation or not unit.loaded)
    if merged.config != on_disk:
        plan.changes.append(Change(plan.config_path, daemon_json, engine_daemon.render_daemon_json(merged.config)))
    wanted_drop_in = engine_daemon.render_drop_in(plan.command, wish.environment, merged.owned)
    if wanted_drop_in != drop_in:
        mode = 0o600 if wish.environment else 0o644
        plan.changes.append(Change(engine_daemon.DROP_IN, drop_in, wanted_drop_in, mode))
    _find_reasons(wish, plan)
    return plan


def _find_reasons(wish: Wish, plan: Plan) -> None:
    plan.reasons += [f"{change.path} {'changes' if change.before is not None else 'is new'}" for change in plan.changes]
    if wish.restart:
        plan.reasons.append("its certificates changed")
    if engine_service.restart_marked():
        plan.reasons.append("an earlier run was cut short before the restart")
    if not plan.unit.running:
        plan.reasons.append("it does not run")
    elif not plan.reasons and not engine_service.listening(wish.port):
        plan.reasons.append(f"it does not listen on port {wish.port}")


# --- doing ---------------------------------------------------------------------------------------------------------------------


def validate(plan: Plan) -> None:
    """Let the engine itself check the configuration (``dockerd --validate``, from version 23 on).

    Raises:
        MachineError: ``config_refused``; nothing was changed yet.
    """
    words = engine_daemon.arguments(plan.command)
    changed = next((change for change in plan.changes if change.path == plan.config_path), None)
    version = engine_service.binary_version(words[0]) if changed else ""
    if changed is None or not version or int(version.partition(".")[0]) < 23:
        return
    # The wanted file stands beside nothing of the engine's, so that a killed run leaves nothing behind in /etc.
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".json") as draft:
        draft.write(changed.after or "")
        draft.flush()
        answer = engine_service.command([words[0], "--validate", "--config-file", draft.name])
    if answer.code != 0:
        raise MachineError(
            "The engine refuses the configuration",
            where=plan.config_path,
            why=(answer.err or answer.out).strip().replace(draft.name, plan.config_path)[-1000:],
            hint="Correct docker_engine_config; nothing was changed",
            code="config_refused",
        )


def check_port(plan: Plan, port: int) -> None:
    """Somebody else's listener would keep the engine from starting: better to say so while it still runs.

    Raises:
        MachineError: ``port_busy``.
    """
    owner = engine_service.port_owner(port)
    if owner and not owner.endswith(f"(pid {plan.unit.pid})"):
        raise MachineError(
            f"The port {port} is taken by {owner}",
            where="option port (docker_engine_port)",
            why="the engine has to listen there",
            hint="Stop that process or choose another port; nothing was changed",
            code="port_busy",
        )


def apply(plan: Plan, wish: Wish) -> dict[str, str]:
    """Write, reload, (re)start, wait until the engine answers; on failure bring everything back as it was.

    Returns:
        The running engine, see :func:`engine_service.version`.

    Raises:
        MachineError: ``engine_failed``.
    """
    engine_service.mark_restart()
    written: list[Change] = []
    try:
        for change in plan.changes:
            change.apply()
            written.append(change)
        if written:
            engine_service.systemctl("daemon-reload")
        # Docker Machine had the engine put a socket of its own in the place of systemd's, whose file is gone since.
        new_socket = plan.unit.running and plan.unit.socket_activation and not plan.unit.holds_socket
        engine = engine_service.restart(wish.timeout, wish.port, new_socket=new_socket and "fd://" in plan.command)
    except MachineError as error:
        raise _rolled_back(error, written, plan, wish) from error
    engine_service.clear_restart()
    return engine


def enable() -> None:
    """Have the engine started at every boot.

    Raises:
        MachineError: ``enable_failed``.
    """
    answer = engine_service.systemctl("enable", engine_service.UNIT)
    if answer.code != 0:
        raise MachineError("The engine could not be enabled", where=engine_service.UNIT, why=answer.err.strip(), code="enable_failed")


def _rolled_back(error: MachineError, written: list[Change], plan: Plan, wish: Wish) -> MachineError:
    """Undo, and say in the error where that left the engine."""
    for change in reversed(written):
        change.undo()
    if not written:
        return error
    engine_service.systemctl("daemon-reload")
    after = "The former files are back"
    if plan.unit.running:
        try:
            # The former listener may have been on another port, or on none.
            engine_service.restart(wish.timeout, 0)
            engine_service.clear_restart()
            after += ", and the engine runs with them"
        except MachineError:
            after += ", but the engine does not run with them either"
    return MachineError(
        error.what, where=error.where, why=f"{error.why.rstrip('.')}. {after}" if error.why else after, hint=error.hint, code=error.code
    )
