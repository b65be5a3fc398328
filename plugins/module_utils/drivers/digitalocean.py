# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driver ``digitalocean``: Droplets.

DigitalOcean has no idempotency token and no tags on keys and firewalls. A Droplet carries its marks as tags from the
call that creates it, the account's SSH key and the firewall carry theirs in their names, and a creation whose answer
was lost is found by tag before anything is made again.
"""

from __future__ import annotations

import functools
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils import cloud
from ansible_collections.dockyard.machine.plugins.module_utils import digitalocean_firewall as firewalls
from ansible_collections.dockyard.machine.plugins.module_utils import digitalocean_marks as marks
from ansible_collections.dockyard.machine.plugins.module_utils.digitalocean_api import Api
from ansible_collections.dockyard.machine.plugins.module_utils.digitalocean_catalog import Catalog
from ansible_collections.dockyard.machine.plugins.module_utils.digitalocean_droplet import Droplet, to_machine
from ansible_collections.dockyard.machine.plugins.module_utils.digitalocean_keys import Keys
from ansible_collections.dockyard.machine.plugins.module_utils.digitalocean_options import OPTIONS
from ansible_collections.dockyard.machine.plugins.module_utils.driver import Difference, Driver, Wanted
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import Machine, State
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline, retry

T = t.TypeVar("T")

MAX_USER_DATA: t.Final = 64 * 1024

# The API allows 250 calls a minute; every sixth look at a new Droplet asks whether its creation failed.
_LOOKS_AT_CREATION: t.Final = 6

_KEY_TRIES: t.Final = 3


class DigitalOceanDriver(Driver):
    """Droplets, their SSH key in the account, and a firewall by tag."""

    name = "digitalocean"
    options = OPTIONS

    def __init__(self, wanted: Wanted, options: t.Mapping[str, t.Any], deadline: Deadline) -> None:
        super().__init__(wanted, options, deadline)
        wanted.poll_interval = max(0.01, float(options["poll_interval"]))
        self.api = Api(options["access_token"] or "", options["api_url"])
        self.marks = marks.Marks(wanted.owner, wanted.name)
        self.catalog = Catalog(self.api, options)
        self.keys = Keys(self.api, self.marks, options["ssh_key_fingerprint"], wanted.ssh_public_key)
        self._id = wanted.provider_id if wanted.provider_id.isdigit() else ""
        self._going: set[int] = set()
        self._looks = 0
        self._said: set[str] = set()

    # --- looking -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """See Driver."""
        self._tags()
        self._firewall()
        if len(self.wanted.user_data.encode()) > MAX_USER_DATA:
            raise cloud.invalid("user_data", "The user-data is too long", "Make it shorter; DigitalOcean takes at most 64 KiB")
        if self.opts["private_networking"]:
            self.warn("private_networking does nothing any more: every Droplet is in a VPC. Choose one with vpc_uuid.")
        if self.opts["private_address_only"] and self.opts["ipv6"]:
            raise cloud.invalid("ipv6", "A machine without public addresses has no IPv6 address", "Leave out ipv6, or private_address_only")
        self.catalog.check()
        self.keys.check()
        for uuid in self.opts["firewall_ids"]:
            if self.api.maybe("firewalls", "get", uuid, doing="read the firewall") is None:
                raise cloud.invalid("firewall_ids", f"There is no firewall {uuid!r}", "Name firewalls of this account by their ids")

    def find(self) -> Machine | None:
        """See Driver."""
        found = self._droplets()
        if not found:
            return None
        if len(found) > 1:
            self._warn_once(
                f"There are {len(found)} Droplets with the marks of {self.wanted.name}; the first is used, state=absent removes all."
            )
        return self._machine(found[0], look=True)

    def list(self) -> t.List[Machine]:  # noqa: UP006 - the method shadows the builtin
        """See Driver."""
        droplets = self.api.pages("droplets", "list", "droplets", tag_name=self.marks.owner_tag, doing="list the Droplets")
        return [self._machine(droplet) for droplet in droplets if marks.name_of(droplet, self.wanted.owner)]

    def _droplets(self) -> t.List[Droplet]:  # noqa: UP006
        """The Droplets with our marks, the right one first; else the one with the id that we know."""
        found = self.api.pages("droplets", "list", "droplets", tag_name=self.marks.name_tag, doing="look for the Droplet")
        if not found and self._id and int(self._id) not in self._going:
            # The list by tag may lag behind; and what Docker Machine made has no marks yet.
            body = self.api.maybe("droplets", "get", int(self._id), doing="read the Droplet")
            found = [body["droplet"]] if body else []
            if found and not self._may_be_ours(found[0]):
                raise MachineError(
                    f"The Droplet {self._id} is not the machine {self.wanted.name}",
                    where="option provider_id",
                    why=f"it is named {found[0]['name']} and its tags name another machine or none",
                    hint="Choose another name, or remove the record of this machine",
                    code="not_ours",
                )
        listed = {int(droplet["id"]) for droplet in found}
        for identifier in self._going - listed:
            # Its tags were removed already, but it can still be seen.
            body = self.api.maybe("droplets", "get", identifier, doing="read the Droplet")
            found += [body["droplet"]] if body else []
        token = self.marks.tag("token", self.wanted.token)
        return sorted(found, key=lambda item: (str(item["id"]) != self._id, token not in item["tags"], item["created_at"], item["id"]))

    def _may_be_ours(self, droplet: Droplet) -> bool:
        marked = [tag for tag in droplet["tags"] if marks.is_mark(tag)]
        return self.marks.name_tag in marked or (not marked and droplet["name"] == self.wanted.name)

    def _machine(self, droplet: Droplet, *, look: bool = False) -> Machine:
        failed = look and droplet["status"] == "new" and self._creation_failed(droplet)
        machine = to_machine(droplet, self.wanted, private=self.opts["private_address_only"], failed=failed)
        machine.ssh_port = self.opts["ssh_port"]
        return machine

    def _creation_failed(self, droplet: Droplet) -> bool:
        self._looks += 1
        if self._looks % _LOOKS_AT_CREATION != 1:
            return False
        actions = self.api.pages("droplet_actions", "list", "actions", int(droplet["id"]), doing="read what became of the Droplet")
        return any(action["type"] == "create" and action["status"] == "errored" for action in actions)

    # --- making ------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """See Driver."""
        firewall = self._firewall()
        if firewall:
            self._again(functools.partial(firewalls.ensure, self.api, firewall))
        body = self._body(firewall)
        for attempt in range(_KEY_TRIES):
            key, tag = self._again(self.keys.ensure)
            request = {**body, "ssh_keys": [key], "tags": [*body["tags"], *([tag] if tag else [])]}
            try:
                make = functools.partial(self.api.call, "droplets", "create", request, doing="create the Droplet")
                answer = cloud.retry_throttled(make, phase="create", deadline=self.deadline)
                break
            except MachineError as error:
                # A machine with the same key may just have been removed, and the key with it; nothing was made.
                if error.where != "option ssh_key_fingerprint" or self.opts["ssh_key_fingerprint"] or attempt + 1 == _KEY_TRIES:
                    raise
        self._id = str(answer["droplet"]["id"])
        # It takes a moment to come up: the first looks need not ask whether it failed.
        self._looks = 1
        self._secure(firewall)

    def _secure(self, firewall: firewalls.Firewall | None) -> None:
        """Make sure that the new machine is behind its firewall.

        Raises:
            MachineError: ``incomplete``; the next run finds the difference and mends it.
        """
        try:
            for uuid in self.opts["firewall_ids"]:
                self._again(functools.partial(self._assign, uuid, int(self._id)))
            if firewall:
                # The last machine of the owner may just have been removed, and the firewall with it.
                self._again(functools.partial(firewalls.ensure, self.api, firewall))
        except TransientError as error:
            # As a transient error it would pass for a creation whose answer was lost.
            hint = "Run it again; the machine is there and will be put behind its firewall"
            raise MachineError(error.what, where=error.where, why=error.why, hint=hint, code="incomplete") from error

    def _again(self, call: t.Callable[[], T]) -> T:
        """Repeat an idempotent part of the creation, of which converge doesn't know that it is."""
        return retry(call, phase="create", deadline=self.deadline)

    def _body(self, firewall: firewalls.Firewall | None) -> dict[str, t.Any]:
        body = {
            "name": self.wanted.name,
            "region": self.opts["region"],
            "size": self.opts["size"],
            "image": self.catalog.image(),
            "backups": self.opts["backups"],
            "ipv6": self.opts["ipv6"],
            "monitoring": self.opts["monitoring"],
            "tags": [*self._marks(firewall), *self._tags()],
        }
        optional = {
            "user_data": self.wanted.user_data or None,
            "vpc_uuid": self.opts["vpc_uuid"] or None,
            "with_droplet_agent": self.opts["droplet_agent"],
            "public_networking": False if self.opts["private_address_only"] else None,
        }
        return {**body, **{key: value for key, value in optional.items() if value is not None}}

    def _marks(self, firewall: firewalls.Firewall | None) -> t.List[str]:  # noqa: UP006
        found = [self.marks.name_tag, self.marks.owner_tag]
        if self.wanted.token:
            found.append(self.marks.tag("token", self.wanted.token))
        if firewall:
            found.append(firewall.tag)
        if self.opts["delete_protection"]:
            found.append(self.marks.tag("protected"))
        return found

    def _tags(self) -> t.List[str]:  # noqa: UP006
        """The user's tags as DigitalOcean writes them."""
        return marks.encode({**{name: "" for name in self.opts["tag_names"]}, **self.wanted.tags})

    def _firewall(self) -> firewalls.Firewall | None:
        """The firewall that the machine needs; None when the user brings his own or wants none."""
        if not self.opts["firewall"] or self.opts["firewall_ids"]:
            return None
        ports = {*cloud.needed_ports(self.opts, self.wanted.engine_port), cloud.Port(self.opts["ssh_port"], self.opts["ssh_port"])}
        if self.opts["ssh_port"] != cloud.SSH_PORT:
            ports.discard(cloud.Port(cloud.SSH_PORT, cloud.SSH_PORT))
        cidrs = cloud.allowed_cidrs(self.opts, self.api.host, self.api.port)
        if len(ports) + len(firewalls.OUTBOUND) > firewalls.MAX_RULES:
            most = firewalls.MAX_RULES - len(firewalls.OUTBOUND)
            raise cloud.invalid("open_ports", f"{len(ports)} rules are too many", f"A firewall has at most {most} of them: write ranges")
        if len(cidrs) > firewalls.MAX_SOURCES:
            raise cloud.invalid("allowed_cidrs", f"{len(cidrs)} address ranges are too many", f"List at most {firewalls.MAX_SOURCES}")
        return firewalls.Firewall(self.wanted.owner, tuple(sorted(ports)), tuple(cidrs))

    def _assign(self, uuid: str, droplet: int) -> None:
        self.api.call("firewalls", "assign_droplets", uuid, {"droplet_ids": [droplet]}, doing="put the Droplet behind the firewall")

    # --- removing ----------------------------------------------------------------------------------------------

    def delete(self, machine: Machine) -> None:
        """See Driver."""
        droplets = self._droplets()
        if self.opts["delete_protection"] or any(self.marks.tag("protected") in droplet["tags"] for droplet in droplets):
            raise cloud.protected(self.wanted.name)
        for droplet in droplets:
            self._going.add(int(droplet["id"]))
            self.keys.remove(marks.value(droplet, "key"))
            self.api.maybe("droplets", "destroy", int(droplet["id"]), doing="remove the Droplet")
        self._remove_tags()
        firewalls.remove_unused(self.api, self.wanted.owner, self._going)

    def leftovers(self) -> t.List[str]:  # noqa: UP006
        """See Driver."""
        found = [f"SSH key {key['name']}" for key in self.keys.ours()]
        found += [f"tag {tag}" for tag in self._own_tags()]
        return found + [f"firewall {item['name']}" for item in firewalls.unused(self.api, self.wanted.owner)]

    def delete_leftovers(self) -> None:
        """See Driver."""
        for key in self.keys.ours():
            self.keys.remove(str(key["id"]))
        self._remove_tags()
        firewalls.remove_unused(self.api, self.wanted.owner)

    def _own_tags(self) -> t.List[str]:  # noqa: UP006
        names = (tag["name"] for tag in self.api.pages("tags", "list", "tags", doing="list the tags"))
        return [name for name in names if self.marks.belongs(name)]

    def _remove_tags(self) -> None:
        for tag in self._own_tags():
            self.api.maybe("tags", "delete", tag, doing=f"remove the tag {tag}")

    # --- power -------------------------------------------------------------------------------------------------

    def start(self, machine: Machine) -> None:
        """See Driver."""
        self._act(machine, "power_on")

    def stop(self, machine: Machine) -> None:
        """See Driver."""
        self._act(machine, "shutdown")

    def kill(self, machine: Machine) -> None:
        """See Driver."""
        self._act(machine, "power_off")

    def restart(self, machine: Machine) -> None:
        """See Driver."""
        self._act(machine, "reboot")

    def _act(self, machine: Machine, kind: str, **settings: t.Any) -> None:
        verb = kind.replace("_", " ")
        self.api.call("droplet_actions", "post", int(machine.id), {"type": kind, **settings}, doing=f"{verb} the Droplet")

    # --- changing ----------------------------------------------------------------------------------------------

    def drift(self, machine: Machine) -> t.List[Difference]:  # noqa: UP006
        """See Driver."""
        droplet = next((item for item in self._droplets() if str(item["id"]) == machine.id), None)
        if droplet is None:
            return []
        found = [*self._tag_drift(droplet), *self._firewall_drift(droplet)]
        features = droplet.get("features") or []
        options = (
            # (option, actual, wanted, in place, needs a stopped machine)
            ("size", droplet["size_slug"], self.opts["size"], True, True),
            ("backups", "backups" in features, self.opts["backups"], True, False),
            ("region", droplet["region"]["slug"], self.opts["region"], False, False),
            ("image", *self.catalog.image_drift(droplet), False, False),
            ("vpc_uuid", droplet.get("vpc_uuid") or "", self.opts["vpc_uuid"] or droplet.get("vpc_uuid") or "", False, False),
            ("ipv6", "ipv6" in features, self.opts["ipv6"], False, False),
        )
        return found + [Difference(option, old, new, in_place, stop) for option, old, new, in_place, stop in options if old != new]

    def _tag_drift(self, droplet: Droplet) -> t.List[Difference]:  # noqa: UP006
        """Tags are case-stable: the first spelling in the account stays, so case makes no difference."""
        found = []
        actual, wanted = marks.users_tags(droplet), marks.decode(self._tags())
        missing = {self.marks.name_tag, self.marks.owner_tag} - set(droplet["tags"])
        if missing or marks.folded(actual) != marks.folded(wanted):
            found.append(Difference("tags", actual, wanted))
        protected = self.marks.tag("protected") in droplet["tags"]
        if protected != self.opts["delete_protection"]:
            found.append(Difference("delete_protection", protected, self.opts["delete_protection"]))
        return found

    def _firewall_drift(self, droplet: Droplet) -> t.List[Difference]:  # noqa: UP006
        if self.opts["firewall_ids"]:
            pages = self.api.pages("droplets", "list_firewalls", "firewalls", int(droplet["id"]), doing="list the Droplet's firewalls")
            actual = sorted(item["id"] for item in pages)
            missing = set(self.opts["firewall_ids"]) - set(actual)
            return [Difference("firewall_ids", actual, sorted(self.opts["firewall_ids"]))] if missing else []
        try:
            firewall = self._firewall()
        except MachineError as error:
            if self.opts["allowed_cidrs"]:
                raise
            # Nothing was asked for, and what is there was right when it was made.
            self._warn_once(f"The firewall was left as it is. {error.message}")
            return []
        actual_tags = [tag for tag in droplet["tags"] if marks.kind(tag) == "firewall"]
        if firewall is None:
            return [Difference("firewall", actual_tags, [])] if actual_tags else []
        if actual_tags == [firewall.tag] and firewalls.in_order(firewall, firewalls.ours(self.api, self.wanted.owner)):
            return []
        rules = {"ports": [str(port) for port in firewall.ports], "allowed_cidrs": list(firewall.cidrs)}
        return [Difference("firewall", actual_tags, rules)]

    def update(self, machine: Machine, differences: t.Sequence[Difference]) -> None:
        """See Driver."""
        droplet = next((item for item in self._droplets() if str(item["id"]) == machine.id), None)
        if droplet is None:
            return
        for item in differences:
            if item.option == "firewall_ids":
                for uuid in item.wanted:
                    self._assign(uuid, int(machine.id))
            elif item.option == "backups":
                self._act(machine, "enable_backups" if item.wanted else "disable_backups")
            elif item.option == "size" and machine.state == State.STOPPED:
                self._act(machine, "resize", size=item.wanted, disk=self.opts["resize_disk"])
        if {item.option for item in differences} & {"tags", "delete_protection", "firewall"}:
            self._retag(droplet, any(item.option == "firewall" for item in differences))

    def _retag(self, droplet: Droplet, firewall_changed: bool) -> None:
        """Give the Droplet the tags that it shall have, then take the others; new rules first, so that there are always some."""
        firewall = self._firewall() if firewall_changed else None
        if firewall:
            firewalls.ensure(self.api, firewall)
        old = [tag for tag in droplet["tags"] if not marks.is_mark(tag)]
        old += [self.marks.tag("protected")] if self.marks.tag("protected") in droplet["tags"] else []
        old += [tag for tag in droplet["tags"] if firewall_changed and marks.kind(tag) == "firewall"]
        new = [*self._marks(firewall), *self._tags()]
        if marks.value(droplet, "token"):
            new = [tag for tag in new if marks.kind(tag) != "token"]
        has, wants = {tag.lower() for tag in droplet["tags"]}, {tag.lower() for tag in new}
        resources = {"resources": [{"resource_id": str(droplet["id"]), "resource_type": "droplet"}]}
        for tag in new:
            if tag.lower() not in has:
                firewalls.ensure_tag(self.api, tag)
                self.api.call("tags", "assign_resources", tag, resources, doing=f"tag the Droplet with {tag}")
        for tag in old:
            if tag.lower() not in wants:
                self.api.maybe("tags", "unassign_resources", tag, resources, doing=f"take the tag {tag} from the Droplet")
        if firewall_changed:
            firewalls.remove_unused(self.api, self.wanted.owner)

    def _warn_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            self.warn(message)
