# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made of apt's answers, by a stand-in for apt-get and dpkg that plays back a script; the real ones are met by molecule."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from ansible_collections.dockyard.machine.plugins.module_utils.errors import DeadlineError, MachineError
from ansible_collections.dockyard.machine.plugins.modules import engine_install

STAND_IN = """#!/usr/bin/env python3
import json, os, pathlib, sys
here = pathlib.Path(__file__).parent
name = pathlib.Path(sys.argv[0]).name
verb = next((word for word in sys.argv[1:] if word in ("update", "install", "--configure", "--fix-broken")), "")
with (here / "calls").open("a") as log:
    log.write(json.dumps([name, *sys.argv[1:], os.environ.get("DEBIAN_FRONTEND", "")]) + "\\n")
plays = json.loads((here / "plays").read_text())
queue = plays.get(verb) or [[0, ""]]
code, said = queue.pop(0)
(here / "plays").write_text(json.dumps(plays))
sys.stderr.write(said)
sys.exit(code)
"""

LOCKED = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (apt)\n"
NO_PACKAGE = "E: Unable to locate package docker.io\n"
NO_NETWORK = "W: Failed to fetch http://mirror.example/InRelease  Temporary failure resolving 'mirror.example'\n"


@pytest.fixture
def apt(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., list[list[str]]]:
    for name in ("apt-get", "dpkg"):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(engine_install, "_PATH", str(tmp_path))

    def run(plays: dict[str, t.Any], **more: t.Any) -> list[list[str]]:
        (tmp_path / "plays").write_text(json.dumps(plays))
        params = {"packages": ["docker.io"], "fallback": {}, "update": True, "lock_timeout": 30.0, "timeout": 30.0, **more}
        run.result = engine_install.install(params)  # type: ignore[attr-defined]
        return [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]

    return run


def code(call: t.Callable[[], t.Any]) -> str:
    with pytest.raises(MachineError) as caught:
        call()
    return caught.value.code


def test_plain_installation(apt: t.Any) -> None:
    calls = apt({})
    assert [call[:3] for call in calls][0] == ["apt-get", "-q", "update"]
    assert calls[1][-2:] == ["docker.io", "noninteractive"]
    assert "--no-install-recommends" in calls[1] and "-oDpkg::Options::=--force-confold" in calls[1]
    assert len(calls) == 2


def test_lists_are_fetched_only_when_asked(apt: t.Any) -> None:
    assert len(apt({}, update=False)) == 1


def test_fallback_for_a_missing_command(apt: t.Any, tmp_path: pathlib.Path) -> None:
    calls = apt({}, fallback={"docker": "docker-cli", "dpkg": "never"})
    assert calls[-1][-2] == "docker-cli"
    assert apt.result["installed"] == ["docker.io", "docker-cli"]


def test_locks_are_waited_for(apt: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert len(apt({"install": [[100, LOCKED], [100, LOCKED]]})) == 4
    with pytest.raises(DeadlineError, match="held by process 7"):
        apt({"install": [[100, LOCKED]] * 3}, lock_timeout=0.0)


def test_what_was_cut_short_is_finished_first(apt: t.Any) -> None:
    calls = apt({"install": [[100, "E: dpkg was interrupted, you must manually run 'dpkg --configure -a'\n"]]})
    assert [call[0] for call in calls] == ["apt-get", "apt-get", "dpkg", "apt-get", "apt-get"]
    assert "--fix-broken" in calls[3]
    assert apt.result["finished"] is True


def test_causes(apt: t.Any) -> None:
    assert code(lambda: apt({"install": [[100, NO_PACKAGE]]})) == "package_missing"
    assert code(lambda: apt({"update": [[0, NO_NETWORK]], "install": [[100, NO_PACKAGE]]})) == "download_failed"
    assert code(lambda: apt({"install": [[100, "E: You don't have enough free space in /var/cache/apt/archives/.\n"]]})) == "no_space"
    assert code(lambda: apt({"install": [[1, "dpkg: error: cannot write: No space left on device\n"]]})) == "no_space"
    assert code(lambda: apt({"install": [[100, "E: something else\n"]]})) == "install_failed"
    assert code(lambda: apt({"update": [[100, "E: The repository is not signed.\n"]]})) == "install_failed"
