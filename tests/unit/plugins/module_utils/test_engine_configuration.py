# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Converging an engine's configuration against a stand-in for systemd; the real one is met by molecule."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from ansible_collections.dockyard.machine.plugins.module_utils import engine_configuration as configuration
from ansible_collections.dockyard.machine.plugins.module_utils import engine_daemon, engine_service
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError

RUNNING = {"version": "26.1.5", "api_version": "1.45", "min_api_version": "1.24"}
UNIT = "[Service]\nEnvironmentFile=-{etc}/default\nExecStart=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS\n"


class Engine:
    """What systemd and the engine would do: it starts when its configuration has no key ``poison``."""

    def __init__(self, etc: pathlib.Path) -> None:
        self.etc = etc
        self.active = "active"
        self.restarts = 0
        self.loaded = True
        (etc / "docker.service").write_text(UNIT.format(etc=etc))

    def unit(self) -> engine_service.Unit:
        if not self.loaded:
            return engine_service.Unit()
        return engine_service.Unit(
            loaded=True,
            active=self.active,
            enabled=True,
            fragment=str(self.etc / "docker.service"),
            socket_activation=True,
            holds_socket=True,
        )

    def restart(self, timeout: float, port: int, *, new_socket: bool = False) -> dict[str, str]:
        self.restarts += 1
        path = self.etc / "daemon.json"
        if "poison" in (json.loads(path.read_text()) if path.exists() else {}):
            self.active = "failed"
            raise MachineError("The engine did not come up", why="poison", code="engine_failed")
        self.active = "active"
        return RUNNING


@pytest.fixture
def engine(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine(tmp_path)
    monkeypatch.setattr(engine_daemon, "DAEMON_JSON", str(tmp_path / "daemon.json"))
    monkeypatch.setattr(engine_daemon, "DROP_IN", str(tmp_path / "docker.service.d" / "10-machine.conf"))
    monkeypatch.setattr(engine_daemon, "ADOPTED_DROP_IN", str(tmp_path / "docker.service.d" / "20-adopted.conf"))
    monkeypatch.setattr(configuration, "_DROP_IN_FOLDERS", (str(tmp_path),))
    monkeypatch.setattr(configuration, "may_raise_limits", lambda: True)
    monkeypatch.setattr(engine_service, "RESTART_MARKER", tmp_path / "run" / "marker")
    monkeypatch.setattr(engine_service, "unit", made.unit)
    monkeypatch.setattr(engine_service, "restart", made.restart)
    monkeypatch.setattr(engine_service, "listening", lambda port: True)
    monkeypatch.setattr(engine_service, "systemctl", lambda *a, **k: engine_service.Completed(0, "", ""))
    return made


def wish(**more: t.Any) -> configuration.Wish:
    values: dict[str, t.Any] = {
        "config": {},
        "defaults": {"live-restore": True},
        "environment": {},
        "certificate_dir": "/etc/docker",
        "listen_address": "0.0.0.0",
        "port": 2376,
        "restart": False,
        "timeout": 1.0,
    }
    return configuration.Wish(**{**values, **more})


def converge(**more: t.Any) -> configuration.Plan:
    wanted = wish(**more)
    plan = configuration.make_plan(wanted, check_mode=False)
    if plan.restart:
        configuration.apply(plan, wanted)
    return plan


def snapshot(engine: Engine) -> dict[str, str]:
    return {str(path.relative_to(engine.etc)): path.read_text() for path in engine.etc.rglob("*") if path.is_file()}


def config(engine: Engine) -> dict[str, t.Any]:
    return dict(json.loads((engine.etc / "daemon.json").read_text()))


def test_second_run_does_nothing(engine: Engine) -> None:
    assert len(converge(environment={"A": "b"}).changes) == 2
    before = snapshot(engine)
    again = converge(environment={"A": "b"})
    assert (again.changes, again.reasons, engine.restarts) == ([], [], 1)
    assert snapshot(engine) == before


def test_foreign_keys_and_formatting_are_kept(engine: Engine) -> None:
    converge()
    path = engine.etc / "daemon.json"
    path.write_text(json.dumps({**config(engine), "debug": True}, indent=1))
    before = path.read_text()
    assert converge().changes == []
    assert path.read_text() == before
    converge(config={"labels": ["a=b"]})
    assert config(engine)["debug"] is True
    converge()
    assert "labels" not in config(engine) and config(engine)["debug"] is True


@pytest.mark.parametrize("text", ["{ broken", '{"hosts": ["fd://"]}'])
def test_refused_files_are_kept(engine: Engine, text: str) -> None:
    (engine.etc / "daemon.json").write_text(text)
    before = snapshot(engine)
    with pytest.raises(MachineError):
        converge()
    assert snapshot(engine) == before
    assert engine.restarts == 0


def test_an_engine_that_does_not_come_up_gets_its_old_files_back(engine: Engine) -> None:
    converge()
    before = snapshot(engine)
    with pytest.raises(MachineError) as caught:
        converge(config={"poison": 1})
    assert caught.value.code == "engine_failed"
    assert "the engine runs with them" in caught.value.message
    assert snapshot(engine) == before
    assert engine.active == "active"
    assert converge().reasons == []


def test_a_new_file_is_removed_by_the_roll_back(engine: Engine) -> None:
    with pytest.raises(MachineError):
        converge(config={"poison": 1})
    assert list(snapshot(engine)) == ["docker.service"]


def test_a_killed_run_is_finished(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*args: t.Any, **kwargs: t.Any) -> t.NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine_service, "restart", killed)
        with pytest.raises(KeyboardInterrupt):
            converge()
    plan = converge()
    assert plan.changes == []
    assert plan.reasons == ["an earlier run was cut short before the restart"]
    assert engine.restarts == 1
    assert converge().reasons == []


def test_stopped_engine_and_new_certificates(engine: Engine) -> None:
    converge()
    engine.active = "inactive"
    assert converge().reasons == ["it does not run"]
    assert converge(restart=True).reasons == ["its certificates changed"]


def test_other_drop_ins(engine: Engine) -> None:
    folder = engine.etc / "docker.service.d"
    folder.mkdir()
    (folder / "90-proxy.conf").write_text("[Service]\nEnvironment=HTTP_PROXY=x\n")
    converge()
    (folder / "50-mine.conf").write_text("[Service]\nExecStart=\nExecStart=/usr/bin/dockerd\n")
    with pytest.raises(MachineError) as caught:
        converge()
    assert caught.value.code == "conflicting_drop_in"
    assert "50-mine.conf" in caught.value.where


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('DOCKER_OPTS="-H tcp://0.0.0.0:2375"', "conflicting_listener"),
        ("DOCKER_OPTS='--live-restore'", "conflicting_flag"),
        ("OTHER=--live-restore", ""),
        ("# DOCKER_OPTS=--live-restore", ""),
    ],
)
def test_flags_in_the_environment_file(engine: Engine, line: str, code: str) -> None:
    (engine.etc / "default").write_text(line + "\n")
    if not code:
        converge()
        return
    with pytest.raises(MachineError) as caught:
        converge()
    assert caught.value.code == code


def test_swarm_turns_live_restore_off(engine: Engine) -> None:
    root = engine.etc / "root"
    (root / "swarm").mkdir(parents=True)
    converge(config={"data-root": str(root)})
    assert config(engine)["live-restore"] is True
    (root / "swarm" / "docker-state.json").write_text("{}")
    converge(config={"data-root": str(root)})
    assert "live-restore" not in config(engine)
    with pytest.raises(MachineError) as caught:
        converge(config={"data-root": str(root), "live-restore": True})
    assert caught.value.code == "live_restore_in_swarm"


def test_limits_only_where_they_can_be_raised(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    ulimits = {"nofile": {"Name": "nofile", "Soft": 1048576, "Hard": 1048576}}
    converge(defaults={"default-ulimits": ulimits})
    assert config(engine)["default-ulimits"] == ulimits
    monkeypatch.setattr(configuration, "may_raise_limits", lambda: False)
    converge(defaults={"default-ulimits": ulimits})
    assert "default-ulimits" not in config(engine)
    converge(config={"default-ulimits": ulimits})
    assert config(engine)["default-ulimits"] == ulimits


@pytest.mark.parametrize(("mask", "expected"), [("000001ffffffffff", True), ("00000000a80425fb", False), ("0000000001000000", True)])
def test_capability(tmp_path: pathlib.Path, mask: str, expected: bool) -> None:
    path = tmp_path / "status"
    path.write_text(f"Name:\tx\nCapEff:\t{mask}\n")
    assert configuration.may_raise_limits(str(path)) is expected


def test_host_without_engine(engine: Engine) -> None:
    engine.loaded = False
    plan = configuration.make_plan(wish(), check_mode=True)
    assert [change.before for change in plan.changes] == [None, None]
    assert plan.restart
    with pytest.raises(MachineError) as caught:
        configuration.make_plan(wish(), check_mode=False)
    assert caught.value.code == "engine_missing"


def test_docker_machine_is_taken_over(engine: Engine) -> None:
    path = pathlib.Path(engine_daemon.DROP_IN)
    path.parent.mkdir()
    command = "/usr/bin/dockerd -H tcp://0.0.0.0:2376 --label a=b --storage-driver overlay2 --odd"
    path.write_text(f"[Service]\nExecStart=\nExecStart={command}\nEnvironment=A=b\n")
    plan = converge()
    assert config(engine)["labels"] == ["a=b"] and config(engine)["storage-driver"] == "overlay2"
    assert "/usr/sbin/dockerd -H fd:// $DOCKER_OPTS -H tcp://0.0.0.0:2376" in path.read_text()
    assert pathlib.Path(engine_daemon.ADOPTED_DROP_IN).read_text() == "[Service]\nEnvironment=A=b\n"
    assert "odd" in plan.warnings[0]
    assert converge(config={"debug": True}).warnings == []
    assert config(engine)["labels"] == ["a=b"], "what was taken over is the host's own from then on"


def test_diff_hides_secrets() -> None:
    change = configuration.Change("x", None, '{"proxies": "http://me:pass1@proxy", "splunk-token": "pass2"}\nEnvironment="P=pass3"\n')
    shown = json.dumps(change.diff())
    assert "pass" not in shown and "splunk-token" in shown
    only = configuration.Change("x", 'Environment="P=a"\n', 'Environment="P=b"\n').diff()
    assert only["before"] != only["after"]


def test_busy_port(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = configuration.make_plan(wish(), check_mode=False)
    monkeypatch.setattr(engine_service, "port_owner", lambda port: "nginx (pid 7)")
    with pytest.raises(MachineError, match="nginx"):
        configuration.check_port(plan, 2376)
    monkeypatch.setattr(engine_service, "port_owner", lambda port: f"dockerd (pid {plan.unit.pid})")
    configuration.check_port(plan, 2376)
