# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which answers of ssh are worth waiting for."""

from __future__ import annotations

import pytest

from ansible_collections.dockyard.machine.plugins.action.machine_ready import _DENIED, classify


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@", "host_key_changed"),
        (
            "No ED25519 host key is known for web1 and you have requested strict checking.\nHost key verification failed.",
            "host_key_changed",
        ),
        ("ssh: Could not resolve hostname nowhere.invalid: Name or service not known", "unknown_host"),
        ("WARNING: UNPROTECTED PRIVATE KEY FILE!", "key_permissions"),
        ("Warning: Identity file /x not accessible: No such file or directory.", "missing_key"),
    ],
)
def test_what_waiting_cannot_mend(said: str, code: str) -> None:
    error = classify(said, "machine web1")
    assert error is not None
    assert error.code == code
    assert "machine web1" in error.message


@pytest.mark.parametrize(
    "said",
    [
        "ssh: connect to host 192.0.2.1 port 22: Connection refused",
        "ssh: connect to host 192.0.2.1 port 22: Connection timed out",
        "kex_exchange_identification: Connection closed by remote host",
        "Connection reset by peer",
    ],
)
def test_what_may_pass(said: str) -> None:
    assert classify(said, "machine web1") is None
    assert not _DENIED.search(said)


def test_a_refused_key_is_told_apart() -> None:
    assert _DENIED.search("debian@192.0.2.1: Permission denied (publickey).")
