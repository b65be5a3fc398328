# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Regions, sizes and images of DigitalOcean: what the options name, and whether it is to be had."""

from __future__ import annotations

import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils import cloud
from ansible_collections.dockyard.machine.plugins.module_utils.digitalocean_api import Api
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError


def slug(image: str) -> str:
    """An alias as DigitalOcean's slug: ``ubuntu-24.04`` is ``ubuntu-24-04-x64``; anything else stays."""
    return f"{image.replace('.', '-')}-x64" if image in cloud.IMAGE_ALIASES else image


class Catalog:
    """What can be had, for the options ``region``, ``size``, ``image`` and ``vpc_uuid``."""

    def __init__(self, api: Api, options: t.Mapping[str, t.Any]) -> None:
        self.api = api
        self.opts = options
        self._image: dict[str, t.Any] | None = None

    def check(self) -> None:
        """Refuse what cannot be had. Reads only.

        Raises:
            MachineError: ``unknown_region``, ``unknown_size``, ``unknown_image``, ``capacity`` or ``invalid_option``.
        """
        region = self._region()
        self._size(region)
        image = self._find_image()
        if image["regions"] and region["slug"] not in image["regions"]:
            raise MachineError(
                f"The image {self.opts['image']} is not in the region {region['slug']}",
                where="option image",
                why=f"it is in {', '.join(sorted(image['regions']))}",
                hint="Choose one of those regions, or transfer the image",
                code="unknown_image",
            )
        uuid = self.opts["vpc_uuid"]
        vpc = self.api.maybe("vpcs", "get", uuid, doing="read the VPC") if uuid else None
        if uuid and (vpc is None or vpc["vpc"]["region"] != region["slug"]):
            raise cloud.invalid(
                "vpc_uuid", f"There is no VPC {uuid!r} in the region {region['slug']}", "Name a VPC of this region, or none"
            )

    def image(self) -> str | int:
        """The image as a create request names it: the slug, else the id."""
        image = self._find_image()
        found: str | int = image["slug"] or image["id"]
        return found

    def image_drift(self, droplet: t.Mapping[str, t.Any]) -> tuple[str, str]:
        """The image that a Droplet was made of, and the one that is wanted; equal when that cannot be told.

        An image loses its slug to its successor, and a private one may be gone: that is no difference.
        """
        actual, wanted = droplet["image"], slug(self.opts["image"])
        if wanted.isdigit():
            return str(actual.get("id", "")), wanted
        if actual.get("slug") and actual.get("name") != wanted:
            return actual["slug"], wanted
        return wanted, wanted

    def _region(self) -> dict[str, t.Any]:
        regions = {region["slug"]: region for region in self.api.pages("regions", "list", "regions", doing="list the regions")}
        name = self.opts["region"]
        if name not in regions:
            open_ones = sorted(key for key, region in regions.items() if region["available"])
            raise MachineError(
                f"There is no region {name!r}", where="option region", hint=f"Choose one of {', '.join(open_ones)}", code="unknown_region"
            )
        if not regions[name]["available"]:
            raise MachineError(
                f"The region {name} takes no new Droplets now", where="option region", hint="Choose another region", code="capacity"
            )
        return regions[name]

    def _size(self, region: t.Mapping[str, t.Any]) -> None:
        name = self.opts["size"]
        if name in region["sizes"]:
            return
        sizes = {size["slug"] for size in self.api.pages("sizes", "list", "sizes", doing="list the sizes")}
        if name not in sizes:
            hint = "List the sizes with: doctl compute size list"
            raise MachineError(f"There is no size {name!r}", where="option size", hint=hint, code="unknown_size")
        raise MachineError(
            f"The size {name} is not to be had in the region {region['slug']} now",
            where="option size",
            hint="Choose another size or region",
            code="capacity",
        )

    def _find_image(self) -> dict[str, t.Any]:
        if self._image is None:
            name = slug(self.opts["image"])
            body = self.api.maybe("images", "get", int(name) if name.isdigit() else name, doing="read the image")
            self._image = body["image"] if body else self._private_image(name)
        return self._image

    def _private_image(self, name: str) -> dict[str, t.Any]:
        """The newest of the account's own images with this name."""
        own = self.api.pages("images", "list", "images", private=True, doing="list the account's images")
        found = [image for image in own if image["name"] == name]
        if not found:
            raise MachineError(
                f"There is no image {self.opts['image']!r}",
                where="option image",
                hint=f"Choose one of {', '.join(cloud.IMAGE_ALIASES)}, a slug or an id of an image, or the name of one of your own",
                code="unknown_image",
            )
        return max(found, key=lambda image: str(image["created_at"]))
