# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""EC2's API for the driver ec2: the connection, and the one place where the SDK's exceptions become ours.

Error codes: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import typing as t
import urllib.parse

from ansible_collections.dockyard.machine.plugins.module_utils.cloud import invalid, missing_library, retry_after
from ansible_collections.dockyard.machine.plugins.module_utils.ec2_cache import Cache
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline, retry

CONNECT_TIMEOUT = 10
READ_TIMEOUT = 60
DEFAULT_REGION = "us-east-1"

POLICY_HINT = "Allow it in the policy of these credentials; docs/drivers/ec2.md has one that holds what the driver needs"


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What an error code of EC2 means to the user."""

    code: str
    what: str
    option: str = ""
    hint: str = ""


_CREDENTIALS = Meaning(
    "bad_credentials", "AWS refused the credentials", "option access_key", "Check access_key, secret_key and session_token, or the profile"
)
_CAPACITY = Meaning(
    "capacity",
    "EC2 has no capacity for this instance type",
    "option instance_type",
    "Choose another instance_type or zone, or try again later",
)
_QUOTA = Meaning("quota", "An EC2 quota of this account is used up", "", "Remove what is not needed, or ask AWS for a higher quota")
_VCPUS = dataclasses.replace(_QUOTA, option="option instance_type")
_IMAGE = Meaning(
    "unknown_image", "EC2 has no such image in this region", "option image", "Name an image of this region, or an alias such as debian-12"
)
_SIZE = Meaning(
    "unknown_size", "EC2 has no such instance type here", "option instance_type", "Choose a type that this region and zone offer"
)
_KEY = Meaning("not_found", "EC2 has no such key pair", "option keypair_name", "Name a key pair of this region, or leave the option out")
_SUBNET = Meaning("not_found", "EC2 has no such subnet", "option subnet_id", "Name a subnet of this region")
_GROUP = Meaning("not_found", "EC2 has no such security group", "option security_group", "Name a group of this region and VPC")

MEANINGS: t.Final[dict[str, Meaning]] = {
    **dict.fromkeys(
        (
            "AuthFailure",
            "ExpiredToken",
            "ExpiredTokenException",
            "IncompleteSignature",
            "InvalidAccessKeyId",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "MissingAuthenticationToken",
            "RequestExpired",
            "SignatureDoesNotMatch",
            "UnrecognizedClientException",
        ),
        _CREDENTIALS,
    ),
    **dict.fromkeys(
        ("OptInRequired", "Blocked", "PendingVerification"), dataclasses.replace(_CREDENTIALS, hint="Finish the account's sign-up at AWS")
    ),
    **dict.fromkeys(
        ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException"),
        Meaning("bad_credentials", "These credentials do not allow the call", "option access_key", POLICY_HINT),
    ),
    **dict.fromkeys(
        ("InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientCapacity", "InsufficientReservedInstanceCapacity"),
        _CAPACITY,
    ),
    "SpotMaxPriceTooLow": dataclasses.replace(
        _CAPACITY, what="The spot price is above the highest one given", option="option spot_price", hint="Raise spot_price or leave it out"
    ),
    "InsufficientFreeAddressesInSubnet": Meaning(
        "capacity", "The subnet has no free address", "option subnet_id", "Choose another subnet_id or zone"
    ),
    "InsufficientAddressCapacity": dataclasses.replace(_CAPACITY, what="EC2 has no free public address"),
    **dict.fromkeys(("InstanceLimitExceeded", "VcpuLimitExceeded", "InsufficientVolumeCapacity"), _VCPUS),
    "MaxSpotInstanceCountExceeded": dataclasses.replace(_QUOTA, option="option request_spot_instance"),
    "VolumeLimitExceeded": dataclasses.replace(_QUOTA, option="option root_size"),
    "MaxIOPSLimitExceeded": dataclasses.replace(_QUOTA, option="option volume_iops"),
    **dict.fromkeys(
        (
            "AddressLimitExceeded",
            "KeyPairLimitExceeded",
            "NetworkInterfaceLimitExceeded",
            "PrivateIpAddressLimitExceeded",
            "ResourceLimitExceeded",
            "RulesPerSecurityGroupLimitExceeded",
            "SecurityGroupLimitExceeded",
            "SecurityGroupsPerInstanceLimitExceeded",
            "TagLimitExceeded",
        ),
        _QUOTA,
    ),
    **dict.fromkeys(("InvalidAMIID.NotFound", "InvalidAMIID.Malformed", "InvalidAMIID.Unavailable"), _IMAGE),
    **dict.fromkeys(("InvalidInstanceType", "Unsupported"), _SIZE),
    "InvalidKeyPair.NotFound": _KEY,
    "InvalidKey.Format": Meaning("invalid_option", "EC2 does not take this SSH key", "option ssh_public_key", "Use an Ed25519 or RSA key"),
    **dict.fromkeys(("InvalidSubnetID.NotFound", "InvalidSubnetID.Malformed", "InvalidSubnet"), _SUBNET),
    **dict.fromkeys(
        ("InvalidVpcID.NotFound", "InvalidVpcID.Malformed"),
        Meaning("not_found", "EC2 has no such VPC", "option vpc_id", "Name a VPC of this region"),
    ),
    "VPCIdNotSpecified": Meaning("not_found", "The region has no default VPC", "option vpc_id", "Name vpc_id or subnet_id"),
    **dict.fromkeys(("InvalidGroup.NotFound", "InvalidGroupId.Malformed", "InvalidSecurityGroupID.NotFound"), _GROUP),
    "OperationNotPermitted": Meaning(
        "protected",
        "The machine is protected at EC2",
        "option delete_protection",
        "Run it once with delete_protection false (state=started), then remove it",
    ),
    **dict.fromkeys(
        ("UnsupportedOperation", "IncorrectSpotRequestState"),
        Meaning("unsupported", "EC2 does not do this with the machine", "", "A spot machine cannot be stopped; remove it instead"),
    ),
    **dict.fromkeys(
        ("InvalidKMSKey.InvalidState", "KMSKeyNotAccessibleFault", "KmsKeyNotAccessible", "Client.InternalError"),
        Meaning(
            "invalid_option",
            "The KMS key cannot be used",
            "option kms_key",
            "Name an enabled symmetric key of this region that these credentials may use",
        ),
    ),
    "InvalidUserData.Malformed": Meaning(
        "invalid_option", "EC2 does not take this user-data", "option user_data", "It may have 16 KB at most, compressed"
    ),
}
"""EC2's word for an error, and ours."""

THROTTLED: t.Final = (
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
)

# States and objects on their way; the same call works a moment later.
PASSING: t.Final = (
    "IncorrectInstanceState",
    "IncorrectState",
    "IncorrectModificationState",
    "ConcurrentTagAccess",
    "InternalError",
    "Unavailable",
)

# Words in the message of InvalidParameterValue and its like, and the option that they are about.
_PARAMETERS: t.Final = (
    ("architecture", _SIZE.option, "unknown_size"),
    ("instance type", _SIZE.option, "unknown_size"),
    ("InstanceType", _SIZE.option, "unknown_size"),
    ("iamInstanceProfile", "option iam_instance_profile", "not_found"),
    ("user data", "option user_data", "invalid_option"),
    ("iops", "option volume_iops", "invalid_option"),
    ("throughput", "option volume_throughput", "invalid_option"),
    ("volume", "option root_size", "invalid_option"),
    ("availability zone", "option zone", "not_found"),
    ("tag", "option tags", "invalid_option"),
    ("ipv6", "option ipv6", "invalid_option"),
    ("security group", "option security_group", "invalid_option"),
)


class Ec2Error(MachineError):
    """A failure with EC2's own word for it in ``aws_code``."""

    aws_code = ""


class Ec2Transient(TransientError):
    """A failure that may pass, with EC2's own word for it in ``aws_code``."""

    aws_code = ""


def _parameter(aws_code: str, why: str, operation: str) -> Meaning:
    """The meaning of a code that says nothing by itself."""
    if aws_code.startswith(("Invalid", "Missing", "Malformed", "UnknownParameter")):
        for word, option, code in _PARAMETERS:
            if word.lower() in why.lower():
                return Meaning(code, "EC2 does not take this value", option, "Correct the option")
    return Meaning("not_found" if aws_code.endswith(".NotFound") else "provider_error", f"EC2 refused {operation}", "", "")


def explain(aws_code: str, why: str, operation: str, status: int, headers: t.Mapping[str, str]) -> MachineError:
    """An error response of EC2 in our words.

    Args:
        aws_code: EC2's code, for example ``InvalidAMIID.NotFound``.
        why: EC2's message.
        operation: the call, for example ``RunInstances``.
        status: the HTTP status.
        headers: of the response.
    """
    where = f"call {operation}"
    if aws_code in THROTTLED:
        transient = Ec2Transient(
            "EC2 throttles the calls of this account",
            where=where,
            why=f"{aws_code}: {why}",
            hint="Run fewer machines at a time (forks), or try again later",
            code="throttled",
            retry_after=retry_after(headers),
        )
        transient.aws_code = aws_code
        return transient
    meaning = MEANINGS.get(aws_code)
    if meaning is None and (aws_code in PASSING or status >= 500):
        transient = Ec2Transient(
            f"EC2 could not do {operation} now", where=where, why=f"{aws_code}: {why}", hint="Try again later", code="provider_error"
        )
        transient.aws_code = aws_code
        return transient
    meaning = meaning or _parameter(aws_code, why, operation)
    error = Ec2Error(
        meaning.what, where=meaning.option or where, why=f"{aws_code}: {why} ({operation})", hint=meaning.hint, code=meaning.code
    )
    error.aws_code = aws_code
    return error


def endpoint_url(endpoint: str, insecure: bool) -> str:
    """``endpoint`` as a URL; empty stays empty.

    Raises:
        MachineError: ``invalid_option`` for plain http that nobody asked for.
    """
    if not endpoint:
        return ""
    url = endpoint if "://" in endpoint else f"{'http' if insecure else 'https'}://{endpoint}"
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise invalid("endpoint", f"{endpoint!r} is no endpoint", "Give a host name or an https URL")
    if parts.scheme == "http" and not insecure:
        raise invalid(
            "endpoint",
            "The endpoint is plain http",
            "Use https, or say insecure_transport: true",
            why="credentials' signatures and user-data would be readable",
        )
    return url


_loaders: list[t.Any] = []


def _share_loader(session: t.Any) -> None:
    """Let all sessions of a process read EC2's description once: it is large."""
    if not _loaders:
        _loaders.append(session.get_component("data_loader"))
    session.register_component("data_loader", _loaders[0])


class Ec2Api:
    """Calls of EC2 in one region; whatever goes wrong is a ``MachineError`` or ``TransientError``."""

    def __init__(self, opts: t.Mapping[str, t.Any], deadline: Deadline) -> None:
        # botocore is what boto3's clients are made of; boto3 itself would only add its start-up time to every machine.
        try:
            self._session: t.Any = importlib.import_module("botocore.session")
            self._errors: t.Any = importlib.import_module("botocore.exceptions")
            config: t.Any = importlib.import_module("botocore.config")
        except ImportError as error:
            raise missing_library("ec2", "boto3", error) from error
        self._deadline = deadline
        self._retries = max(0, opts["retries"])
        self._attempts = 1
        self._cache: Cache | None = None
        self._cache_seconds = opts["lookup_cache"]
        self._access_key = opts["access_key"]
        self.region = opts["region"] or ""
        try:
            session = self._own = self._session.Session(profile=opts["profile"] or None)
            _share_loader(session)
            self.region = self.region or session.get_config_variable("region") or DEFAULT_REGION
            self._client: t.Any = session.create_client(
                "ec2",
                region_name=self.region,
                endpoint_url=endpoint_url(opts["endpoint"], opts["insecure_transport"]) or None,
                aws_access_key_id=opts["access_key"] or None,
                aws_secret_access_key=opts["secret_key"] or None,
                aws_session_token=opts["session_token"] or None,
                config=config.Config(
                    connect_timeout=CONNECT_TIMEOUT,
                    read_timeout=READ_TIMEOUT,
                    # Repeating is our own affair: it has to respect the deadline and what the server asks for.
                    retries={"mode": "standard", "total_max_attempts": 1},
                    tcp_keepalive=True,
                    user_agent_extra="dockyard.machine",
                ),
            )
        except (self._errors.BotoCoreError, ValueError) as error:
            raise self._local(error, "connect") from error

    @contextlib.contextmanager
    def patient(self) -> t.Iterator[None]:
        """Repeat calls in here that fail on the way or are throttled.

        For what ``converge`` does not repeat. Each call made in here is idempotent by a ClientToken or by its own answer to
        "there is one already".
        """
        self._attempts = self._retries + 1
        try:
            yield
        finally:
            self._attempts = 1

    @property
    def cache(self) -> Cache:
        """What this account's region answered a moment ago."""
        if self._cache is None:
            credentials = None if self._access_key else self._own.get_credentials()
            account = self._access_key or (credentials.access_key if credentials else "")
            self._cache = Cache(f"{self._client.meta.endpoint_url}\n{self.region}\n{account}", self._cache_seconds)
        return self._cache

    @property
    def host(self) -> str:
        """The host name of the endpoint."""
        return urllib.parse.urlsplit(self._client.meta.endpoint_url).hostname or ""

    @property
    def port(self) -> int:
        """The TCP port of the endpoint."""
        parts = urllib.parse.urlsplit(self._client.meta.endpoint_url)
        return parts.port or (80 if parts.scheme == "http" else 443)

    @property
    def is_aws(self) -> bool:
        """Whether this is Amazon's own service, not one that speaks its language."""
        return self.host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))

    def call(self, operation: str, **parameters: t.Any) -> dict[str, t.Any]:
        """One call, named as boto3 names it; empty parameters are left out."""
        given = {key: value for key, value in parameters.items() if value not in (None, "", b"", [], {})}
        return retry(lambda: self._once(operation, given), phase=operation, deadline=self._deadline, attempts=self._attempts)

    def _once(self, operation: str, given: dict[str, t.Any]) -> dict[str, t.Any]:
        try:
            answer: dict[str, t.Any] = getattr(self._client, operation)(**given)
        except self._errors.ClientError as error:
            response = error.response
            meta = response.get("ResponseMetadata", {})
            details = response.get("Error", {})
            raise explain(
                details.get("Code", ""),
                details.get("Message", ""),
                error.operation_name,
                meta.get("HTTPStatusCode", 0),
                meta.get("HTTPHeaders", {}),
            ) from error
        except (self._errors.BotoCoreError, ValueError) as error:
            raise self._local(error, operation) from error
        return answer

    def pages(self, operation: str, key: str, **parameters: t.Any) -> list[dict[str, t.Any]]:
        """All pages of a call that lists, as one list."""
        found: list[dict[str, t.Any]] = []
        token = ""
        while True:
            answer = self.call(operation, **parameters, NextToken=token)
            found.extend(answer.get(key, []))
            token = answer.get("NextToken") or ""
            if not token:
                return found

    def _local(self, error: Exception, operation: str) -> MachineError:
        """An exception that the SDK raised by itself."""
        names, why = self._errors, str(error)
        if isinstance(
            error, (names.NoCredentialsError, names.PartialCredentialsError, names.CredentialRetrievalError, names.TokenRetrievalError)
        ):
            return MachineError(
                "There are no credentials for AWS",
                where="option access_key",
                why=why,
                hint="Give access_key and secret_key, or a profile, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                code="bad_credentials",
            )
        if isinstance(error, (names.ProfileNotFound, names.ConfigParseError, names.SSOError)):
            return MachineError(
                "The AWS profile cannot be used",
                where="option profile",
                why=why,
                hint="Name a profile of ~/.aws/config",
                code="bad_credentials",
            )
        if isinstance(error, names.InvalidRegionError):
            return self._unknown_region(why)
        if isinstance(error, names.SSLError):
            return MachineError(
                "The endpoint's certificate is not trusted",
                where="option endpoint",
                why=why,
                hint="Name its CA in AWS_CA_BUNDLE",
                code="unreachable",
            )
        if isinstance(error, names.EndpointConnectionError) and not self._region_known():
            return self._unknown_region(why)
        if isinstance(error, (names.HTTPClientError, names.ConnectionError)):
            return TransientError(
                "EC2 cannot be reached", where="option region", why=why, hint="Check the network, region and endpoint", code="unreachable"
            )
        if isinstance(error, names.ParamValidationError):
            return MachineError(
                f"EC2's {operation} does not take an option",
                why=" ".join(why.split()),
                hint="Correct the option that it names",
                code="invalid_option",
            )
        return MachineError(f"The AWS library could not do {operation}", why=why, code="provider_error")

    def _region_known(self) -> bool:
        session = self._session.Session()
        return any(self.region in session.get_available_regions("ec2", partition_name=name) for name in session.get_available_partitions())

    def _unknown_region(self, why: str) -> MachineError:
        return MachineError(
            f"AWS has no region {self.region!r}",
            where="option region",
            why=why,
            hint="Name a region such as eu-central-1",
            code="unknown_region",
        )
