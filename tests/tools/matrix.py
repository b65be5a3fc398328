# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unit tests and a round of uses on each supported ansible-core, each in an environment of its own under the tree.

``matrix.py --tree ROOT [--ends] [VERSION]...``: ROOT holds ``ansible_collections``. ``--ends`` takes the oldest and the newest version
only. A version is tried with the Pythons it supports, newest first, by the names they have on PATH or in pyenv. Where none is there,
the version is skipped and says so. The last line is a summary as pytest writes it; a version counts as one test beside its own.
``matrix.py --which 3.9`` only prints where a Python is, or nothing.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import typing as t

# ansible-core, and the Pythons a controller may have, those first that most have.
CORES: t.Final = {
    "2.16": ("3.11", "3.12", "3.10"),
    "2.17": ("3.12", "3.11", "3.10"),
    "2.18": ("3.12", "3.13", "3.11"),
    "2.19": ("3.11", "3.13", "3.12"),
    "2.20": ("3.12", "3.13", "3.14"),
    "2.21": ("3.13", "3.12", "3.14"),
}
HERE = pathlib.Path(__file__).resolve().parent


def works(python: str, version: str) -> bool:
    """A version manager's stand-in may be on PATH without the interpreter: find out by running."""
    code = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return False
    return done.returncode == 0 and done.stdout.strip() == version


def interpreter(version: str) -> str | None:
    """A Python of this version, or None."""
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT") or pathlib.Path.home() / ".pyenv")
    candidates = [
        f"/usr/bin/python{version}",
        f"python{version}",
        *map(str, sorted(pyenv.glob(f"versions/{version}*/bin/python{version}"))),
    ]
    return next((shutil.which(python) for python in candidates if works(python, version)), None)


def environment(core: str, python: str, version: str, tree: pathlib.Path) -> pathlib.Path:
    """The environment of one ansible-core; made when it is missing or its requirements are newer."""
    folder = tree / "matrix" / f"core-{core}-python-{version}"
    done = folder / ".done"
    requirements = [HERE.parents[1] / "requirements.txt", HERE.parent / "unit" / "requirements.txt"]
    if done.exists() and all(path.stat().st_mtime <= done.stat().st_mtime for path in requirements):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python, "-m", "venv", str(folder)], check=True, timeout=120)
    argv = [str(folder / "bin" / "pip"), "install", "-q", f"ansible-core~={core}.0"]
    for path in requirements:
        argv += ["-r", str(path)]
    subprocess.run(argv, check=True, timeout=600)
    done.touch()
    return folder


def check(folder: pathlib.Path, tree: pathlib.Path) -> bool:
    """Run the unit tests and the uses with this environment; True when both pass. Their summaries go to standard output."""
    collection = tree / "ansible_collections" / "dockyard" / "machine"
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    variables = dict(os.environ)
    variables.update(
        PATH=f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        PYTHONPATH=str(tree),
        PYTHONDONTWRITEBYTECODE="1",
        HOME=str(home),
        ANSIBLE_COLLECTIONS_PATH=str(tree),
        ANSIBLE_COLLECTIONS_SCAN_SYS_PATH="false",
        ANSIBLE_LOCALHOST_WARNING="false",
        MACHINE_STORAGE_PATH=str(home / "store"),
    )
    python = str(folder / "bin" / "python")
    runs = [
        ([python, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", str(collection / "tests" / "unit")], collection),
        ([python, str(HERE / "use_installed.py"), str(collection)], home),
    ]
    # Both run, also when the first fails.
    codes = [subprocess.run(argv, cwd=folder, env=variables, timeout=900, check=False).returncode for argv, folder in runs]
    return not any(codes)


def main() -> int:
    parser = argparse.ArgumentParser(description="Unit tests and uses on each supported ansible-core")
    parser.add_argument("--tree", type=pathlib.Path, default=pathlib.Path(".build"))
    parser.add_argument("--which", metavar="PYTHON", help="print where this Python is, and end")
    parser.add_argument("--ends", action="store_true", help="only the oldest and the newest version")
    parser.add_argument("versions", nargs="*", choices=[[], *CORES], default=[])
    arguments = parser.parse_args()
    if arguments.which:
        print(interpreter(arguments.which) or "")
        return 0
    cores = arguments.versions or ([min(CORES), max(CORES)] if arguments.ends else list(CORES))
    results: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    for core in cores:
        found = next(((python, version) for version in CORES[core] if (python := interpreter(version))), None)
        print(f"--- ansible-core {core}" + (f" on Python {found[1]}" if found else ""), flush=True)
        if found is None:
            print(f"Skipped: none of Python {', '.join(CORES[core])} is here.")
            results["skipped"].append(core)
            continue
        try:
            good = check(environment(core, *found, arguments.tree.resolve()), arguments.tree.resolve())
        except subprocess.SubprocessError as error:
            print(error)
            good = False
        results["passed" if good else "failed"].append(core)
    print(", ".join(f"{len(results[word])} {word}" for word in ("passed", "failed", "skipped")))
    return 1 if results["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
