# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker contexts as files. What the CLI itself makes of them is for the integration target."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import stat
import typing as t

import pytest

from ansible_collections.dockyard.machine.plugins.module_utils import docker_context
from ansible_collections.dockyard.machine.plugins.module_utils.docker_context import Contexts, Wanted
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError

TLS = {name: f"-----BEGIN {name}-----\nsecret-of-{name}\n".encode() for name in docker_context.TLS_FILES}


@pytest.fixture
def contexts(tmp_path: pathlib.Path) -> Contexts:
    return Contexts(str(tmp_path / "docker"))


def wanted(**fields: t.Any) -> Wanted:
    return Wanted(**{"name": "web1", "host": "tcp://192.0.2.7:2376", "description": "", "tls": TLS, **fields})


def present(contexts: Contexts, what: Wanted, force: bool = False, check: bool = False) -> bool:
    return contexts.present(what, force=force, check=check)


def test_the_files_are_the_clis(contexts: Contexts) -> None:
    assert present(contexts, wanted(description='a <b> & "c" ü')) is True
    identity = hashlib.sha256(b"web1").hexdigest()
    meta = contexts.folder / "contexts" / "meta" / identity / "meta.json"
    # Byte for byte what release 28 of the CLI wrote for the same arguments.
    assert meta.read_text() == (
        '{"Name":"web1","Metadata":{"Description":"a \\u003cb\\u003e \\u0026 \\"c\\" ü"},'
        '"Endpoints":{"docker":{"Host":"tcp://192.0.2.7:2376","SkipTLSVerify":false}}}'
    )
    tls = contexts.folder / "contexts" / "tls" / identity
    assert {path.name: path.read_bytes() for path in (tls / "docker").iterdir()} == TLS
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tls / "docker").iterdir()} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tls.parent, tls, tls / "docker")} == {0o700}


def test_an_empty_description_is_left_out(contexts: Contexts) -> None:
    present(contexts, wanted())
    assert json.loads((contexts.meta_dir("web1") / "meta.json").read_text())["Metadata"] == {}


def test_a_second_time_changes_nothing(contexts: Contexts) -> None:
    present(contexts, wanted())
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in contexts.folder.rglob("*")}
    assert present(contexts, wanted()) is False
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in contexts.folder.rglob("*")} == before


@pytest.mark.parametrize(
    "change", [{"host": "tcp://192.0.2.8:2376"}, {"description": "new"}, {"tls": {**TLS, "key.pem": b"-----BEGIN other"}}, {"tls": {}}]
)
def test_every_difference_is_a_change(contexts: Contexts, change: dict[str, t.Any]) -> None:
    present(contexts, wanted())
    assert present(contexts, wanted(**change), check=True) is True
    assert present(contexts, wanted()) is False
    assert present(contexts, wanted(**change)) is True
    assert contexts.describe("web1") == docker_context.describe(wanted(**change))


def test_a_key_that_others_can_read_is_repaired(contexts: Contexts) -> None:
    present(contexts, wanted())
    key = contexts.tls_dir("web1") / "docker" / "key.pem"
    key.chmod(0o644)
    assert present(contexts, wanted()) is True
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_check_mode_writes_nothing(contexts: Contexts) -> None:
    assert present(contexts, wanted(), check=True) is True
    assert contexts.use("web1", check=True) is True
    assert not contexts.folder.exists()
    present(contexts, wanted())
    assert contexts.absent("web1", check=True) is True
    assert contexts.exists("web1")


def test_descriptions_hold_no_key(contexts: Contexts) -> None:
    present(contexts, wanted())
    assert "secret-of" not in json.dumps(contexts.describe("web1"))


def make_foreign(contexts: Contexts, content: bytes) -> pathlib.Path:
    folder = contexts.meta_dir("web1")
    folder.mkdir(parents=True)
    (folder / "meta.json").write_bytes(content)
    return folder / "meta.json"


@pytest.mark.parametrize(
    "content",
    [
        b'{"Name":"web1","Metadata":{},"Endpoints":{"docker":{"Host":"ssh://me@other","SkipTLSVerify":false}}}',
        b"",
        b"[]",
        b'{"Endpoints":{}}',
    ],
)
def test_a_context_of_somebody_else_is_refused(contexts: Contexts, content: bytes) -> None:
    meta = make_foreign(contexts, content)
    for check in (True, False):
        with pytest.raises(MachineError) as caught:
            present(contexts, wanted(), check=check)
        assert caught.value.code == "foreign_context" and "web1" in caught.value.hint
    assert meta.read_bytes() == content and not contexts.ours("web1")
    assert present(contexts, wanted(), force=True) is True
    assert contexts.ours("web1") and present(contexts, wanted()) is False


def test_use_keeps_everything_else(contexts: Contexts) -> None:
    contexts.folder.mkdir()
    (contexts.folder / "config.json").write_text('{"zeta": [1, {"a": "<&>"}], "auths": {"r": {"auth": "eA=="}}, "currentContext": "old"}')
    (contexts.folder / "config.json").chmod(0o640)
    assert contexts.use("web1", check=False) is True
    assert contexts.use("web1", check=False) is False
    text = (contexts.folder / "config.json").read_text()
    assert json.loads(text) == {"zeta": [1, {"a": "<&>"}], "auths": {"r": {"auth": "eA=="}}, "currentContext": "web1"}
    assert list(json.loads(text)) == ["zeta", "auths", "currentContext"] and text.startswith("{\n\t")
    assert stat.S_IMODE((contexts.folder / "config.json").stat().st_mode) == 0o640


def test_a_linked_config_stays_a_link(contexts: Contexts, tmp_path: pathlib.Path) -> None:
    contexts.folder.mkdir()
    (tmp_path / "dotfile").write_text("{}")
    (contexts.folder / "config.json").symlink_to(tmp_path / "dotfile")
    contexts = Contexts(str(contexts.folder))
    assert contexts.use("web1", check=False) is True
    assert (contexts.folder / "config.json").is_symlink()
    assert json.loads((tmp_path / "dotfile").read_text()) == {"currentContext": "web1"}


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_broken_config_is_kept(contexts: Contexts, content: bytes) -> None:
    contexts.folder.mkdir()
    (contexts.folder / "config.json").write_bytes(content)
    with pytest.raises(MachineError) as caught:
        contexts.use("web1", check=False)
    assert caught.value.code == "broken_config" and (contexts.folder / "config.json").read_bytes() == content


def test_absent_removes_all_of_it_and_stops_using_it(contexts: Contexts) -> None:
    present(contexts, wanted())
    present(contexts, wanted(name="web2"))
    contexts.use("web1", check=False)
    assert contexts.absent("web1", check=False) is True
    assert contexts.absent("web1", check=False) is False
    assert not contexts.exists("web1") and contexts.exists("web2") and contexts.current() == ""
    assert "currentContext" not in json.loads((contexts.folder / "config.json").read_text())


def test_absent_leaves_another_current_context(contexts: Contexts) -> None:
    present(contexts, wanted())
    contexts.use("other", check=False)
    contexts.absent("web1", check=False)
    assert contexts.current() == "other"


def test_what_a_killed_removal_left_is_removed(contexts: Contexts) -> None:
    present(contexts, wanted())
    for path in contexts.meta_dir("web1").iterdir():
        path.unlink()
    contexts.meta_dir("web1").rmdir()
    assert contexts.absent("web1", check=False) is True
    assert not contexts.tls_dir("web1").exists()


@pytest.mark.parametrize("name", ["", "a", "default", "_x", "a b", "../x", "a/b", "a\n", "ü1"])
def test_names_that_docker_refuses(name: str) -> None:
    with pytest.raises(MachineError) as caught:
        docker_context.validate_name(name)
    assert caught.value.code == "invalid_name"


@pytest.mark.parametrize(
    "fields, code",
    [
        ({"host": "192.0.2.7"}, "invalid_host"),
        ({"host": ""}, "invalid_host"),
        ({"host": "tcp://a b"}, "invalid_host"),
        ({"host": "tcp://a\n"}, "invalid_host"),
        ({"tls": {}}, "missing_tls"),
        ({"tls": {"ca.pem": b"x"}}, "missing_tls"),
    ],
)
def test_what_could_not_work_is_refused(fields: dict[str, t.Any], code: str) -> None:
    with pytest.raises(MachineError) as caught:
        docker_context.validate(wanted(**fields))
    assert caught.value.code == code


def test_ssh_needs_no_certificates() -> None:
    docker_context.validate(wanted(host="ssh://me@web1", tls={}))


def test_certificates_are_read_and_checked(tmp_path: pathlib.Path) -> None:
    good, bad = tmp_path / "good.pem", tmp_path / "bad.pem"
    good.write_bytes(TLS["ca.pem"])
    bad.write_bytes(b"not PEM")
    os.symlink(good, tmp_path / "link.pem")
    assert docker_context.read_tls({"ca.pem": str(tmp_path / "link.pem")}) == {"ca.pem": TLS["ca.pem"]}
    for path, code in ((bad, "invalid_pem"), (tmp_path / "none.pem", "missing_file"), (tmp_path, "not_a_file")):
        with pytest.raises(MachineError) as caught:
            docker_context.read_tls({"ca.pem": str(path)})
        assert caught.value.code == code and str(path) in caught.value.where
