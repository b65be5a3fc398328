# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module around the contexts: options, results, check mode, warnings."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from ansible_collections.dockyard.machine.plugins.module_utils.docker_context import Contexts
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.modules import docker_context


class FakeModule:
    """What ``run`` uses of AnsibleModule."""

    def __init__(self, check: bool, **params: t.Any) -> None:
        self.check_mode = check
        self.warnings: list[str] = []
        defaults = {"state": "present", "host": None, "description": "", "cert_path": None, "ca": None, "cert": None, "key": None}
        self.params = {**defaults, "use": False, "force": False, "docker_config": None, **params}

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def place(tmp_path: pathlib.Path) -> pathlib.Path:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).write_text(f"-----BEGIN {name}-----\nsecret\n")
    return tmp_path


def run(place: pathlib.Path, check: bool = False, **params: t.Any) -> tuple[dict[str, t.Any], list[str]]:
    defaults = {"name": "web1", "host": "tcp://192.0.2.7:2376", "cert_path": str(place), "docker_config": str(place / "docker")}
    module = FakeModule(check, **{**defaults, **params})
    return docker_context.run(t.cast(t.Any, module)), module.warnings


def test_the_result_says_what_is(place: pathlib.Path) -> None:
    predicted, dummy = run(place, check=True, use=True)
    result, dummy = run(place, use=True)
    assert result == predicted and result["changed"]
    assert result["context"]["current"] and result["context"]["host"] == "tcp://192.0.2.7:2376"
    assert result["diff"]["before"] == {"current": False} and "secret" not in json.dumps(result)
    again, dummy = run(place, use=True)
    assert not again["changed"] and again["diff"]["before"] == again["diff"]["after"]
    # Not asking for it is not asking against it.
    kept, dummy = run(place)
    assert not kept["changed"] and kept["context"]["current"]


def test_single_files_win_over_the_folder(place: pathlib.Path) -> None:
    (place / "other.pem").write_text("-----BEGIN other-----\n")
    run(place, ca=str(place / "other.pem"))
    folder = Contexts(str(place / "docker")).tls_dir("web1") / "docker"
    assert "other" in (folder / "ca.pem").read_text() and "key.pem" in (folder / "key.pem").read_text()


def test_a_foreign_context_is_left_alone_with_a_warning(place: pathlib.Path) -> None:
    meta = Contexts(str(place / "docker")).meta_dir("web1")
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text('{"Name":"web1","Metadata":{},"Endpoints":{"docker":{"Host":"ssh://x","SkipTLSVerify":false}}}')
    result, warnings = run(place, state="absent")
    assert not result["changed"] and result["context"]["host"] == "ssh://x" and "force" in warnings[0]
    with pytest.raises(MachineError):
        run(place)
    assert meta.exists()
    result, warnings = run(place, state="absent", force=True)
    assert result["changed"] and not warnings and not meta.exists()


def test_absent_twice(place: pathlib.Path) -> None:
    run(place)
    assert run(place, state="absent", check=True)[0]["changed"]
    assert run(place, state="absent")[0]["changed"]
    assert not run(place, state="absent")[0]["changed"]


def test_absent_accepts_a_name_that_could_not_be_made(place: pathlib.Path) -> None:
    assert not run(place, name="a", state="absent")[0]["changed"]
