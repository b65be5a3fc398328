#!/usr/bin/env bash
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Azure through the playbooks, against the fake on loopback. Nothing connects to the addresses that it makes up.
set -eux

python="${ANSIBLE_TEST_PYTHON_INTERPRETER:-python3}"
"$python" -c 'import azure.identity, azure.mgmt.compute, azure.mgmt.network, azure.mgmt.resource.resources' || {
    echo "this target needs: pip install azure-identity azure-mgmt-compute azure-mgmt-network azure-mgmt-resource"
    exit 1
}

work="$(mktemp -d "${TMPDIR:-/tmp}/azure_machine.XXXXXX")"
"$python" ../../fakes/azure.py --deadline 900 >"$work/fake.json" 2>"$work/fake.log" &
fake=$!
cleanup() {
    kill "$fake" 2>/dev/null || true
    cat "$work/fake.log" >&2
    rm -rf "$work"
}
trap cleanup EXIT
for _try in $(seq 100); do
    [ -s "$work/fake.json" ] && break
    sleep 0.1
done
url="$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["url"])' "$work/fake.json")"

unset AZURE_SUBSCRIPTION_ID AZURE_RESOURCE_GROUP AZURE_LOCATION AZURE_SIZE AZURE_IMAGE AZURE_VNET AZURE_SUBNET AZURE_STORAGE_TYPE
export MACHINE_STORAGE_PATH="$work/store" DOCKER_CONFIG="$work/docker" DOCKYARD_OWNER=tester ANSIBLE_NOCOLOR=1
run() { ansible-playbook -i inventory.yml -e "ansible_python_interpreter=$python" -e "url=$url" "$@"; }
unchanged() { for name in web1 web2 web3; do grep -Eq "^$name .*changed=0 .*failed=0" "$work/out"; done; }

# Nothing but a simulator on this computer is talked to without credentials, and nothing is remembered.
if run dockyard.machine.provision -l web1 >"$work/out"; then exit 1; fi
grep -q 'option auth_kind' "$work/out"
test ! -e "$work/store/machines/web1"

export AZURE_RESOURCE_MANAGER_ENDPOINT="$url"
if run dockyard.machine.provision -l web1 >"$work/out"; then exit 1; fi
grep -q 'option subscription_id' "$work/out"

export AZURE_SUBSCRIPTION_ID=00000000-0000-4000-8000-000000000001
run dockyard.machine.provision --check "$@"
run verify.yml -e machines=0 "$@"
run dockyard.machine.provision "$@"
run verify.yml -e machines=3 "$@"
# The second run changes nothing.
run dockyard.machine.provision "$@" | tee "$work/out"
unchanged
# Another computer, which knows only the owner, finds the same machines.
MACHINE_STORAGE_PATH="$work/other" run dockyard.machine.provision "$@"
run verify.yml -e machines=3 "$@"
run life.yml "$@"
run verify.yml -e machines=3 "$@"
# ... and removes them.
MACHINE_STORAGE_PATH="$work/third" run dockyard.machine.rm -l web3 "$@"
run dockyard.machine.rm "$@"
run verify.yml -e machines=0 "$@"
test -z "$(ls "$work/store/machines")"
run dockyard.machine.rm "$@" | tee "$work/out"
unchanged
