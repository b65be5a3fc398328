# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SSH key of a machine in the account. Without one DigitalOcean would set a root password and mail it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils import cloud
from ansible_collections.dockyard.machine.plugins.module_utils.digitalocean_api import Api
from ansible_collections.dockyard.machine.plugins.module_utils.digitalocean_marks import Marks
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError


def fingerprint(public_key: str) -> str:
    """The fingerprint by which the API knows a key: MD5 in hexadecimal, with colons (RFC 4716, section 4).

    Raises:
        MachineError: ``invalid_option`` when it is no public key.
    """
    words = public_key.split()
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (IndexError, binascii.Error) as error:
        raise cloud.invalid("ssh_public_key", "This is no SSH public key", "Give one line as in a .pub file", why=str(error)) from error
    # A name for the key, as the API has it; nothing is secured by it.
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[index : index + 2] for index in range(0, len(digest), 2))


class Keys:
    """The key that a new machine gets.

    Args:
        api: the account.
        marks: whose machine.
        given: fingerprint or id of a key that the account has; empty makes one of ``public_key``.
        public_key: the machine's public key, one line.
    """

    def __init__(self, api: Api, marks: Marks, given: str, public_key: str) -> None:
        self.api = api
        self.marks = marks
        self.given = given
        self.public_key = public_key

    def check(self) -> None:
        """Find what would make :meth:`ensure` fail. Reads only."""
        if not self.given:
            if not self.public_key:
                hint = "Give ssh_public_key, or ssh_key_fingerprint of a key in the account"
                raise cloud.invalid("ssh_public_key", "A machine without an SSH key would get a root password by mail", hint)
            fingerprint(self.public_key)
        elif self._read(self.given) is None:
            hint = "Name one by the fingerprint or id that doctl compute ssh-key list shows"
            raise cloud.invalid("ssh_key_fingerprint", f"The account has no SSH key {self.given!r}", hint)

    def ensure(self) -> tuple[t.Any, str]:
        """Make sure that the account has the key.

        Returns:
            Its id, and the tag that notes it on the machine; no tag for a key that somebody else put there.
        """
        if self.given:
            return (int(self.given) if self.given.isdigit() else self.given), ""
        known = fingerprint(self.public_key)
        key = self._read(known)
        if key is None:
            try:
                body = {"name": self.marks.key_name, "public_key": self.public_key}
                key = self.api.call("ssh_keys", "create", body, doing="add the SSH key")["ssh_key"]
            except MachineError as error:
                # Somebody else was quicker.
                if error.code != "in_use":
                    raise
                key = self._read(known)
                if key is None:
                    raise TransientError(error.what, why="the account has it, but doesn't show it yet", code="busy") from error
        return key["id"], self.marks.tag("key", str(key["id"])) if key["name"] == self.marks.key_name else ""

    def ours(self) -> list[dict[str, t.Any]]:
        """The machine's keys, by name. The API allows only ten such lists a minute."""
        keys = self.api.pages("ssh_keys", "list", "ssh_keys", doing="list the SSH keys")
        return [key for key in keys if key["name"] == self.marks.key_name]

    def remove(self, key: str) -> None:
        """Remove a key by its id; none there is fine, and an empty id means there is none of ours."""
        if key:
            self.api.maybe("ssh_keys", "delete", int(key) if key.isdigit() else key, doing="remove the SSH key")

    def _read(self, identifier: str) -> dict[str, t.Any] | None:
        given = int(identifier) if identifier.isdigit() else identifier
        body = self.api.maybe("ssh_keys", "get", given, doing="read the SSH key")
        return dict(body["ssh_key"]) if body else None
