# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only EC2 has: tokens that are used up, spot, images by architecture, groups by rules, and a policy."""

from __future__ import annotations

import base64
import contextlib
import copy
import gzip
import json
import pathlib
import random
import string
import time
import typing as t

import backend as contract
import pytest

pytest.importorskip("boto3")
pytest.importorskip("moto.server")

import botocore.session
from fakes import ec2_policy

from ansible_collections.dockyard.machine.plugins.module_utils.driver import Outcome, converge
from ansible_collections.dockyard.machine.plugins.module_utils.drivers import ec2
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import Machine, State

POLICY = json.loads((pathlib.Path(__file__).resolve().parents[2] / "docs" / "policies" / "ec2.json").read_text())
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBqG0m7Wc4JmT0y3cPj0oNf2vR8b1m4d7JrQk3E5n9sT other"


@pytest.fixture(scope="module")
def provider() -> t.Iterator[t.Any]:
    item = contract.load("ec2")()
    item.start()
    yield item
    item.stop()


@pytest.fixture
def cloud(provider: t.Any) -> t.Iterator[t.Any]:
    provider.reset()
    provider.fake.transition = 0.0
    yield provider
    provider.clear()
    assert provider.fake.problems == []


def run(cloud: t.Any, state: str = "started", name: str = "web1", **changes: t.Any) -> Outcome:
    options = changes.pop("options", {})
    check_mode = changes.pop("check_mode", False)
    return converge(cloud.make(cloud.wanted(name, state=state, **changes), **options), check_mode=check_mode)


def made(cloud: t.Any, **changes: t.Any) -> Machine:
    machine = run(cloud, **changes).machine
    assert machine is not None
    return machine


def launch(cloud: t.Any, machine: Machine) -> dict[str, str]:
    """The parameters of the call that made a machine, as they were on the wire."""
    found: dict[str, str] = cloud.fake.launches[machine.id]
    return found


def client(cloud: t.Any, **credentials: str) -> t.Any:
    keys = credentials or {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    return botocore.session.get_session().create_client("ec2", region_name="us-east-1", endpoint_url=cloud.fake.url, **keys)


def calls(cloud: t.Any, action: t.Callable[[], object]) -> list[str]:
    """The calls that something makes."""
    before = len(cloud.fake.log)
    action()
    return [entry.operation for entry in cloud.fake.log[before:]]


# --- the request --------------------------------------------------------------------------------------------------


def test_everything_is_in_the_one_call_that_creates(cloud: t.Any) -> None:
    options = {
        "root_size": 40,
        "volume_iops": 4000,
        "volume_throughput": 250,
        "kms_key": "alias/mine",
        "monitoring": True,
        "delete_protection": True,
        "instance_type": "m5.large",
        "use_ebs_optimized_instance": True,
    }
    form = launch(cloud, made(cloud, tags={"Stage": "test"}, options=options))
    assert form["MetadataOptions.HttpTokens"] == "required" and form["MetadataOptions.HttpPutResponseHopLimit"] == "1"
    disk = {key.rpartition(".")[2]: value for key, value in form.items() if key.startswith("BlockDeviceMapping.1.Ebs.")}
    assert disk == {
        "VolumeSize": "40",
        "VolumeType": "gp3",
        "Iops": "4000",
        "Throughput": "250",
        "Encrypted": "true",
        "KmsKeyId": "alias/mine",
        "DeleteOnTermination": "true",
    }
    assert (form["Monitoring.Enabled"], form["DisableApiTermination"], form["EbsOptimized"]) == ("true", "true", "true")
    assert form["NetworkInterface.1.AssociatePublicIpAddress"] == "true"
    # Without a zone EC2 chooses one that has room.
    assert "NetworkInterface.1.SubnetId" not in form
    wanted = {
        "Name": "web1",
        "Stage": "test",
        "dockyard-machine": "web1",
        "dockyard-machine-owner": "contract",
        "dockyard-machine-token": "web1-token",
    }
    assert ec2_policy.request_tags(form) == {"instance": wanted, "volume": wanted, "network-interface": wanted}


def test_a_creation_takes_few_calls(cloud: t.Any) -> None:
    run(cloud, name="first")
    found = calls(cloud, lambda: run(cloud))
    assert found == [
        "DescribeInstances",
        "DescribeInstanceTypes",
        "DescribeImages",
        "DescribeVpcs",
        "ImportKeyPair",
        "DescribeSecurityGroups",
        "RunInstances",
        "DescribeInstances",
    ]
    assert calls(cloud, lambda: run(cloud)) == ["DescribeInstances", "DescribeInstanceAttribute", "DescribeSecurityGroups"]


def test_many_machines_share_what_was_looked_up(cloud: t.Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached = {"lookup_cache": 60}
    run(cloud, name="first", options=cached)
    found = calls(cloud, lambda: run(cloud, options=cached))
    assert found == ["DescribeInstances", "ImportKeyPair", "RunInstances", "DescribeInstances"]
    # The last machine takes the group away; what was kept is wrong now, and found out.
    run(cloud, "absent", name="first")
    run(cloud, "absent")
    assert made(cloud, options=cached).state == State.RUNNING
    # Another account at the same place: no VPC of the old one, either.
    cloud.reset()
    assert made(cloud, options=cached).state == State.RUNNING
    kept = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert kept and "AKIA" not in kept and "wJalr" not in kept


@pytest.mark.parametrize(
    ("instance_type", "image", "name"),
    [
        ("", "", "debian-12-amd64-20261102-2650"),
        ("t4g.micro", "", "debian-12-arm64-20261102-2650"),
        ("c6g.large", "ubuntu-24.04", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-arm64-server-20261102"),
        ("", "ubuntu-22.04", "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-20261102"),
    ],
)
def test_the_newest_image_for_the_architecture(cloud: t.Any, instance_type: str, image: str, name: str) -> None:
    machine = made(cloud, options={"instance_type": instance_type, "image": image})
    assert cloud.fake.backend("us-east-1").amis[machine.details["image"]].name == name


def test_an_image_by_name(cloud: t.Any) -> None:
    machine = made(cloud, options={"image": "debian-13-amd64-20260310-*", "image_owners": ["136693071363"]})
    assert cloud.fake.backend("us-east-1").amis[machine.details["image"]].name == "debian-13-amd64-20260310-2412"


def test_long_user_data_is_compressed(cloud: t.Any) -> None:
    text = "#cloud-config\n# " + "a comment " * 3000
    machine = made(cloud, user_data=text)
    raw = base64.b64decode(launch(cloud, machine)["UserData"])
    assert len(raw) <= 16384 and gzip.decompress(raw).decode() == text


def test_user_data_that_is_too_long(cloud: t.Any) -> None:
    noise = random.Random(7)
    text = "#cloud-config\n# " + "".join(noise.choice(string.ascii_letters) for dummy in range(40000))
    with pytest.raises(MachineError, match="too long for EC2") as caught:
        run(cloud, user_data=text)
    assert caught.value.where == "option user_data" and cloud.resources() == []


def test_a_private_machine(cloud: t.Any) -> None:
    machine = made(cloud, options={"private_address_only": True})
    assert machine.address == machine.private_address
    assert launch(cloud, machine)["NetworkInterface.1.AssociatePublicIpAddress"] == "false"
    machine = made(cloud, name="web2", options={"use_private_address": True})
    assert machine.address == machine.private_address
    assert launch(cloud, machine)["NetworkInterface.1.AssociatePublicIpAddress"] == "true"


def test_zone_and_subnet(cloud: t.Any) -> None:
    machine = made(cloud, options={"zone": "c"})
    assert machine.details["availability_zone"] == "us-east-1c"
    assert launch(cloud, machine)["NetworkInterface.1.SubnetId"] == machine.details["subnet_id"]
    same = made(cloud, name="web2", options={"subnet_id": machine.details["subnet_id"]})
    assert same.details["subnet_id"] == machine.details["subnet_id"]
    with pytest.raises(MachineError) as caught:
        run(cloud, name="web3", options={"subnet_id": machine.details["subnet_id"], "zone": "us-east-1d"})
    assert (caught.value.code, caught.value.where) == ("invalid_option", "option zone")


def test_ipv6(cloud: t.Any) -> None:
    with pytest.raises(MachineError) as caught:
        run(cloud, options={"ipv6": True})
    assert caught.value.where == "option ipv6" and cloud.resources() == []
    api = client(cloud)
    vpc = api.create_vpc(CidrBlock="10.9.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]
    block = api.describe_vpcs(VpcIds=[vpc["VpcId"]])["Vpcs"][0]["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"]
    subnet = api.create_subnet(VpcId=vpc["VpcId"], CidrBlock="10.9.1.0/24", Ipv6CidrBlock=block.replace("/56", "/64"))["Subnet"]
    machine = made(cloud, options={"ipv6": True, "vpc_id": vpc["VpcId"]})
    assert machine.details["subnet_id"] == subnet["SubnetId"] and ":" in machine.ipv6_address


# --- tokens -------------------------------------------------------------------------------------------------------


def test_one_token_for_one_creation(cloud: t.Any) -> None:
    cloud.fault("cut_after", on="RunInstances", times=1)
    made(cloud)
    tokens = [ec2_form(entry.body)["ClientToken"] for entry in cloud.fake.calls("RunInstances")]
    assert len(tokens) == 2 and len(set(tokens)) == 1 and len(cloud.machines()) == 1


def ec2_form(body: str) -> dict[str, str]:
    import urllib.parse

    return dict(urllib.parse.parse_qsl(body))


@pytest.mark.parametrize("visible", [True, False])
def test_the_same_record_makes_another_machine_after_the_first_was_terminated(
    cloud: t.Any, visible: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ec2, "SETTLE", 0.2)
    seen = {made(cloud).id}
    for round_number in range(3):
        cloud.delete_outside("web1")
        if not visible:
            # EC2 shows a terminated instance for an hour and remembers its token for a day.
            for identity in seen:
                cloud.fake.born[identity] = time.monotonic() + 1000
        machine = made(cloud, user_data=f"#cloud-config\n# another first key {round_number}\n")
        assert machine.id not in seen and machine.token == "web1-token"
        seen.add(machine.id)
        assert cloud.machines() == [machine.id]


def test_the_same_request_once_more_after_the_first_was_terminated(cloud: t.Any) -> None:
    first = made(cloud)
    cloud.delete_outside("web1")
    cloud.fake.born[first.id] = time.monotonic() + 1000
    # EC2 answers IdempotentInstanceTerminated here.
    assert made(cloud).id != first.id
    assert [entry.status for entry in cloud.fake.calls("RunInstances")] == [200, 400, 200]


def test_an_interrupted_creation_with_other_options_is_found(cloud: t.Any) -> None:
    cloud.fault("cut_after", on="RunInstances", times=1)
    cloud.fault("lag", seconds=1.0)
    with pytest.raises(MachineError):
        run(cloud, options={"retries": 0})
    # The next run asks for another type before the first machine can be seen.
    assert made(cloud, options={"instance_type": "t3.large"}).details["instance_type"] == "t3.micro"
    assert len(cloud.machines()) == 1


# --- spot ---------------------------------------------------------------------------------------------------------


def test_spot(cloud: t.Any) -> None:
    machine = made(cloud, options={"request_spot_instance": True, "spot_price": "0.02"})
    form = launch(cloud, machine)
    assert form["InstanceMarketOptions.MarketType"] == "spot" and form["InstanceMarketOptions.SpotOptions.MaxPrice"] == "0.02"
    assert "spot-instances-request" in ec2_policy.request_tags(form)
    assert machine.details["market"] == "spot"
    with pytest.raises(MachineError) as caught:
        run(cloud, "stopped", options={"request_spot_instance": True})
    assert caught.value.code == "unsupported" and "spot" in caught.value.hint
    assert run(cloud, "absent").changed and cloud.resources() == []


def test_on_demand_when_there_is_no_spot(cloud: t.Any) -> None:
    cloud.fault("spot_capacity", on="RunInstances", times=0)
    with pytest.raises(MachineError) as caught:
        run(cloud, options={"request_spot_instance": True, "spot_fallback": False})
    assert caught.value.code == "capacity" and cloud.machines() == []
    driver = cloud.make(cloud.wanted(), request_spot_instance=True)
    machine = converge(driver).machine
    assert machine is not None and machine.details["market"] == "on-demand"
    assert "on-demand" in driver.warnings[0]


# --- groups and keys ----------------------------------------------------------------------------------------------


def test_machines_with_the_same_rules_share_a_group_and_others_do_not(cloud: t.Any) -> None:
    groups = [made(cloud, name=name).details["security_group_ids"] for name in ("web1", "web2")]
    other = made(cloud, name="web3", options={"open_ports": ["80"], "allowed_cidrs": ["198.51.100.0/24", "2001:db8::/32"]})
    assert groups[0] == groups[1] != other.details["security_group_ids"]
    rules = cloud.fake.state()["rules"]
    assert rules[groups[0][0]] == ["tcp 22-22 127.0.0.1/32", "tcp 2376-2376 127.0.0.1/32"]
    assert set(rules[other.details["security_group_ids"][0]]) == {
        f"tcp {port}-{port} {cidr}" for port in (22, 80, 2376) for cidr in ("198.51.100.0/24", "2001:db8::/32")
    }
    run(cloud, "absent", name="web1")
    assert set(cloud.fake.state()["rules"]) == {groups[0][0], *other.details["security_group_ids"]}
    run(cloud, "absent", name="web2")
    assert set(cloud.fake.state()["rules"]) == set(other.details["security_group_ids"])


def test_a_group_of_the_users_is_never_touched(cloud: t.Any) -> None:
    api = client(cloud)
    vpc = api.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = api.create_security_group(GroupName="mine", Description="mine", VpcId=vpc)["GroupId"]
    before = api.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    machine = made(cloud, options={"security_group": ["mine"]})
    assert machine.details["security_group_ids"] == [group]
    assert not run(cloud, options={"security_group": [group]}).changed
    assert not run(cloud).changed, "without the option nothing says that the group is wrong"
    run(cloud, "absent")
    assert api.describe_security_groups(GroupIds=[group])["SecurityGroups"] == before


def test_an_unfinished_group_is_finished(cloud: t.Any) -> None:
    cloud.fault("cut_before", on="AuthorizeSecurityGroupIngress", times=0)
    with pytest.raises(MachineError):
        run(cloud, timeout=3, options={"retries": 0})
    assert len(cloud.resources()) == 2 and cloud.machines() == []
    cloud.clear()
    machine = made(cloud)
    assert len(cloud.fake.state()["rules"][machine.details["security_group_ids"][0]]) == 2


def test_somebody_elses_group_or_key_of_our_name(cloud: t.Any) -> None:
    api = client(cloud)
    machine = made(cloud, name="other")
    vpc = machine.details["vpc_id"]
    name = next(
        iter(group["GroupName"] for group in api.describe_security_groups(GroupIds=machine.details["security_group_ids"])["SecurityGroups"])
    )
    run(cloud, "absent", name="other")
    foreign = api.create_security_group(GroupName=name, Description="not ours", VpcId=vpc)["GroupId"]
    with pytest.raises(MachineError) as caught:
        run(cloud)
    assert caught.value.code == "not_ours"
    api.delete_security_group(GroupId=foreign)
    run(cloud, "absent")
    api.import_key_pair(KeyName="dockyard/contract/web1", PublicKeyMaterial=OTHER_KEY.encode())
    with pytest.raises(MachineError) as caught:
        run(cloud)
    assert caught.value.code == "not_ours" and caught.value.where == "option keypair_name"
    assert not [pair for pair in cloud.resources() if pair.startswith("key ")]


def test_an_old_key_of_ours_is_replaced(cloud: t.Any) -> None:
    cloud.fault("capacity", times=1)
    with pytest.raises(MachineError):
        run(cloud)
    made(cloud, ssh_public_key=OTHER_KEY, token="another")
    pairs = client(cloud).describe_key_pairs(IncludePublicKey=True)["KeyPairs"]
    assert [pair["PublicKey"].split()[1] for pair in pairs] == [OTHER_KEY.split()[1]]


# --- day two ------------------------------------------------------------------------------------------------------


def test_what_changes_in_place(cloud: t.Any) -> None:
    first = made(cloud, tags={"Stage": "one"})
    options = {
        "monitoring": True,
        "delete_protection": True,
        "http_put_response_hop_limit": 2,
        "root_size": 50,
        "open_ports": ["443"],
        "iam_instance_profile": "reader",
    }
    iam = botocore.session.get_session().create_client(
        "iam", region_name="us-east-1", endpoint_url=cloud.fake.url, aws_access_key_id="a", aws_secret_access_key="b"
    )
    iam.create_instance_profile(InstanceProfileName="reader")
    outcome = run(cloud, tags={"Stage": "two"}, options=options)
    assert outcome.actions == ["update"] and outcome.machine is not None and outcome.machine.id == first.id
    assert {item.option for item in outcome.differences} == {*options, "tags", "allowed_cidrs"} - {"open_ports"}
    assert not run(cloud, tags={"Stage": "two"}, options=options).changed
    with pytest.raises(MachineError) as caught:
        run(cloud, "absent")
    assert caught.value.code == "protected" and caught.value.where == "option delete_protection"
    assert run(cloud, options={**options, "delete_protection": False}).actions == ["update"]
    run(cloud, "absent")
    assert cloud.resources() == []


def test_what_needs_another_machine(cloud: t.Any) -> None:
    first = made(cloud, options={"zone": "a", "root_size": 30})
    driver = cloud.make(cloud.wanted(), zone="b", root_size=20, private_address_only=True, image="ami-0123456789abcdef0", ipv6=True)
    outcome = converge(driver)
    assert not outcome.changed and outcome.machine is not None and outcome.machine.id == first.id
    assert {item.option for item in outcome.differences if not item.in_place} == {
        "zone",
        "root_size",
        "private_address_only",
        "image",
        "ipv6",
    }
    assert len(driver.warnings) == 5


def test_another_type_needs_a_stopped_machine(cloud: t.Any) -> None:
    made(cloud)
    assert not run(cloud, options={"instance_type": "t3.large"}).changed
    run(cloud, "stopped")
    assert run(cloud, options={"instance_type": "t3.large"}).actions == ["update", "start"]
    assert made(cloud).details["instance_type"] == "t3.large"


def test_a_machine_of_docker_machine_is_taken_over_by_its_id(cloud: t.Any) -> None:
    api = client(cloud)
    image = next(iter(cloud.fake.backend("us-east-1").amis))
    theirs = api.run_instances(ImageId=image, InstanceType="t2.micro", MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    outcome = run(cloud, provider_id=theirs)
    assert outcome.actions == ["update"] and outcome.machine is not None and outcome.machine.id == theirs
    assert not run(cloud).changed, "its marks suffice from now on"
    run(cloud, "absent")
    assert cloud.machines() == []


def test_an_id_that_is_another_machine_now(cloud: t.Any) -> None:
    other = made(cloud, name="web2")
    with pytest.raises(MachineError) as caught:
        run(cloud, provider_id=other.id)
    assert caught.value.code == "not_ours"


def test_doubles_are_told_and_removed(cloud: t.Any) -> None:
    first = made(cloud)
    api = client(cloud)
    tags = [{"Key": "dockyard-machine", "Value": "web1"}, {"Key": "dockyard-machine-owner", "Value": "contract"}]
    image = next(iter(cloud.fake.backend("us-east-1").amis))
    api.run_instances(ImageId=image, MinCount=1, MaxCount=1, TagSpecifications=[{"ResourceType": "instance", "Tags": tags}])
    driver = cloud.make(cloud.wanted())
    machine = converge(driver).machine
    assert machine is not None and machine.id == first.id and "more than once" in driver.warnings[0]
    run(cloud, "absent")
    assert cloud.machines() == []


def test_what_a_vanished_machine_left_is_removed(cloud: t.Any) -> None:
    made(cloud)
    tags = {"dockyard-machine": "web1", "dockyard-machine-owner": "contract"}
    api = client(cloud)
    specification = [{"Key": key, "Value": value} for key, value in tags.items()]
    api.create_volume(AvailabilityZone="us-east-1a", Size=8, TagSpecifications=[{"ResourceType": "volume", "Tags": specification}])
    cloud.delete_outside("web1")
    check = run(cloud, "absent", check_mode=True)
    assert sorted(entry.rpartition(" ")[0] for entry in check.leftovers) == ["key pair", "security group", "volume"]
    assert len(cloud.resources()) == 3
    assert run(cloud, "absent").actions == ["delete_leftovers"]
    assert cloud.resources() == []


def test_slow_transitions_are_waited_for(cloud: t.Any) -> None:
    cloud.fake.transition = 1.0
    assert made(cloud).state == State.RUNNING
    assert run(cloud, "stopped").actions == ["stop"]
    cloud.fake.transition = 3.0
    client(cloud).start_instances(InstanceIds=cloud.machines())
    # Another run's start is still under way.
    assert run(cloud, "killed").actions == ["kill"] or made(cloud).state == State.RUNNING


def test_a_thousand_machines_are_one_call(cloud: t.Any) -> None:
    image = next(iter(cloud.fake.backend("us-east-1").amis))
    api = client(cloud)
    for start in range(0, 1000, 100):
        answer = api.run_instances(ImageId=image, InstanceType="t3.micro", MinCount=100, MaxCount=100)
        for number, entry in enumerate(answer["Instances"], start):
            tags = {"dockyard-machine": f"web{number}", "dockyard-machine-owner": "contract"}
            cloud.fake.backend("us-east-1").get_instance(entry["InstanceId"]).add_tags(tags)
    driver = cloud.make(cloud.wanted(""))
    machines: list[Machine] = []
    found = calls(cloud, lambda: machines.extend(driver.list()))
    assert len({machine.name for machine in machines}) == 1000
    assert len(found) <= 1000 / 100 / 10 + 1


# --- errors -------------------------------------------------------------------------------------------------------


def test_nothing_listens(cloud: t.Any) -> None:
    with pytest.raises(MachineError) as caught:
        run(cloud, timeout=2, options={"endpoint": "http://127.0.0.1:9", "retries": 0})
    assert caught.value.where == "option region" and caught.value.hint


def test_no_such_region(cloud: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT", raising=False)
    with pytest.raises(MachineError) as caught:
        run(cloud, timeout=5, options={"endpoint": "", "region": "mars north"})
    assert caught.value.code == "unknown_region"


# --- policy -------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(cloud: t.Any) -> t.Iterator[t.Any]:
    """The account with authentication on: moto checks signatures and actions, the layer resources and conditions."""
    iam = botocore.session.get_session().create_client(
        "iam", region_name="us-east-1", endpoint_url=cloud.fake.url, aws_access_key_id="a", aws_secret_access_key="b"
    )
    iam.create_user(UserName="machines")
    # moto refuses any statement with conditions.
    flat = copy.deepcopy(POLICY)
    for statement in flat["Statement"]:
        statement["Resource"] = "*"
        statement.pop("Condition", None)
    iam.put_user_policy(UserName="machines", PolicyName="machines", PolicyDocument=json.dumps(flat))
    iam.create_instance_profile(InstanceProfileName="reader")
    iam.create_instance_profile(InstanceProfileName="writer")
    key = iam.create_access_key(UserName="machines")["AccessKey"]
    cloud.credentials = {"access_key": key["AccessKeyId"], "secret_key": key["SecretAccessKey"]}
    cloud.fake.policy = POLICY
    cloud.fake._forward("POST", "/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
    yield cloud
    cloud.fake._forward("POST", "/moto-api/reset-auth", b"inf", {"Content-Type": "text/plain"})


@contextlib.contextmanager
def unguarded(cloud: t.Any) -> t.Iterator[None]:
    """Be the account's administrator."""
    cloud.fake.policy, policy = None, cloud.fake.policy
    cloud.fake._forward("POST", "/moto-api/reset-auth", b"inf", {"Content-Type": "text/plain"})
    yield
    cloud.fake._forward("POST", "/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
    cloud.fake.policy = policy


def whole_life(cloud: t.Any) -> None:
    """Everything that the driver can do."""
    keys = cloud.credentials

    def go(state: str = "started", **options: t.Any) -> Outcome:
        return run(cloud, state, tags=options.pop("tags", {}), options={**keys, **options})

    assert go("absent").actions == []
    assert go(request_spot_instance=True, zone="a").actions == ["create"]
    assert go("absent").actions == ["delete"]
    assert go(tags={"Stage": "one"}).actions == ["create"]
    assert go(tags={"Stage": "two"}, monitoring=True, http_put_response_hop_limit=2, root_size=40).actions == ["update"]
    assert go(open_ports=["80"], iam_instance_profile="reader", monitoring=False, delete_protection=True).actions == ["update"]
    assert go(iam_instance_profile="writer").actions == ["update"]
    assert go("stopped").actions == ["stop"]
    assert go("present", instance_type="t3.large").actions == ["update"]
    assert go().actions[-1] == "start"
    assert go("restarted").actions == ["restart"]
    assert go("absent").actions == ["delete"]
    assert cloud.resources() == []


def test_the_policy_is_enough_and_not_too_much(guarded: t.Any) -> None:
    before = len(guarded.fake.log)
    whole_life(guarded)
    # Volumes and interfaces go with their machine, unless somebody meddled.
    for number in range(2):
        leftover(guarded, number)
    assert run(guarded, "absent", options=guarded.credentials).actions == ["delete_leftovers"]
    used = {f"ec2:{entry.operation}" for entry in guarded.fake.log[before:] if entry.status == 200}
    allowed = {
        action
        for statement in POLICY["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
    assert used == allowed


def leftover(cloud: t.Any, number: int) -> None:
    backend = cloud.fake.backend("us-east-1")
    marks = {"dockyard-machine": "web1", "dockyard-machine-owner": "contract"}
    if number:
        backend.create_volume(size=8, zone_name="us-east-1a").add_tags(marks)
    else:
        subnet = next(iter(backend.describe_subnets()))
        card = backend.create_network_interface(subnet, "10.0.0.9")
        card.add_tags(marks)
        card.status = "available"


@pytest.mark.parametrize("action", sorted({"ec2:DescribeInstances", "ec2:RunInstances", "ec2:ImportKeyPair", "ec2:CreateSecurityGroup"}))
def test_a_missing_permission_is_named(guarded: t.Any, action: str) -> None:
    poorer = copy.deepcopy(POLICY)
    for statement in poorer["Statement"]:
        if not isinstance(statement["Action"], str):
            statement["Action"] = [entry for entry in statement["Action"] if entry != action]
        elif statement["Action"] == action:
            statement["Action"] = []
    guarded.fake.policy = poorer
    with pytest.raises(MachineError) as caught:
        run(guarded, options=guarded.credentials)
    assert caught.value.code == "bad_credentials" and action in caught.value.message and "policy" in caught.value.hint


def test_wrong_keys(guarded: t.Any) -> None:
    for keys in ({**guarded.credentials, "secret_key": "wrong"}, {"access_key": "AKIANOBODY", "secret_key": "wrong"}):
        with pytest.raises(MachineError) as caught:
            run(guarded, options=keys)
        assert caught.value.code == "bad_credentials" and caught.value.where == "option access_key"


def test_the_policy_leaves_what_is_not_ours_alone(guarded: t.Any) -> None:
    machine = made(guarded, options=guarded.credentials)
    keys = {"aws_access_key_id": guarded.credentials["access_key"], "aws_secret_access_key": guarded.credentials["secret_key"]}
    api = client(guarded, **keys)
    backend = guarded.fake.backend("us-east-1")
    with unguarded(guarded):
        answer = client(guarded).run_instances(ImageId=machine.details["image"], InstanceType="t3.micro", MinCount=1, MaxCount=1)
    theirs = answer["Instances"][0]["InstanceId"]
    group = backend.describe_security_groups(groupnames=["default"])[0].id
    refused: list[t.Callable[[], object]] = [
        lambda: api.terminate_instances(InstanceIds=[theirs]),
        lambda: api.terminate_instances(InstanceIds=[machine.id, theirs]),
        lambda: api.stop_instances(InstanceIds=[theirs]),
        lambda: api.create_tags(Resources=[theirs], Tags=[{"Key": "dockyard-machine-owner", "Value": "contract"}]),
        lambda: api.authorize_security_group_ingress(GroupId=group, IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}]),
        lambda: api.delete_security_group(GroupId=group),
        lambda: api.run_instances(ImageId=machine.details["image"], InstanceType="t3.micro", MinCount=1, MaxCount=1),
        lambda: api.import_key_pair(KeyName="mine", PublicKeyMaterial=OTHER_KEY.encode()),
        lambda: api.create_security_group(GroupName="mine", Description="mine", VpcId=machine.details["vpc_id"]),
    ]
    for call in refused:
        with pytest.raises(botocore.exceptions.ClientError) as caught:
            call()
        assert caught.value.response["Error"]["Code"] == "UnauthorizedOperation"
