# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""config.json as Docker Machine 0.16 writes and reads it."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from ansible_collections.dockyard.machine.plugins.module_utils import docker_machine_config
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import Machine
from ansible_collections.dockyard.machine.plugins.module_utils.store import BrokenRecord, Record, Store

# The binary's Go types. A list may be null; "float" is written as an integer where it is one.
BASE = {
    "IPAddress": str, "MachineName": str, "SSHUser": str, "SSHPort": int, "SSHKeyPath": str, "StorePath": str,
    "SwarmMaster": bool, "SwarmHost": str, "SwarmDiscovery": str,
}  # fmt: skip


def fields(**kinds: str) -> dict[str, type]:
    """``fields(str="A B", int="C")``: every field with its type."""
    types: dict[str, type] = {"str": str, "int": int, "bool": bool, "list": list, "dict": dict}
    return {name: types[kind] for kind, names in kinds.items() for name in names.split()}


DRIVERS: dict[str, dict[str, type]] = {
    "generic": fields(int="EnginePort", str="SSHKey"),
    "amazonec2": fields(
        str="Id AccessKey SecretKey SessionToken Region AMI KeyName InstanceId InstanceType PrivateIPAddress SecurityGroupId"
        " SecurityGroupName Tags ReservationId DeviceName VolumeType IamInstanceProfile VpcId SubnetId Zone SpotPrice"
        " SSHPrivateKeyPath Endpoint UserDataFile",
        int="SSHKeyID RootSize BlockDurationMinutes RetryCount",
        bool="ExistingKey SecurityGroupReadOnly RequestSpotInstance PrivateIPOnly UsePrivateIP UseEbsOptimizedInstance Monitoring"
        " DisableSSL",
        list="SecurityGroupIds SecurityGroupNames OpenPorts",
    ),
    "azure": fields(
        str="ClientID ClientSecret Environment SubscriptionID ResourceGroup Location Size Image VirtualNetwork SubnetName"
        " SubnetPrefix AvailabilitySet PrivateIPAddr DNSLabel StorageType CustomDataFile",
        int="DockerPort",
        bool="UsePrivateIP StaticPublicIP NoPublicIP",
        list="OpenPorts",
    ),
    "digitalocean": fields(
        str="AccessToken DropletName Image Region SSHKeyFingerprint SSHKey Size UserDataFile Tags",
        int="DropletID SSHKeyID",
        bool="IPv6 Backups PrivateNetworking Monitoring",
    ),
    "google": fields(
        str="Zone MachineType MachineImage DiskType Address Network Subnetwork ServiceAccount Scopes Project Tags",
        int="DiskSize",
        bool="Preemptible UseInternalIP UseInternalIPOnly UseExisting",
        list="OpenPorts",
    ),
    "openstack": fields(
        str="AuthUrl CaCert DomainID DomainName Username Password TenantName TenantId Region AvailabilityZone EndpointType"
        " MachineId FlavorName FlavorId ImageName ImageId KeyPairName NetworkName NetworkId PrivateKeyFile FloatingIpPool"
        " FloatingIpPoolId",
        int="ActiveTimeout IpVersion",
        bool="Insecure ComputeNetwork ConfigDrive ExistingKey",
        list="UserData SecurityGroups",
    ),
    "virtualbox": fields(
        str="NatNicType Boot2DockerURL Boot2DockerImportVM HostOnlyCIDR HostOnlyNicType HostOnlyPromiscMode UIType ShareFolder",
        int="CPU Memory DiskSize",
        bool="HostDNSResolver HostOnlyNoDHCP NoShare DNSProxy NoVTXCheck",
        dict="VBoxManager HostInterfaces",
    ),
    "vmwarevsphere": fields(
        str="ISO Boot2DockerURL IP Username Password Network Datastore Datacenter Folder Pool HostSystem CloudInit SSHPassword",
        int="Memory DiskSize CPU CPUS Port",
        list="Networks CfgParams",
    ),
}  # fmt: skip

ENGINE = fields(
    list="ArbitraryFlags Dns Env InsecureRegistry Labels RegistryMirror",
    str="GraphDir LogLevel StorageDriver InstallURL",
    bool="Ipv6 SelinuxEnabled TlsVerify",
)
SWARM = fields(
    bool="IsSwarm Agent Master IsExperimental",
    str="Address Discovery Host Image Strategy",
    int="Heartbeat Overcommit",
    list="ArbitraryFlags ArbitraryJoinFlags Env",
)
AUTH = fields(
    str="CertDir CaCertPath CaPrivateKeyPath CaCertRemotePath ServerCertPath ServerKeyPath ClientKeyPath ServerCertRemotePath"
    " ServerKeyRemotePath ClientCertPath StorePath",
    list="ServerCertSANs",
)

SECRETS = {"AccessKey", "SecretKey", "SessionToken", "ClientSecret", "AccessToken", "Password", "SSHPassword"}


def check(value: t.Any, schema: t.Any, path: str = "") -> list[str]:
    """Every place where a value differs from its schema: a missing, an unknown, a wrongly typed key."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [f"{path}: {value!r} is no object"]
        wrong = [f"{path}.{key}: missing" for key in sorted(set(schema) - set(value))]
        wrong += [f"{path}.{key}: unknown" for key in sorted(set(value) - set(schema))]
        return wrong + [line for key in sorted(set(schema) & set(value)) for line in check(value[key], schema[key], f"{path}.{key}")]
    if schema is list:
        good = value is None or (isinstance(value, list) and all(isinstance(entry, str) for entry in value))
    else:
        # A truth value is an int for Python, and not for Go.
        good = isinstance(value, schema) and (schema is bool or not isinstance(value, bool))
    return [] if good else [f"{path}: {value!r} is no {schema.__name__}"]


def schema_of(driver: str) -> dict[str, t.Any]:
    options = {"Driver": str, "Memory": int, "Disk": int, "EngineOptions": ENGINE, "SwarmOptions": SWARM, "AuthOptions": AUTH}
    return {
        "ConfigVersion": int,
        "Driver": {**BASE, **DRIVERS[driver]},
        "DriverName": str,
        "HostOptions": options,
        "Name": str,
    }


@pytest.fixture
def store(tmp_path: pathlib.Path) -> Store:
    return Store(tmp_path / "store")


def make_record(driver: str, **fields: t.Any) -> Record:
    record = Record.new("web1", driver, "me")
    record.machine = Machine(
        **{"name": "web1", "driver": driver, "address": "192.0.2.7", "ssh_user": "debian", "ssh_port": 2222, "engine_port": 3000, **fields}
    )
    record.ssh_key_path = "/keys/id"
    return record


def on_disk(store: Store) -> dict[str, t.Any]:
    data: dict[str, t.Any] = json.loads((store.machine_dir("web1") / "config.json").read_text())
    return data


def put(store: Store, config: t.Any) -> pathlib.Path:
    """A machine as Docker Machine left it."""
    folder = store.machine_dir("web1")
    folder.mkdir(parents=True, mode=0o700)
    (folder / "config.json").write_text(json.dumps(config, indent=4))
    return folder / "config.json"


OURS = {
    "ec2": "amazonec2",
    "azure": "azure",
    "digitalocean": "digitalocean",
    "gce": "google",
    "openstack": "openstack",
    "vsphere": "vmwarevsphere",
    "virtualbox": "virtualbox",
    "generic": "generic",
    "qemu": "generic",
    "libvirt": "generic",
    "vmware": "generic",
    "acme.cloud.vm": "generic",
}

IDS = {
    "ec2": ("i-0abc", "InstanceId", "i-0abc"),
    "digitalocean": ("4711", "DropletID", 4711),
    "openstack": ("9e-uuid", "MachineId", "9e-uuid"),
}


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize("known", [True, False])
def test_every_field_of_the_binary_is_there_with_its_type(store: Store, ours: str, known: bool) -> None:
    record = make_record(ours, id=IDS.get(ours, ("some-id",))[0])
    if not known:
        record.machine = None
    store.save(record)
    config = on_disk(store)
    assert check(config, schema_of(OURS[ours])) == []
    assert config["DriverName"] == OURS[ours] and config["ConfigVersion"] == 3 and config["Name"] == "web1"
    assert {key: config["Driver"][key] for key in SECRETS & set(config["Driver"])} == {key: "" for key in SECRETS & set(config["Driver"])}


def test_the_schema_of_this_test_can_fail(store: Store) -> None:
    store.save(make_record("qemu"))
    for change in (
        lambda config: config["HostOptions"].pop("SwarmOptions"),
        lambda config: config["Driver"].update(SSHPort="22"),
        lambda config: config["Driver"].update(SwarmMaster=0),
        lambda config: config.update(Extra=1),
        lambda config: config["HostOptions"]["EngineOptions"].update(Labels=[1]),
    ):
        config = on_disk(store)
        change(config)
        assert len(check(config, schema_of("generic"))) == 1


@pytest.mark.parametrize("ours", IDS)
def test_the_providers_id_is_where_the_binary_looks(store: Store, ours: str) -> None:
    given, key, expected = IDS[ours]
    store.save(make_record(ours, id=given))
    assert on_disk(store)["Driver"][key] == expected
    (store.machine_dir("web1") / "dockyard.json").unlink()
    record = store.load("web1")
    assert record is not None and record.imported and record.driver == ours
    assert record.machine is not None and record.machine.id == given


def test_a_forwarded_machine_is_generic_with_its_ports(store: Store) -> None:
    store.save(make_record("qemu", address="127.0.0.1"))
    driver = on_disk(store)["Driver"]
    assert (driver["IPAddress"], driver["SSHPort"], driver["EnginePort"]) == ("127.0.0.1", 2222, 3000)
    assert (driver["SSHUser"], driver["SSHKeyPath"], driver["StorePath"]) == ("debian", "/keys/id", str(store.path))


def test_paths_are_absolute_and_of_this_store(store: Store) -> None:
    store.save(make_record("qemu"))
    auth = on_disk(store)["HostOptions"]["AuthOptions"]
    assert auth["CaCertPath"] == str(store.certs / "ca.pem")
    assert auth["ServerCertPath"] == str(store.machine_dir("web1") / "server.pem")
    assert auth["StorePath"] == str(store.machine_dir("web1"))
    assert all(path == "" or path.startswith(str(store.path)) for path in auth.values() if isinstance(path, str))


def test_engine_options_go_there_and_come_back(store: Store) -> None:
    options = {
        "labels": ["env=test"],
        "insecure_registries": ["reg.local:5000"],
        "registry_mirrors": ["https://mirror.example"],
        "env": ["FOO=b <r>&"],
        "opts": ["log-level=info"],
        "storage_driver": "overlay2",
        "tls_sans": ["extra.example"],
    }
    record = make_record("qemu")
    record.engine_options = options
    store.save(record)
    config = on_disk(store)
    assert check(config, schema_of("generic")) == []
    assert config["HostOptions"]["EngineOptions"]["Labels"] == ["env=test"]
    (store.machine_dir("web1") / "dockyard.json").unlink()
    loaded = store.load("web1")
    assert loaded is not None and loaded.engine_options == options
    record.engine_options = {**options, "labels": []}
    store.save(record)
    assert on_disk(store)["HostOptions"]["EngineOptions"]["Labels"] == []


def test_dictionaries_of_engine_options_become_the_binarys_lists(store: Store) -> None:
    record = make_record("qemu")
    record.engine_options = {"labels": {"b": "2", "a": "1"}, "env": {"HTTP_PROXY": "http://p"}}
    store.save(record)
    engine = on_disk(store)["HostOptions"]["EngineOptions"]
    assert engine["Labels"] == ["a=1", "b=2"] and engine["Env"] == ["HTTP_PROXY=http://p"]


def test_what_a_driver_knows_fills_the_binarys_fields_only_with_the_right_type(store: Store) -> None:
    record = make_record("ec2", details={"region": "eu-west-1", "disk_size": "big", "security_group_ids": ["sg-1"]})
    record.options = {"instance_type": "t3.micro", "region": "ignored"}
    store.save(record)
    config = on_disk(store)
    assert check(config, schema_of("amazonec2")) == []
    driver = config["Driver"]
    assert (driver["Region"], driver["InstanceType"], driver["RootSize"]) == ("eu-west-1", "t3.micro", 16)
    assert driver["SecurityGroupIds"] == ["sg-1"]


def test_the_binarys_own_order_of_keys_is_no_change(store: Store) -> None:
    record = make_record("qemu")
    store.save(record)
    path = store.machine_dir("web1") / "config.json"
    path.write_text(json.dumps(on_disk(store), sort_keys=True, indent=2))
    before = path.read_bytes()
    assert store.save(record) is False
    assert path.read_bytes() == before


def test_a_broken_config_is_written_anew(store: Store) -> None:
    record = make_record("qemu")
    store.save(record)
    path = store.machine_dir("web1") / "config.json"
    good = path.read_bytes()
    for broken in (b"", b"[]", b'{"Driver": 1}', b'{"DriverName": "generic", "Driver": {}, "HostOptions": {"SwarmOptions": 3}}'):
        path.write_bytes(broken)
        assert store.load("web1") == record
        assert store.save(record) is True
        assert path.read_bytes() == good


def test_a_value_of_the_wrong_type_in_the_old_config_does_not_stay(store: Store) -> None:
    record = make_record("ec2")
    store.save(record)
    config = on_disk(store)
    config["Driver"].update(RetryCount="five", OpenPorts=[1], Monitoring=None)
    (store.machine_dir("web1") / "config.json").write_text(json.dumps(config))
    assert store.save(record) is True
    assert check(on_disk(store), schema_of("amazonec2")) == []


# --- machines that Docker Machine made ---


def foreign(store: Store, name: str, driver: dict[str, t.Any], **engine: t.Any) -> dict[str, t.Any]:
    return {
        "ConfigVersion": 3,
        "Driver": {"IPAddress": "192.0.2.9", "MachineName": "web1", "SSHUser": "ubuntu", "SSHPort": 22, **driver},
        "DriverName": name,
        "HostOptions": {"EngineOptions": engine, "SwarmOptions": {"IsSwarm": False}, "AuthOptions": {"ServerCertSANs": None}},
        "Name": "web1",
    }


FOREIGN: dict[str, tuple[dict[str, t.Any], dict[str, t.Any]]] = {
    "amazonec2": (
        {"InstanceId": "i-1", "Id": "hash", "Region": "us-east-1", "Zone": "a", "AMI": "ami-1", "PrivateIPAddress": "10.0.0.5"},
        {"driver": "ec2", "id": "i-1", "private_address": "10.0.0.5", "ssh_user": "ubuntu"},
    ),
    "digitalocean": (
        {"DropletID": 99, "SSHUser": "", "SSHPort": 0},
        {"driver": "digitalocean", "id": "99", "ssh_user": "root", "ssh_port": 22},
    ),
    "google": ({"Project": "p", "Zone": "z"}, {"driver": "gce", "id": "", "details": {"project": "p", "zone": "z"}}),
    "azure": ({"DockerPort": 2377}, {"driver": "azure", "engine_port": 2377}),
    "openstack": ({"MachineId": "uuid"}, {"driver": "openstack", "id": "uuid"}),
    "rackspace": ({"MachineId": "uuid"}, {"driver": "rackspace", "id": "uuid"}),
    "exoscale": ({"Id": "uuid"}, {"driver": "exoscale", "id": "uuid"}),
    "softlayer": ({"Id": 12}, {"driver": "softlayer", "id": "12"}),
    "virtualbox": (
        {"SSHPort": 50022, "SSHUser": ""},
        {"driver": "virtualbox", "ssh_port": 22, "ssh_user": "docker", "details": {"nat_ssh_port": 50022}},
    ),
    "vmwarevsphere": ({"Datacenter": "dc", "CPU": 2}, {"driver": "vsphere", "details": {"datacenter": "dc", "cpus": 2}}),
    "vmwarefusion": ({"SSHUser": ""}, {"driver": "vmware", "ssh_user": "docker"}),
    "vmwareworkstation": ({}, {"driver": "vmware"}),
    "generic": ({"EnginePort": 12376, "SSHPort": 2222}, {"driver": "generic", "engine_port": 12376, "ssh_port": 2222}),
    "none": (
        {"URL": "tcp://198.51.100.1:2399", "IPAddress": "198.51.100.1:2399"},
        {"driver": "none", "address": "198.51.100.1", "engine_port": 2399},
    ),
    "kvm": ({"Anything": {"a": 1}}, {"driver": "kvm"}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_docker_machines_own_machine_is_read_and_not_touched(store: Store, name: str) -> None:
    given, expected = FOREIGN[name]
    path = put(store, foreign(store, name, given))
    before = path.read_bytes()
    record = store.load("web1")
    assert record is not None and record.imported and record.machine is not None
    assert record.driver == expected["driver"]
    for key, value in expected.items():
        found = getattr(record.machine, key)
        assert value.items() <= found.items() if key == "details" else found == value, key
    assert path.read_bytes() == before and [entry.name for entry in path.parent.iterdir()] == ["config.json"]


@pytest.mark.parametrize("name", FOREIGN)
def test_taking_it_over_keeps_what_docker_machine_needs(store: Store, name: str) -> None:
    config = foreign(store, name, {**FOREIGN[name][0], "SwarmHost": "tcp://1.2.3.4:3376", "Own": [1]}, InstallURL="http://mine")
    put(store, config)
    record = store.load("web1")
    assert record is not None and store.save(record) is True and not record.imported
    after = on_disk(store)
    assert after["DriverName"] == name
    changed = {key for key, value in config["Driver"].items() if after["Driver"].get(key) != value}
    # An empty user or port is written out; the address of the driver 'none' has its port in the URL.
    assert changed <= {"SSHUser", "SSHPort", "IPAddress"}
    if name == "virtualbox":
        assert after["Driver"]["SSHPort"] == 50022
    assert after["HostOptions"]["EngineOptions"]["InstallURL"] == "http://mine"
    assert set(after["HostOptions"]["SwarmOptions"]) == set(SWARM)
    again = store.load("web1")
    assert again == record and store.save(record) is False


def test_credentials_are_not_shown(store: Store) -> None:
    config = foreign(store, "amazonec2", {"AccessKey": "AKIA", "SecretKey": "s3cret", "SessionToken": "t0ken", "InstanceId": "i-1"})
    config["Driver"]["Client"] = {"User": "me", "ApiKey": "k3y"}
    config["Driver"]["UserData"] = "IyEvYmluL3No"
    put(store, config)
    record = store.load("web1")
    assert record is not None
    shown = json.dumps([store.docker_machine_config(record), record.to_dict()])
    for secret in ("AKIA", "s3cret", "t0ken", "k3y", "IyEv"):
        assert secret not in shown
    assert store.docker_machine_config(record)["Driver"]["InstanceId"] == "i-1"
    assert store.docker_machine_config(record)["Driver"]["Client"]["User"] == "me"


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.pop("ConfigVersion"),
        lambda config: config.update(ConfigVersion=2),
        lambda config: config.update(ConfigVersion=4),
        lambda config: config.pop("Driver"),
        lambda config: config.update(Driver=[]),
        lambda config: config.update(DriverName=""),
        lambda config: config.pop("HostOptions"),
        lambda config: config["HostOptions"].update(EngineOptions="x"),
        lambda config: config["Driver"].update(IPAddress=None),
        lambda config: config["Driver"].update(SSHPort="22"),
        lambda config: config["Driver"].update(SSHKeyPath=5),
    ],
)
def test_a_config_that_cannot_be_read_is_named(store: Store, change: t.Callable[[dict[str, t.Any]], t.Any]) -> None:
    config = foreign(store, "generic", {})
    change(config)
    path = put(store, config)
    with pytest.raises(MachineError) as caught:
        store.load("web1")
    assert caught.value.code == "corrupt_record" and caught.value.where == str(path) and caught.value.hint
    assert isinstance(store.records()[0], BrokenRecord)


def test_drivers_of_both_names_agree() -> None:
    for ours, theirs in OURS.items():
        assert docker_machine_config.driver_to(ours) == theirs
        if theirs != "generic":
            assert docker_machine_config.driver_from(theirs) == ours
