# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state machine, with a driver that keeps its machines in memory and a clock that only moves when it is waited on."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.dockyard.machine.plugins.module_utils.driver import (
    WANTED_STATES,
    Converger,
    Difference,
    Driver,
    Wanted,
    converge,
    new_deadline,
    plan,
)
from ansible_collections.dockyard.machine.plugins.module_utils.errors import DeadlineError, MachineError, TransientError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import Machine, State
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Clock


class FakeClock(Clock):
    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += max(seconds, 0.01)


class MemoryDriver(Driver):
    """A provider whose machines take ``delay`` looks to reach a state."""

    name = "memory"
    options: t.ClassVar[dict[str, t.Any]] = {}

    def __init__(self, wanted: Wanted, machine: Machine | None = None, delay: int = 2) -> None:
        super().__init__(wanted, {}, new_deadline(wanted, FakeClock()))
        self.machine = machine
        self.delay = delay
        self.pending: list[str] = []
        self.calls: list[str] = []
        self.differences: list[Difference] = []
        self.left: list[str] = []
        self.fail: dict[str, list[Exception]] = {}
        self.deaf = False

    def _call(self, verb: str) -> None:
        self.calls.append(verb)
        if self.fail.get(verb):
            raise self.fail[verb].pop(0)

    def _later(self, transient: str, state: str) -> None:
        assert self.machine
        self.machine.state = transient
        self.pending = [transient] * self.delay + [state]

    def find(self) -> Machine | None:
        self._call("find")
        if self.machine and self.pending:
            self.machine.state = self.pending.pop(0)
            if self.machine.state == "gone":
                self.machine = None
        return self.machine

    def list(self) -> list[Machine]:
        return [self.machine] if self.machine else []

    def check(self) -> None:
        self._call("check")

    def create(self) -> None:
        self._call("create")
        self.machine = Machine(self.wanted.name, self.name, id="i-1", address="192.0.2.1", token=self.wanted.token)
        self._later(State.STARTING, State.RUNNING)
        if self.fail.get("after create"):
            raise self.fail["after create"].pop(0)

    def start(self, machine: Machine) -> None:
        self._call("start")
        self._later(State.STARTING, State.RUNNING)

    def stop(self, machine: Machine) -> None:
        self._call("stop")
        if not self.deaf:
            self._later(State.STOPPING, State.STOPPED)

    def kill(self, machine: Machine) -> None:
        self._call("kill")
        self._later(State.STOPPING, State.STOPPED)

    def restart(self, machine: Machine) -> None:
        self._call("restart")
        self._later(State.STARTING, State.RUNNING)

    def delete(self, machine: Machine) -> None:
        self._call("delete")
        self._later(State.STOPPING, "gone")

    def drift(self, machine: Machine) -> list[Difference]:
        return self.differences

    def update(self, machine: Machine, differences: t.Sequence[Difference]) -> None:
        self._call("update")

    def leftovers(self) -> list[str]:
        return self.left

    def delete_leftovers(self) -> None:
        self._call("delete_leftovers")
        self.left = []

    @property
    def verbs(self) -> list[str]:
        return [call for call in self.calls if call not in ("find", "check")]


def driver(state: str, actual: str | None = None, **kwargs: t.Any) -> MemoryDriver:
    machine = Machine("web1", "memory", id="i-0", state=actual, address="192.0.2.1") if actual else None
    return MemoryDriver(Wanted("web1", state=state, token="t0"), machine, **kwargs)


@pytest.mark.parametrize(
    ("wanted", "actual", "verbs", "after"),
    [
        ("present", None, ["create"], "running"),
        ("present", "stopped", [], "stopped"),
        ("present", "error", [], "error"),
        ("started", None, ["create"], "running"),
        ("started", "running", [], "running"),
        ("started", "stopped", ["start"], "running"),
        ("started", "paused", ["start"], "running"),
        ("started", "saved", ["start"], "running"),
        ("stopped", "running", ["stop"], "stopped"),
        ("stopped", "stopped", [], "stopped"),
        ("stopped", "paused", ["kill"], "stopped"),
        ("killed", "running", ["kill"], "stopped"),
        ("killed", "stopped", [], "stopped"),
        ("killed", "error", ["kill"], "stopped"),
        ("restarted", "running", ["restart"], "running"),
        ("restarted", "stopped", ["start"], "running"),
        ("absent", None, [], None),
        ("absent", "running", ["delete"], None),
        ("absent", "error", ["delete"], None),
    ],
)
def test_from_every_state_to_every_wanted_one(wanted: str, actual: str | None, verbs: list[str], after: str | None) -> None:
    one = driver(wanted, actual)
    outcome = converge(one)
    assert one.verbs == verbs
    assert outcome.changed is bool(verbs)
    assert outcome.actions == verbs
    assert (outcome.machine.state if outcome.machine else None) == after


@pytest.mark.parametrize("wanted", WANTED_STATES)
@pytest.mark.parametrize("actual", [None, *State.ALL])
def test_check_mode_predicts_and_touches_nothing(wanted: str, actual: str | None) -> None:
    try:
        expected = plan(driver(wanted, actual).machine, wanted)
    except MachineError as error:
        with pytest.raises(MachineError) as caught:
            converge(driver(wanted, actual), check_mode=True)
        assert caught.value.code == error.code
        return
    one = driver(wanted, actual)
    outcome = converge(one, check_mode=True)
    assert one.verbs == []
    assert outcome.changed is bool([step for step in expected if ":" not in step])


def test_a_second_run_changes_nothing() -> None:
    one = driver("started")
    assert converge(one).changed
    again = converge(one)
    assert not again.changed
    assert one.verbs == ["create"]


def test_a_machine_between_two_states_is_waited_for_first() -> None:
    one = driver("started", "stopping")
    one.pending = ["stopping", "stopping", "stopped"]
    converge(one)
    assert one.verbs == ["start"]


def test_power_verbs_need_a_machine() -> None:
    for state in ("stopped", "killed", "restarted"):
        with pytest.raises(MachineError) as caught:
            converge(driver(state))
        assert caught.value.code == "missing_machine"


def test_a_broken_machine_is_reported_with_the_providers_words() -> None:
    one = driver("started", "error")
    assert one.machine
    one.machine.details["fault"] = "no valid host"
    with pytest.raises(MachineError, match="no valid host") as caught:
        converge(one)
    assert caught.value.code == "machine_in_error"
    assert one.verbs == []


def test_a_half_made_machine_is_made_anew() -> None:
    one = driver("started", "stopped")
    assert one.machine
    one.machine.complete = False
    assert converge(one).actions == ["delete", "create"]


def test_what_would_fail_is_found_before_anything_is_made() -> None:
    one = driver("started")
    one.fail["check"] = [MachineError("bad size", where="option size", code="unknown_size")]
    converger = Converger(one)
    with pytest.raises(MachineError):
        converger.run()
    assert one.verbs == []
    assert converger.outcome.touched is False


def test_a_connection_lost_after_create_makes_no_second_machine() -> None:
    one = driver("started")
    one.fail["after create"] = [TransientError("connection lost")]
    assert converge(one).machine is not None
    assert one.verbs == ["create"]


def test_a_connection_lost_before_create_is_an_error_and_not_repeated() -> None:
    one = driver("started")
    one.fail["create"] = [TransientError("connection lost")]
    with pytest.raises(MachineError) as caught:
        converge(one)
    assert caught.value.code == "create_failed"
    assert one.verbs == ["create"]


def test_a_refused_creation_that_left_nothing_is_as_good_as_never_begun() -> None:
    one = driver("started")
    one.fail["create"] = [MachineError("quota", code="quota")]
    converger = Converger(one)
    with pytest.raises(MachineError):
        converger.run()
    assert converger.outcome.touched is False
    one.left = ["key web1"]
    one.fail["create"] = [MachineError("quota", code="quota")]
    converger = Converger(one)
    with pytest.raises(MachineError):
        converger.run()
    assert converger.outcome.touched is True


def test_a_refusal_is_told_even_when_nobody_can_look_what_it_left() -> None:
    one = driver("started")
    refusal = MachineError("quota", code="quota")

    def create() -> None:
        one.fail["find"] = [MachineError("no permission", code="bad_credentials")]
        raise refusal

    one.create = create  # type: ignore[method-assign]
    converger = Converger(one)
    with pytest.raises(MachineError) as caught:
        converger.run()
    assert caught.value is refusal
    assert converger.outcome.touched is True


def test_a_creation_whose_end_is_not_known_is_remembered() -> None:
    one = driver("started")
    one.fail["create"] = [TransientError("connection lost")]
    converger = Converger(one)
    with pytest.raises(MachineError):
        converger.run()
    assert converger.outcome.touched is True


def test_other_calls_are_repeated_while_the_fault_may_pass() -> None:
    one = driver("stopped", "running")
    one.fail["stop"] = [TransientError("throttled", retry_after=3), TransientError("throttled")]
    converge(one)
    assert one.verbs == ["stop", "stop", "stop"]


def test_a_machine_that_does_not_shut_down_loses_its_power_and_the_user_hears_of_it() -> None:
    one = driver("stopped", "running")
    one.deaf = True
    assert converge(one).machine.state == "stopped"
    assert one.verbs == ["stop", "kill"]
    assert "did not shut down" in one.warnings[0]


def test_a_machine_that_never_starts_is_given_up_with_what_was_seen() -> None:
    one = driver("started", "stopped", delay=100000)
    one.wanted.timeouts["start"] = 30
    with pytest.raises(DeadlineError) as caught:
        converge(one)
    assert "start" in caught.value.message and "state starting" in caught.value.message


def test_an_error_during_a_wait_ends_it() -> None:
    one = driver("started", "stopped")
    one.start = lambda machine: setattr(one, "pending", ["starting", "error"])  # type: ignore[method-assign]
    with pytest.raises(MachineError) as caught:
        converge(one)
    assert caught.value.code == "machine_in_error"


def test_differences_are_applied_in_place_and_the_rest_is_said() -> None:
    one = driver("started", "running")
    one.differences = [
        Difference("tags", {}, {"a": "b"}),
        Difference("cpus", 1, 2, needs_stop=True),
        Difference("image", "x", "y", in_place=False),
    ]
    outcome = converge(one)
    assert one.verbs == ["update"]
    assert outcome.changed
    assert any("needs re-creation" in warning for warning in one.warnings)
    assert any("while the machine is stopped" in warning for warning in one.warnings)


def test_a_difference_that_needs_a_stop_is_applied_before_a_stopped_machine_starts() -> None:
    one = driver("started", "stopped")
    one.differences = [Difference("cpus", 1, 2, needs_stop=True)]
    converge(one)
    assert one.verbs == ["update", "start"]


def test_leftovers_of_a_machine_that_is_gone_are_removed_once() -> None:
    one = driver("absent")
    one.left = ["key web1"]
    assert converge(one, check_mode=True).changed
    assert one.verbs == []
    assert converge(one).leftovers == ["key web1"]
    assert one.verbs == ["delete_leftovers"]
    assert not converge(one).changed
