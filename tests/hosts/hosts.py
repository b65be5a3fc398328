# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test hosts: systemd, sshd and an account with sudo, as a cloud gives them, in containers of a private engine.

    python3 tests/hosts/hosts.py up web1 web2 --image debian-13
    python3 tests/hosts/hosts.py inventory
    python3 tests/hosts/hosts.py down --all

Prints JSON. Every command can be repeated, also after a kill.
"""

from __future__ import annotations

import argparse
import base64
import concurrent.futures
import hashlib
import ipaddress
import json
import pathlib
import sys
import time
import typing as t

import engine
import roots
from common import CACHE, RUN, Busy, HostsError, Unavailable, locked, run, say

UNAVAILABLE = 75
"""Exit code (EX_TEMPFAIL) when this machine cannot give a host, so that a test can be skipped and not passed."""

CAP_SYS_RESOURCE = 24
"""The capability's number, linux/capability.h."""

Host = dict[str, t.Any]


def _dns() -> str:
    """Name servers that a host can reach; a resolver on this machine's loopback is not one."""
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        try:
            lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        words = [line.split() for line in lines if line.startswith("nameserver ")]
        servers = [word[1] for word in words if not ipaddress.ip_address(word[1].split("%")[0]).is_loopback]
        if servers:
            return " ".join(servers)
    return ""


def _resource_limits() -> list[str]:
    """A machine's root may raise limits; where this machine's own root may not, nobody can hand that on."""
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    bounds = int(next(line.split()[1] for line in status if line.startswith("CapBnd:")), 16)
    return ["--ulimit=nofile=1048576:1048576"] if bounds >> CAP_SYS_RESOURCE & 1 else ["--cap-drop=SYS_RESOURCE"]


def import_image(image: roots.Image, fresh: bool = False) -> str:
    """The engine's name of an image, imported from its root tree if it is not there."""
    tag = f"{image.name}:{roots.recipe_hash(image)}"
    with locked(CACHE / f"import-{image.name}.lock", roots.BUILD_TIMEOUT + 200):
        if fresh or not engine.docker("image", "ls", "--quiet", tag).strip():
            tar = roots.build(image, fresh=fresh)
            engine.docker("import", '--change=ENTRYPOINT ["/usr/local/sbin/host-init"]', str(tar), tag, timeout=180)
            for line in engine.docker("image", "ls", "--format={{.Repository}}:{{.Tag}}", image.name).split():
                if line != tag:
                    engine.docker("image", "rm", "--force", line)
    return tag


def up(name: str, image: roots.Image, timeout: float) -> Host:
    """Start one host, or find it running, and wait until it lets the test key in."""
    deadline = time.monotonic() + timeout
    known = find(name)
    if known and known["running"] and known["image"] == image.name:
        return _wait(known, deadline)
    if known:
        engine.docker("rm", "--force", "--volumes", name, timeout=60)
    argv = ["run", "--detach", f"--name={name}", f"--hostname={name}", f"--network={engine.NETWORK}"]
    argv += [f"--label=image={image.name}", f"--label=user={image.user}", f"--env=HOST_DNS={_dns()}", "--env=container=docker"]
    # What a machine may do and a container may not, short of --privileged: no devices of this machine are given.
    argv += ["--cap-add=ALL", *_resource_limits(), "--cgroupns=private", "--device-cgroup-rule=a *:* rwm"]
    argv += [f"--security-opt={option}=unconfined" for option in ("seccomp", "apparmor", "systempaths")]
    # An engine cannot lay its overlay on the overlay that a container's root is.
    argv += ["--volume=/var/lib/docker", "--volume=/var/lib/containerd"]
    argv += ["--tmpfs=/run:exec,mode=755", "--tmpfs=/run/lock", "--tmpfs=/tmp:exec,mode=1777", "--stop-signal=SIGRTMIN+3"]
    engine.docker(*argv, import_image(image), timeout=60)
    started = find(name)
    if not started:
        raise HostsError(f"another run removed the host {name} while it started")
    return _wait(started, deadline)


def _wait(host: Host, deadline: float) -> Host:
    """Wait for sshd with the host's own key pinned, then for the end of the boot."""
    host["host_key"] = ""
    pins = RUN / "known_hosts" / host["name"]
    pins.parent.mkdir(parents=True, exist_ok=True)
    why = ""
    while time.monotonic() < deadline:
        try:
            key = engine.docker("exec", host["name"], "cat", "/etc/ssh/ssh_host_ed25519_key.pub", timeout=10)
            host["host_key"] = " ".join(key.split()[:2])
            pins.write_text(f"{host['name']} {host['host_key']}\n{host['address']} {host['host_key']}\n", encoding="utf-8")
            run([*ssh_command(host), "true"], timeout=10)
            _booted(host["name"], deadline)
            return host
        except HostsError as error:
            why = str(error)
            if engine.docker("inspect", "--format={{.State.Running}}", host["name"]).strip() != "true":
                break
            time.sleep(0.1)
    logs = engine.docker("logs", "--tail=15", host["name"])
    raise HostsError(f"the host {host['name']} did not come up: {why}\n{logs}")


def _booted(name: str, deadline: float) -> None:
    left = max(1, int(deadline - time.monotonic()))
    # Its exit code is 1 for "degraded" too, which names units that failed: those are the test's to judge.
    wait = f"timeout {left} systemctl is-system-running --wait || systemctl --failed --plain --no-legend"
    state = engine.docker("exec", name, "sh", "-c", wait, timeout=left + 10).strip()
    if state != "running":
        say(f"{name}: {state}")


def ssh_command(host: Host) -> list[str]:
    """The ssh command line, without a remote command, that reaches a host with its key pinned."""
    argv = ["ssh", "-F", "none", "-i", host["key"], "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
    argv += ["-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={host['known_hosts']}", "-o", "ConnectTimeout=5"]
    return [*argv, f"{host['user']}@{host['address']}"]


def find(name: str) -> Host | None:
    """A host with all that is needed to reach it, or None."""
    try:
        detail = json.loads(engine.docker("inspect", "--type=container", name))[0]
    except HostsError:
        return None
    pins = RUN / "known_hosts" / name
    return {
        "name": name,
        "image": detail["Config"]["Labels"]["image"],
        "running": detail["State"]["Running"],
        "address": detail["NetworkSettings"]["Networks"][engine.NETWORK]["IPAddress"],
        "port": 22,
        "user": detail["Config"]["Labels"]["user"],
        "key": str(roots.user_key()),
        "known_hosts": str(pins),
        "host_key": " ".join(pins.read_text(encoding="utf-8").split()[1:3]) if pins.exists() else "",
    }


def list_hosts() -> list[Host]:
    """Every host that is there; one that another run removes in this moment is not."""
    names = engine.docker("ps", "--all", "--format={{.Names}}").split() if engine.running() else []
    return [host for host in map(find, sorted(names)) if host]


def fingerprint(key: str) -> str:
    """A public key as ``ssh-keygen -l`` shows it."""
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def inventory(hosts: list[Host]) -> dict[str, t.Any]:
    """The hosts as an Ansible inventory (JSON is YAML)."""
    entries = {}
    for host in hosts:
        options = f"-F none -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile={host['known_hosts']}"
        entries[host["name"]] = {
            "ansible_host": host["address"],
            "ansible_port": host["port"],
            "ansible_user": host["user"],
            "ansible_ssh_private_key_file": host["key"],
            "ansible_ssh_common_args": options,
            "ansible_python_interpreter": "/usr/bin/python3",
            "test_host_image": host["image"],
            "test_host_fingerprint": fingerprint(host["host_key"]) if host["host_key"] else "",
        }
    return {"all": {"hosts": entries}}


def down(names: list[str], everything: bool) -> list[str]:
    """Remove hosts with their disks; with the last one the engine stops as well."""
    known = [host["name"] for host in list_hosts()]
    gone = [name for name in known if everything or name in names]
    if gone:
        engine.docker("rm", "--force", "--volumes", *gone, timeout=120)
    for name in [*gone, *names]:
        (RUN / "known_hosts" / name).unlink(missing_ok=True)
    if everything or not set(known) - set(gone):
        try:
            with locked(RUN / "users.lock", 120 if everything else 0):
                engine.stop()
        except Busy:
            say("another run is starting hosts: the engine stays")
    return gone


def _up_all(args: argparse.Namespace) -> list[Host]:
    wanted: dict[str, str] = {}
    for word in args.names:
        name, dummy, image = word.partition("=")
        wanted[name] = image or args.image
        if wanted[name] not in roots.IMAGES:
            raise HostsError(f"no such image: {wanted[name]}; there are {', '.join(roots.IMAGES)}")
    # Shared by all that start hosts, so that nobody who removes the last one stops the engine under them.
    with locked(RUN / "users.lock", 120, shared=True), concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
        with locked(RUN / "lock", 120):
            engine.start()
        imports = {image: pool.submit(import_image, roots.IMAGES[image]) for image in sorted(set(wanted.values()))}
        for image, future in imports.items():
            if args.skip_unavailable and isinstance(future.exception(), Unavailable):
                say(f"skipped, not tested: {image}: {future.exception()}")
                wanted = {name: other for name, other in wanted.items() if other != image}
            else:
                future.result()
        futures = [pool.submit(up, name, roots.IMAGES[image], args.timeout) for name, image in wanted.items()]
        return [future.result() for future in futures]


def _build_all(args: argparse.Namespace) -> list[dict[str, str]]:
    images = [roots.IMAGES[name] for name in args.images or roots.IMAGES]
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        tars = list(pool.map(lambda image: roots.build(image, args.fresh), images))
    return [{"image": image.name, "tar": str(tar)} for image, tar in zip(images, tars)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("up", help="start hosts and wait until SSH lets the test key in")
    verb.add_argument("names", nargs="+", metavar="NAME[=IMAGE]")
    verb.add_argument("--image", default="debian-12", choices=sorted(roots.IMAGES))
    verb.add_argument("--skip-unavailable", action="store_true", help="leave hosts out whose distribution is not reachable")
    verb.add_argument("--timeout", type=float, default=90, help="seconds for one host, without the building of its image")
    verb = verbs.add_parser("down", help="remove hosts; with the last one everything that was started")
    verb.add_argument("names", nargs="*", metavar="NAME")
    verb.add_argument("--all", action="store_true")
    verb = verbs.add_parser("build", help="make the root trees, all by default")
    verb.add_argument("images", nargs="*", metavar="IMAGE", choices=[[], *roots.IMAGES])
    verb.add_argument("--fresh", action="store_true", help="also where the cache has one")
    verbs.add_parser("list", help="the hosts that are there")
    verb = verbs.add_parser("inventory", help="the same as an Ansible inventory")
    verb.add_argument("names", nargs="*", metavar="NAME", help="only these, where they are there")
    verbs.add_parser("probe-image", help="the path of a small image to import into an engine")
    verb = verbs.add_parser("exec", help="run a command as root in a host, past SSH")
    verb.add_argument("name")
    verb.add_argument("command", nargs=argparse.REMAINDER)
    return parser


def main() -> int:
    args = _parser().parse_args()
    result: t.Any
    try:
        if args.verb == "up":
            result = _up_all(args)
        elif args.verb == "down":
            with locked(RUN / "lock", 120):
                result = down(args.names, args.all)
        elif args.verb == "build":
            result = _build_all(args)
        elif args.verb == "exec":
            print(engine.docker("exec", args.name, *args.command, timeout=600), end="")
            return 0
        elif args.verb == "probe-image":
            result = str(roots.probe_image())
        else:
            result = list_hosts()
            if args.verb == "inventory":
                result = inventory([host for host in result if not args.names or host["name"] in args.names])
    except Unavailable as error:
        say(f"skipped: {error}")
        return UNAVAILABLE
    except HostsError as error:
        say(f"error: {error}")
        return 1
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
