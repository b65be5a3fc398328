#!/bin/sh
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Entry point of a test host: give systemd and an inner engine the mounts that a machine has, then become init.
set -eu

mount -o remount,bind,rw /sys
mount --make-rshared /

# A private cgroup v2 tree, as the distributions boot with, also where the machine itself still mounts v1.
# The list is read to its end first: unmounting changes it.
mounts=$(awk '$5 ~ "^/sys/fs/cgroup/" {print $5}' /proc/self/mountinfo | sort -r)
for mount in $mounts; do
    umount "$mount"
done
umount /sys/fs/cgroup
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup

# The outer engine's resolver lives behind rules in this namespace that the inner engine may flush.
if [ -n "${HOST_DNS:-}" ]; then
    for server in $HOST_DNS; do
        echo "nameserver $server"
    done >/etc/resolv.conf
fi

[ -e /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -A
unset HOST_DNS
exec /sbin/init
