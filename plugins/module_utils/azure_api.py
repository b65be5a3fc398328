# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Azure Resource Manager through Microsoft's SDK: credentials, one way to call, waiting for operations.

Bodies go out and come in as the REST interface describes them, so that every version of the SDK will do.
API: https://learn.microsoft.com/rest/api/azure/
"""

from __future__ import annotations

import contextlib
import importlib
import ipaddress
import json
import re
import typing as t
import urllib.parse

from ansible_collections.dockyard.machine.plugins.module_utils.azure_errors import LOGIN_HINT, ApiError, error_of, explain
from ansible_collections.dockyard.machine.plugins.module_utils.cloud import invalid, missing_library, retry_after
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline, poll, retry

PACKAGES: t.Final = "azure-identity azure-mgmt-compute azure-mgmt-network azure-mgmt-resource"

CALL_TIMEOUT: t.Final = 60.0
"""Seconds that one request may take to connect, and between two pieces of its answer."""

Resource = dict[str, t.Any]
Verdict = tuple[t.Optional[bool], str]

_CLIENTS: t.Final = {
    "compute": ("azure.mgmt.compute", "ComputeManagementClient"),
    "network": ("azure.mgmt.network", "NetworkManagementClient"),
    "resource": ("azure.mgmt.resource.resources", "ResourceManagementClient"),
}


class Cloud(t.NamedTuple):
    """One of Microsoft's clouds."""

    manager: str
    authority: str


_CLOUDS: t.Final = {
    "public": Cloud("https://management.azure.com", "login.microsoftonline.com"),
    "china": Cloud("https://management.chinacloudapi.cn", "login.chinacloudapi.cn"),
    "usgovernment": Cloud("https://management.usgovcloudapi.net", "login.microsoftonline.us"),
}


def cloud_named(name: str) -> Cloud:
    """The cloud that ``AzurePublicCloud``, ``AzureCloud``, ``AzureChinaCloud``, ``AzureUSGovernment`` ... name.

    Raises:
        MachineError: ``invalid_option``.
    """
    short = re.sub(r"^azure_?|_?cloud$", "", name.strip().lower()).strip("_") or "public"
    if short not in _CLOUDS:
        raise invalid("environment", f"{name!r} is no cloud of Azure", "Give AzurePublicCloud, AzureUSGovernmentCloud or AzureChinaCloud")
    return _CLOUDS[short]


def check_endpoint(endpoint: str, auth_kind: str) -> str:
    """The API's address without a trailing slash; empty for the cloud's own.

    Credentials never travel without TLS, and no credentials are for tests on this computer only.

    Raises:
        MachineError: ``invalid_option``.
    """
    parts = urllib.parse.urlsplit(endpoint)
    host = parts.hostname or ""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if auth_kind == "anonymous" and not loopback:
        raise invalid(
            "auth_kind",
            "Without credentials only a simulator can be talked to",
            "Leave auth_kind out, or set api_endpoint to an address on this computer",
        )
    if not endpoint:
        return ""
    if not host or parts.scheme not in ("http", "https") or parts.username or parts.path.strip("/"):
        raise invalid("api_endpoint", f"{endpoint!r} is no endpoint", "Write https://HOST")
    if parts.scheme == "http" and not (loopback and auth_kind == "anonymous"):
        raise invalid("api_endpoint", "Credentials are not sent without TLS", "Begin api_endpoint with https://")
    return f"{parts.scheme}://{parts.netloc}"


class Sdk:
    """The SDK, imported when it is needed.

    Raises:
        MachineError: ``missing_library``.
    """

    def __init__(self) -> None:
        try:
            self.errors: t.Any = importlib.import_module("azure.core.exceptions")
            self.policies: t.Any = importlib.import_module("azure.core.pipeline.policies")
            self.arm_policies: t.Any = importlib.import_module("azure.mgmt.core.policies")
            self.rest: t.Any = importlib.import_module("azure.core.rest")
            self.identity: t.Any = importlib.import_module("azure.identity")
            self.clients: dict[str, t.Any] = {
                name: getattr(importlib.import_module(module), kind) for name, (module, kind) in _CLIENTS.items()
            }
        except ImportError as error:
            raise missing_library("azure", PACKAGES, error) from error


class Operation(t.NamedTuple):
    """Something that Azure has accepted and is still doing.

    Protocol: https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations
    """

    service: str
    status_url: str
    """Where its status is: ``Azure-AsyncOperation``; empty when there is none."""
    result_url: str
    """``Location``, else the resource itself; empty when it is done."""
    pause: float
    """Seconds between two looks, as Azure asks for them."""
    method: str
    body: Resource


class _NoCredential:
    """For simulators: the pipeline has no authentication policy, so this is never asked."""

    def get_token(self, *scopes: str, **kwargs: t.Any) -> t.Any:
        """Never called.

        Raises:
            MachineError: always.
        """
        raise MachineError("There are no credentials", where="option auth_kind", code="bad_credentials")


class Api:
    """Calls to Azure Resource Manager.

    Args:
        opts: the driver's options (``subscription_id``, ``tenant``, ``client_id``, ``client_secret``, ``environment``,
            ``auth_kind``, ``api_endpoint``).
        deadline: no call waits past it.
        interval: seconds between two looks at an operation for which Azure doesn't say.
    """

    def __init__(self, opts: t.Mapping[str, t.Any], deadline: Deadline, interval: float) -> None:
        self.opts = opts
        self.deadline = deadline
        self.interval = interval
        self.cloud = cloud_named(str(opts["environment"]))
        self.anonymous = opts["auth_kind"] == "anonymous"
        self.endpoint = check_endpoint(str(opts["api_endpoint"]), str(opts["auth_kind"])) or self.cloud.manager
        self.subscription = str(opts["subscription_id"])
        if not re.fullmatch(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", self.subscription):
            what = f"{self.subscription!r} is no subscription" if self.subscription else "The Azure subscription is not known"
            hint = "Set subscription_id, or the environment variable AZURE_SUBSCRIPTION_ID, to its id: az account list"
            raise invalid("subscription_id", what, hint)
        self._sdk: Sdk | None = None
        self._clients: dict[str, t.Any] = {}
        self._credential: t.Any = None

    @property
    def sdk(self) -> Sdk:
        """See Sdk."""
        if self._sdk is None:
            self._sdk = Sdk()
        return self._sdk

    @property
    def where(self) -> tuple[str, int]:
        """Host and port of the API."""
        parts = urllib.parse.urlsplit(self.endpoint)
        return str(parts.hostname), parts.port or (80 if parts.scheme == "http" else 443)

    # --- clients -----------------------------------------------------------------------------------------------

    def _find_credential(self) -> t.Any:
        opts, identity = self.opts, self.sdk.identity
        times = {"connection_timeout": CALL_TIMEOUT, "read_timeout": CALL_TIMEOUT, "authority": self.cloud.authority}
        if self.anonymous:
            return _NoCredential()
        if opts["client_secret"]:
            if not (opts["client_id"] and opts["tenant"]):
                raise invalid("client_secret", "A client secret alone does not say whose it is", "Set tenant and client_id too")
            with self.explained("Azure's credentials cannot be used", where="option client_id"):
                return identity.ClientSecretCredential(opts["tenant"], opts["client_id"], opts["client_secret"], **times)
        if opts["client_id"]:
            times["managed_identity_client_id"] = opts["client_id"]
        return identity.DefaultAzureCredential(**times)

    def _client(self, name: str) -> t.Any:
        if name not in self._clients:
            sdk = self.sdk
            if self._credential is None:
                self._credential = self._find_credential()
            scope = f"{self.cloud.manager}/.default"
            if self.anonymous:
                authentication = sdk.policies.SansIOHTTPPolicy()
            else:
                authentication = sdk.arm_policies.ARMChallengeAuthenticationPolicy(self._credential, scope)
            # Not the usual chain: repeating is converge's work, registering resource providers is an administrator's.
            chain = [
                sdk.policies.RequestIdPolicy(),
                sdk.policies.HeadersPolicy(),
                sdk.policies.UserAgentPolicy(base_user_agent="dockyard.machine"),
                sdk.policies.ContentDecodePolicy(),
                authentication,
                sdk.policies.CustomHookPolicy(),
            ]
            self._clients[name] = sdk.clients[name](
                self._credential, self.subscription, base_url=self.endpoint, credential_scopes=[scope], policies=chain
            )
        return self._clients[name]

    def _times(self) -> dict[str, float]:
        seconds = max(1.0, min(CALL_TIMEOUT, self.deadline.remaining()))
        return {"connection_timeout": seconds, "read_timeout": seconds}

    # --- calls -------------------------------------------------------------------------------------------------

    def call(self, service: str, group: str, method: str, *names: t.Any, what: str, where: str = "", **more: t.Any) -> t.Any:
        """One request that is answered at once.

        Args:
            service: ``compute``, ``network`` or ``resource``.
            group: the client's group of operations, such as ``virtual_machines``.
            method: its method.
            names: what is in the path, then the body, if it has one.
            what: what could not be done, if it fails.
            where: the option or resource at fault, unless the answer tells.
            more: query parameters, as the SDK names them.

        Returns:
            The answer's JSON, in Azure's own words.

        Raises:
            MachineError: with a code of ``cloud.ERROR_CODES``, ``exists`` or ``in_use``.
            TransientError: when it may pass.
        """
        function = getattr(getattr(self._client(service), group), method)
        with self.explained(what, where=where):
            return wire(function(*_bodies(names), **more, **self._times()))

    def find(self, service: str, group: str, *names: str, what: str, where: str = "", **more: t.Any) -> Resource | None:
        """``get`` of something that may not exist; None when it doesn't."""
        try:
            return t.cast(Resource, self.call(service, group, "get", *names, what=what, where=where, **more))
        except ApiError as error:
            if error.status == 404 and error.provider_code not in ("SubscriptionNotFound", "InvalidSubscriptionId"):
                return None
            raise

    def pages(self, service: str, group: str, method: str, *names: str, what: str, where: str = "", **more: t.Any) -> list[Resource]:
        """All items of a list that comes in pages; none when the resource group doesn't exist."""
        function = getattr(getattr(self._client(service), group), method)
        try:
            with self.explained(what, where=where):
                return [wire(item) for item in function(*names, **more, **self._times())]
        except ApiError as error:
            if error.provider_code == "ResourceGroupNotFound":
                return []
            raise

    def begin(self, service: str, group: str, method: str, *names: t.Any, what: str, where: str = "", **more: t.Any) -> Operation:
        """Start something that takes its time. Resources have names of ours, so it may be repeated.

        Raises:
            MachineError: see :meth:`call`.
        """
        seen: list[t.Any] = []
        function = getattr(getattr(self._client(service), group), f"begin_{method}")
        with self.explained(what, where=where):
            function(*_bodies(names), polling=False, raw_response_hook=seen.append, **more, **self._times())
        return self._operation(service, seen[-1].http_response)

    def _operation(self, service: str, response: t.Any) -> Operation:
        headers, request = response.headers, response.request
        status, location = self._own(headers.get("Azure-AsyncOperation")), self._own(headers.get("Location"))
        body = _json(response)
        state = str(body.get("properties", {}).get("provisioningState", "Succeeded")) if body else ""
        if not location and (response.status_code == 202 or state not in ("", "Succeeded")):
            location = str(request.url)
        done = response.status_code == 204 or (not status and response.status_code in (200, 201) and state in ("", "Succeeded"))
        pause = retry_after(headers)
        return Operation(
            service, "" if done else status, "" if done else location, self.interval if pause is None else pause, str(request.method), body
        )

    def _own(self, url: str | None) -> str:
        """The URL, unless it leads elsewhere: the token is for this host only."""
        return url if url and urllib.parse.urlsplit(url).netloc == urllib.parse.urlsplit(self.endpoint).netloc else ""

    def finish(self, operation: Operation, *, what: str, where: str, deadline: Deadline) -> None:
        """Wait until an operation is done.

        Raises:
            MachineError: what the operation ended in.
            DeadlineError: when it takes too long.
        """
        if not (operation.status_url or operation.result_url):
            return

        def look() -> Verdict:
            return retry(lambda: self._look_at(operation, what, where), phase=what, deadline=deadline)

        poll(look, phase=what, deadline=deadline, interval=max(operation.pause, 0.01), where=where)

    def _look_at(self, operation: Operation, what: str, where: str) -> Verdict:
        """Whether it is over."""
        url = operation.status_url or operation.result_url
        with self.explained(what, where=where):
            response = self._client(operation.service)._client.send_request(self.sdk.rest.HttpRequest("GET", url), **self._times())
            body = _json(response)
            if response.status_code == 404 and operation.method == "DELETE":
                return True, ""
            if response.status_code >= 400:
                raise explain(what, response.status_code, *error_of(body), where=where, pause=retry_after(response.headers))
        if response.status_code in (202, 204):
            return (True, "") if response.status_code == 204 else (None, "the operation is in progress")
        if operation.status_url:
            state = str(body.get("status", "Succeeded"))
        else:
            state = str(body.get("properties", {}).get("provisioningState", "Succeeded"))
        if state in ("Failed", "Canceled"):
            code, text = error_of(body)
            raise explain(f"{what} failed", 0, code, text or f"the operation is {state}", where=where)
        return (True if state == "Succeeded" else None), f"the operation is {state}"

    # --- errors ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def explained(self, what: str, *, where: str) -> t.Iterator[None]:
        """Turn everything that the SDK raises into our errors."""
        errors = self.sdk.errors
        try:
            yield
        except errors.HttpResponseError as error:
            response = error.response
            if response is None:
                raise _login_error(what, error) from error
            raise explain(
                what, int(response.status_code), *error_of(_json(response)), where=where, pause=retry_after(response.headers)
            ) from error
        except (errors.ServiceRequestError, errors.ServiceResponseError) as error:
            why = f"the connection to Azure broke: {' '.join(str(error).split())}"[:400]
            raise TransientError(what, where=where, why=why, code="unreachable") from error
        except errors.AzureError as error:
            raise TransientError(what, where=where, why=" ".join(str(error).split())[:400], code="provider_error") from error
        except ValueError as error:
            # azure-identity refuses malformed tenants with it.
            raise MachineError(what, where=where, why=str(error)[:400], hint=LOGIN_HINT, code="bad_credentials") from error


def _login_error(what: str, error: t.Any) -> MachineError:
    """The error for credentials that gave no token."""
    why = " ".join(str(getattr(error, "message", "") or error).split())[:400]
    return MachineError(what, where="option client_id", why=why, hint=LOGIN_HINT, code="bad_credentials")


def _json(response: t.Any) -> Resource:
    """An answer's JSON object; empty when it has none."""
    try:
        body = json.loads(response.text() or "{}")
    except (ValueError, UnicodeDecodeError):
        return {}
    return body if isinstance(body, dict) else {}


def _bodies(names: t.Sequence[t.Any]) -> list[t.Any]:
    """Bodies as bytes: the SDK sends these untouched, while it may rename or drop keys of a dictionary."""
    return [json.dumps(item).encode() if isinstance(item, dict) else item for item in names]


def wire(answer: t.Any) -> t.Any:
    """An SDK's object in the words of the REST interface; the models of older versions can do that too."""
    if isinstance(answer, list):
        return [wire(item) for item in answer]
    if hasattr(answer, "serialize"):
        return answer.serialize(keep_readonly=True)
    return answer.as_dict() if hasattr(answer, "as_dict") else answer


def is_gone(error: MachineError) -> bool:
    """Whether something could not be changed because it doesn't exist any more."""
    return error.code == "not_found" or (isinstance(error, ApiError) and error.status == 404)
