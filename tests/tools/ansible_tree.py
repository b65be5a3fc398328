# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lay the checkout out as ansible-test wants it: a real folder ``ROOT/ansible_collections/dockyard/machine`` that git knows.

ansible-test resolves symbolic links and lists files by git, so a link to the checkout is refused. Copied is what git would
commit: tracked files as they are now, and new files that are not ignored. Files that went away are removed from the copy.
Also puts ``get_pip_*.py`` into ansible-test's cache where it is missing: ansible-test would download it, and all that it has
to do, giving a new environment its pip, CPython's ``ensurepip`` does without any network.
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import subprocess

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]

# The names that ansible-core 2.16 and 2.17, 2.18 and 2.19, 2.20 and newer look for.
GET_PIP = ("get_pip_23_1_2.py", "get_pip_24_2.py", "get_pip_25_2.py")
SHIM = '''"""Gives an environment the pip that its Python bundles. Put here by the tests of dockyard.machine."""
import subprocess
import sys

subprocess.check_call([sys.executable, "-m", "ensurepip", "--default-pip"], stdout=subprocess.DEVNULL)
'''


def listed(folder: pathlib.Path) -> set[str]:
    """The files of a git work tree that are tracked or could be, relative to it; deleted ones are left out."""
    argv = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split("\0")
    return {name for name in names if name and (folder / name).is_file()}


def copy(source: pathlib.Path, target: pathlib.Path) -> int:
    """Make ``target`` hold the files of ``source`` and nothing else that git would list; return their number."""
    target.mkdir(parents=True, exist_ok=True)
    if not (target / ".git").exists():
        subprocess.run(["git", "init", "-q", str(target)], check=True)
    wanted = listed(source)
    for name in listed(target) - wanted:
        (target / name).unlink()
    for name in wanted:
        there = target / name
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, there)
    subprocess.run(["git", "-C", str(target), "add", "--all"], check=True)
    return len(wanted)


def put_get_pip(cache: pathlib.Path) -> None:
    """Write the missing stand-ins for get-pip into ansible-test's cache."""
    cache.mkdir(parents=True, exist_ok=True)
    for name in GET_PIP:
        if not (cache / name).exists():
            (cache / name).write_text(SHIM, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=pathlib.Path, help="the folder to make; it will hold ansible_collections")
    arguments = parser.parse_args()
    target = arguments.root.resolve() / "ansible_collections" / "dockyard" / "machine"
    count = copy(CHECKOUT, target)
    put_get_pip(pathlib.Path.home() / ".ansible" / "test" / "cache")
    print(f"{target}: {count} files")


if __name__ == "__main__":
    main()
