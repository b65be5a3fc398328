# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the contract suite needs to know of a provider.

``tests/contract/backends/NAME.py`` defines ``class Backend``, a subclass of :class:`Backend` below, or of
:class:`FakeBackend` where the provider is a ``fakes.core.Fake``. The suite makes one for a whole run, calls
:meth:`Backend.reset` before every test, and leaves out the tests of what a backend doesn't list in ``can``.
"""

from __future__ import annotations

import abc
import dataclasses
import fnmatch
import importlib.util
import pathlib
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.driver import Driver, Wanted, new_deadline

BACKENDS = pathlib.Path(__file__).parent / "backends"

# What a backend can show; a test names what it needs.
POWER = "power"  # start, stop, restart, kill
TAGS = "tags"  # tags change in place
ADDRESS = "address"  # change_address()
OUTSIDE = "outside"  # delete_outside()
FAULTS = "faults"  # fault(): throttle, error, error_after, cut_before, cut_after, lag
HOLD = "hold"  # fault(hold_after) with wait_held() and release(): the client is killed there
LIMITS = "limits"  # fault(): quota, capacity
BROKEN = "broken"  # fault(operation_error): the machine ends in an error
PARALLEL = "parallel"  # ten at once
EMPTY_STORE = "empty_store"  # found by its marks alone, and by list()
ADOPT = "adopt"  # foreign(): a machine as Docker Machine made it; not in EVERYTHING
EVERYTHING = frozenset({POWER, TAGS, ADDRESS, OUTSIDE, FAULTS, HOLD, LIMITS, BROKEN, PARALLEL, EMPTY_STORE})


@dataclasses.dataclass(frozen=True)
class Bad:
    """A value that a user may give wrongly, and what the error has to say."""

    options: dict[str, t.Any]
    code: str
    option: str
    """The option that the error's ``where`` has to name."""


class Backend(abc.ABC):
    """One provider as tests see it."""

    name: str
    driver: type[Driver]
    can: frozenset[str] = EVERYTHING
    poll_interval = 0.05
    patience = 60.0
    """Seconds that any one step may take."""
    settle = 0.0
    """Seconds after which the provider shows everything that was done (real providers; fakes are asked directly)."""

    @abc.abstractmethod
    def start(self) -> None:
        """Start it; it stays until :meth:`stop`."""

    @abc.abstractmethod
    def stop(self) -> None:
        """End it and leave nothing."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Remove all machines and faults."""

    @abc.abstractmethod
    def options(self) -> dict[str, t.Any]:
        """The driver's options for a machine that works: end point, credentials, size ..."""

    def bad(self) -> list[Bad]:
        """Options that must be refused before anything is made."""
        return []

    @abc.abstractmethod
    def resources(self) -> list[str]:
        """Everything at the provider that carries any mark of ours, read past the driver, as ``kind name``."""

    @abc.abstractmethod
    def machines(self) -> list[str]:
        """Ids of the machines at the provider that carry our mark, read past the driver."""

    def delete_outside(self, name: str) -> None:
        """Remove the machine as somebody else would, and nothing of what belongs to it."""
        raise NotImplementedError

    def change_address(self, name: str) -> str:
        """Give the machine another address; returns it."""
        raise NotImplementedError

    def foreign(self, name: str) -> str:
        """Make a machine without any mark, as Docker Machine did; returns its id."""
        raise NotImplementedError

    def fault(self, kind: str, **settings: t.Any) -> None:
        """Arm a fault; kinds and settings are those of ``fakes.core``. ``on`` also knows ``create``: the call that makes the machine."""
        raise NotImplementedError

    def clear(self) -> None:
        """Disarm all faults."""

    def wait_held(self, timeout: float) -> bool:
        """See ``fakes.core.Fake.wait_held``."""
        raise NotImplementedError

    def release(self) -> None:
        """See ``fakes.core.Fake.release``."""

    def writes(self) -> int:
        """How many requests so far changed something."""
        raise NotImplementedError

    # --- what tests use ----------------------------------------------------------------------------------------

    def wanted(self, name: str = "web1", **changes: t.Any) -> Wanted:
        """A machine as a user wants it, in small times."""
        values: dict[str, t.Any] = {
            "name": name,
            "owner": "contract",
            "token": f"{name}-token",
            "ssh_user": self.driver.default_ssh_user,
            "ssh_public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEfP5qkY8dPG2Yf2u7mWUQ7lHhfJ1d6V0kW2bF1c9YxP contract",
            "user_data": "#cloud-config\n{}\n",
            "timeout": self.patience,
            "poll_interval": self.poll_interval,
        }
        return Wanted(**{**values, **changes})

    def make(self, wanted: Wanted, **options: t.Any) -> Driver:
        """A driver as its module would make it, the defaults of its options filled in."""
        given = {**self.options(), **options}
        unknown = set(given) - set(self.driver.options)
        assert not unknown, f"{self.name} has no options {sorted(unknown)}"
        return self.driver(wanted, {**defaults(self.driver.options), **given}, new_deadline(wanted))


def defaults(spec: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What AnsibleModule gives for options that the user left out, environment aside."""
    return {name: option.get("default") for name, option in spec.items()}


class FakeBackend(Backend):
    """A backend whose provider is a ``fakes.core.Fake``, in this process."""

    create_call = "create"
    """The operation name (a glob) of the call that makes the machine."""

    def __init__(self) -> None:
        self.fake: t.Any = self.make_fake()

    @abc.abstractmethod
    def make_fake(self) -> t.Any:
        """The fake, not started."""

    def start(self) -> None:
        """See Backend."""
        self.fake.start()

    def stop(self) -> None:
        """See Backend."""
        self.fake.stop()

    def reset(self) -> None:
        """See Backend."""
        self.fake.reset()

    def fault(self, kind: str, **settings: t.Any) -> None:
        """See Backend."""
        if settings.get("on") == "create":
            settings["on"] = self.create_call
        self.fake.arm(kind, **settings)

    def clear(self) -> None:
        """See Backend."""
        self.fake.disarm()

    def wait_held(self, timeout: float) -> bool:
        """See Backend."""
        return bool(self.fake.wait_held(timeout))

    def release(self) -> None:
        """See Backend."""
        self.fake.release()

    def writes(self) -> int:
        """See Backend."""
        return len(self.fake.calls(write=True))

    def calls(self, pattern: str) -> int:
        """How many requests so far were this operation."""
        return sum(1 for entry in self.fake.calls() if fnmatch.fnmatchcase(entry.operation, pattern))


def load(name: str) -> type[Backend]:
    """The class ``Backend`` of ``backends/NAME.py``."""
    spec = importlib.util.spec_from_file_location(f"contract_backend_{name}", BACKENDS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: type[Backend] = module.Backend
    return found


def names() -> list[str]:
    """All backends there are."""
    return sorted(path.stem for path in BACKENDS.glob("*.py"))
