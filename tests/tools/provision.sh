#!/bin/sh
# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# provision.sh NAME DRIVER IMAGE: what "make provision" does once the environment exists. Ends by asking the engine over TLS.
set -eu

name=$1
driver=$2
image=$3
here=$(cd "$(dirname "$0")" && pwd)
store=${MACHINE_STORAGE_PATH:-$HOME/.docker/machine}

set -- -e "machine_name=$name" -e "machine_driver=$driver"
if [ "$driver" = qemu ] && [ -z "$image" ]; then
    # What building needs was installed from bindep.txt.
    ansible-playbook "$here/demo.yml" "$@" -e image_tools=false
else
    [ -z "$image" ] || set -- "$@" -e "${driver}_image=$image"
    ansible-playbook dockyard.machine.provision "$@"
fi

# shellcheck disable=SC1090  # made by the playbook
. "$store/machines/$name/env"
# The SDK's HTTP library would prefer these to the machine's own authority.
unset REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
version=$(python -c 'import docker; print(docker.from_env(timeout=30).version()["Version"])')
cat <<END

Machine $name is ready: Docker Engine $version answered over TLS at $DOCKER_HOST

  docker --context $name info                      with the docker command
  . $store/machines/$name/env     for everything that reads DOCKER_HOST
  ssh -F $store/ssh_config $name      to log in
  make remove NAME=$name                           to remove it
END
