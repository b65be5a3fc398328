# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""User-data for the first boot: ours, and the user's merged with it.

Format: https://docs.cloud-init.io/en/latest/explanation/format.html
"""

from __future__ import annotations

import email.mime.multipart
import email.mime.text
import json
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.ssh_keys import KeyPair

try:
    import yaml
except ImportError:
    HAS_YAML = False
else:
    HAS_YAML = True

HEADER = "#cloud-config"

# How cloud-init tells the parts of a message apart, by their first line.
_TYPES: t.Final = (
    ("#!", "text/x-shellscript"),
    ("#cloud-boothook", "text/cloud-boothook"),
    ("#cloud-config-archive", "text/cloud-config-archive"),
    ("#cloud-config-jsonp", "text/cloud-config-jsonp"),
    (HEADER, "text/cloud-config"),
    ("#include-once", "text/x-include-once-url"),
    ("#include", "text/x-include-url"),
    ("#part-handler", "text/part-handler"),
    ("## template: jinja", "text/jinja2"),
)


def base_config(name: str, ssh_user: str, ssh_public_key: str, host_key: KeyPair | None) -> dict[str, t.Any]:
    """What we ask of every machine's first boot.

    Args:
        name: the host name.
        ssh_user: the account that is made (or, for root, opened) for us.
        ssh_public_key: its authorized key.
        host_key: the throw-away host key that is checked at first contact; None keeps the image's behaviour.
    """
    config: dict[str, t.Any] = {"hostname": name, "preserve_hostname": False, "ssh_pwauth": False}
    if ssh_user == "root":
        config["disable_root"] = False
        config["users"] = [{"name": "root", "ssh_authorized_keys": [ssh_public_key], "lock_passwd": True}]
    else:
        config["users"] = [
            {
                "name": ssh_user,
                "gecos": "dockyard.machine",
                "shell": "/bin/bash",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "lock_passwd": True,
                "ssh_authorized_keys": [ssh_public_key],
            }
        ]
    if host_key is not None:
        config["ssh_deletekeys"] = True
        config["ssh_keys"] = {"ed25519_private": host_key.private, "ed25519_public": host_key.public}
    return config


def merge(theirs: t.Mapping[str, t.Any], ours: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Both, ours on top: dictionaries merge key by key, lists are joined (theirs first), of scalars ours stands."""
    merged = dict(theirs)
    for key, value in ours.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = merge(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            merged[key] = old + value
        else:
            merged[key] = value
    return merged


def _parse(text: str) -> dict[str, t.Any]:
    if not HAS_YAML:
        raise MachineError(
            "The Python library PyYAML is missing", hint="Install it beside Ansible: pip install PyYAML", code="missing_library"
        )
    try:
        parsed = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise MachineError(
            "The user-data is no valid YAML", where="option user_data", why=" ".join(str(error).split()), code="invalid_user_data"
        ) from error
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise MachineError(
            "The user-data is no cloud-config", where="option user_data", why="its top level is no mapping", code="invalid_user_data"
        )
    return parsed


def _content_type(text: str) -> str:
    for start, content_type in _TYPES:
        if text.startswith(start):
            return content_type
    raise MachineError(
        "The kind of the user-data is not known",
        where="option user_data",
        why=f"its first line is {text.splitlines()[0][:60]!r}",
        hint="Begin it with #cloud-config, #! or another header that cloud-init knows",
        code="invalid_user_data",
    )


def compose(config: t.Mapping[str, t.Any], user_data: str = "") -> str:
    """The complete user-data: ours, with the user's merged in.

    A cloud-config of the user's is merged key by key; any other kind (script, include, template, archive) goes along as a
    part of its own, before ours, so that ours has the last word.

    Raises:
        MachineError: ``invalid_user_data`` when it cannot be read, or sets the host keys that we pin.
    """
    theirs = user_data.lstrip("\ufeff").strip()
    if not theirs:
        return f"{HEADER}\n{json.dumps(config, indent=1)}\n"
    if theirs.startswith(HEADER) and theirs.splitlines()[0].strip() == HEADER:
        parsed = _parse(theirs)
        if "ssh_keys" in parsed and "ssh_keys" in config:
            raise MachineError(
                "The user-data sets ssh_keys",
                where="option user_data",
                why="the machine's first host key is ours, so that it can be checked from the first connection on",
                hint="Leave ssh_keys out; the machine makes its own keys after first contact",
                code="invalid_user_data",
            )
        return f"{HEADER}\n{json.dumps(merge(parsed, config), indent=1, default=str)}\n"
    message = email.mime.multipart.MIMEMultipart()
    for text, content_type in (
        (theirs + "\n", _content_type(theirs)),
        (f"{HEADER}\n{json.dumps(config, indent=1)}\n", "text/cloud-config"),
    ):
        message.attach(email.mime.text.MIMEText(text, content_type.split("/")[1]))
    return message.as_string()
