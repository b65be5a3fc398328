# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SSH key pairs, fingerprints and known_hosts lines, on the controller."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError

try:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519
except ImportError:
    HAS_CRYPTOGRAPHY = False
else:
    HAS_CRYPTOGRAPHY = True


FIRST_HOST_KEY = "first_host_key"
"""File of the throw-away host key in the machine's folder in the store; gone after first contact."""


@dataclasses.dataclass(frozen=True)
class KeyPair:
    """An Ed25519 key pair: ``private`` in OpenSSH's own format, ``public`` as one authorized_keys line."""

    private: str
    public: str


def generate(comment: str) -> KeyPair:
    """Make a new key pair without a passphrase.

    Raises:
        MachineError: ``missing_library`` when cryptography is not installed.
    """
    if not HAS_CRYPTOGRAPHY:
        raise MachineError(
            "The Python library cryptography is missing on the controller",
            hint="Install it beside Ansible: pip install cryptography",
            code="missing_library",
        )
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()).decode()
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    return KeyPair(private, f"{public} {comment}")


def public_key(text: str, *, where: str = "") -> str:
    """``TYPE BASE64`` of a public key line, without its comment.

    Raises:
        MachineError: ``invalid_key`` when it is no public key.
    """
    words = text.split()
    try:
        if len(words) < 2 or not base64.b64decode(words[1], validate=True):
            raise ValueError(text)
    except (ValueError, binascii.Error) as error:
        raise MachineError(
            "This is no SSH public key",
            where=where,
            why=f"expected 'TYPE BASE64', found {text.strip()[:40]!r}",
            hint="Give one line as in a .pub file",
            code="invalid_key",
        ) from error
    return f"{words[0]} {words[1]}"


def fingerprint(key: str) -> str:
    """``SHA256:...`` of a public key, as ``ssh-keygen -l`` prints it (RFC 4253, section 6.6, for the hashed blob)."""
    digest = hashlib.sha256(base64.b64decode(public_key(key).split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def known_hosts(alias: str, keys: t.Iterable[str]) -> str:
    """The text of a known_hosts file that pins ``keys`` under ``alias``."""
    return "".join(f"{alias} {public_key(key)}\n" for key in keys)


def parse_known_hosts(text: str) -> list[str]:
    """The public keys in a known_hosts file of one host; comments, markers and broken lines are passed over."""
    keys = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and not line.startswith(("#", "@")):
            keys.append(f"{words[1]} {words[2]}")
    return keys
