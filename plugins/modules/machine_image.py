#!/usr/bin/python
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build a Debian cloud image."""

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_image
short_description: Build a bootable Debian cloud image
version_added: 1.0.0
description:
  - Builds a bootable Debian cloud image (qcow2) from the package sources of the host that it runs on, and keeps it in a cache.
  - The image is laid out as Debian's own cloud images are. It boots by BIOS (amd64) and UEFI, has a serial console, cloud-init and an
    SSH server, grows its root file system to the size of its disk, and holds no host keys and no machine id.
  - An image is built once for each set of options. The result of an earlier run is used when its checksum is right.
  - No loop device and no mount is needed.
author:
  - The dockyard.machine authors (@dockyard)
extends_documentation_fragment:
  - dockyard.machine.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
requirements:
  - root on a Debian host
  - C(mmdebstrap), C(gdisk), C(e2fsprogs), C(dosfstools), C(mtools) and C(qemu-utils)
options:
  suite:
    description:
      - Codename of the Debian release, such as V(bookworm).
      - The release of the host itself when this isn't given.
    type: str
    default: ""
  arch:
    description:
      - Architecture. That of the host itself when this isn't given.
      - Another one than the host's needs C(qemu-user-static) and C(binfmt-support) on the host.
    type: str
    choices: ["", amd64, arm64]
    default: ""
  size:
    description:
      - Size of the disk in GiB. A machine's disk can be larger. The image itself takes only the room that is used.
    type: int
    default: 4
  packages:
    description:
      - Packages to install besides the necessary ones.
    type: list
    elements: str
    default: []
  engine:
    description:
      - Whether the image has Docker Engine, as the release packages it.
      - With V(none), it hasn't.
      - With V(cached), its packages lie in apt's cache, so that installing it downloads nothing.
      - With V(installed), it is installed.
    type: str
    choices: [none, cached, installed]
    default: none
  datasources:
    description:
      - The data sources that cloud-init looks for, such as V(NoCloud). All that it knows when this isn't given.
    type: list
    elements: str
    default: []
  kernel_arguments:
    description:
      - Arguments for the kernel, besides the console.
    type: str
    default: ""
  sources:
    description:
      - Package sources in deb822 format (see C(sources.list(5))), for the build and for the image.
      - Those of the host itself when this isn't given, as far as they are Debian's.
    type: str
    default: ""
  cache_dir:
    description:
      - Folder for the images. C(dockyard/images) in E(XDG_CACHE_HOME) when this isn't given.
    type: path
    default: ""
  force:
    description:
      - Build the image even when the cache has it, in order to get the newest packages.
      - Machines that use the earlier image go on using that one.
    type: bool
    default: false
  timeout:
    description:
      - Seconds that everything together may take.
    type: float
    default: 1800
seealso:
  - module: dockyard.machine.qemu_machine
"""

EXAMPLES = r"""
- name: Build an image of this host's own release
  dockyard.machine.machine_image:
  register: image

- name: Build one with Docker Engine in it, of another release
  dockyard.machine.machine_image:
    suite: trixie
    engine: installed
    packages: [vim-tiny]
    cache_dir: /var/cache/dockyard/images

- name: Use it
  dockyard.machine.qemu_machine:
    name: demo
    image: "{{ image.path }}"
    image_checksum: "{{ image.checksum }}"
"""

RETURN = r"""
path:
  description: The image.
  returned: success
  type: str
  sample: /root/.cache/dockyard/images/debian-bookworm-amd64-0123456789ab.qcow2
checksum:
  description: The image's checksum. Empty in check mode when the image would be built.
  returned: success
  type: str
  sample: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
cached:
  description: Whether the cache had the image.
  returned: success
  type: bool
image:
  description: What is known of the image.
  returned: when it exists
  type: dict
  contains:
    suite:
      description: The release.
      type: str
    arch:
      description: The architecture.
      type: str
    engine:
      description: Whether the engine is in it.
      type: str
    size:
      description: Size of the file in bytes.
      type: int
    built:
      description: When it was built.
      type: str
    key:
      description: Digest of the options it was built from.
      type: str
"""

import os
import platform
import re
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_builder import ImageBuilder, Recipe, cached_image, host_architecture
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_image import default_cache
from ansible_collections.dockyard.machine.plugins.module_utils.qemu_sources import (
    Source,
    host_settings,
    host_sources,
    os_release,
    parse_deb822,
)
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline

SPEC: dict[str, t.Any] = {
    "suite": {"type": "str", "default": ""},
    "arch": {"type": "str", "choices": ["", "amd64", "arm64"], "default": ""},
    "size": {"type": "int", "default": 4},
    "packages": {"type": "list", "elements": "str", "default": []},
    "engine": {"type": "str", "choices": ["none", "cached", "installed"], "default": "none"},
    "datasources": {"type": "list", "elements": "str", "default": []},
    "kernel_arguments": {"type": "str", "default": ""},
    "sources": {"type": "str", "default": ""},
    "cache_dir": {"type": "path", "default": ""},
    "force": {"type": "bool", "default": False},
    "timeout": {"type": "float", "default": 1800},
}

# Debian Policy 5.6.1 and 5.6.7; these words also go into command lines and file names.
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_SUITE = re.compile(r"[a-z][a-z0-9.-]*")
_SOURCE = re.compile(r"[A-Za-z][A-Za-z0-9]*")


def _invalid(option: str, value: t.Any, why: str) -> MachineError:
    return MachineError(f"{value!r} is not valid", where=f"option {option}", why=why, code="invalid_option")


def _check_options(params: t.Mapping[str, t.Any], suite: str) -> None:
    """Refuse what cannot be."""
    if not _SUITE.fullmatch(suite):
        raise _invalid("suite", suite, "it is no codename of a release; this host names none itself" if not suite else "it is no codename")
    if params["size"] < 2:
        raise _invalid("size", params["size"], "an image has at least 2 GiB")
    if params["timeout"] <= 0:
        raise _invalid("timeout", params["timeout"], "it is no number of seconds above 0")
    for option, pattern in (("packages", _PACKAGE), ("datasources", _SOURCE)):
        for value in params[option]:
            if not pattern.fullmatch(value):
                raise _invalid(option, value, "it is no name that can stand here")
    if not re.fullmatch(r"[A-Za-z0-9_.,:=/+@ -]*", params["kernel_arguments"]):
        raise _invalid("kernel_arguments", params["kernel_arguments"], "it has characters that cannot stand in a kernel's command line")


def _sources(params: t.Mapping[str, t.Any], own: str, suite: str, deadline: Deadline) -> tuple[Source, ...]:
    if not params["sources"]:
        return tuple(host_sources(own, suite, deadline))
    found = tuple(parse_deb822(params["sources"]))
    if not found:
        raise _invalid("sources", params["sources"][:80], "it has no paragraph with Types, URIs, Suites and Components")
    return found


def recipe_from(params: t.Mapping[str, t.Any], deadline: Deadline) -> Recipe:
    """What to build.

    Raises:
        MachineError: ``invalid_option``, ``unsupported`` or ``no_sources``.
    """
    release = os_release()
    own = release.get("VERSION_CODENAME", "")
    suite = params["suite"] or own
    arch = params["arch"] or host_architecture(platform.machine())
    _check_options(params, suite)
    if not arch:
        raise MachineError(
            "No image can be built here", where="option arch", why=f"{platform.machine()} is not supported", code="unsupported"
        )
    if not params["sources"] and release.get("ID") != "debian":
        raise MachineError(
            "The package sources of this host are not Debian's",
            why=f"it runs {release.get('PRETTY_NAME', platform.system())}",
            hint="Build on a Debian host, or give the option sources (and suite)",
            code="unsupported",
        )
    build, guest = host_settings(deadline)
    return Recipe(
        suite=suite,
        arch=arch,
        size_mib=params["size"] * 1024,
        sources=_sources(params, own, suite, deadline),
        packages=tuple(params["packages"]),
        engine=params["engine"],
        datasources=tuple(params["datasources"]),
        kernel_arguments=params["kernel_arguments"].strip(),
        build_settings=tuple(build),
        guest_settings=tuple(guest),
    )


def run(params: t.Mapping[str, t.Any], *, check_mode: bool) -> dict[str, t.Any]:
    """Find or build the image; returns the module's result."""
    deadline = Deadline(params["timeout"])
    recipe = recipe_from(params, deadline)
    folder = params["cache_dir"] or default_cache()
    facts = None if params["force"] else cached_image(folder, recipe)
    changed = facts is None
    if changed:
        builder = ImageBuilder(recipe, folder, deadline)
        if os.geteuid() != 0:
            raise MachineError("Building an image needs root", hint="Run this task with become: true", code="needs_root")
        if not check_mode:
            facts, changed = builder.build(force=params["force"])
    path = os.path.join(folder, recipe.file_name)
    before = {"image": path} if not changed or os.path.exists(path) and not facts else {}
    return {
        "changed": changed,
        "cached": not changed,
        "path": path,
        "checksum": f"sha256:{facts['sha256']}" if facts else "",
        "image": {key: facts[key] for key in ("suite", "arch", "engine", "size", "built", "key")} if facts else {},
        "diff": {"before": before, "after": {"image": path}},
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    try:
        answer = run(module.params, check_mode=module.check_mode)
    except MachineError as error:
        module.fail_json(**error.result())
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
