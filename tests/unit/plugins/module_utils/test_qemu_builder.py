# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image builder: sources, recipe, cache, boot sector. Nothing is built."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import struct
import typing as t

import pytest

from ansible_collections.dockyard.machine.plugins.module_utils import qemu_builder, qemu_disk, qemu_sources
from ansible_collections.dockyard.machine.plugins.module_utils.errors import DeadlineError, MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_sources import Source
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_tools import locked, remove_tree, run_program
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline

ONE_LINE = """
# deb https://mirror.invalid/debian never main
deb https://mirror.invalid/debian/ bookworm main contrib # why
deb-src https://mirror.invalid/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/other.gpg] https://mirror.invalid/security bookworm-security main
deb https://third.invalid/apt stable main
deb broken
"""
DEB822 = """
# A comment
Types: deb deb-src
URIs: https://mirror.invalid/debian
Suites: bookworm
 bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
Enabled: no
URIs: https://off.invalid/
Suites: x
Components: main

Types: deb-src
URIs: https://src.invalid/
Suites: x
Components: main
"""
INDEX = """Debian|bookworm|https://mirror.invalid/debian/|bookworm
Debian|bookworm-updates|https://mirror.invalid/debian/|bookworm-updates
Debian|bookworm-security|https://mirror.invalid/security/|bookworm-security
Third|stable|https://third.invalid/apt/|stable
$(ORIGIN)|$(CODENAME)|https://unread.invalid/|x
"""


def test_one_line_style() -> None:
    assert qemu_sources.parse_one_line(ONE_LINE) == [
        Source("https://mirror.invalid/debian", ("bookworm",), ("main", "contrib")),
        Source("https://mirror.invalid/security", ("bookworm-security",), ("main",), "/usr/share/keyrings/other.gpg"),
        Source("https://third.invalid/apt", ("stable",), ("main",)),
    ]


def test_deb822_style() -> None:
    found = qemu_sources.parse_deb822(DEB822)
    assert found == [Source("https://mirror.invalid/debian", ("bookworm", "bookworm-updates"), ("main",), qemu_sources.DEBIAN_KEYRING)]
    assert qemu_sources.parse_deb822(found[0].deb822()) == found


def test_only_debian_archives_are_used_and_turned_to_the_suite() -> None:
    sources = qemu_sources.parse_one_line(ONE_LINE)
    index = qemu_sources.parse_index(INDEX)
    found = qemu_sources.for_suite(sources, index, "bookworm", "trixie")
    assert [(item.uri, item.suites) for item in found] == [
        ("https://mirror.invalid/debian", ("trixie",)),
        ("https://mirror.invalid/security", ("trixie-security",)),
    ]
    assert [item.suites for item in qemu_sources.for_suite(sources, index, "bookworm", "sid")] == [("sid",)]
    assert qemu_sources.for_suite(sources, {}, "bookworm", "bookworm") == []


def test_settings_that_go_into_the_guest() -> None:
    text = (
        'Acquire::Check-Valid-Until "false";\nAcquire::http::Proxy "http://127.0.0.1:3142";\nAPT::Install-Recommends "0";\n'
        'Acquire::https::Proxy "http://user:word@proxy.invalid";\nAcquire::http::Proxy "http://proxy.invalid:3128";\n'
    )
    build, guest = qemu_sources.parse_settings(text)
    assert len(build) == 4
    assert guest == ['Acquire::Check-Valid-Until "false"', 'Acquire::http::Proxy "http://proxy.invalid:3128"']


RECIPE: t.Final = qemu_builder.Recipe("bookworm", "amd64", 4096, (Source("https://mirror.invalid/debian", ("bookworm",), ("main",)),))


@pytest.mark.parametrize(
    "change",
    [
        {"suite": "trixie"},
        {"size_mib": 5},
        {"packages": ("vim",)},
        {"engine": "cached"},
        {"kernel_arguments": "quiet"},
        {"guest_settings": ("x",)},
    ],
)
def test_each_input_has_its_image(change: dict[str, t.Any]) -> None:
    assert dataclasses.replace(RECIPE, **change).key != RECIPE.key


def test_a_proxy_does_not_change_the_image() -> None:
    assert dataclasses.replace(RECIPE, build_settings=("Acquire::http::Proxy x",)).key == RECIPE.key


def test_engine_packages_of_a_release() -> None:
    assert dataclasses.replace(RECIPE, engine="installed").all_packages[-1] == "docker.io"
    assert {"docker.io", "docker-cli"} <= set(dataclasses.replace(RECIPE, suite="trixie", engine="installed").all_packages)
    assert "docker.io" not in dataclasses.replace(RECIPE, engine="cached").all_packages


def publish(folder: pathlib.Path, content: bytes = b"disk") -> pathlib.Path:
    import hashlib

    path = folder / RECIPE.file_name
    path.write_bytes(content)
    facts = {"key": RECIPE.key, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    pathlib.Path(f"{path}.json").write_text(json.dumps(facts), encoding="ascii")
    return path


def test_cached_image_is_verified(tmp_path: pathlib.Path) -> None:
    assert qemu_builder.cached_image(str(tmp_path), RECIPE) is None
    path = publish(tmp_path)
    found = qemu_builder.cached_image(str(tmp_path), RECIPE)
    assert found is not None and found["path"] == str(path)
    path.write_bytes(b"disc")
    assert qemu_builder.cached_image(str(tmp_path), RECIPE) is None
    publish(tmp_path)
    os.unlink(f"{path}.json")
    assert qemu_builder.cached_image(str(tmp_path), RECIPE) is None


@pytest.fixture(name="builder")
def fixture_builder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> qemu_builder.ImageBuilder:
    monkeypatch.setattr(qemu_builder, "need_programs", lambda names, dummy: {name: name for name in names})
    return qemu_builder.ImageBuilder(RECIPE, str(tmp_path), Deadline(10))


def test_failed_build_leaves_no_image(builder: qemu_builder.ImageBuilder, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".build-dead-1").mkdir()

    def fail(work: str, root: str) -> None:
        os.mkdir(root)
        raise MachineError("no")

    monkeypatch.setattr(builder, "_root_tree", fail)
    with pytest.raises(MachineError, match="no"):
        builder.build()
    assert os.listdir(tmp_path) == [".build.lock"]


def test_image_is_used_unless_forced(builder: qemu_builder.ImageBuilder, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path)
    monkeypatch.setattr(builder, "_build", lambda work: {"built": work})
    assert builder.build()[1] is False
    assert builder.build(force=True)[1] is True


def test_boot_sector_points_at_the_core() -> None:
    boot, core = qemu_disk.patch_boot_sector(bytes(512), bytes(513 + 512), 2048)
    assert len(boot) == 440 and struct.unpack_from("<Q", boot, 0x5C) == (2048,) and boot[0x64] == 0xFF
    assert len(core) == 3 * 512 and struct.unpack_from("<QHH", core, 500) == (2049, 2, 0x820)
    with pytest.raises(MachineError):
        qemu_disk.patch_boot_sector(bytes(100), bytes(1024), 2048)


def test_newest_kernel_counts() -> None:
    names = ["vmlinuz-6.1.0-9-cloud-amd64", "vmlinuz-6.1.0-10-cloud-amd64", "vmlinuz-6.1.0-1-cloud-amd64"]
    assert sorted(names, key=qemu_builder._version)[-1] == names[1]


def test_program_that_fails_or_hangs() -> None:
    with pytest.raises(MachineError, match="oops") as error:
        run_program(["sh", "-c", "echo oops >&2; exit 3"], what="Trying", deadline=Deadline(5))
    assert error.value.code == "program_failed"
    with pytest.raises(MachineError) as full:
        run_program(["sh", "-c", "echo No space left on device >&2; exit 1"], what="Trying", deadline=Deadline(5))
    assert full.value.code == "no_space"
    with pytest.raises(DeadlineError):
        run_program(["sleep", "30"], what="Trying", deadline=Deadline(0.2))


def test_lock_is_held_by_a_program_that_inherits_it(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "lock")
    with locked(path, Deadline(1), "try") as handle:
        run_program(["sh", "-c", "sleep 1 >/dev/null 2>&1 &"], what="Trying", deadline=Deadline(5), keep_fds=[handle])
    with pytest.raises(DeadlineError), locked(path, Deadline(0.3), "try"):
        pass
    with locked(path, Deadline(5), "try"):
        pass


def test_tree_with_a_mount_is_not_removed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.dockyard.machine.plugins.module_utils.qemu_tools.mounts_below", lambda dummy: ["/x"])
    with pytest.raises(MachineError) as error:
        remove_tree(str(tmp_path))
    assert error.value.code == "busy" and tmp_path.exists()
