#!/usr/bin/env bash
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The driver with real QEMU processes. Their disk is empty, so no guest has to boot and software emulation is quick enough.
set -eux

for program in qemu-system-x86_64 qemu-img xorriso; do
    command -v "$program" || { echo "this target needs $program: apt-get install qemu-system-x86 qemu-utils xorriso"; exit 1; }
done

work=$(mktemp -d)
cleanup() {
    # Whatever a failed test left: only processes whose machine stands in our folder.
    for record in "$work"/state*/*/machine.json; do
        [ -e "$record" ] || continue
        pid=$(cat "$(dirname "$record")/qemu.pid" 2>/dev/null) || continue
        uuid=$(sed -n 's/.*"uuid": "\(.*\)".*/\1/p' "$record")
        if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q -- "-uuid $uuid"; then kill -9 "$pid"; fi
    done
    rm -rf "$work"
}
trap cleanup EXIT

python="${ANSIBLE_TEST_PYTHON_INTERPRETER:-python3}"
qemu-img create -q -f qcow2 "$work/empty.qcow2" 64M

ansible-playbook test.yml -i localhost, -c local -e "ansible_python_interpreter=$python" -e "work=$work" "$@"
"$python" interrupted.py "$work"
