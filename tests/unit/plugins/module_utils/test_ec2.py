# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver ``ec2`` without its SDK: tokens, user-data, rules, tags, errors, and what it needs to know before a call."""

from __future__ import annotations

import dataclasses
import gzip
import importlib
import itertools
import os
import pathlib
import random
import string
import time
import typing as t

import pytest

from ansible_collections.dockyard.machine.plugins.module_utils import cloud, ec2_cache, ec2_client, ec2_drift, ec2_firewall, ec2_launch
from ansible_collections.dockyard.machine.plugins.module_utils.driver import Wanted, new_deadline
from ansible_collections.dockyard.machine.plugins.module_utils.drivers.ec2 import Ec2Driver
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError

WANTED = Wanted("web1", owner="me", token="0123456789abcdef")


def options(**changes: t.Any) -> dict[str, t.Any]:
    return {**{name: spec.get("default") for name, spec in Ec2Driver.options.items()}, **changes}


def refused(call: t.Callable[[], t.Any]) -> MachineError:
    with pytest.raises(MachineError) as caught:
        call()
    return caught.value


class Account:
    """Answers calls from a dictionary."""

    region = "eu-central-1"
    host, port, is_aws = "cloud.example.com", 443, False
    cache = ec2_cache.Cache("", 0)

    def __init__(self, **answers: t.Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, t.Any]]] = []

    def call(self, operation: str, **parameters: t.Any) -> t.Any:
        self.asked.append((operation, parameters))
        return self.answers[operation]

    def pages(self, operation: str, key: str, **parameters: t.Any) -> t.Any:
        return self.call(operation, **parameters)[key]


# --- tokens -------------------------------------------------------------------------------------------------------


def test_a_token_is_the_same_for_the_same_creation_and_no_other() -> None:
    tokens = {
        ec2_launch.client_token(dataclasses.replace(WANTED, **change), after, attempt, market)
        for change in ({}, {"name": "web2"}, {"owner": "you"}, {"token": "other"})
        for after, attempt, market in itertools.product(("", "i-1"), (0, 1), ("spot", "on-demand"))
    }
    assert len(tokens) == 4 * 8
    assert all(0 < len(token) <= 64 and token.isascii() for token in tokens)
    # What may differ between two runs of one creation plays no part.
    again = dataclasses.replace(WANTED, user_data="#cloud-config", tags={"a": "b"}, timeout=1)
    assert ec2_launch.client_token(again, "i-1", 0, "spot") == ec2_launch.client_token(WANTED, "i-1", 0, "spot")


# --- user-data ----------------------------------------------------------------------------------------------------


def test_user_data_goes_as_it_is_up_to_the_limit() -> None:
    assert ec2_launch.packed_user_data("x" * 16384) == b"x" * 16384
    packed = ec2_launch.packed_user_data("x" * 16385)
    assert gzip.decompress(packed) == b"x" * 16385
    # A repeated request has to be the same to the byte.
    assert ec2_launch.packed_user_data("x" * 16385) == packed


def test_user_data_that_cannot_be_packed() -> None:
    noise = random.Random(1)
    error = refused(lambda: ec2_launch.packed_user_data("".join(noise.choice(string.printable) for dummy in range(40000))))
    assert (error.code, error.where) == ("invalid_option", "option user_data")


# --- rules --------------------------------------------------------------------------------------------------------

SSH, DNS = cloud.Port(22, 22), cloud.Port(53, 53, "udp")
RULES = {ec2_firewall.Rule(SSH, "192.0.2.0/24"), ec2_firewall.Rule(SSH, "2001:db8::/32"), ec2_firewall.Rule(DNS, "192.0.2.0/24")}


def test_rules_survive_the_way_to_ec2_and_back() -> None:
    group = {"IpPermissions": [*ec2_firewall.permissions(RULES), {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}]}
    assert ec2_firewall.rules_of(group) == RULES


def test_a_groups_name_follows_from_its_rules() -> None:
    name = ec2_firewall.group_name("me", RULES)
    assert name == ec2_firewall.group_name("me", sorted(RULES, reverse=True))
    others = {ec2_firewall.group_name("me", RULES - {rule}) for rule in RULES}
    assert len(others | {name, ec2_firewall.group_name("you", RULES)}) == 5
    assert not name.startswith("sg-") and len(name) <= 255


def test_the_world_is_let_in_only_when_it_is_named() -> None:
    wall = ec2_firewall.Firewall(
        t.cast(t.Any, Account()), options(allowed_cidrs=["0.0.0.0/0"], open_ports=["80"], ssh_port=2222), "me", 2376
    )
    assert {(rule.port.first, rule.cidr) for rule in wall.rules()} == {(port, "0.0.0.0/0") for port in (80, 2222, 2376)}


def test_a_controller_behind_translation_asks_amazon_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud, "route_address", lambda host, port: "10.1.2.3")
    monkeypatch.setattr(ec2_firewall.Firewall, "_who_am_i", staticmethod(lambda: "198.51.100.9\n"))
    for host, is_aws in (("ec2.eu-central-1.amazonaws.com", True), ("cloud.example.com", False)):
        account: t.Any = Account()
        account.host, account.port, account.is_aws = host, 443, is_aws
        wall = ec2_firewall.Firewall(account, options(), "me", 2376)
        if is_aws:
            assert wall.cidrs() == ["198.51.100.9/32"]
        else:
            assert refused(wall.cidrs).where == "option allowed_cidrs"


# --- tags and disks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tags", [{"": "x"}, {"k" * 129: "x"}, {"key": "v" * 257}, {"aws:name": "x"}, {f"key{number}": "" for number in range(47)}]
)
def test_tags_that_ec2_refuses(tags: dict[str, str]) -> None:
    error = refused(lambda: ec2_launch.check_tags(dataclasses.replace(WANTED, tags=tags)))
    assert (error.code, error.where) == ("invalid_option", "option tags")
    ec2_launch.check_tags(dataclasses.replace(WANTED, tags={f"key{number}": "" for number in range(46)}))


def test_the_users_tags_are_told_from_ours() -> None:
    tags = ec2_launch.all_tags(dataclasses.replace(WANTED, tags={"Stage": "test"}))
    assert tags["Name"] == "web1" and ec2_drift.user_tags({**tags, "aws:autoscaling": "x"}, "web1") == {"Stage": "test"}
    assert ec2_drift.user_tags(ec2_launch.all_tags(dataclasses.replace(WANTED, tags={"Name": "shown"})), "web1") == {"Name": "shown"}


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"volume_type": "gp2", "volume_iops": 3000}, "volume_iops"),
        ({"volume_type": "io2"}, "volume_iops"),
        ({"volume_type": "gp2", "volume_throughput": 250}, "volume_throughput"),
        ({"root_size": 0}, "root_size"),
        ({"kms_key": "alias/x", "encrypt_volume": False}, "kms_key"),
    ],
)
def test_disks_that_cannot_be(given: dict[str, t.Any], option: str) -> None:
    assert refused(lambda: ec2_launch.check_disk(options(**given))).where == f"option {option}"


@pytest.mark.parametrize("given", [{}, {"volume_iops": 4000, "volume_throughput": 250}, {"volume_type": "io2", "volume_iops": 100}])
def test_disks_that_can_be(given: dict[str, t.Any]) -> None:
    ec2_launch.check_disk(options(**given))


def test_an_instance_tells_its_groups_and_disks() -> None:
    first = {"Attachment": {"DeviceIndex": 0}, "Groups": [{"GroupId": "sg-2"}, {"GroupId": "sg-1"}], "Ipv6Addresses": []}
    second = {"Attachment": {"DeviceIndex": 1}, "Groups": [{"GroupId": "sg-3"}], "Ipv6Addresses": [{"Ipv6Address": "2001:db8::1"}]}
    instance = {
        "RootDeviceName": "/dev/xvda",
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/xvdb", "Ebs": {"VolumeId": "vol-2"}},
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeId": "vol-1"}},
        ],
        "NetworkInterfaces": [second, first],
    }
    assert ec2_drift.volumes_of(instance) == ["vol-1", "vol-2"]
    assert [group["GroupId"] for group in ec2_drift.groups_of(instance)] == ["sg-1", "sg-2"]
    assert ec2_drift.groups_of({**instance, "SecurityGroups": [{"GroupId": "sg-9"}]}) == [{"GroupId": "sg-9"}]
    assert ec2_drift.ipv6_of(instance) == "2001:db8::1"
    assert ec2_drift.ipv6_of({}) == "" and ec2_drift.groups_of({}) == []


# --- place and image ----------------------------------------------------------------------------------------------


def planner(**given: t.Any) -> tuple[ec2_launch.Planner, Account]:
    account = Account(**given.pop("answers", {}))
    return ec2_launch.Planner(t.cast(t.Any, account), options(**given), WANTED), account


@pytest.mark.parametrize(
    ("region", "owner"), [("eu-central-1", "099720109477"), ("cn-north-1", "837727238323"), ("us-gov-west-1", "513442679011")]
)
def test_ubuntu_has_an_account_in_each_partition(region: str, owner: str) -> None:
    image = {"ImageId": "ami-1", "Architecture": "arm64", "RootDeviceName": "/dev/sda1", "CreationDate": "2026"}
    looked, account = planner(image="ubuntu-24.04", answers={"describe_images": {"Images": [image]}})
    account.region = region
    assert looked._image("t4g.micro", ["arm64"])["ImageId"] == "ami-1"
    assert account.asked[0][1]["Owners"] == [owner]
    assert "-arm64-" in account.asked[0][1]["Filters"][0]["Values"][0]


@pytest.mark.parametrize("alias", cloud.IMAGE_ALIASES)
def test_every_alias_is_known(alias: str) -> None:
    looked, account = planner(image=alias, answers={"describe_images": {"Images": []}})
    error = refused(lambda: looked._image("t3.micro", ["x86_64"]))
    assert (error.code, error.where) == ("unknown_image", "option image")
    assert account.asked[0][1]["Owners"] != ["self"]


def test_an_image_of_another_architecture() -> None:
    image = {"ImageId": "ami-0abc", "Architecture": "x86_64"}
    looked, dummy = planner(image="ami-0abc", answers={"describe_images": {"Images": [image]}})
    error = refused(lambda: looked._image("t4g.micro", ["arm64"]))
    assert error.code == "unknown_size" and "x86_64" in error.message and "arm64" in error.message


def test_a_subnet_is_chosen_once_and_for_all() -> None:
    subnets = [{"SubnetId": f"subnet-{number}", "MapPublicIpOnLaunch": number % 2 == 0} for number in range(6)]
    looked, dummy = planner(vpc_id="vpc-1", answers={"describe_subnets": {"Subnets": subnets}})
    reverse, dummy = planner(vpc_id="vpc-1", answers={"describe_subnets": {"Subnets": subnets[::-1]}})
    assert looked._place() == reverse._place()
    assert int(looked._place()[0][-1]) % 2 == 0
    private, dummy = planner(vpc_id="vpc-1", private_address_only=True, answers={"describe_subnets": {"Subnets": subnets}})
    assert int(private._place()[0][-1]) % 2 == 1


def test_a_region_without_a_default_vpc() -> None:
    looked, dummy = planner(answers={"describe_vpcs": {"Vpcs": []}})
    error = refused(looked._place)
    assert (error.code, error.where) == ("not_found", "option vpc_id") and error.hint


# --- the cache ----------------------------------------------------------------------------------------------------


def test_answers_are_kept_for_a_while_and_for_one_account(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked: list[int] = []

    def look() -> dict[str, str]:
        asked.append(1)
        return {"ImageId": "ami-1"}

    for dummy in range(3):
        assert ec2_cache.Cache("a", 60).get("image", look) == {"ImageId": "ami-1"}
    assert len(asked) == 1
    ec2_cache.Cache("b", 60).get("image", look)
    ec2_cache.Cache("a", 60).get("another", look)
    ec2_cache.Cache("a", 0).get("image", look)
    assert len(asked) == 4
    files = list(tmp_path.rglob("*.json"))
    assert len(files) == 3 and {path.stat().st_mode & 0o077 for path in files} == {0}
    for path in files:
        os.utime(path, (time.time() - 61, time.time() - 61))
    cache = ec2_cache.Cache("a", 60)
    cache.get("image", look)
    assert len(asked) == 5 and not cache.forget(), "a fresh answer is not forgotten"
    again = ec2_cache.Cache("a", 60)
    again.get("image", look)
    assert len(asked) == 5 and again.forget() and not again.forget()
    again.get("image", look)
    assert len(asked) == 6


@pytest.mark.parametrize("content", ["", "{", "null"])
def test_a_broken_cache_is_no_cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ec2_cache.Cache("a", 60).get("vpc", lambda: "vpc-1")
    next(tmp_path.rglob("*.json")).write_text(content)
    assert ec2_cache.Cache("a", 60).get("vpc", lambda: "vpc-2") == "vpc-2"
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert ec2_cache.Cache("a", 60).get("vpc", lambda: "vpc-3") == "vpc-3"


# --- errors -------------------------------------------------------------------------------------------------------


def test_every_meaning_is_whole() -> None:
    for aws_code, meaning in ec2_client.MEANINGS.items():
        assert meaning.code in (*cloud.ERROR_CODES, "unsupported"), aws_code
        assert meaning.hint and meaning.what, aws_code
        option = meaning.option.removeprefix("option ")
        assert option in (*Ec2Driver.options, "", "ssh_public_key", "user_data"), aws_code


@pytest.mark.parametrize(
    ("aws_code", "status", "code", "option"),
    [
        ("AuthFailure", 401, "bad_credentials", "access_key"),
        ("UnauthorizedOperation", 403, "bad_credentials", "access_key"),
        ("InsufficientInstanceCapacity", 500, "capacity", "instance_type"),
        ("VcpuLimitExceeded", 400, "quota", "instance_type"),
        ("InvalidAMIID.NotFound", 400, "unknown_image", "image"),
        ("InvalidInstanceType", 400, "unknown_size", "instance_type"),
        ("InvalidKeyPair.NotFound", 400, "not_found", "keypair_name"),
        ("OperationNotPermitted", 400, "protected", "delete_protection"),
    ],
)
def test_one_error_names_one_option(aws_code: str, status: int, code: str, option: str) -> None:
    error = ec2_client.explain(aws_code, "Because.", "RunInstances", status, {})
    assert not isinstance(error, TransientError)
    assert (error.code, error.where) == (code, f"option {option}")
    assert aws_code in error.message and "Because" in error.message


@pytest.mark.parametrize(
    ("why", "option"),
    [
        ("Value (nobody) for parameter iamInstanceProfile.name is invalid.", "iam_instance_profile"),
        ("Invalid value 't3.enormous' for InstanceType.", "instance_type"),
        ("The architecture 'arm64' of the specified instance type does not match", "instance_type"),
        ("User data is limited to 16384 bytes", "user_data"),
        ("Invalid availability zone: [eu-central-1x]", "zone"),
    ],
)
def test_a_vague_code_is_read_closely(why: str, option: str) -> None:
    assert ec2_client.explain("InvalidParameterValue", why, "RunInstances", 400, {}).where == f"option {option}"


def test_what_may_pass_is_transient() -> None:
    throttled = ec2_client.explain("RequestLimitExceeded", "Slow down.", "RunInstances", 503, {"Retry-After": "7"})
    assert isinstance(throttled, TransientError) and (throttled.code, throttled.retry_after) == ("throttled", 7.0)
    for aws_code, status in (("InternalError", 500), ("Unavailable", 503), ("IncorrectInstanceState", 400), ("", 502)):
        assert isinstance(ec2_client.explain(aws_code, "", "StopInstances", status, {}), TransientError), aws_code
    assert not isinstance(ec2_client.explain("SomethingNew", "?", "StopInstances", 400, {}), TransientError)


@pytest.mark.parametrize(
    ("endpoint", "insecure", "url"),
    [
        ("", False, ""),
        ("ec2.example.com", False, "https://ec2.example.com"),
        ("ec2.example.com:8773", True, "http://ec2.example.com:8773"),
        ("https://ec2.example.com/api", True, "https://ec2.example.com/api"),
        ("http://127.0.0.1:5000", True, "http://127.0.0.1:5000"),
    ],
)
def test_endpoints(endpoint: str, insecure: bool, url: str) -> None:
    assert ec2_client.endpoint_url(endpoint, insecure) == url


@pytest.mark.parametrize("endpoint", ["http://ec2.example.com", "ftp://ec2.example.com", "https://"])
def test_endpoints_that_are_refused(endpoint: str) -> None:
    assert refused(lambda: ec2_client.endpoint_url(endpoint, False)).where == "option endpoint"


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def broken(name: str, package: str | None = None) -> t.Any:
        if name.startswith("boto"):
            raise ImportError(f"No module named {name!r}")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", broken)
    error = refused(lambda: Ec2Driver(WANTED, options(), new_deadline(WANTED)).find())
    assert error.code == "missing_library" and "pip install boto3" in error.hint


def test_secrets_are_marked() -> None:
    assert {name for name, spec in Ec2Driver.options.items() if spec.get("no_log")} == {"access_key", "secret_key", "session_token"}
