#!/usr/bin/env bash
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# DigitalOcean through the playbooks, against the fake on loopback. Nothing connects to the addresses that it makes up.
set -eux

python="${ANSIBLE_TEST_PYTHON_INTERPRETER:-python3}"
"$python" -c 'import pydo' || { echo "this target needs pydo: pip install pydo"; exit 1; }

work="$(mktemp -d "${TMPDIR:-/tmp}/digitalocean_machine.XXXXXX")"
"$python" ../../fakes/digitalocean.py --deadline 560 >"$work/fake.json" 2>"$work/fake.log" &
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

unset DIGITALOCEAN_TOKEN DO_API_TOKEN DO_API_KEY DO_OAUTH_TOKEN DIGITALOCEAN_ACCESS_TOKEN
export DIGITALOCEAN_API_URL="$url" MACHINE_STORAGE_PATH="$work/store" DOCKER_CONFIG="$work/docker" DOCKYARD_OWNER=tester ANSIBLE_NOCOLOR=1
run() { ansible-playbook -i inventory.yml -e "ansible_python_interpreter=$python" -e "work=$work" -e "url=$url" "$@"; }
changed() { grep -Eq "^$1 .*changed=$2 .*failed=0" "$work/out"; }

# Without a token: one clear message, and nothing is remembered.
if run dockyard.machine.provision -l web1 >"$work/out"; then exit 1; fi
grep -q 'No API token for DigitalOcean was given (option access_token)' "$work/out"
test ! -e "$work/store/machines/web1"

export DIGITALOCEAN_ACCESS_TOKEN=dop_v1_0123456789abcdef
run dockyard.machine.provision --check "$@" | tee "$work/out"
run verify.yml -e machines=0 "$@"
run dockyard.machine.provision "$@"
run verify.yml -e machines=3 "$@"
# The second run changes nothing.
run dockyard.machine.provision "$@" | tee "$work/out"
for name in web1 web2 web3; do changed "$name" 0; done
# No secret is remembered.
if grep -r dop_v1_ "$work/store"; then exit 1; fi
# Another computer, which knows only the owner, finds the same machines.
MACHINE_STORAGE_PATH="$work/other" run dockyard.machine.provision "$@"
run verify.yml -e machines=3 "$@"
run life.yml "$@"
# ... and removes them.
MACHINE_STORAGE_PATH="$work/third" run dockyard.machine.rm -l web3 "$@"
run dockyard.machine.rm "$@"
run verify.yml -e machines=0 "$@"
test -z "$(ls "$work/store/machines")"
run dockyard.machine.rm "$@" | tee "$work/out"
for name in web1 web2 web3; do changed "$name" 0; done
