# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""User-data, as cloud-init would read it."""

from __future__ import annotations

import email
import json

import pytest
import yaml

from ansible_collections.dockyard.machine.plugins.module_utils import cloud_init, ssh_keys
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError

PAIR = ssh_keys.generate("host")
CONFIG = cloud_init.base_config("web1", "debian", "ssh-ed25519 AAAA me", PAIR)


def parsed(text: str) -> dict:
    assert text.splitlines()[0] == "#cloud-config"
    return yaml.safe_load(text)


def test_ours_alone() -> None:
    config = parsed(cloud_init.compose(CONFIG))
    assert config["hostname"] == "web1"
    assert config["users"][0]["name"] == "debian"
    assert config["users"][0]["ssh_authorized_keys"] == ["ssh-ed25519 AAAA me"]
    assert config["users"][0]["lock_passwd"] is True
    assert config["ssh_pwauth"] is False
    assert config["ssh_keys"]["ed25519_private"] == PAIR.private


def test_root_gets_the_key_without_sudo() -> None:
    config = cloud_init.base_config("web1", "root", "ssh-ed25519 AAAA me", None)
    assert config["disable_root"] is False
    assert config["users"] == [{"name": "root", "ssh_authorized_keys": ["ssh-ed25519 AAAA me"], "lock_passwd": True}]
    assert "ssh_keys" not in config


def test_a_users_cloud_config_is_merged_and_cannot_lock_us_out() -> None:
    theirs = (
        "#cloud-config\nhostname: other\npackages: [htop]\nusers:\n  - name: anna\nssh_pwauth: true\n"
        "write_files:\n  - {path: /x, content: ü}\n"
    )
    config = parsed(cloud_init.compose(CONFIG, theirs))
    assert config["packages"] == ["htop"]
    assert [user["name"] for user in config["users"]] == ["anna", "debian"]
    assert config["hostname"] == "web1"
    assert config["ssh_pwauth"] is False
    assert config["write_files"][0]["content"] == "ü"


@pytest.mark.parametrize(
    ("theirs", "content_type"),
    [
        ("#!/bin/sh\necho hello\n", "text/x-shellscript"),
        ("#include\nhttp://192.0.2.1/x\n", "text/x-include-url"),
        ("## template: jinja\n#cloud-config\nruncmd: []\n", "text/jinja2"),
        ("#cloud-boothook\n#!/bin/sh\ntrue\n", "text/cloud-boothook"),
    ],
)
def test_other_kinds_go_along_as_a_part_of_their_own(theirs: str, content_type: str) -> None:
    message = email.message_from_string(cloud_init.compose(CONFIG, theirs))
    parts = message.get_payload()
    assert [part.get_content_type() for part in parts] == [content_type, "text/cloud-config"]
    assert parts[0].get_payload(decode=True).decode() == theirs
    ours = parts[1].get_payload(decode=True).decode()
    assert json.loads(ours.split("\n", 1)[1])["hostname"] == "web1"


@pytest.mark.parametrize(
    ("theirs", "word"),
    [
        ("hello: world", "first line"),
        ("#cloud-config\n- a list\n", "mapping"),
        ("#cloud-config\na: [1\n", "YAML"),
        ("#cloud-config\nssh_keys: {ed25519_private: x}\n", "ssh_keys"),
    ],
)
def test_bad_user_data_is_refused_with_its_reason(theirs: str, word: str) -> None:
    with pytest.raises(MachineError, match=word) as caught:
        cloud_init.compose(CONFIG, theirs)
    assert caught.value.code == "invalid_user_data"
