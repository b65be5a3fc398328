# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small DigitalOcean: Droplets, their actions, SSH keys, tags, firewalls, images, sizes, regions and VPCs.

Every request and every answer is checked against the facts of the published API description in
``digitalocean_schema.json``: an unknown field, a wrong type, a value outside an enumeration or over a limit in a
request is refused as the API refuses it; in an answer it is a bug of the fake and ends the test.

Orders (``POST /_control/VERB``): ``delete_outside {name}``, ``change_address {name}``, ``foreign {name}``.
Faults of its own: ``quota`` and ``capacity`` (on ``droplets_create``), ``operation_error`` (the creation ends in an error).
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import pathlib
import re
import sys
import time
import typing as t
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from fakes.core import Fake, Refusal, Request, Response, Shelf, main, route

SCHEMA = json.loads(pathlib.Path(__file__).with_name("digitalocean_schema.json").read_text(encoding="utf-8"))
TOKEN = "dop_v1_0123456789abcdef"
REGIONS = ("nyc3", "fra1", "ams3")
CLOSED_REGION = "nyc2"
SIZES = {"s-1vcpu-1gb": (1024, 1, 25), "s-1vcpu-2gb": (2048, 1, 50), "s-2vcpu-4gb": (4096, 2, 80)}
RARE_SIZE = "g-2vcpu-8gb"
IMAGES = ("debian-12-x64", "debian-13-x64", "ubuntu-22-04-x64", "ubuntu-24-04-x64", "ubuntu-26-04-x64")
OWN_IMAGE = (7555620, "golden")
VPC = "760e09ef-dc84-11e8-981e-3cfdfeaae000"

V = t.TypeVar("V")

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def wrong(value: t.Any, schema: t.Mapping[str, t.Any], where: str = "") -> list[str]:
    """What is wrong with a value, by a schema of ``digitalocean_schema.json``; empty when nothing is."""
    if "ref" in schema:
        return wrong(value, SCHEMA["schemas"][schema["ref"]], where)
    if value is None:
        return [] if schema.get("nullable") else [f"{where} is null"]
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(isinstance(value, _TYPES[kind]) and isinstance(value, bool) == (kind == "boolean") for kind in kinds):
        return [f"{where} is no {' or '.join(kinds)}: {value!r}"]
    if isinstance(value, dict):
        return _wrong_object(value, schema, where)
    if isinstance(value, list):
        over = [f"{where} has {len(value)} items, at most {schema['maxItems']}"] if len(value) > schema.get("maxItems", 10**6) else []
        return over + [text for index, item in enumerate(value) for text in wrong(item, schema["items"], f"{where}[{index}]")]
    found = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where} is {value!r}, not one of {schema['enum']}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{where} is {value!r}, which {schema['pattern']} doesn't match")
    if "maxLength" in schema and len(value.encode()) > schema["maxLength"]:
        found.append(f"{where} is longer than {schema['maxLength']}")
    return found


def _wrong_object(value: dict[str, t.Any], schema: t.Mapping[str, t.Any], where: str) -> list[str]:
    found = [f"{where}.{key} is missing" for key in schema["required"] if key not in value]
    for key, item in value.items():
        if key not in schema["properties"]:
            found.append(f"{where}.{key} is unknown")
        else:
            found += wrong(item, schema["properties"][key], f"{where}.{key}")
    return found


class DigitalOcean(Fake):
    """A fake of DigitalOcean's API."""

    boot_seconds = 0.1
    action_seconds = 0.05
    destroy_seconds = 0.05
    droplet_limit = 50

    def reset(self) -> None:
        """See Fake."""
        super().reset()
        self.droplets: Shelf[dict[str, t.Any]] = Shelf(self)
        self.keys: Shelf[dict[str, t.Any]] = Shelf(self)
        self.tags: Shelf[dict[str, t.Any]] = Shelf(self)
        self.firewalls: Shelf[dict[str, t.Any]] = Shelf(self)
        self.actions: dict[int, dict[str, t.Any]] = {}
        self.key_lists: list[float] = []
        self.number = 3164000
        self.problems: list[str] = []
        self.scopes: set[str] | None = None
        """What the token may do; None means everything."""

    # --- the frame ---------------------------------------------------------------------------------------------

    def respond(self, request: Request) -> Response:
        """Check the token and the request, answer, check the answer."""
        facts = SCHEMA["operations"].get(request.operation)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refusal(401, "Unauthorized", "Unable to authenticate you")
        if facts is None:
            raise Refusal(404, "not_found", "The resource you were accessing could not be found.")
        if self.scopes is not None and not set(facts["scopes"]) <= self.scopes:
            raise Refusal(403, "Forbidden", "You are not authorized to perform this operation")
        if facts["request"]:
            problems = wrong(request.json(), SCHEMA["schemas"][facts["request"]], "body")
            if problems:
                raise Refusal(422, "unprocessable_entity", "; ".join(problems))
        response = super().respond(request)
        response.status = facts["status"]
        if facts["response"] is not None:
            self.problems += [f"{request.operation}: {text}" for text in wrong(response.body, facts["response"], "answer")]
        response.headers.update(self._rate())
        return response

    def error(self, status: int, code: str, message: str) -> t.Any:
        """See Fake."""
        return {"id": code, "message": message, "request_id": str(uuid.uuid4())}

    def _rate(self) -> dict[str, str]:
        limit = SCHEMA["rate_limits"]["requests_per_hour"]
        return {
            "ratelimit-limit": str(limit),
            "ratelimit-remaining": str(max(1, limit - len(self.log))),
            "ratelimit-reset": str(int(time.time()) + 3600),
        }

    def _page(self, request: Request, key: str, items: list[t.Any]) -> dict[str, t.Any]:
        size = int(request.first("per_page", str(SCHEMA["page_size"]["default"])))
        page = int(request.first("page", "1"))
        if not 1 <= size <= SCHEMA["page_size"]["maximum"] or page < 1:
            raise Refusal(422, "unprocessable_entity", "per_page and page have to be in their limits")
        pages = {}
        url = f"{self.url}{request.path}?per_page={size}"
        if page * size < len(items):
            pages = {"next": f"{url}&page={page + 1}", "last": f"{url}&page={-(-len(items) // size)}"}
        return {key: items[(page - 1) * size : page * size], "links": {"pages": pages} if pages else {}, "meta": {"total": len(items)}}

    def _next(self) -> int:
        self.number += 1
        return self.number

    @staticmethod
    def _now() -> str:
        return datetime.datetime.now(tz=datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

    # --- what there is to choose -------------------------------------------------------------------------------

    def _region(self, slug: str) -> dict[str, t.Any]:
        features = ["backups", "ipv6", "metadata", "install_agent", "storage"]
        sizes = [] if slug == CLOSED_REGION else list(SIZES)
        return {"slug": slug, "name": slug.upper(), "available": slug != CLOSED_REGION, "features": features, "sizes": sizes}

    def _size(self, slug: str) -> dict[str, t.Any]:
        memory, cpus, disk = SIZES.get(slug, (8192, 2, 25))
        return {
            "slug": slug, "memory": memory, "vcpus": cpus, "disk": disk, "transfer": 1.0, "price_monthly": 6.0, "price_hourly": 0.009,
            "regions": list(REGIONS) if slug in SIZES else [], "available": slug in SIZES, "description": "Basic",
        }  # fmt: skip

    def _images(self) -> list[dict[str, t.Any]]:
        found = [
            {
                "id": 100 + index, "name": slug, "type": "base", "distribution": slug.split("-")[0].title(), "slug": slug, "public": True,
                "regions": list(REGIONS), "created_at": "2026-01-01T00:00:00Z", "min_disk_size": 7, "size_gigabytes": 0.5,
                "description": slug, "tags": [], "status": "available", "error_message": "",
            }
            for index, slug in enumerate(IMAGES)
        ]  # fmt: skip
        own = {**found[0], "id": OWN_IMAGE[0], "name": OWN_IMAGE[1], "slug": None, "type": "snapshot", "public": False, "regions": ["nyc3"]}
        return [*found, own]

    def _image(self, wanted: t.Any) -> dict[str, t.Any] | None:
        return next((image for image in self._images() if wanted in (image["slug"], image["id"])), None)

    @route("GET", "/v2/regions")
    def regions_list(self, request: Request) -> t.Any:
        """Regions."""
        return self._page(request, "regions", [self._region(slug) for slug in (*REGIONS, CLOSED_REGION)])

    @route("GET", "/v2/sizes")
    def sizes_list(self, request: Request) -> t.Any:
        """Sizes."""
        return self._page(request, "sizes", [self._size(slug) for slug in (*SIZES, RARE_SIZE)])

    @route("GET", "/v2/images")
    def images_list(self, request: Request) -> t.Any:
        """Images; only the account's own ones with ``private=true``."""
        private = request.first("private").lower() == "true"
        return self._page(request, "images", [image for image in self._images() if not (private and image["public"])])

    @route("GET", "/v2/images/{image_id}")
    def images_get(self, request: Request, image_id: str) -> t.Any:
        """One image, by id or slug."""
        image = self._image(int(image_id) if image_id.isdigit() else image_id)
        return {"image": self._there(image)}

    @route("GET", "/v2/vpcs/{vpc_id}")
    def vpcs_get(self, request: Request, vpc_id: str) -> t.Any:
        """One VPC."""
        if vpc_id != VPC:
            self._there(None)
        return {"vpc": {"id": VPC, "urn": f"do:vpc:{VPC}", "default": True, "created_at": "2026-01-01T00:00:00Z", "name": "default-nyc3",
                        "description": "", "region": "nyc3", "ip_range": "10.10.0.0/20"}}  # fmt: skip

    def _there(self, found: V | None) -> V:
        if found is None:
            raise Refusal(404, "not_found", "The resource you were accessing could not be found.")
        return found

    # --- SSH keys ----------------------------------------------------------------------------------------------

    @route("GET", "/v2/account/keys")
    def ssh_keys_list(self, request: Request) -> t.Any:
        """All keys; ten times a minute at most."""
        now = time.monotonic()
        self.key_lists = [*(then for then in self.key_lists if now - then < 60), now]
        if len(self.key_lists) > SCHEMA["rate_limits"]["key_lists_per_minute"]:
            raise Refusal(429, "too_many_requests", "API Rate limit exceeded.", {"Retry-After": str(int(60 - now + self.key_lists[0]) + 1)})
        return self._page(request, "ssh_keys", self.keys.values())

    @route("POST", "/v2/account/keys")
    def ssh_keys_create(self, request: Request) -> t.Any:
        """Add a key; each only once."""
        body = request.json()
        try:
            digest = hashlib.md5(base64.b64decode(body["public_key"].split()[1], validate=True), usedforsecurity=False).hexdigest()
        except (IndexError, ValueError):
            raise Refusal(422, "unprocessable_entity", "Key invalid, key should be of the format `type key [comment]`") from None
        fingerprint = ":".join(digest[index : index + 2] for index in range(0, 32, 2))
        if any(key["fingerprint"] == fingerprint for key in self.keys.values(fresh=True)):
            raise Refusal(422, "unprocessable_entity", "SSH Key is already in use on your account")
        key = {"id": self._next(), "fingerprint": fingerprint, **body}
        self.keys.put(str(key["id"]), key)
        return {"ssh_key": key}

    @route("GET", "/v2/account/keys/{ssh_key_identifier}")
    def ssh_keys_get(self, request: Request, ssh_key_identifier: str) -> t.Any:
        """One key, by id or fingerprint."""
        return {"ssh_key": self._there(self._key(ssh_key_identifier))}

    @route("DELETE", "/v2/account/keys/{ssh_key_identifier}")
    def ssh_keys_delete(self, request: Request, ssh_key_identifier: str) -> t.Any:
        """Remove a key."""
        self.keys.remove(str(self._there(self._key(ssh_key_identifier, fresh=True))["id"]))

    def _key(self, identifier: t.Any, *, fresh: bool = False) -> dict[str, t.Any] | None:
        found = self.keys.values(fresh=fresh)
        return next((key for key in found if str(identifier) in (str(key["id"]), key["fingerprint"])), None)

    # --- tags --------------------------------------------------------------------------------------------------

    def _tag(self, name: str) -> str:
        """Make a tag unless it is there; the first spelling stays."""
        for known in (name for name, dummy in self.tags.items(fresh=True)):
            if known.lower() == name.lower():
                return known
        self.tags.put(name, {"name": name})
        return name

    def _shown_tag(self, name: str) -> dict[str, t.Any]:
        tagged = [droplet for droplet in self.droplets.values() if name in droplet["tags"]]
        statistics: dict[str, t.Any] = {"count": len(tagged)}
        if tagged:
            statistics["last_tagged_uri"] = f"{self.url}/v2/droplets/{tagged[-1]['id']}"
        return {"name": name, "resources": {**statistics, "droplets": statistics}}

    @route("GET", "/v2/tags")
    def tags_list(self, request: Request) -> t.Any:
        """All tags."""
        return self._page(request, "tags", [self._shown_tag(name) for name, dummy in self.tags.items()])

    @route("POST", "/v2/tags")
    def tags_create(self, request: Request) -> t.Any:
        """Make a tag; one that is there is fine."""
        return {"tag": self._shown_tag(self._tag(request.json()["name"]))}

    @route("GET", "/v2/tags/{tag_id}")
    def tags_get(self, request: Request, tag_id: str) -> t.Any:
        """One tag."""
        self._there(self.tags.get(tag_id))
        return {"tag": self._shown_tag(tag_id)}

    @route("DELETE", "/v2/tags/{tag_id}")
    def tags_delete(self, request: Request, tag_id: str) -> t.Any:
        """Remove a tag from everything, and itself."""
        self._there(self.tags.get(tag_id, fresh=True))
        self.tags.remove(tag_id)
        for key, droplet in self.droplets.items(fresh=True):
            if tag_id in droplet["tags"]:
                self.droplets.put(key, {**droplet, "tags": [tag for tag in droplet["tags"] if tag != tag_id]})

    @route("POST", "/v2/tags/{tag_id}/resources")
    def tags_assign_resources(self, request: Request, tag_id: str) -> t.Any:
        """Tag Droplets."""
        self._retag(request, tag_id, lambda tags: [*tags, *([] if tag_id in tags else [tag_id])])

    @route("DELETE", "/v2/tags/{tag_id}/resources")
    def tags_unassign_resources(self, request: Request, tag_id: str) -> t.Any:
        """Untag Droplets."""
        self._retag(request, tag_id, lambda tags: [tag for tag in tags if tag != tag_id])

    def _retag(self, request: Request, tag: str, change: t.Callable[[list[str]], list[str]]) -> None:
        self._there(self.tags.get(tag, fresh=True))
        for item in request.json()["resources"]:
            droplet = self._there(self.droplets.get(item["resource_id"], fresh=True))
            self.droplets.put(item["resource_id"], {**droplet, "tags": change(droplet["tags"])})

    # --- firewalls ---------------------------------------------------------------------------------------------

    @route("GET", "/v2/firewalls")
    def firewalls_list(self, request: Request) -> t.Any:
        """All firewalls."""
        return self._page(request, "firewalls", self.firewalls.values())

    @route("GET", "/v2/firewalls/{firewall_id}")
    def firewalls_get(self, request: Request, firewall_id: str) -> t.Any:
        """One firewall."""
        return {"firewall": self._there(self.firewalls.get(firewall_id))}

    @route("POST", "/v2/firewalls")
    def firewalls_create(self, request: Request) -> t.Any:
        """Make a firewall; names are unique, its tags have to exist."""
        return {"firewall": self._put_firewall(str(uuid.uuid4()), request.json())}

    @route("PUT", "/v2/firewalls/{firewall_id}")
    def firewalls_update(self, request: Request, firewall_id: str) -> t.Any:
        """Replace a firewall."""
        self._there(self.firewalls.get(firewall_id, fresh=True))
        return {"firewall": self._put_firewall(firewall_id, request.json())}

    @route("DELETE", "/v2/firewalls/{firewall_id}")
    def firewalls_delete(self, request: Request, firewall_id: str) -> t.Any:
        """Remove a firewall."""
        self._there(self.firewalls.get(firewall_id, fresh=True))
        self.firewalls.remove(firewall_id)

    @route("POST", "/v2/firewalls/{firewall_id}/droplets")
    def firewalls_assign_droplets(self, request: Request, firewall_id: str) -> t.Any:
        """Put Droplets behind a firewall, ten at most."""
        found = self._there(self.firewalls.get(firewall_id, fresh=True))
        ids = sorted({*found["droplet_ids"], *request.json()["droplet_ids"]})
        if len(ids) > SCHEMA["firewall_limits"]["droplet_ids"]:
            raise Refusal(422, "unprocessable_entity", "too many droplets")
        self.firewalls.put(firewall_id, {**found, "droplet_ids": ids})

    @route("GET", "/v2/droplets/{droplet_id}/firewalls")
    def droplets_list_firewalls(self, request: Request, droplet_id: str) -> t.Any:
        """The firewalls of one Droplet."""
        droplet = self._there(self.droplets.get(droplet_id))
        found = [
            wall for wall in self.firewalls.values() if droplet["id"] in wall["droplet_ids"] or set(wall["tags"]) & set(droplet["tags"])
        ]
        return self._page(request, "firewalls", found)

    def _put_firewall(self, identifier: str, body: dict[str, t.Any]) -> dict[str, t.Any]:
        rules = [*(body.get("inbound_rules") or []), *(body.get("outbound_rules") or [])]
        if not rules:
            raise Refusal(422, "unprocessable_entity", "must have at least one rule")
        if len(rules) > SCHEMA["firewall_limits"]["rules"]:
            raise Refusal(422, "unprocessable_entity", "too many rules")
        if any(wall["name"] == body["name"] and wall["id"] != identifier for wall in self.firewalls.values(fresh=True)):
            raise Refusal(409, "conflict", "duplicate name")
        missing = [tag for tag in body.get("tags") or [] if self.tags.get(tag, fresh=True) is None]
        if missing:
            raise Refusal(422, "unprocessable_entity", f"tag {missing[0]} does not exist")
        wall = {
            "id": identifier, "status": "succeeded", "created_at": self._now(), "pending_changes": [], "name": body["name"],
            "droplet_ids": body.get("droplet_ids") or [], "tags": body.get("tags") or [],
            "inbound_rules": body.get("inbound_rules") or [], "outbound_rules": body.get("outbound_rules") or [],
        }  # fmt: skip
        self.firewalls.put(identifier, wall)
        return wall

    # --- Droplets ----------------------------------------------------------------------------------------------

    @route("GET", "/v2/droplets")
    def droplets_list(self, request: Request) -> t.Any:
        """All Droplets, or those with a tag, or those with a name."""
        tag, name = request.first("tag_name"), request.first("name")
        if tag and name:
            raise Refusal(422, "unprocessable_entity", "tag_name cannot be combined with name")
        found = [self._shown(droplet) for droplet in self.droplets.values() if self._exists(droplet)]
        found = [droplet for droplet in found if not tag or tag.lower() in [own.lower() for own in droplet["tags"]]]
        return self._page(request, "droplets", [droplet for droplet in found if not name or droplet["name"].lower() == name.lower()])

    @route("POST", "/v2/droplets")
    def droplets_create(self, request: Request) -> t.Any:
        """Make one Droplet, or up to ten at once."""
        body = request.json()
        names = body.get("names") or ([body["name"]] if body.get("name") else [])
        if not names:
            raise Refusal(422, "unprocessable_entity", "name or names is required")
        self._refuse(body, len(names))
        keys = [self._key(key) for key in body.get("ssh_keys") or []]
        if None in keys:
            raise Refusal(
                422, "unprocessable_entity", f"{body['ssh_keys'][keys.index(None)]} are invalid key identifiers for Droplet creation."
            )
        made = [self._make(name, body) for name in names]
        links = [{"id": action["id"], "rel": "create", "href": f"{self.url}/v2/actions/{action['id']}"} for dummy, action in made]
        shown = [self._shown(droplet) for droplet, dummy in made]
        return {**({"droplets": shown} if "names" in body else {"droplet": shown[0]}), "links": {"actions": links}}

    def _refuse(self, body: dict[str, t.Any], count: int) -> None:
        alive = sum(1 for droplet in self.droplets.values(fresh=True) if self._exists(droplet))
        if self.take("quota", "droplets_create") or alive + count > self.droplet_limit:
            raise Refusal(422, "unprocessable_entity", "creating this/these droplet(s) will exceed your droplet limit")
        if self.take("capacity", "droplets_create") or body["region"] == CLOSED_REGION:
            raise Refusal(422, "unprocessable_entity", "Region is not available")
        if body["region"] not in REGIONS:
            raise Refusal(422, "unprocessable_entity", "You specified an invalid region for Droplet creation.")
        if body["size"] not in SIZES:
            raise Refusal(422, "unprocessable_entity", "You specified an invalid size for Droplet creation.")
        image = self._image(body["image"])
        if image is None:
            raise Refusal(422, "unprocessable_entity", "You specified an invalid image for Droplet creation.")
        if body["region"] not in image["regions"]:
            raise Refusal(422, "unprocessable_entity", "The image you specified is not available in the selected region.")
        if body.get("vpc_uuid", VPC) != VPC:
            raise Refusal(422, "unprocessable_entity", "VPC not found")
        if body.get("public_networking") is False and body.get("ipv6"):
            raise Refusal(422, "unprocessable_entity", "ipv6 must be false without public networking")

    def _make(self, name: str, body: dict[str, t.Any]) -> tuple[dict[str, t.Any], dict[str, t.Any]]:
        number = self._next()
        broken = self.take("operation_error", "droplets_create") is not None
        public = body.get("public_networking", True)
        features = [word for word in ("backups", "ipv6", "monitoring") if body.get(word)]
        droplet = {
            "id": number, "name": name, "status": "new", "created_at": self._now(),
            "features": [*features, "private_networking", "droplet_agent"],
            "image": self._image(body["image"]), "size_slug": body["size"], "region_slug": body["region"],
            "tags": [self._tag(tag) for tag in body.get("tags") or []], "vpc_uuid": body.get("vpc_uuid", VPC),
            "public": f"203.0.113.{number % 250 + 1}" if public else "", "private": f"10.10.{number // 250 % 250}.{number % 250 + 1}",
            "v6": f"2001:db8::{number:x}" if body.get("ipv6") else "", "user_data": body.get("user_data", ""), "gone_at": None,
            "ready_at": None if broken else time.monotonic() + self.boot_seconds,
        }  # fmt: skip
        self.droplets.put(str(number), droplet)
        action = self._action(droplet, "create", self.boot_seconds, status="errored" if broken else "")
        return droplet, action

    @route("GET", "/v2/droplets/{droplet_id}")
    def droplets_get(self, request: Request, droplet_id: str) -> t.Any:
        """One Droplet."""
        return {"droplet": self._shown(self._alive(droplet_id))}

    @route("DELETE", "/v2/droplets/{droplet_id}")
    def droplets_destroy(self, request: Request, droplet_id: str) -> t.Any:
        """Destroy a Droplet; it can be seen for a moment longer."""
        droplet = self._alive(droplet_id, fresh=True)
        if droplet["gone_at"] is None:
            self.droplets.put(droplet_id, {**droplet, "gone_at": time.monotonic() + self.destroy_seconds})

    def _alive(self, identifier: str, *, fresh: bool = False) -> dict[str, t.Any]:
        droplet = self.droplets.get(identifier, fresh=fresh)
        return self._there(droplet if droplet and self._exists(droplet) else None)

    @staticmethod
    def _exists(droplet: dict[str, t.Any]) -> bool:
        return droplet["gone_at"] is None or droplet["gone_at"] > time.monotonic()

    def _shown(self, droplet: dict[str, t.Any]) -> dict[str, t.Any]:
        """A Droplet as the API shows it, its pending changes done if it is their time."""
        status = droplet["status"]
        if status == "new" and droplet["ready_at"] is not None and time.monotonic() >= droplet["ready_at"]:
            status = "active"
        for action in self._actions_of(droplet["id"]):
            if action["type"] != "create" and self._status(action) == "completed":
                status = {"power_on": "active", "power_off": "off", "shutdown": "off"}.get(action["type"], status)
        size = self._size(droplet["size_slug"])
        networks: dict[str, t.Any] = {"v4": [], "v6": []}
        if status != "new":
            kinds = (("public", droplet["public"]), ("private", droplet["private"]))
            networks["v4"] = [
                {"ip_address": address, "netmask": "255.255.240.0", "gateway": "10.10.0.1", "type": kind}
                for kind, address in kinds
                if address
            ]
            networks["v6"] = (
                [{"ip_address": droplet["v6"], "netmask": 64, "gateway": "2001:db8::1", "type": "public"}] if droplet["v6"] else []
            )
        return {
            **{key: droplet[key] for key in ("id", "name", "created_at", "features", "image", "size_slug", "tags", "vpc_uuid")},
            "memory": size["memory"], "vcpus": size["vcpus"], "disk": size["disk"], "size": size,
            "region": self._region(droplet["region_slug"]),
            "status": status, "locked": self._pending(droplet["id"]), "networks": networks, "backup_ids": [], "next_backup_window": None,
            "snapshot_ids": [], "volume_ids": [],
        }  # fmt: skip

    # --- actions -----------------------------------------------------------------------------------------------

    def _action(self, droplet: dict[str, t.Any], kind: str, seconds: float, status: str = "") -> dict[str, t.Any]:
        number = self._next()
        self.actions[number] = {
            "id": number, "type": kind, "droplet": droplet["id"], "region": droplet["region_slug"], "started_at": self._now(),
            "done_at": time.monotonic() + seconds, "status": status,
        }  # fmt: skip
        return self.actions[number]

    def _actions_of(self, droplet: int) -> list[dict[str, t.Any]]:
        return [action for action in self.actions.values() if action["droplet"] == droplet]

    @staticmethod
    def _status(action: dict[str, t.Any]) -> str:
        return str(action["status"] or ("completed" if time.monotonic() >= action["done_at"] else "in-progress"))

    def _pending(self, droplet: int) -> bool:
        return any(self._status(action) == "in-progress" for action in self._actions_of(droplet))

    def _shown_action(self, action: dict[str, t.Any]) -> dict[str, t.Any]:
        status = self._status(action)
        return {
            "id": action["id"], "status": status, "type": action["type"], "started_at": action["started_at"],
            "completed_at": self._now() if status == "completed" else None, "resource_id": action["droplet"], "resource_type": "droplet",
            "region": self._region(action["region"]), "region_slug": action["region"],
        }  # fmt: skip

    @route("GET", "/v2/droplets/{droplet_id}/actions")
    def droplet_actions_list(self, request: Request, droplet_id: str) -> t.Any:
        """What was done with a Droplet."""
        self._alive(droplet_id)
        return self._page(request, "actions", [self._shown_action(action) for action in self._actions_of(int(droplet_id))])

    @route("POST", "/v2/droplets/{droplet_id}/actions")
    def droplet_actions_post(self, request: Request, droplet_id: str) -> t.Any:
        """Do something with a Droplet, one thing at a time."""
        body, droplet = request.json(), self._alive(droplet_id, fresh=True)
        status = self._shown(droplet)["status"]
        if self._pending(droplet["id"]):
            raise Refusal(422, "unprocessable_entity", "Droplet already has a pending event.")
        if body["type"] in ("resize", "enable_ipv6") and status != "off":
            raise Refusal(422, "unprocessable_entity", "You can only do this with a Droplet that is powered off.")
        if body["type"] == "resize":
            if body.get("size") not in SIZES:
                raise Refusal(422, "unprocessable_entity", "You specified an invalid size.")
            self.droplets.put(droplet_id, {**droplet, "size_slug": body["size"]})
        if body["type"] in ("enable_backups", "disable_backups"):
            features = [word for word in droplet["features"] if word != "backups"]
            self.droplets.put(droplet_id, {**droplet, "features": features + (["backups"] if body["type"] == "enable_backups" else [])})
        return {"action": self._shown_action(self._action(droplet, body["type"], self.action_seconds))}

    # --- orders ------------------------------------------------------------------------------------------------

    def _named(self, name: str) -> dict[str, t.Any]:
        found = [droplet for droplet in self.droplets.values(fresh=True) if droplet["name"] == name and self._exists(droplet)]
        return self._there(found[0] if found else None)

    def control(self, verb: str, data: dict[str, t.Any]) -> t.Any:
        """See Fake."""
        if verb == "foreign":
            body = {"region": "nyc3", "size": "s-1vcpu-1gb", "image": "ubuntu-24-04-x64"}
            return {"id": str(self._make(data["name"], body)[0]["id"])}
        if verb == "delete_outside":
            self.droplets.remove(str(self._named(data["name"])["id"]))
            return {}
        if verb == "change_address":
            droplet = self._named(data["name"])
            self.droplets.put(str(droplet["id"]), {**droplet, "public": "198.51.100.7"})
            return {"address": "198.51.100.7"}
        return super().control(verb, data)

    def state(self) -> t.Any:
        """See Fake."""
        return {
            "droplets": [self._shown(droplet) for droplet in self.droplets.values(fresh=True) if self._exists(droplet)],
            "ssh_keys": self.keys.values(fresh=True),
            "tags": [name for name, dummy in self.tags.items(fresh=True)],
            "firewalls": self.firewalls.values(fresh=True),
            "problems": self.problems,
        }


if __name__ == "__main__":
    sys.exit(main(DigitalOcean()))
