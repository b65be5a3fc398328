# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Compute Engine instance of ours looks like: the request that makes it, and what is read from it.

No call is made here. Messages are dictionaries with the field names of google-cloud-compute.
API: https://cloud.google.com/compute/docs/reference/rest/v1/instances
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.cloud import invalid
from ansible_collections.dockyard.machine.plugins.module_utils.driver import Wanted
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.gce_api import last
from ansible_collections.dockyard.machine.plugins.module_utils.machine import MARK, Machine, State, marks

STATES: t.Final = {
    "PENDING": State.STARTING,
    "PROVISIONING": State.STARTING,
    "STAGING": State.STARTING,
    "REPAIRING": State.STARTING,
    "RUNNING": State.RUNNING,
    "PENDING_STOP": State.STOPPING,
    "STOPPING": State.STOPPING,
    "SUSPENDING": State.STOPPING,
    "DEPROVISIONING": State.STOPPING,
    "STOPPED": State.STOPPED,
    "TERMINATED": State.STOPPED,
    "SUSPENDED": State.SAVED,
}

X86: t.Final = "X86_64"
ARM: t.Final = "ARM64"

# Google's and Canonical's public images: alias -> (project, family by architecture).
ALIASES: t.Final[dict[str, tuple[str, dict[str, str]]]] = {
    "debian-12": ("debian-cloud", {X86: "debian-12", ARM: "debian-12-arm64"}),
    "debian-13": ("debian-cloud", {X86: "debian-13", ARM: "debian-13-arm64"}),
    "ubuntu-22.04": ("ubuntu-os-cloud", {X86: "ubuntu-2204-lts", ARM: "ubuntu-2204-lts-arm64"}),
    "ubuntu-24.04": ("ubuntu-os-cloud", {X86: "ubuntu-2404-lts-amd64", ARM: "ubuntu-2404-lts-arm64"}),
    "ubuntu-26.04": ("ubuntu-os-cloud", {X86: "ubuntu-2604-lts-amd64", ARM: "ubuntu-2604-lts-arm64"}),
}

# Projects whose images bring cloud-init; Google's own Debian and Red Hat family images do not.
CLOUD_INIT_PROJECTS: t.Final = ("ubuntu-os-cloud", "ubuntu-os-pro-cloud", "cos-cloud")

# Machine series that take no Persistent Disk.
_HYPERDISK_ONLY = re.compile(r"(c4|c4a|c4d|n4|n4a|n4d|h4d|x4|a4|a4x|m4)-")

_NO_LABEL = re.compile(r"[^a-z0-9_-]")
_LABEL_LENGTH = 63
_MAX_LABELS = 64
_NETWORK_TAG = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_SYSTEM_LABEL = "goog-"
_MAX_METADATA_VALUE = 262144

IMAGE_KEY: t.Final = f"{MARK}-image"
"""Metadata key that keeps what the user asked for: families move on, so the image itself does not tell."""

TAGS_KEY: t.Final = f"{MARK}-tags"
"""Metadata key that keeps the user's tags to the letter where labels cannot."""

# For images without cloud-init: bring it, then run the stages that a boot would have run. The network is up already, and
# its configuration is the image's affair. sshd has loaded the image's host keys by then, hence the restart.
STARTUP_SCRIPT: t.Final = """\
#!/bin/sh
# Installs cloud-init where the image has none, so that the instance's user-data is applied.
command -v cloud-init >/dev/null 2>&1 && exit 0
export DEBIAN_FRONTEND=noninteractive
mkdir -p /etc/cloud/cloud.cfg.d
printf 'network:\\n  config: disabled\\n' > /etc/cloud/cloud.cfg.d/99-dockyard-network.cfg
for attempt in 1 2 3 4 5; do
  if command -v apt-get >/dev/null 2>&1; then
    apt-get -q update && apt-get -qy -o Dpkg::Options::=--force-confold install --no-install-recommends cloud-init && break
  elif command -v dnf >/dev/null 2>&1; then
    dnf -qy install cloud-init && break
  elif command -v zypper >/dev/null 2>&1; then
    zypper -qn install cloud-init && break
  fi
  sleep 5
done
command -v cloud-init >/dev/null 2>&1 || exit 1
cloud-init init --local
cloud-init init
systemctl try-restart ssh.service sshd.service
cloud-init modules --mode=config
cloud-init modules --mode=final
"""


class Image(t.NamedTuple):
    """Where an image may be found: in ``project``, by ``family`` or by ``name``."""

    project: str
    family: str = ""
    name: str = ""


def image_places(spec: str, project: str, architecture: str) -> list[Image]:
    """Where the image that ``spec`` names may be, in the order of trying.

    Args:
        spec: an alias (``debian-12``), ``NAME`` or ``FAMILY`` of the own project, ``PROJECT/NAME``, ``PROJECT/FAMILY``,
            ``PROJECT/global/images/NAME``, ``PROJECT/global/images/family/FAMILY``, or the URL of one of these.
        project: the own project.
        architecture: ``X86_64`` or ``ARM64``, for aliases.

    Raises:
        MachineError: ``invalid_option``.
    """
    if spec in ALIASES:
        owner, families = ALIASES[spec]
        return [Image(owner, family=families[architecture])]
    path = re.sub(r"^https?://[^/]+/compute/[^/]+/", "", spec)
    match = re.fullmatch(r"(?:projects/)?(?:([^/]+)/)?global/images/(family/)?([^/]+)", path)
    if match:
        owner = match.group(1) or project
        return [Image(owner, family=match.group(3)) if match.group(2) else Image(owner, name=match.group(3))]
    match = re.fullmatch(r"(?:([a-z0-9.:-]+)/)?([a-z]([a-z0-9-]*[a-z0-9])?)", path)
    if match:
        owner = match.group(1) or project
        return [Image(owner, name=match.group(2)), Image(owner, family=match.group(2))]
    raise invalid("image", f"{spec!r} names no image", f"Give PROJECT/FAMILY, PROJECT/global/images/NAME, or one of {', '.join(ALIASES)}")


def default_disk_type(machine_type: str) -> str:
    """The boot disk that fits a machine type: ``pd-balanced``, or Hyperdisk where nothing else can be attached."""
    return "hyperdisk-balanced" if _HYPERDISK_ONLY.match(machine_type) else "pd-balanced"


def region_of(zone: str) -> str:
    """``us-central1`` of ``us-central1-a``."""
    return zone.rpartition("-")[0]


def resource_path(kind: str, value: str, project: str, scope: str = "global") -> str:
    """``projects/P/SCOPE/KIND/NAME`` of a name, a partial path or a URL."""
    path = re.sub(r"^https?://[^/]+/compute/[^/]+/", "", value)
    if "/" not in path:
        return f"projects/{project}/{scope}/{kind}/{path}"
    return path if path.startswith("projects/") else f"projects/{project}/{path}"


def project_of(path: str, default: str) -> str:
    """The project in a resource's path or URL."""
    match = re.search(r"(?:^|/)projects/([^/]+)/", path)
    return match.group(1) if match else default


def _label(text: str) -> str:
    return _NO_LABEL.sub("_", text.lower())[:_LABEL_LENGTH]


def tag_labels(tags: t.Mapping[str, str]) -> dict[str, str]:
    """The user's tags as labels: lower case, and ``_`` for what a label cannot hold.

    Raises:
        MachineError: ``invalid_option``. https://cloud.google.com/compute/docs/labeling-resources#requirements
    """
    labels = {_label(key): _label(value) for key, value in tags.items()}
    for key in labels:
        if not key[:1].isalpha() or key.startswith((MARK, _SYSTEM_LABEL)):
            why = "a label begins with a letter, and this collection's and Google's own prefixes are reserved"
            raise invalid("tags", f"The tag {key} cannot be a label of Compute Engine", "Choose another key", why=why)
    if len(labels) < len(tags):
        raise invalid("tags", "Two tags become the same label", "Choose keys that differ in more than case and punctuation")
    if len(labels) + len(marks("name", "owner", "token")) > _MAX_LABELS:
        why = f"a resource has up to {_MAX_LABELS} labels, three of them ours"
        raise invalid("tags", f"{len(tags)} tags are too many", "Leave some out", why=why)
    return labels


def tag_note(tags: t.Mapping[str, str]) -> str:
    """What metadata keeps of the tags; empty when the labels say it all."""
    return "" if tag_labels(tags) == dict(tags) else json.dumps(dict(tags), sort_keys=True)


def read_tags(labels: t.Mapping[str, str], note: str) -> dict[str, str]:
    """The user's tags: what was noted, unless somebody changed the labels since; without ours and Google's own."""
    shown = {key: value for key, value in labels.items() if not key.startswith((MARK, _SYSTEM_LABEL))}
    try:
        noted = json.loads(note or "{}")
        return noted if isinstance(noted, dict) and tag_labels(noted) == shown else shown
    except (ValueError, AttributeError, MachineError):
        return shown


def check_marks(wanted: Wanted) -> None:
    """Refuse an owner or token that cannot be a label: they stand in filters too.

    Raises:
        MachineError: ``invalid_option``.
    """
    for option, value in (("owner", wanted.owner), ("token", wanted.token)):
        if _label(value) != value:
            hint = "Use up to 63 lower-case letters, digits, hyphens and underscores"
            raise invalid(option, f"The {option} {value[:80]!r} cannot be a label of Compute Engine", hint)


def check_network_tags(tags: t.Iterable[str]) -> None:
    """Refuse what is no network tag.

    Raises:
        MachineError: ``invalid_option``.
    """
    for tag in tags:
        if not _NETWORK_TAG.fullmatch(tag):
            hint = "Use lower-case letters, digits and hyphens, beginning with a letter"
            raise invalid("network_tags", f"{tag!r} is no network tag", hint)


def wanted_labels(wanted: Wanted, token: str = "") -> dict[str, str]:
    """The labels of everything that belongs to one machine; ``token`` where its generation is not the record's."""
    return {**tag_labels(wanted.tags), **marks(wanted.name, wanted.owner, token or wanted.token)}


def our_labels(labels: t.Mapping[str, str]) -> tuple[str, str]:
    """Name and owner that a resource's labels say; empty where they say none."""
    return labels.get(MARK, ""), labels.get(f"{MARK}-owner", "")


def system_labels(labels: t.Mapping[str, str]) -> dict[str, str]:
    """Labels that Google's services set, which are kept."""
    return {key: value for key, value in labels.items() if key.startswith(_SYSTEM_LABEL)}


@dataclasses.dataclass
class Plan:
    """All that is needed to make an instance, looked up and checked."""

    project: str
    zone: str
    machine_type: str
    architecture: str
    image: str
    """URL of the image itself."""
    image_project: str
    secure_image: bool
    """The image boots by UEFI, which shielded VMs need."""
    disk_size: int
    """GB"""
    disk_type: str
    network: str
    subnetwork: str = ""
    ipv6_access: str = ""
    """``EXTERNAL`` or ``INTERNAL`` where the machine gets an IPv6 address."""
    external_address: str = ""
    """A reserved address."""
    existing_disk: str = ""
    """URL of a boot disk that an earlier machine left on purpose."""


def metadata(wanted: Wanted, opts: t.Mapping[str, t.Any], plan: Plan) -> dict[str, str]:
    """The instance's metadata: our SSH key and no other, user-data, and what the user adds.

    Raises:
        MachineError: ``invalid_option`` for keys that are ours, and values that are too long.
    """
    extra = {str(key): str(value) for key, value in opts["metadata"].items()}
    for key in ("user-data", "enable-oslogin", "block-project-ssh-keys", IMAGE_KEY, TAGS_KEY):
        if key in extra:
            raise invalid("metadata", f"The metadata key {key} cannot be set", "Leave it out; user-data goes into machine_user_data")
    items = {**extra, IMAGE_KEY: str(opts["image"])}
    note = tag_note(wanted.tags)
    if note:
        items[TAGS_KEY] = note
    if wanted.ssh_public_key:
        lines = [f"{wanted.ssh_user}:{wanted.ssh_public_key}", *filter(None, [extra.get("ssh-keys", "").strip()])]
        # OS Login would ignore keys in metadata; the project's keys are not asked for.
        items.update({"ssh-keys": "\n".join(lines), "enable-oslogin": "FALSE", "block-project-ssh-keys": "TRUE"})
    if wanted.user_data:
        items["user-data"] = wanted.user_data
        if plan.image_project not in CLOUD_INIT_PROJECTS and not plan.existing_disk:
            items.setdefault("startup-script", STARTUP_SCRIPT)
    for key, value in items.items():
        if len(value.encode()) > _MAX_METADATA_VALUE:
            option = "user_data" if key == "user-data" else "metadata"
            raise invalid(option, f"The metadata value {key} is too long", "Shorten it", why="Compute Engine takes up to 256 KB a value")
    return items


def _disk(wanted: Wanted, opts: t.Mapping[str, t.Any], plan: Plan) -> dict[str, t.Any]:
    disk: dict[str, t.Any] = {"boot": True, "auto_delete": bool(opts["disk_auto_delete"]), "device_name": wanted.name}
    if plan.existing_disk:
        return {**disk, "source": plan.existing_disk}
    disk["initialize_params"] = {
        "disk_name": wanted.name,
        "disk_size_gb": plan.disk_size,
        "disk_type": f"projects/{plan.project}/zones/{plan.zone}/diskTypes/{plan.disk_type}",
        "source_image": plan.image,
        "labels": wanted_labels(wanted),
    }
    if opts["disk_kms_key"]:
        disk["disk_encryption_key"] = {"kms_key_name": opts["disk_kms_key"]}
    return disk


def _interface(opts: t.Mapping[str, t.Any], plan: Plan) -> dict[str, t.Any]:
    interface: dict[str, t.Any] = {"network": plan.network}
    if plan.subnetwork:
        interface["subnetwork"] = plan.subnetwork
    if not opts["private_address_only"]:
        access = {"name": "External NAT", "type_": "ONE_TO_ONE_NAT"}
        interface["access_configs"] = [{**access, "nat_i_p": plan.external_address} if plan.external_address else access]
    if plan.ipv6_access:
        interface["stack_type"] = "IPV4_IPV6"
    if plan.ipv6_access == "EXTERNAL":
        interface["ipv6_access_configs"] = [{"name": "External IPv6", "type_": "DIRECT_IPV6", "network_tier": "PREMIUM"}]
    return interface


def instance_body(
    wanted: Wanted, opts: t.Mapping[str, t.Any], plan: Plan, *, spot: bool, network_tags: t.Sequence[str]
) -> dict[str, t.Any]:
    """The message ``Instance`` that makes the machine."""
    body: dict[str, t.Any] = {
        "name": wanted.name,
        "description": f"Docker host of {wanted.owner}" if wanted.owner else "Docker host",
        "machine_type": f"projects/{plan.project}/zones/{plan.zone}/machineTypes/{plan.machine_type}",
        "labels": wanted_labels(wanted),
        "disks": [_disk(wanted, opts, plan)],
        "network_interfaces": [_interface(opts, plan)],
        "metadata": {"items": [{"key": key, "value": value} for key, value in sorted(metadata(wanted, opts, plan).items())]},
        "deletion_protection": bool(opts["delete_protection"]),
        "tags": {"items": list(network_tags)},
    }
    if opts["service_account"]:
        body["service_accounts"] = [{"email": opts["service_account"], "scopes": scopes(opts["scopes"])}]
    if plan.secure_image:
        # Secure Boot on Arm needs keys that not every image brings.
        secure = opts["secure_boot"] if opts["secure_boot"] is not None else plan.architecture == X86
        body["shielded_instance_config"] = {"enable_secure_boot": secure, "enable_vtpm": True, "enable_integrity_monitoring": True}
    if spot:
        body["scheduling"] = {
            "provisioning_model": "SPOT",
            "preemptible": True,
            "automatic_restart": False,
            "on_host_maintenance": "TERMINATE",
            "instance_termination_action": "STOP",
        }
    return body


def scopes(given: t.Iterable[str]) -> list[str]:
    """Scopes as URLs; without any the account's IAM roles alone decide."""
    base = "https://www.googleapis.com/auth/"
    return [scope if "//" in scope else base + scope for scope in given] or [base + "cloud-platform"]


# --- reading -------------------------------------------------------------------------------------------------------


def addresses(instance: t.Any, *, internal: bool) -> tuple[str, str, str]:
    """The address to reach it at, the private one, and the IPv6 one; empty while there is none."""
    if not instance.network_interfaces:
        return "", "", ""
    first = instance.network_interfaces[0]
    private = str(first.network_i_p)
    public = next((str(access.nat_i_p) for access in first.access_configs if access.nat_i_p), "")
    ipv6 = next((str(access.external_ipv6) for access in first.ipv6_access_configs if access.external_ipv6), str(first.ipv6_address))
    return (private if internal or not first.access_configs else public), private, ipv6


def metadata_of(instance: t.Any) -> dict[str, str]:
    """The metadata of an instance. Holds secrets (user-data)."""
    return {str(item.key): str(item.value) for item in instance.metadata.items}


def to_machine(instance: t.Any, wanted: Wanted, opts: t.Mapping[str, t.Any], driver: str) -> Machine:
    """An instance in our words."""
    labels = dict(instance.labels)
    name, owner = our_labels(labels)
    notes = metadata_of(instance)
    internal = bool(opts["use_internal_ip"] or opts["private_address_only"])
    address, private, ipv6 = addresses(instance, internal=internal)
    zone = last(instance.zone)
    interface = instance.network_interfaces[0] if instance.network_interfaces else None
    boot = next((disk for disk in instance.disks if disk.boot), None)
    details: dict[str, t.Any] = {
        "project": project_of(instance.self_link or instance.zone, ""),
        "zone": zone,
        "region": region_of(zone),
        "machine_type": last(instance.machine_type),
        "image": notes.get(IMAGE_KEY, ""),
        "disk": last(boot.source) if boot else "",
        "disk_size": int(boot.disk_size_gb) if boot else 0,
        "network": resource_path("networks", interface.network, "") if interface else "",
        "subnetwork": resource_path("subnetworks", interface.subnetwork, "") if interface and interface.subnetwork else "",
        "network_tags": list(instance.tags.items),
        "spot": instance.scheduling.provisioning_model == "SPOT",
        "delete_protection": bool(instance.deletion_protection),
        "status": str(instance.status),
    }
    if instance.status_message:
        details["fault"] = str(instance.status_message)
    return Machine(
        name=name or str(instance.name),
        driver=driver,
        id=str(instance.id),
        state=STATES.get(str(instance.status), State.UNKNOWN),
        address=address,
        private_address=private,
        ipv6_address=ipv6,
        ssh_user=wanted.ssh_user,
        engine_port=wanted.engine_port,
        owner=owner,
        token=labels.get(f"{MARK}-token", ""),
        tags=read_tags(labels, notes.get(TAGS_KEY, "")),
        details=details,
    )


def not_ours(name: str, zone: str, owner: str) -> MachineError:
    """The error for a name that somebody else's instance has."""
    return MachineError(
        f"The instance {name} in {zone} is not ours",
        where="option name",
        why=f"it belongs to {owner!r}" if owner else "it carries no mark of this collection",
        hint=f"Choose another name or zone, or {'set machine_owner' if owner else 'take it over with use_existing=true'}",
        code="not_ours",
    )
