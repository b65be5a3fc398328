# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Root trees of the test hosts: what a cloud image of a distribution holds, without kernel and boot loader.

Made by mmdebstrap from the distribution's own mirror, which mmdebstrap knows by itself, with signatures checked.
A tree is a tar file in the cache, named by a hash of everything it was made from, so that a change of this recipe
makes a new one and an unchanged recipe costs nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import shlex
import shutil
import tempfile

from common import CACHE, HERE, HostsError, Unavailable, locked, run, say

UBUNTU_KEY = "F6ECB3762474EDA9D21B7022871920D1991BC93C"
"""Ubuntu Archive Automatic Signing Key (2018). Debian has no package of it, so its fingerprint is pinned here."""

BUILD_TIMEOUT = 600.0
"""Seconds for one tree; a cold build takes about one minute on two cores."""

# What a distribution's cloud image has and the collection, its tests or systemd in a container need.
_PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "iptables",
    "kmod",
    "libpam-systemd",
    "netbase",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
)


@dataclasses.dataclass(frozen=True)
class Image:
    """A kind of test host.

    Attributes:
        name: what people call it, and the image's repository in the private engine.
        suite: the suite that mmdebstrap is given.
        user: the account that cloud images of this distribution have.
        engine: packages of the distribution's engine, put into apt's archive cache and not installed.
    """

    name: str
    suite: str
    user: str
    engine: tuple[str, ...]
    ubuntu: bool = False


IMAGES = {
    image.name: image
    for image in (
        Image("debian-12", "bookworm", "debian", ("docker.io",)),
        Image("debian-13", "trixie", "debian", ("docker.io", "docker-cli")),
        Image("ubuntu-24.04", "noble", "ubuntu", ("docker.io",), ubuntu=True),
    )
}


def user_key() -> pathlib.Path:
    """The private key (0600) that every host lets in; made once for a cache, never kept in the repository."""
    key = CACHE / "id_ed25519"
    with locked(CACHE / "key.lock", 30):
        if not key.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "dockyard-tests", "-f", key])
        key.chmod(0o600)
    return key


def recipe_hash(image: Image) -> str:
    """Twelve hex digits over everything that decides what the tree holds, but for the mirror's own state."""
    digest = hashlib.sha256(repr((image, _PACKAGES, UBUNTU_KEY)).encode())
    for name in ("customize.sh", "init.sh"):
        digest.update((HERE / name).read_bytes())
    digest.update(user_key().with_suffix(".pub").read_bytes())
    return digest.hexdigest()[:12]


def build(image: Image, fresh: bool = False) -> pathlib.Path:
    """The tar file of an image's root tree, made if the cache has none.

    Args:
        fresh: make it anew even so, to get the mirror's newest packages.

    Raises:
        Unavailable: the distribution's mirror or key cannot be had here.
        HostsError: the build failed.
    """
    out = CACHE / "roots" / f"{image.name}-{recipe_hash(image)}.tar"
    with locked(CACHE / f"{image.name}.lock", BUILD_TIMEOUT):
        if out.exists() and not fresh:
            return out
        out.parent.mkdir(parents=True, exist_ok=True)
        say(f"building {image.name} (mmdebstrap {image.suite})")
        _mmdebstrap(image, out)
        for old in out.parent.glob(f"{image.name}-*.tar"):
            if old != out:
                old.unlink()
    return out


def _mmdebstrap(image: Image, out: pathlib.Path) -> None:
    argv = ["mmdebstrap", "--variant=apt", "--format=tar", "--skip=cleanup/apt/cache"]
    argv += [f"--include={','.join(_PACKAGES)}", '--aptopt=APT::Install-Recommends "false"']
    hook = " ".join(shlex.quote(str(word)) for word in ("sh", HERE / "customize.sh"))
    words = " ".join(shlex.quote(str(word)) for word in (image.user, user_key().with_suffix(".pub"), *image.engine))
    argv += [f'--customize-hook={hook} "$1" {words}']
    part = out.with_suffix(f".{os.getpid()}.part")
    with tempfile.TemporaryDirectory(prefix="dockyard-") as folder:
        if image.ubuntu:
            # apt checks signatures as an account of its own, which may not look into a cache below /root.
            keyring = pathlib.Path(folder) / "ubuntu-archive.gpg"
            shutil.copyfile(_ubuntu_keyring(), keyring)
            pathlib.Path(folder).chmod(0o755)
            keyring.chmod(0o644)
            argv += [f"--keyring={keyring}", "--components=main,universe", "--include=ubuntu-keyring"]
        else:
            argv += ["--keyring=/usr/share/keyrings/debian-archive-keyring.gpg"]
        try:
            run([*argv, image.suite, part], timeout=BUILD_TIMEOUT, env=_clean_environment())
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)


def _clean_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.lower() in ("http_proxy", "https_proxy", "no_proxy")}
    return {**kept, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}


def _ubuntu_keyring() -> pathlib.Path:
    """Ubuntu's archive key, accepted only by its pinned fingerprint.

    The package that carries the key is fetched without checking a signature, since nothing here could check it;
    what is taken from it is one key, and only if it is the one pinned above. The real build is then checked by it.
    """
    keyring = CACHE / "ubuntu-archive.gpg"
    with tempfile.TemporaryDirectory(prefix="dockyard-") as folder:
        if not keyring.exists():
            argv = ["mmdebstrap", "--quiet", "--variant=extract", "--include=ubuntu-keyring"]
            argv += ['--aptopt=APT::Get::AllowUnauthenticated "true"', '--aptopt=Acquire::AllowInsecureRepositories "true"']
            tar = pathlib.Path(folder) / "keyring.tar"
            try:
                run([*argv, "noble", tar], timeout=120, env=_clean_environment())
            except HostsError as error:
                raise Unavailable(f"Ubuntu's mirror is not reachable from here: {error}") from error
            member = "./etc/apt/trusted.gpg.d/ubuntu-keyring-2018-archive.gpg"
            run(["tar", "-C", folder, "-xf", tar, member])
            new = keyring.with_suffix(".part")
            shutil.copyfile(pathlib.Path(folder) / member, new)
            _check_fingerprint(new, folder)
            new.replace(keyring)
        _check_fingerprint(keyring, folder)
    return keyring


def _check_fingerprint(keyring: pathlib.Path, home: str) -> None:
    listing = run(["gpg", "--homedir", home, "--batch", "--with-colons", "--show-keys", keyring])
    keys = [line for line in listing.splitlines() if line.startswith(("pub:", "sub:"))]
    found = [line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:")]
    if len(keys) != 1 or found != [UBUNTU_KEY]:
        keyring.unlink()
        raise HostsError(f"Ubuntu's archive key is {found}, not the pinned {UBUNTU_KEY}: nothing was built from it")


def probe_image() -> pathlib.Path:
    """A tar file with a static busybox: an image that a test imports into an engine to run a container of."""
    out = CACHE / "roots" / "busybox.tar"
    with locked(CACHE / "busybox.lock", 180):
        if not out.exists():
            out.parent.mkdir(parents=True, exist_ok=True)
            part = out.with_suffix(".part")
            keyring = "--keyring=/usr/share/keyrings/debian-archive-keyring.gpg"
            hook = '--customize-hook=cd "$1" && rm -rf usr/share var etc/apt && ln -sf busybox bin/sh && ln -sf busybox bin/sleep'
            argv = ["mmdebstrap", "--quiet", "--variant=extract", "--format=tar", "--include=busybox-static", keyring, hook]
            run([*argv, "bookworm", part], timeout=150, env=_clean_environment())
            part.replace(out)
    return out
