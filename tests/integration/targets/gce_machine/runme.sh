#!/usr/bin/env bash
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Compute Engine through the playbooks, against the fake on loopback. Nothing connects to the addresses that it makes up.
set -eux

python="${ANSIBLE_TEST_PYTHON_INTERPRETER:-python3}"
"$python" -c 'import google.cloud.compute_v1, googleapiclient' || {
    echo "this target needs: pip install google-cloud-compute google-api-python-client"
    exit 1
}

work="$(mktemp -d "${TMPDIR:-/tmp}/gce_machine.XXXXXX")"
"$python" ../../fakes/gce.py --deadline 900 >"$work/fake.json" 2>"$work/fake.log" &
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

unset GOOGLE_PROJECT GOOGLE_CLOUD_PROJECT GCP_PROJECT GCE_PROJECT CLOUDSDK_CORE_PROJECT
export MACHINE_STORAGE_PATH="$work/store" DOCKER_CONFIG="$work/docker" DOCKYARD_OWNER=tester ANSIBLE_NOCOLOR=1
run() { ansible-playbook -i inventory.yml -e "ansible_python_interpreter=$python" -e "url=$url" "$@"; }
unchanged() { for name in web1 web2 web3; do grep -Eq "^$name .*changed=0 .*failed=0" "$work/out"; done; }

# Nothing but a simulator on this computer is talked to without credentials, and nothing is remembered.
if run dockyard.machine.provision -l web1 >"$work/out"; then exit 1; fi
grep -q 'option auth_kind' "$work/out"
test ! -e "$work/store/machines/web1"

export GOOGLE_COMPUTE_CUSTOM_ENDPOINT="$url"
if run dockyard.machine.provision -l web1 >"$work/out"; then exit 1; fi
grep -q 'option project' "$work/out"

export GCE_PROJECT=demo
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
