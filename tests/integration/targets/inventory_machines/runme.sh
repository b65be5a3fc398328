#!/usr/bin/env bash
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The inventory as ansible-inventory and ansible-playbook see it.

set -eux

place="$(mktemp -d "${TMPDIR:-/tmp}/inventory_machines.XXXXXX")"
trap 'rm -rf "$place"' EXIT

export ANSIBLE_LIBRARY="$PWD/library" ANSIBLE_INVENTORY_UNPARSED_FAILED=True ANSIBLE_NOCOLOR=1
unset MACHINE_STORAGE_PATH

ansible-playbook -i localhost, -e "place=$place" setup.yml "$@"
ansible-playbook -i localhost, -e "place=$place" list.yml "$@"
# Hosts reach the play with their variables, and nothing in a record is ever run as a template.
ansible-playbook -i "$place/inventory/machines.yml" -e "place=$place" play.yml "$@"
