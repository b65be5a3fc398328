#!/bin/sh
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# installed.sh TREE ROOT: build the collection, check it as Galaxy does, install it under ROOT and use it from there.
# Nothing of the checkout is in reach of the last step: python runs isolated from it, HOME and the working folder are empty.
set -eu

tree=$1
root=$2
here=$(cd "$(dirname "$0")" && pwd)
rm -rf "$root"
mkdir -p "$root/dist" "$root/collections" "$root/home" "$root/importer"

cd "$tree"
ansible-galaxy collection build --force --output-path "$root/dist" .
tarball=$(ls "$root"/dist/dockyard-machine-*.tar.gz)

# What must not travel: leftovers of tests, environments, caches.
if tar -tzf "$tarball" | grep -E '(^|/)(\.venv|\.build|\.git|\.ansible|__pycache__|output|\.mypy_cache)(/|$)|\.tar\.gz$'; then
    echo 'The tarball holds the files above, which are not part of the collection.' >&2
    exit 1
fi

echo '--- as Galaxy imports it'
cp "$tarball" "$root/importer/"
cd "$root/importer"
GALAXY_IMPORTER_CONFIG="$here/galaxy-importer.cfg" HOME="$root/home" \
    python -m galaxy_importer.main "$root/importer/$(basename "$tarball")" >importer.log 2>&1 || {
    cat importer.log
    exit 1
}
grep -vE '^(DEBUG|$)' importer.log | tail -n 40
if grep -E '^(ERROR|WARNING)' importer.log; then
    echo 'The importer found the above.' >&2
    exit 1
fi

echo '--- installed, and used from there'
export ANSIBLE_COLLECTIONS_PATH="$root/collections" HOME="$root/home" MACHINE_STORAGE_PATH="$root/home/store"
export ANSIBLE_COLLECTIONS_SCAN_SYS_PATH=false ANSIBLE_LOCALHOST_WARNING=false
cd "$root/home"
ansible-galaxy collection install --offline -p "$root/collections" "$tarball"
ansible-galaxy collection verify --offline dockyard.machine
python "$here/use_installed.py" "$root/collections/ansible_collections/dockyard/machine"
