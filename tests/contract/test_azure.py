# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only the driver ``azure`` does, against the fake of Azure Resource Manager."""

from __future__ import annotations

import base64
import concurrent.futures
import copy
import json
import pathlib
import re
import time
import typing as t

import backend as contract
import pytest

pytest.importorskip("azure.mgmt.compute")
pytest.importorskip("azure.mgmt.network")

import azure.core.exceptions
from fakes import azure_schema
from fakes.azure import ROOT, Azure

from ansible_collections.dockyard.machine.plugins.module_utils.driver import Outcome, converge
from ansible_collections.dockyard.machine.plugins.module_utils.drivers.azure import AzureDriver
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import State

DOCUMENTATION = pathlib.Path(__file__).parents[2] / "docs" / "drivers" / "azure.md"
OFFICE = f"{ROOT}/resourceGroups/office"
PUT = "virtualMachines.put"

Thing = dict[str, t.Any]


class Cloud:
    """The fake, and the driver on it."""

    def __init__(self, provider: contract.Backend) -> None:
        self.provider = provider
        self.fake: Azure = provider.fake  # type: ignore[attr-defined]
        self.warnings: list[str] = []

    def driver(self, name: str = "web1", options: dict[str, t.Any] | None = None, **wanted: t.Any) -> AzureDriver:
        driver = self.provider.make(self.provider.wanted(name, **wanted), **(options or {}))
        assert isinstance(driver, AzureDriver)
        return driver

    def run(self, state: str = "started", name: str = "web1", **options: t.Any) -> Outcome:
        wanted = options.pop("wanted", {})
        driver = self.driver(name, options, state=state, **wanted)
        try:
            return converge(driver)
        finally:
            self.warnings = driver.warnings

    def refused(self, state: str = "started", **options: t.Any) -> MachineError:
        with pytest.raises(MachineError) as caught:
            self.run(state, **options)
        return caught.value

    def things(self, kind: str = "", *, marked: bool = True) -> list[Thing]:
        with self.fake.lock:
            state = self.fake.state()
        assert state["violations"] == []
        found = [item for item in state["resources"] if item["type"].endswith(kind)]
        return copy.deepcopy([item for item in found if not marked or any("dockyard" in key for key in item.get("tags") or {})])

    def one(self, kind: str) -> Thing:
        found = self.things(kind)
        assert len(found) == 1
        return found[0]

    @property
    def vm(self) -> Thing:
        return t.cast(Thing, self.one("/virtualMachines")["properties"])

    def users(self) -> list[Thing]:
        """What was there before."""
        return [item for item in self.things(marked=False) if item not in self.things()]

    def order(self, verb: str, **data: t.Any) -> t.Any:
        with self.fake.lock:
            return self.fake.control(verb, data)

    def rules(self) -> list[Thing]:
        return [item["properties"] for item in self.one("/networkSecurityGroups")["properties"]["securityRules"]]


@pytest.fixture(scope="module")
def provider() -> t.Iterator[contract.Backend]:
    found = contract.load("azure")()
    found.start()
    yield found
    found.stop()


@pytest.fixture
def cloud(provider: contract.Backend) -> Cloud:
    provider.reset()
    return Cloud(provider)


# --- the fake itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "body", "word"),
    [
        ("microsoft.compute/virtualmachines", {"properties": {"hardware_profile": {"vmSize": "x"}}}, "hardware_profile"),
        ("microsoft.compute/virtualmachines", {"properties": {"priority": "Cheap"}}, "Spot"),
        ("microsoft.network/networkinterfaces", {"properties": {"ipConfigurations": {}}}, "not a list"),
        ("microsoft.network/publicipaddresses", {"properties": {"idleTimeoutInMinutes": "4"}}, "no int"),
        ("microsoft.network/publicipaddresses", {"etag": "mine"}, "read-only"),
        ("microsoft.network/virtualnetworks", {"tags": ["a"]}, "not an object"),
    ],
)
def test_the_fake_refuses_what_the_models_do_not_know(kind: str, body: Thing, word: str) -> None:
    found = azure_schema.wrong(azure_schema.MODELS[kind], body)
    assert len(found) == 1 and word in found[0]


# --- what is made --------------------------------------------------------------------------------------------------


def test_everything_is_tagged_in_the_call_that_makes_it(cloud: Cloud) -> None:
    cloud.run(wanted={"tags": {"Stage": "test"}})
    made = [json.loads(entry.body) for entry in cloud.fake.calls("*.put")]
    assert len(made) == 6
    assert all(item["tags"]["dockyard-machine-owner"] == "contract" for item in made)
    assert sorted(item["tags"]["dockyard-machine"] for item in made) == ["shared", "shared", "web1", "web1", "web1", "web1"]
    assert {item["type"].rpartition("/")[2]: item["tags"].get("Stage") for item in cloud.things()} == {
        "resourceGroups": None,
        "virtualNetworks": None,
        "networkSecurityGroups": "test",
        "publicIPAddresses": "test",
        "networkInterfaces": "test",
        "disks": "test",
        "virtualMachines": "test",
    }


def test_a_machine_is_closed_and_measured(cloud: Cloud) -> None:
    machine = cloud.run(allowed_cidrs=["203.0.113.0/24", "2001:db8::/32"], open_ports=["80", "53/udp"]).machine
    system = cloud.vm["osProfile"]
    assert system["linuxConfiguration"]["disablePasswordAuthentication"] is True and "adminPassword" not in system
    assert cloud.vm["securityProfile"] == {
        "securityType": "TrustedLaunch",
        "uefiSettings": {"secureBootEnabled": True, "vTpmEnabled": True},
    }
    assert "identity" not in cloud.one("/virtualMachines")
    secret = next(iter(cloud.fake.secrets.values()))["customData"]
    assert base64.b64decode(secret).decode() == "#cloud-config\n{}\n"
    rules = cloud.rules()
    allowed = [
        (rule["protocol"], rule["sourceAddressPrefixes"], rule["destinationPortRanges"]) for rule in rules if rule["access"] == "Allow"
    ]
    assert allowed == [
        ("Tcp", ["203.0.113.0/24"], ["22", "80", "2376"]),
        ("Udp", ["203.0.113.0/24"], ["53"]),
        ("Tcp", ["2001:db8::/32"], ["22", "80", "2376"]),
        ("Udp", ["2001:db8::/32"], ["53"]),
    ]
    assert rules[-1]["access"] == "Deny" and rules[-1]["sourceAddressPrefix"] == "VirtualNetwork"
    assert machine is not None and machine.details["security_type"] == "TrustedLaunch"


def test_only_the_controller_gets_in_unless_others_are_listed(cloud: Cloud) -> None:
    cloud.run()
    assert cloud.rules()[0]["sourceAddressPrefixes"] == ["127.0.0.1/32"]


@pytest.mark.parametrize(
    ("options", "sku", "trusted"),
    [
        ({"size": "Standard_D2ps_v5"}, "12-arm64", False),
        ({"size": "Standard_A2_v2"}, "12", False),
        ({"size": "Standard_D2ps_v5", "image": "ubuntu-24.04"}, "server-arm64", False),
        ({"image": "ubuntu-24.04", "security_type": "standard"}, "server", False),
        ({"image": "debian-13"}, "13-gen2", True),
    ],
)
def test_the_image_fits_the_size(cloud: Cloud, options: dict[str, t.Any], sku: str, trusted: bool) -> None:
    cloud.run(**options)
    assert cloud.vm["storageProfile"]["imageReference"]["sku"] == sku
    assert ("securityProfile" in cloud.vm) == trusted


def test_other_images(cloud: Cloud) -> None:
    cloud.run(image="vendor:appliance:standard:latest")
    assert cloud.one("/virtualMachines")["plan"] == {"name": "gold", "product": "appliance", "publisher": "vendor"}
    cloud.run("absent")
    mine = f"{OFFICE}/providers/Microsoft.Compute/images/golden"
    cloud.run(image=mine)
    assert cloud.vm["storageProfile"]["imageReference"] == {"id": mine}


def test_ipv6_zone_name_and_disk(cloud: Cloud) -> None:
    options: dict[str, t.Any] = {"location": "West Europe", "zone": "2", "ipv6": True, "dns": "my-label", "disk_size": 64}
    machine = cloud.run(**options, storage_type="Premium_LRS").machine
    assert machine is not None and machine.ipv6_address.startswith("2001:db8::") and machine.address.startswith("203.0.113.")
    assert machine.dns_names == ["my-label.westeurope.cloudapp.azure.com"]
    assert (machine.details["zone"], machine.details["disk_size"]) == ("2", 64)
    assert [item["zones"] for item in cloud.things("/publicIPAddresses")] == [["2"], ["2"]]
    assert cloud.vm["storageProfile"]["osDisk"]["managedDisk"]["storageAccountType"] == "Premium_LRS"
    assert not cloud.run(**options, storage_type="Premium_LRS").changed
    cloud.run("absent", **options)
    assert cloud.things() == []


def test_a_private_machine(cloud: Cloud) -> None:
    machine = cloud.run(private_address_only=True, private_ip_address="192.168.7.7").machine
    assert machine is not None and machine.address == machine.private_address == "192.168.7.7"
    assert cloud.things("/publicIPAddresses") == []
    assert cloud.run().differences[0].option == "private_address_only"


# --- whose resources -----------------------------------------------------------------------------------------------


def test_what_users_brought_is_never_changed(cloud: Cloud) -> None:
    before = [item for item in cloud.users() if not item["type"].endswith("networkInterfaces")]
    own = {"resource_group": "office", "vnet": "lan", "subnet": "dual", "ipv6": True}
    own.update({"security_group": "office:strict", "availability_set": f"{OFFICE}/providers/Microsoft.Compute/availabilitySets/together"})
    machine = cloud.run(**own).machine
    assert machine is not None and machine.private_address.startswith("10.1.1.") and machine.ipv6_address
    assert cloud.things("/networkSecurityGroups") == cloud.things("/virtualNetworks") == cloud.things("/resourceGroups") == []
    assert not cloud.run(**own).changed
    cloud.run("absent", **own)
    assert cloud.things() == [] and cloud.users() == before


def test_a_network_of_ours_in_a_group_of_theirs(cloud: Cloud) -> None:
    cloud.run(resource_group="office")
    cloud.run(resource_group="office", name="web2")
    assert len(cloud.things("/virtualNetworks")) == 1
    cloud.run("absent", resource_group="office")
    assert len(cloud.things("/virtualNetworks")) == 1
    cloud.run("absent", resource_group="office", name="web2")
    assert cloud.things() == []
    assert any(item["name"] == "office" for item in cloud.users())


@pytest.mark.parametrize("kind", ["Compute/virtualMachines/web1", "Network/publicIPAddresses/web1-ip", "Compute/disks/web1-os"])
def test_somebody_elses_resource_is_never_touched(cloud: Cloud, kind: str) -> None:
    cloud.order("foreign", id=f"{OFFICE}/providers/Microsoft.{kind}")
    before = cloud.users()
    assert cloud.refused(resource_group="office").code == "not_ours"
    cloud.run("absent", resource_group="office")
    assert cloud.users() == before and cloud.things() == []


def test_a_group_of_ours_with_something_of_theirs_is_kept(cloud: Cloud) -> None:
    cloud.run()
    group = cloud.one("/resourceGroups")
    cloud.order("foreign", id=f"{group['id']}/providers/Microsoft.Compute/disks/precious")
    cloud.run("absent")
    assert any("precious" in warning for warning in cloud.warnings)
    assert [item["name"] for item in cloud.things()] == [group["name"]]
    assert any(item["name"] == "precious" for item in cloud.users())


def test_found_in_another_location_and_group(cloud: Cloud) -> None:
    made = cloud.run(location="westeurope").machine
    again = cloud.run()
    assert made is not None and again.machine is not None and again.machine.id == made.id
    assert [item.option for item in again.differences] == ["location"]
    cloud.run("absent")
    assert cloud.things() == []


def test_leftovers_in_another_location_are_found(cloud: Cloud) -> None:
    cloud.run(location="westeurope")
    cloud.order("delete_outside", name="web1")
    outcome = cloud.run("absent")
    assert any("disk web1-os" in item for item in outcome.leftovers) and any("resource group" in item for item in outcome.leftovers)
    assert cloud.things() == []


def test_a_group_that_goes_away_under_our_hands_is_made_again(cloud: Cloud) -> None:
    driver = cloud.driver()
    find, seen = driver.api.find, []

    def vanishing(service: str, group: str, *names: str, **more: t.Any) -> t.Any:
        found = find(service, group, *names, **more)
        if group == "network_security_groups" and not seen:
            seen.append(names)
            cloud.fake.things.remove(f"{ROOT}/resourcegroups/{driver.place.group}".lower())
        return found

    driver.api.find = vanishing  # type: ignore[method-assign]
    assert converge(driver).actions == ["create"]
    assert seen and cloud.one("/resourceGroups")["name"] == driver.place.group


@pytest.mark.parametrize("head_start", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
def test_the_last_machine_goes_while_another_comes(cloud: Cloud, head_start: float) -> None:
    """Wherever the two meet, the new machine is whole and reachable, and in the end nothing is left."""
    cloud.run()

    def come() -> Outcome:
        time.sleep(head_start)
        return converge(cloud.driver("web2"))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        going, coming = pool.submit(cloud.run, "absent"), pool.submit(come)
        going.result()
        machine = coming.result().machine
    assert machine is not None and machine.state == State.RUNNING
    assert not cloud.run(name="web2").changed
    assert len(cloud.things("/virtualNetworks")) == len(cloud.things("/networkSecurityGroups")) == 1
    cloud.run("absent", name="web2")
    assert cloud.things() == []


# --- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [{"spot": True}, {"spot": True, "code": "SkuNotAvailable"}])
def test_spot_falls_back(cloud: Cloud, data: dict[str, t.Any]) -> None:
    cloud.fake.arm("capacity", times=0, data=data)
    cloud.run(spot=True)
    assert "priority" not in cloud.vm
    assert any("full price" in warning for warning in cloud.warnings)
    assert not cloud.run(spot=True).changed


def test_spot_without_fallback(cloud: Cloud) -> None:
    cloud.fake.arm("capacity", times=0, data={"spot": True})
    error = cloud.refused(spot=True, spot_fallback=False)
    assert (error.code, error.where) == ("capacity", "option size") and "AllocationFailed" in error.why
    assert cloud.things() == [], "what was made for it stayed, and costs"
    cloud.provider.clear()
    cloud.run(spot=True, spot_max_price=0.05)
    assert (cloud.vm["priority"], cloud.vm["evictionPolicy"], cloud.vm["billingProfile"]) == ("Spot", "Deallocate", {"maxPrice": 0.05})


def test_retry_after_of_operations_is_honoured(cloud: Cloud) -> None:
    cloud.fake.retry_after = 1
    started = time.monotonic()
    cloud.run()
    looks = len(cloud.fake.calls("operations.get"))
    assert time.monotonic() - started > 2 and looks < 15


def test_busy_resources_are_waited_for(cloud: Cloud) -> None:
    cloud.fake.arm("busy", on="*.put", times=2)
    assert cloud.run().actions == ["create"]


def test_a_failed_machine_is_made_anew(cloud: Cloud) -> None:
    cloud.run()
    vm = cloud.one("/virtualMachines")
    key = vm["id"].lower()
    vm["properties"]["provisioningState"] = "Failed"
    vm.pop("_power")
    cloud.fake.things.put(key, vm)
    assert cloud.run().actions == ["delete", "create"]
    assert cloud.vm["vmId"] != vm["properties"]["vmId"]


# --- day two -------------------------------------------------------------------------------------------------------


def test_stopped_means_deallocated_unless_it_is_kept(cloud: Cloud) -> None:
    cloud.run()
    cloud.run("stopped")
    assert cloud.one("/virtualMachines")["_power"] == "deallocated"
    cloud.run()
    cloud.run("stopped", keep_allocated=True)
    assert cloud.one("/virtualMachines")["_power"] == "stopped"
    cloud.run()
    cloud.run("killed")
    assert cloud.one("/virtualMachines")["_power"] == "deallocated"
    assert "skipShutdown=true" in cloud.fake.calls("virtualMachines.poweroff")[-1].path


def test_protection(cloud: Cloud) -> None:
    cloud.run(delete_protection=True)
    assert cloud.refused("absent").code == "protected"
    assert cloud.run().actions == ["update"]
    cloud.run("absent")
    assert cloud.things() == []


def test_permissions_and_tags_change_in_place(cloud: Cloud) -> None:
    cloud.run()
    changed = {"allowed_cidrs": ["203.0.113.0/24"], "open_ports": ["443"]}
    outcome = cloud.run(**changed)
    assert outcome.actions == ["update"]
    assert cloud.rules()[0]["destinationPortRanges"] == ["22", "443", "2376"]
    cloud.run(**changed, wanted={"tags": {"Stage": "two"}})
    assert [item["tags"].get("Stage") for item in cloud.things() if item["tags"]["dockyard-machine"] == "web1"] == ["two"] * 5
    # Somebody opened it for the world.
    group = cloud.one("/networkSecurityGroups")
    rules = group["properties"]["securityRules"]
    rules[0]["properties"]["sourceAddressPrefixes"] = ["0.0.0.0/0"]
    cloud.order("edit", id=group["id"], properties={"securityRules": rules})
    assert cloud.run(**changed, wanted={"tags": {"Stage": "two"}}).actions == ["update"]
    assert cloud.rules()[0]["sourceAddressPrefixes"] == ["203.0.113.0/24"]


def test_size_and_disk_change_while_it_is_stopped(cloud: Cloud) -> None:
    cloud.run()
    bigger = {"size": "Standard_D2s_v5", "disk_size": 64}
    assert not cloud.run(**bigger).changed
    assert len(cloud.warnings) == 2 and all("stopped" in warning for warning in cloud.warnings)
    cloud.run("stopped")
    outcome = cloud.run(**bigger)
    assert outcome.actions == ["update", "start"] and outcome.machine is not None and outcome.machine.state == State.RUNNING
    assert (outcome.machine.details["size"], outcome.machine.details["disk_size"]) == ("Standard_D2s_v5", 64)
    shrunk = cloud.run(size="Standard_D2s_v5", disk_size=40).differences
    assert [(item.option, item.in_place) for item in shrunk] == [("disk_size", False)]


def test_a_list_takes_four_lists(cloud: Cloud) -> None:
    for number in range(6):
        cloud.run(name=f"web{number}")
    cloud.run("stopped", name="web3")
    before = len(cloud.fake.calls())
    machines = {machine.name: machine for machine in cloud.driver("").list()}
    assert sorted(machines) == [f"web{number}" for number in range(6)]
    assert machines["web3"].state == State.STOPPED and machines["web4"].state == State.RUNNING
    assert all(machine.address and machine.private_address for machine in machines.values())
    calls = cloud.fake.calls()[before:]
    assert len(calls) == 4 * 2, "each list has two pages"


def test_secrets_are_sent_once_and_kept_nowhere(cloud: Cloud) -> None:
    machine = cloud.run(wanted={"user_data": "#cloud-config\n# s3cret\n{}\n"}).machine
    coded = base64.b64encode(b"#cloud-config\n# s3cret\n{}\n").decode()
    assert [entry.operation for entry in cloud.fake.calls() if coded in entry.body] == [PUT]
    assert machine is not None and coded not in json.dumps(machine.to_dict())


def test_the_documented_role_covers_every_call(cloud: Cloud) -> None:
    """Every call needs an action, and the documented role has it."""
    cloud.run(ipv6=True, wanted={"tags": {"a": "b"}})
    for state in ("stopped", "started", "restarted", "killed"):
        cloud.run(state, ipv6=True)
    cloud.run(size="Standard_D2s_v5", disk_size=64, ipv6=True)
    cloud.driver("").list()
    cloud.run("absent")
    cloud.run("absent")
    text = DOCUMENTATION.read_text(encoding="utf-8")
    role = {action.lower() for action in json.loads(re.findall(r"```json\n(.*?)```", text, re.DOTALL)[0])["Actions"]}
    for entry in cloud.fake.calls():
        path = entry.path.partition("?")[0].lower()
        if entry.operation == "operations.get":
            continue
        rest = path.partition("/providers/")[2]
        if not rest:
            segments = path.strip("/").split("/")[2:]
            kind = "Microsoft.Resources/subscriptions/" + "/".join(segments[::2])
        else:
            provider, *segments = rest.split("/")
            kind = provider + "/" + "/".join(segments[::2])
        verb = {"GET": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}.get(entry.method, "")
        if entry.method == "POST":
            verb, kind = f"{segments[-1]}/action", kind.rpartition("/")[0]
        assert f"{kind}/{verb}".lower() in role, entry.path


# --- credentials ---------------------------------------------------------------------------------------------------


class Refusing:
    """A credential as azure-identity's, whose secret is wrong."""

    def get_token(self, *scopes: str, **kwargs: t.Any) -> t.NoReturn:
        raise azure.core.exceptions.ClientAuthenticationError("AADSTS7000215: Invalid client secret provided.")


def with_login(cloud: Cloud, **options: t.Any) -> AzureDriver:
    return cloud.driver(options={"auth_kind": "auto", "api_endpoint": "", **options})


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"client_secret": "s3cret", "client_id": "me", "tenant": "us"}, "ClientSecretCredential"),
        ({"client_id": "me"}, "DefaultAzureCredential"),
        ({}, "DefaultAzureCredential"),
    ],
)
def test_the_credentials_that_were_given_are_used(cloud: Cloud, options: dict[str, t.Any], kind: str) -> None:
    api = with_login(cloud, **options).api
    client = api._client("compute")
    assert type(api._credential).__name__ == kind
    chain = [type(policy).__name__ for policy in client._client._pipeline._impl_policies]
    assert any("Challenge" in name or "Bearer" in name for name in chain), chain
    assert not any("Retry" in name or "Registration" in name for name in chain), chain


def test_half_a_credential_is_refused(cloud: Cloud) -> None:
    with pytest.raises(MachineError) as caught:
        with_login(cloud, client_secret="s3cret", client_id="me").find()
    assert caught.value.where == "option client_secret" and "s3cret" not in caught.value.message


def test_a_wrong_secret_is_one_clear_error(cloud: Cloud) -> None:
    driver = with_login(cloud)
    driver.api._credential = Refusing()
    with pytest.raises(MachineError) as caught:
        converge(driver)
    error = caught.value
    assert (error.code, error.where) == ("bad_credentials", "option client_id")
    assert "AADSTS7000215" in error.why and "az login" in error.hint
