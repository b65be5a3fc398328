# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Base images: a file or an address with a checksum, downloaded once, verified always, and kept for the machines that use them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import typing as t
import urllib.error
import urllib.parse

from ansible.module_utils.urls import open_url
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError
from ansible_collections.dockyard.machine.plugins.module_utils.files import explained
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_tools import file_digest, locked, need_programs, run_program
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline, retry

_KINDS: t.Final = {64: "sha256", 128: "sha512"}
_CHECKSUM: t.Final = re.compile(r"(sha256|sha512):([0-9a-f]{64}|[0-9a-f]{128})", re.IGNORECASE)
_GNU_LINE: t.Final = re.compile(r"([0-9a-fA-F]{64,128})\s+\*?(?:\./)?(\S+)")
_BSD_LINE: t.Final = re.compile(r"SHA(?:256|512) \((?:\./)?([^)]+)\) = ([0-9a-fA-F]{64,128})")
_SUMS_LIMIT: t.Final = 1 << 20
_SOCKET_SECONDS: t.Final = 30


def default_cache() -> str:
    """Where images are kept unless the user says otherwise."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "dockyard", "images")


def find_sum(text: str, name: str) -> str:
    """The checksum of a file in a list of checksums (GNU or BSD style), as ``KIND:HEX``; empty when it isn't in there."""
    for line in text.splitlines():
        gnu = _GNU_LINE.fullmatch(line.strip())
        bsd = _BSD_LINE.fullmatch(line.strip())
        found = (gnu.group(2), gnu.group(1)) if gnu else (bsd.group(1), bsd.group(2)) if bsd else ("", "")
        if found[0] == name and len(found[1]) in _KINDS:
            return f"{_KINDS[len(found[1])]}:{found[1].lower()}"
    return ""


def is_address(text: str) -> bool:
    """Whether it has to be downloaded."""
    return text.startswith(("http://", "https://"))


class ImageStore:
    """Finds base images.

    Args:
        cache_dir: where downloads are kept.
        deadline: for everything together.
        open_address: opens an address and returns a readable stream; tests give their own.
    """

    def __init__(self, cache_dir: str, deadline: Deadline, open_address: t.Callable[..., t.Any] = open_url) -> None:
        self.cache_dir = cache_dir
        self.deadline = deadline
        self._open_address = open_address

    def check(self, image: str, checksum: str) -> None:
        """Find what makes :meth:`resolve` fail, without downloading.

        Raises:
            MachineError: ``invalid_option`` or ``missing_image``.
        """
        if checksum and not _CHECKSUM.fullmatch(checksum) and not is_address(checksum) and not os.path.isfile(os.path.expanduser(checksum)):
            raise MachineError(
                f"{checksum!r} is no checksum",
                where="option image_checksum",
                hint="Give sha256:HEX, sha512:HEX, or the address or path of a list of checksums",
                code="invalid_option",
            )
        if not image:
            raise MachineError(
                "No image was given",
                where="option image",
                hint="Give the path or address of a cloud image, or build one: ansible-playbook dockyard.machine.build_image",
                code="missing_image",
            )
        if is_address(image):
            if not checksum:
                raise MachineError(
                    "An image that is downloaded needs a checksum",
                    where="option image_checksum",
                    hint="Give sha256:HEX, sha512:HEX, or the address of the SHA256SUMS or SHA512SUMS file beside the image",
                    code="invalid_option",
                )
            return
        path = self._local(image)
        if not os.path.isfile(path) or not os.access(path, os.R_OK):
            why = "there is no such file" if not os.path.exists(path) else "it cannot be read, or is no file"
            raise MachineError(
                "The image was not found",
                where=path,
                why=why,
                hint="Correct the option image, or build one: ansible-playbook dockyard.machine.build_image",
                code="missing_image",
            )

    def resolve(self, image: str, checksum: str) -> str:
        """The path of the verified image.

        Raises:
            MachineError: ``wrong_checksum``, ``download_failed`` and those of :meth:`check`.
        """
        self.check(image, checksum)
        if not is_address(image):
            path = self._local(image)
            if checksum:
                self._verify(path, self._expected(image, checksum), path)
            return path
        expected = self._expected(image, checksum)
        with explained("The image folder could not be made", self.cache_dir):
            os.makedirs(self.cache_dir, mode=0o755, exist_ok=True)
        kind, dummy, digest = expected.partition(":")
        path = os.path.join(self.cache_dir, f"{kind}-{digest}.img")
        with locked(os.path.join(self.cache_dir, f".{digest[:16]}.lock"), self.deadline, "download an image"):
            if os.path.isfile(path):
                if file_digest(path, kind) == digest:
                    return path
                os.unlink(path)
            self._sweep(digest)
            retry(lambda: self._download(image, path, expected), phase="download the image", deadline=self.deadline, attempts=4)
        return path

    @staticmethod
    def _local(image: str) -> str:
        path = urllib.parse.unquote(urllib.parse.urlsplit(image).path) if image.startswith("file://") else image
        return os.path.abspath(os.path.expanduser(path))

    def _expected(self, image: str, checksum: str) -> str:
        """``KIND:HEX``, looked up in a list where the option names one."""
        given = _CHECKSUM.fullmatch(checksum)
        if given and _KINDS[len(given.group(2))] == given.group(1).lower():
            return checksum.lower()
        if given:
            raise MachineError(f"{checksum!r} has the wrong length", where="option image_checksum", code="invalid_option")
        name = os.path.basename(urllib.parse.unquote(urllib.parse.urlsplit(image).path))
        found = find_sum(self._read_sums(checksum), name)
        if not found:
            raise MachineError(
                "The list of checksums does not have the image", where=checksum, why=f"no line names {name}", code="wrong_checksum"
            )
        return found

    def _read_sums(self, checksum: str) -> str:
        if not is_address(checksum):
            with explained("The list of checksums could not be read", checksum), open(os.path.expanduser(checksum), "rb") as stream:
                return stream.read(_SUMS_LIMIT).decode(errors="replace")

        def fetch() -> str:
            with self._opened(checksum) as stream:
                return bytes(stream.read(_SUMS_LIMIT)).decode(errors="replace")

        return retry(fetch, phase="download the list of checksums", deadline=self.deadline, attempts=4)

    @contextlib.contextmanager
    def _opened(self, address: str) -> t.Iterator[t.Any]:
        shown = urllib.parse.urlsplit(address)._replace(query="", fragment="")
        where = shown._replace(netloc=shown.netloc.rpartition("@")[2]).geturl()
        try:
            stream = self._open_address(
                address, timeout=min(_SOCKET_SECONDS, max(1, self.deadline.remaining())), http_agent="dockyard.machine"
            )
            with contextlib.closing(stream):
                yield stream
        except urllib.error.HTTPError as error:
            kind = TransientError if error.code in (408, 429, 500, 502, 503, 504) else MachineError
            raise kind(
                "The download failed", where=where, why=f"the server answers {error.code} {error.reason}", code="download_failed"
            ) from error
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise TransientError(
                "The download failed", where=where, why=str(getattr(error, "reason", error)), code="download_failed"
            ) from error

    def _sweep(self, digest: str) -> None:
        """Remove what an earlier download left when it was killed; we hold this image's lock."""
        for name in os.listdir(self.cache_dir):
            if name.startswith(f".part-{digest[:16]}-"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.cache_dir, name))

    def _download(self, address: str, path: str, expected: str) -> None:
        kind, dummy, digest = expected.partition(":")
        with explained("The image could not be stored", self.cache_dir):
            handle, temporary = tempfile.mkstemp(prefix=f".part-{digest[:16]}-", dir=self.cache_dir)
            try:
                with os.fdopen(handle, "wb") as target, self._opened(address) as source:
                    self._copy(source, target, hashlib.new(kind), digest, address)
                    target.flush()
                    os.fsync(target.fileno())
                os.chmod(temporary, 0o644)
                os.replace(temporary, path)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)

    def _copy(self, source: t.Any, target: t.IO[bytes], digest: t.Any, expected: str, address: str) -> None:
        for block in iter(lambda: source.read(1 << 20), b""):
            digest.update(block)
            target.write(block)
            if self.deadline.over:
                raise TransientError("The download failed", where=address, why="no time is left", code="download_failed")
        if digest.hexdigest() != expected:
            raise _wrong(address, expected, digest.hexdigest())

    @staticmethod
    def _verify(path: str, expected: str, where: str) -> None:
        kind, dummy, digest = expected.partition(":")
        with explained("The image could not be read", path):
            found = file_digest(path, kind)
        if found != digest:
            raise _wrong(where, digest, found)


def _wrong(where: str, expected: str, found: str) -> MachineError:
    return MachineError(
        "The image has the wrong checksum",
        where=where,
        why=f"expected {expected}, found {found}",
        hint="The image changed or was damaged: correct image_checksum, or get the image again",
        code="wrong_checksum",
    )


class Inspected(t.NamedTuple):
    """What an image file is."""

    format: str
    virtual_size: int
    """Bytes."""


def inspect(path: str, deadline: Deadline) -> Inspected:
    """Read an image's header.

    Raises:
        MachineError: ``bad_image`` when it is none that a machine can be based on.
    """
    tool = need_programs(["qemu-img"], "a machine's disk")["qemu-img"]
    said = run_program([tool, "info", "--output=json", "--force-share", path], what="Reading the image", deadline=deadline)
    try:
        facts = json.loads(said)
        found = Inspected(str(facts["format"]), int(facts["virtual-size"]))
    except (ValueError, KeyError, TypeError) as error:
        raise MachineError("The image could not be read", where=path, why="qemu-img does not understand it", code="bad_image") from error
    inside = facts.get("format-specific", {}).get("data", {})
    # An image must not make QEMU open other files of this host.
    for key, value in (("a backing file", facts.get("backing-filename")), ("a data file", inside.get("data-file"))):
        if value:
            raise MachineError(
                "The image is not complete in itself",
                where=path,
                why=f"it has {key}, {value}",
                hint=f"Make a complete one: qemu-img convert -O qcow2 {path} NEW.qcow2",
                code="bad_image",
            )
    if found.virtual_size < 1 << 20:
        raise MachineError("The image is no disk", where=path, why=f"it has {found.virtual_size} bytes", code="bad_image")
    return found


def base_name(path: str) -> str:
    """The name that an image has among the kept ones; another content has another name."""
    with explained("The image could not be read", path):
        status = os.stat(path)
    facts = f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"
    return hashlib.sha256(facts.encode()).hexdigest()[:24]


def keep_base(path: str, folder: str) -> None:
    """Keep an image, as ``base_name(path)`` in ``folder``, for the machines that are based on it.

    A machine's disk only has what differs from its base, so the base must neither change nor go. A hard link costs
    nothing and keeps the content when the original is replaced; where there can be none, the image is copied.
    """
    target = os.path.join(folder, base_name(path))
    if os.path.exists(target):
        return
    with explained("The image could not be kept for the machine", folder):
        handle, temporary = tempfile.mkstemp(prefix=".new-", dir=folder)
        os.close(handle)
        try:
            os.unlink(temporary)
            try:
                os.link(path, temporary)
            except OSError:
                shutil.copyfile(path, temporary)
                os.chmod(temporary, 0o600)
            os.replace(temporary, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
