# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""EC2: moto's server with its validation on, and in front of it what EC2 has and moto lacks.

========================= =========================================================================================
ClientToken               honoured: the same machine for the same request, ``IdempotentParameterMismatch`` for another,
                          ``IdempotentInstanceTerminated`` once it was terminated
states                    pending, stopping and shutting-down last ``transition`` seconds; verbs are refused meanwhile
eventual consistency      ``lag``: new instances and groups are not seen yet
errors                    faults ``quota``, ``capacity``, ``operation_error`` (pending, then terminated), throttling
checks                    user-data of 16 KB at most, image and type of one architecture, duplicate tag keys, a spot machine
                          cannot be stopped, a group in use cannot be deleted
images                    those of Debian and Ubuntu, as their publishers name them
========================= =========================================================================================

Nobody may connect to the addresses that moto gives its instances: they are strangers'.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import os
import pathlib
import re
import sys
import tempfile
import threading
import time
import typing as t
import urllib.parse
import xml.etree.ElementTree as ET

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from fakes import core, ec2_policy

ACCOUNT = "123456789012"
DEBIAN, CANONICAL = "136693071363", "099720109477"
MARK = "dockyard-machine"
NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15"
CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
MAX_USER_DATA = 16384

ET.register_namespace("", NAMESPACE)


def _image(number: int, name: str, owner: str, date: str, device: str, size: int = 8) -> dict[str, t.Any]:
    return {
        "ami_id": f"ami-{number:017x}",
        "name": name,
        "owner_id": owner,
        "public": True,
        "architecture": "arm64" if "-arm64-" in name else "x86_64",
        "virtualization_type": "hvm",
        "hypervisor": "xen",
        "root_device_type": "ebs",
        "root_device_name": device,
        "creation_date": date,
        "description": name,
        "state": "available",
        "image_type": "machine",
        "image_location": f"amazon/{name}",
        "sriov": "simple",
    }


def _images() -> list[dict[str, t.Any]]:
    names = []
    for arch in ("amd64", "arm64"):
        for date in ("20260310-2412", "20261102-2650", "20260707-2531"):
            day = f"{date[:4]}-{date[4:6]}-{date[6:8]}T10:00:00.000Z"
            names += [(f"debian-{release}-{arch}-{date}", DEBIAN, day, "/dev/xvda") for release in (12, 13)]
            # Newer, but not what the alias means.
            names.append((f"debian-12-backports-{arch}-{date}", DEBIAN, "2026-11-20T10:00:00.000Z", "/dev/xvda"))
            for ubuntu, storage in (("jammy-22.04", "hvm-ssd"), ("noble-24.04", "hvm-ssd-gp3")):
                names.append((f"ubuntu/images/{storage}/ubuntu-{ubuntu}-{arch}-server-{date[:8]}", CANONICAL, day, "/dev/sda1"))
        # Somebody else's image of a tempting name.
        names.append((f"debian-12-{arch}-20261120-9999", "999999999999", "2026-11-20T10:00:00.000Z", "/dev/xvda"))
    return [_image(number, *entry) for number, entry in enumerate(names, 1)]


def _start_moto() -> t.Any:
    """moto's server in threads of this process; its settings are read when it is imported."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
        json.dump(_images(), file)
    os.environ.update(
        MOTO_AMIS_PATH=file.name,
        MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION="1",
        MOTO_ENABLE_KEYPAIR_VALIDATION="1",
        MOTO_ENABLE_AMI_VALIDATION="1",
    )
    try:
        from moto.moto_server.threaded_moto_server import ThreadedMotoServer

        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        # The images are read with the first backend's module.
        import moto.ec2.models  # noqa: F401
    finally:
        os.unlink(file.name)
    return server


def _q(tag: str) -> str:
    return f"{{{NAMESPACE}}}{tag}"


def _parsed(body: bytes, container: str) -> tuple[ET.Element, ET.Element]:
    """A response and the element in it that holds the list; fails when moto changed the shape, instead of letting all pass."""
    root = ET.fromstring(body)
    found = root.find(_q(container))
    if found is None:
        raise core.Refusal(500, "InternalError", f"the layer finds no {container} in {root.tag}")
    return root, found


class Ec2Layer(core.Fake):
    """EC2 in one account, all regions."""

    locked = False

    def __init__(self) -> None:
        self.transition = 0.0
        self._moto: t.Any = None
        self._running = threading.RLock()
        super().__init__()

    # --- life --------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """See Fake."""
        super().reset()
        self.transition = 0.0
        self.tokens: dict[tuple[str, str], tuple[str, str, core.Response]] = {}
        self.phases: dict[str, tuple[float, str]] = {}
        self.born: dict[str, float] = {}
        self.broken: dict[str, str] = {}
        self.addresses: dict[str, str] = {}
        self.launches: dict[str, dict[str, str]] = {}
        self.problems: list[str] = []
        self.policy: dict[str, t.Any] | None = None
        if self._moto is not None:
            self._forward("POST", "/moto-api/reset", b"", {})

    def start(self, port: int = 0) -> str:
        """See Fake."""
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._moto = self._moto or _start_moto()
        return super().start(port)

    def stop(self) -> None:
        """See Fake."""
        super().stop()
        if self._moto is not None:
            self._moto.stop()
            self._moto = None

    def error(self, status: int, code: str, message: str) -> str:
        """See Fake."""
        code = {"too_many_requests": "RequestLimitExceeded", "server_error": "Unavailable"}.get(code, code)
        return (
            f'<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error>'
            "</Errors><RequestID>00000000-0000-0000-0000-000000000000</RequestID></Response>"
        )

    def operation(self, request: core.Request) -> str:
        """See Fake: EC2's action."""
        action = urllib.parse.parse_qs(request.body.decode()).get("Action", [""])[0]
        return action or super().operation(request)

    def is_write(self, request: core.Request) -> bool:
        """See Fake."""
        return not self.operation(request).startswith(("Describe", "Get"))

    # --- requests ----------------------------------------------------------------------------------------------

    def respond(self, request: core.Request) -> core.Response:
        """See Fake."""
        form = dict(urllib.parse.parse_qsl(request.body.decode(), keep_blank_values=True))
        if self.policy is not None:
            self._authorize(self.policy, request, form)
        special = getattr(self, f"_{request.operation}", None)
        if special is None:
            return self._pass(request)
        answer: core.Response = special(request, form)
        return answer

    def _authorize(self, policy: dict[str, t.Any], request: core.Request, form: dict[str, str]) -> None:
        """Check resources and conditions, which moto doesn't."""
        backend = self.backend(self.region(request))

        def tags_of(kind: str, name: str) -> dict[str, str]:
            if kind == "association":
                found = [entry.instance.id for entry in backend.iam_instance_profile_associations.values() if entry.association_id == name]
                name = found[0] if found else name
            if kind == "key-pair":
                name = backend.key_pairs[name].id if name in backend.key_pairs else name
            return {tag["key"]: tag["value"] for tag in backend.describe_tags({"resource-id": [name]})}

        for need in ec2_policy.needs(request.operation, form, tags_of):
            if not ec2_policy.allows(policy, need):
                raise core.Refusal(403, "UnauthorizedOperation", f"You are not authorized to perform {need.action} on {need.resource}.")

    def _pass(self, request: core.Request, form: t.Mapping[str, str] | None = None) -> core.Response:
        body = request.body if form is None else urllib.parse.urlencode(form).encode()
        headers = {key: value for key, value in request.headers.items() if key.lower() not in ("content-length", "connection", "expect")}
        return self._forward(request.method, request.url, body, headers)

    def _forward(self, method: str, url: str, body: bytes, headers: t.Mapping[str, str]) -> core.Response:
        host, port = self._moto.get_host_and_port()
        connection = http.client.HTTPConnection(host, port, timeout=60)
        try:
            connection.request(method, url, body, dict(headers))
            answer = connection.getresponse()
            if answer.status >= 500:
                self.problems.append(f"moto answers {answer.status} to {urllib.parse.parse_qs(body.decode()).get('Action')}")
            kept = {key: value for key, value in answer.getheaders() if key.lower() in ("content-type", "x-amzn-requestid")}
            return core.Response(answer.status, answer.read(), kept)
        finally:
            connection.close()

    def backend(self, region: str) -> t.Any:
        """moto's own state of a region."""
        from moto.backends import get_backend

        return get_backend("ec2")[ACCOUNT][region]

    @staticmethod
    def region(request: core.Request) -> str:
        """The region that a request was signed for."""
        match = re.search(r"Credential=[^/]+/\d+/([^/]+)/", request.headers.get("Authorization", ""))
        return match.group(1) if match else "us-east-1"

    @staticmethod
    def numbered(form: t.Mapping[str, str], prefix: str) -> list[str]:
        """``PREFIX.1``, ``PREFIX.2`` ..."""
        return [value for key, value in form.items() if re.fullmatch(rf"{prefix}\.\d+", key)]

    # --- states ------------------------------------------------------------------------------------------------

    def state(self) -> t.Any:
        """See Fake: everything with our mark, how each instance was asked for, and who may reach what."""
        machines = []
        for kind, identity, tags, thing in self._marked():
            if kind == "instance" and MARK in tags:
                machine = {"id": identity, "state": self._now(identity, thing.state), "tags": tags, "groups": sorted(self._groups(thing))}
                machines.append(
                    {**machine, "type": thing.instance_type, "image": thing.image_id, "launch": self.launches.get(identity, {})}
                )
        rules = {}
        for kind, dummy, tags, thing in self._marked():
            if kind == "group" and MARK in tags:
                rules[thing.id] = sorted(
                    f"{rule.ip_protocol} {rule.from_port}-{rule.to_port} {rule.ip_range.get('CidrIp') or rule.ip_range.get('CidrIpv6')}"
                    for rule in thing.ingress_rules
                )
        return {"resources": self.resources(), "machines": machines, "rules": rules, "problems": self.problems}

    def control(self, verb: str, data: dict[str, t.Any]) -> t.Any:
        """See Fake."""
        if verb == "delete_outside":
            self.delete_outside(data["name"])
        elif verb == "change_address":
            return {"address": self.change_address(data["name"])}
        elif verb == "transition":
            self.transition = float(data["seconds"])
        else:
            return super().control(verb, data)
        return {}

    def _now(self, identity: str, actual: str) -> str:
        until, phase = self.phases.get(identity, (0.0, ""))
        return phase if time.monotonic() < until else actual

    def _begin(self, identity: str, phase: str) -> None:
        self.phases[identity] = (time.monotonic() + self.transition, phase)

    def _hidden(self, identity: str) -> bool:
        return self.born.get(identity, 0.0) > time.monotonic() - self.lag

    # --- actions -----------------------------------------------------------------------------------------------

    def _RunInstances(self, request: core.Request, form: dict[str, str]) -> core.Response:
        region, token = self.region(request), form.get("ClientToken", "")
        told = json.dumps(sorted((key, value) for key, value in form.items()))
        with self._running:
            known = self.tokens.get((region, token)) if token else None
            if known is not None:
                return self._again(region, told, *known)
            self._check_run(region, form)
            response = self._pass(request)
            if response.status != 200:
                return response
            identity = re.findall(r"<instanceId>(i-[0-9a-f]+)</instanceId>", response.body.decode())[0]
            self.born[identity] = time.monotonic()
            self._begin(identity, "pending")
            self._finish_interfaces(region, identity, form)
            self.launches[identity] = form
            if token:
                self.tokens[region, token] = (told, identity, response)
            if self.take("operation_error", "RunInstances"):
                self.broken[identity] = "Client.InternalError: Client error on launch"
                self.backend(region).terminate_instances([identity])
            return response

    def _finish_interfaces(self, region: str, identity: str, form: t.Mapping[str, str]) -> None:
        """moto gives interfaces no tags and no IPv6 address, and an instance not the groups of its first interface."""
        tags = ec2_policy.request_tags(form).get("network-interface", {})
        backend = self.backend(region)
        instance = backend.get_instance(identity)
        instance.security_groups = instance.security_groups or list(instance.nics[0].group_set)
        for card in instance.nics.values():
            card.add_tags(tags)
            count = int(form.get("NetworkInterface.1.Ipv6AddressCount", "0"))
            if count:
                backend.assign_ipv6_addresses(card.id, ipv6_count=count)

    def _again(self, region: str, told: str, before: str, identity: str, response: core.Response) -> core.Response:
        if told != before:
            raise core.Refusal(
                400,
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
            )
        if self.backend(region).get_instance(identity).state in ("terminated", "shutting-down"):
            raise core.Refusal(
                400,
                "IdempotentInstanceTerminated",
                "The client token you have provided is associated with a terminated instance. Please use a different client token.",
            )
        return response

    def _check_run(self, region: str, form: dict[str, str]) -> None:
        if self.take("capacity", "RunInstances"):
            raise core.Refusal(
                500, "InsufficientInstanceCapacity", "We currently do not have sufficient capacity in the Availability Zone you requested."
            )
        if self.take("spot_capacity", "RunInstances") if form.get("InstanceMarketOptions.MarketType") == "spot" else None:
            raise core.Refusal(500, "InsufficientInstanceCapacity", "There is no Spot capacity available that matches your request.")
        if self.take("quota", "RunInstances"):
            raise core.Refusal(400, "VcpuLimitExceeded", "You have requested more vCPU capacity than your current vCPU limit of 32 allows.")
        if len(base64.b64decode(form.get("UserData", ""))) > MAX_USER_DATA:
            raise core.Refusal(400, "InvalidParameterValue", "User data is limited to 16384 bytes")
        for number in range(1, 6):
            keys = [value for key, value in form.items() if re.fullmatch(rf"TagSpecification\.{number}\.Tag\.\d+\.Key", key)]
            if len(set(keys)) != len(keys):
                raise core.Refusal(400, "InvalidParameterValue", "Duplicate tag keys are not allowed")
        backend = self.backend(region)
        image, kind = backend.amis.get(form.get("ImageId", "")), form.get("InstanceType", "")
        types = (
            {
                entry["InstanceType"]: entry
                for entry in backend.describe_instance_types(instance_types=None, filters={"instance-type": [kind]})
            }
            if image
            else {}
        )
        words = types.get(kind, {}).get("ProcessorInfo", {}).get("SupportedArchitectures", [])
        if image and words and image.architecture not in words:
            raise core.Refusal(
                400,
                "InvalidParameterValue",
                f"The architecture '{','.join(words)}' of the specified instance type does not match "
                f"the architecture '{image.architecture}' of the specified AMI.",
            )
        for group in self.numbered(form, r"NetworkInterface\.1\.SecurityGroupId"):
            if backend.get_security_group_from_id(group) is None or self._hidden(group):
                raise core.Refusal(400, "InvalidGroup.NotFound", f"The security group '{group}' does not exist")

    def _DescribeInstances(self, request: core.Request, form: dict[str, str]) -> core.Response:
        wanted, form = self._without_state_filter(form)
        asked = self.numbered(form, "InstanceId")
        for identity in asked:
            if self._hidden(identity):
                raise core.Refusal(400, "InvalidInstanceID.NotFound", f"The instance ID '{identity}' does not exist")
        # With authentication on, moto checks the signature of what was sent, so that it has to stay as it is.
        response = self._pass(request, None if self.policy is not None else form)
        if response.status != 200:
            return response
        root, reservations = _parsed(response.body, "reservationSet")
        for reservation in list(reservations):
            instances = reservation.find(_q("instancesSet"))
            assert instances is not None
            for instance in list(instances):
                if not self._shown(instance, wanted):
                    instances.remove(instance)
            if len(instances) == 0:
                reservations.remove(reservation)
        return core.Response(200, ET.tostring(root, encoding="utf-8", xml_declaration=True), response.headers)

    def _shown(self, instance: ET.Element, wanted: list[str]) -> bool:
        """Give an instance the state and address that it has now; False when it is not to be seen."""
        identity = instance.findtext(_q("instanceId"), "")
        state = instance.find(_q("instanceState"))
        assert state is not None
        name = self._now(identity, state.findtext(_q("name"), ""))
        for tag, value in (("code", str(CODES[name])), ("name", name)):
            element = state.find(_q(tag))
            assert element is not None
            element.text = value
        if identity in self.broken and name == "terminated":
            reason = instance.find(_q("stateReason"))
            reason = ET.SubElement(instance, _q("stateReason")) if reason is None else reason
            reason.clear()
            ET.SubElement(reason, _q("code")).text = "Client.InternalError"
            ET.SubElement(reason, _q("message")).text = self.broken[identity]
        if identity in self.addresses and name in ("pending", "running"):
            for element in instance.iter():
                if element.tag in (_q("ipAddress"), _q("publicIp")):
                    element.text = self.addresses[identity]
        return not self._hidden(identity) and (not wanted or name in wanted)

    @staticmethod
    def _without_state_filter(form: dict[str, str]) -> tuple[list[str], dict[str, str]]:
        """The states that are asked for, and the form without them: moto's own states know no transition."""
        states: list[str] = []
        kept: dict[str, str] = {}
        filters: dict[str, dict[str, str]] = {}
        for key, value in form.items():
            match = re.fullmatch(r"Filter\.(\d+)\.(.+)", key)
            if match:
                filters.setdefault(match.group(1), {})[match.group(2)] = value
            else:
                kept[key] = value
        number = 0
        for parts in filters.values():
            if parts.get("Name") == "instance-state-name":
                states = [value for key, value in parts.items() if key.startswith("Value")]
                continue
            number += 1
            kept.update({f"Filter.{number}.{key}": value for key, value in parts.items()})
        return states, kept

    def _verb(self, request: core.Request, form: dict[str, str], phase: str, allowed: tuple[str, ...]) -> core.Response:
        backend = self.backend(self.region(request))
        ids = self.numbered(form, "InstanceId")
        for identity in ids:
            found = [entry for entry in backend.all_instances() if entry.id == identity]
            name = self._now(identity, found[0].state) if found else ""
            if found and allowed and name not in allowed:
                raise core.Refusal(
                    400, "IncorrectInstanceState", f"The instance '{identity}' is not in a state from which this can be done: {name}"
                )
            if found and phase == "stopping" and found[0].lifecycle == "spot":
                raise core.Refusal(
                    400,
                    "UnsupportedOperation",
                    f"You can't stop the Spot Instance '{identity}' because it is associated with a one-time request.",
                )
        response = self._pass(request)
        for identity in ids if response.status == 200 and phase else []:
            self._begin(identity, phase)
        return response

    def _StartInstances(self, request: core.Request, form: dict[str, str]) -> core.Response:
        return self._verb(request, form, "pending", ("stopped", "running", "pending"))

    def _StopInstances(self, request: core.Request, form: dict[str, str]) -> core.Response:
        return self._verb(request, form, "stopping", ("stopped", "running", "stopping"))

    def _ModifyInstanceAttribute(self, request: core.Request, form: dict[str, str]) -> core.Response:
        backend, groups = self.backend(self.region(request)), self.numbered(form, "GroupId")
        for group in groups:
            if backend.get_security_group_from_id(group) is None:
                raise core.Refusal(400, "InvalidGroup.NotFound", f"The security group '{group}' does not exist")
        response = self._pass(request)
        if groups and response.status == 200:
            # An instance's groups are those of its first interface; moto changes one without the other.
            instance = backend.get_instance(form["InstanceId"])
            instance.nics[0]._group_set = [backend.get_security_group_from_id(group) for group in groups]
        return response

    def _RebootInstances(self, request: core.Request, form: dict[str, str]) -> core.Response:
        return self._verb(request, form, "", ("running",))

    def _TerminateInstances(self, request: core.Request, form: dict[str, str]) -> core.Response:
        ids = self.numbered(form, "InstanceId")
        states = {entry.id: entry.state for entry in self.backend(self.region(request)).all_instances()}
        if any(states.get(identity) != "terminated" for identity in ids):
            return self._verb(request, form, "shutting-down", ())
        # moto stumbles over a machine that is gone already; EC2 says the same once more.
        items = ""
        for identity in ids:
            name = self._now(identity, "terminated")
            state = f"State><code>{CODES[name]}</code><name>{name}</name>"
            items += f"<item><instanceId>{identity}</instanceId><current{state}</currentState><previous{state}</previousState></item>"
        body = f'<TerminateInstancesResponse xmlns="{NAMESPACE}"><instancesSet>{items}</instancesSet></TerminateInstancesResponse>'
        return core.Response(200, body, {"Content-Type": "text/xml"})

    def _MonitorInstances(self, request: core.Request, form: dict[str, str]) -> core.Response:
        state = "enabled" if request.operation == "MonitorInstances" else "disabled"
        items = ""
        for identity in self.numbered(form, "InstanceId"):
            self.backend(self.region(request)).get_instance(identity).monitoring_state = state
            items += f"<item><instanceId>{identity}</instanceId><monitoring><state>{state}</state></monitoring></item>"
        body = f'<{request.operation}Response xmlns="{NAMESPACE}"><instancesSet>{items}</instancesSet></{request.operation}Response>'
        return core.Response(200, body, {"Content-Type": "text/xml"})

    _UnmonitorInstances = _MonitorInstances

    def _CreateSecurityGroup(self, request: core.Request, form: dict[str, str]) -> core.Response:
        with self._running:
            response = self._pass(request)
        for identity in re.findall(r"<groupId>(sg-[0-9a-f]+)</groupId>", response.body.decode()) if response.status == 200 else []:
            self.born[identity] = time.monotonic()
        return response

    def _AuthorizeSecurityGroupIngress(self, request: core.Request, form: dict[str, str]) -> core.Response:
        self._refuse_hidden(form)
        with self._running:
            return self._pass(request)

    def _DeleteSecurityGroup(self, request: core.Request, form: dict[str, str]) -> core.Response:
        self._refuse_hidden(form)
        with self._running:
            for instance in self.backend(self.region(request)).all_instances():
                if self._now(instance.id, instance.state) != "terminated" and form["GroupId"] in self._groups(instance):
                    raise core.Refusal(400, "DependencyViolation", f"resource {form['GroupId']} has a dependent object")
            return self._pass(request)

    def _refuse_hidden(self, form: t.Mapping[str, str]) -> None:
        if self._hidden(form.get("GroupId", "")):
            raise core.Refusal(400, "InvalidGroup.NotFound", f"The security group '{form['GroupId']}' does not exist")

    def _DescribeSecurityGroups(self, request: core.Request, form: dict[str, str]) -> core.Response:
        response = self._pass(request)
        if response.status != 200:
            return response
        root, groups = _parsed(response.body, "securityGroupInfo")
        for group in list(groups):
            if self._hidden(group.findtext(_q("groupId"), "")):
                groups.remove(group)
        return core.Response(200, ET.tostring(root, encoding="utf-8", xml_declaration=True), response.headers)

    # --- past the API, for tests -------------------------------------------------------------------------------

    @staticmethod
    def _groups(instance: t.Any) -> set[str]:
        return {group.id for group in instance.security_groups} | {group.id for card in instance.nics.values() for group in card.group_set}

    def _marked(self) -> t.Iterator[tuple[str, str, dict[str, str], t.Any]]:
        """Everything that there is, as kind, id, tags, object."""
        backend = self.backend("us-east-1")

        def tags(thing: t.Any) -> dict[str, str]:
            return {tag["key"]: tag["value"] for tag in thing.get_tags()}

        for instance in backend.all_instances():
            if instance.state not in ("terminated", "shutting-down"):
                yield "instance", instance.id, tags(instance), instance
        for group in backend.describe_security_groups():
            yield "group", group.name, tags(group), group
        for pair in backend.key_pairs.values():
            yield "key", pair.key_name, tags(pair), pair
        for volume in list(backend.volumes.values()):
            yield "volume", volume.id, tags(volume), volume
        for card in list(backend.enis.values()):
            yield "interface", card.id, tags(card), card

    def resources(self) -> list[str]:
        """``kind name`` of everything with our mark in us-east-1."""
        return sorted(f"{kind} {name}" for kind, name, tags, dummy in self._marked() if MARK in tags)

    def machines(self) -> list[str]:
        """Ids of the live instances with our mark."""
        return sorted(name for kind, name, tags, dummy in self._marked() if MARK in tags and kind == "instance")

    def _named(self, name: str) -> t.Any:
        return next(thing for kind, dummy, tags, thing in self._marked() if kind == "instance" and tags.get(MARK) == name)

    def delete_outside(self, name: str) -> None:
        """Terminate a machine as somebody would in the console."""
        identity = self._named(name).id
        self.backend("us-east-1").terminate_instances([identity])
        self._begin(identity, "shutting-down")

    def change_address(self, name: str) -> str:
        """Give a machine another public address, as after a stop and start."""
        identity = self._named(name).id
        self.addresses[identity] = f"198.51.100.{len(self.addresses) + 10}"
        return self.addresses[identity]


if __name__ == "__main__":
    sys.exit(core.main(Ec2Layer()))
