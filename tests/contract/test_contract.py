# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every driver keeps to, whatever its provider."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import pathlib
import subprocess
import sys
import time
import typing as t

import backend as contract
import pytest

from ansible_collections.dockyard.machine.plugins.module_utils.driver import Outcome, converge
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import Machine, State

CREATING = 12
"""No driver needs more writes than this to make or remove a machine."""


def run(backend: contract.Backend, state: str = "started", name: str = "web1", check_mode: bool = False, **changes: t.Any) -> Outcome:
    options = changes.pop("options", {})
    return converge(backend.make(backend.wanted(name, state=state, **changes), **options), check_mode=check_mode)


def attempt(backend: contract.Backend, state: str = "started", **changes: t.Any) -> MachineError | None:
    """Run; an error is an answer here, but only one of ours."""
    try:
        run(backend, state, **changes)
    except MachineError as error:
        return error
    return None


def found(backend: contract.Backend, name: str = "web1") -> Machine:
    """The machine as a computer sees it that has no store."""
    time.sleep(backend.settle)
    machine = backend.make(backend.wanted(name, token="", provider_id="")).find()
    assert machine is not None
    return machine


def assert_one(backend: contract.Backend, state: str = State.RUNNING) -> Machine:
    assert len(backend.machines()) == 1
    machine = found(backend)
    assert machine.state == state
    assert machine.complete
    return machine


def assert_nothing(backend: contract.Backend) -> None:
    time.sleep(backend.settle)
    assert backend.machines() == []
    assert backend.resources() == []


def test_absent_at_first(backend: contract.Backend) -> None:
    outcome = run(backend, "absent")
    assert not outcome.changed and outcome.machine is None
    assert_nothing(backend)


def test_create(backend: contract.Backend) -> None:
    outcome = run(backend, tags={"Purpose": "test"})
    machine = outcome.machine
    assert outcome.changed and outcome.actions == ["create"]
    assert machine is not None
    assert (machine.name, machine.driver, machine.owner, machine.token) == ("web1", backend.driver.name, "contract", "web1-token")
    assert machine.state == State.RUNNING and machine.address and machine.id
    assert machine.tags == {"Purpose": "test"}
    assert json.loads(json.dumps(machine.to_dict()))["endpoint"]
    assert_one(backend)


def test_secrets_stay_out_of_the_machine(backend: contract.Backend) -> None:
    machine = run(backend, user_data="#cloud-config\n# s3cret-first-key\n{}\n").machine
    assert machine is not None
    shown = json.dumps(machine.to_dict())
    assert "s3cret-first-key" not in shown
    for option, value in backend.options().items():
        if backend.driver.options[option].get("no_log") and isinstance(value, str) and len(value) > 6:
            assert value not in shown, option


def test_idempotent(backend: contract.Backend) -> None:
    first = run(backend, tags={"Purpose": "test"}).machine
    before = backend.resources()
    again = run(backend, tags={"Purpose": "test"})
    assert not again.changed and again.actions == [] and again.differences == []
    assert again.machine == first
    assert backend.resources() == before


@pytest.mark.needs(contract.EMPTY_STORE)
def test_found_by_its_marks_alone(backend: contract.Backend) -> None:
    made = run(backend).machine
    assert made is not None
    machine = found(backend)
    assert (machine.id, machine.token, machine.address) == (made.id, "web1-token", made.address)
    again = run(backend, token="", provider_id="")
    assert not again.changed
    assert backend.make(backend.wanted("web2")).find() is None
    assert backend.make(backend.wanted(owner="somebody-else")).find() is None


@pytest.mark.needs(contract.EMPTY_STORE)
def test_list(backend: contract.Backend) -> None:
    for name in ("web1", "web2", "web3"):
        run(backend, name=name)
    run(backend, name="other", owner="somebody-else")
    machines = backend.make(backend.wanted("")).list()
    assert sorted(machine.name for machine in machines) == ["web1", "web2", "web3"]
    assert all(machine.address and machine.owner == "contract" for machine in machines)


@pytest.mark.needs(contract.EMPTY_STORE)
def test_absent_with_an_empty_store(backend: contract.Backend) -> None:
    run(backend)
    outcome = run(backend, "absent", token="", provider_id="")
    assert outcome.changed and outcome.actions == ["delete"]
    assert_nothing(backend)


@pytest.mark.needs(contract.EMPTY_STORE)
def test_another_owner_is_left_alone(backend: contract.Backend) -> None:
    run(backend, owner="somebody-else")
    assert not run(backend, "absent").changed
    assert len(backend.machines()) == 1
    run(backend)
    assert len(backend.machines()) == 2
    run(backend, "absent")
    theirs = backend.make(backend.wanted(owner="somebody-else")).find()
    assert theirs is not None and theirs.owner == "somebody-else"
    run(backend, "absent", owner="somebody-else")
    assert_nothing(backend)


def test_check_mode_changes_nothing(backend: contract.Backend) -> None:
    outcome = run(backend, check_mode=True)
    assert outcome.changed and outcome.actions == ["create"] and outcome.machine is not None
    assert_nothing(backend)
    run(backend)
    before = backend.resources()
    outcome = run(backend, "absent", check_mode=True)
    assert outcome.changed and outcome.actions == ["delete"] and outcome.machine is None
    assert backend.resources() == before
    assert not run(backend, check_mode=True).changed


@pytest.mark.needs(contract.POWER)
def test_check_mode_leaves_the_power_alone(backend: contract.Backend) -> None:
    run(backend)
    for state, action in (("stopped", "stop"), ("killed", "kill"), ("restarted", "restart")):
        outcome = run(backend, state, check_mode=True)
        assert outcome.changed and outcome.actions == [action]
    assert_one(backend)


@pytest.mark.needs(contract.POWER)
def test_stop_and_start(backend: contract.Backend) -> None:
    run(backend)
    outcome = run(backend, "stopped")
    assert outcome.changed and outcome.actions[0] == "stop"
    assert_one(backend, State.STOPPED)
    assert not run(backend, "stopped").changed
    assert not run(backend, "killed").changed
    assert not run(backend, "present").changed
    outcome = run(backend, "started")
    assert outcome.changed and outcome.actions == ["start"]
    assert outcome.machine is not None and outcome.machine.address
    assert_one(backend)


@pytest.mark.needs(contract.POWER)
def test_kill_and_restart(backend: contract.Backend) -> None:
    run(backend)
    outcome = run(backend, "restarted")
    assert outcome.changed and outcome.actions == ["restart"]
    assert_one(backend)
    outcome = run(backend, "killed")
    assert outcome.changed and outcome.actions == ["kill"]
    assert_one(backend, State.STOPPED)
    outcome = run(backend, "restarted")
    assert outcome.changed and outcome.actions == ["start"]
    assert_one(backend)


@pytest.mark.needs(contract.POWER)
def test_power_of_nothing(backend: contract.Backend) -> None:
    error = attempt(backend, "stopped")
    assert error is not None and error.code == "missing_machine"


@pytest.mark.needs(contract.ADDRESS)
def test_a_changed_address_is_noticed(backend: contract.Backend) -> None:
    old = run(backend).machine
    address = backend.change_address("web1")
    outcome = run(backend)
    assert old is not None and outcome.machine is not None
    assert outcome.machine.address == address != old.address
    assert outcome.machine.id == old.id
    assert "create" not in outcome.actions


@pytest.mark.needs(contract.TAGS)
def test_tags_change_in_place(backend: contract.Backend) -> None:
    first = run(backend, tags={"Purpose": "test", "Stage": "one"}).machine
    check = run(backend, tags={"Purpose": "prod", "Extra": "yes"}, check_mode=True)
    assert check.changed and check.actions == ["update"]
    assert found(backend).tags == {"Purpose": "test", "Stage": "one"}
    outcome = run(backend, tags={"Purpose": "prod", "Extra": "yes"})
    assert outcome.changed and outcome.actions == ["update"]
    machine = assert_one(backend)
    assert first is not None and machine.id == first.id
    assert machine.tags == {"Purpose": "prod", "Extra": "yes"}
    assert not run(backend, tags={"Purpose": "prod", "Extra": "yes"}).changed


@pytest.mark.needs(contract.OUTSIDE)
def test_deleted_outside_is_made_again(backend: contract.Backend) -> None:
    first = run(backend).machine
    assert first is not None
    backend.delete_outside("web1")
    outcome = run(backend, provider_id=first.id, token="another-token")
    assert outcome.actions == ["create"]
    assert outcome.machine is not None and outcome.machine.id != first.id
    assert_one(backend)
    run(backend, "absent")
    assert_nothing(backend)


@pytest.mark.needs(contract.OUTSIDE)
def test_deleted_outside_and_unwanted(backend: contract.Backend) -> None:
    first = run(backend).machine
    assert first is not None
    backend.delete_outside("web1")
    assert attempt(backend, "absent", provider_id=first.id) is None
    assert_nothing(backend)
    assert not run(backend, "absent", provider_id=first.id).changed


@pytest.mark.needs(contract.ADOPT)
def test_a_machine_of_docker_machine_is_taken_over(backend: contract.Backend) -> None:
    identifier = backend.foreign("web1")
    assert backend.make(backend.wanted()).find() is None
    outcome = run(backend, provider_id=identifier)
    assert "create" not in outcome.actions
    assert outcome.machine is not None and outcome.machine.id == identifier
    # From now on its marks are enough.
    assert found(backend).id == identifier
    assert not run(backend, token="", provider_id="").changed
    run(backend, "absent", token="", provider_id="")
    assert_nothing(backend)


@pytest.mark.needs(contract.ADOPT)
def test_somebody_elses_machine_is_not_taken_over(backend: contract.Backend) -> None:
    identifier = backend.foreign("web2")
    for state in ("started", "absent"):
        error = attempt(backend, state, provider_id=identifier)
        assert error is not None and error.code == "not_ours"
    assert_nothing(backend)


def test_delete_and_delete_again(backend: contract.Backend) -> None:
    run(backend)
    outcome = run(backend, "absent")
    assert outcome.changed and outcome.actions == ["delete"] and outcome.machine is None
    assert_nothing(backend)
    again = run(backend, "absent")
    assert not again.changed and again.actions == []


def test_make_delete_make(backend: contract.Backend) -> None:
    run(backend)
    run(backend, "absent")
    assert run(backend, token="second-generation").actions == ["create"]
    assert found(backend).token == "second-generation"
    run(backend, "absent")
    assert_nothing(backend)


@pytest.mark.needs(contract.PARALLEL)
def test_ten_in_parallel(backend: contract.Backend) -> None:
    names = [f"web{number}" for number in range(10)]
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        made = list(pool.map(lambda name: run(backend, name=name), names))
        assert [outcome.actions for outcome in made] == [["create"]] * 10
        assert len({outcome.machine.id for outcome in made if outcome.machine}) == 10
        assert len(backend.machines()) == 10
        again = list(pool.map(lambda name: run(backend, name=name), names))
        assert [outcome.changed for outcome in again] == [False] * 10
        # Half of them go while others come: what they share has to stay.
        jobs = [pool.submit(run, backend, "absent", name) for name in names[:5]]
        jobs += [pool.submit(run, backend, "started", f"new{number}") for number in range(3)]
        for job in jobs:
            job.result()
    assert len(backend.machines()) == 8
    rest = [*names[5:], "new0", "new1", "new2"]
    assert [run(backend, name=name).actions for name in rest] == [[]] * 8
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda name: run(backend, "absent", name), rest))
    assert_nothing(backend)


# --- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.needs(contract.FAULTS)
@pytest.mark.parametrize("on", ["read", "write", "create"])
def test_throttling_is_waited_out(backend: contract.Backend, on: str) -> None:
    backend.fault("throttle", on=on, times=2, retry_after=1)
    started = time.monotonic()
    assert run(backend).actions == ["create"]
    assert time.monotonic() - started >= 2
    assert_one(backend)


@pytest.mark.needs(contract.FAULTS, contract.POWER)
def test_throttling_of_verbs_is_waited_out(backend: contract.Backend) -> None:
    run(backend)
    for state in ("stopped", "started", "restarted", "absent"):
        backend.fault("throttle", on="write", retry_after=0)
        assert run(backend, state).changed
    assert_nothing(backend)


@pytest.mark.needs(contract.FAULTS)
def test_a_busy_service_is_asked_again(backend: contract.Backend) -> None:
    backend.fault("error", on="read", times=3, status=503)
    assert run(backend).actions == ["create"]
    assert_one(backend)
    backend.fault("error", on="read", times=3, status=500)
    backend.fault("cut_before", on="read", times=1)
    assert not run(backend).changed


@pytest.mark.needs(contract.FAULTS)
def test_a_dead_service_ends_with_one_clear_error(backend: contract.Backend) -> None:
    backend.fault("error", on="*", times=0, status=503)
    error = attempt(backend, timeout=3)
    assert error is not None and error.message and error.code
    backend.clear()
    assert_nothing(backend)


@pytest.mark.needs(contract.FAULTS)
@pytest.mark.parametrize("kind", ["error", "error_after", "cut_before", "cut_after"])
def test_a_lost_create_never_makes_two(backend: contract.Backend, kind: str) -> None:
    backend.fault(kind, on="create", times=1)
    error = attempt(backend)
    if kind in ("cut_after", "error_after"):
        assert error is None, "the machine was there and was not found"
    assert len(backend.machines()) <= 1
    run(backend)
    assert_one(backend)
    run(backend, "absent")
    assert_nothing(backend)


@pytest.mark.needs(contract.FAULTS)
def test_lagging_reads(backend: contract.Backend) -> None:
    backend.fault("lag", seconds=0.6)
    assert run(backend).actions == ["create"]
    time.sleep(0.7)
    assert not run(backend).changed
    assert len(backend.machines()) == 1
    run(backend, "absent")
    time.sleep(0.7)
    assert not run(backend, "absent").changed
    backend.clear()
    assert_nothing(backend)


@pytest.mark.needs(contract.FAULTS)
def test_a_lost_create_that_shows_late_never_makes_two(backend: contract.Backend) -> None:
    backend.fault("lag", seconds=0.6)
    backend.fault("cut_after", on="create", times=1)
    attempt(backend)
    time.sleep(0.7)
    run(backend)
    assert_one(backend)


def each_write(backend: contract.Backend, kind: str, state: str, prepare: t.Callable[[], object]) -> t.Iterator[int]:
    """Every write of one run in turn meets a fault; ends when a run has no such write any more."""
    for number in range(CREATING + 1):
        backend.reset()
        prepare()
        before = backend.writes()
        backend.fault(kind, on="write", times=1, skip=number)
        attempt(backend, state)
        if backend.writes() - before <= number:
            backend.clear()
            assert number > 0, "the run changed nothing"
            return
        backend.clear()
        yield number
    raise AssertionError(f"more than {CREATING} writes for one machine")


@pytest.mark.needs(contract.FAULTS)
@pytest.mark.parametrize("kind", ["error", "cut_after"])
def test_any_write_of_a_creation_may_fail(backend: contract.Backend, kind: str) -> None:
    for number in each_write(backend, kind, "started", lambda: None):
        assert len(backend.machines()) <= 1, f"write {number}"
        run(backend)
        assert_one(backend)
        run(backend, "absent")
        assert_nothing(backend)


@pytest.mark.needs(contract.FAULTS)
@pytest.mark.parametrize("kind", ["error", "cut_after"])
def test_a_creation_that_failed_is_cleaned_up(backend: contract.Backend, kind: str) -> None:
    for number in each_write(backend, kind, "started", lambda: None):
        run(backend, "absent")
        assert backend.resources() == [], f"write {number}"
        assert_nothing(backend)


@pytest.mark.needs(contract.FAULTS)
@pytest.mark.parametrize("kind", ["error", "cut_after"])
def test_any_write_of_a_deletion_may_fail(backend: contract.Backend, kind: str) -> None:
    for number in each_write(backend, kind, "absent", lambda: run(backend)):
        run(backend, "absent")
        assert backend.resources() == [], f"write {number}"
        assert_nothing(backend)


@pytest.mark.needs(contract.LIMITS)
@pytest.mark.parametrize("kind", ["quota", "capacity"])
def test_a_limit_is_one_clear_error(backend: contract.Backend, kind: str) -> None:
    backend.fault(kind, times=0)
    error = attempt(backend)
    assert error is not None and error.code == kind
    assert error.where and error.hint
    backend.clear()
    assert backend.machines() == []
    run(backend, "absent")
    assert_nothing(backend)
    run(backend)
    assert_one(backend)


@pytest.mark.needs(contract.BROKEN)
def test_a_machine_that_ends_in_an_error(backend: contract.Backend) -> None:
    backend.fault("operation_error", times=1)
    error = attempt(backend)
    assert error is not None and error.message and error.hint
    backend.clear()
    run(backend, "absent")
    assert_nothing(backend)
    run(backend)
    assert_one(backend)


def test_bad_options_are_refused_before_anything_is_made(backend: contract.Backend) -> None:
    if not backend.bad():
        pytest.skip(f"{backend.name} lists no bad options")
    for bad in backend.bad():
        for check_mode in (True, False):
            with pytest.raises(MachineError) as caught:
                run(backend, options=bad.options, check_mode=check_mode)
            error = caught.value
            assert error.code == bad.code, error.message
            assert bad.option in error.where, error.message
            assert error.hint, error.message
            assert_nothing(backend)


# --- killed -------------------------------------------------------------------------------------------------------


def kill_at(backend: contract.Backend, number: int, state: str = "started") -> bool:
    """Kill a run right after its write ``number`` had its effect; False when it ended before."""
    wanted = backend.wanted(state=state)
    order = {
        "module": backend.driver.__module__,
        "class": backend.driver.__name__,
        "wanted": dataclasses.asdict(wanted),
        "options": dict(backend.make(wanted).opts),
    }
    backend.fault("hold_after", on="write", times=1, skip=number, seconds=backend.patience)
    script = pathlib.Path(__file__).with_name("converge_once.py")
    with subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        json.dump(order, child.stdin)
        child.stdin.close()
        ends = time.monotonic() + backend.patience
        held = False
        while not held and child.poll() is None and time.monotonic() < ends:
            held = backend.wait_held(0.05)
        child.kill()
        output = child.stdout.read()
    backend.release()
    assert held or output.strip() == "done", "the run neither came to that write nor to its end"
    return held


@pytest.mark.needs(contract.HOLD)
def test_killed_anywhere_in_a_creation(backend: contract.Backend) -> None:
    for number in range(CREATING):
        backend.reset()
        if not kill_at(backend, number):
            assert number > 0
            return
        backend.clear()
        assert len(backend.machines()) <= 1
        run(backend)
        assert_one(backend)
        run(backend, "absent")
        assert_nothing(backend)
    raise AssertionError(f"more than {CREATING} writes for one machine")


@pytest.mark.needs(contract.HOLD)
def test_killed_in_a_creation_and_removed(backend: contract.Backend) -> None:
    for number in range(CREATING):
        backend.reset()
        if not kill_at(backend, number):
            assert number > 0
            return
        backend.clear()
        run(backend, "absent", token="")
        assert_nothing(backend)
    raise AssertionError(f"more than {CREATING} writes for one machine")
