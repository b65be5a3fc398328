# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of Azure Resource Manager, told in our words and with the option at fault.

Codes: https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError

LOGIN_HINT: t.Final = "Give tenant, client_id and client_secret of a service principal, or run az login"
_ROLE_HINT: t.Final = "Give the account the role in docs/drivers/azure.md, or use another account"
_QUOTA_HINT: t.Final = "Remove machines, choose a smaller size or another location, or ask Microsoft for more quota"
_CAPACITY_HINT: t.Final = "Try again later, or choose another size, zone or location"

_HINTS: t.Final = {
    "unknown_size": "List what the location has: az vm list-skus --location LOCATION",
    "unknown_image": "List what there is: az vm image list --location LOCATION --all",
    "unknown_region": "List them: az account list-locations",
}

_CAPACITY: t.Final = (
    "SkuNotAvailable",
    "AllocationFailed",
    "ZonalAllocationFailed",
    "OverconstrainedAllocationRequest",
    "OverconstrainedZonalAllocationRequest",
)
_THROTTLED: t.Final = (
    "TooManyRequests",
    "SubscriptionRequestsThrottled",
    "ResourceRequestsThrottled",
    "ResourceCollectionRequestsThrottled",
)
# Somebody else works on the same thing, or it is just coming or going: the same request is right a little later.
_BUSY: t.Final = (
    "AnotherOperationInProgress",
    "RetryableError",
    "RetryableErrorDueToAnotherOperation",
    "ReferencedResourceNotProvisioned",
    "NicReservedForAnotherVm",
    "ResourceGroupBeingDeleted",
    "InUse",
    "PublicIPAddressCannotBeDeleted",
    "InUseNetworkSecurityGroupCannotBeDeleted",
)
_IN_USE: t.Final = ("InUseSubnetCannotBeDeleted",)
# Something that a request relies on has vanished since it was made or looked up.
VANISHED: t.Final = ("ResourceGroupNotFound", "InvalidResourceReference", "NetworkInterfaceNotFound")

# By Azure's code: (code, option, our code).
_CODES: t.Final = {
    "PlatformImageNotFound": ("image", "unknown_image"),
    "ImageNotFound": ("image", "unknown_image"),
    "GalleryImageNotFound": ("image", "unknown_image"),
    "MarketplacePurchaseEligibilityFailed": ("image", "unknown_image"),
    "VMMarketplaceInvalidInput": ("image", "unknown_image"),
    "LocationNotAvailableForResourceGroup": ("location", "unknown_region"),
    "LocationNotAvailableForResourceType": ("location", "unknown_region"),
    "NoRegisteredProviderFound": ("location", "unknown_region"),
    "SubscriptionNotFound": ("subscription_id", "not_found"),
    "InvalidSubscriptionId": ("subscription_id", "not_found"),
    "InvalidTenant": ("tenant", "bad_credentials"),
    "DnsRecordInUse": ("dns", "invalid_option"),
    "PrivateIPAddressInUse": ("private_ip_address", "invalid_option"),
    "PrivateIPAddressNotInSubnet": ("private_ip_address", "invalid_option"),
    "ResizeDiskError": ("disk_size", "invalid_option"),
    "AvailabilitySetNotFound": ("availability_set", "not_found"),
}
# By what the text is about: (pattern, option, our code).
_TEXTS: t.Final = (
    (r"VM size|vmSize|hardwareProfile", "size", "unknown_size"),
    (r"imageReference|platform image|'/?subscriptions/[^']*/images/", "image", "unknown_image"),
    (r"storageAccountType", "storage_type", "invalid_option"),
    (r"securityProfile|Trusted ?Launch", "security_type", "invalid_option"),
    (r"availability zone", "zone", "invalid_option"),
    (r"diskSizeGB|disk size", "disk_size", "invalid_option"),
    (r"customData", "user_data", "invalid_option"),
    (r"\btags?\b", "tags", "invalid_option"),
)


class ApiError(MachineError):
    """An error answer of the API; ``status`` is its HTTP status, ``provider_code`` Azure's own code."""

    def __init__(
        self, what: str, *, status: int, provider_code: str, where: str = "", why: str = "", hint: str = "", code: str = "provider_error"
    ) -> None:
        super().__init__(what, where=where, why=why, hint=hint, code=code)
        self.status = status
        self.provider_code = provider_code


def error_of(body: t.Any) -> tuple[str, str]:
    """Code and message in an error's body, ``{"error": {"code", "message", "details": [...]}}``; the innermost that says more."""
    error = body.get("error", body) if isinstance(body, dict) else {}
    if not isinstance(error, dict):
        return "", str(error)
    details = [item for item in error.get("details") or [] if isinstance(item, dict) and item.get("code")]
    code, message = str(error.get("code") or ""), str(error.get("message") or "")
    if details and code in ("", "DeploymentFailed", "MultipleErrorsOccurred", "ResourceOperationFailure", "InternalExecutionError"):
        code, message = str(details[0]["code"]), str(details[0].get("message") or message)
    return code, " ".join(message.split())[:600]


def explain(what: str, status: int, provider_code: str, text: str, *, where: str, pause: float | None = None) -> MachineError:
    """Our error for one of Azure's.

    Args:
        what: what could not be done.
        status: the HTTP status; 0 for an operation that ended in an error.
        provider_code: Azure's code.
        text: Azure's message.
        where: what was worked on, unless the error tells.
        pause: seconds that Azure asked us to wait.
    """
    why = f"{text} ({provider_code})" if provider_code and provider_code not in text else text
    if status == 429 or provider_code in _THROTTLED:
        return TransientError(what, where=where, why=why, code="throttled", retry_after=pause)
    if provider_code in _BUSY:
        return TransientError(what, where=where, why=why, code="conflict", retry_after=pause)
    if status >= 500 or status == 408:
        return TransientError(what, where=where, why=why, code="provider_error", retry_after=pause)
    named, hint, code = _verdict(status, provider_code, text, where)
    return ApiError(what, status=status, provider_code=provider_code, where=named, why=why, hint=hint, code=code)


def _verdict(status: int, provider_code: str, text: str, where: str) -> tuple[str, str, str]:
    """The place, the hint and the code for an answer that repeating will not mend."""
    if re.search(r"quota", provider_code + text, re.I) or re.search(r"LimitReached|CountExceedsLimit", provider_code):
        return "option size" if "ores" in text else where, _QUOTA_HINT, "quota"
    if provider_code in _CAPACITY:
        return "option size", _CAPACITY_HINT, "capacity"
    if provider_code in _IN_USE:
        return where, "Remove what uses it first", "in_use"
    if provider_code == "ScopeLocked":
        return where, "Remove the lock in Azure: az lock list", "protected"
    if provider_code == "MissingSubscriptionRegistration":
        return "option subscription_id", "Register it once: az provider register --namespace NAMESPACE", "bad_credentials"
    found = _CODES.get(provider_code) or next(((option, code) for pattern, option, code in _TEXTS if re.search(pattern, text)), None)
    if found and status not in (401, 403):
        return f"option {found[0]}", _HINTS.get(found[1], f"Correct the option {found[0]}"), found[1]
    return _by_status(status, provider_code, where)


def _by_status(status: int, provider_code: str, where: str) -> tuple[str, str, str]:
    if status == 401:
        return "option client_id", LOGIN_HINT, "bad_credentials"
    if status == 403 and provider_code != "RequestDisallowedByPolicy":
        return "option client_id", _ROLE_HINT, "bad_credentials"
    if status in (409, 412):
        return where, "Run it again, or choose another name", "exists"
    if status == 404:
        return where, f"Correct the {where}" if where.startswith("option ") else "Run it again", "not_found"
    return where, "Run it again; if it persists, look at the activity log of the resource group", "provider_error"


def not_ours(kind: str, name: str, group: str, owner: str = "") -> MachineError:
    """The error for a name that somebody else's resource has."""
    return MachineError(
        f"The {kind} {name} is not ours",
        where=f"resource group {group}",
        why=f"it belongs to the owner {owner!r}" if owner else "it doesn't carry our mark",
        hint="Choose another name for the machine, or another resource_group",
        code="not_ours",
    )
