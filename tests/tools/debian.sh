#!/bin/sh
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# debian.sh PROFILE...: install the Debian packages of bindep.txt that are missing (the unnamed profile always counts).
# Plain sh: on a fresh host there may be no Python yet. On other systems it only says what is wanted.
set -eu

client=
file=$(dirname "$0")/../../bindep.txt
profiles=" $* "
wanted=$(
    while read -r package selector; do
        case "$package" in '#'* | '') continue ;; esac
        case "$selector" in *platform:dpkg*) ;; *) continue ;; esac
        profile=$(printf '%s' "$selector" | sed 's/.*platform:dpkg *//; s/].*//')
        case "$profiles" in *" ${profile:-} "*) echo "$package" ;; *) [ -n "$profile" ] || echo "$package" ;; esac
    done <"$file"
)

if ! command -v apt-get >/dev/null 2>&1; then
    echo "Not Debian or Ubuntu: nothing is installed. Wanted, under Debian's names: $(echo "$wanted" | tr "\n" " ")"
    exit 0
fi

missing=
for package in $wanted; do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
# The docker command is a package of its own from Debian 13 on, and part of docker.io before.
case "$profiles" in
    *" local "*)
        command -v docker >/dev/null 2>&1 || client=wanted
        ;;
esac
[ -n "$missing$client" ] || exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || {
        echo "Missing packages, and this is not root and there is no sudo. As root: apt-get install$missing" >&2
        exit 1
    }
    as_root=sudo
fi
$as_root apt-get -q -o DPkg::Lock::Timeout=300 update
if [ -n "$client" ]; then
    candidate=$(apt-cache policy docker-cli 2>/dev/null | sed -n 's/^  Candidate: //p')
    case "$candidate" in '' | '(none)') missing="$missing docker.io" ;; *) missing="$missing docker-cli" ;; esac
fi
echo "Installing from Debian:$missing"
# shellcheck disable=SC2086  # a list of words
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends $missing
