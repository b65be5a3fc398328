# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the drivers of public clouds share: options, ports, address ranges, image aliases, throttling, words for errors."""

from __future__ import annotations

import datetime
import email.utils
import ipaddress
import re
import socket
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Deadline, retry

T = t.TypeVar("T")

CLOUD_OPTIONS: t.Final[dict[str, t.Any]] = {
    "allowed_cidrs": {"type": "list", "elements": "str", "default": []},
    "open_ports": {"type": "list", "elements": "str", "default": []},
    "private_address_only": {"type": "bool", "default": False},
    "ipv6": {"type": "bool", "default": False},
    "delete_protection": {"type": "bool", "default": False},
}
"""Options of every cloud driver; their documentation stands in the fragment ``cloud``."""

ERROR_CODES: t.Final = (
    "missing_library",
    "bad_credentials",
    "quota",
    "capacity",
    "unknown_image",
    "unknown_size",
    "unknown_region",
    "invalid_option",
    "not_ours",
    "not_found",
    "protected",
    "throttled",
    "unreachable",
    "provider_error",
)
"""The codes that a cloud driver's errors have, so that playbooks can tell them apart whatever the provider."""

IMAGE_ALIASES: t.Final = ("debian-12", "debian-13", "ubuntu-22.04", "ubuntu-24.04", "ubuntu-26.04")
"""Images that every cloud driver knows by these names; each maps them to its provider's own."""

DEFAULT_IMAGE: t.Final = "debian-12"

WORLD: t.Final = ("0.0.0.0/0", "::/0")

SSH_PORT: t.Final = 22

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/([a-z]+))?")


class Port(t.NamedTuple):
    """A range of ports that is reachable from outside; one port when both ends are equal."""

    first: int
    last: int
    protocol: str = "tcp"

    def __str__(self) -> str:
        ends = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        return f"{ends}/{self.protocol}"


def invalid(option: str, what: str, hint: str, why: str = "") -> MachineError:
    """The error for an option's value that cannot be."""
    return MachineError(what, where=f"option {option}", why=why, hint=hint, code="invalid_option")


def parse_ports(ports: t.Iterable[t.Any], *, option: str = "open_ports") -> list[Port]:
    """Read ports written ``8080``, ``53/udp`` or ``8000-8010/tcp``; sorted, without repetitions.

    Raises:
        MachineError: ``invalid_option``.
    """
    found = set()
    for given in ports:
        match = _PORT.fullmatch(str(given).strip().lower())
        first = int(match.group(1)) if match else 0
        last = int(match.group(2) or first) if match else 0
        protocol = (match.group(3) or "tcp") if match else ""
        if protocol not in ("tcp", "udp") or not 0 < first <= last <= 65535:
            raise invalid(
                option,
                f"{given!r} is no port",
                "Write PORT, PORT/PROTOCOL or FIRST-LAST/PROTOCOL, for example 8080/tcp; protocols are tcp and udp",
            )
        found.add(Port(first, last, protocol))
    return sorted(found)


def needed_ports(opts: t.Mapping[str, t.Any], engine_port: int) -> list[Port]:
    """What has to be reachable: SSH, the engine, and ``open_ports``."""
    return sorted({Port(SSH_PORT, SSH_PORT), Port(engine_port, engine_port), *parse_ports(opts["open_ports"])})


def check_cidrs(cidrs: t.Iterable[t.Any], *, option: str = "allowed_cidrs") -> list[str]:
    """Read address ranges; a bare address means itself. Sorted, without repetitions; empty stays empty.

    The world (``0.0.0.0/0``, ``::/0``) stands in the result only when it stands in ``cidrs``.

    Raises:
        MachineError: ``invalid_option``; also for a range with host bits, which most often is a slip of the keyboard.
    """
    found: set[ipaddress.IPv4Network | ipaddress.IPv6Network] = set()
    for given in cidrs:
        try:
            found.add(ipaddress.ip_network(str(given).strip()))
        except ValueError as error:
            hint = "Write ADDRESS/BITS, for example 203.0.113.0/24"
            raise invalid(option, f"{given!r} is no address range", hint, why=str(error)) from error
    in_order = sorted(found, key=lambda network: (network.version, int(network.network_address), network.prefixlen))
    return [str(network) for network in in_order]


def is_world(cidrs: t.Iterable[str]) -> bool:
    """Whether the ranges let everybody in."""
    return any(cidr in WORLD for cidr in cidrs)


def route_address(host: str, port: int = 443) -> str:
    """The address of this computer from which it reaches ``host``; nothing is sent.

    Raises:
        MachineError: ``unreachable`` when the name cannot be resolved or there is no route.
    """
    try:
        choices = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        # IPv4 first: that is how a new machine is reached.
        family, kind, protocol, dummy, target = sorted(choices, key=lambda choice: choice[0] != socket.AF_INET)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise MachineError(
            "The controller's own address could not be found",
            where="option allowed_cidrs",
            why=f"there is no way to {host}: {error}",
            hint="List the address ranges that may reach the machine in allowed_cidrs",
            code="unreachable",
        ) from error


def controller_cidr(host: str, port: int = 443, *, private: bool = False, ask: t.Callable[[], str] | None = None) -> str:
    """The range that holds only this computer, as a new machine will see it.

    Args:
        host: the provider's API, towards which the route is looked up.
        port: its port.
        private: the machine is reached at a private address, so that ours may be private too.
        ask: asks the provider for the address that it sees, where it has such a service; used when ours is behind NAT.

    Raises:
        MachineError: ``invalid_option`` when ours is a private address, which the machine would never see.
    """
    address = ipaddress.ip_address(route_address(host, port).partition("%")[0])
    if not (private or address.is_global or address.is_loopback):
        if ask is None:
            raise invalid(
                "allowed_cidrs",
                "Nobody said who may reach the machine",
                "List address ranges in allowed_cidrs, at best the public address of this network",
                why=f"this controller is behind address translation ({address}), so its public address is not known here",
            )
        address = ipaddress.ip_address(ask().strip())
    return str(ipaddress.ip_network(address))


def allowed_cidrs(opts: t.Mapping[str, t.Any], host: str, port: int = 443, *, ask: t.Callable[[], str] | None = None) -> list[str]:
    """Who may reach the machine: what the user listed, else only the controller. Never the world unless it was listed.

    Raises:
        MachineError: see :func:`check_cidrs` and :func:`controller_cidr`.
    """
    listed = check_cidrs(opts["allowed_cidrs"])
    return listed or [controller_cidr(host, port, private=bool(opts["private_address_only"]), ask=ask)]


def retry_after(headers: t.Mapping[str, str] | None) -> float | None:
    """Seconds that a server asks to wait: ``Retry-After`` (RFC 9110, section 10.2.3), or ``RateLimit-Reset`` as an epoch.

    None when it doesn't say, or says nothing that can be read.
    """
    values = {key.lower(): str(value).strip() for key, value in (headers or {}).items()}
    now = datetime.datetime.now(tz=datetime.timezone.utc)
    given = values.get("retry-after", "")
    if re.fullmatch(r"\d+(\.\d+)?", given):
        return float(given)
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(given) - now).total_seconds())
    except (TypeError, ValueError):
        pass
    reset = values.get("ratelimit-reset", "")
    return max(0.0, float(reset) - now.timestamp()) if values.get("ratelimit-remaining") == "0" and reset.isdigit() else None


def retry_throttled(call: t.Callable[[], T], *, phase: str, deadline: Deadline) -> T:
    """Repeat a call that is not idempotent while it is throttled, and only then: a throttled call had no effect.

    Any other ``TransientError`` may have had one and is raised at once.
    """
    others: list[TransientError] = []

    def once() -> T | None:
        try:
            return call()
        except TransientError as error:
            if error.code == "throttled":
                raise
            others.append(error)
            return None

    answer = retry(once, phase=phase, deadline=deadline)
    if others:
        raise others[0]
    return t.cast(T, answer)


def missing_library(driver: str, package: str, error: ImportError) -> MachineError:
    """The error for an SDK that is not installed where the module runs."""
    return MachineError(
        f"The driver {driver} needs the Python library {package}",
        where=f"driver {driver}",
        why=str(error),
        hint=f"Install it for the Python that runs the module: pip install {package}",
        code="missing_library",
    )


def protected(name: str, option: str = "delete_protection") -> MachineError:
    """The error for a machine that must not be deleted."""
    return MachineError(
        f"The machine {name} is protected against deletion",
        where=f"option {option}",
        hint=f"Run it once with {option} false (state=started), then remove it",
        code="protected",
    )
