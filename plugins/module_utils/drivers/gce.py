# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driver ``gce``: virtual machines of Google Compute Engine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import typing as t
import uuid

from ansible_collections.dockyard.machine.plugins.module_utils.cloud import allowed_cidrs, invalid, needed_ports, protected
from ansible_collections.dockyard.machine.plugins.module_utils.driver import DEFAULT_TIMEOUTS, Difference, Driver, Wanted
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.gce_api import Api, errors_of, is_done, is_gone, last
from ansible_collections.dockyard.machine.plugins.module_utils.gce_firewall import Firewall, owner_filter
from ansible_collections.dockyard.machine.plugins.module_utils.gce_instance import (
    TAGS_KEY,
    Plan,
    check_marks,
    check_network_tags,
    instance_body,
    metadata,
    metadata_of,
    not_ours,
    our_labels,
    project_of,
    resource_path,
    system_labels,
    tag_labels,
    tag_note,
    to_machine,
    wanted_labels,
)
from ansible_collections.dockyard.machine.plugins.module_utils.gce_options import OPTIONS
from ansible_collections.dockyard.machine.plugins.module_utils.gce_plan import Planner
from ansible_collections.dockyard.machine.plugins.module_utils.machine import Machine, State
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline, retry

# Makes request ids of tokens; any constant would do.
_NAMESPACE: t.Final = uuid.UUID("6f1f5f0e-3b0b-4d55-9f5e-6d1c9b1e7a10")


class GceDriver(Driver):
    """One instance a machine, with a boot disk of its name, and a firewall rule that an owner's machines share."""

    name = "gce"
    remembered: t.ClassVar[tuple[str, ...]] = ("project", "zone")
    default_ssh_user = os.environ.get("GOOGLE_USERNAME") or "docker-user"
    options: t.ClassVar[dict[str, t.Any]] = OPTIONS

    def __init__(self, wanted: Wanted, options: t.Mapping[str, t.Any], deadline: Deadline) -> None:
        super().__init__(wanted, options, deadline)
        self.api = Api(options, deadline, wanted.poll_interval)
        self.zone = str(options["zone"])
        if not re.fullmatch(r"[a-z]+(-[a-z0-9]+)+-[a-z0-9]+", self.zone):
            raise invalid("zone", f"{self.zone!r} is no zone", "Give a zone such as europe-west1-b: gcloud compute zones list")
        if wanted.name[:1].isdigit():
            hint = "Choose another name, one that begins with a letter"
            raise MachineError(f"Compute Engine takes no machine named {wanted.name}", where="option name", hint=hint, code="invalid_name")
        check_marks(wanted)
        self._found_in = ""
        self._plan: Plan | None = None

    def _phase(self, name: str) -> Deadline:
        return self.deadline.within(float(self.wanted.timeouts.get(name, DEFAULT_TIMEOUTS[name])))

    @property
    def _where(self) -> str:
        return f"machine {self.wanted.name}"

    # --- finding -----------------------------------------------------------------------------------------------

    def find(self) -> Machine | None:
        """See Driver. First where it should be, then by mark in all zones."""
        instance = self._look(self._found_in or self.zone)
        if instance is None:
            ours = self._ours(owner_filter(self.wanted.owner, self.wanted.name))
            instance = ours[0] if ours else None
        if instance is None:
            return None
        self._found_in = last(instance.zone)
        return to_machine(instance, self.wanted, self.opts, self.name)

    def _look(self, zone: str) -> t.Any | None:
        """The instance of the machine's name in ``zone``, when it is ours.

        Raises:
            MachineError: ``not_ours``, unless the machine shall be absent: it is then, and somebody else's is not touched.
        """
        request = {"zone": zone, "instance": self.wanted.name}
        instance = self.api.find("Instances", "get", request, what=f"The machine {self.wanted.name} could not be read", where="option zone")
        if instance is None:
            return None
        name, owner = our_labels(instance.labels)
        if (name, owner) == (self.wanted.name, self.wanted.owner):
            return instance
        absent = self.wanted.state == "absent"
        known = self.wanted.provider_id == str(instance.id)
        if not name and (known or self.opts["use_existing"] and not absent):
            return instance
        error = not_ours(self.wanted.name, zone, owner)
        if not absent:
            raise error
        self.warn(f"{error.what}: {error.why}. It was not touched.")
        return None

    def _ours(self, expression: str) -> t.List[t.Any]:  # noqa: UP006
        found = self.api.pages("Instances", "aggregated_list", {"filter": expression}, what="The machines could not be listed")
        return [item for item in found if our_labels(item.labels)[0] and our_labels(item.labels)[1] == self.wanted.owner]

    def list(self) -> t.List[Machine]:  # noqa: UP006 - the method shadows the builtin
        """See Driver; one call for all zones and each 500 machines."""
        return [to_machine(item, self.wanted, self.opts, self.name) for item in self._ours(owner_filter(self.wanted.owner))]

    # --- planning ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Look everything up that creation needs; nothing is made when something is wrong."""
        tag_labels(self.wanted.tags)
        check_network_tags(self.opts["network_tags"])
        plan = self._planned()
        metadata(self.wanted, self.opts, plan)
        if self.opts["firewall"]:
            self._rules(plan.network)

    def _planned(self) -> Plan:
        if self._plan is None:
            self._plan = retry(Planner(self.api, self.wanted, self.opts).plan, phase="look up options", deadline=self.deadline)
        return self._plan

    # --- firewall ----------------------------------------------------------------------------------------------

    def _firewall(self, network: str) -> Firewall:
        return Firewall(self.api, self.wanted.owner, project_of(network, self.api.project), self.api.project)

    def _rules(self, network: str) -> t.List[dict[str, t.Any]]:  # noqa: UP006
        """The firewall rules that this machine needs on its network."""
        cidrs = allowed_cidrs(self.opts, *self.api.where)
        return self._firewall(network).rules(network, cidrs, needed_ports(self.opts, self.wanted.engine_port))

    def _network_tags(self, network: str) -> t.List[str]:  # noqa: UP006
        tags = list(dict.fromkeys(self.opts["network_tags"]))
        if self.opts["firewall"]:
            tags += self._rules(network)[0]["target_tags"]
        return tags

    # --- making ------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """The instance first, then its firewall rule: a failed instance leaves no rule, a lost race no machine without one."""
        plan = self._planned()
        spot = bool(self.opts["preemptible"])
        try:
            self._insert(plan, spot=spot)
        except MachineError as error:
            if not (spot and self.opts["spot_fallback"] and error.code == "capacity"):
                raise
            self.warn(f"{self.wanted.name}: no spot capacity in {self.zone}; it is made as an on-demand machine, at its full price.")
            self._insert(plan, spot=False)
        if self.opts["firewall"]:
            self._firewall(plan.network).ensure(self._rules(plan.network), self._phase("create"))

    def _insert(self, plan: Plan, *, spot: bool) -> None:
        """Make the instance, at most once however often it is asked for.

        The request's id comes from the record's token, so a repeated request is known to the provider as the same one. It
        remembers ids for a while: an id whose operation is over, but left no instance (it failed, or the machine was
        removed since), is not of use any more, and the next one is derived from it.
        """
        body = instance_body(self.wanted, self.opts, plan, spot=spot, network_tags=self._network_tags(plan.network))
        what = f"Making the machine {self.wanted.name}"
        request_id = self._request_id(body)
        for attempt in range(3):
            request = {"zone": self.zone, "instance_resource": body, "request_id": str(request_id)}
            try:
                operation = self.api.begin("Instances", "insert", request, what=what, where=self._where)
            except MachineError as error:
                if error.code != "exists":
                    raise
                # Made by a request that we never saw answered, or by somebody else: find() tells.
                return
            if not is_done(operation) or (not errors_of(operation) and self._look(self.zone) is not None):
                break
            request_id = uuid.uuid5(request_id, str(operation.id)) if attempt == 0 else uuid.uuid4()
        self.api.finish(operation, what=what, where=self._where, deadline=self._phase("create"))

    def _request_id(self, body: dict[str, t.Any]) -> uuid.UUID:
        if not self.wanted.token:
            return uuid.uuid4()
        # The last known instance makes the id of a re-creation differ; another request is another id.
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        return uuid.uuid5(_NAMESPACE, "/".join([self.wanted.token, self.wanted.name, self.wanted.provider_id, self.zone, digest]))

    # --- removing ----------------------------------------------------------------------------------------------

    def delete(self, machine: Machine) -> None:
        """The instance with its disk, then the firewall rule if this was the last machine that used it."""
        if self.opts["delete_protection"] or machine.details["delete_protection"]:
            raise protected(machine.name)
        deadline = self._phase("delete")
        what = f"Removing the machine {machine.name}"
        request = {**self._target(machine), "request_id": str(uuid.uuid4())}
        try:
            operation = self.api.begin("Instances", "delete", request, what=what, where=self._where)
            self.api.finish(operation, what=what, where=self._where, deadline=deadline)
        except MachineError as error:
            if not is_gone(error):
                raise
        if self.opts["firewall"]:
            self._firewall(machine.details["network"]).remove_unused(deadline, machine.id)

    def leftovers(self) -> t.List[str]:  # noqa: UP006
        """Firewall rules without machines, and the machine's disk when it should have gone with it."""
        found = [f"disk {last(disk.zone)}/{disk.name}" for disk in self._orphaned_disks()]
        if self.opts["firewall"]:
            network = resource_path("networks", self.opts["network"], self.api.project)
            found += [f"firewall rule {rule.name}" for rule in self._firewall(network).unused()]
        return found

    def delete_leftovers(self) -> None:
        """See Driver."""
        deadline = self._phase("delete")
        for disk in self._orphaned_disks():
            what = f"Removing the disk {disk.name}"
            request = {"zone": last(disk.zone), "disk": str(disk.name), "request_id": str(uuid.uuid4())}
            operation = self.api.begin("Disks", "delete", request, what=what, where=self._where)
            self.api.finish(operation, what=what, where=self._where, deadline=deadline)
        if self.opts["firewall"]:
            network = resource_path("networks", self.opts["network"], self.api.project)
            self._firewall(network).remove_unused(deadline)

    def _orphaned_disks(self) -> t.List[t.Any]:  # noqa: UP006
        if not self.opts["disk_auto_delete"]:
            return []
        request = {"filter": owner_filter(self.wanted.owner, self.wanted.name)}
        disks = self.api.pages("Disks", "aggregated_list", request, what="The disks could not be listed")
        return [disk for disk in disks if not disk.users and our_labels(disk.labels) == (self.wanted.name, self.wanted.owner)]

    # --- power -------------------------------------------------------------------------------------------------

    def _target(self, machine: Machine) -> dict[str, t.Any]:
        return {"zone": machine.details["zone"], "instance": machine.name}

    def _power(self, machine: Machine, verb: str, phase: str, what: str, *, wait: bool, **more: t.Any) -> None:
        request = {**self._target(machine), "request_id": str(uuid.uuid4()), **more}
        operation = self.api.begin("Instances", verb, request, what=what, where=self._where)
        if wait:
            self.api.finish(operation, what=what, where=self._where, deadline=self._phase(phase))

    def start(self, machine: Machine) -> None:
        """Start or resume it; waits for the operation, which is what tells of missing capacity."""
        verb = "resume" if machine.state == State.SAVED else "start"
        self._power(machine, verb, "start", f"Starting the machine {machine.name}", wait=True)

    def stop(self, machine: Machine) -> None:
        """Ask its system to shut down; Compute Engine takes the power away when that takes too long."""
        self._power(machine, "stop", "stop", f"Stopping the machine {machine.name}", wait=False)

    def kill(self, machine: Machine) -> None:
        """Stop it without the grace that was agreed for it."""
        self._power(machine, "stop", "stop", f"Stopping the machine {machine.name}", wait=False, no_graceful_shutdown=True)

    def restart(self, machine: Machine) -> None:
        """Shut it down and start it, as Docker Machine did: a reset would lose what the disk's cache holds."""
        self._power(machine, "stop", "stop", f"Stopping the machine {machine.name}", wait=True)
        self._power(machine, "start", "start", f"Starting the machine {machine.name}", wait=True)

    # --- changing ----------------------------------------------------------------------------------------------

    def drift(self, machine: Machine) -> t.List[Difference]:  # noqa: UP006
        """See Driver."""
        found = [*self._movable(machine), *self._fixed(machine)]
        return [item for item in found if item.actual != item.wanted]

    def _movable(self, machine: Machine) -> t.List[Difference]:  # noqa: UP006
        """What can be changed in place."""
        details, opts = machine.details, self.opts
        found = [
            Difference("tags", machine.tags, dict(self.wanted.tags)),
            Difference("owner", machine.owner, self.wanted.owner),
            Difference("delete_protection", details["delete_protection"], bool(opts["delete_protection"])),
            Difference("machine_type", details["machine_type"], opts["machine_type"], needs_stop=True),
        ]
        size = details["disk_size"]
        # A disk can grow, never shrink; the guest has to grow its file system itself.
        found.append(Difference("disk_size", size, opts["disk_size"], in_place=opts["disk_size"] > size))
        check_network_tags(opts["network_tags"])
        found.append(Difference("network_tags", sorted(details["network_tags"]), sorted(self._network_tags(details["network"]))))
        if opts["firewall"]:
            wrong = self._firewall(details["network"]).wrong(self._rules(details["network"]))
            found.append(Difference("firewall", [], [rule["name"] for rule, dummy in wrong]))
        return found

    def _fixed(self, machine: Machine) -> t.List[Difference]:  # noqa: UP006
        """What only a new machine can have."""
        details, opts = machine.details, self.opts
        found = [Difference("zone", details["zone"], self.zone, in_place=False)]
        if details["image"]:
            found.append(Difference("image", details["image"], opts["image"], in_place=False))
        if opts["subnetwork"]:
            found.append(Difference("subnetwork", last(details["subnetwork"]), last(opts["subnetwork"]), in_place=False))
        else:
            found.append(Difference("network", last(details["network"]), last(opts["network"]), in_place=False))
        if details["spot"] and not opts["preemptible"] or opts["preemptible"] and not opts["spot_fallback"]:
            found.append(Difference("preemptible", details["spot"], bool(opts["preemptible"]), in_place=False))
        return found

    def update(self, machine: Machine, differences: t.Sequence[Difference]) -> None:
        """See Driver. Each change reads the fingerprint that it needs, so it may be repeated."""
        stopped = machine.state == State.STOPPED
        changes = {item.option: item for item in differences if item.in_place and (stopped or not item.needs_stop)}
        if "tags" in changes or "owner" in changes:
            self._set_labels(machine)
        if "delete_protection" in changes:
            protect = bool(self.opts["delete_protection"])
            request = {"zone": machine.details["zone"], "resource": machine.name, "deletion_protection": protect}
            self._change("set_deletion_protection", request, "Changing the protection")
        if "machine_type" in changes:
            path = f"zones/{machine.details['zone']}/machineTypes/{self.opts['machine_type']}"
            request = {**self._target(machine), "instances_set_machine_type_request_resource": {"machine_type": path}}
            self._change("set_machine_type", request, "Changing the machine type", where="option machine_type")
        if "disk_size" in changes:
            resize = {"zone": machine.details["zone"], "disk": machine.details["disk"]}
            resize["disks_resize_request_resource"] = {"size_gb": self.opts["disk_size"]}
            self._change("resize", resize, "Growing the disk", service="Disks", where="option disk_size")
        self._update_network(machine, changes)

    def _update_network(self, machine: Machine, changes: t.Mapping[str, Difference]) -> None:
        """The new rule before the tag that needs it, the old rule only when nobody has its tag any more."""
        network = machine.details["network"]
        if "firewall" in changes:
            self._firewall(network).ensure(self._rules(network), self._phase("start"))
        if "network_tags" not in changes:
            return
        current = self._instance(machine)
        tags = {"items": changes["network_tags"].wanted, "fingerprint": str(current.tags.fingerprint)}
        self._change("set_tags", {**self._target(machine), "tags_resource": tags}, "Changing the network tags", where="option network_tags")
        if self.opts["firewall"]:
            self._firewall(network).remove_unused(self._phase("delete"))

    def _set_labels(self, machine: Machine) -> None:
        current = self._instance(machine)
        # The machine keeps the token of its generation; a store that finds it takes that over.
        ours = wanted_labels(self.wanted, machine.token)
        resource = {"labels": {**system_labels(current.labels), **ours}, "label_fingerprint": str(current.label_fingerprint)}
        request = {**self._target(machine), "instances_set_labels_request_resource": resource}
        self._change("set_labels", request, "Changing the labels", where="option tags")
        notes, note = metadata_of(current), tag_note(self.wanted.tags)
        if notes.get(TAGS_KEY, "") != note:
            notes = {key: value for key, value in {**notes, TAGS_KEY: note}.items() if key != TAGS_KEY or value}
            items = [{"key": key, "value": value} for key, value in sorted(notes.items())]
            request = {**self._target(machine), "metadata_resource": {"items": items, "fingerprint": str(current.metadata.fingerprint)}}
            self._change("set_metadata", request, "Changing the metadata", where="option tags")
        zone, name = machine.details["zone"], machine.details["disk"]
        disk = self.api.find("Disks", "get", {"zone": zone, "disk": name}, what=f"The disk {name} could not be read")
        if disk is not None:
            resource = {"labels": {**system_labels(disk.labels), **ours}, "label_fingerprint": str(disk.label_fingerprint)}
            request = {"zone": zone, "resource": name, "zone_set_labels_request_resource": resource}
            self._change("set_labels", request, "Changing the disk's labels", service="Disks", where="option tags")

    def _instance(self, machine: Machine) -> t.Any:
        what = f"The machine {machine.name} could not be read"
        return self.api.call("Instances", "get", self._target(machine), what=what, where=self._where)

    def _change(self, method: str, request: dict[str, t.Any], what: str, *, service: str = "Instances", where: str = "") -> None:
        """One change and the wait for its operation."""
        where = where or self._where
        request = {**request, "request_id": str(uuid.uuid4())}
        if method in ("set_labels", "set_metadata", "set_tags"):
            # A stale fingerprint is a TransientError: converge calls update() again, which reads a new one.
            operation = self.api.call(service, f"{method}_unary", request, what=what, where=where)
        else:
            operation = self.api.begin(service, method, request, what=what, where=where)
        self.api.finish(operation, what=what, where=where, deadline=self._phase("start"))
