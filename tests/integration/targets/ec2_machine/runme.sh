#!/usr/bin/env bash
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# EC2 through the playbooks, against moto on loopback. Nothing connects to the addresses that it makes up.
set -eux

python="${ANSIBLE_TEST_PYTHON_INTERPRETER:-python3}"
"$python" -c 'import boto3, moto.server' || {
    echo "this target needs: pip install boto3 'moto[ec2,server]'"
    exit 1
}

work="$(mktemp -d "${TMPDIR:-/tmp}/ec2_machine.XXXXXX")"
"$python" ../../fakes/ec2_layer.py --deadline 900 >"$work/fake.json" 2>"$work/fake.log" &
fake=$!
cleanup() {
    kill "$fake" 2>/dev/null || true
    cat "$work/fake.log" >&2
    rm -rf "$work"
}
trap cleanup EXIT
for _try in $(seq 300); do
    [ -s "$work/fake.json" ] && break
    sleep 0.1
done
url="$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["url"])' "$work/fake.json")"

# Nothing of the user's own configuration of AWS takes part.
unset AWS_PROFILE AWS_REGION AWS_DEFAULT_REGION AWS_SESSION_TOKEN AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
export AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_EC2_METADATA_DISABLED=true
export AWS_ENDPOINT="$url" MACHINE_STORAGE_PATH="$work/store" DOCKER_CONFIG="$work/docker" DOCKYARD_OWNER=tester ANSIBLE_NOCOLOR=1 XDG_CACHE_HOME="$work/cache"
run() { ansible-playbook -i inventory.yml -e "ansible_python_interpreter=$python" -e "work=$work" -e "url=$url" "$@"; }
unchanged() { for name in web1 web2 web3; do grep -Eq "^$name .*changed=0 .*failed=0" "$work/out"; done; }
slowly() { "$python" -c 'import sys, urllib.request as u; u.urlopen(u.Request(sys.argv[1], sys.argv[2].encode(), method="POST"), timeout=10)' "$url/_control/transition" "{\"seconds\": $1}"; }

# Plain http and missing credentials: one clear message each, and nothing is remembered.
if run dockyard.machine.provision -l web1 >"$work/out"; then exit 1; fi
grep -q 'The endpoint is plain http (option endpoint)' "$work/out"
export AWS_INSECURE_TRANSPORT=true
if run dockyard.machine.provision -l web1 >"$work/out"; then exit 1; fi
grep -q 'There are no credentials for AWS (option access_key)' "$work/out"
test ! -e "$work/store/machines/web1"

export AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY
slowly 1
run dockyard.machine.provision --check "$@"
run verify.yml -e machines=0 "$@"
run dockyard.machine.provision "$@"
run verify.yml -e machines=3 "$@"
# The second run changes nothing.
run dockyard.machine.provision "$@" | tee "$work/out"
unchanged
# No secret is remembered.
if grep -rE 'AKIAIOSFODNN7EXAMPLE|wJalrXUtnFEMI' "$work/store"; then exit 1; fi
# Another computer, which knows only the owner, finds the same machines.
MACHINE_STORAGE_PATH="$work/other" run dockyard.machine.provision "$@"
run verify.yml -e machines=3 "$@"
run life.yml "$@"
run dockyard.machine.provision "$@"
run verify.yml -e machines=3 "$@"
# ... and removes them.
MACHINE_STORAGE_PATH="$work/third" run dockyard.machine.rm -l web3 "$@"
run dockyard.machine.rm "$@"
run verify.yml -e machines=0 "$@"
test -z "$(ls "$work/store/machines")"
run dockyard.machine.rm "$@" | tee "$work/out"
unchanged
