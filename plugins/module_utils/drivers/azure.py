# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driver ``azure``: virtual machines of Microsoft Azure."""

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.azure_api import Api, Resource, is_gone
from ansible_collections.dockyard.machine.plugins.module_utils.azure_errors import VANISHED, ApiError, not_ours
from ansible_collections.dockyard.machine.plugins.module_utils.azure_group import Parts, marked_groups
from ansible_collections.dockyard.machine.plugins.module_utils.azure_options import OPTIONS
from ansible_collections.dockyard.machine.plugins.module_utils.azure_parts import (
    KINDS,
    MAX_USER_DATA,
    NSG,
    Place,
    Plan,
    address_ids,
    check_tags,
    machine_tags,
    name_in,
    nic_ids,
    our_tags,
    own_group,
    rule_notes,
    rules,
    security_group_body,
    split_id,
    to_machine,
    vm_body,
    vm_tags,
)
from ansible_collections.dockyard.machine.plugins.module_utils.azure_plan import Planner
from ansible_collections.dockyard.machine.plugins.module_utils.cloud import allowed_cidrs, invalid, needed_ports, protected
from ansible_collections.dockyard.machine.plugins.module_utils.driver import DEFAULT_TIMEOUTS, Difference, Driver, Wanted
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import Machine, State
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline, retry

_VM: t.Final = ("compute", "virtual_machines")
# Azure refuses these as names of administrators.
_BAD_USERS: t.Final = ("root", "admin", "administrator", "user", "test", "guest", "console", "server", "sys", "backup", "owner", "sql")


class AzureDriver(Driver):
    """One virtual machine, with its own firewall, address, network interface and disk, in a resource group of its owner's."""

    name = "azure"
    default_ssh_user = os.environ.get("AZURE_SSH_USER") or "docker-user"
    options: t.ClassVar[dict[str, t.Any]] = OPTIONS

    def __init__(self, wanted: Wanted, options: t.Mapping[str, t.Any], deadline: Deadline) -> None:
        location = str(options["location"]).lower().replace(" ", "")
        super().__init__(wanted, {**options, "location": location}, deadline)
        if not re.fullmatch(r"[a-z0-9]+", location):
            raise invalid("location", f"{options['location']!r} is no location", "Give one such as westeurope: az account list-locations")
        self.api = Api(options, deadline, wanted.poll_interval)
        self.place = self._place(str(options["resource_group"]) or own_group(wanted.owner, location))
        self._plan: Plan | None = None

    def _place(self, group: str) -> Place:
        own = group.lower() != str(self.opts["resource_group"]).lower()
        return Place(self.api.subscription, group, own, self.wanted.name, self.wanted.owner)

    def _phase(self, name: str) -> Deadline:
        return self.deadline.within(float(self.wanted.timeouts.get(name, DEFAULT_TIMEOUTS[name])))

    def _parts(self, place: Place) -> Parts:
        return Parts(self.api, place, self.warn)

    @property
    def _where(self) -> str:
        return f"machine {self.wanted.name}"

    # --- finding -----------------------------------------------------------------------------------------------

    def find(self) -> Machine | None:
        """See Driver. First where it should be, then by its tags in the whole subscription."""
        vm = self._look(self.place.group)
        if vm is None:
            for item in self._listed():
                group = split_id(str(item["id"]))["resourcegroups"]
                if our_tags(item)[0] == self.wanted.name and group.lower() != self.place.group.lower():
                    vm = self._look(group)
                    if vm is not None:
                        break
        return None if vm is None else self._machine(vm)

    def _look(self, group: str) -> Resource | None:
        """The virtual machine of the machine's name in ``group``, when it is ours.

        Raises:
            MachineError: ``not_ours``, unless the machine shall be absent: it is then, and somebody else's is not touched.
        """
        name = self.wanted.name
        vm = self.api.find(*_VM, group, name, expand="instanceView", what=f"The machine {name} could not be read", where=self._where)
        if vm is None or our_tags(vm) == (name, self.wanted.owner):
            return vm
        error = not_ours("virtual machine", name, group, our_tags(vm)[1])
        if self.wanted.state != "absent":
            raise error
        self.warn(f"{error.what}: {error.why}. It was not touched.")
        return None

    def _listed(self) -> t.List[Resource]:  # noqa: UP006 - the method list shadows the builtin
        """All virtual machines of the owner, without their state."""
        listed = self.api.pages(*_VM, "list_all", what="The machines could not be listed")
        return [item for item in listed if our_tags(item)[0] and our_tags(item)[1] == self.wanted.owner]

    def _machine(self, vm: Resource) -> Machine:
        """Read what belongs to it: two more calls, or three with IPv6."""
        nic: Resource = {}
        for identifier in nic_ids(vm)[:1]:
            parts = split_id(identifier)
            what = f"The network interface of {self.wanted.name} could not be read"
            nic = self.api.find("network", "network_interfaces", parts["resourcegroups"], parts["networkinterfaces"], what=what) or {}
        public = []
        for identifier in address_ids(nic):
            parts = split_id(identifier)
            what = f"The address of {self.wanted.name} could not be read"
            found = self.api.find("network", "public_ip_addresses", parts["resourcegroups"], parts["publicipaddresses"], what=what)
            public += [found] if found else []
        return to_machine(vm, nic, public, self.opts, self.wanted)

    def list(self) -> t.List[Machine]:  # noqa: UP006
        """See Driver; four lists, however many machines there are."""
        vms = self._listed()
        if not vms:
            return []
        what = "The machines could not be listed"
        # Azure gives either all properties of a machine or its power state.
        states = self.api.pages(*_VM, "list_all", status_only="true", what=what)
        views = {str(item["id"]).lower(): item.get("properties", {}).get("instanceView") for item in states}
        nics = {str(item["id"]).lower(): item for item in self.api.pages("network", "network_interfaces", "list_all", what=what)}
        public = {str(item["id"]).lower(): item for item in self.api.pages("network", "public_ip_addresses", "list_all", what=what)}
        found = []
        for vm in vms:
            vm["properties"] = {**vm.get("properties", {}), "instanceView": views.get(str(vm["id"]).lower())}
            nic = next((nics[item.lower()] for item in nic_ids(vm) if item.lower() in nics), {})
            addresses = [public[item.lower()] for item in address_ids(nic) if item.lower() in public]
            found.append(to_machine(vm, nic, addresses, self.opts, self.wanted))
        return found

    # --- planning ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Look everything up that creation needs; nothing is made when something is wrong."""
        wanted = self.wanted
        check_tags(wanted.tags)
        # In check mode there may be none yet.
        if wanted.ssh_public_key:
            self._check_key()
        if wanted.ssh_user.lower() in _BAD_USERS or not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", wanted.ssh_user):
            raise invalid("ssh_user", f"Azure takes no user named {wanted.ssh_user}", "Choose another name, such as docker-user")
        if len(wanted.user_data.encode()) > MAX_USER_DATA:
            raise invalid("user_data", "The user-data is too long for Azure", f"Keep it under {MAX_USER_DATA} bytes")
        self._own_rules()
        self._planned()
        if not self.place.own_group:
            self._check_group()

    def _check_key(self) -> None:
        if not self.wanted.ssh_public_key.startswith(("ssh-rsa ", "ssh-ed25519 ")):
            hint = "Give an Ed25519 or RSA public key"
            raise invalid("ssh_public_key", "Azure takes no machine without an SSH key of a kind that it knows", hint)

    def _check_group(self) -> None:
        group = self.place.group
        what, where = f"The resource group {group} could not be read", "option resource_group"
        if self.api.find("resource", "resource_groups", group, what=what, where=where) is None:
            hint = "Make it first, or leave resource_group out: then machines get one that comes and goes with them"
            raise MachineError(f"There is no resource group {group}", where=where, hint=hint, code="not_found")

    def _planned(self) -> Plan:
        if self._plan is None:
            self._plan = retry(Planner(self.api, self.opts, self.place).plan, phase="look up options", deadline=self.deadline)
        return self._plan

    def _own_rules(self) -> t.List[Resource]:  # noqa: UP006
        """The rules of the machine's own firewall; none when the user brings one."""
        ports = needed_ports(self.opts, self.wanted.engine_port)
        return [] if self.opts["security_group"] else rules(allowed_cidrs(self.opts, *self.api.where), ports)

    # --- making ------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Everything has a name of its own, so all of it may be asked for again: a broken run is finished by the next."""
        deadline = self._phase("create")
        self._check_key()
        try:
            retry(lambda: self._create(deadline), phase="create", deadline=deadline)
        except TransientError:
            raise
        except MachineError as error:
            if error.code not in ("not_ours", "deadline"):
                self._clean_up(error, deadline)
            raise

    def _clean_up(self, error: MachineError, deadline: Deadline) -> None:
        """Nothing of a machine that cannot be made shall stay, and cost."""
        try:
            self._remove_failed(deadline)
            self._parts(self.place).remove(deadline)
        except MachineError as second:
            self.warn(f"After '{error.what}' not everything could be removed: {second.message} state=absent does it.")

    def _create(self, deadline: Deadline) -> None:
        wanted, plan = self.wanted, self._planned()
        if self._look(self.place.group) is not None:
            return
        self._make_parts(plan, deadline)
        spot = bool(self.opts["spot"])
        try:
            self._make_vm(plan, deadline, spot=spot)
        except MachineError as error:
            if not (spot and self.opts["spot_fallback"] and error.code in ("capacity", "quota")):
                raise
            self.warn(f"{wanted.name}: no spot capacity in {plan.location}; it is made as an on-demand machine, at its full price.")
            self._remove_failed(deadline)
            # The network interface went with what failed.
            self._make_parts(plan, deadline)
            self._make_vm(plan, deadline, spot=False)

    def _make_parts(self, plan: Plan, deadline: Deadline) -> None:
        tags = machine_tags(self.wanted, self.wanted.token)
        self._parts(self.place).make(plan, tags, self._own_rules(), self.opts, deadline)

    def _make_vm(self, plan: Plan, deadline: Deadline, *, spot: bool) -> None:
        place, what = self.place, f"Making the machine {self.wanted.name}"
        body = vm_body(self.wanted, self.opts, place, plan, spot=spot)
        try:
            # Only if there is none: a machine that is there already is never changed by this.
            operation = self.api.begin(
                *_VM, "create_or_update", place.group, place.name, body, what=what, where=self._where, headers={"If-None-Match": "*"}
            )
        except ApiError as error:
            if error.provider_code in VANISHED and (place.own_group or plan.own_network):
                raise TransientError(what, where=error.where, why=error.why, code="conflict") from error
            if error.status == 412 or error.provider_code == "PropertyChangeNotAllowed":
                # Made by a request that we never saw answered, or by somebody else: find() tells.
                return
            raise
        self.api.finish(operation, what=what, where=self._where, deadline=deadline)

    # --- removing ----------------------------------------------------------------------------------------------

    def _remove_vm(self, place: Place, deadline: Deadline) -> None:
        """The virtual machine; its disk and network interface go with it."""
        what = f"Removing the machine {place.name}"
        try:
            operation = self.api.begin(*_VM, "delete", place.group, place.name, what=what, where=self._where)
            self.api.finish(operation, what=what, where=self._where, deadline=deadline)
        except MachineError as error:
            if not is_gone(error):
                raise

    def _remove_failed(self, deadline: Deadline) -> None:
        """What an operation that failed left of the machine, if it is ours."""
        if self._look(self.place.group) is not None:
            self._remove_vm(self.place, deadline)

    def delete(self, machine: Machine) -> None:
        """The machine, its parts, and what it shared if it was the last."""
        if self.opts["delete_protection"] or machine.details["delete_protection"]:
            raise protected(machine.name)
        deadline, place = self._phase("delete"), self._place(machine.details["resource_group"])
        self._remove_vm(place, deadline)
        self._parts(place).remove(deadline)

    def _left_places(self) -> t.List[Place]:  # noqa: UP006
        groups = {group.lower(): group for group in [*marked_groups(self.api, self.wanted.name, self.wanted.owner), self.place.group]}
        return [self._place(group) for group in groups.values()]

    def leftovers(self) -> t.List[str]:  # noqa: UP006
        """Parts without a machine, and what is shared by nobody."""
        found = []
        for place in self._left_places():
            parts = self._parts(place)
            found += [f"{kind.word} {place.named(kind)}" for kind in parts.remaining()]
            found += parts.shared()
        return found

    def delete_leftovers(self) -> None:
        """See Driver."""
        for place in self._left_places():
            self._parts(place).remove(self._phase("delete"))

    # --- power -------------------------------------------------------------------------------------------------

    def _power(self, machine: Machine, verb: str, what: str, phase: str, *, wait: bool, **more: t.Any) -> None:
        names = (machine.details["resource_group"], machine.name)
        operation = self.api.begin(*_VM, verb, *names, what=what, where=self._where, **more)
        if wait:
            self.api.finish(operation, what=what, where=self._where, deadline=self._phase(phase))

    def start(self, machine: Machine) -> None:
        """Start it; waits for the operation, which is what tells of missing capacity."""
        self._power(machine, "start", f"Starting the machine {machine.name}", "start", wait=True)

    def stop(self, machine: Machine) -> None:
        """Shut its system down and give the hardware back, so that it costs no more; ``keep_allocated`` keeps it."""
        verb = "power_off" if self.opts["keep_allocated"] else "deallocate"
        self._power(machine, verb, f"Stopping the machine {machine.name}", "stop", wait=False)

    def kill(self, machine: Machine) -> None:
        """Take the power away without asking its system."""
        what = f"Killing the machine {machine.name}"
        self._power(machine, "power_off", what, "stop", wait=True, skip_shutdown=True)
        if not self.opts["keep_allocated"]:
            self._power(machine, "deallocate", what, "stop", wait=False)

    def restart(self, machine: Machine) -> None:
        """See Driver."""
        self._power(machine, "restart", f"Restarting the machine {machine.name}", "start", wait=True)

    # --- changing ----------------------------------------------------------------------------------------------

    def drift(self, machine: Machine) -> t.List[Difference]:  # noqa: UP006
        """See Driver."""
        found = [*self._movable(machine), *self._fixed(machine)]
        return [item for item in found if item.actual != item.wanted]

    def _movable(self, machine: Machine) -> t.List[Difference]:  # noqa: UP006
        details, opts = machine.details, self.opts
        check_tags(self.wanted.tags)
        found = [
            Difference("tags", machine.tags, dict(self.wanted.tags)),
            Difference("delete_protection", details["delete_protection"], bool(opts["delete_protection"])),
        ]
        if details["size"].lower() != opts["size"].lower():
            found.append(Difference("size", details["size"], opts["size"], needs_stop=True))
        size = details["disk_size"]
        if opts["disk_size"] and size:
            # A disk can grow, never shrink; the guest has to grow its file system itself.
            found.append(Difference("disk_size", size, opts["disk_size"], in_place=opts["disk_size"] > size, needs_stop=True))
        if not opts["security_group"]:
            group = self._parts(self._place(details["resource_group"])).ours(NSG)
            listed = (group or {}).get("properties", {}).get("securityRules") or []
            found.append(Difference("allowed_cidrs and open_ports", rule_notes(listed), rule_notes(self._own_rules())))
        return found

    def _fixed(self, machine: Machine) -> t.List[Difference]:  # noqa: UP006
        """What only a new machine can have."""
        details, opts = machine.details, self.opts
        pairs = [("location", details["location"], opts["location"]), ("zone", details["zone"], opts["zone"])]
        if details["image"]:
            pairs.append(("image", details["image"], opts["image"]))
        if opts["resource_group"]:
            pairs.append(("resource_group", details["resource_group"].lower(), opts["resource_group"].lower()))
        together = name_in(opts["availability_set"].rpartition(":")[2]).lower()
        pairs.append(("availability_set", details["availability_set"].lower(), together))
        pairs.append(("private_address_only", not details["public_addresses"], bool(opts["private_address_only"])))
        if details["spot"] and not opts["spot"] or opts["spot"] and not opts["spot_fallback"]:
            pairs.append(("spot", details["spot"], bool(opts["spot"])))
        return [Difference(option, actual, wanted, in_place=False) for option, actual, wanted in pairs]

    def update(self, machine: Machine, differences: t.Sequence[Difference]) -> None:
        """See Driver. The virtual machine's tags come last: as long as they differ, the rest is done again."""
        stopped = machine.state == State.STOPPED
        changes = {item.option: item for item in differences if item.in_place and (stopped or not item.needs_stop)}
        parts = self._parts(self._place(machine.details["resource_group"]))
        if "allowed_cidrs and open_ports" in changes:
            tags = machine_tags(self.wanted, machine.token)
            body = security_group_body(machine.details["location"], tags, self._own_rules())
            self._change(NSG.service, NSG.group, "create_or_update", parts.place, parts.place.named(NSG), body, "option allowed_cidrs")
        if "tags" in changes:
            self._retag(parts, machine.token)
        if "disk_size" in changes:
            body = {"properties": {"diskSizeGB": self.opts["disk_size"]}}
            self._change("compute", "disks", "update", parts.place, machine.details["disk"], body, "option disk_size")
        if "size" in changes:
            body = {"properties": {"hardwareProfile": {"vmSize": self.opts["size"]}}}
            self._change(*_VM, "update", parts.place, machine.name, body, "option size")
        if "tags" in changes or "delete_protection" in changes:
            image = str(machine.details["image"])
            tags = vm_tags(self.wanted, machine.token, protect=bool(self.opts["delete_protection"]), image=image)
            self._change(*_VM, "update", parts.place, machine.name, {"tags": tags}, "option tags")

    def _retag(self, parts: Parts, token: str) -> None:
        tags = {"tags": machine_tags(self.wanted, token)}
        for kind in KINDS:
            if parts.ours(kind) is None:
                continue
            name = parts.place.named(kind)
            if kind.body:
                self._change(kind.service, kind.group, "update", parts.place, name, tags, "option tags")
            else:
                what = f"Changing the tags of {name}"
                self.api.call(kind.service, kind.group, "update_tags", parts.place.group, name, tags, what=what, where="option tags")

    def _change(self, service: str, operations: str, method: str, place: Place, name: str, body: Resource, where: str) -> None:
        """One change and the wait for it."""
        what = f"Changing {name}"
        operation = self.api.begin(service, operations, method, place.group, name, body, what=what, where=where)
        self.api.finish(operation, what=what, where=where, deadline=self._phase("start"))
