# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What provisioning an existing host costs, next to its floor in the same run.

    python benchmarks/provision.py [--repeats 3] [--image debian-12] [--output benchmarks/results]

Each repeat takes two fresh hosts, as a cloud hands them out. One gets the floor: a single shell script over one SSH
connection that does the same to the host (package lists, engine, certificates, drop-in, daemon.json, restart). The other
gets ``dockyard.machine.provision``, first fresh and then once more unchanged. Which comes first alternates, so that
neither has the warmer caches throughout. CPU is that of this machine's processes (the controller), without the hosts'.

Needs root and what tests/hosts/README.md names. Run it with the Python whose ``ansible-playbook`` is to be measured.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import pathlib
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOSTS = [sys.executable, str(ROOT / "tests/hosts/hosts.py")]
TIMEOUT = 600

# The floor writes what the role writes, with the same restart at its end, and nothing else.
FLOOR = """set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install --yes --no-install-recommends docker.io {packages} >/dev/null
install -d -m 0755 /etc/docker/tls /etc/systemd/system/docker.service.d
umask 077
cat >/etc/docker/tls/ca.pem <<'EOF'
{ca}EOF
cat >/etc/docker/tls/cert.pem <<'EOF'
{certificate}EOF
cat >/etc/docker/tls/key.pem <<'EOF'
{key}EOF
chmod 0444 /etc/docker/tls/ca.pem /etc/docker/tls/cert.pem
umask 022
cat >/etc/docker/daemon.json <<'EOF'
{{"tlsverify": true, "tlscacert": "/etc/docker/tls/ca.pem", "tlscert": "/etc/docker/tls/cert.pem",
 "tlskey": "/etc/docker/tls/key.pem", "live-restore": true, "log-driver": "local"}}
EOF
cat >/etc/systemd/system/docker.service.d/tls.conf <<'EOF'
[Service]
ExecStart=
ExecStart=/usr/sbin/dockerd -H fd:// -H tcp://0.0.0.0:2376
EOF
systemctl daemon-reload
systemctl restart docker
docker version --format '{{{{.Server.Version}}}}'
"""

Host = dict[str, t.Any]
Cost = dict[str, float]


def call(argv: list[str], **kwargs: t.Any) -> str:
    """Run a program; its output is shown only when it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, check=False, **kwargs)
    if done.returncode:
        sys.exit(f"exit code {done.returncode}: {' '.join(argv)[:300]}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}")
    return str(done.stdout)


def measured(argv: list[str], **kwargs: t.Any) -> tuple[Cost, str]:
    """Wall and CPU seconds of a program with its children, and what it printed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    said = call(argv, **kwargs)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"wall": wall, "cpu": cpu}, said


def host_key_fingerprint(key: str) -> str:
    """A public key as ``ssh-keygen -l`` shows it."""
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def certificates(folder: pathlib.Path, address: str) -> dict[str, str]:
    """A CA and a server certificate: made before the clock starts, the floor has only to write them."""
    subject = ["-subj", "/CN=floor", "-addext", f"subjectAltName=IP:{address}", "-days", "30"]
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    call([*new, *subject, "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")])
    certificate = (folder / "cert.pem").read_text(encoding="utf-8")
    return {"ca": certificate, "certificate": certificate, "key": (folder / "key.pem").read_text(encoding="utf-8")}


def floor(host: Host, scratch: pathlib.Path) -> Cost:
    """The shell script, over one connection."""
    packages = "docker-cli" if host["image"] == "debian-13" else ""
    script = FLOOR.format(packages=packages, **certificates(scratch, host["address"]))
    ssh = ["ssh", "-F", "none", "-i", host["key"], "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ControlPath=none"]
    ssh += ["-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={host['known_hosts']}"]
    cost, said = measured([*ssh, f"{host['user']}@{host['address']}", "sudo sh"], input=script)
    if not re.match(r"\d+\.\d+", said.strip()):
        sys.exit(f"the floor did not end with a running engine: {said}")
    return cost


def provision(host: Host, scratch: pathlib.Path) -> tuple[Cost, Cost]:
    """The playbook on a fresh host, and again."""
    entry = {
        "ansible_host": host["address"],
        "ansible_user": host["user"],
        "ansible_ssh_private_key_file": host["key"],
        "machine_driver": "generic",
        "machine_host_key_fingerprint": host_key_fingerprint(host["host_key"]),
    }
    inventory = scratch / "inventory.yml"
    inventory.write_text(json.dumps({"machines": {"hosts": {host["name"]: entry}}}), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "DOCKER_", "MACHINE_"))}
    environment.update(MACHINE_STORAGE_PATH=str(scratch / "store"), DOCKER_CONFIG=str(scratch / "docker"), NO_COLOR="1")
    # Ansible's own defaults are measured, not this person's settings.
    settings = scratch / "ansible.cfg"
    settings.touch()
    environment["ANSIBLE_CONFIG"] = str(settings)
    if "ANSIBLE_COLLECTIONS_PATH" in os.environ:
        environment["ANSIBLE_COLLECTIONS_PATH"] = os.environ["ANSIBLE_COLLECTIONS_PATH"]
    here = pathlib.Path(sys.executable).parent / "ansible-playbook"
    program = str(here) if here.exists() else shutil.which("ansible-playbook") or "ansible-playbook"
    argv = [program, "-i", str(inventory), "dockyard.machine.provision"]
    first, said = measured(argv, env=environment)
    if not re.search(rf"^{host['name']} .*changed=[1-9]", said, re.M):
        sys.exit(f"the first run changed nothing, so it is not what was to be measured\n{said}")
    second, said = measured(argv, env=environment)
    if re.search(r"changed=[1-9]", said):
        sys.exit(f"the second run changed something\n{said}")
    return first, second


def repeat(number: int, image: str) -> dict[str, Cost]:
    """One pair of fresh hosts."""
    names = [f"b-floor{number}", f"b-ours{number}"]
    with tempfile.TemporaryDirectory(prefix="dockyard-bench-") as folder:
        scratch = pathlib.Path(folder)
        try:
            hosts = {host["name"]: host for host in json.loads(call([*HOSTS, "up", "--image", image, *names]))}
            costs: dict[str, Cost] = {}
            for turn in (0, 1) if number % 2 else (1, 0):
                if turn:
                    costs["floor"] = floor(hosts[names[0]], scratch)
                else:
                    costs["first"], costs["second"] = provision(hosts[names[1]], scratch)
        finally:
            call([*HOSTS, "down", *names])
    return costs


def summary(runs: list[dict[str, Cost]]) -> dict[str, Cost]:
    """Medians of wall and CPU, with the least and the most of wall."""
    out: dict[str, Cost] = {}
    for what in ("floor", "first", "second"):
        walls = [run[what]["wall"] for run in runs]
        cpus = [run[what]["cpu"] for run in runs]
        out[what] = {"wall": statistics.median(walls), "least": min(walls), "most": max(walls), "cpu": statistics.median(cpus)}
    return out


def judged(costs: dict[str, Cost]) -> list[tuple[str, float, float]]:
    """What was aimed at: name, measured, at most."""
    return [
        ("first provision, wall", costs["first"]["wall"], 1.3 * costs["floor"]["wall"] + 6),
        ("second provision, wall", costs["second"]["wall"], 8.0),
        ("second provision, controller's CPU", costs["second"]["cpu"], 5.0),
    ]


def table(costs: dict[str, Cost], image: str, repeats: int) -> str:
    """The figures in Markdown."""
    names = {"floor": "floor: one shell script over SSH", "first": "provision, fresh host", "second": "provision, unchanged"}
    lines = [f"{image}, {repeats} repeats, medians in seconds, {os.cpu_count()} cores, Python {platform.python_version()}", ""]
    lines += ["| what | wall | least to most | of the floor | controller's CPU |", "| --- | --- | --- | --- | --- |"]
    for what, name in names.items():
        cost = costs[what]
        ratio = cost["wall"] / costs["floor"]["wall"]
        lines.append(f"| {name} | {cost['wall']:.1f} | {cost['least']:.1f} to {cost['most']:.1f} | {ratio:.2f} | {cost['cpu']:.1f} |")
    lines += ["", "| target | measured | at most | |", "| --- | --- | --- | --- |"]
    for name, value, limit in judged(costs):
        lines.append(f"| {name} | {value:.1f} | {limit:.1f} | {'met' if value <= limit else '**missed**'} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--image", default="debian-12", choices=["debian-12", "debian-13", "ubuntu-24.04"])
    parser.add_argument("--output", type=pathlib.Path, help="folder for provision-IMAGE.json and .md")
    parser.add_argument("--enforce", action="store_true", help="fail when a target is missed")
    args = parser.parse_args()
    runs = [repeat(number, args.image) for number in range(args.repeats)]
    costs = summary(runs)
    text = table(costs, args.image, args.repeats)
    print(text)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        data = {"image": args.image, "runs": runs, "medians": costs, "cores": os.cpu_count(), "load": os.getloadavg()}
        (args.output / f"provision-{args.image}.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        (args.output / f"provision-{args.image}.md").write_text(text, encoding="utf-8")
    missed = [name for name, value, limit in judged(costs) if value > limit]
    return 1 if missed and args.enforce else 0


if __name__ == "__main__":
    sys.exit(main())
