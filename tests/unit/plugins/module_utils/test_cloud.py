# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the cloud drivers share."""

from __future__ import annotations

import datetime
import email.utils
import typing as t

import pytest
import yaml

from ansible_collections.dockyard.machine.plugins.doc_fragments.cloud import ModuleDocFragment
from ansible_collections.dockyard.machine.plugins.module_utils import cloud
from ansible_collections.dockyard.machine.plugins.module_utils.errors import DeadlineError, MachineError, TransientError
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Clock, Deadline


class Fast(Clock):
    """A clock that sleeps in no time."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def options(**changes: t.Any) -> dict[str, t.Any]:
    return {**{name: spec["default"] for name, spec in cloud.CLOUD_OPTIONS.items()}, **changes}


def test_the_fragment_documents_the_options() -> None:
    documented = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]
    assert {
        name: {key: value for key, value in item.items() if key != "description"} for name, item in documented.items()
    } == cloud.CLOUD_OPTIONS


def test_ports() -> None:
    ports = cloud.parse_ports(["443", "80/tcp", 80, "8000-8010/UDP", " 53/udp "])
    assert [str(port) for port in ports] == ["53/udp", "80/tcp", "443/tcp", "8000-8010/udp"]


@pytest.mark.parametrize("port", ["0", "65536", "http", "80/icmp", "90-80", "80/", "-80", "80 443", "", "80/tcp/udp", None, "1e3"])
def test_what_is_no_port(port: t.Any) -> None:
    with pytest.raises(MachineError) as caught:
        cloud.parse_ports([port])
    assert caught.value.code == "invalid_option" and "open_ports" in caught.value.where and caught.value.hint


def test_needed_ports() -> None:
    assert [str(port) for port in cloud.needed_ports(options(open_ports=["22", "80"]), 2377)] == ["22/tcp", "80/tcp", "2377/tcp"]


def test_cidrs() -> None:
    found = cloud.check_cidrs(["203.0.113.0/24", "192.0.2.1", "2001:db8::/32", "203.0.113.0/24"])
    assert found == ["192.0.2.1/32", "203.0.113.0/24", "2001:db8::/32"]
    assert not cloud.is_world(found)
    assert cloud.is_world(cloud.check_cidrs(["0.0.0.0/0"])) and cloud.is_world(cloud.check_cidrs(["::/0"]))


@pytest.mark.parametrize("cidr", ["203.0.113.7/24", "example.com", "", "203.0.113.0/33", "0.0.0.0/0/0", None])
def test_what_is_no_range(cidr: t.Any) -> None:
    with pytest.raises(MachineError) as caught:
        cloud.check_cidrs([cidr])
    assert caught.value.code == "invalid_option" and "allowed_cidrs" in caught.value.where


def test_the_way_to_the_provider_gives_the_address() -> None:
    assert cloud.controller_cidr("127.0.0.1") == "127.0.0.1/32"
    with pytest.raises(MachineError) as caught:
        cloud.controller_cidr("no-such-host.invalid")
    assert caught.value.code == "unreachable" and "allowed_cidrs" in caught.value.where


@pytest.mark.parametrize(
    ("address", "private", "ask", "expected"),
    [
        ("1.1.1.1", False, None, "1.1.1.1/32"),
        ("2606:4700::1", False, None, "2606:4700::1/128"),
        ("10.0.0.5", True, None, "10.0.0.5/32"),
        ("10.0.0.5", False, "1.0.0.1\n", "1.0.0.1/32"),
        ("fe80::1%eth0", True, None, "fe80::1/128"),
        ("10.0.0.5", False, None, None),
        ("100.64.0.9", False, None, None),
        ("fd00::7", False, None, None),
    ],
)
def test_the_controllers_range(monkeypatch: pytest.MonkeyPatch, address: str, private: bool, ask: str | None, expected: str | None) -> None:
    monkeypatch.setattr(cloud, "route_address", lambda host, port: address)
    asked = None if ask is None else (lambda: ask)
    if expected is None:
        with pytest.raises(MachineError) as caught:
            cloud.controller_cidr("api", private=private, ask=asked)
        assert caught.value.code == "invalid_option" and "allowed_cidrs" in caught.value.where
    else:
        assert cloud.controller_cidr("api", private=private, ask=asked) == expected


def test_the_world_is_never_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud, "route_address", lambda host, port: "1.1.1.1")
    assert cloud.allowed_cidrs(options(), "api") == ["1.1.1.1/32"]
    assert cloud.allowed_cidrs(options(allowed_cidrs=["0.0.0.0/0"]), "api") == ["0.0.0.0/0"]


def test_retry_after() -> None:
    now = datetime.datetime.now(tz=datetime.timezone.utc)
    later = email.utils.format_datetime(now + datetime.timedelta(seconds=90), usegmt=True)
    assert cloud.retry_after({"Retry-After": "7"}) == 7
    assert cloud.retry_after({"retry-after": "0.5"}) == 0.5
    assert 80 < (cloud.retry_after({"RETRY-AFTER": later}) or 0) <= 90
    assert cloud.retry_after({"Retry-After": "Mon, 01 Jan 2001 00:00:00 GMT"}) == 0
    reset = str(int(now.timestamp()) + 30)
    assert 25 < (cloud.retry_after({"RateLimit-Remaining": "0", "RateLimit-Reset": reset}) or 0) <= 30
    assert cloud.retry_after({"RateLimit-Remaining": "9", "RateLimit-Reset": reset}) is None
    for nothing in (None, {}, {"Retry-After": "soon"}, {"Retry-After": ""}):
        assert cloud.retry_after(nothing) is None


def test_only_the_throttled_is_repeated() -> None:
    clock = Fast()
    answers: list[t.Any] = [TransientError("no", code="throttled", retry_after=3), TransientError("no", code="throttled"), "made"]

    def call() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    assert cloud.retry_throttled(call, phase="create", deadline=Deadline(60, clock)) == "made"
    assert clock.time >= 3
    answers[:] = [TransientError("cut", code="unreachable"), "made"]
    with pytest.raises(TransientError) as caught:
        cloud.retry_throttled(call, phase="create", deadline=Deadline(60, clock))
    assert caught.value.code == "unreachable" and answers == ["made"]
    answers[:] = [TransientError("no", code="throttled", retry_after=100)]
    with pytest.raises(DeadlineError):
        cloud.retry_throttled(call, phase="create", deadline=Deadline(60, clock))
    answers[:] = [MachineError("quota", code="quota")]
    with pytest.raises(MachineError) as refused:
        cloud.retry_throttled(call, phase="create", deadline=Deadline(60, clock))
    assert refused.value.code == "quota"


def test_errors_name_what_to_do() -> None:
    error = cloud.missing_library("digitalocean", "pydo", ImportError("No module named 'pydo'"))
    assert error.code == "missing_library" and "pip install pydo" in error.message
    assert cloud.protected("web1").code == "protected" and "delete_protection" in cloud.protected("web1").message
