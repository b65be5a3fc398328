#!/bin/sh
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# customize.sh ROOT USER PUBLIC_KEY PACKAGE...: make a fresh root tree what a cloud image is after its first boot.
set -eu
root=$1 user=$2 key=$3
shift 3
here=$(dirname "$0")

# A login shell that reads no profile of a version manager: it runs for every SSH command.
# "plain" is the same account without sudo, for the tests of that mistake.
for name in "$user" plain; do
    chroot "$root" id "$name" >/dev/null 2>&1 || chroot "$root" useradd --create-home --shell /bin/sh "$name"
    chroot "$root" usermod --shell /bin/sh "$name"
    install -d -m 0700 "$root/home/$name/.ssh"
    install -m 0600 "$key" "$root/home/$name/.ssh/authorized_keys"
    chroot "$root" chown -R "$name:" "/home/$name"
done
echo "$user ALL=(ALL) NOPASSWD:ALL" >"$root/etc/sudoers.d/90-cloud-init-users"
chmod 0440 "$root/etc/sudoers.d/90-cloud-init-users"

# Every host makes its own: these would be the same on all of them.
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/hostname" "$root/usr/sbin/policy-rc.d"
: >"$root/etc/machine-id"
printf 'PasswordAuthentication no\nUseDNS no\n' >"$root/etc/ssh/sshd_config.d/10-tests.conf"

# What touches the machine's own hardware or kernel, or would run apt behind a test's back.
for unit in apt-daily.timer apt-daily-upgrade.timer console-getty.service dev-hugepages.mount dpkg-db-backup.timer \
    e2scrub_all.timer getty.target motd-news.timer proc-sys-fs-binfmt_misc.automount sys-fs-fuse-connections.mount \
    sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount systemd-journald-audit.socket \
    systemd-logind.service systemd-modules-load.service systemd-networkd.service systemd-networkd-wait-online.service \
    systemd-resolved.service systemd-timesyncd.service systemd-udevd.service systemd-udev-trigger.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
install -m 0755 "$here/init.sh" "$root/usr/local/sbin/host-init"

# The engine's packages are at hand but not installed: an installation is real, and needs no download.
chroot "$root" apt-get clean
chroot "$root" apt-get install --quiet=2 --yes --download-only --no-install-recommends "$@" >/dev/null
rm -rf "$root"/var/log/apt/* "$root"/var/log/dpkg.log "$root"/var/log/bootstrap.log
