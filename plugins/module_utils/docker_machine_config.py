# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker Machine's ``config.json`` (ConfigVersion 3, release 0.16): how we write it, and how we read what it wrote.

The binary drops keys that it doesn't know and dies on missing objects, so this file holds its fields only, and all of them.
"""

from __future__ import annotations

import typing as t
import urllib.parse

from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import ENGINE_PORT, Machine
from ansible_collections.dockyard.machine.plugins.module_utils.record import Record

if t.TYPE_CHECKING:
    from ansible_collections.dockyard.machine.plugins.module_utils.store import Store

Json = dict[str, t.Any]

CONFIG_VERSION = 3

_INSTALL_URL = "https://get.docker.com"

# Our driver to the binary's. What isn't here is written as generic: reached by address, never created or removed.
_TO_DOCKER_MACHINE: t.Final[dict[str, str]] = {
    "ec2": "amazonec2",
    "azure": "azure",
    "digitalocean": "digitalocean",
    "gce": "google",
    "openstack": "openstack",
    "virtualbox": "virtualbox",
    "vsphere": "vmwarevsphere",
}

_FROM_DOCKER_MACHINE: t.Final[dict[str, str]] = {
    **{theirs: ours for ours, theirs in _TO_DOCKER_MACHINE.items()},
    "vmwarefusion": "vmware",
    "vmwareworkstation": "vmware",
}

# The drivers' own fields, beside those that all share, with the binary's defaults.
_DRIVER_FIELDS: t.Final[dict[str, Json]] = {
    "generic": {"EnginePort": ENGINE_PORT, "SSHKey": ""},
    "amazonec2": {
        "Id": "",
        "AccessKey": "",
        "SecretKey": "",
        "SessionToken": "",
        "Region": "us-east-1",
        "AMI": "",
        "SSHKeyID": 0,
        "ExistingKey": False,
        "KeyName": "",
        "InstanceId": "",
        "InstanceType": "",
        "PrivateIPAddress": "",
        "SecurityGroupId": "",
        "SecurityGroupIds": None,
        "SecurityGroupName": "",
        "SecurityGroupNames": [],
        "SecurityGroupReadOnly": True,
        "OpenPorts": None,
        "Tags": "",
        "ReservationId": "",
        "DeviceName": "",
        "RootSize": 16,
        "VolumeType": "",
        "IamInstanceProfile": "",
        "VpcId": "",
        "SubnetId": "",
        "Zone": "",
        "RequestSpotInstance": False,
        "SpotPrice": "",
        "BlockDurationMinutes": 0,
        "PrivateIPOnly": False,
        "UsePrivateIP": False,
        "UseEbsOptimizedInstance": False,
        "Monitoring": False,
        "SSHPrivateKeyPath": "",
        "RetryCount": 5,
        "Endpoint": "",
        "DisableSSL": False,
        "UserDataFile": "",
    },
    "azure": {
        "ClientID": "",
        "ClientSecret": "",
        "Environment": "AzurePublicCloud",
        "SubscriptionID": "",
        "ResourceGroup": "",
        "DockerPort": ENGINE_PORT,
        "Location": "",
        "Size": "",
        "Image": "",
        "VirtualNetwork": "",
        "SubnetName": "",
        "SubnetPrefix": "",
        "AvailabilitySet": "",
        "OpenPorts": None,
        "PrivateIPAddr": "",
        "UsePrivateIP": False,
        "StaticPublicIP": False,
        "DNSLabel": "",
        "NoPublicIP": False,
        "StorageType": "",
        "CustomDataFile": "",
    },
    "digitalocean": {
        "AccessToken": "",
        "DropletID": 0,
        "DropletName": "",
        "Image": "",
        "Region": "",
        "SSHKeyID": 0,
        "SSHKeyFingerprint": "",
        "SSHKey": "",
        "Size": "",
        "IPv6": False,
        "Backups": False,
        "PrivateNetworking": False,
        "UserDataFile": "",
        "Monitoring": False,
        "Tags": "",
    },
    "google": {
        "Zone": "",
        "MachineType": "",
        "MachineImage": "",
        "DiskType": "pd-standard",
        "Address": "",
        "Network": "default",
        "Subnetwork": "",
        "Preemptible": False,
        "UseInternalIP": False,
        "UseInternalIPOnly": False,
        "ServiceAccount": "default",
        "Scopes": "",
        "DiskSize": 10,
        "Project": "",
        "Tags": "",
        "UseExisting": False,
        "OpenPorts": None,
    },
    "openstack": {
        "AuthUrl": "",
        "ActiveTimeout": 200,
        "Insecure": False,
        "CaCert": "",
        "DomainID": "",
        "DomainName": "",
        "Username": "",
        "Password": "",
        "TenantName": "",
        "TenantId": "",
        "Region": "",
        "AvailabilityZone": "",
        "EndpointType": "",
        "MachineId": "",
        "FlavorName": "",
        "FlavorId": "",
        "ImageName": "",
        "ImageId": "",
        "KeyPairName": "",
        "NetworkName": "",
        "NetworkId": "",
        "UserData": None,
        "PrivateKeyFile": "",
        "SecurityGroups": None,
        "FloatingIpPool": "",
        "ComputeNetwork": False,
        "FloatingIpPoolId": "",
        "IpVersion": 0,
        "ConfigDrive": False,
        "ExistingKey": False,
    },
    "virtualbox": {
        "VBoxManager": {},
        "HostInterfaces": {},
        "CPU": 1,
        "Memory": 1024,
        "DiskSize": 20000,
        "NatNicType": "82540EM",
        "Boot2DockerURL": "",
        "Boot2DockerImportVM": "",
        "HostDNSResolver": False,
        "HostOnlyCIDR": "",
        "HostOnlyNicType": "82540EM",
        "HostOnlyPromiscMode": "deny",
        "UIType": "headless",
        "HostOnlyNoDHCP": False,
        "NoShare": True,
        "DNSProxy": False,
        "NoVTXCheck": False,
        "ShareFolder": "",
    },
    "vmwarevsphere": {
        "Memory": 2048,
        "DiskSize": 20480,
        "CPU": 2,
        "CPUS": 2,
        "ISO": "",
        "Boot2DockerURL": "",
        "IP": "",
        "Port": 443,
        "Username": "",
        "Password": "",
        "Network": "",
        "Networks": None,
        "Datastore": "",
        "Datacenter": "",
        "Folder": "",
        "Pool": "",
        "HostSystem": "",
        "CfgParams": None,
        "CloudInit": "",
        "SSHPassword": "",
    },
}

# Where the binary keeps the provider's id of a machine. The others are found by name.
_ID_FIELD: t.Final[dict[str, str]] = {
    "amazonec2": "InstanceId",
    "digitalocean": "DropletID",
    "exoscale": "Id",
    "openstack": "MachineId",
    "rackspace": "MachineId",
    "softlayer": "Id",
    "vmwarevcloudair": "VAppID",
}

# Their field, and what we call it in a machine's details or a driver's options.
_DETAILS: t.Final[dict[str, dict[str, str]]] = {
    "amazonec2": {
        "Region": "region",
        "AMI": "image",
        "InstanceType": "instance_type",
        "KeyName": "key_name",
        "VpcId": "vpc_id",
        "SubnetId": "subnet_id",
        "SecurityGroupIds": "security_group_ids",
        "RootSize": "disk_size",
        "VolumeType": "volume_type",
        "Endpoint": "endpoint",
    },
    "azure": {
        "Environment": "environment",
        "SubscriptionID": "subscription_id",
        "ResourceGroup": "resource_group",
        "Location": "location",
        "Size": "size",
        "Image": "image",
    },
    "digitalocean": {
        "Region": "region",
        "Image": "image",
        "Size": "size",
        "SSHKeyFingerprint": "ssh_key_fingerprint",
    },
    "google": {
        "Project": "project",
        "Zone": "zone",
        "MachineType": "machine_type",
        "MachineImage": "image",
        "Network": "network",
        "Subnetwork": "subnetwork",
        "DiskSize": "disk_size",
        "DiskType": "disk_type",
    },
    "openstack": {
        "AuthUrl": "auth_url",
        "Region": "region",
        "AvailabilityZone": "availability_zone",
        "FlavorId": "flavor_id",
        "ImageId": "image_id",
        "NetworkId": "network_id",
        "KeyPairName": "key_name",
    },
    "virtualbox": {"CPU": "cpus", "Memory": "memory", "DiskSize": "disk_size"},
    "vmwarevsphere": {
        "CPU": "cpus",
        "CPUS": "cpus",
        "Memory": "memory",
        "DiskSize": "disk_size",
        "IP": "server",
        "Port": "server_port",
        "Datacenter": "datacenter",
        "Datastore": "datastore",
        "Folder": "folder",
        "Network": "network",
        "Pool": "resource_pool",
        "HostSystem": "host_system",
    },
}

# Drivers whose guests are boot2docker, and whose user is therefore not root.
_DOCKER_USERS: t.Final = ("hyperv", "virtualbox", "vmwarefusion", "vmwareworkstation", "vmwarevsphere", "xhyve")

_SECRETS: t.Final = frozenset(
    (
        "APIKey",
        "AccessKey",
        "AccessToken",
        "ApiKey",
        "ApiSecretKey",
        "ClientSecret",
        "Password",
        "SSHPassword",
        "SecretKey",
        "SessionToken",
        "Token",
        "UserData",
        "UserPassword",
    )
)


def driver_to(driver: str) -> str:
    """The binary's name for one of our drivers."""
    return _TO_DOCKER_MACHINE.get(driver, "generic")


def driver_from(driver: str) -> str:
    """Our name for one of the binary's drivers; unknown ones keep theirs."""
    return _FROM_DOCKER_MACHINE.get(driver, driver)


def build(record: Record, store: Store, base: t.Any = None) -> Json:
    """The content of config.json for a record.

    Args:
        record: the machine.
        store: where it lies; all paths in config.json are absolute.
        base: what config.json held before, or None. Fields that we know nothing of are kept from it, credentials that
            Docker Machine itself wrote included: it could not manage its machine without them. We never add one.
    """
    name = driver_to(record.driver)
    if not isinstance(base, dict) or not _usable(base):
        base = {}
    if record.driver == driver_from(str(base.get("DriverName", ""))):
        name = base["DriverName"]
    old = base if base.get("DriverName") == name else {}
    options = old.get("HostOptions", {})
    driver = _merged(_driver_template(name), old.get("Driver"))
    return {
        "ConfigVersion": CONFIG_VERSION,
        "Driver": {**driver, **_driver(record, store, name, driver)},
        "DriverName": name,
        "HostOptions": {
            "Driver": "",
            "Memory": 0,
            "Disk": 0,
            "EngineOptions": {**_merged(_engine_template(), options.get("EngineOptions")), **_engine(record)},
            "SwarmOptions": _merged(_swarm_template(), options.get("SwarmOptions")),
            "AuthOptions": _auth(record, store),
        },
        "Name": record.name,
    }


def read(config: t.Any, name: str) -> Record:
    """The record of a machine that Docker Machine made.

    Raises:
        MachineError: ``corrupt_record`` when a field that we need is missing or has the wrong type.
    """
    if not isinstance(config, dict):
        raise _wrong("it holds no JSON object")
    version = config.get("ConfigVersion")
    if version != CONFIG_VERSION:
        raise _wrong(
            f"its ConfigVersion is {version!r}, not {CONFIG_VERSION}",
            hint="Run 'docker-machine ls' of release 0.16 once: it rewrites older files",
        )
    if not _usable(config):
        raise _wrong("Driver, DriverName or HostOptions is missing or has the wrong type")
    theirs = config["DriverName"]
    driver = config["Driver"]
    for key, kind in (("IPAddress", str), ("SSHUser", str), ("SSHPort", int), ("SSHKeyPath", str), ("EnginePort", int)):
        if not isinstance(driver.get(key, kind()), kind):
            raise _wrong(f"Driver.{key} is {type(driver[key]).__name__}, not {kind.__name__}")
    return Record(
        name=name,
        driver=driver_from(theirs),
        machine=_machine(name, theirs, driver),
        ssh_key_path=driver.get("SSHKeyPath", ""),
        engine_options=_engine_options(config["HostOptions"]),
        imported=True,
    )


def without_secrets(config: Json) -> Json:
    """A copy of config.json's content whose credentials are empty, for anybody to read."""

    def clean(value: t.Any) -> t.Any:
        if isinstance(value, dict):
            return {key: _empty(entry) if key in _SECRETS else clean(entry) for key, entry in value.items()}
        return [clean(entry) for entry in value] if isinstance(value, list) else value

    cleaned: Json = clean(config)
    return cleaned


def _empty(value: t.Any) -> t.Any:
    return "" if isinstance(value, str) else None


def _usable(config: Json) -> bool:
    """Whether the objects are there that everything below takes for granted."""
    options = config.get("HostOptions")
    return (
        isinstance(config.get("Driver"), dict)
        and isinstance(config.get("DriverName"), str)
        and bool(config["DriverName"])
        and isinstance(options, dict)
        and all(isinstance(options.get(key) or {}, dict) for key in ("EngineOptions", "SwarmOptions", "AuthOptions"))
    )


def _driver_template(name: str) -> Json:
    shared: Json = {
        "IPAddress": "",
        "MachineName": "",
        "SSHUser": "",
        "SSHPort": 22,
        "SSHKeyPath": "",
        "StorePath": "",
        "SwarmMaster": False,
        "SwarmHost": "",
        "SwarmDiscovery": "",
    }
    return {**shared, **_DRIVER_FIELDS.get(name, {})}


def _driver(record: Record, store: Store, name: str, template: Json) -> Json:
    """What we know of the machine, in the fields of the binary's driver ``name``; ``template`` shows their types."""
    machine = record.machine or Machine(name=record.name, driver=record.driver)
    fields: Json = {
        "IPAddress": machine.address,
        "MachineName": record.name,
        "SSHKeyPath": record.ssh_key_path,
        "SSHPort": machine.ssh_port,
        "SSHUser": machine.ssh_user,
        "StorePath": str(store.path),
    }
    if name == "virtualbox" and _fits(0, machine.details.get("nat_ssh_port")):
        # The binary logs in over a port of 127.0.0.1 that it has forwarded, we at the machine's own address.
        fields["SSHPort"] = machine.details["nat_ssh_port"]
    for key in ("EnginePort", "DockerPort"):
        if key in template:
            fields[key] = machine.engine_port
    if name in _ID_FIELD:
        key = _ID_FIELD[name]
        numeric = isinstance(template.get(key), int)
        fields[key] = int(machine.id if machine.id.isdecimal() else 0) if numeric else machine.id
    for key, ours in _DETAILS.get(name, {}).items():
        value = machine.details.get(ours, record.options.get(ours))
        if value is not None and _fits(template.get(key), value):
            fields[key] = value
    if name == "amazonec2" and machine.private_address:
        fields["PrivateIPAddress"] = machine.private_address
    if name == "none":
        fields["URL"] = machine.endpoint
    return fields


def _merged(template: Json, old: t.Any) -> Json:
    """``template`` with what ``old`` holds; a value whose type the binary could not read is left out."""
    kept = {key: value for key, value in (old or {}).items() if key not in template or _fits(template[key], value)}
    return {**template, **kept}


def _fits(default: t.Any, value: t.Any) -> bool:
    """Whether ``value`` has the JSON type that the binary expects where it wrote ``default`` (null: a list of strings)."""
    if default is None or isinstance(default, list):
        return value is None or (isinstance(value, list) and all(isinstance(entry, str) for entry in value))
    return type(value) is type(default)


def _strings(value: t.Any) -> list[str]:
    """A list of strings from a list, or ``KEY=VALUE`` lines from a dictionary."""
    if isinstance(value, dict):
        return [f"{key}={entry}" for key, entry in sorted(value.items())]
    return [str(entry) for entry in value] if isinstance(value, (list, tuple)) else []


def _engine_template() -> Json:
    return {
        "ArbitraryFlags": [],
        "Dns": None,
        "GraphDir": "",
        "Env": [],
        "Ipv6": False,
        "InsecureRegistry": [],
        "Labels": [],
        "LogLevel": "",
        "StorageDriver": "",
        "SelinuxEnabled": False,
        "TlsVerify": True,
        "RegistryMirror": [],
        "InstallURL": _INSTALL_URL,
    }


_ENGINE_LISTS: t.Final[dict[str, str]] = {
    "ArbitraryFlags": "opts",
    "Env": "env",
    "InsecureRegistry": "insecure_registries",
    "Labels": "labels",
    "RegistryMirror": "registry_mirrors",
}


def _engine(record: Record) -> Json:
    fields: Json = {key: _strings(record.engine_options[ours]) for key, ours in _ENGINE_LISTS.items() if ours in record.engine_options}
    if "storage_driver" in record.engine_options:
        fields["StorageDriver"] = str(record.engine_options["storage_driver"] or "")
    return fields


def _engine_options(options: Json) -> Json:
    """The reverse of :func:`_engine`."""
    engine = options.get("EngineOptions") or {}
    found: Json = {ours: _strings(engine.get(key)) for key, ours in _ENGINE_LISTS.items() if engine.get(key)}
    if isinstance(engine.get("StorageDriver"), str) and engine["StorageDriver"]:
        found["storage_driver"] = engine["StorageDriver"]
    sans = _strings((options.get("AuthOptions") or {}).get("ServerCertSANs"))
    if sans:
        found["tls_sans"] = sans
    return found


def _swarm_template() -> Json:
    # Present although nothing uses it: 'docker-machine ls' crashes without this object.
    return {
        "IsSwarm": False,
        "Address": "",
        "Discovery": "",
        "Agent": False,
        "Master": False,
        "Host": "tcp://0.0.0.0:3376",
        "Image": "swarm:latest",
        "Strategy": "spread",
        "Heartbeat": 0,
        "Overcommit": 0,
        "ArbitraryFlags": [],
        "ArbitraryJoinFlags": [],
        "Env": None,
        "IsExperimental": False,
    }


def _auth(record: Record, store: Store) -> Json:
    certs = store.certs
    folder = store.machine_dir(record.name)
    return {
        "CertDir": str(certs),
        "CaCertPath": str(certs / "ca.pem"),
        "CaPrivateKeyPath": str(certs / "ca-key.pem"),
        "CaCertRemotePath": "",
        "ServerCertPath": str(folder / "server.pem"),
        "ServerKeyPath": str(folder / "server-key.pem"),
        "ClientKeyPath": str(certs / "key.pem"),
        "ServerCertRemotePath": "",
        "ServerKeyRemotePath": "",
        "ClientCertPath": str(certs / "cert.pem"),
        "ServerCertSANs": _strings(record.engine_options.get("tls_sans")),
        "StorePath": str(folder),
    }


def _machine(name: str, theirs: str, driver: Json) -> Machine:
    """A machine from the binary's driver object; its state is unknown, for the file doesn't tell."""
    address, port = driver.get("IPAddress", ""), ENGINE_PORT
    for key in ("EnginePort", "DockerPort"):
        if isinstance(driver.get(key), int) and 0 < driver[key] < 65536:
            port = driver[key]
    if theirs == "none":
        address, port = _from_url(driver.get("URL", ""))
    ssh_port = driver.get("SSHPort", 0)
    if not 0 < ssh_port < 65536:
        ssh_port = 22
    template = _driver_template(theirs)
    names = _DETAILS.get(theirs, {})
    details = {ours: driver[key] for key, ours in names.items() if driver.get(key) and _fits(template.get(key), driver[key])}
    if theirs == "amazonec2" and isinstance(driver.get("Zone"), str) and driver["Zone"] and details.get("region"):
        details["availability_zone"] = details["region"] + driver["Zone"]
    if theirs == "virtualbox":
        details["nat_ssh_port"], ssh_port = ssh_port, 22
    private = driver.get("PrivateIPAddress", "")
    identity = driver.get(_ID_FIELD.get(theirs, ""), "")
    return Machine(
        name=name,
        driver=driver_from(theirs),
        id=str(identity) if identity and isinstance(identity, (str, int)) else "",
        address=address,
        private_address=private if isinstance(private, str) else "",
        ssh_user=driver.get("SSHUser") or ("docker" if theirs in _DOCKER_USERS else "root"),
        ssh_port=ssh_port,
        engine_port=port,
        details=details,
    )


def _from_url(url: t.Any) -> tuple[str, int]:
    """Address and port of ``tcp://HOST:PORT``; nothing when it is another kind of URL."""
    try:
        parts = urllib.parse.urlsplit(url) if isinstance(url, str) else None
        if parts and parts.scheme == "tcp" and parts.hostname:
            return parts.hostname, parts.port or ENGINE_PORT
    except ValueError:
        pass
    return "", ENGINE_PORT


def _wrong(why: str, hint: str = "") -> MachineError:
    return MachineError("The machine's config.json cannot be read", why=why, hint=hint, code="corrupt_record")
