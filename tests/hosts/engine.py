# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A private Docker Engine for test hosts, and the network they are on.

It has its own socket, data, containerd name space and bridge, so an engine that this machine already runs is not
touched. Its only marks outside are three packet filter rules with a comment and the forwarding switch; both are
taken back when it stops.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

from common import CACHE, RUN, HostsError, run, say

SOCKET = RUN / "docker.sock"
NETWORK = "dockyard-tests"
BRIDGE = "dockyard0"
_PID = RUN / "docker.pid"
_LOG = RUN / "docker.log"
_FORWARDING = pathlib.Path("/proc/sys/net/ipv4/ip_forward")
_SAVED_FORWARDING = RUN / "ip_forward"
_SUBNET = RUN / "subnet"


def docker(*words: str, timeout: float = 30) -> str:
    """Run the docker client against the private engine and return its stdout."""
    # The distribution's client: one elsewhere on PATH may be too new for the distribution's engine.
    client = "/usr/bin/docker" if os.path.exists("/usr/bin/docker") else "docker"
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return run([client, "--host", f"unix://{SOCKET}", *words], timeout=timeout, env=kept)


def running() -> bool:
    """Whether the private engine answers."""
    try:
        docker("version", "--format", "{{.Server.Version}}", timeout=10)
    except HostsError:
        return False
    return True


def start(timeout: float = 60) -> None:
    """Start the engine and its network; nothing to do where they are there."""
    if os.geteuid() != 0:
        raise HostsError("test hosts need root: they are containers of a private Docker Engine. Run this as root")
    if not running():
        _stop_process()
        _clear_leftovers()
        _spawn(timeout)
    if NETWORK not in docker("network", "ls", "--format", "{{.Name}}").split():
        subnet = str(_free_subnet())
        options = [f"--opt=com.docker.network.bridge.name={BRIDGE}", f"--opt=com.docker.network.driver.mtu={_mtu()}"]
        docker("network", "create", "--driver=bridge", f"--subnet={subnet}", *options, NETWORK)
    network = json.loads(docker("network", "inspect", NETWORK))[0]
    _open_network(network["IPAM"]["Config"][0]["Subnet"])


def stop() -> None:
    """Stop the engine and take back what it changed on this machine; its image cache stays."""
    containers = CACHE / "docker/containers"
    if not running() and containers.is_dir() and any(containers.iterdir()):
        # A killed engine left hosts: only an engine knows which disks are theirs.
        _stop_process()
        _clear_leftovers()
        _spawn(60)
    if running():
        for name in docker("ps", "--all", "--quiet").split():
            docker("rm", "--force", "--volumes", name, timeout=60)
        if NETWORK in docker("network", "ls", "--format", "{{.Name}}").split():
            docker("network", "rm", NETWORK)
    _close_network()
    _stop_process()
    _clear_leftovers()
    if shutil.which("ip") and os.path.exists(f"/sys/class/net/{BRIDGE}"):
        run(["ip", "link", "delete", BRIDGE])


def _spawn(timeout: float) -> None:
    RUN.mkdir(parents=True, exist_ok=True)
    config = RUN / "daemon.json"
    config.write_text("{}\n", encoding="utf-8")
    argv = ["dockerd", f"--config-file={config}", f"--data-root={CACHE / 'docker'}", f"--exec-root={RUN / 'exec'}"]
    argv += [f"--pidfile={_PID}", f"--host=unix://{SOCKET}", "--bridge=none", "--userland-proxy=false"]
    argv += ["--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false", "--log-level=warn"]
    argv += ["--containerd-namespace=dockyard-tests", "--containerd-plugins-namespace=dockyard-tests-plugins"]
    # A file system in memory under the engine's own would be lost or unusable as an upper layer: say it early.
    (CACHE / "docker").mkdir(parents=True, exist_ok=True)
    with open(_LOG, "ab") as log:
        try:
            # A session of its own: Ctrl-C on the test run must not take the hosts away before their removal.
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        except FileNotFoundError as error:
            raise HostsError("dockerd is not installed: install the package docker.io") from error
    deadline = time.monotonic() + timeout
    while not running():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            tail = "\n".join(_LOG.read_text(errors="replace").splitlines()[-15:])
            raise HostsError(f"the private Docker Engine did not come up within {timeout:g} s; {_LOG} ends with\n{tail}")
        time.sleep(0.1)


def _our_process() -> int | None:
    """The pid of our dockerd; a number in a file alone may be somebody else's process by now."""
    try:
        pid = int(_PID.read_text())
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (OSError, ValueError):
        return None
    return pid if f"--pidfile={_PID}" in command else None


def _stop_process(timeout: float = 40) -> None:
    pid = _our_process()
    deadline = time.monotonic() + timeout
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
    while pid is not None and _our_process() == pid:
        if time.monotonic() > deadline:
            say("the private Docker Engine does not stop: killing it")
            os.kill(pid, signal.SIGKILL)
            time.sleep(1)
            break
        time.sleep(0.1)
    for path in (_PID, SOCKET):
        path.unlink(missing_ok=True)


def _clear_leftovers() -> None:
    """What a killed engine leaves running and mounted; a new one cannot start over it.

    Processes are ours when their command line names our containerd's own socket or configuration.
    """
    marks = {str(RUN / "exec/containerd/containerd.sock"), str(RUN / "exec/containerd/containerd.toml")}
    ours, parents = set(), {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = set((folder / "cmdline").read_bytes().decode(errors="replace").split("\0"))
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if words & marks:
            ours.add(int(folder.name))
    # The first process of a container takes all others of its name space with it.
    for pid in [pid for pid, parent in parents.items() if parent in ours] + sorted(ours):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in ours) and time.monotonic() < deadline:
        time.sleep(0.05)
    roots = (f"{RUN}/exec/", f"{CACHE}/docker/")
    mounts = [line.split()[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed(mounts):
        if f"{mount}/".startswith(roots):
            run(["umount", "--lazy", mount])
    shutil.rmtree(RUN / "exec", ignore_errors=True)


def _free_subnet() -> ipaddress.IPv4Network:
    """A private /24 that no route of this machine covers, so that no address outside can be meant by it."""
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]) or "[]")
    taken = [ipaddress.ip_network(route["dst"], strict=False) for route in routes if route["dst"][0].isdigit()]
    for third in range(77, 177):
        subnet = ipaddress.IPv4Network(f"10.213.{third}.0/24")
        if not any(subnet.overlaps(other) for other in taken if other.prefixlen):
            return subnet
    raise HostsError("no free network between 10.213.77.0/24 and 10.213.176.0/24 on this machine")


def _mtu() -> int:
    """The packet size of the way out: a larger one on the bridge stalls downloads where path discovery is filtered."""
    sizes = [1500]
    for route in json.loads(run(["ip", "-json", "-4", "route", "show", "default"]) or "[]"):
        sizes.append(int(pathlib.Path(f"/sys/class/net/{route['dev']}/mtu").read_text()))
    return min(sizes)


def _rules(subnet: str) -> list[list[str]]:
    """The packet filter rules that let hosts fetch packages: out through this machine, nothing new from outside in."""
    mark = ["-m", "comment", "--comment", NETWORK]
    answers = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]
    return [
        ["nat", "POSTROUTING", "-s", subnet, "!", "-o", BRIDGE, *mark, "-j", "MASQUERADE"],
        ["filter", "FORWARD", "-i", BRIDGE, *mark, "-j", "ACCEPT"],
        ["filter", "FORWARD", "-o", BRIDGE, *answers, *mark, "-j", "ACCEPT"],
    ]


def _iptables(table: str, verb: str, rule: list[str]) -> bool:
    done = subprocess.run(["iptables", "--wait", "10", "-t", table, verb, *rule], capture_output=True, timeout=30, check=False)
    return done.returncode == 0


def _open_network(subnet: str) -> None:
    if not _SAVED_FORWARDING.exists():
        _SAVED_FORWARDING.write_text(_FORWARDING.read_text())
    _FORWARDING.write_text("1\n")
    _SUBNET.write_text(subnet)
    for table, *rule in _rules(subnet):
        if not _iptables(table, "--check", rule) and not _iptables(table, "--insert", rule):
            raise HostsError(f"cannot add the packet filter rule: iptables -t {table} --insert {' '.join(rule)}")


def _close_network() -> None:
    if _SUBNET.exists():
        for table, *rule in _rules(_SUBNET.read_text().strip()):
            while _iptables(table, "--delete", rule):
                pass
        _SUBNET.unlink()
    if _SAVED_FORWARDING.exists():
        _FORWARDING.write_text(_SAVED_FORWARDING.read_text())
        _SAVED_FORWARDING.unlink()
