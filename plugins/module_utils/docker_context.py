# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker contexts as files: what ``docker context create``, ``use`` and ``rm`` do to ``~/.docker``, without the CLI.

Layout: ``contexts/meta/ID/meta.json`` and ``contexts/tls/ID/docker/{ca,cert,key}.pem``, where ID is the SHA-256 of the name.
A context of ours has an empty file ``dockyard`` beside meta.json: the CLI ignores it and removes it with the context.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils import files
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError

Json = dict[str, t.Any]

TLS_FILES = ("ca.pem", "cert.pem", "key.pem")
MARK_FILE = "dockyard"

_LIMIT = 1024 * 1024
_HOST = re.compile(r"(tcp|ssh|unix|npipe|fd|http|https)://\S*")
# As the CLI has it.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]+")


@dataclasses.dataclass
class Wanted:
    """What a context shall hold. ``tls`` maps the names in :data:`TLS_FILES` to their content; empty: no TLS."""

    name: str
    host: str
    description: str = ""
    tls: dict[str, bytes] = dataclasses.field(default_factory=dict)


def validate_name(name: str) -> str:
    """Return ``name`` if it can name a context.

    Raises:
        MachineError: ``invalid_name``.
    """
    if _NAME.fullmatch(name) and name != "default":
        return name
    raise MachineError(
        f"The context name {name[:80]!r} is not valid",
        where="option name",
        why="Docker wants two or more letters, digits and any of _ . + -, beginning with a letter or digit, and not 'default'",
        hint="Choose another name",
        code="invalid_name",
    )


def read_tls(paths: t.Mapping[str, str]) -> dict[str, bytes]:
    """Read the PEM files that ``paths`` names by :data:`TLS_FILES`.

    Raises:
        MachineError: ``missing_file``, ``invalid_pem`` and those of :func:`files.read`.
    """
    found = {}
    for name, path in paths.items():
        # A link is fine here: people keep their certificates where they like.
        real = pathlib.Path(os.path.realpath(os.path.expanduser(path)))
        try:
            data = files.read(real, _LIMIT)
        except FileNotFoundError as error:
            raise MachineError(
                f"The file for {name} does not exist", where=path, hint="Provision the machine first", code="missing_file"
            ) from error
        if b"-----BEGIN " not in data:
            raise MachineError(f"The file for {name} is not usable", where=path, why="it holds no PEM block", code="invalid_pem")
        found[name] = data
    return found


class Contexts:
    """The contexts in one configuration folder of the docker CLI.

    Args:
        folder: default ``$DOCKER_CONFIG``, else ``~/.docker``.
    """

    def __init__(self, folder: str | None = None) -> None:
        chosen = folder or os.environ.get("DOCKER_CONFIG") or "~/.docker"
        self.folder = pathlib.Path(os.path.abspath(os.path.expanduser(chosen)))
        # People link this one into their dotfiles; the CLI writes through the link, and so do we.
        self.config_path = pathlib.Path(os.path.realpath(self.folder / "config.json"))

    def meta_dir(self, name: str) -> pathlib.Path:
        """The folder of meta.json."""
        return self.folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()

    def tls_dir(self, name: str) -> pathlib.Path:
        """The folder above ``docker/ca.pem``."""
        return self.folder / "contexts" / "tls" / hashlib.sha256(name.encode()).hexdigest()

    def ours(self, name: str) -> bool:
        """Whether we made the context."""
        return (self.meta_dir(name) / MARK_FILE).is_file()

    def exists(self, name: str) -> bool:
        """Whether there is such a context, or the rest of one whose removal was cut short."""
        return self.meta_dir(name).exists() or self.tls_dir(name).exists()

    def current(self) -> str:
        """The context in use; empty for the default one."""
        current = self._config().get("currentContext", "")
        return current if isinstance(current, str) else ""

    def describe(self, name: str) -> Json:
        """What is there now, to be compared and shown; key material only as fingerprints, an absent context as ``{}``."""
        if not self.meta_dir(name).exists():
            return {}
        try:
            meta = json.loads(files.read(self.meta_dir(name) / "meta.json", _LIMIT))
            endpoint = meta["Endpoints"]["docker"]
            shown = {"host": endpoint["Host"], "description": meta["Metadata"].get("Description", "")}
            if endpoint.get("SkipTLSVerify"):
                shown["skip_tls_verify"] = True
        except (OSError, ValueError, KeyError, TypeError, AttributeError, MachineError):
            shown = {"host": "", "description": "(unreadable)"}
        tls = {}
        for filename in TLS_FILES:
            try:
                tls[filename] = files.read(self.tls_dir(name) / "docker" / filename, _LIMIT)
            except (OSError, MachineError):
                continue
        return {**shown, **_fingerprints(tls)}

    def present(self, wanted: Wanted, *, force: bool, check: bool) -> bool:
        """Make the context be as wanted; True when something changed (or would, with ``check``).

        Raises:
            MachineError: ``foreign_context`` when somebody else made one of that name and ``force`` is false.
        """
        before = self.describe(wanted.name)
        if before == describe(wanted) and self._private(wanted):
            return False
        if before and not self.ours(wanted.name) and not force:
            raise MachineError(
                f"There is already a Docker context {wanted.name}",
                where=str(self.meta_dir(wanted.name)),
                why=f"it was not made by this collection, and it is for {before['host'] or 'something else'}",
                hint=f"Remove it ('docker context rm {wanted.name}'), choose another name, or set force",
                code="foreign_context",
            )
        if not check:
            self._write(wanted)
        return True

    def absent(self, name: str, *, check: bool) -> bool:
        """Remove the context, and stop using it; whose it is, is for the caller to ask."""
        if not self.exists(name):
            return False
        if not check:
            with files.explained("The Docker context could not be removed", self.meta_dir(name)):
                if self.current() == name:
                    self.use("", check=False)
                for folder in (self.meta_dir(name), self.tls_dir(name)):
                    if folder.exists():
                        shutil.rmtree(folder)
        return True

    def use(self, name: str, *, check: bool) -> bool:
        """Make ``name`` the current context (empty: the default one); every other key of config.json stays."""
        config = self._config()
        if config.get("currentContext", "") == name:
            return False
        if not check:
            if name:
                config["currentContext"] = name
            else:
                del config["currentContext"]
            files.make_directory(self.folder, 0o700)
            files.write(self.config_path, _go_json(config, indent="\t"), files.mode(self.config_path) or 0o600)
        return True

    def _private(self, wanted: Wanted) -> bool:
        folder = self.tls_dir(wanted.name) / "docker"
        return all(files.mode(folder / filename) == 0o600 for filename in wanted.tls)

    def _write(self, wanted: Wanted) -> None:
        """meta.json last: it is what makes a context one."""
        tls = self.tls_dir(wanted.name)
        files.make_directory(tls.parent, 0o700)
        if wanted.tls:
            files.make_directory(tls / "docker", 0o700)
            for filename, data in wanted.tls.items():
                files.write(tls / "docker" / filename, data, 0o600)
        elif tls.exists():
            with files.explained("The old certificates could not be removed", tls):
                shutil.rmtree(tls)
        meta = self.meta_dir(wanted.name)
        files.make_directory(meta, 0o755)
        files.write(meta / MARK_FILE, b"", 0o644)
        metadata = {"Description": wanted.description} if wanted.description else {}
        endpoint = {"Host": wanted.host, "SkipTLSVerify": False}
        content = {"Name": wanted.name, "Metadata": metadata, "Endpoints": {"docker": endpoint}}
        files.write(meta / "meta.json", _go_json(content), 0o644)

    def _config(self) -> Json:
        try:
            config = json.loads(files.read(self.config_path, _LIMIT))
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError) as error:
            raise self._broken(f"it is no valid JSON: {error}") from error
        if not isinstance(config, dict):
            raise self._broken("it holds no JSON object")
        return config

    def _broken(self, why: str) -> MachineError:
        return MachineError(
            "The configuration of the docker CLI cannot be read",
            where=str(self.config_path),
            why=why,
            hint="Repair it; it was left as it is",
            code="broken_config",
        )


def describe(wanted: Wanted) -> Json:
    """What :meth:`Contexts.describe` will show once it is there."""
    return {"host": wanted.host, "description": wanted.description, **_fingerprints(wanted.tls)}


def validate(wanted: Wanted) -> None:
    """Check what could not work.

    Raises:
        MachineError: ``invalid_name``, ``invalid_host`` or ``missing_tls``.
    """
    validate_name(wanted.name)
    if not _HOST.fullmatch(wanted.host):
        raise MachineError(
            f"{wanted.host[:200]!r} is no Docker endpoint",
            where="option host",
            hint="Write it like tcp://192.0.2.10:2376 or ssh://user@host",
            code="invalid_host",
        )
    if wanted.host.startswith("tcp://") and set(wanted.tls) != set(TLS_FILES):
        raise MachineError(
            "A context for tcp:// needs ca, cert and key",
            where="option cert_path",
            why="without them the connection would not be secured",
            hint="Give cert_path, or ca, cert and key",
            code="missing_tls",
        )


def _fingerprints(tls: t.Mapping[str, bytes]) -> Json:
    """A digest says whether a file changed and tells nothing about a random key."""
    return {name: f"sha256:{hashlib.sha256(data).hexdigest()[:16]}" for name, data in sorted(tls.items())}


def _go_json(content: Json, indent: str | None = None) -> bytes:
    """JSON byte for byte as Go's encoder writes it: no spaces unless indented, and HTML's special characters escaped."""
    text = json.dumps(content, indent=indent, ensure_ascii=False, separators=(",", ": " if indent else ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode()
