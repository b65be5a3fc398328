# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driver ``ec2``: instances of Amazon EC2."""

from __future__ import annotations

import typing as t

from ansible.module_utils.basic import env_fallback
from ansible_collections.dockyard.machine.plugins.module_utils import cloud, ec2_drift, ec2_launch
from ansible_collections.dockyard.machine.plugins.module_utils.driver import DEFAULT_TIMEOUTS, Difference, Driver, Wanted
from ansible_collections.dockyard.machine.plugins.module_utils.ec2_client import Ec2Api, Ec2Error
from ansible_collections.dockyard.machine.plugins.module_utils.ec2_firewall import LIVE, Firewall, group_name, tag_filters, tag_list
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import MARK, Machine, State, marks
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline, poll, retry

STATES: t.Final = {
    "pending": State.STARTING,
    "running": State.RUNNING,
    "stopping": State.STOPPING,
    "stopped": State.STOPPED,
    "shutting-down": State.STOPPING,
    "terminated": State.STOPPED,
}

MAX_GENERATIONS = 20
"""Machines of one record that may have been terminated within a day, before we give up."""

SETTLE = 60.0
"""Seconds after which a machine that EC2 made can surely be seen."""

# Errors that say that something looked up before is not there (any more).
_STALE: t.Final = ("InvalidAMIID.NotFound", "InvalidAMIID.Unavailable", "InvalidGroup.NotFound", "InvalidVpcID.NotFound")

# Errors after which an on-demand machine is asked for instead of a spot one.
_SPOT_FAILS: t.Final = ("InsufficientInstanceCapacity", "MaxSpotInstanceCountExceeded", "SpotMaxPriceTooLow", "Unsupported")


def _env(*names: str) -> dict[str, t.Any]:
    return {"fallback": (env_fallback, list(names))}


class Ec2Driver(Driver):
    """One instance, its disk and address, a key pair, and a security group that machines with the same rules share."""

    name = "ec2"
    default_ssh_user = "admin"
    remembered: t.ClassVar[tuple[str, ...]] = ("region", "endpoint")
    """Options that later runs take from ``details`` when nobody gives them: else they would look elsewhere."""
    options: t.ClassVar[dict[str, t.Any]] = {
        "access_key": {"type": "str", "default": "", "no_log": True, **_env("AWS_ACCESS_KEY_ID")},
        "secret_key": {"type": "str", "default": "", "no_log": True, **_env("AWS_SECRET_ACCESS_KEY")},
        "session_token": {"type": "str", "default": "", "no_log": True, **_env("AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")},
        "profile": {"type": "str", "default": "", **_env("AWS_PROFILE")},
        "region": {"type": "str", "default": "", **_env("AWS_REGION", "AWS_DEFAULT_REGION")},
        "endpoint": {"type": "str", "default": "", **_env("AWS_ENDPOINT")},
        "insecure_transport": {"type": "bool", "default": False, **_env("AWS_INSECURE_TRANSPORT")},
        "retries": {"type": "int", "default": 5},
        "lookup_cache": {"type": "int", "default": 300},
        "image": {"type": "str", "default": "", "aliases": ["ami"], **_env("AWS_AMI")},
        "image_owners": {"type": "list", "elements": "str", "default": []},
        "instance_type": {"type": "str", "default": "", **_env("AWS_INSTANCE_TYPE")},
        "zone": {"type": "str", "default": "", **_env("AWS_ZONE")},
        "vpc_id": {"type": "str", "default": "", **_env("AWS_VPC_ID")},
        "subnet_id": {"type": "str", "default": "", **_env("AWS_SUBNET_ID")},
        "security_group": {"type": "list", "elements": "str", "default": [], **_env("AWS_SECURITY_GROUP")},
        "security_group_readonly": {"type": "bool", "default": False, **_env("AWS_SECURITY_GROUP_READONLY")},
        "keypair_name": {"type": "str", "default": "", "no_log": False, **_env("AWS_KEYPAIR_NAME")},
        "device_name": {"type": "str", "default": "", **_env("AWS_DEVICE_NAME")},
        "root_size": {"type": "int", **_env("AWS_ROOT_SIZE")},
        "volume_type": {"type": "str", "default": "", **_env("AWS_VOLUME_TYPE")},
        "volume_iops": {"type": "int"},
        "volume_throughput": {"type": "int"},
        "encrypt_volume": {"type": "bool", "default": True},
        "kms_key": {"type": "str", "default": "", "no_log": False},
        "iam_instance_profile": {"type": "str", "default": "", **_env("AWS_INSTANCE_PROFILE")},
        "ssh_port": {"type": "int", "default": 22, **_env("AWS_SSH_PORT")},
        "request_spot_instance": {"type": "bool", "default": False},
        "spot_price": {"type": "str", "default": ""},
        "spot_fallback": {"type": "bool", "default": True},
        "block_duration_minutes": {"type": "int", "default": 0},
        "use_private_address": {"type": "bool", "default": False},
        "monitoring": {"type": "bool", "default": False},
        "use_ebs_optimized_instance": {"type": "bool", "default": False},
        "http_tokens": {"type": "str", "choices": ["required", "optional"], "default": "required"},
        "http_put_response_hop_limit": {"type": "int", "default": 1},
        **cloud.CLOUD_OPTIONS,
    }

    def __init__(self, wanted: Wanted, options: t.Mapping[str, t.Any], deadline: Deadline) -> None:
        super().__init__(wanted, options, deadline)
        self._connection: Ec2Api | None = None
        self._firewall: Firewall | None = None
        self._plan: ec2_launch.Plan | None = None
        self._live: list[dict[str, t.Any]] = []
        self._dead: list[dict[str, t.Any]] = []
        self._created = ""
        self._doubles_told = False
        # Names of our own are made from these; both fit into 255 characters.
        self.key_name = f"dockyard/{wanted.owner}/{wanted.name}"

    @property
    def api(self) -> Ec2Api:
        """The connection, made at the first call."""
        if self._connection is None:
            self._connection = Ec2Api(self.opts, self.deadline)
        return self._connection

    @property
    def firewall(self) -> Firewall:
        """The machine's security groups."""
        if self._firewall is None:
            self._firewall = Firewall(self.api, self.opts, self.wanted.owner, self.wanted.engine_port)
        return self._firewall

    @property
    def _marks(self) -> dict[str, str]:
        return marks(self.wanted.name, self.wanted.owner, "")

    # --- look --------------------------------------------------------------------------------------------------

    def find(self) -> Machine | None:
        """See Driver. An instance on its way out counts as gone, except for who waits for just that."""
        found = self._instances(tag_filters(self._marks))
        self._live = [instance for instance in found if instance["State"]["Name"] in LIVE]
        self._dead = sorted((entry for entry in found if entry not in self._live), key=lambda entry: str(entry.get("LaunchTime", "")))
        if not self._live:
            self._live = self._by_id([entry["InstanceId"] for entry in found])
        if self._live:
            return self.machine(self._best())
        leaving = [entry for entry in self._dead if entry["State"]["Name"] == "shutting-down"]
        if leaving and self.wanted.state == "absent":
            return self.machine(leaving[-1])
        failed = [entry for entry in self._dead if entry["InstanceId"] == self._created]
        if failed:
            machine = self.machine(failed[0])
            machine.state = State.ERROR
            return machine
        return None

    def list(self) -> t.List[Machine]:  # noqa: UP006 - the method shadows the builtin
        """See Driver; a thousand machines a call."""
        filters = [{"Name": "tag-key", "Values": [MARK]}, {"Name": "instance-state-name", "Values": [*LIVE]}]
        if self.wanted.owner:
            filters += tag_filters({f"{MARK}-owner": self.wanted.owner})
        with self.api.patient():
            return [self.machine(instance) for instance in self._instances(filters, MaxResults=1000)]

    def _instances(self, filters: t.List[dict[str, t.Any]], **more: t.Any) -> t.List[dict[str, t.Any]]:  # noqa: UP006
        reservations = self.api.pages("describe_instances", "Reservations", Filters=filters, **more)
        found = [instance for reservation in reservations for instance in reservation["Instances"]]
        # No owner means those without one, not everybody's.
        return [entry for entry in found if ec2_drift.tags_of(entry).get(f"{MARK}-owner", "") == self.wanted.owner]

    def _by_id(self, known: t.List[str]) -> t.List[dict[str, t.Any]]:  # noqa: UP006
        """The machine that the record names, when its tags don't: one that Docker Machine made, or whose tags somebody took off."""
        wanted = self.wanted.provider_id
        if not wanted.startswith("i-") or wanted in known:
            return []
        try:
            answer = self.api.call("describe_instances", InstanceIds=[wanted])
        except Ec2Error as error:
            if error.aws_code in ("InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"):
                return []
            raise
        found = [entry for reservation in answer["Reservations"] for entry in reservation["Instances"] if entry["State"]["Name"] in LIVE]
        for entry in found:
            tags = ec2_drift.tags_of(entry)
            other = {key: tags[key] for key, value in self._marks.items() if tags.get(key, value) != value}
            if other:
                raise MachineError(
                    f"The instance {wanted} is another machine",
                    where=f"machine {self.wanted.name}",
                    why=f"it is tagged {', '.join(f'{key}={value}' for key, value in other.items())}",
                    hint="Forget the record, or correct the tags",
                    code="not_ours",
                )
        return found

    def _best(self) -> dict[str, t.Any]:
        """The one of several live instances that the record means; there should be only one."""

        def rank(entry: dict[str, t.Any]) -> tuple[bool, bool, str]:
            mine = ec2_drift.tags_of(entry).get(f"{MARK}-token") == self.wanted.token
            return not mine, entry["InstanceId"] not in (self._created, self.wanted.provider_id), str(entry.get("LaunchTime", ""))

        ranked = sorted(self._live, key=rank)
        if len(ranked) > 1 and not self._doubles_told:
            self._doubles_told = True
            others = ", ".join(entry["InstanceId"] for entry in ranked[1:])
            used = ranked[0]["InstanceId"]
            self.warn(f"{self.wanted.name} exists more than once: {used} is used, {others} are not. state=absent removes all of them.")
        return ranked[0]

    def machine(self, instance: t.Mapping[str, t.Any]) -> Machine:
        """An instance in our words."""
        tags = ec2_drift.tags_of(instance)
        state = STATES.get(instance["State"]["Name"], State.UNKNOWN)
        private, public = instance.get("PrivateIpAddress", ""), instance.get("PublicIpAddress", "")
        ipv6 = ec2_drift.ipv6_of(instance)
        address = private if self.opts["private_address_only"] or self.opts["use_private_address"] else public
        if not address and state == State.RUNNING:
            # It has no public IPv4 address and will not get one by itself.
            address = (ipv6 if self.opts["ipv6"] else "") or private
        name = tags.get(MARK, self.wanted.name)
        return Machine(
            name=name,
            driver=self.name,
            id=instance["InstanceId"],
            state=state,
            address=address,
            private_address=private,
            ipv6_address=ipv6,
            dns_names=[entry for entry in (instance.get("PublicDnsName"), instance.get("PrivateDnsName")) if entry],
            ssh_user=self.wanted.ssh_user or self.default_ssh_user,
            ssh_port=self.opts["ssh_port"],
            engine_port=self.wanted.engine_port,
            owner=tags.get(f"{MARK}-owner", self.wanted.owner),
            token=tags.get(f"{MARK}-token", ""),
            tags=ec2_drift.user_tags(tags, name),
            details=self._details(instance),
        )

    def _details(self, instance: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        details = {
            "region": self.api.region,
            "availability_zone": instance.get("Placement", {}).get("AvailabilityZone", ""),
            "image": instance.get("ImageId", ""),
            "instance_type": instance.get("InstanceType", ""),
            "architecture": instance.get("Architecture", ""),
            "key_name": instance.get("KeyName", ""),
            "vpc_id": instance.get("VpcId", ""),
            "subnet_id": instance.get("SubnetId", ""),
            "security_group_ids": [group["GroupId"] for group in ec2_drift.groups_of(instance)],
            "volume_ids": ec2_drift.volumes_of(instance),
            "market": instance.get("InstanceLifecycle", "on-demand"),
            "endpoint": self.opts["endpoint"],
            "disk_size": self.opts["root_size"],
            "volume_type": self.opts["volume_type"],
            "fault": (instance.get("StateReason") or {}).get("Message", ""),
        }
        return {key: value for key, value in details.items() if value not in (None, "", [])}

    # --- make --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """See Driver."""
        with self.api.patient():
            if self.opts["keypair_name"]:
                self.api.call("describe_key_pairs", KeyNames=[self.opts["keypair_name"]])
            self._plan = ec2_launch.Planner(self.api, self.opts, self.wanted).plan()
            if self.opts["security_group"]:
                self.firewall.named(self._plan.vpc_id)
            else:
                self.firewall.rules()

    def create(self) -> None:
        """See Driver. Repeating it after a cut gives the same machine, by the ClientToken."""
        if self._plan is None:
            self.check()
        with self.api.patient():
            self._create()

    def _create(self) -> None:
        key_name = self.opts["keypair_name"] or self._import_key()
        for attempt in range(3):
            try:
                plan = t.cast(ec2_launch.Plan, self._plan)
                self._launch_best(ec2_launch.request(plan, self.wanted, self.opts, self._groups(plan.vpc_id), key_name))
                return
            except Ec2Error as error:
                if error.aws_code not in _STALE or attempt == 2:
                    raise
                # What was looked up is gone by now; the last machine's removal takes a group away, for one.
                if not self.api.cache.forget() and (error.aws_code != "InvalidGroup.NotFound" or self.opts["security_group"]):
                    raise
                self._plan = ec2_launch.Planner(self.api, self.opts, self.wanted).plan()

    def _groups(self, vpc_id: str) -> t.List[str]:  # noqa: UP006
        firewall = self.firewall
        if self.opts["security_group"]:
            return firewall.named(vpc_id)
        rules = firewall.rules()

        def make() -> str:
            return retry(lambda: firewall.ensure(vpc_id, rules), phase="firewall", deadline=self.deadline)

        return [self.api.cache.get(f"group {vpc_id} {group_name(self.wanted.owner, rules)}", make)]

    def _launch_best(self, parameters: dict[str, t.Any]) -> None:
        """A spot machine where one is wanted and to be had, else an on-demand one."""
        if not self.opts["request_spot_instance"]:
            self._launch(parameters, "on-demand")
            return
        try:
            self._launch(ec2_launch.spot(self.opts, self.wanted, parameters), "spot")
            return
        except (Ec2Error, TransientError) as error:
            if not self.opts["spot_fallback"] or getattr(error, "aws_code", "") not in _SPOT_FAILS:
                raise
            self.warn(f"{self.wanted.name} is an on-demand machine, no spot machine was to be had: {error.why}")
        self._launch(parameters, "on-demand")

    def _launch(self, parameters: dict[str, t.Any], market: str) -> None:
        after = self._dead[-1]["InstanceId"] if self._dead else ""
        for attempt in range(MAX_GENERATIONS):
            token = ec2_launch.client_token(self.wanted, after, attempt, market)
            try:
                instance = self.api.call("run_instances", ClientToken=token, **parameters)["Instances"][0]
            except Ec2Error as error:
                if ec2_launch.token_differs(error) and self._appears():
                    return
                if not (ec2_launch.token_is_used(error) or ec2_launch.token_differs(error)):
                    raise
                continue
            if instance["State"]["Name"] in LIVE:
                self._created = instance["InstanceId"]
                return
        raise MachineError(
            f"EC2 remembers {MAX_GENERATIONS} terminated machines of this record",
            where=f"machine {self.wanted.name}",
            hint="Remove its record with state=absent, then create it again",
            code="provider_error",
        )

    def _appears(self) -> bool:
        """Whether a machine that an earlier run asked for, with other options, comes into sight.

        When none does, the token belongs to one that was terminated so long ago that EC2 no longer shows it.
        """
        settle = self.deadline.within(SETTLE)
        while not settle.over:
            if self.find() is not None:
                return True
            settle.sleep(self.wanted.poll_interval)
        return False

    def _import_key(self) -> str:
        """The name of our key pair, imported when it isn't there with this key; empty without a key."""
        if not self.wanted.ssh_public_key:
            return ""
        if not self._new_key() and not self._key_is_current():
            self._new_key()
        return self.key_name

    def _new_key(self) -> bool:
        """Import the key; False when there is a pair of the name."""
        try:
            self.api.call(
                "import_key_pair",
                KeyName=self.key_name,
                PublicKeyMaterial=self.wanted.ssh_public_key.encode(),
                TagSpecifications=[{"ResourceType": "key-pair", "Tags": tag_list(ec2_launch.all_tags(self.wanted))}],
            )
        except Ec2Error as error:
            if error.aws_code != "InvalidKeyPair.Duplicate":
                raise
            return False
        return True

    def _key_is_current(self) -> bool:
        """Whether the pair of our name holds our key; one that an earlier machine of the name left is removed.

        Raises:
            MachineError: ``not_ours``.
        """
        pairs = self.api.call("describe_key_pairs", Filters=[{"Name": "key-name", "Values": [self.key_name]}], IncludePublicKey=True)[
            "KeyPairs"
        ]
        if not pairs:
            return False
        if not self._marks.items() <= ec2_drift.tags_of(pairs[0]).items():
            raise MachineError(
                f"The key pair {self.key_name} is not ours",
                where="option keypair_name",
                why="it carries no mark of this machine",
                hint="Remove that key pair, or name one of your own in keypair_name",
                code="not_ours",
            )
        if str(pairs[0].get("PublicKey", "")).split()[:2] == self.wanted.ssh_public_key.split()[:2]:
            return True
        self.api.call("delete_key_pair", KeyName=self.key_name)
        return False

    # --- remove ------------------------------------------------------------------------------------------------

    def delete(self, machine: Machine) -> None:
        """See Driver. Waits for the end of the instance, because only then its group can go."""
        if self.opts["delete_protection"]:
            raise cloud.protected(self.wanted.name)
        ids = [entry["InstanceId"] for entry in self._live] or [machine.id]
        groups = {
            group["GroupId"] for entry in (self._live or self._dead) for group in ec2_drift.groups_of(entry) if self.firewall.is_ours(group)
        }
        try:
            self.api.call("terminate_instances", InstanceIds=ids)
        except Ec2Error as error:
            if error.aws_code != "InvalidInstanceID.NotFound":
                raise
        limit = self.deadline.within(float(self.wanted.timeouts.get("delete", DEFAULT_TIMEOUTS["delete"])))
        poll(lambda: self._ended(ids), phase="delete", deadline=limit, interval=self.wanted.poll_interval)
        for pair in self._our_keys():
            self.api.call("delete_key_pair", KeyName=pair["KeyName"])
        for group_id in sorted(groups):
            self._remove_group(group_id, limit)

    def _ended(self, ids: t.List[str]) -> tuple[bool | None, str]:  # noqa: UP006
        """Whether none of these instances is there any more, as ``poll`` wants it."""
        filters = [{"Name": "instance-id", "Values": ids}]
        found = retry(lambda: self.api.pages("describe_instances", "Reservations", Filters=filters), phase="delete", deadline=self.deadline)
        states = {entry["InstanceId"]: entry["State"]["Name"] for reservation in found for entry in reservation["Instances"]}
        left = [f"{key} {state}" for key, state in states.items() if state != "terminated"]
        return (None if left else True), ", ".join(left)

    def _remove_group(self, group_id: str, limit: Deadline) -> None:
        """Remove a group of ours that nobody uses; it stays for the others otherwise."""

        def gone() -> tuple[bool | None, str]:
            # EC2 lets go of a terminated machine's interface a moment after the machine.
            done = self.firewall.remove(group_id) or self.firewall.used(group_id)
            return (True if done else None), f"security group {group_id} in use"

        try:
            poll(gone, phase="delete", deadline=limit.within(SETTLE), interval=self.wanted.poll_interval)
        except MachineError as error:
            if error.code != "deadline":
                raise
            self.warn(f"The security group {group_id} could not be removed: {error.why}. state=absent removes it later.")

    def _our_keys(self) -> t.List[dict[str, t.Any]]:  # noqa: UP006
        answer = self.api.call("describe_key_pairs", Filters=tag_filters(self._marks))["KeyPairs"]
        return [pair for pair in answer if pair["KeyName"] == self.key_name]

    def leftovers(self) -> t.List[str]:  # noqa: UP006
        """See Driver."""
        filters = [*tag_filters(self._marks), {"Name": "status", "Values": ["available"]}]
        return [
            *(f"key pair {pair['KeyName']}" for pair in self._our_keys()),
            *(f"volume {entry['VolumeId']}" for entry in self.api.pages("describe_volumes", "Volumes", Filters=filters)),
            *(
                f"network interface {entry['NetworkInterfaceId']}"
                for entry in self.api.pages("describe_network_interfaces", "NetworkInterfaces", Filters=filters)
            ),
            *(f"security group {group['GroupId']}" for group in self.firewall.all() if not self.firewall.used(group["GroupId"])),
        ]

    def delete_leftovers(self) -> None:
        """See Driver."""
        calls = {
            "volume": ("delete_volume", "VolumeId", "InvalidVolume.NotFound"),
            "network interface": ("delete_network_interface", "NetworkInterfaceId", "InvalidNetworkInterfaceID.NotFound"),
        }
        for entry in self.leftovers():
            kind, dummy, identity = entry.rpartition(" ")
            if kind == "security group":
                self.firewall.remove(identity)
            elif kind == "key pair":
                self.api.call("delete_key_pair", KeyName=identity)
            else:
                operation, parameter, missing = calls[kind]
                try:
                    self.api.call(operation, **{parameter: identity})
                except Ec2Error as error:
                    if error.aws_code != missing:
                        raise

    # --- power -------------------------------------------------------------------------------------------------

    def start(self, machine: Machine) -> None:
        """See Driver."""
        self.api.call("start_instances", InstanceIds=[machine.id])

    def stop(self, machine: Machine) -> None:
        """See Driver."""
        self.api.call("stop_instances", InstanceIds=[machine.id])

    def kill(self, machine: Machine) -> None:
        """See Driver."""
        self.api.call("stop_instances", InstanceIds=[machine.id], Force=True)

    def restart(self, machine: Machine) -> None:
        """See Driver. EC2 reboots in place: the instance stays "running"."""
        self.api.call("reboot_instances", InstanceIds=[machine.id])

    # --- day two -----------------------------------------------------------------------------------------------

    def drift(self, machine: Machine) -> t.List[Difference]:  # noqa: UP006
        """See Driver."""
        return ec2_drift.Drift(self.api, self.opts, self.wanted, self.firewall, self._best()).differences()

    def update(self, machine: Machine, differences: t.Sequence[Difference]) -> None:
        """See Driver."""
        ec2_drift.Drift(self.api, self.opts, self.wanted, self.firewall, self._best()).apply(differences, machine.state)
