# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver contract, and the one state machine that uses it.

A driver answers what a provider knows and does what it is told, one API call after the other. What is to be
done, in which order, how long to wait and what to say when it fails stands here, once, for all of them.
"""

from __future__ import annotations

import abc
import dataclasses
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import ENGINE_PORT, Machine, State
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Clock, Deadline, poll, retry

T = t.TypeVar("T")

WANTED_STATES: t.Final = ("present", "started", "stopped", "restarted", "killed", "absent")

# Seconds each phase may take unless the user says otherwise.
DEFAULT_TIMEOUTS: t.Final = {"create": 900, "start": 600, "stop": 180, "delete": 600}


@dataclasses.dataclass
class Wanted:
    """What the user asked for, the same for every driver."""

    name: str
    state: str = "started"
    owner: str = ""
    token: str = ""
    """Random, from the record; makes creation idempotent and marks this generation of the name."""
    provider_id: str = ""
    """The record's id, a shortcut for ``find``; the tags decide."""
    tags: dict[str, str] = dataclasses.field(default_factory=dict)
    ssh_user: str = ""
    ssh_public_key: str = ""
    user_data: str = ""
    """Complete user-data for the first boot. Secret: it may hold the throw-away host key."""
    engine_port: int = ENGINE_PORT
    timeout: float = 1800
    """Seconds for everything together."""
    timeouts: dict[str, float] = dataclasses.field(default_factory=dict)
    poll_interval: float = 1.0


@dataclasses.dataclass(frozen=True)
class Difference:
    """One option whose actual value is not the wanted one."""

    option: str
    actual: t.Any
    wanted: t.Any
    in_place: bool = True
    """False: only a new machine can have the wanted value."""
    needs_stop: bool = False
    """True: it can be changed, but only while the machine is stopped."""

    def __str__(self) -> str:
        return f"{self.option} is {self.actual!r}, wanted {self.wanted!r}."


class Driver(abc.ABC):
    """One provider. A subclass makes API calls and raises ``MachineError`` or ``TransientError``, nothing else.

    ``find``, ``list``, ``leftovers`` and ``delete`` may be repeated at will. ``create`` is called once a run; a
    driver whose provider honours an idempotency token sends one made from ``wanted.token``.
    """

    name: t.ClassVar[str]
    options: t.ClassVar[dict[str, t.Any]]
    """The argument spec of the driver's own options."""
    default_ssh_user: t.ClassVar[str] = "root"
    has_power: t.ClassVar[bool] = True
    """False when the provider cannot switch the machine on or off."""
    remembered: t.ClassVar[tuple[str, ...]] = ()
    """Options that say where to look; a later run takes them from the machine's details when nobody gives them."""
    creates: t.ClassVar[bool] = True
    """False when the driver only refers to a host that exists already."""

    def __init__(self, wanted: Wanted, options: t.Mapping[str, t.Any], deadline: Deadline) -> None:
        self.wanted = wanted
        self.opts = options
        self.deadline = deadline
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        """Tell the user something that is no failure."""
        self.warnings.append(message)

    def check(self) -> None:
        """Find what would make ``create`` fail, before anything is made. Reads only."""

    @abc.abstractmethod
    def find(self) -> Machine | None:
        """The machine with our name and mark, whatever its state; None when there is none.

        Raises:
            MachineError: ``not_ours`` when the name is taken by something that doesn't carry our mark.
        """

    @abc.abstractmethod
    def list(self) -> t.List[Machine]:  # noqa: UP006 - the method shadows the builtin
        """Every machine of ``wanted.owner`` at this provider, by as few calls as it has pages."""

    @abc.abstractmethod
    def create(self) -> None:
        """Make the machine and what it needs, marked from the very call that makes it."""

    @abc.abstractmethod
    def delete(self, machine: Machine) -> None:
        """Remove the machine and what was made for it. Nothing there is fine."""

    def start(self, machine: Machine) -> None:
        """Ask the provider to start it."""
        raise self.no_power("start")

    def stop(self, machine: Machine) -> None:
        """Ask it to shut down; ``converge`` waits."""
        raise self.no_power("stop")

    def kill(self, machine: Machine) -> None:
        """Take its power away."""
        raise self.no_power("kill")

    def restart(self, machine: Machine) -> None:
        """Restart it; returns when the restart is under way, so that "running" means "running again"."""
        raise self.no_power("restart")

    def no_power(self, verb: str) -> MachineError:
        """The error for a verb that this provider doesn't have."""
        return MachineError(
            f"The driver {self.name} cannot {verb} a machine",
            where=f"machine {self.wanted.name}",
            why="it has no access to the host's power",
            code="unsupported",
        )

    def drift(self, machine: Machine) -> t.List[Difference]:  # noqa: UP006
        """Options whose actual value differs from the wanted one. Reads only."""
        return []

    def update(self, machine: Machine, differences: t.Sequence[Difference]) -> None:
        """Apply differences that can be changed in place."""

    def leftovers(self) -> t.List[str]:  # noqa: UP006
        """Names of resources that carry our mark though the machine is gone; ``delete_leftovers`` removes them."""
        return []

    def delete_leftovers(self) -> None:
        """Remove what ``leftovers`` named."""


@dataclasses.dataclass
class Outcome:
    """What converge did, or in check mode would do."""

    changed: bool = False
    machine: Machine | None = None
    before: Machine | None = None
    actions: list[str] = dataclasses.field(default_factory=list)
    differences: list[Difference] = dataclasses.field(default_factory=list)
    leftovers: list[str] = dataclasses.field(default_factory=list)
    touched: bool = False
    """A call that changes something was made, or begun."""


# What to do, by the wanted state (row) and the actual one (column). "wait:X" waits for state X.
_START = {
    State.RUNNING: [],
    State.STOPPED: ["start"],
    State.PAUSED: ["start"],
    State.SAVED: ["start"],
    State.STARTING: ["wait:running"],
    State.STOPPING: ["wait:stopped", "start"],
}
_STOP = {
    State.RUNNING: ["stop"],
    State.STOPPED: [],
    State.PAUSED: ["kill"],
    State.SAVED: [],
    State.STARTING: ["wait:running", "stop"],
    State.STOPPING: ["wait:stopped"],
}
_PLANS: dict[str, dict[str, list[str]]] = {
    "present": {},
    "started": _START,
    "stopped": _STOP,
    "killed": {**_STOP, State.RUNNING: ["kill"], State.STARTING: ["kill"], State.ERROR: ["kill"], State.UNKNOWN: ["kill"]},
    "restarted": {**_START, State.RUNNING: ["restart"], State.STARTING: ["wait:running"]},
}


def plan(machine: Machine | None, state: str) -> list[str]:
    """The steps from what is to what is wanted.

    Raises:
        MachineError: ``missing_machine`` when a machine that doesn't exist shall change its power state, and
            ``machine_error`` when its provider calls it broken.
    """
    if state == "absent":
        return [] if machine is None else ["delete"]
    if machine is None:
        if state in ("present", "started"):
            return ["create"]
        raise MachineError(
            "There is no such machine",
            why=f"state {state} needs one that exists",
            hint="Create it first, with state=started",
            code="missing_machine",
        )
    if not machine.complete and state in ("present", "started"):
        return ["delete", "create"]
    steps = _PLANS[state].get(machine.state)
    if steps is not None:
        return list(steps)
    if state == "present":
        return []
    raise MachineError(
        f"The machine {machine.name} is in state '{machine.state}'",
        where=f"driver {machine.driver}",
        why=str(machine.details.get("fault", "its provider reports no more")),
        hint="Look at it at the provider, repair it, or remove it with state=absent and create it again",
        code="machine_in_error",
    )


class Converger:
    """Takes one machine from what is to what is wanted."""

    def __init__(self, driver: Driver, *, check_mode: bool = False) -> None:
        self.driver = driver
        self.wanted = driver.wanted
        self.check_mode = check_mode
        self.deadline = driver.deadline
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Do it; see :func:`converge`."""
        before = self._find()
        self.outcome.before = before
        self.outcome.machine = before
        steps = plan(before, self.wanted.state)
        if steps and steps[-1] == "create":
            self.driver.check()
        if before is not None and before.complete and self.wanted.state in ("present", "started"):
            steps = self._with_updates(before, steps)
        if before is None and self.wanted.state == "absent":
            self._leftovers()
        for step in steps:
            self._step(step)
        return self.outcome

    def _leftovers(self) -> None:
        self.outcome.leftovers = self._repeat(self.driver.leftovers, "look for leftovers")
        if self.outcome.leftovers:
            self.outcome.changed = True
            self.outcome.actions.append("delete_leftovers")
            if not self.check_mode:
                self._repeat(self.driver.delete_leftovers, "delete leftovers")

    def _with_updates(self, machine: Machine, steps: list[str]) -> list[str]:
        """Add the update to the plan where it can be made now; warn about the rest."""
        found = self._repeat(lambda: self.driver.drift(machine), "compare options")
        self.outcome.differences = found
        possible = [item for item in found if item.in_place and not (item.needs_stop and machine.state != State.STOPPED)]
        for item in found:
            if not item.in_place:
                self.driver.warn(
                    f"{item.option} is {item.actual!r}, wanted {item.wanted!r}: this needs re-creation (state=absent, then started)."
                )
            elif item not in possible:
                self.driver.warn(f"{item} This can only be changed while the machine is stopped.")
        return ["update", *steps] if possible else steps

    def _step(self, step: str) -> None:
        verb, dummy, target = step.partition(":")
        if verb == "wait":
            if not self.check_mode:
                self._wait(target, "start" if target == State.RUNNING else "stop")
            return
        self.outcome.changed = True
        self.outcome.actions.append(verb)
        if self.check_mode:
            self.outcome.machine = self._predict(verb)
            return
        self.outcome.touched = True
        getattr(self, f"_{verb}")()

    def _predict(self, verb: str) -> Machine | None:
        """What the machine would be after ``verb``."""
        now = self.outcome.machine
        if verb == "delete":
            return None
        if verb == "create" or now is None:
            return Machine(self.wanted.name, self.driver.name, state=State.RUNNING, owner=self.wanted.owner, tags=dict(self.wanted.tags))
        state = {"stop": State.STOPPED, "kill": State.STOPPED, "update": now.state}.get(verb, State.RUNNING)
        return dataclasses.replace(now, state=state)

    # --- steps -------------------------------------------------------------------------------------------------

    def _create(self) -> None:
        try:
            self.driver.create()
        except TransientError as error:
            # The provider may have done the work: look by mark, never repeat the call blind.
            if self._find() is None:
                raise MachineError(
                    f"Creating the machine {self.wanted.name} failed",
                    where=error.where,
                    why=error.why or error.what,
                    hint=error.hint or "Run it again; what was begun is found and finished",
                    code="create_failed",
                ) from error
        except MachineError:
            # Refused for sure. When nothing came of it, the caller need not remember it.
            if self.outcome.actions == ["create"]:
                self.outcome.touched = self._left_something()
            raise
        self._wait(State.RUNNING, "create")

    def _left_something(self) -> bool:
        """Whether a refused creation left anything behind; in doubt it did."""
        try:
            return bool(self._find() or self._repeat(self.driver.leftovers, "look for leftovers"))
        except MachineError:
            return True

    def _update(self) -> None:
        machine = self._current()
        self._repeat(lambda: self.driver.update(machine, self.outcome.differences), "update")
        self.outcome.machine = self._find()

    def _start(self) -> None:
        self._repeat(lambda: self.driver.start(self._current()), "start")
        self._wait(State.RUNNING, "start")

    def _restart(self) -> None:
        self._repeat(lambda: self.driver.restart(self._current()), "restart")
        self._wait(State.RUNNING, "start")

    def _stop(self) -> None:
        """Graceful first; when its deadline passes, the power goes."""
        self._repeat(lambda: self.driver.stop(self._current()), "stop")
        grace = self._phase("stop")
        while not grace.over:
            machine = self._find()
            if machine is None or machine.state in (State.STOPPED, State.SAVED):
                self.outcome.machine = machine
                return
            grace.sleep(self.wanted.poll_interval)
        self.driver.warn(f"{self.wanted.name} did not shut down within {grace.elapsed():.0f} s; its power was taken away.")
        self._kill()

    def _kill(self) -> None:
        self._repeat(lambda: self.driver.kill(self._current()), "kill")
        self._wait(State.STOPPED, "stop")

    def _delete(self) -> None:
        machine = self._current()
        self._repeat(lambda: self.driver.delete(machine), "delete")

        def gone() -> tuple[bool | None, str]:
            found = self._find()
            return (True, "") if found is None else (None, f"state {found.state}")

        poll(gone, phase="delete", deadline=self._phase("delete"), interval=self.wanted.poll_interval, where=f"machine {self.wanted.name}")
        self.outcome.machine = None

    # --- helpers -----------------------------------------------------------------------------------------------

    def _current(self) -> Machine:
        machine = self.outcome.machine
        if machine is None:
            raise MachineError(
                f"The machine {self.wanted.name} vanished", why="somebody else removed it", hint="Run it again", code="vanished"
            )
        return machine

    def _phase(self, name: str) -> Deadline:
        return self.deadline.within(float(self.wanted.timeouts.get(name, DEFAULT_TIMEOUTS[name])))

    def _repeat(self, call: t.Callable[[], T], phase: str) -> T:
        return retry(call, phase=phase, deadline=self.deadline)

    def _find(self) -> Machine | None:
        return self._repeat(self.driver.find, "find")

    def _wait(self, state: str, phase: str) -> None:
        """Wait until the machine is in ``state``; a running one also has to have an address."""

        def look() -> tuple[Machine | None, str]:
            found = self._find()
            if found is None:
                return None, "the provider does not show the machine"
            if found.state == State.ERROR:
                raise MachineError(
                    f"The machine {found.name} went into an error state during '{phase}'",
                    where=f"driver {found.driver}",
                    why=str(found.details.get("fault", "its provider reports no more")),
                    hint="Remove it with state=absent and create it again",
                    code="machine_in_error",
                )
            ready = found.state == state and (state != State.RUNNING or bool(found.address))
            return (found if ready else None), f"state {found.state}, address {found.address or 'none'}"

        self.outcome.machine = poll(
            look,
            phase=phase,
            deadline=self._phase(phase),
            interval=self.wanted.poll_interval,
            where=f"machine {self.wanted.name}",
            hint=f"Give it more time with timeouts.{phase}, or look at the machine at its provider",
        )


def converge(driver: Driver, *, check_mode: bool = False) -> Outcome:
    """Take the driver's machine to its wanted state; do only what is missing.

    In check mode nothing is changed and the outcome tells what would be.

    Raises:
        MachineError: when it cannot be done; what was made so far carries our mark and is found by the next run.
    """
    return Converger(driver, check_mode=check_mode).run()


def new_deadline(wanted: Wanted, clock: Clock | None = None) -> Deadline:
    """The deadline for everything together."""
    return Deadline(wanted.timeout, clock)
