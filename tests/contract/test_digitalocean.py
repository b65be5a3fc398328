# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only DigitalOcean has: firewalls by tag, keys in the account, resizing, and the shape of requests."""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import re
import typing as t

import backend as contract
import pytest

pytest.importorskip("pydo")

from fakes.digitalocean import SCHEMA

from ansible_collections.dockyard.machine.plugins.module_utils.driver import Outcome, converge
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError

OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBqG0m7Wc4JmT0y3cPj0oNf2vR8b1m4d7JrQk3E5n9sT other"


@pytest.fixture(scope="module")
def provider() -> t.Iterator[t.Any]:
    item = contract.load("digitalocean")()
    item.start()
    yield item
    item.stop()


@pytest.fixture
def cloud(provider: t.Any) -> t.Iterator[t.Any]:
    provider.reset()
    yield provider
    assert provider.fake.problems == []


def run(cloud: t.Any, state: str = "started", name: str = "web1", **changes: t.Any) -> Outcome:
    options = changes.pop("options", {})
    check_mode = changes.pop("check_mode", False)
    return converge(cloud.make(cloud.wanted(name, state=state, **changes), **options), check_mode=check_mode)


def firewalls(cloud: t.Any) -> list[dict[str, t.Any]]:
    found: list[dict[str, t.Any]] = cloud.fake.state()["firewalls"]
    return found


def request(cloud: t.Any, operation: str) -> dict[str, t.Any]:
    """The body of the last request of this kind."""
    found: dict[str, t.Any] = json.loads(cloud.fake.calls(operation)[-1].body)
    return found


def rules(wall: dict[str, t.Any]) -> set[tuple[str, str, str]]:
    return {(rule["protocol"], rule["ports"], address) for rule in wall["inbound_rules"] for address in rule["sources"]["addresses"]}


def only(cloud: t.Any) -> dict[str, t.Any]:
    found: list[dict[str, t.Any]] = cloud.fake.state()["droplets"]
    assert len(found) == 1
    return found[0]


def test_everything_is_in_the_one_call_that_creates(cloud: t.Any) -> None:
    run(cloud, tags={"stage": "test"}, options={"tag_names": ["blue"], "monitoring": True, "ipv6": True, "image": "ubuntu-24.04"})
    body = request(cloud, "droplets_create")
    assert len(cloud.fake.calls("droplets_create")) == 1
    assert set(body["tags"]) >= {
        "dockyard-machine:contract:web1",
        "dockyard-machine-owner:contract",
        "dockyard-machine-token:contract:web1:web1-token",
        "stage:test",
        "blue",
    }
    assert (body["name"], body["region"], body["size"], body["image"]) == ("web1", "nyc3", "s-1vcpu-1gb", "ubuntu-24-04-x64")
    assert body["user_data"] == "#cloud-config\n{}\n" and body["monitoring"] and body["ipv6"] and len(body["ssh_keys"]) == 1
    assert "public_networking" not in body
    machine = cloud.make(cloud.wanted()).find()
    assert machine.ipv6_address and machine.private_address and machine.tags == {"stage": "test", "blue": ""}


def test_only_those_who_were_named_may_come_in(cloud: t.Any) -> None:
    run(cloud, options={"allowed_cidrs": ["203.0.113.0/24", "2001:db8::5"], "open_ports": ["80", "8000-8010/udp"]})
    (wall,) = firewalls(cloud)
    ports = (("tcp", "22"), ("tcp", "2376"), ("tcp", "80"), ("udp", "8000-8010"))
    assert rules(wall) == {(*port, cidr) for port in ports for cidr in ("203.0.113.0/24", "2001:db8::5/128")}
    assert set(wall["tags"]) < set(only(cloud)["tags"])
    assert {rule["protocol"] for rule in wall["outbound_rules"]} == {"tcp", "udp", "icmp"}
    # It is there before the machine, so that the machine is never without.
    order = [entry.operation for entry in cloud.fake.calls(write=True)]
    assert order.index("firewalls_create") < order.index("droplets_create")


def test_by_default_only_the_controller_may_come_in(cloud: t.Any) -> None:
    run(cloud, options={"allowed_cidrs": []})
    assert {address for dummy, dummy2, address in rules(firewalls(cloud)[0])} == {"127.0.0.1/32"}


def test_the_world_only_when_it_is_named(cloud: t.Any) -> None:
    run(cloud, options={"allowed_cidrs": ["0.0.0.0/0"]})
    assert {address for dummy, dummy2, address in rules(firewalls(cloud)[0])} == {"0.0.0.0/0"}


def test_another_ssh_port_opens_that_and_not_22(cloud: t.Any) -> None:
    machine = run(cloud, options={"ssh_port": 2222, "open_ports": []}).machine
    assert machine is not None and machine.ssh_port == 2222
    assert {ports for dummy, ports, dummy2 in rules(firewalls(cloud)[0])} == {"2222", "2376"}


def test_machines_with_the_same_rules_share_a_firewall_until_the_last_goes(cloud: t.Any) -> None:
    run(cloud, name="web1")
    run(cloud, name="web2")
    run(cloud, name="web3", options={"open_ports": ["443"]})
    assert len(firewalls(cloud)) == 2
    run(cloud, "absent", name="web3")
    run(cloud, "absent", name="web1")
    assert len(firewalls(cloud)) == 1
    run(cloud, "absent", name="web2")
    assert firewalls(cloud) == []


def test_changed_rules_move_the_machine_to_another_firewall(cloud: t.Any) -> None:
    run(cloud)
    old = firewalls(cloud)[0]["name"]
    check = run(cloud, options={"allowed_cidrs": ["198.51.100.0/24"]}, check_mode=True)
    assert check.changed and [item.option for item in check.differences] == ["firewall"]
    assert run(cloud, options={"allowed_cidrs": ["198.51.100.0/24"]}).actions == ["update"]
    (wall,) = firewalls(cloud)
    assert wall["name"] != old and set(wall["tags"]) < set(only(cloud)["tags"])
    assert not run(cloud, options={"allowed_cidrs": ["198.51.100.0/24"]}).changed


@pytest.mark.parametrize("harm", ["removed", "opened", "untagged"])
def test_a_firewall_that_somebody_spoiled_is_mended(cloud: t.Any, harm: str) -> None:
    run(cloud)
    (wall,) = firewalls(cloud)
    good = rules(wall)
    if harm == "removed":
        cloud.fake.firewalls.remove(wall["id"])
    else:
        wall["inbound_rules"][0]["sources"]["addresses"] = (
            ["0.0.0.0/0"] if harm == "opened" else wall["inbound_rules"][0]["sources"]["addresses"]
        )
        cloud.fake.firewalls.put(wall["id"], {**wall, "tags": [] if harm == "untagged" else wall["tags"]})
    assert run(cloud).actions == ["update"]
    assert rules(firewalls(cloud)[0]) == good and firewalls(cloud)[0]["tags"]
    assert not run(cloud).changed


def test_a_firewall_lost_while_the_machine_was_made_comes_back(cloud: t.Any) -> None:
    """Somebody removed the last machine of the owner, and with it the firewall, at the worst moment."""
    make = cloud.fake._make

    def spoil(*args: t.Any) -> t.Any:
        for wall in firewalls(cloud):
            cloud.fake.firewalls.remove(wall["id"])
        return make(*args)

    cloud.fake._make = spoil
    try:
        run(cloud)
    finally:
        cloud.fake._make = make
    assert len(firewalls(cloud)) == 1


def test_a_firewall_removed_under_a_new_machine_comes_back(cloud: t.Any) -> None:
    """The other side of that moment: the machine appears between the look for machines and the removal."""
    run(cloud)
    wall = firewalls(cloud)[0]
    body = {"region": "nyc3", "size": "s-1vcpu-1gb", "image": "debian-12-x64", "tags": wall["tags"]}
    remove = cloud.fake.firewalls.remove

    def spoil(key: str) -> None:
        remove(key)
        cloud.fake._make("web2", body)

    cloud.fake.firewalls.remove = spoil
    run(cloud, "absent")
    cloud.fake.firewalls.remove = remove
    (again,) = firewalls(cloud)
    assert (again["name"], again["tags"], rules(again)) == (wall["name"], wall["tags"], rules(wall))


def test_a_firewall_of_the_users_is_used_and_never_changed(cloud: t.Any) -> None:
    api = cloud.make(cloud.wanted()).api
    body = {"name": "mine", "inbound_rules": [{"protocol": "tcp", "ports": "22", "sources": {"addresses": ["192.0.2.1"]}}]}
    mine = api.call("firewalls", "create", body, doing="test")["firewall"]
    options = {"firewall_ids": [mine["id"]]}
    run(cloud, options=options)
    (wall,) = firewalls(cloud)
    assert wall == {**mine, "droplet_ids": [only(cloud)["id"]]}
    assert not run(cloud, options=options).changed
    cloud.fake.firewalls.put(mine["id"], mine)
    assert run(cloud, options=options).actions == ["update"]
    run(cloud, "absent", options=options)
    assert [wall["name"] for wall in firewalls(cloud)] == ["mine"]


def test_no_firewall_when_none_is_wanted(cloud: t.Any) -> None:
    run(cloud, options={"firewall": False})
    assert firewalls(cloud) == []
    assert not run(cloud, options={"firewall": False}).changed


def test_a_key_of_the_account_is_used_and_stays(cloud: t.Any) -> None:
    driver = cloud.make(cloud.wanted())
    key = driver.api.call("ssh_keys", "create", {"name": "mine", "public_key": OTHER_KEY}, doing="test")["ssh_key"]
    for given in (key["fingerprint"], str(key["id"])):
        run(cloud, options={"ssh_key_fingerprint": given})
        assert request(cloud, "droplets_create")["ssh_keys"] in ([key["fingerprint"]], [key["id"]])
        run(cloud, "absent", options={"ssh_key_fingerprint": given})
        assert [item["name"] for item in cloud.fake.state()["ssh_keys"]] == ["mine"]
    # The same key under another name: used, not added again, not removed.
    run(cloud, ssh_public_key=OTHER_KEY)
    run(cloud, "absent")
    assert [item["name"] for item in cloud.fake.state()["ssh_keys"]] == ["mine"]


def test_keys_are_never_listed_to_make_or_remove_a_machine(cloud: t.Any) -> None:
    """The API allows ten such lists a minute for the whole account."""
    run(cloud)
    run(cloud)
    run(cloud, "absent")
    assert cloud.fake.calls("ssh_keys_list") == []


def test_a_machine_without_a_key_is_refused(cloud: t.Any) -> None:
    for key in ("", "not a key"):
        with pytest.raises(MachineError) as caught:
            run(cloud, ssh_public_key=key)
        assert caught.value.code == "invalid_option" and "ssh_public_key" in caught.value.where
    assert cloud.fake.calls(write=True) == []


def test_a_stopped_machine_is_resized_in_place(cloud: t.Any) -> None:
    machine = run(cloud).machine
    outcome = run(cloud, options={"size": "s-2vcpu-4gb"})
    assert not outcome.changed and outcome.differences[0].needs_stop
    run(cloud, "stopped")
    outcome = run(cloud, options={"size": "s-2vcpu-4gb"})
    assert outcome.actions == ["update", "start"]
    assert outcome.machine is not None and machine is not None
    assert outcome.machine.id == machine.id and outcome.machine.details["size"] == "s-2vcpu-4gb"
    assert request(cloud, "droplet_actions_post")["type"] == "power_on"
    resize = next(entry for entry in cloud.fake.calls("droplet_actions_post") if "resize" in entry.body)
    assert json.loads(resize.body)["disk"] is False


def test_what_cannot_change_is_reported(cloud: t.Any) -> None:
    run(cloud)
    outcome = run(cloud, options={"region": "fra1", "image": "debian-13", "ipv6": True})
    assert not outcome.changed
    assert {item.option for item in outcome.differences if not item.in_place} == {"region", "image", "ipv6"}


def test_backups_change_in_place(cloud: t.Any) -> None:
    run(cloud)
    assert run(cloud, options={"backups": True}).actions == ["update"]
    assert not run(cloud, options={"backups": True}).changed
    assert run(cloud).actions == ["update"]


def test_protection(cloud: t.Any) -> None:
    run(cloud, options={"delete_protection": True})
    # Also for somebody who doesn't know of it.
    for options in ({"delete_protection": True}, {}):
        with pytest.raises(MachineError) as caught:
            run(cloud, "absent", token="", options=options)
        assert caught.value.code == "protected"
    assert len(cloud.machines()) == 1 and cloud.fake.state()["ssh_keys"] and firewalls(cloud)
    assert run(cloud).actions == ["update"]
    run(cloud, "absent")
    assert cloud.resources() == []


def test_private_address_only(cloud: t.Any) -> None:
    options = {"private_address_only": True}
    machine = run(cloud, options=options).machine
    assert machine is not None and machine.address == machine.private_address != ""
    assert request(cloud, "droplets_create")["public_networking"] is False
    assert not run(cloud, options=options).changed


def test_an_own_image_by_name(cloud: t.Any) -> None:
    run(cloud, options={"image": "golden"})
    assert request(cloud, "droplets_create")["image"] == 7555620
    assert not run(cloud, options={"image": "golden"}).changed
    assert not run(cloud, options={"image": "7555620"}).changed


def test_the_case_of_tags_makes_no_difference(cloud: t.Any) -> None:
    api = cloud.make(cloud.wanted()).api
    api.call("tags", "create", {"name": "STAGE:Test"}, doing="test")
    run(cloud, tags={"stage": "test"})
    assert not run(cloud, tags={"stage": "test"}).changed


def test_twins_are_both_removed(cloud: t.Any) -> None:
    run(cloud)
    cloud.fake._make("web1", {**request(cloud, "droplets_create")})
    driver = cloud.make(cloud.wanted())
    assert driver.find() is not None and "2 Droplets" in driver.warnings[0]
    run(cloud, "absent")
    assert cloud.resources() == []


def test_a_whole_account_is_listed_page_by_page(cloud: t.Any) -> None:
    cloud.fake.droplet_limit = 1000
    body = {"region": "nyc3", "size": "s-1vcpu-1gb", "image": "debian-12-x64"}
    for number in range(401):
        tags = ["dockyard-machine-owner:contract", f"dockyard-machine:contract:web{number}"]
        cloud.fake._make(f"web{number}", {**body, "tags": tags})
    machines = cloud.make(cloud.wanted("")).list()
    assert sorted(machine.name for machine in machines) == sorted(f"web{number}" for number in range(401))
    assert len(cloud.fake.calls("droplets_list")) == 3


def test_the_unchanged_costs_few_calls(cloud: t.Any) -> None:
    run(cloud)
    before = len(cloud.fake.log)
    run(cloud)
    assert len(cloud.fake.log) - before <= 3


def test_a_broken_creation_is_made_anew_by_the_next_run(cloud: t.Any) -> None:
    cloud.fake.arm("operation_error")
    with pytest.raises(MachineError) as caught:
        run(cloud)
    assert caught.value.code == "machine_in_error"
    assert run(cloud).actions == ["delete", "create"]
    assert len(cloud.machines()) == 1


def test_two_who_remove_and_make_with_the_same_key(cloud: t.Any) -> None:
    """The key goes between the moment it was looked up and the moment the machine is made."""
    run(cloud, name="web1")
    keys = cloud.fake.state()["ssh_keys"]
    real = cloud.fake._refuse

    def spoil(*args: t.Any) -> None:
        cloud.fake.keys.remove(str(keys[0]["id"]))
        real(*args)

    cloud.fake._refuse = spoil
    try:
        assert run(cloud, name="web2").actions == ["create"]
    finally:
        cloud.fake._refuse = real


def test_a_busy_droplet_is_asked_again(cloud: t.Any) -> None:
    machine = run(cloud).machine
    driver = cloud.make(cloud.wanted())
    driver.restart(machine)
    with pytest.raises(TransientError) as caught:
        driver.kill(machine)
    assert caught.value.code == "busy"
    assert run(cloud, "killed").changed


def test_the_token_is_never_in_an_error(cloud: t.Any) -> None:
    for change in ({"access_token": "dop_v1_s3cret"}, {"size": "nope"}, {"api_url": "http://127.0.0.1:1"}):
        with pytest.raises(MachineError) as caught:
            run(cloud, options=change, timeout=1)
        text = json.dumps(caught.value.result()) + repr(caught.value.__cause__)
        assert "dop_v1" not in text


@pytest.mark.parametrize("url", ["http://api.example.com", "ftp://127.0.0.1", "api.digitalocean.com", "http://10.0.0.1", "https://"])
def test_the_token_goes_nowhere_unsafe(cloud: t.Any, url: str) -> None:
    with pytest.raises(MachineError) as caught:
        cloud.make(cloud.wanted(), api_url=url)
    assert caught.value.code == "invalid_option" and "api_url" in caught.value.where


def documented_scopes() -> set[str]:
    """The block of scopes in the driver's documentation."""
    page = pathlib.Path(__file__).resolve().parents[2] / "docs" / "drivers" / "digitalocean.md"
    match = re.search(r"```text\n(droplet:.*?)```", page.read_text(encoding="utf-8"), re.S)
    assert match is not None
    return set(match.group(1).split())


def whole_life(cloud: t.Any) -> None:
    """Everything that the driver ever does."""
    api = cloud.make(cloud.wanted()).api
    body = {"name": "mine", "inbound_rules": [{"protocol": "tcp", "ports": "22", "sources": {"addresses": ["192.0.2.1"]}}]}
    scopes, cloud.fake.scopes = cloud.fake.scopes, None
    mine = api.call("firewalls", "create", body, doing="test")["firewall"]
    cloud.fake.scopes = scopes
    run(cloud, tags={"stage": "one"}, options={"image": "golden", "vpc_uuid": "760e09ef-dc84-11e8-981e-3cfdfeaae000"})
    run(cloud, tags={"stage": "two"}, options={"image": "golden", "allowed_cidrs": ["192.0.2.0/24"], "backups": True})
    for wall in firewalls(cloud):
        cloud.fake.firewalls.put(wall["id"], {**wall, "tags": []})
    run(cloud, tags={"stage": "two"}, options={"image": "golden"})
    run(cloud, "stopped")
    run(cloud, options={"size": "s-2vcpu-4gb", "firewall_ids": [mine["id"]]})
    run(cloud, options={"size": "s-2vcpu-4gb", "firewall_ids": [mine["id"]]})
    run(cloud, "absent")
    run(cloud, "absent")
    with pytest.raises(MachineError):
        run(cloud, options={"size": "nope"})


def test_the_documented_scopes_are_enough_and_none_is_too_much(cloud: t.Any) -> None:
    scopes = documented_scopes()
    cloud.fake.scopes = scopes
    whole_life(cloud)
    assert cloud.resources() == []
    needed = {scope for entry in cloud.fake.calls() for scope in SCHEMA["operations"].get(entry.operation, {}).get("scopes", [])}
    # DigitalOcean demands actions:read of every token that may read Droplets.
    assert scopes - needed <= {"actions:read"}
    for scope in sorted(scopes - {"actions:read"}):
        cloud.reset()
        cloud.fake.scopes = scopes - {scope}
        with pytest.raises(MachineError) as caught:
            whole_life(cloud)
        assert caught.value.code == "bad_credentials" and "docs/drivers/digitalocean.md" in caught.value.hint, scope


def test_many_make_the_first_firewall_at_once(cloud: t.Any) -> None:
    cloud.fake.latency = 0.02
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: run(cloud, name=f"web{number}"), range(8)))
    assert len(firewalls(cloud)) == 1 and len(cloud.machines()) == 8
