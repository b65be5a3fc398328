# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Marks and tags as DigitalOcean has them: flat words of letters, digits, colons, dashes and underscores.

``dockyard-machine:OWNER:NAME`` names a machine, ``dockyard-machine-KIND:OWNER:NAME[:VALUE]`` says more of it,
``dockyard-machine-owner:OWNER`` lists an owner's, ``dockyard-machine-firewall:OWNER:RULES`` is what a firewall
applies to. Owner and name stand in a machine's tags so that removing one never untags somebody else's machine.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils import cloud
from ansible_collections.dockyard.machine.plugins.module_utils.machine import MARK

MAX_LENGTH: t.Final = 255

_WORD: t.Final = re.compile(r"[A-Za-z0-9_:-]+")
_MARK: t.Final = re.compile(rf"{re.escape(MARK)}(?:-([a-z]+))?:(.*)", re.IGNORECASE)
_SHARED: t.Final = ("owner", "firewall")


class Marks:
    """The marks of one machine.

    Raises:
        MachineError: ``invalid_option`` when the owner cannot stand in a tag.
    """

    def __init__(self, owner: str, name: str) -> None:
        if owner and not re.fullmatch(r"[A-Za-z0-9_-]+", owner):
            raise cloud.invalid("owner", f"{owner!r} cannot be an owner at DigitalOcean", "Use letters, digits, dashes and underscores")
        self.owner = owner
        self.name = name
        self.owner_tag = f"{MARK}-owner:{owner}"
        self.name_tag = f"{MARK}:{owner}:{name}"
        self.key_name = f"{MARK}:{owner}:{name}"
        """Name of the machine's SSH key in the account."""

    def tag(self, kind: str, value: str = "") -> str:
        """``dockyard-machine-KIND:OWNER:NAME[:VALUE]``"""
        word = f"{MARK}-{kind}:{self.owner}:{self.name}"
        return f"{word}:{value}" if value else word

    def belongs(self, tag: str) -> bool:
        """Whether a tag is of this machine alone."""
        match = _MARK.fullmatch(tag)
        mine = f"{self.owner}:{self.name}"
        return bool(match) and kind(tag) not in _SHARED and (tag.partition(":")[2] == mine or tag.partition(":")[2].startswith(f"{mine}:"))


def is_mark(tag: str) -> bool:
    """Whether a tag is one of ours."""
    return _MARK.fullmatch(tag) is not None


def kind(tag: str) -> str:
    """The kind of one of our tags; empty for the one that names the machine, and for the user's."""
    match = _MARK.fullmatch(tag)
    return (match.group(1) or "") if match else ""


def name_of(droplet: t.Mapping[str, t.Any], owner: str) -> str:
    """The name of an owner's machine; empty when the Droplet is none of his."""
    for tag in droplet["tags"]:
        head, dummy, rest = tag.partition(":")
        whose, colon, name = rest.partition(":")
        if head == MARK and colon and whose == owner:
            return str(name)
    return ""


def value(droplet: t.Mapping[str, t.Any], wanted: str) -> str:
    """The value of a Droplet's mark of this kind; empty when it has none."""
    return next((str(tag.split(":", 3)[3]) for tag in droplet["tags"] if kind(tag) == wanted and tag.count(":") >= 3), "")


def encode(tags: t.Mapping[str, str]) -> list[str]:
    """The user's tags: ``key:value``, or ``key`` alone when the value is empty.

    Raises:
        MachineError: ``invalid_option`` for a tag that DigitalOcean doesn't take.
    """
    found = []
    for key, text in tags.items():
        tag = f"{key}:{text}" if text else key
        if not _WORD.fullmatch(tag) or ":" in key or len(tag) > MAX_LENGTH or is_mark(tag) or not key:
            hint = f"Use letters, digits, dashes and underscores, at most {MAX_LENGTH} together, and no key that begins with {MARK}"
            raise cloud.invalid("tags", f"{tag!r} cannot be a tag at DigitalOcean", hint)
        found.append(tag)
    return sorted(found)


def decode(tags: t.Iterable[str]) -> dict[str, str]:
    """What :meth:`encode` made, without our marks."""
    return {key: text for key, dummy, text in (tag.partition(":") for tag in sorted(tags) if not is_mark(tag))}


def users_tags(droplet: t.Mapping[str, t.Any]) -> dict[str, str]:
    """The user's tags of a Droplet."""
    return decode(droplet["tags"])


def folded(tags: t.Mapping[str, str]) -> dict[str, str]:
    """Tags as DigitalOcean compares them: without regard to case."""
    return {key.lower(): text.lower() for key, text in tags.items()}
