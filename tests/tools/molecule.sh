#!/bin/sh
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# molecule.sh [SCENARIO...]: run these scenarios; without names all. Each gets a working folder in this
# checkout: molecule's own is shared by all checkouts of a collection. The last line is a summary as pytest writes it.
set -u
cd "$(dirname "$0")/../.." || exit 1

if [ $# = 0 ]; then
    for file in molecule/*/molecule.yml; do
        [ -f "$file" ] || continue
        set -- "$@" "$(basename "$(dirname "$file")")"
    done
fi
[ $# != 0 ] || {
    echo 'There is no scenario.' >&2
    exit 1
}

passed=0
failed=0
for scenario in "$@"; do
    echo "--- $scenario"
    started=$(date +%s)
    MOLECULE_EPHEMERAL_DIRECTORY=$PWD/.build/molecule/$scenario
    export MOLECULE_EPHEMERAL_DIRECTORY
    mkdir -p "$MOLECULE_EPHEMERAL_DIRECTORY"
    if molecule --base-config molecule/base.yml test --scenario-name "$scenario" </dev/null; then
        passed=$((passed + 1))
        word=ok
    else
        failed=$((failed + 1))
        word=FAILED
    fi
    echo "$word $scenario ($(($(date +%s) - started)) s)"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
