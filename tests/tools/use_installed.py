# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Use the collection as the running ansible-core sees it; make no machine.

``use_installed.py FOLDER``: FOLDER is the collection that Ansible must find. Every plugin and role is shown by ansible-doc, every
playbook is found by its full name and parsed, the inventory plugin reads an empty store. Prints a summary as pytest does.
Run it with MACHINE_STORAGE_PATH set to a folder of the test's own.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

COLLECTION = "dockyard.machine"
# The folder of a plugin type, and what ansible-doc calls it. Action plugins are documented by the module of their name.
PLUGINS = {"modules": "module", "inventory": "inventory", "lookup": "lookup", "filter": "filter", "connection": "connection"}


class Failed(Exception):
    """A check that did not hold; the message says what was seen."""


def run(argv: t.Sequence[str]) -> str:
    """Run a command that must succeed; return what it printed."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=180, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def check_found(folder: pathlib.Path) -> None:
    """Ansible finds the collection in ``folder`` and nowhere else."""
    found = json.loads(run(["ansible-galaxy", "collection", "list", "--format", "json", COLLECTION]))
    paths = [pathlib.Path(path) / "dockyard" / "machine" for path in found]
    if [path.resolve() for path in paths] != [folder.resolve()]:
        raise Failed(f"{COLLECTION} was expected in {folder} alone, and is in {paths}")


def check_documented(kind: str, names: t.Sequence[str]) -> None:
    """``ansible-doc`` shows every plugin, with a description."""
    shown = json.loads(run(["ansible-doc", "-t", kind, "--json", *names]))
    for name in names:
        entry = shown.get(name) or {}
        described = entry.get("entry_points") if kind == "role" else entry.get("doc", {}).get("short_description")
        if not described:
            raise Failed(f"ansible-doc -t {kind} shows nothing of {name}: {entry}")


def check_playbook(name: str) -> None:
    run(["ansible-playbook", "--syntax-check", "-i", "localhost,", name, "-e", "machine_name=none", "-e", "machine_driver=generic"])


def check_inventory() -> None:
    """The inventory plugin reads a store that does not exist yet as no machines."""
    source = pathlib.Path("machines.yml")
    source.write_text(f"plugin: {COLLECTION}.machines\n", encoding="utf-8")
    os.environ["ANSIBLE_INVENTORY_UNPARSED_FAILED"] = "true"
    listed = json.loads(run(["ansible-inventory", "-i", str(source), "--list"]))
    if listed["_meta"]["hostvars"]:
        raise Failed(f"an empty store lists {listed}")


def names(folder: pathlib.Path, pattern: str) -> list[str]:
    """Full names of what matches, without files that hold no plugin."""
    return sorted(f"{COLLECTION}.{path.stem}" for path in folder.glob(pattern) if not path.stem.startswith("_"))


def checks(folder: pathlib.Path) -> t.Iterator[tuple[str, t.Callable[[], None]]]:
    """What there is to check, by a title."""
    yield "found", lambda: check_found(folder)
    for kind_folder, kind in PLUGINS.items():
        plugins = names(folder / "plugins" / kind_folder, "*.py")
        if plugins:
            yield f"ansible-doc -t {kind} ({len(plugins)})", lambda kind=kind, plugins=plugins: check_documented(kind, plugins)  # type: ignore[misc]
    roles = names(folder / "roles", "*")
    if roles:
        yield f"ansible-doc -t role ({len(roles)})", lambda: check_documented("role", roles)
    for playbook in names(folder / "playbooks", "*.yml"):
        yield f"playbook {playbook}", lambda playbook=playbook: check_playbook(playbook)  # type: ignore[misc]
    if (folder / "plugins" / "inventory" / "machines.py").exists():
        yield "inventory of an empty store", check_inventory


def main() -> int:
    folder = pathlib.Path(sys.argv[1])
    passed = failed = 0
    for title, check in checks(folder):
        try:
            check()
        except (Failed, subprocess.TimeoutExpired) as error:
            failed += 1
            print(f"FAILED {title}\n{error}")
        else:
            passed += 1
            print(f"ok     {title}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
