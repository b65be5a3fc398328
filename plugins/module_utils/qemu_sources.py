# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package sources that this Debian machine uses, for another root tree.

Formats: sources.list(5), both one-line and deb822 style.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_tools import need_programs, run_program
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline

DEBIAN_KEYRING: t.Final = "/usr/share/keyrings/debian-archive-keyring.gpg"

# Settings without which this machine's sources would not work in the guest either.
_SETTINGS: t.Final = re.compile(
    r'^(Acquire::(?:Check-Valid-Until|Check-Date|Max-FutureTime|Max-ValidTime|ForceIPv[46]|Retries)) "([^"]*)";$'
)
_PROXY: t.Final = re.compile(r'^(Acquire::https?::Proxy) "([^"]*)";$', re.IGNORECASE)
_LOOPBACK: t.Final = re.compile(r"//(?:localhost|127\.|\[::1\])")

# Suites that have neither updates nor a security archive.
ROLLING: t.Final = frozenset({"sid", "unstable"})
_POCKETS: t.Final = ("", "-updates", "-security")


@dataclasses.dataclass(frozen=True)
class Source:
    """One archive: an address, its suites and components."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""

    def deb822(self) -> str:
        """As a paragraph for a ``.sources`` file."""
        lines = ["Types: deb", f"URIs: {self.uri}", f"Suites: {' '.join(self.suites)}", f"Components: {' '.join(self.components)}"]
        if self.signed_by:
            lines.append(f"Signed-By: {self.signed_by}")
        return "\n".join(lines) + "\n"


def parse_one_line(text: str) -> list[Source]:
    """Read one-line style; ``deb-src`` and comments are left out."""
    found = []
    for line in text.splitlines():
        words = shlex.split(line.partition("#")[0].replace("[", " [ ").replace("]", " ] "))
        if not words or words[0] != "deb":
            continue
        options: list[str] = []
        rest = words[1:]
        if rest and rest[0] == "[" and "]" in rest:
            end = rest.index("]")
            options, rest = rest[1:end], rest[end + 1 :]
        if len(rest) < 3:
            continue
        signed = next((word.partition("=")[2] for word in options if word.startswith("signed-by=")), "")
        found.append(Source(rest[0].rstrip("/"), (rest[1],), tuple(rest[2:]), signed))
    return found


def parse_deb822(text: str) -> list[Source]:
    """Read deb822 style; disabled and source-only paragraphs are left out, and so are keys that stand in the file."""
    found = []
    for paragraph in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n?", "", text)):
        fields = {key.lower(): " ".join(value.split()) for key, value in re.findall(r"(?m)^([A-Za-z-]+):((?:.*)(?:\n[ \t].*)*)", paragraph)}
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        signed = fields.get("signed-by", "")
        for uri in fields.get("uris", "").split():
            found.append(
                Source(
                    uri.rstrip("/"),
                    tuple(fields.get("suites", "").split()),
                    tuple(fields.get("components", "").split()),
                    signed if signed.startswith("/") else "",
                )
            )
    return found


def read_sources(etc: str = "/etc/apt") -> list[Source]:
    """Every enabled binary source of this machine."""
    files = [os.path.join(etc, "sources.list")]
    parts = os.path.join(etc, "sources.list.d")
    if os.path.isdir(parts):
        files += [os.path.join(parts, name) for name in sorted(os.listdir(parts))]
    found: list[Source] = []
    for path in files:
        if os.path.isfile(path) and path.endswith((".list", ".sources")):
            with open(path, encoding="utf-8", errors="replace") as stream:
                text = stream.read()
            found += parse_one_line(text) if path.endswith(".list") else parse_deb822(text)
    return found


def parse_index(text: str) -> dict[tuple[str, str], tuple[str, str]]:
    """Read what apt knows of its archives: ``(uri, suite)`` to ``(origin, codename)``."""
    found = {}
    for line in text.splitlines():
        words = line.split("|")
        if len(words) == 4 and not words[0].startswith("$("):
            found[(words[2].rstrip("/"), words[3])] = (words[0], words[1])
    return found


def for_suite(sources: t.Iterable[Source], index: t.Mapping[tuple[str, str], tuple[str, str]], own: str, suite: str) -> list[Source]:
    """Debian's archives among ``sources``, turned to another suite.

    Args:
        sources: what this machine uses.
        index: what :func:`parse_index` read.
        own: this machine's codename.
        suite: the codename wanted.
    """
    found: list[Source] = []
    for source in sources:
        suites = []
        for word in source.suites:
            origin, codename = index.get((source.uri, word), ("", ""))
            pocket = codename[len(own) :] if codename.startswith(own) else None
            if origin == "Debian" and pocket in _POCKETS and (suite not in ROLLING or pocket == ""):
                suites.append(suite + (pocket or ""))
        if suites:
            signed = source.signed_by or DEBIAN_KEYRING
            found.append(dataclasses.replace(source, suites=tuple(dict.fromkeys(suites)), signed_by=signed))
    return list(dict.fromkeys(found))


def host_sources(own: str, suite: str, deadline: Deadline) -> list[Source]:
    """The Debian archives of this machine, for ``suite``.

    Raises:
        MachineError: ``no_sources`` when it has none, or when apt has never read them.
    """
    apt = need_programs(["apt-get"], "building an image")["apt-get"]
    wanted = "$(ORIGIN)|$(CODENAME)|$(REPO_URI)|$(RELEASE)"
    known = parse_index(
        run_program(
            [apt, "indextargets", "--format", wanted, "Created-By: Packages"], what="Reading the package sources", deadline=deadline
        )
    )
    found = for_suite(read_sources(), known, own, suite)
    if not any(suite in source.suites for source in found):
        raise MachineError(
            "This machine has no Debian package sources to build from",
            where="/etc/apt",
            why="apt knows no archive with the origin Debian and the codename " + (own or "of this system"),
            hint="Run apt-get update, or give the option sources",
            code="no_sources",
        )
    return found


def parse_settings(text: str) -> tuple[list[str], list[str]]:
    """Read ``apt-config dump``: settings for the build, and those of them that also belong into the guest."""
    build: list[str] = []
    guest: list[str] = []
    for line in text.splitlines():
        kept = _SETTINGS.match(line)
        proxy = _PROXY.match(line)
        if kept:
            build.append(f'{kept.group(1)} "{kept.group(2)}"')
            guest.append(build[-1])
        elif proxy:
            build.append(f'{proxy.group(1)} "{proxy.group(2)}"')
            # A proxy on loopback isn't reachable from a guest, and a password doesn't belong into an image.
            if not _LOOPBACK.search(proxy.group(2)) and "@" not in proxy.group(2):
                guest.append(build[-1])
    return list(dict.fromkeys(build)), list(dict.fromkeys(guest))


def host_settings(deadline: Deadline) -> tuple[list[str], list[str]]:
    """The settings of this machine's apt; see :func:`parse_settings`."""
    tool = need_programs(["apt-config"], "building an image")["apt-config"]
    return parse_settings(run_program([tool, "dump"], what="Reading apt's settings", deadline=deadline))


def os_release() -> dict[str, str]:
    """This system's os-release(5), as a dictionary; empty when there is none."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8") as stream:
                lines = [line.strip().partition("=") for line in stream if "=" in line and not line.startswith("#")]
        except OSError:
            continue
        return {key: " ".join(shlex.split(value)) for key, dummy, value in lines}
    return {}
