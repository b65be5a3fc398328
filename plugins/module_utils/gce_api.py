# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compute Engine through google-cloud-compute: credentials, one way to call, one place where its errors become ours.

API: https://cloud.google.com/compute/docs/reference/rest/v1
"""

from __future__ import annotations

import contextlib
import importlib
import ipaddress
import json
import re
import typing as t
import urllib.parse
import warnings

from ansible_collections.dockyard.machine.plugins.module_utils.cloud import invalid, missing_library, retry_after
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline, poll, retry

PACKAGE: t.Final = "google-cloud-compute"
SCOPE: t.Final = "https://www.googleapis.com/auth/cloud-platform"
HOST: t.Final = "compute.googleapis.com"

CALL_TIMEOUT: t.Final = 60.0
"""Seconds that one request may take to connect, and between two pieces of its answer."""

PAGE_SIZE: t.Final = 500

# What names a resource in an error's text: (pattern, option, code).
_AT_FAULT: t.Final = (
    (r"machineTypes?\b|machine type", "machine_type", "unknown_size"),
    (r"/images/|\bimages?\b|sourceImage", "image", "unknown_image"),
    (r"subnetworks?\b", "subnetwork", "not_found"),
    (r"networks?\b", "network", "not_found"),
    (r"diskTypes?\b|disk type", "disk_type", "invalid_option"),
    (r"cryptoKeys?\b|kmsKeyName", "disk_kms_key", "not_found"),
    (r"serviceAccounts?\b|service account", "service_account", "not_found"),
    (r"\bnatIP\b|/addresses/|external IP", "address", "invalid_option"),
    (r"\blabels?\b", "tags", "invalid_option"),
    (r"Unknown zone|Permission denied on 'locations/|/zones/[a-z0-9-]+' was not found", "zone", "unknown_region"),
    (r"/regions/[a-z0-9-]+' was not found", "zone", "unknown_region"),
    (r"'projects/[^/']+'|Unknown project|Invalid project", "project", "not_found"),
)

_HINTS: t.Final = {
    "unknown_size": "List what the zone has: gcloud compute machine-types list --zones ZONE",
    "unknown_image": "List what there is: gcloud compute images list",
    "unknown_region": "List them: gcloud compute zones list",
}

_QUOTA_HINT: t.Final = "Remove machines, choose a smaller machine_type or another region, or ask Google for more quota"
_LOGIN_HINT: t.Final = (
    "Give a service account's key in credentials_file, set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login"
)

_CAPACITY: t.Final = ("ZONE_RESOURCE_POOL_EXHAUSTED", "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "STOCKOUT")


def at_fault(text: str, where: str, code: str) -> tuple[str, str]:
    """The option that an error's text is about, and the code for it; ``where`` and ``code`` when it names none."""
    for pattern, option, known in _AT_FAULT:
        if re.search(pattern, text):
            return f"option {option}", known
    return where, code


def operation_error(what: str, errors: t.Sequence[tuple[str, str]], *, where: str) -> MachineError:
    """The error for an operation that ended in one.

    Args:
        what: what could not be done.
        errors: pairs of the provider's code and message, as in ``Operation.error.errors``.
        where: what was worked on.
    """
    code, message = errors[0] if errors else ("", "Compute Engine gives no reason")
    why = f"{message} ({code})" if code and code not in message else message
    if code.startswith("QUOTA") or code in ("LIMIT_EXCEEDED", "limitExceeded"):
        return MachineError(what, where=where, why=why, hint=_QUOTA_HINT, code="quota")
    if code in _CAPACITY:
        hint = "Try again later, or choose another zone or machine_type"
        return MachineError(what, where="option zone", why=why, hint=hint, code="capacity")
    if code in ("RESOURCE_ALREADY_EXISTS", "alreadyExists"):
        return MachineError(what, where=where, why=why, hint="Run it again, or choose another name", code="exists")
    found, known = at_fault(message, where, "provider_error")
    return MachineError(
        what, where=found, why=why, hint=_HINTS.get(known, "Run it again; if it persists, look at the operation in the console"), code=known
    )


class ApiError(MachineError):
    """An error answer of the API; ``status`` is its HTTP status."""

    def __init__(self, what: str, *, status: int, where: str = "", why: str = "", hint: str = "", code: str = "provider_error") -> None:
        super().__init__(what, where=where, why=why, hint=hint, code=code)
        self.status = status


class Sdk:
    """The SDK, imported when it is needed.

    Raises:
        MachineError: ``missing_library``.
    """

    def __init__(self) -> None:
        try:
            self.compute: t.Any = importlib.import_module("google.cloud.compute_v1")
            self.core: t.Any = importlib.import_module("google.api_core.exceptions")
            self.options: t.Any = importlib.import_module("google.api_core.client_options")
            self.auth: t.Any = importlib.import_module("google.auth")
            self.auth_errors: t.Any = importlib.import_module("google.auth.exceptions")
            self.auth_credentials: t.Any = importlib.import_module("google.auth.credentials")
            self.service_account: t.Any = importlib.import_module("google.oauth2.service_account")
            self.oauth2: t.Any = importlib.import_module("google.oauth2.credentials")
            self.requests: t.Any = importlib.import_module("requests.exceptions")
            self.json_format: t.Any = importlib.import_module("google.protobuf.json_format")
        except ImportError as error:
            raise missing_library("gce", PACKAGE, error) from error


class Access(t.NamedTuple):
    """With what credentials Compute Engine is talked to."""

    credentials: t.Any
    project: str
    """The project that the credentials belong to; may be empty."""


def check_endpoint(endpoint: str, auth_kind: str) -> str:
    """The API's address as the SDK takes it; empty for Google's own.

    Credentials never travel without TLS, and no credentials are for tests on this computer only.

    Raises:
        MachineError: ``invalid_option``.
    """
    parts = urllib.parse.urlsplit(endpoint if "//" in endpoint else f"https://{endpoint}")
    host = parts.hostname or ""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if auth_kind == "anonymous" and not (endpoint and loopback):
        raise invalid(
            "auth_kind",
            "Without credentials only a simulator can be talked to",
            "Leave auth_kind out, or set api_endpoint to an address on this computer",
        )
    if not endpoint:
        return ""
    if not host or parts.scheme not in ("http", "https") or parts.username or parts.path.strip("/"):
        raise invalid("api_endpoint", f"{endpoint!r} is no endpoint", "Write https://HOST, for example a Private Service Connect endpoint")
    if parts.scheme == "http" and not (loopback and auth_kind == "anonymous"):
        raise invalid("api_endpoint", "Credentials are not sent without TLS", "Begin api_endpoint with https://")
    return f"{parts.scheme}://{parts.netloc}"


class Api:
    """Calls to Compute Engine.

    Args:
        opts: the driver's options (``project``, ``credentials_file``, ``credentials_json``, ``access_token``,
            ``auth_kind``, ``api_endpoint``).
        deadline: no call waits past it.
    """

    def __init__(self, opts: t.Mapping[str, t.Any], deadline: Deadline, interval: float) -> None:
        self.opts = opts
        self.deadline = deadline
        self.interval = interval
        self.endpoint = check_endpoint(opts["api_endpoint"], opts["auth_kind"])
        self._sdk: Sdk | None = None
        self._access: Access | None = None
        self._clients: dict[str, t.Any] = {}

    @property
    def sdk(self) -> Sdk:
        """See Sdk."""
        if self._sdk is None:
            self._sdk = Sdk()
        return self._sdk

    @property
    def where(self) -> tuple[str, int]:
        """Host and port of the API."""
        parts = urllib.parse.urlsplit(self.endpoint or f"https://{HOST}")
        return parts.hostname or HOST, parts.port or (80 if parts.scheme == "http" else 443)

    @property
    def project(self) -> str:
        """The project everything is made in.

        Raises:
            MachineError: ``invalid_option`` when neither the option nor the credentials name one.
        """
        project = str(self.opts["project"] or self.access.project)
        if not project:
            raise invalid("project", "The Google Cloud project is not known", "Set project, or the environment variable GOOGLE_PROJECT")
        return project

    @property
    def access(self) -> Access:
        """The credentials, found once."""
        if self._access is None:
            with self.explained("Google's credentials cannot be used", where="option credentials_file"):
                self._access = self._find_credentials()
        return self._access

    def _find_credentials(self) -> Access:
        sdk, opts = self.sdk, self.opts
        if opts["auth_kind"] == "anonymous":
            return Access(sdk.auth_credentials.AnonymousCredentials(), "")
        if opts["access_token"]:
            return Access(sdk.oauth2.Credentials(opts["access_token"]), "")
        if opts["credentials_json"]:
            return self._from_text(str(opts["credentials_json"]), "option credentials_json")
        if opts["credentials_file"]:
            try:
                with open(opts["credentials_file"], encoding="utf-8") as file:
                    text = file.read()
            except (OSError, UnicodeDecodeError) as error:
                raise MachineError(
                    "The credentials file cannot be read",
                    where=f"option credentials_file ({opts['credentials_file']})",
                    why=str(error),
                    hint="Give the path of a service account's key, or leave it out and use Application Default Credentials",
                    code="bad_credentials",
                ) from error
            return self._from_text(text, f"option credentials_file ({opts['credentials_file']})")
        credentials, project = sdk.auth.default(scopes=[SCOPE])
        return Access(credentials, project or "")

    def _from_text(self, text: str, where: str) -> Access:
        """Credentials from JSON of any type that google-auth knows (service account, workload identity, user)."""
        try:
            data = json.loads(text)
            if not isinstance(data, dict):
                raise ValueError("it is no JSON object")
            return self._from_data(data)
        except (ValueError, self.sdk.auth_errors.GoogleAuthError) as error:
            raise MachineError(
                "These are no Google credentials",
                where=where,
                # The text itself stays out: it holds a private key.
                why="it is no JSON" if isinstance(error, json.JSONDecodeError) else str(error),
                hint="Give the JSON that the Google Cloud console gives for a service account's key",
                code="bad_credentials",
            ) from None

    def _from_data(self, data: dict[str, t.Any]) -> Access:
        if data.get("type") == "service_account":
            keys = self.sdk.service_account.Credentials.from_service_account_info(data, scopes=[SCOPE])
            return Access(keys, str(data.get("project_id", "")))
        with warnings.catch_warnings():
            # It warns of configurations that somebody else wrote; this one is the user's own.
            warnings.simplefilter("ignore", DeprecationWarning)
            credentials, project = self.sdk.auth.load_credentials_from_dict(data, scopes=[SCOPE])
        return Access(credentials, project or "")

    def _client(self, name: str) -> t.Any:
        if name not in self._clients:
            options = self.sdk.options.ClientOptions(api_endpoint=self.endpoint or None)
            with self.explained("Google's credentials cannot be used", where="option credentials_file"):
                client = getattr(self.sdk.compute, f"{name}Client")
                self._clients[name] = client(credentials=self.access.credentials, client_options=options)
        return self._clients[name]

    # --- calls -------------------------------------------------------------------------------------------------

    def call(self, service: str, method: str, request: dict[str, t.Any], *, what: str, where: str = "") -> t.Any:
        """One request.

        Args:
            service: the SDK's client without ``Client``, such as ``Instances``.
            method: its method; of those that start an operation the one that ends in ``_unary``.
            request: the request message's fields; ``project`` is filled in.
            what: what could not be done, if it fails.
            where: the option or resource at fault, unless the answer tells.

        Raises:
            MachineError: with a code of ``cloud.ERROR_CODES``, or ``exists``.
            TransientError: when it may pass.
        """
        function = getattr(self._client(service), method)
        with self.explained(what, where=where):
            # The SDK repeats nothing by itself: converge does, within its deadline.
            answer = function(request={"project": self.project, **request}, timeout=self._timeout(), retry=None)
        return answer

    def find(self, service: str, method: str, request: dict[str, t.Any], *, what: str, where: str = "") -> t.Any | None:
        """Like :meth:`call` for something that may not exist; None when it doesn't."""
        try:
            return self.call(service, method, request, what=what, where=where)
        except ApiError as error:
            if error.status == 404 and not _scope_is_missing(error.why):
                return None
            raise

    def pages(self, service: str, method: str, request: dict[str, t.Any], *, what: str) -> list[t.Any]:
        """All items of a list that comes in pages; of an aggregated list, those of all zones."""
        pager = self.call(service, method, {"max_results": PAGE_SIZE, **request}, what=what)
        found: list[t.Any] = []
        with self.explained(what, where=""):
            for item in pager:
                if isinstance(item, tuple):
                    scoped = item[1]
                    found.extend(getattr(scoped, "instances", None) or getattr(scoped, "disks", None) or [])
                else:
                    found.append(item)
        return found

    def begin(self, service: str, method: str, request: dict[str, t.Any], *, what: str, where: str = "") -> t.Any:
        """Start an operation, with a ``request_id`` in the request: then it may be repeated, and is, until it is accepted."""
        return retry(lambda: self.call(service, f"{method}_unary", request, what=what, where=where), phase=what, deadline=self.deadline)

    def finish(self, operation: t.Any, *, what: str, where: str, deadline: Deadline) -> None:
        """Wait until an operation is done.

        Raises:
            MachineError: what the operation ended in.
            DeadlineError: when it takes too long.
        """

        seen = [operation]

        def look() -> tuple[t.Any | None, str]:
            current = seen.pop() if seen else retry(lambda: self._look_at(operation, what), phase=what, deadline=deadline)
            return (current if is_done(current) else None), f"operation {current.name} is {word(current.status)}"

        done = poll(look, phase=what, deadline=deadline, interval=self.interval, where=where)
        failed = errors_of(done)
        if failed:
            raise operation_error(f"{what} failed", failed, where=where)

    def _look_at(self, operation: t.Any, what: str) -> t.Any:
        request = {"operation": operation.name}
        # A shared network's firewall belongs to another project.
        match = re.search(r"/projects/([^/]+)/", operation.self_link)
        if match:
            request["project"] = match.group(1)
        if operation.zone:
            request["zone"] = last(operation.zone)
            return self.call("ZoneOperations", "get", request, what=what)
        return self.call("GlobalOperations", "get", request, what=what)

    def _timeout(self) -> float:
        return max(1.0, min(CALL_TIMEOUT, self.deadline.remaining()))

    # --- errors ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def explained(self, what: str, *, where: str) -> t.Iterator[None]:
        """Turn everything that the SDK raises into our errors."""
        sdk = self.sdk
        try:
            yield
        except sdk.core.GoogleAPICallError as error:
            raise api_error(error, what, where) from error
        except (sdk.auth_errors.DefaultCredentialsError, sdk.auth_errors.RefreshError) as error:
            if getattr(error, "retryable", False):
                raise TransientError(what, where=where, why=" ".join(str(error).split()), code="unreachable") from error
            raise MachineError(
                what,
                where="option credentials_file",
                why=" ".join(str(error).split())[:400],
                hint=_LOGIN_HINT,
                code="bad_credentials",
            ) from error
        except (sdk.auth_errors.GoogleAuthError, sdk.requests.RequestException, sdk.json_format.ParseError) as error:
            why = f"the connection to Compute Engine broke: {error}"[:400]
            raise TransientError(what, where=where, why=why, code="unreachable") from error


def _scope_is_missing(text: str) -> bool:
    """Whether "not found" is about the project or the zone, not about what was asked for."""
    return bool(re.search(r"'projects/[^/']+'|Unknown project|projects/[^/']+/zones/[^/']+' was not found|Unknown zone", text))


def api_error(error: t.Any, what: str, where: str) -> MachineError:
    """Our error for an error answer of the API (``google.api_core.exceptions.GoogleAPICallError``)."""
    status = int(getattr(error, "code", None) or 0)
    details = [item for item in (getattr(error, "errors", None) or []) if isinstance(item, dict)]
    reason = str(details[0].get("reason", "")) if details else ""
    text = str(details[0].get("message", "")) if details else ""
    text = " ".join((text or str(getattr(error, "message", "") or error)).split())[:600]
    pause = retry_after(getattr(getattr(error, "response", None), "headers", None))
    if status == 429 or reason in ("rateLimitExceeded", "userRateLimitExceeded"):
        return TransientError(what, where=where, why=text, code="throttled", retry_after=pause)
    if status >= 500 or status in (0, 408):
        return TransientError(what, where=where, why=text, code="provider_error", retry_after=pause)
    if reason in ("resourceNotReady", "conditionNotMet") or status == 412:
        return TransientError(what, where=where, why=text, code="conflict")
    named, hint, code = _verdict(status, reason, text, where)
    return ApiError(what, status=status, where=named, why=text, hint=hint, code=code)


def _verdict(status: int, reason: str, text: str, where: str) -> tuple[str, str, str]:
    """The place, the hint and the code for an answer that repeating will not mend."""
    if status == 401:
        return "option credentials_file", _LOGIN_HINT, "bad_credentials"
    if reason == "quotaExceeded" or "QUOTA_EXCEEDED" in text:
        return where, _QUOTA_HINT, "quota"
    if reason == "accessNotConfigured" or "has not been used in project" in text:
        return "option project", "Switch the API on: gcloud services enable compute.googleapis.com", "bad_credentials"
    if status == 403 and "'locations/" not in text:
        return "option credentials_file", "Give the account the role in docs/drivers/gce.md, or use another account", "bad_credentials"
    if status == 409:
        return where, "Run it again, or choose another name", "exists"
    named, code = at_fault(text, where, "not_found" if status == 404 else "provider_error")
    return named, _HINTS.get(code, f"Correct the {named}" if named.startswith("option ") else ""), code


def is_gone(error: MachineError) -> bool:
    """Whether something could not be changed because it doesn't exist any more."""
    return error.code == "not_found" or (isinstance(error, ApiError) and error.status == 404)


def word(value: t.Any) -> str:
    """The provider's word for a value of an enumeration, which the SDK gives as a string here and as an enum there."""
    return str(getattr(value, "name", value))


def is_done(operation: t.Any) -> bool:
    """Whether an operation is over, well or not."""
    return word(operation.status) == "DONE"


def errors_of(operation: t.Any) -> list[tuple[str, str]]:
    """Codes and messages of the errors that an operation ended in; empty when it went well."""
    found = [(str(item.code), str(item.message)) for item in operation.error.errors]
    if not found and operation.http_error_status_code:
        found = [(str(operation.http_error_status_code), str(operation.http_error_message))]
    return found


def last(url: str) -> str:
    """The last segment of a resource's URL: its name."""
    return url.rstrip("/").rpartition("/")[2]
