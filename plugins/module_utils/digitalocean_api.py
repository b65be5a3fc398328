# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""DigitalOcean's API through its official SDK (pydo): one call, its pages, and what its errors mean.

Source: the API reference and the OpenAPI description that DigitalOcean publishes (version 2 of the API).
"""

from __future__ import annotations

import importlib
import ipaddress
import re
import typing as t
import urllib.parse

from ansible_collections.dockyard.machine.plugins.module_utils import cloud
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError

DEFAULT_URL: t.Final = "https://api.digitalocean.com"

PAGE_SIZE: t.Final = 200
"""The largest page that the API gives."""

CONNECT_TIMEOUT: t.Final = 10
READ_TIMEOUT: t.Final = 60

# Texts of 422 answers: (pattern, code, option, hint). The first that is found counts.
_REFUSALS: t.Final = (
    (r"droplet limit", "quota", "the account's Droplet limit", "Remove machines that nobody needs, or ask DigitalOcean to raise the limit"),
    (r"key is already in use", "in_use", "option ssh_public_key", ""),
    (r"key identifiers", "invalid_option", "option ssh_key_fingerprint", "Name a key that the account has"),
    (
        r"invalid image|image you specified|image is not",
        "unknown_image",
        "option image",
        "Name an image of this region by alias, slug, id or name",
    ),
    (r"invalid size", "unknown_size", "option size", "List the sizes with: doctl compute size list"),
    (r"invalid region", "unknown_region", "option region", "List the regions with: doctl compute region list"),
    (r"region is not available", "capacity", "option region", "Choose another region, or try again later"),
    (r"size is |size you|hardware|capacity", "capacity", "option size", "Choose another size or region, or try again later"),
    (r"vpc", "invalid_option", "option vpc_uuid", "Name a VPC of this region"),
    (r"user.?data", "invalid_option", "option user_data", "Make it shorter than 64 KiB"),
)

_BUSY: t.Final = re.compile(r"pending event|is locked|currently locked", re.IGNORECASE)


def failure(doing: str, status: int, headers: t.Mapping[str, str], message: str) -> MachineError:
    """The error for an answer that is none.

    Args:
        doing: what was attempted, to follow "could not".
        status: the HTTP status.
        headers: the answer's headers.
        message: the provider's own words.
    """
    what = f"DigitalOcean could not {doing}"
    if status == 401:
        hint = "Give a valid API token in access_token, or in the environment variable DIGITALOCEAN_ACCESS_TOKEN"
        return MachineError(what, where="option access_token", why=message, hint=hint, code="bad_credentials")
    if status == 403:
        hint = "Give the token the scopes that docs/drivers/digitalocean.md lists"
        return MachineError(what, where="option access_token", why=message, hint=hint, code="bad_credentials")
    if status == 404:
        return MachineError(what, why=message, code="not_found")
    if status == 429:
        return TransientError(what, why=message, hint="Run fewer forks", code="throttled", retry_after=cloud.retry_after(headers))
    if status >= 500:
        return TransientError(what, why=f"status {status}: {message}", hint="Try again later", code="provider_error")
    if _BUSY.search(message):
        return TransientError(what, why=message, hint="Try again when it is done", code="busy")
    for pattern, code, where, hint in _REFUSALS:
        if re.search(pattern, message, re.IGNORECASE):
            return MachineError(what, where=where, why=message, hint=hint, code=code)
    return MachineError(
        what,
        where="driver digitalocean",
        why=f"status {status}: {message}",
        hint="The reason is DigitalOcean's own; change what it names, and run it again",
        code="conflict" if status == 409 else "provider_error",
    )


def check_url(url: str) -> str:
    """Return ``url`` if the token may be sent there: https, or http to this computer itself.

    Raises:
        MachineError: ``invalid_option``.
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if host and (parts.scheme == "https" or (parts.scheme == "http" and loopback)):
        return url.rstrip("/")
    raise cloud.invalid("api_url", f"{url!r} is no place for a token", "Give an https URL", why="the API is only reached over TLS")


class Api:
    """One account.

    Args:
        token: the API token.
        url: the end point.
    """

    def __init__(self, token: str, url: str = DEFAULT_URL) -> None:
        self.url = check_url(url)
        if not token:
            raise MachineError(
                "No API token for DigitalOcean was given",
                where="option access_token",
                hint="Set access_token, or the environment variable DIGITALOCEAN_ACCESS_TOKEN",
                code="bad_credentials",
            )
        self._token = token
        self._client: t.Any = None
        self._errors: t.Any = None

    @property
    def host(self) -> str:
        """The end point's host name."""
        return urllib.parse.urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The end point's port."""
        parts = urllib.parse.urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    def call(self, group: str, method: str, *args: t.Any, doing: str, **kwargs: t.Any) -> t.Any:
        """One API call, for example ``call("droplets", "get", 123, doing="read the Droplet")``; returns the answer's JSON.

        Raises:
            TransientError: ``throttled``, ``busy``, ``unreachable`` or ``provider_error``.
            MachineError: everything else; ``not_found`` and ``conflict`` are often none for the caller.
        """
        client = self._client or self._connect()
        try:
            # The SDK returns the errors that its description lists as if they were answers: look at the status.
            response, body = getattr(getattr(client, group), method)(
                *args, cls=lambda run, data, dummy: (run.http_response, data), **kwargs
            )
        except self._errors.HttpResponseError as error:
            raise self._explained(error, doing) from error
        except (self._errors.ServiceRequestError, self._errors.ServiceResponseError) as error:
            raise TransientError(
                f"DigitalOcean could not {doing}",
                where=f"end point {self.url}",
                why=f"no answer: {error.message}",
                hint="Look at the network, and at the option api_url",
                code="unreachable",
            ) from error
        except ValueError as error:
            why = f"the answer is no JSON: {error}"
            raise MachineError(f"DigitalOcean could not {doing}", where=f"end point {self.url}", why=why, code="provider_error") from error
        if response.status_code >= 400:
            raise failure(doing, response.status_code, response.headers, _message(body))
        return body

    def maybe(self, group: str, method: str, *args: t.Any, doing: str, **kwargs: t.Any) -> t.Any:
        """Like :meth:`call`; None when there is no such thing."""
        try:
            return self.call(group, method, *args, doing=doing, **kwargs)
        except MachineError as error:
            if error.code == "not_found":
                return None
            raise

    def pages(self, group: str, method: str, key: str, *args: t.Any, doing: str, **kwargs: t.Any) -> list[dict[str, t.Any]]:
        """All objects under ``key``, page by page."""
        found: list[dict[str, t.Any]] = []
        page = 1
        while True:
            body = self.call(group, method, *args, doing=doing, per_page=PAGE_SIZE, page=page, **kwargs)
            found.extend(body.get(key) or [])
            if "next" not in ((body.get("links") or {}).get("pages") or {}):
                return found
            page += 1

    def _explained(self, error: t.Any, doing: str) -> MachineError:
        response = error.response
        if response is None:
            return MachineError(f"DigitalOcean could not {doing}", why=str(error.message), code="provider_error")
        try:
            body = response.json()
        except ValueError:
            body = None
        return failure(doing, response.status_code, response.headers, _message(body) or str(error.reason))

    def _connect(self) -> t.Any:
        try:
            pydo = importlib.import_module("pydo")
            self._errors = importlib.import_module("azure.core.exceptions")
            policies = importlib.import_module("azure.core.pipeline.policies")
        except ImportError as error:
            raise cloud.missing_library("digitalocean", "pydo", error) from error
        self._client = pydo.Client(
            token=self._token,
            endpoint=self.url,
            # The SDK's own policy refuses http even to this computer.
            authentication_policy=policies.HeadersPolicy({"Authorization": f"Bearer {self._token}"}),
            # converge retries, and knows what may be repeated; a redirect would carry the token away.
            retry_policy=policies.RetryPolicy.no_retries(),
            redirect_policy=policies.RedirectPolicy.no_redirects(),
            connection_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
        )
        return self._client


def _message(body: t.Any) -> str:
    """The provider's words in an error's body, of either shape that it has."""
    if not isinstance(body, dict):
        return ""
    return str(body.get("message") or body.get("error") or "; ".join(map(str, body.get("messages") or [])))
