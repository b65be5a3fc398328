# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What creating many EC2 machines costs, next to its floor in the same run.

    python benchmarks/ec2.py [--machines 100] [--forks 20] [--output benchmarks/results]

The floor is one Python process that looks up image, type and VPC and makes the security group once, and then for each machine imports a
key, runs the instance and looks until it runs, from a pool of as many threads as there are forks. ``dockyard.machine.provision`` does
the same for as many inventory hosts, each with its own record, key and first-boot configuration, without waiting for SSH. Then it runs
once more, unchanged. Both talk to moto behind tests/integration/fakes/ec2_layer.py, a process of its own on the same computer. CPU is
that of the controller's processes, without moto's.

Needs: pip install boto3 'moto[ec2,server]'. Run it with the Python whose ``ansible-playbook`` is to be measured.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import platform
import resource
import subprocess
import sys
import tempfile
import time
import typing as t
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAYER = ROOT / "tests" / "integration" / "fakes" / "ec2_layer.py"
TIMEOUT = 1800

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBqG0m7Wc4JmT0y3cPj0oNf2vR8b1m4d7JrQk3E5n9sT floor"


class Account:
    """moto behind our layer, in a process of its own."""

    def __init__(self) -> None:
        command = [sys.executable, str(LAYER), "--deadline", str(3 * TIMEOUT)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = str(json.loads(self.process.stdout.readline())["url"])

    def order(self, verb: str, data: dict[str, t.Any] | None = None) -> t.Any:
        """Ask the layer (GET), or tell it something (POST)."""
        body = None if data is None else json.dumps(data).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/_control/{verb}", body), timeout=60) as answer:
            return json.load(answer)

    def calls(self) -> collections.Counter[str]:
        """API calls since the last reset, by name."""
        return collections.Counter(entry["operation"] for entry in self.order("log"))

    def check(self, machines: int) -> None:
        """All machines are there, each with key, disk and interface, and they share one group."""
        state = self.order("state")
        assert state["problems"] == [], state["problems"]
        assert len(state["machines"]) == machines, f"{len(state['machines'])} of {machines} machines are there"
        assert {machine["state"] for machine in state["machines"]} == {"running"}
        assert len(state["resources"]) == 4 * machines + 1, f"{len(state['resources'])} resources for {machines} machines"
        assert len(state["rules"]) == 1


def measured(command: t.Sequence[str], environment: dict[str, str]) -> dict[str, t.Any]:
    """Run to the end; wall and CPU seconds of it and its children."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": round(wall, 2), "cpu": round(cpu, 2), "output": done.stdout}


def floor(machines: int, threads: int) -> None:
    """The bare script."""
    import boto3

    api = boto3.client("ec2")
    image = max(
        api.describe_images(Owners=["136693071363"], Filters=[{"Name": "name", "Values": ["debian-12-amd64-*"]}])["Images"],
        key=lambda entry: str(entry["CreationDate"]),
    )
    api.describe_instance_types(InstanceTypes=["t3.micro"])
    vpc = api.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    tags = [{"Key": "dockyard-machine", "Value": "floor"}, {"Key": "dockyard-machine-owner", "Value": "floor"}]

    def tagged(*kinds: str) -> list[dict[str, t.Any]]:
        return [{"ResourceType": kind, "Tags": tags} for kind in kinds]

    group = api.create_security_group(GroupName="floor", Description="floor", VpcId=vpc, TagSpecifications=tagged("security-group"))[
        "GroupId"
    ]
    api.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[
            {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": "127.0.0.1/32"}]} for port in (22, 2376)
        ],
    )

    def make(number: int) -> str:
        name = f"floor{number}"
        api.import_key_pair(KeyName=name, PublicKeyMaterial=PUBLIC_KEY.encode(), TagSpecifications=tagged("key-pair"))
        instance = api.run_instances(
            ImageId=image["ImageId"],
            InstanceType="t3.micro",
            MinCount=1,
            MaxCount=1,
            KeyName=name,
            UserData="#cloud-config\n",
            ClientToken=name,
            NetworkInterfaces=[{"DeviceIndex": 0, "Groups": [group], "AssociatePublicIpAddress": True, "DeleteOnTermination": True}],
            BlockDeviceMappings=[
                {"DeviceName": image["RootDeviceName"], "Ebs": {"VolumeSize": 16, "VolumeType": "gp3", "Encrypted": True}}
            ],
            MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
            TagSpecifications=tagged("instance", "volume", "network-interface"),
        )["Instances"][0]
        while True:
            found = api.describe_instances(InstanceIds=[instance["InstanceId"]])["Reservations"][0]["Instances"][0]
            if found["State"]["Name"] == "running" and found.get("PublicIpAddress"):
                return str(found["PublicIpAddress"])
            time.sleep(1)

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        assert len(list(pool.map(make, range(machines)))) == machines


def run(machines: int, forks: int, seconds: float) -> dict[str, t.Any]:
    """Floor, provision, provision again."""
    account = Account()
    environment = {
        "AWS_ENDPOINT": account.url,
        "AWS_ENDPOINT_URL": account.url,
        "AWS_INSECURE_TRANSPORT": "true",
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "ANSIBLE_NOCOLOR": "1",
    }
    results: dict[str, t.Any] = {
        "machines": machines,
        "forks": forks,
        "seconds pending": seconds,
        "computer": platform.platform(),
        "cpus": os.cpu_count(),
    }
    try:
        with tempfile.TemporaryDirectory() as work:
            environment.update(
                MACHINE_STORAGE_PATH=f"{work}/store", DOCKER_CONFIG=f"{work}/docker", HOME=work, XDG_CACHE_HOME=f"{work}/cache"
            )
            names = [f"web{number}" for number in range(machines)]
            hosts = {
                "machines": {
                    "hosts": dict.fromkeys(names),
                    "vars": {"machine_driver": "ec2", "machine_wait": False, "provision_engine": False},
                }
            }
            hosts["machines"]["vars"]["ansible_python_interpreter"] = sys.executable
            inventory = pathlib.Path(work, "inventory.json")
            inventory.write_text(json.dumps(hosts), encoding="utf-8")
            playbook = pathlib.Path(sys.executable).with_name("ansible-playbook")
            provision = [str(playbook), "-i", str(inventory), "--forks", str(forks), "dockyard.machine.provision"]
            script = [sys.executable, __file__, "--floor", "--machines", str(machines), "--forks", str(forks)]
            for name, command in (("floor", script), ("provision", provision), ("unchanged", provision)):
                if name != "unchanged":
                    account.order("reset", {})
                    account.order("transition", {"seconds": seconds})
                before = account.calls()
                results[name] = measured(command, environment)
                output = results[name].pop("output")
                results[name]["calls"] = dict(account.calls() - before)
                results[name]["calls a machine"] = round(sum(results[name]["calls"].values()) / machines, 2)
                account.check(machines)
                if name == "unchanged":
                    assert output.count("changed=0") == machines + 1, "the second run changed something"
    finally:
        account.process.terminate()
        account.process.wait(30)
    results["wall ratio"] = round(results["provision"]["wall"] / results["floor"]["wall"], 2)
    return results


def main() -> int:
    """Measure and print; see the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--machines", type=int, default=100)
    parser.add_argument("--forks", type=int, default=20)
    parser.add_argument("--pending", type=float, default=0.0, help="seconds that a new instance is pending")
    parser.add_argument("--output", type=pathlib.Path, help="folder for the result as JSON")
    parser.add_argument("--floor", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.floor:
        floor(options.machines, options.forks)
        return 0
    results = run(options.machines, options.forks, options.pending)
    text = json.dumps(results, indent=2)
    print(text)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "ec2.json").write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
