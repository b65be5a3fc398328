# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver ``azure`` without its SDK: clouds, endpoints, errors, images, names, tags, states, rules."""

from __future__ import annotations

import importlib
import typing as t

import pytest
import yaml

from ansible_collections.dockyard.machine.plugins.module_utils import azure_api, azure_errors, azure_parts, azure_plan
from ansible_collections.dockyard.machine.plugins.module_utils.azure_options import OPTIONS
from ansible_collections.dockyard.machine.plugins.module_utils.cloud import CLOUD_OPTIONS, IMAGE_ALIASES, Port
from ansible_collections.dockyard.machine.plugins.module_utils.driver import Wanted, new_deadline
from ansible_collections.dockyard.machine.plugins.module_utils.drivers.azure import AzureDriver
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import State
from ansible_collections.dockyard.machine.plugins.modules import azure_machine

SUBSCRIPTION = "00000000-0000-4000-8000-000000000001"


def options(**changes: t.Any) -> dict[str, t.Any]:
    return {**{name: spec["default"] for name, spec in OPTIONS.items()}, "subscription_id": SUBSCRIPTION, **changes}


def driver(wanted: Wanted | None = None, **changes: t.Any) -> AzureDriver:
    wanted = wanted or Wanted("web1", owner="team")
    return AzureDriver(wanted, options(**changes), new_deadline(wanted))


def refused(call: t.Callable[[], t.Any]) -> MachineError:
    with pytest.raises(MachineError) as caught:
        call()
    return caught.value


# --- documentation, credentials, endpoints -------------------------------------------------------------------------


def test_every_option_is_documented_as_it_is() -> None:
    documented = yaml.safe_load(azure_machine.DOCUMENTATION)["options"]
    own = {name: spec for name, spec in OPTIONS.items() if name not in CLOUD_OPTIONS}
    assert set(own) == set(documented)
    for name, spec in own.items():
        assert (spec["type"], spec["default"], spec.get("choices")) == (
            documented[name]["type"],
            documented[name]["default"],
            documented[name].get("choices"),
        )
        for variable in spec["fallback"][1] if "fallback" in spec else ():
            assert f"E({variable})" in str(documented[name]["description"])


def test_what_awx_injects_is_read() -> None:
    for option, variable in (
        ("subscription_id", "AZURE_SUBSCRIPTION_ID"),
        ("client_id", "AZURE_CLIENT_ID"),
        ("client_secret", "AZURE_SECRET"),
        ("tenant", "AZURE_TENANT"),
        ("environment", "AZURE_CLOUD_ENVIRONMENT"),
    ):
        assert variable in OPTIONS[option]["fallback"][1]
    assert OPTIONS["client_secret"]["no_log"] is True


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("AzurePublicCloud", "management.azure.com"),
        ("AzureCloud", "management.azure.com"),
        ("AZURE_PUBLIC_CLOUD", "management.azure.com"),
        ("AzureChinaCloud", "management.chinacloudapi.cn"),
        ("AzureUSGovernment", "management.usgovcloudapi.net"),
        ("AzureUSGovernmentCloud", "management.usgovcloudapi.net"),
    ],
)
def test_clouds(name: str, host: str) -> None:
    assert driver(environment=name).api.where == (host, 443)


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"auth_kind": "anonymous"}, "auth_kind"),
        ({"auth_kind": "anonymous", "api_endpoint": "https://management.azure.com"}, "auth_kind"),
        ({"api_endpoint": "http://127.0.0.1:8000"}, "api_endpoint"),
        ({"api_endpoint": "http://example.com", "auth_kind": "auto"}, "api_endpoint"),
        ({"api_endpoint": "https://example.com/path"}, "api_endpoint"),
        ({"api_endpoint": "https://user@example.com"}, "api_endpoint"),
        ({"environment": "moon"}, "environment"),
        ({"subscription_id": ""}, "subscription_id"),
        ({"location": "../x"}, "location"),
    ],
)
def test_where_credentials_never_go(changes: dict[str, t.Any], option: str) -> None:
    error = refused(lambda: driver(**changes))
    assert (error.code, error.where) == ("invalid_option", f"option {option}") and error.hint


def test_a_status_url_of_another_host_is_not_followed() -> None:
    api = driver().api
    assert api._own("https://management.azure.com/x") and not api._own("https://evil.example/x") and not api._own(None)
    assert not api._own("http://management.azure.com.evil.example/x")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, package: str | None = None) -> t.Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    error = refused(azure_api.Sdk)
    assert error.code == "missing_library" and "pip install azure-identity azure-mgmt-compute" in error.hint


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "provider_code", "text", "code", "where"),
    [
        (409, "OperationNotAllowed", "exceeding approved Total Regional Cores quota", "quota", "option size"),
        (400, "PublicIPCountLimitReached", "Cannot create more than 10 public IP addresses", "quota", "machine web1"),
        (409, "SkuNotAvailable", "not available in westus", "capacity", "option size"),
        (0, "ZonalAllocationFailed", "no capacity", "capacity", "option size"),
        (404, "PlatformImageNotFound", "The platform image is not available", "unknown_image", "option image"),
        (400, "InvalidParameter", "The value X provided for the VM size is not valid", "unknown_size", "option size"),
        (400, "LocationNotAvailableForResourceType", "moon", "unknown_region", "option location"),
        (404, "SubscriptionNotFound", "gone", "not_found", "option subscription_id"),
        (401, "ExpiredAuthenticationToken", "expired", "bad_credentials", "option client_id"),
        (403, "AuthorizationFailed", "no right to read imageReference", "bad_credentials", "option client_id"),
        (403, "RequestDisallowedByPolicy", "policy", "provider_error", "machine web1"),
        (409, "ScopeLocked", "locked", "protected", "machine web1"),
        (409, "MissingSubscriptionRegistration", "not registered", "bad_credentials", "option subscription_id"),
        (404, "ResourceNotFound", "gone", "not_found", "machine web1"),
    ],
)
def test_errors_name_what_is_at_fault(status: int, provider_code: str, text: str, code: str, where: str) -> None:
    error = azure_errors.explain("It failed", status, provider_code, text, where="machine web1")
    assert not isinstance(error, TransientError)
    assert (error.code, error.where) == (code, where) and error.hint and text in error.message


@pytest.mark.parametrize(
    ("status", "provider_code", "code"),
    [
        (429, "TooManyRequests", "throttled"),
        (503, "ServerTimeout", "provider_error"),
        (409, "AnotherOperationInProgress", "conflict"),
        (409, "ResourceGroupBeingDeleted", "conflict"),
    ],
)
def test_what_may_pass(status: int, provider_code: str, code: str) -> None:
    error = azure_errors.explain("It failed", status, provider_code, "busy", where="", pause=7.0)
    assert isinstance(error, TransientError) and error.code == code and error.retry_after == 7.0


def test_the_innermost_error_is_told() -> None:
    inner = {"code": "SkuNotAvailable", "message": "none  left"}
    assert azure_errors.error_of({"error": {"code": "DeploymentFailed", "message": "see", "details": [inner]}}) == (
        "SkuNotAvailable",
        "none left",
    )
    assert azure_errors.error_of({"error": {"code": "A", "message": "b"}}) == ("A", "b")
    assert azure_errors.error_of({}) == ("", "") and azure_errors.error_of([]) == ("", "")


# --- images --------------------------------------------------------------------------------------------------------


def test_every_alias_has_an_image_for_every_machine() -> None:
    for alias in IMAGE_ALIASES:
        found = {
            azure_plan.urn_of(alias, azure_plan.Size(architecture, generations, True))
            for architecture, generations in (("x64", ("V1", "V2")), ("x64", ("V1",)), ("Arm64", ("V2",)))
        }
        assert len(found) == 3 and None not in found


def test_ways_to_name_an_image() -> None:
    size = azure_plan.Size("x64", ("V1", "V2"), True)
    assert azure_plan.urn_of("a:b:c:1.2.3", size) == ("a", "b", "c", "1.2.3")
    assert azure_plan.urn_of("/subscriptions/x/images/y", size) is None
    assert refused(lambda: azure_plan.urn_of("debian-99", size)).code == "unknown_image"
    assert refused(lambda: azure_plan.urn_of("a:b:c", size)).code == "invalid_option"


# --- names, tags, states -------------------------------------------------------------------------------------------


def test_owners_and_locations_have_groups_of_their_own() -> None:
    groups = {azure_parts.own_group(owner, place) for owner in ("a", "b", "") for place in ("westus", "westeurope")}
    assert len(groups) == 6 and all(len(group) <= 90 for group in groups)
    assert driver(resource_group="mine").place.own_group is False
    assert driver(location="West US").place.group == azure_parts.own_group("team", "westus")


def test_ids() -> None:
    place = azure_parts.Place("S", "G", True, "web1", "team")
    assert place.id("Microsoft.Network/virtualNetworks/subnets", "v", "s") == (
        "/subscriptions/S/resourceGroups/G/providers/Microsoft.Network/virtualNetworks/v/subnets/s"
    )
    assert azure_parts.split_id(place.id("Microsoft.Compute/disks", "d"))["resourcegroups"] == "G"


@pytest.mark.parametrize(
    "tags", [{"a/b": ""}, {"": "x"}, {"a": "x" * 257}, {"dockyard-machine": "x"}, {"MicrosoftX": "y"}, {"a": "", "A": ""}]
)
def test_tags_that_cannot_be(tags: dict[str, str]) -> None:
    assert refused(lambda: azure_parts.check_tags(tags)).code == "invalid_option"


def test_too_many_tags() -> None:
    azure_parts.check_tags({f"t{number}": "" for number in range(45)})
    assert refused(lambda: azure_parts.check_tags({f"t{number}": "" for number in range(46)})).where == "option tags"


@pytest.mark.parametrize(
    ("progress", "power", "state", "complete"),
    [
        ("Succeeded", "running", State.RUNNING, True),
        ("Updating", "running", State.RUNNING, True),
        ("Failed", "running", State.RUNNING, True),
        ("Creating", "running", State.STARTING, True),
        ("Succeeded", "deallocated", State.STOPPED, True),
        ("Succeeded", "stopped", State.STOPPED, True),
        ("Succeeded", "deallocating", State.STOPPING, True),
        ("Failed", "", State.ERROR, False),
        ("Deleting", "running", State.STOPPING, False),
        ("Succeeded", "", State.UNKNOWN, True),
    ],
)
def test_states(progress: str, power: str, state: str, complete: bool) -> None:
    statuses = [{"code": f"ProvisioningState/{progress.lower()}"}, *([{"code": f"PowerState/{power}"}] if power else [])]
    vm = {"properties": {"provisioningState": progress, "instanceView": {"statuses": statuses}}}
    assert azure_parts.state_of(vm) == (state, complete)


def test_rules_are_compared_whatever_their_order() -> None:
    ports = [Port(22, 22), Port(2376, 2376)]
    rules = azure_parts.rules(["192.0.2.0/24", "198.51.100.0/24"], ports)
    other = azure_parts.rules(["198.51.100.0/24", "192.0.2.0/24"], list(reversed(ports)))
    assert azure_parts.rule_notes(rules) == azure_parts.rule_notes(list(reversed(other)))
    assert azure_parts.rule_notes(rules) != azure_parts.rule_notes(azure_parts.rules(["0.0.0.0/0"], ports))
    assert azure_parts.rule_notes(rules) != azure_parts.rule_notes(rules[:-1])


# --- what is refused before any call ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"ssh_user": "root"}, "ssh_user"),
        ({"ssh_user": "Big"}, "ssh_user"),
        ({"ssh_public_key": "ecdsa-sha2-nistp256 AAAA"}, "ssh_public_key"),
        ({"user_data": "#" * 60000}, "user_data"),
        ({"tags": {"a?": "b"}}, "tags"),
    ],
)
def test_what_azure_would_refuse(changes: dict[str, t.Any], option: str) -> None:
    wanted = Wanted(**{"name": "web1", "ssh_user": "docker-user", "ssh_public_key": "ssh-ed25519 AAAA", **changes})
    error = refused(driver(wanted, allowed_cidrs=["192.0.2.1"]).check)
    assert (error.code, error.where) == ("invalid_option", f"option {option}")


def test_nothing_is_made_without_a_key() -> None:
    error = refused(driver(Wanted("web1", ssh_user="docker-user")).create)
    assert error.where == "option ssh_public_key"
