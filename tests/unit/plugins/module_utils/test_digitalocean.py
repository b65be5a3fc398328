# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the digitalocean driver that need neither the SDK nor a provider."""

from __future__ import annotations

import sys
import typing as t

import pytest
import yaml

from ansible_collections.dockyard.machine.plugins.module_utils import digitalocean_api as api
from ansible_collections.dockyard.machine.plugins.module_utils import digitalocean_firewall as firewall
from ansible_collections.dockyard.machine.plugins.module_utils import digitalocean_marks as marks
from ansible_collections.dockyard.machine.plugins.module_utils.cloud import Port
from ansible_collections.dockyard.machine.plugins.module_utils.digitalocean_catalog import slug
from ansible_collections.dockyard.machine.plugins.module_utils.digitalocean_keys import fingerprint
from ansible_collections.dockyard.machine.plugins.module_utils.drivers.digitalocean import DigitalOceanDriver
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError
from ansible_collections.dockyard.machine.plugins.modules import digitalocean_machine


def test_the_documentation_has_the_options() -> None:
    documented = yaml.safe_load(digitalocean_machine.DOCUMENTATION)["options"]
    shared = {"allowed_cidrs", "open_ports", "private_address_only", "delete_protection"}
    assert set(documented) == set(DigitalOceanDriver.options) - shared
    for name, item in documented.items():
        spec = DigitalOceanDriver.options[name]
        assert item["type"] == spec["type"], name
        assert item.get("default") == spec.get("default"), name


def test_no_secret_is_kept() -> None:
    assert DigitalOceanDriver.options["access_token"]["no_log"] is True


@pytest.mark.parametrize(
    "variable", ["ACCESS_TOKEN", "REGION", "SIZE", "IMAGE", "SSH_KEY_FINGERPRINT", "SSH_PORT", "IPV6", "BACKUPS", "MONITORING", "TAGS"]
)
def test_the_variables_of_docker_machine(variable: str) -> None:
    known = {name for spec in DigitalOceanDriver.options.values() if "fallback" in spec for name in spec["fallback"][1]}
    assert f"DIGITALOCEAN_{variable}" in known


@pytest.mark.parametrize(
    ("status", "message", "code", "where"),
    [
        (401, "Unable to authenticate you", "bad_credentials", "access_token"),
        (403, "You do not have access for the attempted action.", "bad_credentials", "access_token"),
        (404, "The resource you were accessing could not be found.", "not_found", ""),
        (409, "duplicate name", "conflict", ""),
        (422, "creating this/these droplet(s) will exceed your droplet limit", "quota", "limit"),
        (422, "You specified an invalid image for Droplet creation.", "unknown_image", "image"),
        (422, "The image you specified is not available in the selected region.", "unknown_image", "image"),
        (422, "You specified an invalid size for Droplet creation.", "unknown_size", "size"),
        (422, "You specified an invalid region for Droplet creation.", "unknown_region", "region"),
        (422, "Region is not available", "capacity", "region"),
        (422, "Size is not available in this region.", "capacity", "size"),
        (422, "Size is too large to fit on your droplet's server", "capacity", "size"),
        (422, "12 are invalid key identifiers for Droplet creation.", "invalid_option", "ssh_key_fingerprint"),
        (422, "SSH Key is already in use on your account", "in_use", "ssh_public_key"),
        (422, "something new", "provider_error", "digitalocean"),
    ],
)
def test_refusals(status: int, message: str, code: str, where: str) -> None:
    error = api.failure("create the Droplet", status, {}, message)
    assert error.code == code and where in error.where and message.rstrip(".") in error.message
    assert not isinstance(error, TransientError)


@pytest.mark.parametrize(
    ("status", "message", "headers", "code", "pause"),
    [
        (429, "API Rate limit exceeded.", {"retry-after": "9"}, "throttled", 9),
        (429, "API Rate limit exceeded.", {}, "throttled", None),
        (500, "Server Error", {}, "provider_error", None),
        (503, "", {}, "provider_error", None),
        (422, "Droplet already has a pending event.", {}, "busy", None),
    ],
)
def test_what_passes_by_itself(status: int, message: str, headers: dict[str, str], code: str, pause: float | None) -> None:
    error = api.failure("create the Droplet", status, headers, message)
    assert isinstance(error, TransientError) and error.code == code and error.retry_after == pause


def test_a_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydo", None)
    with pytest.raises(MachineError) as caught:
        api.Api("token").call("droplets", "list", doing="list the Droplets")
    assert caught.value.code == "missing_library" and "pip install pydo" in caught.value.hint


def test_end_points() -> None:
    assert api.check_url("https://api.example.com/") == "https://api.example.com"
    assert api.check_url("http://127.0.0.1:8080") == "http://127.0.0.1:8080"
    assert (api.Api("token").host, api.Api("token").port) == ("api.digitalocean.com", 443)


def droplet(*tags: str) -> dict[str, t.Any]:
    return {"tags": list(tags)}


def test_marks_tell_machines_apart() -> None:
    mine = marks.Marks("team", "web")
    assert mine.belongs(mine.name_tag) and mine.belongs(mine.tag("token", "t1")) and mine.belongs(mine.tag("key", "12"))
    for other in (
        marks.Marks("team", "web2").name_tag,
        marks.Marks("team2", "web").name_tag,
        marks.Marks("team", "web2").tag("token", "t1"),
        mine.owner_tag,
        "dockyard-machine-firewall:team:web",
        "web",
        "team:web",
    ):
        assert not mine.belongs(other), other
    assert marks.name_of(droplet("x", mine.name_tag), "team") == "web"
    assert marks.name_of(droplet(mine.name_tag), "tea") == marks.name_of(droplet("dockyard-machine:team"), "team") == ""
    assert marks.value(droplet(mine.owner_tag, mine.tag("token", "a:b")), "token") == "a:b"
    assert marks.value(droplet(mine.owner_tag), "token") == ""


def test_tags() -> None:
    assert marks.encode({"stage": "test", "blue": ""}) == ["blue", "stage:test"]
    assert marks.decode(["stage:test", "blue", "url:a:b", "dockyard-machine:o:n"]) == {"stage": "test", "blue": "", "url": "a:b"}
    for key, value in (("a b", ""), ("a", "b c"), ("a:b", "c"), ("", "x"), ("", ""), ("k", "v" * 255), ("dockyard-machine-owner", "me")):
        with pytest.raises(MachineError) as caught:
            marks.encode({key: value})
        assert caught.value.code == "invalid_option"


def test_an_owner_has_to_fit_in_a_tag() -> None:
    for owner in ("me@example.com", "a:b", "a b"):
        with pytest.raises(MachineError):
            marks.Marks(owner, "web1")


def test_fingerprint() -> None:
    # ssh-keygen -E md5 -lf prints the same.
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEfP5qkY8dPG2Yf2u7mWUQ7lHhfJ1d6V0kW2bF1c9YxP contract"
    assert fingerprint(key) == FINGERPRINT
    for wrong in ("", "ssh-ed25519", "ssh-ed25519 ???"):
        with pytest.raises(MachineError):
            fingerprint(wrong)


FINGERPRINT = "3e:23:1b:55:60:f5:79:bb:20:d8:c7:08:08:cd:98:f7"


def test_aliases() -> None:
    assert slug("debian-12") == "debian-12-x64" and slug("ubuntu-24.04") == "ubuntu-24-04-x64"
    assert slug("rockylinux-9-x64") == "rockylinux-9-x64" and slug("12345") == "12345"


def rules(**changes: t.Any) -> firewall.Firewall:
    values: dict[str, t.Any] = {"owner": "team", "ports": (Port(22, 22), Port(8000, 8010, "udp")), "cidrs": ("203.0.113.0/24",)}
    return firewall.Firewall(**{**values, **changes})


def test_a_firewall_is_named_by_its_rules() -> None:
    names = {rules().name, rules(owner="other").name, rules(ports=(Port(22, 22),)).name, rules(cidrs=("192.0.2.0/24",)).name}
    assert len(names) == 4 and rules().name in names
    body = rules().body()
    assert body["tags"] == [rules().tag] and [rule["ports"] for rule in body["inbound_rules"]] == ["22", "8000-8010"]


def test_a_firewall_in_order() -> None:
    body = rules().body()
    assert firewall.in_order(rules(), [body])
    # The API may write a single address with or without its mask.
    single = rules(cidrs=("192.0.2.1/32",))
    shown = single.body()
    shown["inbound_rules"] = [{**rule, "sources": {"addresses": ["192.0.2.1"]}} for rule in shown["inbound_rules"]]
    assert firewall.in_order(single, [shown])
    assert not firewall.in_order(rules(), [])
    assert not firewall.in_order(rules(), [{**body, "tags": []}])
    assert not firewall.in_order(rules(), [{**body, "inbound_rules": body["inbound_rules"][:1]}])
