# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only the driver ``gce`` does, against the fake of Compute Engine."""

from __future__ import annotations

import json
import pathlib
import re
import typing as t

import backend as contract
import pytest

pytest.importorskip("google.cloud.compute_v1")
pytest.importorskip("googleapiclient")

from fakes.gce import ComputeEngine

from ansible_collections.dockyard.machine.plugins.module_utils import gce_api
from ansible_collections.dockyard.machine.plugins.module_utils.driver import Outcome, converge
from ansible_collections.dockyard.machine.plugins.module_utils.drivers.gce import GceDriver
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.gce_firewall import Firewall
from ansible_collections.dockyard.machine.plugins.module_utils.machine import State

DOCUMENTATION = pathlib.Path(__file__).parents[2] / "docs" / "drivers" / "gce.md"
INSERT = "compute.instances.insert"


class Gce:
    """The fake, and the driver on it."""

    def __init__(self, provider: contract.Backend) -> None:
        self.provider = provider
        self.fake: ComputeEngine = provider.fake  # type: ignore[attr-defined]
        self.warnings: list[str] = []

    def driver(self, name: str = "web1", options: dict[str, t.Any] | None = None, **wanted: t.Any) -> GceDriver:
        driver = self.provider.make(self.provider.wanted(name, **wanted), **(options or {}))
        assert isinstance(driver, GceDriver)
        return driver

    def run(self, state: str = "started", name: str = "web1", check_mode: bool = False, **options: t.Any) -> Outcome:
        wanted = options.pop("wanted", {})
        driver = self.driver(name, options, state=state, **wanted)
        try:
            return converge(driver, check_mode=check_mode)
        finally:
            self.warnings = driver.warnings

    def refused(self, state: str = "started", **options: t.Any) -> MachineError:
        with pytest.raises(MachineError) as caught:
            self.run(state, **options)
        return caught.value

    def state(self, kind: str) -> list[dict[str, t.Any]]:
        with self.fake.lock:
            state = self.fake.state()
        assert state["violations"] == []
        return t.cast("list[dict[str, t.Any]]", state[kind])

    @property
    def instance(self) -> dict[str, t.Any]:
        found = self.state("instances")
        assert len(found) == 1
        return found[0]

    @property
    def rules(self) -> list[dict[str, t.Any]]:
        return self.state("firewalls")

    def order(self, verb: str, **data: t.Any) -> t.Any:
        with self.fake.lock:
            return self.fake.control(verb, data)

    def inserts(self) -> list[str]:
        return [re.findall(r"requestId=([^&]*)", entry.path)[0] for entry in self.fake.calls(INSERT)]

    def metadata(self) -> dict[str, str]:
        return {item["key"]: item["value"] for item in self.instance["metadata"]["items"]}


@pytest.fixture(scope="module")
def provider() -> t.Iterator[contract.Backend]:
    found = contract.load("gce")()
    found.start()
    yield found
    found.stop()


@pytest.fixture
def gce(provider: contract.Backend) -> Gce:
    provider.reset()
    return Gce(provider)


# --- whose instance ------------------------------------------------------------------------------------------------


def test_somebody_elses_instance_is_never_touched(gce: Gce) -> None:
    gce.order("foreign", name="web1")
    before = gce.state("instances")
    for state in ("started", "present", "stopped", "restarted", "killed"):
        error = gce.refused(state)
        assert error.code == "not_ours" and "use_existing" in error.hint
    assert not gce.run("absent").changed
    assert any("not touched" in warning for warning in gce.warnings)
    assert gce.state("instances") == before and gce.fake.calls(write=True) == []


def test_another_owners_instance_is_not_taken_over_even_when_asked(gce: Gce) -> None:
    gce.order("foreign", name="web1", labels={"dockyard-machine": "web1", "dockyard-machine-owner": "them"})
    error = gce.refused(use_existing=True)
    assert error.code == "not_ours" and "them" in error.why
    assert not gce.run("absent", use_existing=True).changed


@pytest.mark.parametrize("how", ["use_existing", "provider_id"])
def test_an_unmarked_instance_is_taken_over_on_request(gce: Gce, how: str) -> None:
    gce.order("foreign", name="web1", labels={"goog-ops": "agent", "team": "old"})
    identifier = gce.instance["id"]
    options: dict[str, t.Any] = {"use_existing": True} if how == "use_existing" else {"wanted": {"provider_id": identifier}}
    outcome = gce.run(**options)
    assert outcome.actions == ["update"] and outcome.machine is not None and outcome.machine.id == identifier
    labels = gce.instance["labels"]
    assert labels["dockyard-machine"] == "web1" and labels["dockyard-machine-owner"] == "contract"
    assert labels["goog-ops"] == "agent" and "team" not in labels
    assert gce.state("disks")[0]["labels"]["dockyard-machine"] == "web1"
    assert not gce.run().changed
    gce.run("absent")
    assert gce.state("instances") == gce.state("disks") == gce.rules == []


def test_found_in_another_zone_by_its_marks(gce: Gce) -> None:
    gce.run(zone="us-central1-b")
    outcome = gce.run(zone="us-central1-c")
    assert not outcome.changed and outcome.machine is not None and outcome.machine.details["zone"] == "us-central1-b"
    assert [item.option for item in outcome.differences if not item.in_place] == ["zone"]
    assert gce.run("absent", zone="us-central1-c").actions == ["delete"]
    assert gce.state("instances") == []


def test_list_takes_one_call_a_page(gce: Gce, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("web1", "web2", "web3", "web4"):
        gce.run(name=name, zone="us-central1-b" if name == "web4" else "us-central1-a")
    gce.order("foreign", name="stranger")
    before = len(gce.fake.calls())
    assert sorted(machine.name for machine in gce.driver("").list()) == ["web1", "web2", "web3", "web4"]
    assert len(gce.fake.calls()) == before + 1
    monkeypatch.setattr(gce_api, "PAGE_SIZE", 2)
    assert sorted(machine.name for machine in gce.driver("").list()) == ["web1", "web2", "web3", "web4"]
    assert len(gce.fake.calls()) == before + 3


def test_a_name_that_begins_with_a_digit_is_refused_before_any_call(gce: Gce) -> None:
    error = gce.refused(name="1web")
    assert error.code == "invalid_name" and gce.fake.calls() == []


# --- making it once ------------------------------------------------------------------------------------------------


def test_a_repeated_request_has_the_same_id_and_another_generation_has_not(gce: Gce) -> None:
    gce.fake.arm("cut_after", on=INSERT)
    first = gce.run().machine
    assert first is not None
    again = gce.inserts()
    assert len(again) == 2 and len(set(again)) == 1
    gce.order("delete_outside", name="web1")
    second = gce.run(wanted={"provider_id": first.id}).machine
    assert second is not None and second.id != first.id
    assert gce.inserts()[2] != again[0] and len(gce.inserts()) == 3


def test_removed_before_the_record_knew_its_id(gce: Gce) -> None:
    """The provider still remembers the request's id, and answers with an operation that is long over."""
    first = gce.run().machine
    gce.order("delete_outside", name="web1")
    second = gce.run().machine
    assert first is not None and second is not None and second.id != first.id
    assert len(gce.inserts()) == 3 and len(set(gce.inserts())) == 2


def test_spot_falls_back_to_on_demand(gce: Gce) -> None:
    gce.fake.arm("capacity", data={"spot": True})
    outcome = gce.run(preemptible=True)
    assert gce.instance["scheduling"]["provisioningModel"] == "STANDARD"
    assert any("on-demand" in warning for warning in gce.warnings)
    assert outcome.machine is not None and outcome.machine.details["spot"] is False
    assert not gce.run(preemptible=True).changed and gce.warnings == []


def test_spot_without_fallback(gce: Gce) -> None:
    gce.fake.arm("capacity", data={"spot": True})
    error = gce.refused(preemptible=True, spot_fallback=False)
    assert error.code == "capacity" and error.where == "option zone"
    assert gce.state("instances") == gce.state("disks") == gce.rules == []
    outcome = gce.run(preemptible=True, spot_fallback=False)
    assert gce.instance["scheduling"]["preemptible"] is True
    assert outcome.machine is not None and outcome.machine.details["spot"] is True


def test_arm_machine_types_get_arm_images(gce: Gce) -> None:
    gce.run(machine_type="t2a-standard-1", image="debian-12")
    disk = gce.state("disks")[0]
    assert disk["sourceImage"].endswith("debian-12-bookworm-arm64-v20261110")
    assert gce.instance["shieldedInstanceConfig"]["enableSecureBoot"] is False
    assert gce.instance["shieldedInstanceConfig"]["enableVtpm"] is True


def test_what_is_made_by_default(gce: Gce) -> None:
    gce.run()
    instance, disk = gce.instance, gce.state("disks")[0]
    assert instance["shieldedInstanceConfig"] == {"enableSecureBoot": True, "enableVtpm": True, "enableIntegrityMonitoring": True}
    assert "serviceAccounts" not in instance and instance["deletionProtection"] is False
    assert instance["disks"][0]["autoDelete"] is True and disk["name"] == "web1"
    assert disk["type"].endswith("/pd-balanced") and disk["labels"] == instance["labels"]
    metadata = gce.metadata()
    assert metadata["ssh-keys"].startswith("docker-user:ssh-ed25519 ")
    assert (metadata["block-project-ssh-keys"], metadata["enable-oslogin"]) == ("TRUE", "FALSE")
    assert metadata["user-data"] == "#cloud-config\n{}\n" and "startup-script" not in metadata


def test_what_the_user_chooses(gce: Gce) -> None:
    key = "projects/demo/locations/us/keyRings/r/cryptoKeys/k"
    gce.run(
        image="demo/golden",
        machine_type="c4-standard-2",
        disk_kms_key=key,
        service_account="docker@demo.iam.gserviceaccount.com",
        scopes=["logging.write"],
        network_tags=["web"],
        metadata={"serial-port-enable": "TRUE", "ssh-keys": "other:ssh-ed25519 AAAA other"},
    )
    instance, disk = gce.instance, gce.state("disks")[0]
    assert disk["type"].endswith("/hyperdisk-balanced") and disk["diskEncryptionKey"] == {"kmsKeyName": key}
    # Without UEFI the image cannot be shielded.
    assert "shieldedInstanceConfig" not in instance
    account = {"email": "docker@demo.iam.gserviceaccount.com", "scopes": ["https://www.googleapis.com/auth/logging.write"]}
    assert instance["serviceAccounts"] == [account]
    assert instance["tags"]["items"][0] == "web"
    metadata = gce.metadata()
    assert metadata["serial-port-enable"] == "TRUE" and metadata["ssh-keys"].splitlines()[1].startswith("other:")
    # An image that nobody promised has cloud-init.
    assert metadata["startup-script"].startswith("#!/bin/sh\n")


def test_tags_that_labels_cannot_hold(gce: Gce) -> None:
    tags = {"Cost Center": "R&D / München", "stage": "prod"}
    machine = gce.run(wanted={"tags": tags}).machine
    assert machine is not None and machine.tags == tags
    assert gce.instance["labels"]["cost_center"] == "r_d___m_nchen"
    assert not gce.run(wanted={"tags": tags}).changed
    assert gce.run(wanted={"tags": {"stage": "prod"}}).actions == ["update"]
    assert "dockyard-machine-tags" not in gce.metadata() and "user-data" in gce.metadata()
    error = gce.refused(name="web2", wanted={"tags": {"A": "1", "a": "2"}})
    assert error.code == "invalid_option" and error.where == "option tags"


# --- network -------------------------------------------------------------------------------------------------------


def test_addresses(gce: Gce) -> None:
    gce.order("reserve", name="front", address="198.51.100.7")
    machine = gce.run(address="front").machine
    assert machine is not None and machine.address == "198.51.100.7"
    for state in ("stopped", "started"):
        machine = gce.run(state, address="front").machine
    assert machine is not None and machine.address == "198.51.100.7"
    machine = gce.run(use_internal_ip=True).machine
    assert machine is not None and machine.address == machine.private_address != ""
    machine = gce.run(name="inner", private_address_only=True).machine
    assert machine is not None and machine.address == machine.private_address != ""
    assert gce.refused(name="web9", address="front", private_address_only=True).where == "option address"


@pytest.mark.parametrize(("subnetwork", "address"), [("dual", "2001:db8::1"), ("dual-internal", "fd20::1")])
def test_ipv6(gce: Gce, subnetwork: str, address: str) -> None:
    machine = gce.run(subnetwork=subnetwork, ipv6=True).machine
    assert machine is not None and machine.ipv6_address == address
    assert gce.instance["networkInterfaces"][0]["network"].endswith("/networks/own")


def test_a_shared_networks_rule_is_in_its_project(gce: Gce) -> None:
    gce.run(subnetwork="projects/host-project/regions/us-central1/subnetworks/shared-sub")
    assert "/projects/host-project/" in gce.rules[0]["selfLink"]
    assert not gce.run(subnetwork="projects/host-project/regions/us-central1/subnetworks/shared-sub").changed
    # An empty store does not know the network: the machine tells.
    gce.run("absent")
    assert gce.rules == []


def test_the_rule_lets_in_what_was_asked_for(gce: Gce) -> None:
    gce.run(allowed_cidrs=["203.0.113.0/24", "2001:db8:1::/48"], open_ports=["80", "8000-8010/udp"])
    rules = sorted(gce.rules, key=lambda rule: str(rule["name"]))
    assert [rule["sourceRanges"] for rule in rules] == [["203.0.113.0/24"], ["2001:db8:1::/48"]]
    for rule in rules:
        assert rule["targetTags"] == [rules[0]["name"]] == gce.instance["tags"]["items"]
        assert rule["allowed"] == [
            {"IPProtocol": "tcp", "ports": ["22", "80", "2376"]},
            {"IPProtocol": "udp", "ports": ["8000-8010"]},
        ]
        assert rule["direction"] == "INGRESS" and "contract" in rule["description"]


def test_by_default_only_the_controller_gets_in(gce: Gce) -> None:
    gce.run()
    assert [rule["sourceRanges"] for rule in gce.rules] == [["127.0.0.1/32"]]


def test_same_permissions_share_a_rule_and_others_do_not(gce: Gce) -> None:
    gce.run()
    gce.run(name="web2")
    gce.run(name="open", open_ports=["80"], allowed_cidrs=["0.0.0.0/0"])
    assert len(gce.rules) == 2
    gce.run("absent", name="open")
    gce.run("absent")
    assert len(gce.rules) == 1
    gce.run("absent", name="web2")
    assert gce.rules == []


def test_permissions_change_in_place(gce: Gce) -> None:
    gce.run(name="web2")
    gce.run()
    check = gce.run(allowed_cidrs=["203.0.113.0/24"], check_mode=True)
    assert check.actions == ["update"] and len(gce.rules) == 1
    assert gce.run(allowed_cidrs=["203.0.113.0/24"]).actions == ["update"]
    assert sorted(rule["sourceRanges"] for rule in gce.rules) == [["127.0.0.1/32"], ["203.0.113.0/24"]]
    assert not gce.run(allowed_cidrs=["203.0.113.0/24"]).changed and not gce.run(name="web2").changed
    gce.run(name="web2", allowed_cidrs=["203.0.113.0/24"])
    assert [rule["sourceRanges"] for rule in gce.rules] == [["203.0.113.0/24"]]


def test_a_rule_that_somebody_changed_is_mended(gce: Gce) -> None:
    gce.run()
    name = gce.rules[0]["name"]
    gce.order("firewall_edit", name=name, sourceRanges=["0.0.0.0/0"])
    outcome = gce.run()
    assert outcome.actions == ["update"] and [item.option for item in outcome.differences] == ["firewall"]
    assert gce.rules[0]["sourceRanges"] == ["127.0.0.1/32"]


def test_a_rule_that_goes_while_a_machine_comes_is_made_again(gce: Gce, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newcomer has made sure of the rule just before the last of the others takes it away."""
    gce.run()
    remove = Firewall._remove

    def late(self: Firewall, name: str, deadline: t.Any) -> None:
        monkeypatch.setattr(Firewall, "_remove", remove)
        Gce(gce.provider).run(name="web2")
        remove(self, name, deadline)

    monkeypatch.setattr(Firewall, "_remove", late)
    gce.run("absent")
    assert [rule["targetTags"] for rule in gce.rules] == [gce.instance["tags"]["items"]]
    assert not gce.run(name="web2").changed


def test_somebody_elses_rule_of_the_name_is_not_touched(gce: Gce) -> None:
    gce.run()
    name = gce.rules[0]["name"]
    gce.order("firewall_edit", name=name, description="mine", sourceRanges=["192.0.2.0/24"])
    error = gce.refused()
    assert error.code == "not_ours" and name in error.what
    gce.run("absent")
    assert [rule["sourceRanges"] for rule in gce.rules] == [["192.0.2.0/24"]]


def test_without_a_rule(gce: Gce) -> None:
    gce.run(firewall=False, network_tags=["mine"])
    assert gce.rules == [] and gce.instance["tags"]["items"] == ["mine"]
    gce.run("absent", firewall=False)
    assert not gce.fake.calls("compute.firewalls.*")


# --- day two -------------------------------------------------------------------------------------------------------


def test_delete_protection(gce: Gce) -> None:
    gce.run(delete_protection=True)
    assert gce.instance["deletionProtection"] is True
    for option in (True, False):
        error = gce.refused("absent", delete_protection=option)
        assert error.code == "protected" and error.where == "option delete_protection"
    assert gce.run().actions == ["update"]
    assert gce.instance["deletionProtection"] is False
    assert gce.run("absent").actions == ["delete"]


def test_machine_type_changes_while_stopped(gce: Gce) -> None:
    gce.run()
    outcome = gce.run(machine_type="e2-standard-4")
    assert not outcome.changed and any("stopped" in warning for warning in gce.warnings)
    gce.run("stopped")
    outcome = gce.run(machine_type="e2-standard-4")
    assert outcome.actions == ["update", "start"]
    assert gce.instance["machineType"].endswith("/e2-standard-4")
    assert not gce.run(machine_type="e2-standard-4").changed


def test_a_disk_grows_and_never_shrinks(gce: Gce) -> None:
    gce.run(disk_size=20)
    gce.fake.arm("cut_after", on="compute.disks.resize")
    assert gce.run(disk_size=40).actions == ["update"]
    assert gce.state("disks")[0]["sizeGb"] == "40"
    outcome = gce.run(disk_size=20)
    assert not outcome.changed and [item.option for item in outcome.differences if not item.in_place] == ["disk_size"]


def test_a_new_image_needs_re_creation(gce: Gce) -> None:
    gce.run(image="debian-12")
    outcome = gce.run(image="ubuntu-24.04")
    assert not outcome.changed
    assert [(item.option, item.actual, item.wanted, item.in_place) for item in outcome.differences] == [
        ("image", "debian-12", "ubuntu-24.04", False)
    ]


def test_a_stale_fingerprint_is_read_again(gce: Gce) -> None:
    gce.run()
    gce.fake.arm("conflict", on="compute.instances.setLabels")
    assert gce.run(wanted={"tags": {"stage": "prod"}}).actions == ["update"]
    assert gce.instance["labels"]["stage"] == "prod"
    assert len(gce.fake.calls("compute.instances.setLabels")) == 2


def test_a_suspended_machine_is_resumed(gce: Gce) -> None:
    gce.run()
    gce.order("suspend", name="web1")
    assert gce.run().actions == ["start"]
    assert len(gce.fake.calls("compute.instances.resume")) == 1


def test_no_capacity_to_start_is_said(gce: Gce) -> None:
    gce.run()
    gce.run("stopped")
    gce.fake.arm("capacity", on="compute.instances.start")
    error = gce.refused()
    assert error.code == "capacity" and "resources" in error.why
    machine = gce.run().machine
    assert machine is not None and machine.state == State.RUNNING


def test_a_kept_disk_is_used_again(gce: Gce) -> None:
    gce.run(disk_auto_delete=False)
    disk = gce.state("disks")[0]["id"]
    gce.run("absent", disk_auto_delete=False)
    assert gce.state("instances") == [] and [item["id"] for item in gce.state("disks")] == [disk]
    assert not gce.run("absent", disk_auto_delete=False).changed
    gce.run(disk_auto_delete=False)
    assert [item["id"] for item in gce.state("disks")] == [disk]
    gce.run("absent", disk_auto_delete=False)
    outcome = gce.run("absent")
    assert outcome.leftovers == ["disk us-central1-a/web1"] and gce.state("disks") == []


def test_a_foreign_disk_of_the_name_is_not_used(gce: Gce) -> None:
    gce.run(disk_auto_delete=False, wanted={"owner": "them"})
    gce.run("absent", disk_auto_delete=False, wanted={"owner": "them"})
    assert gce.refused(disk_auto_delete=False, zone="us-central1-a").code == "not_ours"


# --- what the account needs ----------------------------------------------------------------------------------------


def test_the_documented_role_covers_every_call(gce: Gce) -> None:
    """Every method that is called needs a permission, and the documented role has it."""
    needs = {
        "insert": "create", "patch": "update", "aggregatedList": "list", "getFromFamily": "getFromFamily",
    }  # fmt: skip
    gce.run(image="demo/golden", subnetwork="dual", disk_auto_delete=False)
    gce.run("stopped")
    gce.run(machine_type="e2-standard-4", disk_size=40, delete_protection=True, wanted={"tags": {"Stage": "prod"}})
    gce.run(open_ports=["80"], machine_type="e2-standard-4", disk_size=40)
    gce.order("firewall_edit", name=gce.rules[0]["name"], sourceRanges=["0.0.0.0/0"])
    gce.run(open_ports=["80"], machine_type="e2-standard-4", disk_size=40)
    gce.order("suspend", name="web1")
    gce.run("restarted", name="web1", open_ports=["80"])
    gce.run("absent", disk_auto_delete=False)
    gce.run("absent")
    gce.refused(zone="moon-central1-a", state="started")
    called = {entry.operation for entry in gce.fake.calls()}
    assert {"compute.disks.delete", "compute.firewalls.patch", "compute.instances.resume", "compute.instances.setMetadata"} <= called
    role = set(re.findall(r"^  - (compute\.\S+)$", DOCUMENTATION.read_text(encoding="utf-8"), re.MULTILINE))
    for method in called:
        service, resource, verb = method.split(".")
        assert f"{service}.{resource}.{needs.get(verb, verb)}" in role, method


# --- the fake is as strict as the description ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "said"),
    [
        ("GET", "zones/us-central1-a/instances/web1?nonsense=1", None, "nonsense: unknown"),
        ("GET", "zones/us-central1-a/instances/WEB1", None, "doesn't match"),
        ("GET", "aggregated/instances?maxResults=many", None, "no integer"),
        ("POST", "zones/us-central1-a/instances", {}, "body.name: missing"),
        ("POST", "zones/us-central1-a/instances", {"name": "a", "machine_type": "x"}, "machine_type: unknown field"),
        ("POST", "zones/us-central1-a/instances", {"name": "a", "status": "RUNNING"}, "is none of|only the server"),
        ("POST", "zones/us-central1-a/instances", {"name": "a", "id": "1"}, "only the server"),
        ("POST", "zones/us-central1-a/instances", {"name": "a", "disks": [{"diskSizeGb": 10}]}, "no string"),
        ("POST", "zones/us-central1-a/instances", {"name": "a", "scheduling": {"provisioningModel": "CHEAP"}}, "is none of"),
        ("POST", "zones/us-central1-a/instances", {"name": "a", "deletionProtection": "yes"}, "no boolean"),
        ("POST", "zones/us-central1-a/instances/web1/start", {"name": "a"}, "takes none"),
    ],
)
def test_the_fake_refuses_what_the_description_does_not_allow(gce: Gce, method: str, path: str, body: t.Any, said: str) -> None:
    from fakes.core import Request

    split = path.split("?")
    query = {key: [value] for key, value in (item.split("=") for item in split[1:])}
    raw = b"" if body is None else json.dumps(body).encode()
    response = gce.fake.serve(Request(method, f"/compute/v1/projects/demo/{split[0]}", query, {}, raw, url=path))
    assert response.status == 400 and re.search(said, json.dumps(response.body)), response.body


def test_the_fake_notices_when_it_breaks_the_description_itself(gce: Gce) -> None:
    gce.run()
    with gce.fake.lock:
        gce.fake._change(gce.fake.instances, gce.fake.named("web1"), status="FINE")
    error = gce.refused(wanted={"timeout": 2})
    assert "broke the contract" in error.message
    assert gce.fake.violations and "FINE" in gce.fake.violations[0]
    gce.fake.violations.clear()
